"""The fully connected CRF against pydensecrf2, the authors' C++ code with a Python interface."""

import logging
import statistics
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import cv2
import numpy as np
import torch
from torch import Tensor

from segtrain.benchmark.timing import alternate, median_ratio
from segtrain.configuration.schema import Recipe
from segtrain.dataset.files import read_image, read_mask
from segtrain.dataset.textures import texture
from segtrain.errors import UserError
from segtrain.inference.crf import LEAST, DenseCRF
from segtrain.label_set import VOID
from segtrain.values import Count, Size, Text

BLUR = 8  # pixels, standard deviation of what the probabilities show of the mask
NOISE = 0.75  # standard deviation of the noise on their logs
logger = logging.getLogger("segtrain")


def crf_speed(
    config: Recipe,
    crf: DenseCRF,
    size: Size,
    classes: Count,
    rounds: Count,
    threads: Count | None,
    image: Text | None,
    mask: Text | None,
) -> list[dict]:
    """One row: milliseconds an image of both, ratio, equal labels, and accuracy before and after.

    Both go from probabilities to marginals and set up what they need for the image.

    Args:
        config: the resolved configuration (unused but for its seed).
        crf: the settings of both.
        size: H and W of a generated picture; a photograph has its own.
        classes: K.
        rounds: both take turns this many times.
        threads: of PyTorch, null for its default.
        image: file of a photograph, or None to generate a picture.
        mask: file of its train ids.

    Raises:
        UserError: one file without the other, files that do not fit, or unreadable ones.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    rng = np.random.default_rng(config["seed"])
    picture, truth = _pair(image, mask) if image or mask else generate(rng, size, classes)
    if truth[truth != VOID].max(initial=0) >= classes:
        raise UserError(f"{mask} has train ids from {classes} up; set measure.classes")
    probabilities = blurred(rng, truth, classes)
    labels, columns = _compare(crf, picture, probabilities, rounds)
    row = {
        "size": "x".join(map(str, truth.shape)),
        "classes": classes,
        "iterations": crf.iterations,
        "threads": torch.get_num_threads(),
        **columns,
        "accuracy before %": _accuracy(probabilities.argmax(0), truth),
        "accuracy after %": _accuracy(labels, truth),
    }
    return [row]


def _compare(
    crf: DenseCRF, picture: np.ndarray, probabilities: np.ndarray, rounds: int
) -> tuple[np.ndarray, dict]:
    """Our labels (H, W), and what the row says of both sides."""
    given = torch.from_numpy(picture).permute(2, 0, 1), torch.from_numpy(probabilities)
    labels = crf(*given).argmax(0).numpy()
    sides: dict[str, Callable[[], Tensor | np.ndarray]] = {"ours": partial(crf, *given)}
    if not find_spec("pydensecrf"):
        logger.info("pydensecrf2 is not installed (pip install pydensecrf2): nothing to compare")
        seconds = alternate(sides, rounds)["ours"]
        return labels, {
            "segtrain ms": 1e3 * statistics.median(seconds),
            "pydensecrf2 ms": "not installed",
        }
    sides["peer"] = partial(run_pydensecrf, crf, picture, probabilities)
    seconds = alternate(sides, rounds)
    return labels, {
        "segtrain ms": 1e3 * statistics.median(seconds["ours"]),
        "pydensecrf2 ms": 1e3 * statistics.median(seconds["peer"]),
        "times faster": median_ratio(seconds["peer"], seconds["ours"]),
        "equal labels %": 100 * float((labels == sides["peer"]().argmax(0)).mean()),
    }


def run_pydensecrf(crf: DenseCRF, image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """pydensecrf2's marginals (K, H, W) for an image (H, W, 3) uint8 and probabilities (K, H, W).

    Kernels are normalised symmetrically there by default, as ours are.
    """
    classes, height, width = probabilities.shape
    field = import_module("pydensecrf.densecrf").DenseCRF2D(width, height, classes)
    unary = -np.log(np.maximum(probabilities, np.float32(LEAST)))
    field.setUnaryEnergy(np.ascontiguousarray(unary.reshape(classes, -1)))
    field.addPairwiseGaussian(sxy=crf.position_sigma, compat=crf.position_weight)
    field.addPairwiseBilateral(
        sxy=crf.bilateral_sigma,
        srgb=crf.colour_sigma,
        rgbim=np.ascontiguousarray(image),
        compat=crf.bilateral_weight,
    )
    return np.array(field.inference(crf.iterations)).reshape(probabilities.shape)


def generate(
    rng: np.random.Generator, size: list[int], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Picture (H, W, 3) uint8 of textured regions under camera noise, and mask (H, W) uint8."""
    height, width = size
    cells = rng.normal(0, 1, (classes, height // 60 + 3, width // 60 + 3)).astype(np.float32)
    fields = [cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) for field in cells]
    mask = np.argmax(fields, 0).astype(np.uint8)
    picture = np.zeros((height, width, 3), np.float32)
    for label in range(classes):
        look = texture(rng, (height, width), max(size) // 2, rng.uniform(40, 215, 3))
        picture[mask == label] = look[mask == label]
    picture = cv2.GaussianBlur(picture, (0, 0), 0.7) + rng.normal(0, 3, picture.shape)
    return picture.clip(0, 255).astype(np.uint8), mask


def blurred(rng: np.random.Generator, mask: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities (K, H, W) float32 as of a coarse network: a blurred mask and smooth noise."""
    height, width = mask.shape
    noise = rng.normal(0, NOISE, (classes, height // 8 + 1, width // 8 + 1)).astype(np.float32)
    logits = np.stack(
        [
            6 * cv2.GaussianBlur((mask == label).astype(np.float32), (0, 0), BLUR)
            + cv2.resize(noise[label], (width, height), interpolation=cv2.INTER_CUBIC)
            for label in range(classes)
        ]
    )
    return torch.from_numpy(logits).softmax(0).numpy()


def _pair(image: str | None, mask: str | None) -> tuple[np.ndarray, np.ndarray]:
    if not (image and mask):
        raise UserError("measure.image and measure.mask go together; give both or neither")
    picture, truth = read_image(image), read_mask(mask)
    if picture.shape[:2] != truth.shape:
        raise UserError(
            f"{image} is {picture.shape[:2]} in size, {mask} {truth.shape}; they must be equal"
        )
    return picture, truth


def _accuracy(labels: np.ndarray, truth: np.ndarray) -> float:
    return 100 * float((labels == truth)[truth != VOID].mean())
