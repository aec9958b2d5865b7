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


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names for a checkpoint of torchvision or semseg; others are returned as they are."""
    if any(key.startswith("backbone.conv1.") for key in state):
        return from_torchvision(state)
    bare = {key.removeprefix("module."): value for key, value in state.items()}
    if any(key.startswith("ppm.features.") for key in bare):
        return rename(bare, SEMSEG_NAMES)
    return state


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


def fetch_torchvision(name: str) -> dict[str, Tensor]:
    """State dict of torchvision's segmentation model `name`, from its cache or the network."""
    from torchvision.models import get_model_weights, list_models, segmentation

    known = list_models(module=segmentation)
    if name not in known:
        raise UserError(f"torchvision has no '{name}'; it has: {', '.join(known)}")
    entry = get_model_weights(name).DEFAULT
    try:
        return entry.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise UserError(
            f"the weights torchvision/{name} could not be fetched ({error}); download {entry.url} "
            "elsewhere and give its path: weights=<file>"
        ) from None
