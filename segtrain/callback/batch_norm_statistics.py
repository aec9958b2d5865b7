"""Batch-norm statistics taken anew before each validation, instead of running averages."""

from collections.abc import Iterable

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segtrain.architecture.blocks import batch_norms
from segtrain.contracts import OF_PIXELS
from segtrain.dataset.stream import StepSampler, TrainStream
from segtrain.dataset.workers import one_thread
from segtrain.errors import UserError
from segtrain.values import Count


class BatchNormStatistics(Callback):
    """Averages over training crops with the weights as they are then.

    What DeconvNet's code does once after training to make the net testable: its statistics of the
    training batches are otherwise never accumulated. Where weights are averaged (callback=ema), the
    statistics are those of the averages, which are validated and saved. Frozen parts keep theirs.

    Args:
        num_images: training crops over which they are taken, by all processes together.
    """

    def __init__(self, num_images: Count) -> None:
        self.num_images = num_images

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if pl_module.evaluation.task not in OF_PIXELS:
            raise UserError("callback=batch_norm_statistics is for data sets with masks only")

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return  # the checkpoint has them
        data = trainer.datamodule
        sampler = StepSampler(
            num_batches=max(1, self.num_images // data.batch_size),
            batch_size=data.batch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            first_batch=0,
        )
        loader = DataLoader(
            TrainStream(data.train_source, data.transform, data.seed, data.mix),
            batch_sampler=sampler,
            num_workers=data.num_workers,
            collate_fn=data.transform.collate_train,
            worker_init_fn=one_thread,
            timeout=data.timeout,
        )
        images = (batch["image"].to(pl_module.device) for batch in loader)
        with trainer.strategy.precision_plugin.forward_context():
            take_statistics(pl_module.model, images, pl_module.frozen_parts())


@torch.no_grad()
def take_statistics(
    model: nn.Module, images: Iterable[Tensor], frozen: Iterable[nn.Module] = ()
) -> None:
    """Sets running means and variances to their averages over batches.

    Args:
        model: its modes and momenta are as before afterwards.
        images: batches (N, 3, H, W), at least one.
        frozen: parts of it whose statistics stay.
    """
    kept = {norm for part in frozen for norm in batch_norms(part)}
    norms = [norm for norm in batch_norms(model) if norm not in kept]
    if not norms:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.train()
    for part in frozen:
        part.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
    for batch in images:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
    if dist.is_available() and dist.is_initialized():
        for norm in norms:
            for statistic in (norm.running_mean, norm.running_var):
                dist.all_reduce(statistic)
                statistic /= dist.get_world_size()
