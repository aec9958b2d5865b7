"""Pictures in TensorBoard: validation overlays and the confusion matrix."""

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger

from segtrain.contracts import LabelSet

OVERLAY_STRENGTH = 0.6


class ValidationImages(Callback):
    """Image, truth and prediction of a fixed set of validation images at every validation.

    Args:
        num_images: spread evenly over the split.
        max_side: longer side of a picture, in pixels.
    """

    def __init__(self, num_images: int, max_side: int) -> None:
        self.num_images = num_images
        self.max_side = max_side

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        matrix = pl_module.matrix.compute()  # all processes take part in the sum
        if not trainer.is_global_zero:
            return
        source = trainer.datamodule.val_source
        count = min(self.num_images, len(source))
        for index in np.linspace(0, len(source) - 1, count).round().astype(int):
            image, mask = source.read(int(index))
            prediction = self._predict(trainer, pl_module, image)
            strip = overlay_strip(image, mask, prediction, pl_module.labels, self.max_side)
            self._write(trainer, f"val_images/{source.name(int(index))}", strip)
        self._write(trainer, "val/confusion", draw_confusion(matrix, pl_module.labels.names))

    def _predict(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, image: np.ndarray
    ) -> np.ndarray:
        tensor = torch.from_numpy(image).permute(2, 0, 1).to(pl_module.device)
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            return pl_module.inference(pl_module.model, [tensor])[0].argmax(0).cpu().numpy()

    def _write(self, trainer: pl.Trainer, tag: str, picture: np.ndarray) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(tag, picture, trainer.global_step, dataformats="HWC")


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
    scale = min(1.0, max_side / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    panels = [cv2.resize(panel, size, interpolation=cv2.INTER_AREA) for panel in panels]
    gap = np.full((size[1], 4, 3), 255, np.uint8)
    return np.hstack([panels[0], gap, panels[1], gap, panels[2]])


def draw_confusion(matrix: torch.Tensor, names: tuple[str, ...]) -> np.ndarray:
    """Row-normalised confusion matrix (K, K) as a picture (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = matrix.cpu().numpy().astype(float)
    rows = counts.sum(1, keepdims=True)
    shares = np.divide(counts, rows, out=np.full_like(counts, np.nan), where=rows > 0)
    side = 2.5 + 0.32 * len(names)
    figure = Figure(figsize=(side + 0.8, side), dpi=80, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    heat = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    figure.colorbar(heat, fraction=0.046, label="share of the true class")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="prediction", ylabel="truth")
    if len(names) <= 30:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                colour = "black" if share > 0.6 else "white"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center",
                          fontsize=7, color=colour)  # fmt: skip
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
