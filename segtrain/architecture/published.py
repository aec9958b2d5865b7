"""Published checkpoints of other projects: their key names -> ours."""

from torch import Tensor

from segtrain.errors import UserError

TORCHVISION_NAMES = (
    # torchvision's FCNHead and DeepLabHead -> ours
    ("backbone.", "backbone.body."),
    ("aux_classifier.0.", "auxiliary.conv.0."),
    ("aux_classifier.1.", "auxiliary.conv.1."),
    ("aux_classifier.4.", "auxiliary.classifier."),
)
TORCHVISION_FCN_NAMES = (
    ("classifier.0.", "head.conv.0."),
    ("classifier.1.", "head.conv.1."),
    ("classifier.4.", "head.classifier."),
)
TORCHVISION_DEEPLABV3_NAMES = (
    ("classifier.0.convs.4.1.", "head.aspp.image_pooling.0."),
    ("classifier.0.convs.4.2.", "head.aspp.image_pooling.1."),
    ("classifier.0.convs.", "head.aspp.branches."),
    ("classifier.0.project.", "head.aspp.project."),
    ("classifier.1.", "head.refine.0."),
    ("classifier.2.", "head.refine.1."),
    ("classifier.4.", "head.classifier."),
)


SEMSEG_NAMES = (
    # PSPNet of github.com/hszhao/semseg (the authors' own) -> ours
    ("layer0.0.", "backbone.body.conv1.0."),
    ("layer0.1.", "backbone.body.conv1.1."),
    ("layer0.3.", "backbone.body.conv1.3."),
    ("layer0.4.", "backbone.body.conv1.4."),
    ("layer0.6.", "backbone.body.conv1.6."),
    ("layer0.7.", "backbone.body.bn1."),
    *((f"layer{number}.", f"backbone.body.layer{number}.") for number in (1, 2, 3, 4)),
    *(
        (f"ppm.features.{level}.{theirs}.", f"head.pyramid.reductions.{level}.{ours}.")
        for level in range(4)
        for theirs, ours in ((1, 0), (2, 1))
    ),
    ("cls.0.", "head.conv.0."),
    ("cls.1.", "head.conv.1."),
    ("cls.4.", "head.classifier."),
    ("aux.0.", "auxiliary.conv.0."),
    ("aux.1.", "auxiliary.conv.1."),
    ("aux.4.", "auxiliary.classifier."),
)


TORCHVISION_MASK_RCNN_NAMES = (
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
EPSILON = 1e-5  # of nn.BatchNorm2d
WITHOUT_EPSILON = ("maskrcnn_resnet50_fpn",)


def from_published(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names for a checkpoint of torchvision or semseg; others are returned as they are.

    Args:
        state: the checkpoint's tensors.
        own: those of the network that is to have them.
    """
    if any(key.startswith("backbone.conv1.") for key in state):
        return from_torchvision(state)
    if any(key.startswith("roi_heads.mask_head.") for key in state):
        return of_used_categories(rename(state, TORCHVISION_MASK_RCNN_NAMES), own)
    if any(key.startswith("ppm.features.") for key in state):
        return rename(state, SEMSEG_NAMES)
    return state


def of_used_categories(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
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


def without_epsilon(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same network for batch norm with PyTorch's epsilon, of weights made for none."""
    result = dict(state)
    for key, variance in state.items():
        if key.endswith("running_var"):
            weight = key.removesuffix("running_var") + "weight"
            result[weight] = state[weight] * ((variance + EPSILON) / variance).sqrt()
    return result


def from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames the state dict of torchvision's fcn_* or deeplabv3_* model to ours."""
    is_deeplab = any(key.startswith("classifier.0.convs.") for key in state)
    rules = TORCHVISION_NAMES + (
        TORCHVISION_DEEPLABV3_NAMES if is_deeplab else TORCHVISION_FCN_NAMES
    )
    return rename(state, rules)


def rename(state: dict[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Every key with the prefix of the first rule that it fits replaced."""
    renamed = {}
    for key, value in state.items():
        old, new = next(((old, new) for old, new in rules if key.startswith(old)), ("", ""))
        renamed[new + key.removeprefix(old)] = value
    return renamed


def fetch_torchvision(name: str, key: str = "weights") -> dict[str, Tensor]:
    """State dict of torchvision's model `name`, from its cache or the network.

    `key` is what takes a file instead, for the message.

    Raises:
        UserError: torchvision has no such segmentation model, or it cannot be fetched.
    """
    from torchvision.models import detection, get_model_weights, list_models, segmentation

    known = list_models(module=segmentation)
    known += [model for model in list_models(module=detection) if "mask" in model]
    if name not in known:
        raise UserError(f"torchvision has no '{name}'; it has: {', '.join(known)}")
    entry = get_model_weights(name).DEFAULT
    try:
        state = entry.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise UserError(
            f"the weights torchvision/{name} could not be fetched ({error}); download {entry.url} "
            f"elsewhere and give its path: {key}=<file>"
        ) from None
    return of_torchvision(name, state)


def of_torchvision(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of torchvision's model `name` for batch norm as PyTorch has it."""
    return without_epsilon(state) if name in WITHOUT_EPSILON else state
