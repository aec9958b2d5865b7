"""One contract for every backbone: uint8 RGB in, four feature maps out."""

from typing import Annotated

import timm
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from timm.models import model_entrypoint
from timm.models.hieradet_sam2 import HieraDet
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from segtrain.architecture.blocks import Normalize
from segtrain.architecture.swin import pad_before_shift
from segtrain.architecture.weights import load_weights, not_fetched, read_state_dict
from segtrain.configuration.messages import nearest_models
from segtrain.errors import UserError
from segtrain.values import Count, Counts, OutputStride, Rule, Text

PLAIN = ("vision_transformer", "deit", "eva")  # timm's modules of plain transformers
CLASSIFIER_KEYS = ("fc.", "head.", "classifier.", "conv_head.", "bn2.", "norm_head.")



def is_timm_model(name: str) -> bool:
    """Whether timm has a network, and weights of it by what stands after a dot."""
    return timm.is_model(name) and ("." not in name or timm.models.is_model_pretrained(name))


TimmModel = Annotated[str, Rule("that names a model of timm", is_timm_model, nearest_models)]


class TimmBackbone(nn.Module):
    """Feature maps of a timm model's last four stages, or of all.

    Args:
        name: timm's model name.
        weights: `imagenet` (downloaded by timm), `none` (random), or a file with a state dict in
            timm's names (torchvision's ResNet files fit).
        output_stride: of the last map. Stages beyond it keep their resolution and are dilated
            instead.
        uniform_dilation: whether all 3x3 convolutions of a dilated stage have its dilation, as in
            DeepLab and PSPNet; if not, the first keeps that of the stage before, as in torchvision
            and EncNet. ResNets only.
        multi_grid: unit rates of the last stage's blocks, multiplied by its dilation (DeepLabv3,
            section 3.3), or None. ResNets only.
        timm_arguments: more of timm's settings for this model, such as
            `{channels: [32, 64, 96, 128]}` for a narrower ResNet.
        stage_dilations: of the last two stages, where they are not what makes up for the stride
            that `output_stride` leaves out, or None. ResNets only.
        dilate_second: whether the second 3x3 convolution of ResNet-18's and -34's blocks is dilated
            like the first.
        stride_in_1x1: whether a bottleneck with a stride has it in its first 1x1 convolution, as He
            et al. (2015) and the weights of Caffe and Detectron have it; if not, in its 3x3
            convolution. ResNets with bottlenecks only.
        norm_maps: whether layer norm over the channels follows each map, as Swin and ConvNeXt have
            it below a decoder.
        every_map: whether there is one map a stride, also of stride 2 where the model has that.

    Attributes:
        name: timm's.
        channels: of the maps.
        strides: of the maps, relative to the input.
        starts: image coordinate of the centre of each map's first cell, as resizing without aligned
            corners has it.
        output_stride: the last of the strides.
    """

    def __init__(
        self,
        name: TimmModel,
        weights: Text,
        output_stride: OutputStride,
        uniform_dilation: bool,
        multi_grid: Counts | None,
        timm_arguments: dict,
        stage_dilations: tuple[Count, Count] | None = None,  # older runs say none of these
        dilate_second: bool = True,
        stride_in_1x1: bool = False,
        norm_maps: bool = False,
        every_map: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.body = create_body(
            name, weights == "imagenet", output_stride, timm_arguments, every_map
        )
        pad_before_shift(self.body)
        self.channels = self.body.feature_info.channels()
        self.strides = self.body.feature_info.reduction()
        self.starts = [(stride - 1) / 2 for stride in self.strides]
        self.output_stride = output_stride
        epsilon = 1e-5 if name.startswith("swin_") else 1e-6  # as their authors have it
        self.norms = nn.ModuleList(
            LayerNorm2d(width, epsilon) for width in self.channels if norm_maps
        )
        if self.strides[-1] != output_stride:
            raise UserError(
                f"backbone '{name}' ends at stride {self.strides[-1]}, not at the asked "
                f"output_stride={output_stride}; set architecture.backbone.output_stride"
            )
        dilations = stage_dilations or (max(1, 16 // output_stride), 32 // output_stride)
        if uniform_dilation or stage_dilations is not None:
            apply_dilations(self.body, dilations, uniform_dilation)
        if multi_grid is not None:
            apply_multi_grid(self.body, multi_grid, dilations[1])
        if not dilate_second:
            for block in self.body.modules():
                if isinstance(block, BasicBlock):
                    set_dilation(block.conv2, 1)
        if stride_in_1x1:
            apply_stride_in_1x1(self.body)
        if weights not in ("imagenet", "none"):
            load_weights(self.body, read_state_dict(weights), weights, ignore=CLASSIFIER_KEYS)
        mean, std = (self.body.pretrained_cfg[key] for key in ("mean", "std"))
        self.normalize = Normalize(mean, std)
        self.channels_come_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        fixed = timm.get_pretrained_cfg(name).fixed_input_size
        self.patch_size = self.strides[0] if fixed else None  # Swin takes whole patches only
        if isinstance(getattr(self.body, "model", None), HieraDet):  # whole windows, of SAM 2
            self.patch_size = self.strides[-1]

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB in 0..255, uint8 or float -> its maps (N, channels, h, w)."""
        x = self.normalize(image)
        if self.patch_size is not None:
            missing = [-length % self.patch_size for length in image.shape[2:]]
            x = F.pad(x, (0, missing[1], 0, missing[0]))  # with the mean colour
        maps = self.body(x)
        if self.channels_come_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        if self.patch_size is not None:
            height, width = image.shape[2:]
            maps = [
                m[:, :, : (height + stride - 1) // stride, : (width + stride - 1) // stride]
                for m, stride in zip(maps, self.strides, strict=True)
            ]
        if not self.norms:
            return maps
        return [norm(m) for norm, m in zip(self.norms, maps, strict=True)]


def is_plain(name: str) -> bool:
    """Whether timm's model of that name is a plain vision transformer, whose maps have one size."""
    return timm.is_model(name) and model_entrypoint(name).__module__.endswith(PLAIN)


def create_body(
    name: str, pretrained: bool, output_stride: int, timm_arguments: dict, every_map: bool
) -> nn.Module:
    """A timm model reduced to its last four stages, or to all that give a map.

    Raises:
        UserError: timm has no such model (nearest names given), the model has no feature maps or
            cannot change its stride, or its weights cannot be fetched.
    """
    if not is_timm_model(name):
        raise UserError(nearest_models(name))
    if is_plain(name):
        raise UserError(f"backbone '{name}' is a plain vision transformer, whose maps have one "
                        "stride; set architecture/backbone=vit_pyramid, or vit for heads that take "
                        "them, such as architecture=linear or dpt")  # fmt: skip
    settings: dict = {} if output_stride == 32 else {"output_stride": output_stride}
    if timm.get_pretrained_cfg(name).fixed_input_size:  # Swin takes any size if it is told so
        settings["strict_img_size"] = False
    if name.startswith("swin_"):  # not only where a map is larger than at the weights' own size
        settings["always_partition"] = True
    try:
        return timm.create_model(
            name,
            pretrained=pretrained,
            features_only=True,
            out_indices=None if every_map else (-4, -3, -2, -1),
            **(settings | timm_arguments),
        )
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise not_fetched(name, error) from error
    except (AssertionError, NotImplementedError, TypeError, KeyError) as error:
        if "strict_img_size" in str(error):
            raise UserError(
                f"backbone '{name}' takes images of one size only; choose another"
            ) from error
        raise UserError(
            f"backbone '{name}' gives no feature maps at output_stride={output_stride} ({error}); "
            "try output_stride=32, or a ResNet"
        ) from error


def apply_dilations(body: nn.Module, rates: tuple[int, int], uniform: bool) -> None:
    """Dilates the 3x3 convolutions of a ResNet's last two stages by one rate each.

    Args:
        body: changed in place.
        rates: of the two stages.
        uniform: whether a stage's first block has that rate too, or half of it.

    Raises:
        UserError: the backbone is no ResNet.
    """
    if not hasattr(body, "layer4"):
        raise UserError(
            "uniform_dilation needs a ResNet, and so do stage_dilations; set "
            "architecture.backbone.uniform_dilation=false and stage_dilations=null"
        )
    for stage, rate in zip((body.layer3, body.layer4), rates, strict=True):
        set_dilation(stage, rate)
        if not uniform:
            set_dilation(stage[0], max(1, rate // 2))


def apply_multi_grid(body: nn.Module, unit_rates: list[int], dilation: int) -> None:
    """Sets the 3x3 convolutions of block i of the last ResNet stage to rate dilation * unit[i].

    Raises:
        UserError: the backbone is no ResNet, or its last stage has another number of blocks.
    """
    blocks = list(getattr(body, "layer4", ()))
    if len(blocks) != len(unit_rates):
        raise UserError(
            f"multi_grid={unit_rates} needs a ResNet whose last stage has {len(unit_rates)} blocks,"
            f" found {len(blocks)}; set architecture.backbone.multi_grid=null"
        )
    for block, unit in zip(blocks, unit_rates, strict=True):
        set_dilation(block, dilation * unit)


def set_dilation(module: nn.Module, rate: int) -> None:
    """Dilates every 3x3 convolution inside by `rate`, at unchanged output size."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3):
            part.dilation = part.padding = (rate, rate)


def apply_stride_in_1x1(body: nn.Module) -> None:
    """Moves the strides of a ResNet's bottlenecks from the 3x3 to the first 1x1 convolution.

    Raises:
        UserError: the backbone is no ResNet with bottlenecks.
    """
    blocks = [block for number in range(1, 5) for block in getattr(body, f"layer{number}", ())]
    if not blocks or not all(isinstance(block, Bottleneck) for block in blocks):
        raise UserError(
            "stride_in_1x1 needs a ResNet with bottlenecks, such as resnet50; "
            "set architecture.backbone.stride_in_1x1=false"
        )
    for block in blocks:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
