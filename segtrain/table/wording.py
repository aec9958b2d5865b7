"""Numbers and protocols in the words of the tables."""

from segtrain.table.groups import Group

MINUS = "\N{MINUS SIGN}"
NONE = "-"


def percent(share: float | None, digits: int = 2) -> str:
    """`76.51` for 0.7651."""
    return NONE if share is None else f"{100 * share:.{digits}f}"


def score(group: Group) -> str:
    """Mean and spread in percent: `76.51 ± 0.30`; of one seed, the score alone."""
    spread = "" if group.spread is None else f" ± {percent(group.spread)}"
    return percent(group.mean) + spread


def difference(points: float) -> str:
    """`+1.20` or `-6.33`, with a true minus sign."""
    sign = "+" if points > 0 else MINUS if points < 0 else "±"
    return f"{sign}{abs(points):.2f}"


def duration(seconds: float | None) -> str:
    """`38 s`, `12 min`, `2.5 h`, `3.1 d`."""
    if seconds is None:
        return NONE
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            digits = 0 if unit == "min" else 1
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def gigabytes(number: float | None) -> str:
    """Bytes as `1.25 GB`, `2.0 TB`, of 10**9 and 10**12 bytes."""
    if number is None:
        return NONE
    if number >= 1e12:
        return f"{number / 1e12:.1f} TB"
    return f"{number / 1e9:.{2 if number < 1e10 else 0}f} GB"


def millions(number: float | None) -> str:
    """`58.04 M`."""
    return NONE if number is None else f"{number / 1e6:.2f} M"


def large(number: float | None) -> str:
    """Three significant figures or so: `23.3`, `117`, `1,250`, `1.9 M`."""
    if number is None:
        return NONE
    if number >= 1e6:
        return f"{number / 1e6:.1f} M"
    return f"{number:.3g}" if number < 100 else f"{number:,.0f}"


def protocol(of: dict) -> str:
    """A protocol of `results.json` in short: `whole, stride 16, 6 scales, flip, CRF`."""
    words = [str(of.get("inference", "?"))]
    is_semantic = words[0] not in ("detect", "propose", "masks", "panoptic")
    if is_semantic and of.get("output_stride"):
        words.append(f"stride {of['output_stride']}")
    if of.get("size"):
        words += [f"{side} {length}" for side, length in of["size"].items()]
    scales = [scale for scale in of.get("scales") or () if scale is not None]
    if len(scales) > 1:
        words.append(f"{len(scales)} scales")
    elif scales and scales != [1.0]:
        words.append(f"{'scale' if is_semantic else 'side'} {scales[0]:g}")
    flags = {"flip": "flip", "crf": "CRF", "logit_adjustment": "adjusted"}
    words += [word for key, word in flags.items() if of.get(key)]
    if of.get("box_voting") or of.get("mask_voting"):
        words.append("voting")
    if of.get("ensemble"):
        words.append(f"ensemble of {of['ensemble']}")
    return ", ".join(words)
