"""Predictions of a whole split as its test server wants them: written, packed and read back."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch.distributed as dist
from torch import Tensor, nn

from segtrain.contracts import (
    Detections,
    EvalBatch,
    InstanceEvalBatch,
    InstanceTrainBatch,
    Segments,
    Source,
    TrainBatch,
)
from segtrain.errors import UserError
from segtrain.task.segmentation import Evaluation
from segtrain.writing import complete


class SubmittedImage(NamedTuple):
    """An image whose prediction is written."""

    name: str  # in its source
    size: tuple[int, int]  # H, W
    image_id: int | None  # of sets with instances


class ServerFormat(Protocol):
    """The files that one server wants."""

    archive: str  # name of the file that is uploaded

    def write(
        self, found: Tensor | Detections | Segments, image: SubmittedImage, folder: Path
    ) -> None:
        """Writes what was found in one image, scores (K, H, W) or other, below `folder`."""

    def pack(self, folder: Path, images: list[SubmittedImage], archive: Path) -> None:
        """Puts what `write` wrote of the images into one file.

        Raises:
            UserError: a file is missing; names it.
        """

    def check(self, archive: Path, images: list[SubmittedImage]) -> None:
        """Reads everything back and compares it with the server's rules.

        Raises:
            UserError: what the server would refuse; names the file.
        """


class Submission(nn.Module):
    """Takes the place of an evaluation: writes what is found, and measures it where labels are.

    Every process writes its share into a folder that all of them see; memory does not grow with
    the number of images.

    Args:
        evaluation: of the network's kind.
        source: the split.
        server: what its files are to look like.
        run_dir: gets the archive, and until that is done the folder `submission`.
    """

    def __init__(
        self, evaluation: Evaluation, source: Source, server: ServerFormat, run_dir: Path
    ) -> None:
        super().__init__()
        self.evaluation = evaluation
        self.task = evaluation.task
        self.headline = evaluation.headline
        self.image_score = evaluation.image_score
        self.source = source
        self.server = server
        self.folder = run_dir / "submission"
        self.archive = run_dir / server.archive

    def terms(
        self,
        model: nn.Module,
        loss: nn.Module,
        batch: TrainBatch | InstanceTrainBatch,
        weights: dict[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """As the evaluation's."""
        return self.evaluation.terms(model, loss, batch, weights)

    def weights(
        self, model: nn.Module, loss: nn.Module, batch: TrainBatch | InstanceTrainBatch
    ) -> dict[str, Tensor]:
        """As the evaluation's."""
        return self.evaluation.weights(model, loss, batch)

    def reset(self) -> None:
        """Before a split; a collective call."""
        self.evaluation.reset()
        if rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a test that was broken off
            self.folder.mkdir(parents=True)
        barrier()

    def update(
        self,
        found: list[Tensor] | list[Detections] | list[Segments],
        batch: EvalBatch | InstanceEvalBatch,
    ) -> None:
        """Writes what was found in a batch's images.

        Raises:
            UserError: an image has no name that the server knows.
        """
        if self.source.labelled:
            self.evaluation.update(found, batch)
        with self._list_of(rank()).open("a") as file:
            for image, result in zip(submitted_images(batch), found, strict=True):
                self.server.write(result, image, self.folder)
                file.write(json.dumps(image) + "\n")

    def compute(self) -> dict:
        """The evaluation's metrics, none without labels; a collective call.

        When it returns, all processes have written their share.
        """
        metrics = self.evaluation.compute() if self.source.labelled else {}
        barrier()
        return metrics

    def image_scores(self) -> np.ndarray:
        """As the evaluation's, of a split with labels."""
        return self.evaluation.image_scores()

    def confusion(self) -> np.ndarray | None:
        """As the evaluation's, of a split with labels."""
        return self.evaluation.confusion()

    def finish(self) -> Path:
        """Packs what all processes wrote and checks it; on rank zero, after `compute`.

        Returns:
            The archive; only one that has passed the check has its name.

        Raises:
            UserError: an image is missing or twice, or a file is not what the server wants.
        """
        images = self._images()
        with complete(self.archive) as partial:
            self.server.pack(self.folder, images, partial)
            self.server.check(partial, images)
        shutil.rmtree(self.folder)
        return self.archive

    def _list_of(self, process: int) -> Path:
        return self.folder / f"images-{process}.jsonl"

    def _images(self) -> list[SubmittedImage]:
        """The split's images in its order, each of which was predicted once."""
        predicted: dict[str, SubmittedImage] = {}
        for path in sorted(self.folder.glob("images-*.jsonl")):
            for line in path.read_text().splitlines():
                name, size, image_id = json.loads(line)
                if name in predicted:
                    raise UserError(f"{name} is in the split twice; servers want an image once")
                predicted[name] = SubmittedImage(name, tuple(size), image_id)
        names = [self.source.name(index) for index in range(len(self.source))]
        missing = [name for name in names if name not in predicted]
        if missing:
            raise UserError(
                f"{missing[0]} was not predicted ({len(missing)} of {len(names)} images); do all "
                f"processes see the folder {self.folder}?"
            )
        return [predicted[name] for name in names]


def submitted_images(batch: EvalBatch | InstanceEvalBatch) -> list[SubmittedImage]:
    """The images of a batch."""
    sizes = [tuple(image.shape[1:]) for image in batch["image"]]
    ids = [target["image_id"] for target in batch.get("target", ())] or [None] * len(sizes)
    return [SubmittedImage(*image) for image in zip(batch["name"], sizes, ids, strict=True)]


def rank() -> int:
    """This process's number among all."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def barrier() -> None:
    """Waits for the other processes, where there are any."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
