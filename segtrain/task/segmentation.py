"""The LightningModule of every network; what differs between tasks is its `Evaluation`."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from segtrain.architecture.blocks import batch_norms
from segtrain.configuration.schema import Recipe
from segtrain.contracts import is_detector
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.loss.segmentation import mean_over_processes
from segtrain.task.multilabel import MultilabelEvaluation
from segtrain.task.parts import split, statistics_kept
from segtrain.task.unused import freeze_unused


class Evaluation(Protocol):
    """How a kind of network is trained on a batch, and measured over a split."""

    task: str  # semantic, multilabel, panoptic, instance or proposal
    headline: str  # the metric that chooses the checkpoint
    image_score: str  # what `image_scores` are

    def terms(
        self,
        model: nn.Module,
        loss: nn.Module,
        batch: Any,
        weights: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms of the loss of one batch.

        Args:
            model: the network, in training mode.
            loss: of its outputs.
            batch: with labels.
            weights: what sums over examples are divided by, where the batch is a part of a step's
                (see `weights`); None: the batch's own, averaged over processes.
        """

    def weights(self, model: nn.Module, loss: nn.Module, batch: Any) -> dict[str, Tensor]:
        """What the loss divides sums over the batch's examples by; needs no gradient."""

    def reset(self) -> None:
        """Before a split."""

    def update(self, found: list, batch: Any) -> None:
        """Adds what inference found in a batch."""

    def compute(self) -> dict:
        """The `metrics` entry of `results.json`, the same on every process.

        Fractions in 0..1 or None by name, and in `per_class_*` by the class's name.
        """

    def image_scores(self) -> np.ndarray:
        """(n,) a figure in 0..1 or NaN for each image of the split, in its order, after `compute`.

        They tell good images from bad ones, and enter no result. The same on every process.
        """

    def confusion(self) -> np.ndarray | None:
        """(K, K) int64, rows truth, after `compute`; None where the task has none."""


class Segmentation(pl.LightningModule):
    """Training and evaluation of one network.

    Args:
        model: the network.
        loss: of the network's outputs.
        inference: (model, images) -> what the evaluation takes.
        evaluation: of the network's kind.
        optimizer: (model, max_steps) -> optimiser and schedule.
        labels: the classes.
        config: resolved configuration, stored in checkpoints so that one file rebuilds the run.
        seed: of dropout; step s draws from (seed, s, process), so a resumed run draws the same.
        compile_model: whether `model`, or its dense parts, go through torch.compile.
        freeze_batch_norm: whether statistics, scales and shifts of batch norm stay as they are.
        frozen: names of the network's parts that stay as they are, such as `backbone.body.layer1`.
        parts: of a process's batch that go through the network one after the other, for batches
            that do not fit into memory at once; equal in size.

    Raises:
        UserError: the network has no part of such a name.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        inference: Callable[[nn.Module, list[Tensor]], list],
        evaluation: Evaluation,
        optimizer: Callable,
        labels: LabelSet,
        config: Recipe,
        seed: int,
        compile_model: bool,
        freeze_batch_norm: bool,
        frozen: list[str],
        parts: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.inference = inference
        self.make_optimizer = optimizer
        self.labels = labels
        self.config = config
        self.seed = seed
        self.evaluation = evaluation
        self.metrics: dict[str, Any] | None = None  # of the last evaluation
        self.image_scores: np.ndarray | None = None  # of the last test
        self.confusion: np.ndarray | None = None
        self._chooses_kernels = False  # by trying them, which pays where sizes stay
        self.freeze_batch_norm = freeze_batch_norm
        self.frozen = frozen
        self.parts = parts
        for part in self.frozen_parts():
            part.requires_grad_(False)
        self.train()
        if compile_model:
            self.compile_network()

    def train(self, mode: bool = True) -> "Segmentation":
        super().train(mode)
        for part in self.frozen_parts():
            part.eval()
        return self

    def compile_network(self) -> None:
        """Lets `model`, or its dense parts, go through torch.compile from the next step on."""
        if not is_detector(self.model):
            self.model.compile()
            return
        # Only what is dense: the number of regions is another one in every image.
        self.model.backbone.compile(dynamic=True)
        self.model.neck.compile(dynamic=True)

    def frozen_parts(self) -> list[nn.Module]:
        parts = [part_of(self.model, name) for name in self.frozen]
        return parts + batch_norms(self.model) if self.freeze_batch_norm else parts

    def setup(self, stage: str) -> None:
        if stage == "fit":  # before the optimiser and data-parallel training see the parameters
            freeze_unused(self.model)

    def configure_optimizers(self) -> dict:
        optimizer, schedule = self.make_optimizer(self.model, self.trainer.max_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning refuses to clip for a fused optimiser under any autocast. Only float16 scales
        # gradients; a fused step would undo that later, and knows if it was done before.
        if not gradient_clip_val:
            return
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and optimizer.defaults.get("fused"):  # others are unscaled already
            scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: object) -> None:
        """Nothing: a step clears the gradients before its first part's are there."""

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        """The loss of the whole batch, whose gradient is that of its last part yet to be added."""
        self.trainer.optimizers[0].zero_grad()
        if hasattr(self.model, "anneal"):  # what a network changes in the course of a training
            self.model.anneal(self.global_step / self.trainer.max_steps)
        parts = split(batch, self.parts)
        # A loss of the user's own may have no weights: the parts' losses are averaged then.
        is_weighted = len(parts) > 1 and hasattr(self.loss, "weights")
        weights = self._weights(parts) if is_weighted else None
        sums: dict[str, Tensor] = {}
        before = 0.0  # the loss of the parts whose gradients have been added up
        for number, part in enumerate(parts, 1):
            self._seed(number - 1)
            terms = self.evaluation.terms(self.model, self.loss, part, weights)
            loss = torch.stack(list(terms.values())).sum() / len(parts)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.detach() / len(parts)
            if number < len(parts):
                self._add_gradient(loss)
                before = before + loss.detach()
        total = loss + before
        size = len(batch["name"])
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=size)
        for name, term in sums.items():
            self.log(f"train/loss_{name}", term, batch_size=size)
        return total

    def _seed(self, part: int) -> None:
        torch.manual_seed(hash((self.seed, self.global_step, part, self.global_rank)) % 2**63)

    @torch.no_grad()
    def _weights(self, parts: list[dict]) -> dict[str, Tensor]:
        """What sums over examples are divided by: means over the parts and over processes.

        Each part then adds to the gradient what it would in one batch with the others, however
        unevenly void pixels, hard ones and objects lie.
        """
        found = []
        with statistics_kept(self.model):
            for number, part in enumerate(parts):
                self._seed(number)
                found.append(self.evaluation.weights(self.model, self.loss, part))
        return {
            name: mean_over_processes(torch.stack([weights[name] for weights in found]).mean(0))
            for name in found[0]
        }

    def _add_gradient(self, loss: Tensor) -> None:
        """As Lightning does for the loss that a step returns; here outside DDP's exchange."""
        scaled = self.trainer.precision_plugin.pre_backward(loss, self)
        with torch.autocast(loss.device.type, enabled=False):
            scaled.backward()

    def on_validation_start(self) -> None:
        """Images of validation have many sizes, crops have one."""
        self._chooses_kernels = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = False

    def on_validation_end(self) -> None:
        torch.backends.cudnn.benchmark = self._chooses_kernels

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        self._evaluate(batch)

    def test_step(self, batch: dict, batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_start(self) -> None:
        self.evaluation.reset()

    def on_test_epoch_start(self) -> None:
        self.evaluation.reset()

    def on_validation_epoch_end(self) -> None:
        if isinstance(self.evaluation, MultilabelEvaluation):
            self.evaluation.choose()
        self._finish("val")

    def on_test_epoch_end(self) -> None:
        self._finish("test")
        if self.metrics:
            self.image_scores = self.evaluation.image_scores()
            self.confusion = self.evaluation.confusion()

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        seen = self.trainer.global_step * self.config["batch_size"]
        epochs = seen / len(self.trainer.datamodule.train_source)
        labels = self.labels.to_plain()  # so that the file alone is enough to predict
        config = self.config
        if isinstance(self.evaluation, MultilabelEvaluation):
            chosen = {"thresholds": self.evaluation.inference.thresholds}
            config = {**config, "inference": {**config["inference"], **chosen}}
        checkpoint["segtrain"] = {"config": config, "epochs": epochs, "labels": labels}

    def _evaluate(self, batch: dict) -> None:
        self.evaluation.update(self.inference(self.model, batch["image"]), batch)

    def _finish(self, split: str) -> None:
        self.metrics = self.evaluation.compute()
        for name, value in self.metrics.items():
            if isinstance(value, dict):
                for label, share in value.items():
                    if share is not None:
                        self.log(f"{split}_{name.removeprefix('per_class_')}/{label}", share)
                continue
            shown = split == "val" and name == self.evaluation.headline
            self.log(f"{split}/{name}", float("nan") if value is None else value, prog_bar=shown)


def part_of(model: nn.Module, name: str) -> nn.Module:
    """The network's part of that name.

    Raises:
        UserError: there is none.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        near = ", ".join(child for child, _ in model.named_children())
        raise UserError(f"frozen: the network has no part '{name}'; it has {near}") from None
