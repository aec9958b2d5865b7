"""Swin on maps of any size: Liu et al., Swin Transformer: Hierarchical Vision Transformer using
Shifted Windows, ICCV 2021 (arXiv 2103.14030)."""

from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional as F


class PaddedBlock(SwinTransformerBlock):
    """timm's block, which pads a map to whole windows before it shifts them, as the authors' code
    for detection and segmentation does; timm's own pads after."""

    def _attn(self, x: Tensor) -> Tensor:  # (N, H, W, C) -> (N, H, W, C)
        _, height, width, channels = x.shape
        window, shift = self.window_size, self.shift_size
        missing = [-length % side for length, side in zip((height, width), window, strict=True)]
        padded = F.pad(x, (0, 0, 0, missing[1], 0, missing[0]))
        rolled = padded.roll([-step for step in shift], (1, 2)) if any(shift) else padded
        windows = window_partition(rolled, window).view(-1, self.window_area, channels)
        attended = self.attn(windows, mask=self.get_attn_mask(rolled))
        merged = window_reverse(attended.view(-1, *window, channels), window, *padded.shape[1:3])
        if any(shift):
            merged = merged.roll(list(shift), (1, 2))
        return merged[:, :height, :width].contiguous()


def pad_before_shift(body: nn.Module) -> None:
    """Makes the blocks of a Swin Transformer of timm's pad first; others are left alone."""
    for block in body.modules():
        if type(block) is SwinTransformerBlock:
            block.__class__ = PaddedBlock  # timm builds its blocks itself
