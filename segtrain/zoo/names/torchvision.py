"""torchvision's fcn_*, deeplabv3_* and maskrcnn_resnet50_fpn (github.com/pytorch/vision)."""

from torch import Tensor

from segtrain.architecture.weights import resnet_name
from segtrain.zoo.entry import Recognised
from segtrain.zoo.names import rename

SHARED = (
    # torchvision's FCNHead and DeepLabHead -> ours
    ("backbone.", "backbone.body."),
    ("aux_classifier.0.", "auxiliary.conv.0."),
    ("aux_classifier.1.", "auxiliary.conv.1."),
    ("aux_classifier.4.", "auxiliary.classifier."),
)
FCN = (
    ("classifier.0.", "head.conv.0."),
    ("classifier.1.", "head.conv.1."),
    ("classifier.4.", "head.classifier."),
)
DEEPLABV3 = (
    ("classifier.0.convs.4.1.", "head.aspp.image_pooling.0."),
    ("classifier.0.convs.4.2.", "head.aspp.image_pooling.1."),
    ("classifier.0.convs.", "head.aspp.branches."),
    ("classifier.0.project.", "head.aspp.project."),
    ("classifier.1.", "head.refine.0."),
    ("classifier.2.", "head.refine.1."),
    ("classifier.4.", "head.classifier."),
)
MASK_RCNN = (
    # torchvision's maskrcnn_resnet50_fpn -> ours
    ("backbone.body.", "backbone.body."),
    *((f"backbone.fpn.inner_blocks.{n}.0.", f"neck.laterals.{n}.") for n in range(4)),
    *((f"backbone.fpn.layer_blocks.{n}.0.", f"neck.outputs.{n}.") for n in range(4)),
    ("rpn.head.conv.0.0.", "rpn.conv."),
    ("rpn.head.cls_logits.", "rpn.objectness."),
    ("rpn.head.bbox_pred.", "rpn.deltas."),
    ("roi_heads.box_head.fc6.", "box.fc1."),
    ("roi_heads.box_head.fc7.", "box.fc2."),
    ("roi_heads.box_predictor.cls_score.", "box.classifier.scores."),
    ("roi_heads.box_predictor.bbox_pred.", "box.classifier.boxes."),
    *((f"roi_heads.mask_head.{n}.0.", f"mask.convs.{n}.") for n in range(4)),
    ("roi_heads.mask_predictor.conv5_mask.", "mask.deconv."),
    ("roi_heads.mask_predictor.mask_fcn_logits.", "mask.classifier."),
)
COCO_ROWS = 91
UNUSED_COCO_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
BACKBONES = {"ResNet-50": "resnet50.tv_in1k", "ResNet-101": "resnet101.tv_in1k"}


def recognised(state: dict[str, Tensor]) -> Recognised | None:
    """The network that a state dict of torchvision's is of; None for other names."""
    resnet = resnet_name({key: value for key, value in state.items() if key[:8] == "backbone"})
    if resnet not in BACKBONES:
        return None
    backbone = f"architecture.backbone.name={BACKBONES[resnet]}"
    if {"roi_heads.box_head.fc6.weight", "roi_heads.mask_head.0.0.weight"} <= state.keys():
        rows = len(state["roi_heads.box_predictor.cls_score.bias"])
        classes = (COCO_ROWS - len(UNUSED_COCO_IDS) if rows == COCO_ROWS else rows) - 1
        return Recognised(f"Mask R-CNN {resnet}", ("architecture=mask_rcnn", backbone), classes)
    is_deeplab = "classifier.0.convs.4.1.weight" in state
    first = "classifier.0.convs.4.1.weight" if is_deeplab else "classifier.0.weight"
    if not {"backbone.conv1.weight", first, "classifier.4.bias"} <= state.keys():
        return None
    system, name = ("DeepLabv3", "deeplabv3") if is_deeplab else ("FCN", "fcn")
    auxiliary = "aux_classifier.4.bias" in state  # a file may be of a model without
    overrides = (f"architecture={name}_torchvision", backbone,
                 f"architecture.auxiliary={str(auxiliary).lower()}")  # fmt: skip
    return Recognised(f"{system} {resnet}", overrides, len(state["classifier.4.bias"]))


def renamed(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names; a detector of COCO's without the rows of ids that name nothing.

    Args:
        state: the tensors of torchvision's model.
        own: those of the network that is to have them.
    """
    if any(key.startswith("roi_heads.") for key in state):
        return _of_used_categories(rename(state, MASK_RCNN), own)
    is_deeplab = "classifier.0.convs.4.1.weight" in state
    return rename(state, SHARED + (DEEPLABV3 if is_deeplab else FCN))


def _of_used_categories(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a COCO detector without the classifier rows that name nothing.

    torchvision's detectors have a row for background and each id up to 90. Where the model `own`
    is for background and the 80 classes, their rows are taken.
    """
    rows = [number for number in range(COCO_ROWS) if number not in UNUSED_COCO_IDS]

    def fitting(key: str, value: Tensor) -> Tensor:
        if key not in own or len(value) * len(rows) != len(own[key]) * COCO_ROWS:
            return value
        return value.unflatten(0, (COCO_ROWS, -1))[rows].flatten(0, 1)

    return {
        key: fitting(key, value) if ".classifier." in key else value for key, value in state.items()
    }
