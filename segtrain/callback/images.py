"""For the loggers: validation overlays, confusion matrix or precision curves, scores by class."""

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from segtrain.contracts import Detections, InstanceTarget, Segments
from segtrain.inference.multilabel import masks_of
from segtrain.label_set import LabelSet
from segtrain.loggers import Rows, write_picture, write_table
from segtrain.masks import as_arrays
from segtrain.metric.image_scores import SURE_SCORE
from segtrain.planes import unpack
from segtrain.report.drawing import fit, paint_masks
from segtrain.report.panels import SHOWN_PROPOSALS, draw_found, draw_truth
from segtrain.report.segments import draw_found_segments, draw_true_segments
from segtrain.values import Count, Natural

OVERLAY_STRENGTH = 0.6


class ValidationImages(Callback):
    """Image, truth and prediction of a fixed set of validation images at every validation.

    Args:
        num_images: spread evenly over the split.
        max_side: longer side of a picture, in pixels.
    """

    def __init__(self, num_images: Natural, max_side: Count) -> None:
        self.num_images = num_images
        self.max_side = max_side

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        matrix = pl_module.evaluation.confusion()  # of all processes
        if not trainer.is_global_zero:
            return
        source = trainer.datamodule.val_source
        count = min(self.num_images, len(source))
        for index in np.linspace(0, len(source) - 1, count).round().astype(int):
            image, truth = source.read(int(index))
            found = self._infer(trainer, pl_module, image)
            strip = self._strip(pl_module, image, truth, found)
            self._write(trainer, f"val_images/{source.name(int(index))}", strip)
        if matrix is not None:
            self._write(trainer, "val/confusion", draw_confusion(matrix, pl_module.labels.names))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rows = per_class_rows(pl_module.metrics)
        if rows and trainer.is_global_zero:
            write_table(trainer.loggers, "val/per_class", rows, trainer.global_step)
        precision = getattr(pl_module.evaluation, "precision", None)
        if precision is not None and trainer.is_global_zero:
            self._write(trainer, "val/precision_recall", draw_precision(precision))

    def _infer(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, image: np.ndarray
    ) -> torch.Tensor | Detections | Segments:
        """What inference says of the image: scores (K, H, W), instances, or segments."""
        tensor = torch.from_numpy(image).permute(2, 0, 1).to(pl_module.device)
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            return pl_module.inference(pl_module.model, [tensor])[0]

    def _strip(
        self,
        pl_module: pl.LightningModule,
        image: np.ndarray,
        truth: np.ndarray | InstanceTarget,
        found: torch.Tensor | Detections | Segments,
    ) -> np.ndarray:
        labels = pl_module.labels
        if pl_module.evaluation.task == "multilabel":
            return planes_strip(
                image,
                unpack(torch.from_numpy(truth), labels.num_classes)[0].numpy(),
                masks_of(found, pl_module.inference.thresholds).cpu().numpy(),
                labels,
                self.max_side,
            )
        if pl_module.evaluation.task == "semantic":
            prediction = found.argmax(0).cpu().numpy()
            return overlay_strip(image, truth, prediction, labels, self.max_side)
        if pl_module.evaluation.task == "panoptic":
            return panoptic_strip(image, truth, as_arrays(found), labels, self.max_side)
        top = SHOWN_PROPOSALS if pl_module.evaluation.task == "proposal" else None
        found = as_arrays(found)
        return instance_strip(image, truth, found, labels, self.max_side, SURE_SCORE, top)

    def _write(self, trainer: pl.Trainer, tag: str, picture: np.ndarray) -> None:
        write_picture(trainer.loggers, tag, picture, trainer.global_step)


def per_class_rows(metrics: dict) -> Rows:
    """The `per_class_*` entries of `results.json` in percent, below titles; may be empty."""
    columns = {
        name.removeprefix("per_class_").replace("_", " "): values
        for name, values in metrics.items()
        if isinstance(values, dict)
    }
    if not columns:
        return []
    rows = [["class", *columns]]
    for label in next(iter(columns.values())):
        shares = [values[label] for values in columns.values()]
        rows.append([label, *("absent" if s is None else f"{100 * s:.2f}" for s in shares)])
    return rows


def overlay_strip(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, labels: LabelSet, max_side: int
) -> np.ndarray:
    """Image, truth over image, prediction over image side by side.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth, prediction: (H, W) train ids.
        labels: the colours.
        max_side: the longer side of each picture.

    Returns:
        (h, 3w + gaps, 3) uint8 RGB.
    """
    panels = [image] + [
        cv2.addWeighted(labels.colorize(ids), OVERLAY_STRENGTH, image, 1 - OVERLAY_STRENGTH, 0)
        for ids in (truth, prediction)
    ]
    return _reduced(panels, max_side)


def planes_strip(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, labels: LabelSet, max_side: int
) -> np.ndarray:
    """As `overlay_strip`, of masks (K, H, W) bool, which may overlap."""
    panels = [image, *(paint_masks(image, masks, labels) for masks in (truth, prediction))]
    return _reduced(panels, max_side)


def _reduced(panels: list[np.ndarray], max_side: int) -> np.ndarray:
    """Side by side, the longer side of each at most so long."""
    image = panels[0]
    scale = min(1.0, max_side / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    panels = [cv2.resize(panel, size, interpolation=cv2.INTER_AREA) for panel in panels]
    return _side_by_side(panels)


def instance_strip(
    image: np.ndarray,
    truth: InstanceTarget,
    detections: Detections,
    labels: LabelSet,
    max_side: int,
    min_score: float,
    top: int | None = None,
) -> np.ndarray:
    """Image, true instances over it, found ones over it side by side.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: its instances; crowds are striped.
        detections: as numpy arrays or on the CPU, best first.
        labels: names and colours.
        max_side: the longer side of each picture, to which small images are enlarged.
        min_score: detections that score less are not shown.
        top: for proposals, which have no class: so many of the best are shown, whatever their
            score, in different colours and with the score alone.

    Returns:
        (h, 3w + gaps, 3) uint8 RGB.
    """
    true = draw_truth(image, truth, labels, max_side)
    found = draw_found(image, detections, labels, max_side, min_score, top)
    return _side_by_side([fit(image, max_side), true, found])


def panoptic_strip(
    image: np.ndarray, truth: np.ndarray, found: Segments, labels: LabelSet, max_side: int
) -> np.ndarray:
    """Image, true segments over it, found ones over it side by side.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W, 3) uint8, see `segtrain.segments`.
        found: as arrays.
        labels: names, colours and things.
        max_side: the longer side of each picture, to which small images are enlarged.

    Returns:
        (h, 3w + gaps, 3) uint8 RGB.
    """
    true = draw_true_segments(image, truth, labels, max_side)
    return _side_by_side([fit(image, max_side), true,
                          draw_found_segments(image, found, labels, max_side)])  # fmt: skip


def _side_by_side(panels: list[np.ndarray]) -> np.ndarray:
    gap = np.full((len(panels[0]), 4, 3), 255, np.uint8)
    return np.hstack([panels[0], gap, panels[1], gap, panels[2]])


def draw_confusion(matrix: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Row-normalised confusion matrix (K, K) as a picture (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = np.asarray(matrix, float)
    rows = counts.sum(1, keepdims=True)
    shares = np.divide(counts, rows, out=np.full_like(counts, np.nan), where=rows > 0)
    side = 2.5 + 0.32 * len(names)
    figure = Figure(figsize=(side + 0.8, side), dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    heat = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    figure.colorbar(heat, fraction=0.046, label="share of the true class")
    axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set(xlabel="prediction", ylabel="truth")
    if len(names) <= 30:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "black" if share > 0.6 else "white"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center",
                          fontsize=7, color=colour)  # fmt: skip
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_precision(precision: np.ndarray) -> np.ndarray:
    """Precision over recall of masks at two overlaps and over all, as a picture (H, W, 3) uint8.

    Args:
        precision: (10, 101), at IoUs from 0.5 to 0.95 and recalls from 0 to 1.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    recall = np.linspace(0, 1, precision.shape[1])
    curves = {"IoU 0.5": precision[0], "IoU 0.75": precision[5], "0.5 to 0.95": precision.mean(0)}
    for (name, curve), style, colour in zip(
        curves.items(), ("-", "--", ":"), ("#0072b2", "#d55e00", "#333333"), strict=True
    ):
        label = f"{name}: AP {100 * curve.mean():.1f}"
        axes.plot(recall, curve, style, color=colour, linewidth=2, label=label)
    axes.set(xlabel="recall", ylabel="mean precision of the classes", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
