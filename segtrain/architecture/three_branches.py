"""The branches of PIDNet: Xu, Xiong & Bhattacharyya, PIDNet: A Real-time Semantic Segmentation
Network Inspired by PID Controllers, CVPR 2023 (arXiv 2206.02066)."""

import re
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.blocks import (
    BatchNorm,
    Normalize,
    concatenate,
    conv_norm_act,
    init_head,
)
from segtrain.architecture.imagenet import TORCHVISION, fetch_flavour
from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.contracts import resize
from segtrain.values import Text


class Size(NamedTuple):
    """Of a PIDNet, as in the authors' code.

    Attributes:
        channels: C, at stride 2.
        pooled_channels: of each scale of the pyramid pooling.
        stem_blocks: m, residual blocks a stage of the stem and of the P branch.
        branch_blocks: n, residual blocks a stage of the I branch.
        light: whether pooling is parallel (PAPPM) and the three branches are joined by 1x1
            convolutions (light Bag), as in S and M; L has DAPPM and Bag.
    """

    channels: int
    pooled_channels: int
    stem_blocks: int
    branch_blocks: int
    light: bool


SIZES = {
    "pidnet_s": Size(32, 96, 2, 3, light=True),
    "pidnet_m": Size(64, 96, 2, 3, light=True),
    "pidnet_l": Size(64, 112, 3, 4, light=False),
}
PIDNetName = Literal["pidnet_s", "pidnet_m", "pidnet_l"]


def conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
) -> nn.Sequential:
    """Padded convolution and batch norm."""
    return conv_norm_act(in_channels, out_channels, kernel_size, stride=stride)[:-1]


def norm_act_conv(
    in_channels: int, out_channels: int, kernel_size: int, groups: int = 1
) -> nn.Sequential:
    """Batch norm, ReLU, convolution of unchanged size."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size,
        padding=kernel_size // 2, groups=groups, bias=False,
    )  # fmt: skip
    return nn.Sequential(BatchNorm(in_channels), nn.ReLU(inplace=True), conv)


class Block(nn.Module):
    """Residual block of two 3x3 convolutions, or a bottleneck to twice the channels.

    Args:
        in_channels: of the input.
        channels: of the convolutions.
        bottleneck: whether it is 1x1, 3x3 and 1x1 convolutions.
        stride: of the first 3x3 convolution.
        act: whether a ReLU ends it.
    """

    def __init__(
        self, in_channels: int, channels: int, bottleneck: bool, stride: int = 1, act: bool = False
    ) -> None:
        super().__init__()
        if bottleneck:
            out_channels = 2 * channels
            self.conv1 = conv_norm_act(in_channels, channels, 1)
            self.conv2 = conv_norm_act(channels, channels, 3, stride=stride)
            self.conv3 = conv_norm(channels, out_channels, 1)
        else:
            out_channels = channels
            self.conv1 = conv_norm_act(in_channels, channels, 3, stride=stride)
            self.conv2 = conv_norm(channels, channels, 3)
            self.conv3 = nn.Identity()
        is_same = stride == 1 and in_channels == out_channels
        self.downsample = None if is_same else conv_norm(in_channels, out_channels, 1, stride)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:  # (N, in, h, w) -> (N, out, h / stride, w / stride)
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.conv3(self.conv2(self.conv1(x))) + shortcut
        return F.relu(out) if self.act else out


def stage(
    in_channels: int, channels: int, blocks: int, bottleneck: bool = False, stride: int = 1
) -> nn.Sequential:
    """Residual blocks, of which only the last has no ReLU at its end; bottlenecks have none."""
    widths = [in_channels] + [channels * (1 + bottleneck)] * (blocks - 1)
    return nn.Sequential(
        *(
            Block(width, channels, bottleneck, 1 if i else stride,
                  act=not bottleneck and i < blocks - 1)
            for i, width in enumerate(widths)
        )
    )  # fmt: skip


class Pag(nn.Module):
    """Pixel-attention-guided fusion: I enters P where both agree."""

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.f_i = conv_norm(channels, key_channels, 1)
        self.f_p = conv_norm(channels, key_channels, 1)

    def forward(self, p: Tensor, i: Tensor) -> Tensor:  # (N, C, h, w), (N, C, h', w') -> as p
        size = p.shape[2:]
        agreement = self.f_p(p) * resize(self.f_i(i), size, False)
        share = agreement.sum(1, keepdim=True).sigmoid()
        return share * resize(i, size, False) + (1 - share) * p


class AggregationPooling(nn.Module):
    """Context of five scales: parallel (PAPPM), or one after the other, each with what those
    before found (DAPPM; Hong et al., arXiv 2101.06085)."""

    def __init__(self, in_channels: int, channels: int, out_channels: int, parallel: bool) -> None:
        super().__init__()
        pools = [nn.AvgPool2d(2 * stride + 1, stride, stride) for stride in (2, 4, 8)]
        self.scales = nn.ModuleList(
            [norm_act_conv(in_channels, channels, 1)]
            + [
                nn.Sequential(pool, norm_act_conv(in_channels, channels, 1))
                for pool in (*pools, nn.AdaptiveAvgPool2d(1))
            ]
        )
        pooled = len(self.scales) - 1
        self.parallel = parallel
        self.processes = (
            norm_act_conv(pooled * channels, pooled * channels, 3, groups=pooled)
            if parallel
            else nn.ModuleList(norm_act_conv(channels, channels, 3) for _ in range(pooled))
        )
        self.compression = norm_act_conv((1 + pooled) * channels, out_channels, 1)
        self.shortcut = norm_act_conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (N, in, h, w) -> (N, out, h, w)
        first, *pooled = (resize(scale(x), x.shape[2:], False) for scale in self.scales)
        if self.parallel:
            scales = [first, self.processes(concatenate([first + part for part in pooled]))]
        else:
            scales = [first]
            for process, part in zip(self.processes, pooled, strict=True):
                scales.append(process(part + scales[-1]))
        return self.compression(concatenate(scales)) + self.shortcut(x)


class Bag(nn.Module):
    """Boundary-attention-guided fusion: P at boundaries, I elsewhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = norm_act_conv(channels, channels, 3)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:  # all (N, C, h, w)
        share = d.sigmoid()
        return self.conv(share * p + (1 - share) * i)


class LightBag(nn.Module):
    """The same with two 1x1 convolutions in place of the 3x3 one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.f_p = conv_norm(channels, channels, 1)
        self.f_i = conv_norm(channels, channels, 1)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:  # all (N, C, h, w)
        share = d.sigmoid()
        return self.f_p((1 - share) * i + p) + self.f_i(i + share * p)


class ThreeBranches(nn.Module):
    """Branches for details (P), context (I) and boundaries (D), joined.

    Args:
        name: S, M or L.
        weights: `imagenet` (the authors', as MMSegmentation converts them), `none`, or a file in
            MMSegmentation's names. ImageNet weights have no D branch, which starts anew.

    Attributes:
        name: as given.
        channels: of the maps of P, of all three, and of D.
        output_stride: of all three, 8.
    """

    output_stride = 8

    def __init__(self, name: PIDNetName, weights: Text) -> None:
        super().__init__()
        self.name = name
        c, pooled, stem_blocks, branch_blocks, light = SIZES[name]
        self.channels = [2 * c, 4 * c, 2 * c]
        self.normalize = Normalize(TORCHVISION.mean, TORCHVISION.std)
        self.stem = nn.Sequential(
            conv_norm_act(3, c, 3, stride=2),
            conv_norm_act(c, c, 3, stride=2),
            stage(c, c, stem_blocks),
            nn.ReLU(),
            stage(c, 2 * c, stem_blocks, stride=2),
            nn.ReLU(),
        )
        self.integral = nn.ModuleList([
            stage(2 * c, 4 * c, branch_blocks, stride=2),
            stage(4 * c, 8 * c, branch_blocks, stride=2),
            stage(8 * c, 8 * c, 2, bottleneck=True, stride=2),
        ])  # fmt: skip
        self.proportional = nn.ModuleList([
            stage(2 * c, 2 * c, stem_blocks),
            stage(2 * c, 2 * c, stem_blocks),
            stage(2 * c, 2 * c, 1, bottleneck=True),
        ])  # fmt: skip
        narrow = c if light else 2 * c
        self.derivative = nn.ModuleList([
            Block(2 * c, narrow, bottleneck=False),
            Block(narrow, narrow, bottleneck=light),
            Block(2 * c, 2 * c, bottleneck=True),
        ])  # fmt: skip
        self.compressions = nn.ModuleList(conv_norm(width * c, 2 * c, 1) for width in (4, 8))
        self.guides = nn.ModuleList(Pag(2 * c, c) for _ in range(2))
        self.differences = nn.ModuleList([conv_norm(4 * c, narrow, 3), conv_norm(8 * c, 2 * c, 3)])
        self.pooling = AggregationPooling(16 * c, pooled, 4 * c, parallel=light)
        self.fusion = LightBag(4 * c) if light else Bag(4 * c)
        init_head(self)
        if weights != "none":
            state = fetch_flavour(name) if weights == "imagenet" else read_state_dict(weights)
            self._load(state, name if weights == "imagenet" else weights)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB in 0..255, uint8 or float -> maps (N, channels, H / 8, W / 8).

        P as its first exchange with I leaves it, all three joined, D as its last one does.
        """
        i = self.stem(self.normalize(image))
        p, d = i, i
        seen = []
        exchanges = zip(self.compressions, self.guides, self.differences, strict=True)
        for level, (compress, guide, differ) in enumerate(exchanges):
            p, d = self.proportional[level](p), self.derivative[level](d)
            i = F.relu(self.integral[level](i))
            p = guide(p, compress(i))
            d = d + resize(differ(i), d.shape[2:], False)
            seen.append((p, d))
            p, d = F.relu(p), F.relu(d)
        p, d, i = self.proportional[2](p), self.derivative[2](d), self.integral[2](i)
        joined = self.fusion(p, resize(self.pooling(i), p.shape[2:], False), d)
        return [seen[0][0], joined, seen[1][1]]

    def _load(self, state: dict[str, Tensor], origin: str) -> None:
        """The stem and the I branch have to be there, and what else fits is taken."""
        own = self.state_dict()
        anew = {k: v for k, v in own.items() if not k.startswith(("stem.", "integral."))}
        found = {
            key: value
            for key, value in three_branches_state(state).items()
            if key in own and value.shape == own[key].shape
        }
        load_weights(self, anew | found, origin)


# MMSegmentation's names of the three branches.
NAMES = (
    (r"^backbone\.", ""),
    (r"^i_branch_layers\.", "integral."),
    (r"^p_branch_layers\.", "proportional."),
    (r"^d_branch_layers\.(\d)\.(0\.)?", r"derivative.\1."),
    (r"^compression_1\.", "compressions.0."),
    (r"^compression_2\.", "compressions.1."),
    (r"^pag_1\.", "guides.0."),
    (r"^pag_2\.", "guides.1."),
    (r"^diff_1\.", "differences.0."),
    (r"^diff_2\.", "differences.1."),
    (r"^spp\.(.*)\.bn\.", r"pooling.\1.0."),
    (r"^spp\.(.*)\.conv\.", r"pooling.\1.2."),
    (r"^dfm\.conv\.bn\.", "fusion.conv.0."),
    (r"^dfm\.conv\.conv\.", "fusion.conv.2."),
    (r"^dfm\.", "fusion."),
    (r"\.conv\.(?=\w+$)", ".0."),
    (r"\.bn\.(?=\w+$)", ".1."),
)


def three_branches_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """MMSegmentation's tensors of the three branches under our names; others stay as they are."""
    ours = {}
    for name, tensor in state.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        ours[name] = tensor
    return ours
