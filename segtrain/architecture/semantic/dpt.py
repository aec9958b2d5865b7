"""DPT: Ranftl, Bochkovskiy & Koltun, Vision Transformers for Dense Prediction, ICCV 2021
(arXiv 2103.13413)."""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.architecture.blocks import BatchNorm, FCNHead
from segtrain.architecture.vit import PlainViT
from segtrain.contracts import Outputs
from segtrain.errors import UserError
from segtrain.values import Count, ProperFraction, Rule

Readout = Literal["ignore", "add", "project"]
OneEach = Annotated[list[Count], Rule("of four entries", lambda values: len(values) == 4)]


class Reassemble(nn.Module):
    """Patches and class token of one layer -> a map of another stride (section 3.1).

    Args:
        width: of the tokens.
        channels: of the map.
        level: 0 to 3: four times as many cells a side as there are patches, to half as many.
        readout: what becomes of the class token.
    """

    def __init__(self, width: int, channels: int, level: int, readout: Readout) -> None:
        super().__init__()
        self.readout = readout
        self.join = (
            nn.Sequential(nn.Linear(2 * width, width), nn.GELU()) if readout == "project" else None
        )
        self.projection = nn.Conv2d(width, channels, 1)
        self.scale = (
            nn.ConvTranspose2d(channels, channels, 4, 4),
            nn.ConvTranspose2d(channels, channels, 2, 2),
            nn.Identity(),
            nn.Conv2d(channels, channels, 3, 2, padding=1),
        )[level]

    def forward(self, x: Tensor, token: Tensor | None) -> Tensor:
        """(N, width, h, w) and (N, width), None where it is ignored -> (N, channels, h', w')."""
        if self.readout == "add":
            x = x + token[:, :, None, None]
        elif self.join is not None:
            cells = x.permute(0, 2, 3, 1)  # (N, h, w, width)
            tokens = token[:, None, None].expand_as(cells)
            x = self.join(torch.cat([cells, tokens], 3)).permute(0, 3, 1, 2)
        return self.scale(self.projection(x))


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions behind ReLUs, added to the input (RefineNet, Lin et al. 2017)."""

    def __init__(self, channels: int, norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=not norm)]
            layers += [BatchNorm(channels)] if norm else []
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, h, w) -> (N, C, h, w)
        return x + self.layers(x)


class Fusion(nn.Module):
    """Adds a level to what came of those with larger strides, at twice the resolution (figure 1).

    Args:
        channels: of all maps.
        norm: whether batch norm follows the convolutions of the residual units.
        joins: whether there is something to add to; not at the last level.
    """

    def __init__(self, channels: int, norm: bool, joins: bool) -> None:
        super().__init__()
        self.lateral = ResidualUnit(channels, norm) if joins else None
        self.refine = ResidualUnit(channels, norm)
        self.projection = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, coarse: Tensor | None) -> Tensor:
        """(N, C, h, w), and None or (N, C, h', w') of about that size -> (N, C, 2h', 2w')."""
        if self.lateral is not None:
            # Not `resize`: the sizes that agree would be those of an exported graph's example.
            fitted = F.interpolate(x, coarse.shape[2:], mode="bilinear", align_corners=False)
            x = coarse + self.lateral(fitted)
        x = self.projection(self.refine(x))  # before there are four times as many cells
        size = [2 * length for length in x.shape[2:]]
        return F.interpolate(x, size, mode="bilinear", align_corners=True)


class DPT(nn.Module):
    """Four layers of a plain vision transformer as a pyramid, fused from the last to the first.

    Args:
        backbone: gives four maps.
        readout: what becomes of the class token: joined and projected, added, or ignored (table 7).
        level_channels: of the four levels before they are fused.
        channels: of the fused ones.
        fusion_norm: whether the residual units have batch norm, as the authors have it for
            segmentation; not for depth.
        dropout: rate before the classifier.
        auxiliary: adds an auxiliary head on the fused map, which runs in training only.
        align_corners: how logits are resized; true in the authors' code.
        num_classes: K.

    Raises:
        UserError: the backbone is no plain transformer, gives other than four maps, or has no class
            token to read out.
    """

    def __init__(
        self,
        backbone: PlainViT,
        readout: Readout,
        level_channels: OneEach,
        channels: Count,
        fusion_norm: bool,
        dropout: ProperFraction,
        auxiliary: bool,
        align_corners: bool,
        num_classes: int,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, PlainViT):
            raise UserError("DPT takes a plain vision transformer; set "
                            "architecture/backbone=vit_dpt")  # fmt: skip
        if len(backbone.channels) != 4:
            raise UserError(f"DPT takes four maps, '{backbone.name}' gives "
                            f"{len(backbone.channels)}; set architecture.backbone.layers, such as "
                            "[2,5,8,11]")  # fmt: skip
        if readout != "ignore" and not backbone.has_class_token:
            raise UserError(f"'{backbone.name}' has no class token for architecture.readout="
                            f"{readout}; set architecture.readout=ignore")  # fmt: skip
        self.backbone = backbone
        self.readout = readout
        self.align_corners = align_corners
        self.reassemble = nn.ModuleList(
            Reassemble(width, inner, level, readout)
            for level, (width, inner) in enumerate(
                zip(backbone.channels, level_channels, strict=True)
            )
        )
        self.laterals = nn.ModuleList(
            nn.Conv2d(inner, channels, 3, padding=1, bias=False) for inner in level_channels
        )
        self.fusions = nn.ModuleList(
            Fusion(channels, fusion_norm, joins=level < 3) for level in range(4)
        )
        self.head = FCNHead(channels, num_classes, dropout, channels=channels)
        self.auxiliary = (
            FCNHead(channels, num_classes, 0.1, channels=channels) if auxiliary else None
        )

    def forward(self, image: Tensor) -> Outputs:
        """(N, 3, H, W) RGB in 0..255 -> logits (N, K, h, w) at stride 2."""
        fused = self.fused(image)
        outputs: Outputs = {
            "logits": self._halved(self.head(fused), image.shape[2:]),
            "align_corners": self.align_corners,
        }
        if self.auxiliary is not None and self.training:
            outputs["aux"] = self._halved(self.auxiliary(fused), image.shape[2:])
        return outputs

    def fused(self, image: Tensor) -> Tensor:
        """(N, C, h, w) of all levels: eight cells a side for each patch, even more where their
        number is odd."""
        if self.readout == "ignore":
            found = [(x, None) for x in self.backbone(image)]
        else:
            found = self.backbone.with_class_tokens(image)
        levels = [
            lateral(reassemble(x, token))
            for lateral, reassemble, (x, token) in zip(
                self.laterals, self.reassemble, found, strict=True
            )
        ]
        x = self.fusions[3](levels[3], None)
        for level in (2, 1, 0):
            x = self.fusions[level](levels[level], x)
        return x

    def _halved(self, logits: Tensor, size: torch.Size) -> Tensor:
        """At stride 2 also where patches are odd in number or have another side than 16."""
        half = [(length + 1) // 2 for length in size]
        return F.interpolate(logits, half, mode="bilinear", align_corners=self.align_corners)
