"""What figures of several cells say together, as lines of the table."""

from collections.abc import Callable

Found = dict[tuple[str, str], dict]  # figures by part and cell

FORMS = ("whole", "strips", "fused")
EQUAL = 1e-5


def loss_verdict(found: Found) -> list[str]:
    """Which form of the loss is fastest, and whether the automatic choice should take another."""
    speeds = {name: f for (part, name), f in found.items() if part == "loss" and "fused ms" in f}
    equal = {name: f for (part, name), f in found.items() if part == "loss" and "equal" in f}
    lines = []
    for name, figures in speeds.items():
        ms = {form: figures.get(f"{form} ms") for form in FORMS}
        known = {form: value for form, value in ms.items() if isinstance(value, float)}
        if known:
            best = min(known, key=known.get)
            lines.append(f"{name}: {best} is the fastest, {known[best]:.3g} ms.")
    if not speeds or not all(isinstance(f.get("fused ms"), float) for f in speeds.values()):
        return [*lines, "Verdict: fused was not measured; the automatic choice stays as it is."]
    wins = [n for n, f in speeds.items()
            if f["fused ms"] < min(f[k] for k in ("whole ms", "strips ms")
                                   if isinstance(f.get(k), float))]  # fmt: skip
    is_equal = bool(equal) and all(f["equal"] for f in equal.values())
    if len(wins) == len(speeds) and is_equal:
        advice = "fused is equal and wins everywhere: loss.form=null should take it on a GPU"
    elif wins and is_equal:
        advice = (
            f"fused is equal and wins at {', '.join(wins)}: loss.form=null should take it there"
        )
    elif wins:
        advice = f"fused wins at {', '.join(wins)}, but is not shown to be equal to {EQUAL:g}"
    else:
        advice = "fused wins nowhere; the automatic choice stays as it is"
    return [*lines, f"Verdict: {advice}."]


# A data set, and the cell of `step` that eats its crops.
EATERS = {
    "voc": "DeepLabv3-R50 513 bf16", "context59": "EncNet-R101 481 bf16",
    "cityscapes": "DeepLabv3+-R101 769 bf16", "coco2017": "Mask R-CNN-R50 800 bf16",
}  # fmt: skip


def feed_verdict(found: Found) -> list[str]:
    """Whether the loader keeps up with the step."""
    lines = []
    for (part, name), figures in found.items():
        eaten = found.get(("step", EATERS.get(name, "")), {}).get("images/s")
        delivered = figures.get("images/s")
        if part == "feed" and eaten and delivered:
            lines.append(
                f"{name}: the loader delivers {delivered:.0f} images/s as read, {EATERS[name]} "
                f"eats {eaten:.0f}: {delivered / eaten:.2g} times what is needed."
            )
    return lines


VERDICTS: dict[str, Callable[[Found], list[str]]] = {"loss": loss_verdict, "feed": feed_verdict}
