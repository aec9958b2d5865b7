"""EncNet: Zhang, Dana, Shi, Zhang, Wang, Tyagi & Agrawal, Context Encoding for Semantic
Segmentation, CVPR 2018 (arXiv 1803.08904)."""

import torch
from torch import Tensor, nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.blocks import (
    FCNHead,
    concatenate,
    conv_norm_act,
    init_classifier,
    init_head,
)
from segtrain.contracts import Outputs, resize
from segtrain.values import Count


class Encoding(nn.Module):
    """Residuals of all cells to learned codewords, softly assigned and summed (section 3.1).

    e_k = sum_i a_ik (x_i - d_k), with a_i the softmax over k of s_k ||x_i - d_k||^2.

    Args:
        channels: C, of cells and codewords.
        num_codes: K.
    """

    def __init__(self, channels: int, num_codes: int) -> None:
        super().__init__()
        bound = (num_codes * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(num_codes, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(num_codes).uniform_(-1, 0))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, K, C) float32
        with torch.autocast(x.device.type, enabled=False):
            cells = x.float().flatten(2).transpose(1, 2)  # (N, h*w, C)
            codewords = self.codewords.float()
            # Squared distances expanded, so that no (N, h*w, K, C) tensor is made.
            distance = (
                cells.square().sum(2, keepdim=True)
                - 2 * cells @ codewords.T
                + codewords.square().sum(1)
            )
            assigned = (self.scale.float() * distance).softmax(dim=2)  # (N, h*w, K)
            total = assigned.sum(dim=1).unsqueeze(2)  # (N, K, 1)
            return assigned.transpose(1, 2) @ cells - total * codewords


class ContextEncoding(nn.Module):
    """Encoding layer whose result scales the channels of its input and predicts which classes the
    image shows (section 3.1, figure 2).

    As in the authors' code, the normalised codes are averaged (summed in the paper), and scaled
    features are added to the input (they replace it in the paper).
    """

    def __init__(self, channels: int, num_codes: int, num_classes: int) -> None:
        super().__init__()
        self.conv = conv_norm_act(channels, channels, kernel_size=1)
        self.encoding = Encoding(channels, num_codes)
        self.norm = nn.BatchNorm1d(num_codes)
        self.attention = nn.Linear(channels, channels)
        self.presence_classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) -> the same scaled by context, and presence logits (N, K)."""
        codes = self.norm(self.encoding(self.conv(x))).relu().mean(dim=1)  # (N, C)
        factor = self.attention(codes).sigmoid()[:, :, None, None]
        return (x + x * factor).relu(), self.presence_classifier(codes)


class EncNet(nn.Module):
    """Dilated backbone, context encoding with the SE-loss's presence output, auxiliary head.

    The classifiers of pixels start from N(0, 0.01), as MMSegmentation's; that of presence as
    PyTorch has it, and in the authors' code all of them.

    Args:
        backbone: gives four feature maps; deep-stem ResNet at output stride 8 in the paper.
        channels: of the head (512).
        num_codes: codewords (32).
        lateral: also takes the second and third stage, as for the PASCAL sets.
        auxiliary: FCN head on the third stage, in training only (the authors' code; the paper has
            a second SE-loss there).
        align_corners: how maps and logits are resized; true in the authors' code.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        channels: Count,
        num_codes: Count,
        lateral: bool,
        auxiliary: bool,
        align_corners: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = align_corners
        _, second, third, last = backbone.channels
        self.conv = conv_norm_act(last, channels, kernel_size=3)
        self.laterals = nn.ModuleList(
            conv_norm_act(width, channels, kernel_size=1)
            for width in ((second, third) if lateral else ())
        )
        self.fusion = conv_norm_act(3 * channels, channels, 3) if lateral else nn.Identity()
        self.context = ContextEncoding(channels, num_codes, num_classes)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        for part in (self.conv, self.laterals, self.fusion, self.context):
            init_head(part)
        init_classifier(self.classifier)
        self.auxiliary = FCNHead(third, num_classes, dropout=0.1) if auxiliary else None

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at the backbone's output stride."""
        maps = self.backbone(image)
        x = self.conv(maps[-1])
        if self.laterals:
            features = [x]
            for lateral, feature in zip(self.laterals, maps[1:3], strict=True):
                features.append(resize(lateral(feature), x.shape[2:], self.align_corners))
            x = self.fusion(concatenate(features))
        x, presence = self.context(x)
        logits = self.classifier(self.dropout(x))
        outputs: Outputs = {"logits": logits, "align_corners": self.align_corners}
        if self.training:
            outputs["presence"] = presence
            if self.auxiliary is not None:
                outputs["aux"] = self.auxiliary(maps[-2])
        return outputs
