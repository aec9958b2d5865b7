"""The LightningModule of semantic segmentation."""

from collections.abc import Callable

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from segtrain.architecture.blocks import batch_norms
from segtrain.contracts import EvalBatch, LabelSet, TrainBatch
from segtrain.loss.segmentation import SegmentationLoss
from segtrain.metric.confusion import ConfusionMatrix, Scores, scores


class SemanticSegmentation(pl.LightningModule):
    """Training and evaluation of one network.

    Args:
        model: (N, 3, H, W) uint8 RGB -> Outputs.
        loss: Outputs and target -> named terms.
        inference: (model, images) -> scores in image size.
        optimizer: (model, max_steps) -> optimiser and schedule.
        labels: the classes.
        config: resolved configuration, stored in checkpoints so that one file rebuilds the run.
        seed: of dropout; step s draws from (seed, s, process), so a resumed run draws the same.
        compile_model: whether `model` goes through torch.compile.
        freeze_batch_norm: whether statistics, scales and shifts of batch norm stay as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: SegmentationLoss,
        inference: Callable[[nn.Module, list[Tensor]], list[Tensor]],
        optimizer: Callable,
        labels: LabelSet,
        config: dict,
        seed: int,
        compile_model: bool,
        freeze_batch_norm: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.inference = inference
        self.make_optimizer = optimizer
        self.labels = labels
        self.config = config
        self.seed = seed
        self.matrix = ConfusionMatrix(labels.num_classes, labels.ignore_index)
        self.scores: Scores | None = None  # of the last evaluation
        self.freeze_batch_norm = freeze_batch_norm
        if freeze_batch_norm:
            for norm in batch_norms(model):
                norm.requires_grad_(False)
        self.train()
        if compile_model:
            self.model.compile()

    def train(self, mode: bool = True) -> "SemanticSegmentation":
        super().train(mode)
        if self.freeze_batch_norm:
            for norm in batch_norms(self.model):
                norm.eval()
        return self

    def configure_optimizers(self) -> dict:
        optimizer, schedule = self.make_optimizer(self.model, self.trainer.max_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_train_batch_start(self, batch: TrainBatch, batch_idx: int) -> None:
        part = batch_idx % self.trainer.accumulate_grad_batches
        torch.manual_seed(hash((self.seed, self.global_step, part, self.global_rank)) % 2**63)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning refuses to clip for a fused optimiser under any autocast, though only float16
        # scales gradients in a way that gets between the two.
        if self.trainer.precision == "16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        outputs = self.model(batch["image"])
        terms = self.loss(outputs, batch["mask"])
        total = torch.stack(list(terms.values())).sum()
        size = len(batch["name"])
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=size)
        for name, term in terms.items():
            self.log(f"train/loss_{name}", term.detach(), batch_size=size)
        return total

    def validation_step(self, batch: EvalBatch, batch_idx: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: EvalBatch, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_start(self) -> None:
        self.matrix.reset()

    def on_test_epoch_start(self) -> None:
        self.matrix.reset()

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val", prog_bar=True)

    def on_test_epoch_end(self) -> None:
        self._log_scores("test", prog_bar=False)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        seen = self.trainer.global_step * self.config["batch_size"]
        epochs = seen / len(self.trainer.datamodule.train_source)
        checkpoint["segtrain"] = {"config": self.config, "epochs": epochs}

    def _evaluate(self, batch: EvalBatch) -> None:
        scored = self.inference(self.model, batch["image"])
        for score, mask in zip(scored, batch["mask"], strict=True):
            self.matrix.update(score.argmax(0), mask)

    def _log_scores(self, split: str, prog_bar: bool) -> None:
        self.scores = scores(self.matrix.compute())
        for name in ("miou", "pixel_accuracy", "mean_accuracy", "fwiou"):
            value = getattr(self.scores, name)
            self.log(
                f"{split}/{name}",
                float("nan") if value is None else value,
                prog_bar=prog_bar and name == "miou",
            )
        for name, value in zip(self.labels.names, self.scores.per_class_iou, strict=True):
            if value is not None:
                self.log(f"{split}_iou/{name}", value)
