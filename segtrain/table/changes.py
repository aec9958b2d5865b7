"""In what a run was trained otherwise than its experiment says."""

from pathlib import Path
from typing import Any

TRAINED_BY = (  # the keys that make another training
    "architecture", "loss", "optimizer", "batch_size", "batch_norm", "frozen",
    "weights_without", "callback.ema",
    "trainer.max_steps", "trainer.max_epochs", "trainer.gradient_clip_val",
    "dataset.splits.train", "dataset.transform",
)  # fmt: skip
SHOWN = 3


def changes(config: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    """Differences as `trainer.max_steps 100, not 30000`; the first few of many.

    Args:
        config: of the run.
        recipe: of its experiment as it stands.
    """
    found = []
    for key in TRAINED_BY:
        ours, theirs = _flat(_at(config, key), key), _flat(_at(recipe, key), key)
        for name in [*theirs, *(name for name in ours if name not in theirs)]:
            value, wanted = ours.get(name), theirs.get(name)
            if value != wanted and not _same_weights(name, value, wanted):
                found.append(f"{name} {_text(value)}, not {_text(wanted)}")
    if recipe.get("starts_from") and config.get("weights") is None:
        found.append(f"not started from {recipe['starts_from']}")
    more = [f"{len(found) - SHOWN} more settings"] if len(found) > SHOWN else []
    return found[:SHOWN] + more


def _same_weights(name: str, value: Any, wanted: Any) -> bool:
    """Whether a file stands in for the download of the same backbone's weights.

    Of torchvision's, the file alone; of another flavour, `<flavour>:<file>`.
    """
    if not (name.endswith("backbone.weights") and isinstance(value, str)):
        return False
    flavour, _, file = value.partition(":") if ":" in value else ("imagenet", "", value)
    return wanted == flavour and Path(file).suffix != ""


def _at(node: Any, key: str) -> Any:
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _flat(node: Any, name: str) -> dict[str, Any]:
    if not isinstance(node, dict):
        return {name: node}
    return {k: v for key, value in node.items() for k, v in _flat(value, f"{name}.{key}").items()}


def _text(value: Any) -> str:
    return "null" if value is None else str(value).replace("segtrain.", "")
