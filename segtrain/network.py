"""`segtrain.build`: a network by the names of its architecture and backbone."""

from collections.abc import Sequence

from torch import nn

from segtrain.architecture.backbone import is_plain
from segtrain.assembly import make
from segtrain.configuration.composing import compose_config
from segtrain.configuration.folder import options
from segtrain.zoo.initial import load_initial_weights


def build(
    architecture: str,
    *,
    num_classes: int,
    backbone: str | None = None,
    weights: str | None = None,
    overrides: Sequence[str] = (),
) -> nn.Module:
    """A network as a plain PyTorch module, untrained unless `weights` are given.

    A semantic one takes (N, 3, H, W) RGB in 0..255 and returns a dictionary whose `logits` are
    (N, K, h, w), at the stride of its head.

    Args:
        architecture: a choice of `conf/architecture`, such as `pspnet`.
        num_classes: K; without the background for networks that find instances.
        backbone: a timm model such as `resnet50` or `convnext_tiny`, or a choice of
            `conf/architecture/backbone`; None for the paper's.
        weights: of the whole network, a file or folder, `<zoo>/<name>` or `hf:<owner>/<name>`;
            None for random ones. Those of the backbone alone are the override
            `architecture.backbone.weights=imagenet`.
        overrides: as on the command line, such as `architecture.auxiliary=false`.

    Raises:
        UserError: there is no such architecture, backbone or key, or the weights do not fit.
    """
    chosen = [f"architecture={architecture}"]
    if backbone is not None:
        chosen += _chosen_backbone(chosen[0], backbone)
    chosen.append("architecture.backbone.weights=none")
    node = compose_config([*chosen, *overrides])["architecture"]
    model = make(node, num_classes=num_classes)
    if weights is not None:
        load_initial_weights(model, weights)
    return model


def _chosen_backbone(architecture: str, name: str) -> list[str]:
    """Overrides for a backbone: the paper's settings stay where both are ResNets, or both
    plain transformers."""
    if name in options("architecture/backbone"):
        return [f"architecture/backbone={name}"]
    papers = compose_config([architecture])["architecture"]["backbone"].get("name", "")
    kept = all("resne" in one for one in (name, papers)) or all(map(is_plain, (name, papers)))
    other = "vit_pyramid" if is_plain(name) else "timm"
    group = [] if kept else [f"architecture/backbone={other}"]
    return [*group, f"architecture.backbone.name={name}"]
