"""Images that went best, worst, and some at random, to be looked at side by side."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from segtrain.label_set import LabelSet
from segtrain.report.page import json_data
from segtrain.text import escape

QUALITIES = (86, 75, 60, 45, 30, 15, 5)  # of WebP, until a picture is small enough
PICTURE_BYTES = 56_000  # of one; 48 of them, as text, are 3.6 MB
LAYER_BYTES = 24_000  # of one image's classes
KINDS = {
    "best": "Best images",
    "worst": "Worst images",
    "random": "Images chosen at random",
}


class Key(NamedTuple):
    """A colour and what it means."""

    text: str
    colour: tuple[int, int, int]
    note: str = ""


class Example(NamedTuple):
    """One image of the report."""

    name: str
    score: str  # how well it went, in words
    panels: dict[str, np.ndarray]  # (h, w, 3) uint8 RGB by name: image, truth, prediction, ...
    keys: list[Key]
    labels: np.ndarray | None  # (h, w, 2) uint8 train ids, truth and prediction; None: instances


def choose(scores: np.ndarray, count: int, seed: int) -> dict[str, list[int]]:
    """Which images to show, each once: `best`, `worst` and `random`.

    Args:
        scores: (n,) of the split's images; those that are NaN are not chosen.
        count: of each kind, at most; fewer where the split is small.
        seed: of the random ones.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[: np.count_nonzero(~np.isnan(scores))].tolist()  # NaN are sorted last
    count = min(count, max(1, len(order) // 3)) if order else 0
    best, rest = order[:count], order[count:]
    worst, rest = rest[::-1][:count], rest[: max(0, len(rest) - count)]
    some = np.random.default_rng(seed).permutation(sorted(rest))[:count].tolist()
    return {"best": best, "worst": worst, "random": some}


def semantic_keys(truth: np.ndarray, prediction: np.ndarray, labels: LabelSet) -> list[Key]:
    """The classes that an image shows or is said to show, largest first, with their IoU in it."""
    valid = truth != labels.ignore_index
    K = labels.num_classes  # noqa: N806
    true, found = (np.bincount(ids[valid].ravel(), minlength=K)[:K] for ids in (truth, prediction))
    hits = np.bincount(truth[valid & (truth == prediction)].ravel(), minlength=K)[:K]
    union = true + found - hits
    return [
        Key(f"{labels.names[k]} {100 * hits[k] / union[k]:.0f}", tuple(labels.palette[k]),
            f"IoU of {labels.names[k]} in this image, %")
        for k in np.argsort(-union, kind="stable") if union[k]
    ]  # fmt: skip


def multilabel_keys(
    truth: np.ndarray, prediction: np.ndarray, valid: np.ndarray, labels: LabelSet
) -> list[Key]:
    """As `semantic_keys`, of masks (K, H, W) of classes that may overlap."""
    hits = (truth & prediction & valid).sum((1, 2))
    union = ((truth | prediction) & valid).sum((1, 2))
    return [
        Key(f"{labels.names[k]} {100 * hits[k] / union[k]:.0f}", tuple(labels.palette[k]),
            f"IoU of {labels.names[k]} in this image, %")
        for k in np.argsort(-union, kind="stable") if union[k]
    ]  # fmt: skip


def label_layers(truth: np.ndarray, prediction: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 2) uint8 of truth and prediction (H, W), so that a pixel's classes can be named."""
    layers = [
        cv2.resize(ids.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
        for ids in (truth, prediction)
    ]
    return np.stack(layers, axis=-1)


def gallery(examples: dict[str, Sequence[Example]], names: Sequence[str]) -> str:
    """HTML: the examples by kind, each with a slider between any two of its panels.

    Args:
        examples: by `best`, `worst`, `random`.
        names: of the classes, for what stands under the pointer.
    """
    parts = [json_data("class-names", list(names))]
    for kind, some in examples.items():
        if some:
            cards = "".join(_card(example) for example in some)
            parts.append(f'<h3>{escape(KINDS[kind])}</h3><div class="examples">{cards}</div>\n')
    return "".join(parts)


def _card(example: Example) -> str:
    figures = "".join(
        f'<figure data-panel="{escape(name)}"><img src="{webp(panel)}" width="{panel.shape[1]}" '
        f'height="{panel.shape[0]}" alt="{escape(f"{name} of {example.name}")}" decoding="async">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, panel in example.panels.items()
    )
    keys = "".join(
        f'<li title="{escape(key.note)}"><i style="background:rgb{tuple(map(int, key.colour))}">'
        f"</i>{escape(key.text)}</li>"
        for key in example.keys
    )
    layers = "" if example.labels is None else f' data-labels="{_png(example.labels)}"'
    return (
        f'<article class="example"{layers}><h4>{escape(example.name)}</h4>'
        f'<p class="muted">{escape(example.score)}</p>'
        f'<div class="panels">{figures}</div><ul class="keys">{keys}</ul></article>\n'
    )


def webp(picture: np.ndarray) -> str:
    """A picture (h, w, 3) as an address that holds it, at most about PICTURE_BYTES large."""
    content = b""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "WEBP", quality=quality, method=4)
        content = buffer.getvalue()
        if len(content) <= PICTURE_BYTES:
            break
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def _png(layers: np.ndarray) -> str:
    """(h, w, 2) as red and green of a picture, with fewer pixels until it is small enough."""
    buffer = io.BytesIO()
    blank = np.zeros((*layers.shape[:2], 1), np.uint8)
    Image.fromarray(np.concatenate([layers, blank], axis=-1)).save(buffer, "PNG", optimize=True)
    content = buffer.getvalue()
    if len(content) > LAYER_BYTES:
        return _png(layers[::2, ::2])
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
