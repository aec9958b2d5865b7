"""Time of one confusion-matrix update against torchmetrics' MulticlassJaccardIndex."""

import statistics
from functools import partial

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from segtrain.benchmark.timing import alternate, median_ratio
from segtrain.configuration.schema import Recipe
from segtrain.metric.confusion import ConfusionMatrix, confusion_matrix, scores
from segtrain.values import Count, Counts


def metric_speed(
    config: Recipe,
    num_classes: Counts,
    shape: tuple[Count, Count, Count],
    rounds: Count,
    threads: Count | None,
) -> list[dict]:
    """One row per class count: milliseconds per update of both, ratio, largest IoU difference.

    Args:
        config: the resolved configuration (unused but for its seed).
        num_classes: class counts to measure.
        shape: (N, H, W) of the label maps.
        rounds: updates of each.
        threads: of PyTorch, null for its default.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(config["seed"])
    rows = []
    for count in num_classes:
        target = torch.randint(0, count, shape, generator=generator, dtype=torch.uint8)
        target[torch.rand(shape, generator=generator) < 0.05] = 255
        prediction = torch.randint(0, count, shape, generator=generator)
        ours = ConfusionMatrix(count)
        peer = MulticlassJaccardIndex(count, ignore_index=255, average="none")
        seconds = alternate(
            {
                "ours": partial(add, ours, prediction, target, count),
                "peer": partial(peer.update, prediction, target.long()),
            },
            rounds,
        )
        iou = torch.tensor(scores(ours.compute()).per_class_iou)
        rows.append(
            {
                "classes": count,
                "segtrain ms": 1e3 * statistics.median(seconds["ours"]),
                "torchmetrics ms": 1e3 * statistics.median(seconds["peer"]),
                "times faster": median_ratio(seconds["peer"], seconds["ours"]),
                "largest IoU difference": (iou - peer.compute()).abs().max().item(),
            }
        )
    return rows


def add(matrix: ConfusionMatrix, prediction: Tensor, target: Tensor, num_classes: int) -> None:
    """One update, as an evaluation makes it."""
    matrix.update(confusion_matrix(prediction, target, num_classes, ignore_index=255))
