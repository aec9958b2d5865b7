"""SegFormer: Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers, NeurIPS 2021 (arXiv 2105.15203)."""

import re
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.backbone import CLASSIFIER_KEYS, TimmBackbone
from segtrain.architecture.blocks import concatenate, conv_norm_act, init_classifier, init_head
from segtrain.architecture.imagenet import fetch_flavour
from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.contracts import Outputs, resize
from segtrain.values import Count, Positive, ProperFraction, Text

# A Mix Transformer is timm's PVT v2 whose feed-forward layers are four times as wide in each stage.
PVT_V2 = {f"mit_b{size}": f"pvt_v2_b{size}" for size in range(6)}
AUTHORS_EPSILON = 1e-6  # of the layer norms in and behind the stages; others have 1e-5
MixTransformerName = Literal["mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5"]


class MixTransformer(TimmBackbone):
    """Hierarchical transformer without position embeddings (section 3.1).

    Args:
        name: B0 to B5 (table 6).
        weights: `imagenet` (the authors', for non-commercial use, as MMSegmentation converts them),
            `none`, or a file in timm's names or MMSegmentation's.
        drop_path: rate of stochastic depth in the last block; it rises linearly from 0.
        norm_epsilon: of the layer norms in and behind the stages; 1e-5 in transformers.
        timm_arguments: more of timm's settings, such as `{embed_dims: [16, 32, 80, 128]}` for a
            narrower one.
    """

    def __init__(
        self,
        name: MixTransformerName,
        weights: Text,
        drop_path: ProperFraction,
        norm_epsilon: Positive = 1e-6,  # older runs say none of these
        timm_arguments: dict | None = None,
    ) -> None:
        settings = {"mlp_ratios": [4, 4, 4, 4], "drop_path_rate": drop_path}
        super().__init__(PVT_V2[name], "none", 32, False, None, settings | (timm_arguments or {}))
        self.name = name
        for norm in self.body.modules():
            if isinstance(norm, nn.LayerNorm) and norm.eps == AUTHORS_EPSILON:
                norm.eps = norm_epsilon
        if weights != "none":
            state = fetch_flavour(name) if weights == "imagenet" else read_state_dict(weights)
            origin = name if weights == "imagenet" else weights
            state = {key.removeprefix("backbone."): value for key, value in state.items()}
            load_weights(self.body, mix_transformer_state(state), origin, CLASSIFIER_KEYS)

    def forward(self, image: Tensor) -> list[Tensor]:
        """As `TimmBackbone`; images below 32 pixels, which have too few cells to attend to, are
        continued by their last row and column."""
        height, width = image.shape[2:]
        missing = [torch.sym_max(32 - length, 0) for length in (height, width)]
        maps = super().forward(F.pad(image.float(), (0, missing[1], 0, missing[0]), "replicate"))
        return [
            x[:, :, : (height + stride - 1) // stride, : (width + stride - 1) // stride]
            for x, stride in zip(maps, self.strides, strict=True)
        ]


# MMSegmentation's names of a Mix Transformer, whose ImageNet weights are the authors' own.
NAMES = (
    (r"^layers\.0\.0\.projection\.", "patch_embed.proj."),
    (r"^layers\.0\.0\.norm\.", "patch_embed.norm."),
    (r"^layers\.(\d)\.0\.projection\.", r"stages_\1.downsample.proj."),
    (r"^layers\.(\d)\.0\.norm\.", r"stages_\1.downsample.norm."),
    (r"^layers\.(\d)\.1\.", r"stages_\1.blocks."),
    (r"^layers\.(\d)\.2\.", r"stages_\1.norm."),
    (r"\.attn\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ffn\.layers\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.dwconv."),
    (r"\.ffn\.layers\.4\.", ".mlp.fc2."),
)


def mix_transformer_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """MMSegmentation's tensors of a Mix Transformer under timm's names; others stay as they are."""
    ours = {}
    for name, tensor in state.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        if ".attn.attn.in_proj_" in name:  # queries, then keys and values
            query, *rest = tensor.chunk(3)
            ours[name.replace("attn.attn.in_proj_", "attn.q.")] = query
            ours[name.replace("attn.attn.in_proj_", "attn.kv.")] = torch.cat(rest)
        else:
            is_linear = re.search(r"\.mlp\.fc\d\.weight$", name) is not None
            ours[name] = tensor.flatten(1) if is_linear else tensor
    return ours


class SegFormerHead(nn.Module):
    """Each map projected to the same channels, resized to the first, joined by a 1x1 convolution
    (section 3.2)."""

    def __init__(
        self,
        in_channels: list[int],
        channels: int,
        projection_norm: bool,
        dropout: float,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            conv_norm_act(width, channels, kernel_size=1)
            if projection_norm
            else nn.Conv2d(width, channels, 1)
            for width in in_channels
        )
        self.fusion = conv_norm_act(len(in_channels) * channels, channels, kernel_size=1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        init_head(self.fusion)
        init_classifier(self.classifier)

    def forward(self, maps: list[Tensor]) -> Tensor:  # (N, C_i, h_i, w_i) each -> (N, K, h_0, w_0)
        size = maps[0].shape[2:]
        projected = [
            resize(project(x), size, False)
            for project, x in zip(self.projections, maps, strict=True)
        ]
        return self.classifier(self.dropout(self.fusion(concatenate(projected))))


class SegFormer(nn.Module):
    """Mix Transformer and a head of 1x1 convolutions (figure 2).

    Args:
        backbone: gives four maps; a Mix Transformer in the paper.
        channels: of the head: 256 for B0 and B1, 768 for the others (table 6).
        projection_norm: whether batch norm and ReLU follow each map's projection, as in
            MMSegmentation; the authors' code has neither.
        dropout: rate before the classifier, of whole channels.
        num_classes: K.
    """

    def __init__(
        self,
        backbone: TimmBackbone,
        channels: Count,
        projection_norm: bool,
        dropout: ProperFraction,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.align_corners = False
        self.head = SegFormerHead(
            backbone.channels, channels, projection_norm, dropout, num_classes
        )

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at output stride 4."""
        return {"logits": self.head(self.backbone(image)), "align_corners": self.align_corners}
