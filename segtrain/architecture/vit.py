"""Plain vision transformers: maps of one stride, and a pyramid made of the last one."""

import sys
from collections.abc import Sequence
from typing import Annotated

import timm
import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d, RotaryEmbeddingDinoV3
from timm.models import VisionTransformer
from torch import Tensor, nn

from segtrain.architecture.backbone import CLASSIFIER_KEYS, TimmModel, is_plain
from segtrain.architecture.blocks import Normalize, at_least_float32
from segtrain.architecture.lora import add_low_rank
from segtrain.architecture.weights import load_weights, not_fetched, read_state_dict
from segtrain.errors import UserError
from segtrain.values import FILLED, Count, Natural, Positive, Text

Blocks = Annotated[list[Natural], FILLED]


class PlainViT(nn.Module):
    """Maps of a plain vision transformer of timm: ViT, DeiT, DINOv2, DINOv3, EVA-02, ...

    Images are padded on the right and at the bottom to whole patches, with the mean colour. Maps
    cover the image alone. Position embeddings are resampled to any size; class and register tokens
    are left out.

    Args:
        name: timm's model name.
        weights: `imagenet` (those that timm downloads for this name, whatever they were trained
            on), `none` (random), or a file in the names of timm or of the authors.
        layers: blocks whose outputs are the maps, counted from 0; or how many of the last ones.
            Blocks behind them are left out.
        norm: whether the transformer's last norm follows each map, as DINOv2 and DINOv3 have it
            below a linear head.
        patch_size: side of a patch in pixels, to which the weights are resampled; None: the
            model's own.
        timm_arguments: more of timm's settings for this model, such as `{drop_path_rate: 0.1}`.
        lora_rank: of the terms that alone learn in the transformer (see `LowRank`); None: all of it
            learns.
        lora_alpha: of those terms.
        norm_epsilon: of all layer norms; None: the model's own.

    Attributes:
        name: timm's.
        channels: of the maps.
        strides: of the maps, relative to the input.
        starts: image coordinate of the centre of each map's first cell.
        side: of a patch in pixels.
        output_stride: the same; 32 of a pyramid.
    """

    def __init__(
        self,
        name: TimmModel,
        weights: Text,
        layers: Blocks | Count,
        norm: bool,
        patch_size: Count | None,
        timm_arguments: dict,
        lora_rank: Count | None,
        lora_alpha: Positive,
        norm_epsilon: Positive | None = None,  # older runs do not say it
    ) -> None:
        super().__init__()
        self.name = name
        self.body = create_body(name, weights, patch_size, timm_arguments)
        self.layers = chosen_layers(name, len(self.body.blocks), layers)
        self.norm = norm
        if norm and isinstance(self.body.norm, nn.Identity):
            raise UserError(f"backbone '{name}' has no norm behind its last block; set "
                            "architecture.backbone.norm=false")  # fmt: skip
        self.body.prune_intermediate_layers(self.layers, prune_norm=not norm)
        if norm_epsilon is not None:
            for module in self.body.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = norm_epsilon
        if lora_rank is not None:
            add_low_rank(self.body, lora_rank, lora_alpha)
        self.side = self.output_stride = self.body.patch_embed.patch_size[0]
        self.channels = [self.body.embed_dim] * len(self.layers)
        self.strides = [self.output_stride] * len(self.layers)
        self.starts = [(stride - 1) / 2 for stride in self.strides]
        mean, std = (self.body.pretrained_cfg[key] for key in ("mean", "std"))
        self.normalize = Normalize(mean, std)

    @property
    def has_class_token(self) -> bool:
        return self.body.cls_token is not None

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB in 0..255, uint8 or float -> its maps (N, channels, h, w)."""
        return [self.onto_image(x, image.shape[2:]) for x in self.patch_maps(image)]

    def patch_maps(self, image: Tensor) -> list[Tensor]:
        """As `forward`, but maps of the padded image."""
        return self._intermediates(image, False)

    def with_class_tokens(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """As `forward`, each map with its class token (N, channels)."""
        return [(self.onto_image(x, image.shape[2:]), prefix[:, 0])
                for x, prefix in self._intermediates(image, True)]  # fmt: skip

    def padded(self, image: Tensor) -> Tensor:
        """Normalised, and filled up to whole patches with the mean colour."""
        bottom, right = (-length % self.side for length in image.shape[2:])
        return F.pad(self.normalize(image), (0, right, 0, bottom))

    def _intermediates(self, image: Tensor, with_prefix: bool) -> list:
        return self.body.forward_intermediates(
            self.padded(image),
            indices=self.layers,
            return_prefix_tokens=with_prefix,
            norm=self.norm,
            intermediates_only=True,
        )

    def onto_image(self, x: Tensor, size: torch.Size) -> Tensor:
        """A map of the padded image -> as many cells that cover the image of that size alone."""
        return onto_image(x, size, self.side)


def onto_image(x: Tensor, size: torch.Size, stride: int) -> Tensor:
    """Bilinearly, a map (N, C, h, w) of a padded image -> (N, C, h, w) of the image alone.

    Args:
        x: starts where the image does.
        size: height and width of the image without padding.
        stride: pixels of a cell of the map.
    """
    rows, columns = (
        cell_shares(cells, length, stride, x.device)
        for cells, length in zip(x.shape[2:], size, strict=True)
    )
    with torch.autocast(x.device.type, enabled=False):
        wide = at_least_float32(x)
        return rows.to(wide.dtype) @ wide @ columns.to(wide.dtype).T


def cell_shares(cells: int, length: int, stride: int, device: torch.device) -> Tensor:
    """(cells, cells) bilinear weights of the cells of a padded side in each cell of its part
    without padding; the unit matrix where nothing is padded.

    Args:
        cells: of the side.
        length: of the side in pixels, without padding.
        stride: pixels of a cell of the padded side.
        device: of the result.
    """
    number = torch.arange(cells, device=device)
    place = (2 * number + 1) * length / (2 * cells * stride) - 0.5
    return (1 - (place[:, None].clamp(min=0) - number).abs()).clamp(min=0)


class SimpleFeaturePyramid(PlainViT):
    """Maps of strides 4, 8, 16 and 32 from the last one: Li et al., Exploring Plain Vision
    Transformer Backbones for Object Detection, ECCV 2022 (arXiv 2203.16527, section 3).

    Args:
        name, weights, norm, patch_size, timm_arguments, lora_rank, lora_alpha: see `PlainViT`.
        pyramid_channels: of the maps; 256 in the paper.

    Raises:
        UserError: patches have no side of 16 pixels.
    """

    def __init__(
        self,
        name: TimmModel,
        weights: Text,
        norm: bool,
        patch_size: Count | None,
        timm_arguments: dict,
        lora_rank: Count | None,
        lora_alpha: Positive,
        pyramid_channels: Count,
    ) -> None:
        super().__init__(name, weights, 1, norm, patch_size, timm_arguments, lora_rank, lora_alpha)
        if self.side != 16:
            raise UserError(f"backbone '{name}' has patches of {self.side} pixels, from "
                            "which no maps of strides 4 to 32 come; set "
                            "architecture.backbone.patch_size=16")  # fmt: skip
        (width,) = self.channels
        half, quarter = width // 2, width // 4
        scaled = [
            (
                nn.ConvTranspose2d(width, half, 2, 2),
                LayerNorm2d(half),
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, 2),
            ),
            (nn.ConvTranspose2d(width, half, 2, 2),),
            (),
            (nn.MaxPool2d(2, ceil_mode=True),),
        ]
        self.levels = nn.ModuleList(
            nn.Sequential(
                *layers,
                nn.Conv2d(found, pyramid_channels, 1, bias=False),
                LayerNorm2d(pyramid_channels),
                nn.Conv2d(pyramid_channels, pyramid_channels, 3, padding=1, bias=False),
                LayerNorm2d(pyramid_channels),
            )
            for layers, found in zip(scaled, (quarter, half, width, width), strict=True)
        )
        self.channels = [pyramid_channels] * 4
        self.strides = [4, 8, 16, 32]
        self.starts = [(stride - 1) / 2 for stride in self.strides]
        self.output_stride = 32

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB in 0..255 -> four maps (N, channels, H / stride, W / stride)."""
        (last,) = self.patch_maps(image)
        maps = []
        for level, stride in zip(self.levels, self.strides, strict=True):
            x = level(last)
            rows, columns = ((length + stride - 1) // stride for length in image.shape[2:])
            # A slice would bind an exported graph to sizes of which nothing is cut off.
            maps.append(F.pad(x, (0, columns - x.shape[3], 0, rows - x.shape[2])))
        return maps


class ResampledPositions(VisionTransformer):
    """timm's, with position embeddings resampled by matrix products.

    PyTorch has no reproducible gradient of bicubic resampling on a GPU. The authors of DINOv2 do it
    without antialiasing for networks without registers.
    """

    antialias = True

    def _pos_embed(self, x: Tensor) -> Tensor:  # (N, h, w, C) -> (N, prefix + h * w, C)
        number, *size, width = x.shape
        patches = x.view(number, -1, width)  # `flatten` would bind a graph to its batch
        prefix = [tokens.expand(number, -1, -1)
                  for tokens in (self.cls_token, self.reg_token) if tokens is not None]  # fmt: skip
        with_own = 0 if self.no_embed_class else self.num_prefix_tokens
        own, positions = self.pos_embed[:, :with_own], self.pos_embed[:, with_own:]
        positions = resampled(positions, self.patch_embed.grid_size, size, self.antialias)
        if self.no_embed_class:
            return self.pos_drop(torch.cat([*prefix, patches + positions], 1))
        return self.pos_drop(torch.cat([*prefix, patches], 1) + torch.cat([own, positions], 1))


def resampled(positions: Tensor, old: Sequence[int], new: Sequence[int], antialias: bool) -> Tensor:
    """Position embeddings (1, old rows * columns, C) for another grid, bicubically."""
    with torch.autocast(positions.device.type, enabled=False):
        rows, columns = (
            F.interpolate(
                torch.eye(before, device=positions.device)[None, None],
                (after, before),
                mode="bicubic",
                antialias=antialias,
            )[0, 0]
            for before, after in zip(old, new, strict=True)
        )
        wide = positions.float().view(old[0], -1)
        placed = columns @ (rows @ wide).view(new[0], old[1], -1)
        return placed.view(1, -1, positions.shape[2]).to(positions.dtype)


class RotationsOfAnySize(RotaryEmbeddingDinoV3):
    """timm's, which makes floats of the sides, where an exported graph has symbols."""

    def _create_embed(self, feat_shape: list[int], no_aug: bool = False) -> Tensor:
        """h and w -> (h * w, 2 * dim) sines and cosines."""
        device = self.periods.device
        sides = [(torch.arange(s, device=device) + 0.5) / s * 2 - 1 for s in feat_shape]
        places = torch.stack(torch.meshgrid(sides, indexing="ij"), 2).flatten(0, 1)
        return torch.cat(self._get_pos_embed_from_coords(places), 1)


def create_body(name: str, weights: str, patch_size: int | None, timm_arguments: dict) -> nn.Module:
    """A whole plain transformer of timm for images of any size, with its weights.

    Raises:
        UserError: timm has no such plain transformer, or none for images of any size, or its
            weights cannot be fetched or do not fit.
    """
    if not is_plain(name):
        raise UserError(f"backbone '{name}' is no plain vision transformer of timm; set "
                        "architecture/backbone=timm, or choose another, such as "
                        "vit_base_patch14_dinov2")  # fmt: skip
    settings = {} if patch_size is None else {"patch_size": patch_size}
    try:
        body = timm.create_model(
            name,
            pretrained=weights == "imagenet",
            num_classes=0,
            dynamic_img_size=True,
            **(settings | timm_arguments),
        )
    except (OSError, RuntimeError) as error:
        if weights != "imagenet":
            raise
        raise not_fetched(name, error) from error
    except TypeError as error:
        raise UserError(f"backbone '{name}' takes no images of any size ({error})") from error
    if weights not in ("imagenet", "none"):
        convert = sys.modules[type(body).__module__].checkpoint_filter_fn
        state = convert(read_state_dict(weights), body)
        load_weights(body, state, weights, (*CLASSIFIER_KEYS, "fc_norm.", "mask_token"))
    if type(body) is VisionTransformer and body.pos_embed is not None:
        body.__class__ = ResampledPositions  # timm builds its parts itself
        body.antialias = "dinov2" not in name or bool(body.num_reg_tokens)
    rotations = getattr(body, "rope", None)
    if isinstance(rotations, RotaryEmbeddingDinoV3) and not rotations.aug_active:
        rotations.__class__ = RotationsOfAnySize
    return body


def chosen_layers(name: str, depth: int, layers: list[int] | int) -> list[int]:
    """Indices of blocks in their order; a number is that many of the last.

    Raises:
        UserError: there are fewer.
    """
    chosen = list(range(max(0, depth - layers), depth)) if isinstance(layers, int) else layers
    wanted = layers if isinstance(layers, int) else max(layers) + 1
    if wanted > depth or sorted(set(chosen)) != chosen:
        raise UserError(f"backbone '{name}' has {depth} blocks, 0 to {depth - 1}; set "
                        f"architecture.backbone.layers to some of them in rising order, found "
                        f"{layers}")  # fmt: skip
    return chosen
