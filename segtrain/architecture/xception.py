"""Aligned Xception (DeepLabv3+, arXiv 1802.02611, section 3.2), by timm, tapped for the decoder."""

from typing import Annotated

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.blocks import Normalize
from segtrain.architecture.weights import load_weights, not_fetched, read_state_dict
from segtrain.values import OutputStride, Rule, Text

AlignedXception = Annotated[
    str,
    Rule(
        "that names an aligned Xception: xception41, xception65 or xception71 "
        "(architecture/backbone=timm takes any other model)",
        lambda name: name.startswith("xception") and timm.is_model(name),
    ),
]


class Xception(nn.Module):
    """timm's xception41, 65 or 71 without its classifier.

    Its first map is what DeepLabv3+'s decoder takes: the second separable convolution of the
    entry flow's block from stride 4 to 8, with 256 channels, before the strided third. ReLUs stand
    where the authors' released network has them: before the separable convolutions, in the exit
    flow after each depthwise one.

    Args:
        name: timm's model name.
        weights: `imagenet` (downloaded by timm), `none` (random), or a file of timm's names.
        output_stride: of the last map: 8, 16 or 32.

    Attributes: as of TimmBackbone.
    """

    def __init__(self, name: AlignedXception, weights: Text, output_stride: OutputStride) -> None:
        super().__init__()
        self.name = name
        try:
            self.body = timm.create_model(
                name, pretrained=weights == "imagenet", output_stride=output_stride, num_classes=0
            )
        except (OSError, RuntimeError) as error:
            raise not_fetched(name, error) from error
        if weights not in ("imagenet", "none"):
            load_weights(self.body, read_state_dict(weights), weights, ignore=("head.",))
        self.tapped = 2 if name.startswith("xception71") else 1  # the block from stride 4 to 8
        self.channels = [256, self.body.feature_info[-1]["num_chs"]]
        self.strides = [4, output_stride]
        self.starts = [(stride - 1) / 2 for stride in self.strides]
        self.output_stride = output_stride
        self.normalize = Normalize(*(self.body.pretrained_cfg[key] for key in ("mean", "std")))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB -> low-level map (N, 256, H/4, W/4), last map (N, 2048, h, w)."""
        x = self.body.stem(self.normalize(image))
        for block in self.body.blocks[: self.tapped]:
            x = block(x)
        block = self.body.blocks[self.tapped]
        low_level = block.stack.conv2(F.relu(block.stack.conv1(F.relu(x))))
        x = block.stack.conv3(F.relu(low_level)) + block.shortcut(x)
        for block in self.body.blocks[self.tapped + 1 :]:
            x = block(x)
        return [low_level, self.body.act(x)]
