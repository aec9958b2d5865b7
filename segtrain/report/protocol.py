"""The protocol of an evaluation in words, from the entry `protocol` of `results.json`."""

from typing import Any

INFERENCE = {
    "whole": "whole images",
    "sliding": "sliding windows, scores averaged where they overlap",
    "detect": "detection at the original size of the images",
    "propose": "segment proposals, the best scores of one scale",
    "masks": "instances of whole images, from queries",
    "panoptic": "segments of whole images, from queries",
    "proposalwise": "crops of boxes, one at a time, scores aggregated",
}
# What has words of its own below; anything else is shown as it is named.
TOLD = ("inference", "scales", "flip", "crf", "output_stride", "long_side", "crop_size", "stride",
        "pad", "logit_adjustment")  # fmt: skip


def protocol_facts(results: dict) -> dict[str, str]:
    """Data set, split, inference, scales, flip, CRF, output stride and the rest, in words."""
    protocol = results["protocol"]
    kind = protocol["inference"]
    told = {
        "data set": results["dataset"],
        "split": f"{results['split']}, {results['images']:,} images",
        "inference": INFERENCE.get(kind, kind),
        **_size_facts(protocol),
        "flip": "the mirrored image too" if protocol["flip"] else "no",
        "CRF": _crf(protocol),
    }
    if protocol.get("output_stride") is not None:
        told["output stride"] = str(protocol["output_stride"])
    if protocol.get("logit_adjustment") is not None:
        told["logit adjustment"] = "by class"
    for name, value in protocol.items():
        if name not in TOLD and not name.startswith("crf_") and value is not None:
            told[name.replace("_", " ")] = _plain(value)
    return told


def _size_facts(protocol: dict) -> dict[str, str]:
    scales = ", ".join(_plain(scale) for scale in protocol["scales"])
    if protocol["inference"] in ("detect", "propose"):
        return {"image size": f"short side {scales}, long side at most "
                f"{_plain(protocol['long_side'])} pixels"}  # fmt: skip
    told = {"scales": scales}
    if "crop_size" in protocol:
        window, step = ("×".join(map(str, protocol[key])) for key in ("crop_size", "stride"))
        told["window"] = f"{window}, a step of {step} pixels"
    return told


def _crf(protocol: dict) -> str:
    if not protocol["crf"]:
        return "no"
    rest = [f"{name.removeprefix('crf_').replace('_', ' ')} {_plain(value)}"
            for name, value in protocol.items() if name.startswith("crf_")]  # fmt: skip
    return ", ".join(["dense CRF", *rest])


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
