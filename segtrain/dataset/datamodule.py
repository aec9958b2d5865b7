"""One LightningDataModule for every data set."""

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Literal, TypedDict

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from segtrain.contracts import Source
from segtrain.dataset.colours import recolour
from segtrain.dataset.instance_mixing import CopyPaste, Mosaic
from segtrain.dataset.joined import Joined
from segtrain.dataset.mixing import ClassMix, CutMix, PasteClasses
from segtrain.dataset.pixels import cached_pixels
from segtrain.dataset.preflight import check_labels, report_left_out, report_turned
from segtrain.dataset.preparation import Preparation
from segtrain.dataset.shard_index import ShardReading, open_shards
from segtrain.dataset.shards import ShardSource
from segtrain.dataset.stream import EvalImages, StepSampler, TrainStream
from segtrain.dataset.transforms import InstancePreset, SemanticPreset
from segtrain.dataset.workers import default_workers, one_thread
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.values import Count, Given, Natural, Positive, Text


class Splits(TypedDict):
    """Official names of the splits that are trained on, choose the checkpoint, and are reported."""

    train: Text
    val: Text
    test: Text


class SegmentationData(pl.LightningDataModule):
    """Loaders of one data set. Constructing it touches no image.

    Args:
        name: the data set's name in results.
        labels: its classes.
        source: (split, labels) -> one split's images.
        splits: official split names for `train`, `val` (chooses the checkpoint) and `test` (the
            split that is reported); `a+b` joins two.
        transform: training augmentation, and how samples are batched.
        preparation: how the files get onto the disk; None where there are none.
        cache: whether decoded images and masks are kept in the cache (see `cached_pixels`).
        num_workers: loader processes per training process; `auto` leaves cores for the training.
        eval_batch_size: images a process evaluates at a time.
        preflight_masks: pairs per split that are checked before the first step.
        batch_size: training images per optimiser step over all processes and accumulation.
        seed: of order and augmentation.
        shards: folder or address of shards that are read instead of the files.
        shard_window, shard_cache, shard_cache_gb: see `ShardReading`.
        timeout: seconds that a batch of the loader's workers is waited for; 0: any time.
        mix: makes training samples out of several; None where each is one image.

    Raises:
        UserError: `mix` is for labels of another kind.
    """

    def __init__(
        self,
        *,
        name: Text,
        labels: LabelSet,
        source: Annotated[Callable[..., Source], Given("split", "labels")],
        splits: Splits,
        transform: SemanticPreset | InstancePreset,
        preparation: Preparation | None,
        cache: bool,
        num_workers: Natural | Literal["auto"],
        eval_batch_size: Count,
        preflight_masks: Natural,
        batch_size: Count,
        seed: Natural,
        shards: Text | None = None,  # not in the configuration of older runs, as what follows
        shard_window: Count | Literal["auto"] | None = "auto",
        shard_cache: Text | None = None,
        shard_cache_gb: Positive | None = None,
        timeout: Natural = 600,
        mix: CutMix | ClassMix | PasteClasses | CopyPaste | Mosaic | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.labels = labels
        self.make_source = source
        self.splits = splits
        self.transform = transform
        self.mix = mix
        kinds = {True: "masks of classes", False: "instances"}
        semantic = isinstance(transform, SemanticPreset)
        if mix is not None and mix.semantic != semantic:
            raise UserError(f"dataset.mix={type(mix).__name__} is for {kinds[mix.semantic]}; "
                            f"dataset={name} has {kinds[semantic]}")  # fmt: skip
        if mix is not None and labels.overlapping and not mix.overlapping:
            raise UserError(f"dataset.mix={type(mix).__name__} chooses pixels by their class, and "
                            f"those of dataset={name} may have several; dataset/mix=cutmix does "
                            "not")  # fmt: skip
        self.preparation = preparation
        self.cache = cache
        self.num_workers = default_workers() if num_workers == "auto" else int(num_workers)
        self.eval_batch_size = eval_batch_size
        self.preflight_masks = preflight_masks
        self.batch_size = batch_size
        self.seed = seed
        self.timeout = timeout if self.num_workers else 0
        self.shards = (
            None
            if shards is None
            else ShardReading(shards, shard_window, shard_cache, shard_cache_gb)
        )

    @cached_property
    def train_source(self) -> Source:
        return self.read_source(self.splits["train"])

    @cached_property
    def val_source(self) -> Source:
        return self.read_source(self.splits["val"])

    @cached_property
    def test_source(self) -> Source:
        return self.read_source(self.splits["test"])

    def source(self, split: str) -> Source:
        """One split by its official name, or several joined by `+`, as its files or shards are.

        Raises:
            UserError: its files, lists or shards are missing, or it is empty.
        """
        if self.shards is not None:
            semantic = isinstance(self.transform, SemanticPreset)
            return open_shards(self.shards, split.split("+"), self.labels, semantic)
        parts = [self.make_source(split=part, labels=self.labels) for part in split.split("+")]
        return Joined(parts) if len(parts) > 1 else parts[0]

    def labelled_source(self, split: str) -> Source:
        """A split that can be trained on and evaluated.

        Raises:
            UserError: as `source`; or its labels are not public.
        """
        source = self.source(split)
        if not source.labelled:
            raise UserError(
                f"split '{split}' of {self.name} has no public labels to train on or to evaluate; "
                "choose another with dataset.splits.<train|val|test>=... or split=...; "
                "segtrain evaluate submit=true writes what its test server takes"
            )
        return source

    def read_source(self, split: str) -> Source:
        """The split as it is read in training and evaluation, from the cache where one is used.

        Raises:
            UserError: as `labelled_source`; or it cannot be cached.
        """
        source = self.labelled_source(split)
        if not self.cache:
            return source
        if self.shards is not None:
            raise UserError("dataset.cache=true keeps decoded files; it cannot be used with "
                            "dataset.shards, use dataset.cache=false")  # fmt: skip
        if not isinstance(self.transform, SemanticPreset) or not source.listing().files:
            raise UserError(f"{self.name} has no image and mask files; use dataset.cache=false")
        return cached_pixels(source, f"{self.name}-{split}", self.num_workers)

    def check(self) -> None:
        """The pre-flight check of the splits that a training reads (see `dataset.preflight`)."""
        self._check(self.train_source, self.splits["train"])
        self._check(self.val_source, self.splits["val"])
        if self.splits["test"] != self.splits["val"]:
            self.check_test()  # before hours of training

    def check_test(self) -> None:
        """The pre-flight check of the split that an evaluation reads."""
        self._check(self.labelled_source(self.splits["test"]), self.splits["test"])

    def _check(self, source: Source, split: str) -> None:
        report_left_out(source.listing().notes, split)
        if isinstance(source, ShardSource) and source.store.remote:
            source = source.head()  # not every shard shall be fetched for it
        trained_on = split == self.splits["train"]
        check_labels(source, self.labels, split, self.preflight_masks, trained_on)
        report_turned(source, split, self.preflight_masks)

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        sampler = StepSampler(
            num_batches=trainer.max_steps,
            batch_size=self.batch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            first_batch=trainer.global_step,
        )
        transform = self.transform
        on_cuda = trainer.strategy.root_device.type == "cuda"
        # What is mixed has the colours of several samples, which no one matrix changes.
        if isinstance(transform, SemanticPreset) and on_cuda and self.mix is None:
            transform = transform.leaving_colours()
        return DataLoader(
            TrainStream(self.train_source, transform, self.seed, self.mix),
            batch_sampler=sampler,
            num_workers=self.num_workers,
            prefetch_factor=4 if self.num_workers else None,
            collate_fn=self.transform.collate_train,
            worker_init_fn=one_thread,
            timeout=self.timeout,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader:
        return self._eval_loader(self.val_source, self.splits["val"])

    def test_dataloader(self) -> DataLoader:
        return self._eval_loader(self.test_source, self.splits["test"])

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """As Lightning does, which would look at the codes of true instances byte by byte."""
        if any("codes" in target for target in batch.get("target", ())):
            images = super().transfer_batch_to_device(batch["image"], device, dataloader_idx)
            return {**batch, "image": images}
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Applies the colours that the loader left to the device."""
        if "colours" in batch:
            batch["image"] = recolour(batch["image"], batch.pop("colours"))
        return batch

    def _eval_loader(self, source: Source, split: str) -> DataLoader:
        if len(source) < self.trainer.world_size:
            raise UserError(
                f"split '{split}' has {len(source)} images for {self.trainer.world_size} processes;"
                " evaluate on fewer (trainer.devices)"
            )
        return DataLoader(
            EvalImages(source, self.trainer.global_rank, self.trainer.world_size),
            batch_size=self.eval_batch_size,
            num_workers=self.num_workers,
            collate_fn=self.transform.collate_eval,
            worker_init_fn=one_thread,
            timeout=self.timeout,
            pin_memory=torch.cuda.is_available(),
        )
