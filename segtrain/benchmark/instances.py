"""AP of instances, from the network's masks to the scores, against pycocotools alone."""

import contextlib
import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segtrain.benchmark.timing import median_ratio
from segtrain.configuration.schema import Recipe
from segtrain.contracts import Detections, TrueInstances
from segtrain.errors import UserError
from segtrain.masks import decode, encode, paste
from segtrain.metric.coco import ApAr, CocoEvaluation
from segtrain.values import Count, Size

CLASSES = 80
OBJECTS = 7  # of an image on average; COCO's val2017 has 7.3
CELLS = 28  # of a mask's side
ENCODED = 500  # images whose whole masks are encoded as well


class Side(Protocol):
    """One way from masks to scores."""

    def encode(self, masks: np.ndarray) -> list[bytes]:
        """Codes of masks (n, H, W) uint8."""

    def add(self, found: Detections, truth: TrueInstances) -> None:
        """Pastes and encodes an image's masks and keeps them."""

    def scores(self) -> list[float]:
        """COCO's twelve numbers of masks and of boxes, -1 where there is none."""


class Ours:
    """As segtrain evaluates."""

    def __init__(self) -> None:
        self.evaluation = CocoEvaluation(CLASSES)

    def encode(self, masks: np.ndarray) -> list[bytes]:
        return encode(masks)

    def add(self, found: Detections, truth: TrueInstances) -> None:
        self.evaluation.update([found], [truth])

    def scores(self) -> list[float]:
        scores = self.evaluation.compute()
        return _twelve(scores.masks) + _twelve(scores.boxes)


class Official:
    """torchvision's pasting, pycocotools' codes and its evaluation, as in their examples."""

    def __init__(self) -> None:
        from torchvision.models.detection.roi_heads import paste_masks_in_image

        self.paste = paste_masks_in_image
        self.truth = COCO()
        categories = [{"id": label} for label in range(CLASSES)]
        self.truth.dataset = {"images": [], "annotations": [], "categories": categories}
        self.results: list[dict] = []
        self.boxes: list[list[float]] = []

    def encode(self, masks: np.ndarray) -> list[bytes]:
        return [code["counts"] for code in rle.encode(np.asfortranarray(masks.transpose(1, 2, 0)))]

    def add(self, found: Detections, truth: TrueInstances) -> None:
        self._add_truth(truth)
        masks = self.paste(found["masks"][:, None], found["boxes"], truth["size"])[:, 0] > 0.5
        columns = np.asfortranarray(masks.permute(1, 2, 0).to(torch.uint8).numpy())
        for index, code in enumerate(rle.encode(columns)):
            entry = {"image_id": truth["image_id"], "segmentation": code}
            entry["category_id"] = found["labels"][index].item()
            self.results.append({**entry, "score": found["scores"][index].item()})
            self.boxes.append(_xywh(found["boxes"][index].tolist()))

    def scores(self) -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            self.truth.createIndex()
            # Masks first, without boxes: where there are any, loadRes takes the areas from them.
            masks = self._stats("segm")
            for entry, box in zip(self.results, self.boxes, strict=True):
                entry["bbox"] = box
            return [*masks, *self._stats("bbox")]

    def _stats(self, kind: str) -> list[float]:
        evaluation = COCOeval(self.truth, self.truth.loadRes(self.results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation.stats.tolist()

    def _add_truth(self, truth: TrueInstances) -> None:
        (height, width), image_id, content = truth["size"], truth["image_id"], self.truth.dataset
        content["images"].append({"id": image_id, "height": height, "width": width})
        for index, code in enumerate(truth["codes"]):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": truth["labels"][index].item(),
                    "segmentation": {"size": [height, width], "counts": code},
                    "bbox": _xywh(truth["boxes"][index].tolist()),
                    "area": truth["area"][index].item(),
                    "iscrowd": int(truth["crowd"][index]),
                }
            )


@dataclass(frozen=True)
class Stage:
    """What one stage of a side took: time, and by how much memory grew at its highest."""

    seconds: float
    megabytes: float


def instance_metric(
    config: Recipe, images: Count, detections: Count, size: Size, rounds: Count
) -> list[dict]:
    """One row a stage: seconds and growth of memory of both sides, and their largest difference.

    Args:
        config: the resolved configuration (unused but for its seed).
        images: generated ones; the same for both.
        detections: in each image.
        size: H and W of the images.
        rounds: the two take turns this many times.

    Raises:
        UserError: the operating system does not tell the memory of a process.
    """
    runs: dict[type[Side], list[tuple[dict[str, Stage], list[float]]]] = {Ours: [], Official: []}
    for _ in range(rounds):
        for side, done in runs.items():
            # Each in a new process of its own: memory that was freed before would be used again
            # and not be seen, and the highest mark of a process never falls.
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                arguments = (config["seed"], images, detections, size)
                done.append(pool.submit(run_side, side, *arguments).result())
    scores = [done[0][1] for done in runs.values()]
    difference = max(abs(a - b) for a, b in zip(*scores, strict=True))
    ours, peer = ([stages for stages, _ in done] for done in runs.values())
    return [_row(stage, ours, peer, difference) for stage in ours[0]]


def run_side(
    side: type[Side], seed: int, images: int, detections: int, size: list[int]
) -> tuple[dict[str, Stage], list[float]]:
    """Stages and scores of one side, in the process that calls it."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    generator = Samples(seed, detections, (size[0], size[1]))
    contestant, start = side(), _memory("VmRSS")
    whole = [
        _seconds(contestant.encode, decode(truth["codes"], truth["size"]))
        for _, truth in map(generator.sample, range(min(images, ENCODED)))
    ]
    stages = {"whole masks to codes": Stage(sum(whole), _memory("VmHWM") - start)}
    added = [_seconds(contestant.add, *generator.sample(number)) for number in range(images)]
    kept = _memory("VmRSS")
    stages["network's masks to codes"] = Stage(sum(added), _memory("VmHWM") - start)
    scores: list[float] = []
    evaluated = _seconds(lambda: scores.extend(contestant.scores()))
    stages["codes to scores"] = Stage(evaluated, _memory("VmHWM") - kept)
    stages["network's masks to scores"] = Stage(sum(added) + evaluated, _memory("VmHWM") - start)
    return stages, scores


class Samples:
    """Images with about seven objects, and detections of which half are objects moved a little.

    Args:
        seed: of everything.
        detections: in each image.
        size: H and W.
    """

    def __init__(self, seed: int, detections: int, size: tuple[int, int]) -> None:
        self.seed, self.detections, self.size = seed, detections, size
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:CELLS, :CELLS] / (CELLS / 2) - 1
        coarse = rng.normal(0, 1, (256, 5, 5)).astype(np.float32)
        noise = np.stack([cv2.resize(part, (CELLS, CELLS)) for part in coarse])
        self.shapes = (1 / (1 + np.exp(8 * (x**2 + y**2 - 0.7) + 2 * noise))).astype(np.float32)

    def sample(self, number: int) -> tuple[Detections, TrueInstances]:
        """Detections and truth of one image."""
        rng = np.random.default_rng((self.seed, number))
        objects = int(rng.poisson(OBJECTS))
        boxes, shapes = self._boxes(rng, objects), rng.integers(0, len(self.shapes), objects)
        labels = rng.integers(0, CLASSES, objects)
        codes = paste(self.shapes[shapes], boxes, self.size, 0.5)
        area = [rle.area({"size": list(self.size), "counts": code}) for code in codes]
        truth: TrueInstances = {
            "boxes": boxes,
            "labels": labels,
            "crowd": rng.random(objects) < 0.02,
            "area": np.array(area, np.float32),
            "codes": codes,
            "size": self.size,
            "image_id": number + 1,
        }
        return self._found(rng, truth, shapes), truth

    def _found(
        self, rng: np.random.Generator, truth: TrueInstances, shapes: np.ndarray
    ) -> Detections:
        objects, count = len(shapes), self.detections
        boxes, shown = self._boxes(rng, count), rng.integers(0, len(self.shapes), count)
        labels, moved = rng.integers(0, CLASSES, count), count // 2 if objects else 0
        chosen = rng.integers(0, max(objects, 1), moved)
        side = np.tile(truth["boxes"][chosen, 2:] - truth["boxes"][chosen, :2], 2)
        boxes[:moved] = truth["boxes"][chosen] + side * rng.normal(0, 0.06, side.shape)
        labels[:moved], shown[:moved] = truth["labels"][chosen], shapes[chosen]
        limits = np.array(self.size[::-1] * 2, np.float32)
        return {
            "boxes": torch.from_numpy(boxes.clip(0, limits)),
            "scores": torch.from_numpy(rng.random(count, np.float32)).sort(descending=True).values,
            "labels": torch.from_numpy(labels),
            "masks": torch.from_numpy(self.shapes[shown]),
        }

    def _boxes(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Two of five have less than 32^2 pixels, one of five more than 96^2, as in COCO."""
        side = np.exp(rng.normal(3.7, 0.9, (count, 1)) + rng.normal(0, 0.3, (count, 2)))
        side = np.minimum(side, self.size[::-1])
        corner = rng.random((count, 2)) * (self.size[::-1] - side)
        return np.concatenate([corner, corner + side], 1).astype(np.float32)


def _row(
    stage: str, ours: list[dict[str, Stage]], peer: list[dict[str, Stage]], difference: float
) -> dict:
    seconds = [[run[stage].seconds for run in runs] for runs in (ours, peer)]
    return {
        "stage": stage,
        "segtrain s": statistics.median(seconds[0]),
        "pycocotools s": statistics.median(seconds[1]),
        "times faster": median_ratio(seconds[1], seconds[0]),
        "segtrain MB": statistics.median(run[stage].megabytes for run in ours),
        "pycocotools MB": statistics.median(run[stage].megabytes for run in peer),
        "largest score difference": difference,
    }


def _twelve(scores: ApAr) -> list[float]:
    numbers = (scores.ap, scores.ap50, scores.ap75, scores.ap_small, scores.ap_medium,
               scores.ap_large, *scores.ar.values(), scores.ar_small, scores.ar_medium,
               scores.ar_large)  # fmt: skip
    return [-1 if number is None else number for number in numbers]


def _xywh(box: list[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _seconds(call: Callable, *arguments: object) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def _memory(field: str) -> float:
    """MB of this process: VmRSS now, VmHWM at its highest."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError as error:
        raise UserError(f"measure=instance_metric needs Linux's /proc ({error})") from None
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if field in line)
