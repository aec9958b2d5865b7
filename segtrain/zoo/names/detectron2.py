"""Mask R-CNN, DeepLabv3 and v3+ of github.com/facebookresearch/detectron2."""

import re

import torch
from timm.data import IMAGENET_DEFAULT_STD
from torch import Tensor

from segtrain.zoo.entry import Recognised

DROPPED = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")  # of some files
COUNTER = "num_batches_tracked"
# By the whole name or its beginning; `bottom_up` is the ResNet below a pyramid.
BACKBONE = ((r"^backbone\.(bottom_up\.)?(?=stem|res)", "backbone.body."),
            (r"res([2-5])\.(\d+)\.", lambda found: f"layer{int(found[1]) - 1}.{found[2]}."),
            (r"(?<=\d\.)conv(\d)\.norm\.", r"bn\1."),
            (r"shortcut\.norm\.", "downsample.1."),
            (r"shortcut\.", "downsample.0."))  # fmt: skip
PLAIN_STEM = ((r"stem\.conv1\.norm\.", "bn1."), (r"stem\.conv1\.", "conv1."))
DEEP_STEM = ((r"stem\.conv1\.norm\.", "conv1.1."), (r"stem\.conv1\.", "conv1.0."),
             (r"stem\.conv2\.norm\.", "conv1.4."), (r"stem\.conv2\.", "conv1.3."),
             (r"stem\.conv3\.norm\.", "bn1."), (r"stem\.conv3\.", "conv1.6."))  # fmt: skip
# Pyramid and heads of the new baselines, whose convolutions have batch norm behind them.
NORMED = r"^(backbone\.fpn_\w+|roi_heads\.\w+\.(?:conv|mask_fcn)\d)\."
NORMS = ((rf"{NORMED}(?=weight)", r"\1.0."), (rf"{NORMED}norm\.", r"\1.1."))
DETECTOR = (
    (r"^backbone\.fpn_(lateral|output)(\d)\.",
     lambda found: f"neck.{found[1]}s.{int(found[2]) - 2}."),
    (r"^proposal_generator\.rpn_head\.conv\.conv1\.", "rpn.convs.0."),
    (r"^proposal_generator\.rpn_head\.conv\.(conv0\.)?", "rpn.conv."),
    (r"^proposal_generator\.rpn_head\.objectness_logits\.", "rpn.objectness."),
    (r"^proposal_generator\.rpn_head\.anchor_deltas\.", "rpn.deltas."),
    (r"^roi_heads\.box_head\.conv(\d)\.", lambda found: f"box.convs.{int(found[1]) - 1}."),
    (r"^roi_heads\.box_head\.fc(\d)\.", r"box.fc\1."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "box.classifier.scores."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "box.classifier.boxes."),
    (r"^roi_heads\.mask_head\.mask_fcn(\d)\.",
     lambda found: f"mask.convs.{int(found[1]) - 1}."),
    (r"^roi_heads\.mask_head\.deconv\.", "mask.deconv."),
    (r"^roi_heads\.mask_head\.predictor\.", "mask.classifier."),
)  # fmt: skip
ASPP = ((r"^(.*aspp\.)convs\.4\.1\.", r"\1image_pooling.0."),
        (r"^(.*aspp\.)convs\.(\d)\.norm\.", r"\1branches.\2.1."),
        (r"^(.*aspp\.)convs\.(\d)\.", r"\1branches.\2.0."),
        (r"^(.*aspp\.)project\.norm\.", r"\1project.1."),
        (r"^(.*aspp\.)project\.weight", r"\1project.0.weight"))  # fmt: skip
DEEPLABV3 = ((r"^sem_seg_head\.aspp\.", "head.aspp."), *ASPP,
             (r"^sem_seg_head\.predictor\.", "head.classifier."))  # fmt: skip
DEEPLABV3PLUS = (
    (r"^sem_seg_head\.decoder\.res5\.project_conv\.", "aspp."), *ASPP,
    (r"^sem_seg_head\.decoder\.res2\.project_conv\.norm\.", "decoder.reduce.1."),
    (r"^sem_seg_head\.decoder\.res2\.project_conv\.", "decoder.reduce.0."),
    (r"^sem_seg_head\.decoder\.res2\.fuse_conv\.(\d)\.norm\.", r"decoder.convs.\1.1."),
    (r"^sem_seg_head\.decoder\.res2\.fuse_conv\.(\d)\.", r"decoder.convs.\1.0."),
    (r"^sem_seg_head\.predictor\.", "classifier."),
)  # fmt: skip

PYRAMID_NORM = "backbone.fpn_lateral2.norm.weight"
MASKS = "roi_heads.mask_head.predictor.weight"
SCORES = "sem_seg_head.predictor.weight"
DEEPLABV3_POOLING = "sem_seg_head.aspp.convs.4.1.weight"
DEEPLABV3PLUS_POOLING = "sem_seg_head.decoder.res5.project_conv.convs.4.1.weight"
RESNETS = {(3, 4, 6, 3): "50", (3, 4, 23, 3): "101"}
DETECTOR_SETTINGS = ("architecture.roi_aligned=true", "architecture.roi_sampling_ratio=0",
                     "architecture.rpn.exact_anchors=true")  # fmt: skip
NEW_BASELINE = ("architecture.norm=batch", "architecture.box_convs=4",
                "architecture.rpn.convs=2")  # fmt: skip
DEEPLAB_SETTINGS = ("architecture.backbone.name=resnet101s", "architecture.align_corners=false",
                    "architecture.pooling_window=[512,1024]",
                    "architecture.pooling_norm=false")  # fmt: skip


def recognised(state: dict[str, Tensor]) -> Recognised | None:
    """What the names and shapes tell of a network; None where they are of another project."""
    body = "backbone.bottom_up." if MASKS in state else "backbone."
    blocks = tuple(
        sum(key.startswith(f"{body}res{stage}.") and key.endswith(".conv1.weight") for key in state)
        for stage in (2, 3, 4, 5)
    )
    resnet = RESNETS.get(blocks)
    if MASKS in state and "backbone.fpn_lateral2.weight" in state and resnet:
        if _has_groups(state):
            name, backbone = "ResNeXt", (f"architecture.backbone.name=resnext{resnet}_32x8d",)
        else:  # of MSRA
            name, backbone = "ResNet", (f"architecture.backbone.name=resnet{resnet}.tv_in1k",
                                        "architecture.backbone.stride_in_1x1=true")  # fmt: skip
        overrides = ("architecture=mask_rcnn", *backbone, *DETECTOR_SETTINGS)
        if PYRAMID_NORM in state:
            overrides += NEW_BASELINE
        return Recognised(f"Mask R-CNN {name}-{resnet}", overrides, len(state[MASKS]))
    pooling = {"deeplabv3": DEEPLABV3_POOLING, "deeplabv3plus": DEEPLABV3PLUS_POOLING}
    for architecture, key in pooling.items():
        if key in state and SCORES in state and resnet == "101":
            system = "DeepLabv3" + "+" * (architecture == "deeplabv3plus")
            overrides = (f"architecture={architecture}", *DEEPLAB_SETTINGS)
            return Recognised(f"{system} ResNet-103", overrides, len(state[SCORES]))
    return None


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names and in our layout; `own` are the network's.

    Detectors take RGB then, have background in front, and see pixels of unit deviation; in the
    file, where only ResNeXts do, it is BGR, and background, which has no boxes and masks, is last.
    """
    is_deep = "backbone.stem.conv3.weight" in state
    head = DETECTOR if MASKS in state else DEEPLABV3
    if PYRAMID_NORM in state:
        head = (*NORMS, *DETECTOR)
    if DEEPLABV3PLUS_POOLING in state:
        head = DEEPLABV3PLUS
    rules = (*BACKBONE, *(DEEP_STEM if is_deep else PLAIN_STEM), *head)
    result = {
        _under_our_name(key, rules): value
        for key, value in state.items()
        if not key.startswith(DROPPED) and not key.endswith(COUNTER)
    }
    if MASKS in state:
        stem = result["backbone.body.conv1.weight"].flip(1)
        if not _has_groups(state):
            deviation = 255 * torch.tensor(IMAGENET_DEFAULT_STD, device=stem.device)
            stem = stem * deviation.view(1, 3, 1, 1)
        result["backbone.body.conv1.weight"] = stem
        for kind in ("weight", "bias"):
            scores, boxes, masks = (f"box.classifier.scores.{kind}", f"box.classifier.boxes.{kind}",
                                    f"mask.classifier.{kind}")  # fmt: skip
            result[scores] = result[scores].roll(1, 0)
            result[boxes] = _with_background(result[boxes], 4)
            result[masks] = _with_background(result[masks], 1)
    if DEEPLABV3PLUS_POOLING in state:  # low-level features come first in the file
        first, width = "decoder.convs.0.0.weight", len(own["decoder.reduce.0.weight"])
        result[first] = result[first].roll(-width, 1)
    return result


def _under_our_name(key: str, rules: tuple) -> str:
    for pattern, ours in rules:
        key = re.sub(pattern, ours, key)
    return key


def _with_background(rows: Tensor, count: int) -> Tensor:
    """Rows of classes with `count` of background, which nothing reads, in front."""
    return torch.cat([torch.zeros_like(rows[:count]), rows])


def _has_groups(state: dict[str, Tensor]) -> bool:
    """Whether the 3x3 convolutions of a detector are those of a ResNeXt."""
    weight = state["backbone.bottom_up.res2.0.conv2.weight"]
    return weight.shape[0] != weight.shape[1]
