"""Pictures that loader workers decode while the network is at the ones before."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch.utils.data import DataLoader, Dataset

from segtrain.cli.inputs import Input
from segtrain.cli.manifest import stamp
from segtrain.dataset.workers import default_workers, one_thread
from segtrain.errors import UserError
from segtrain.picture import Picture, picture_pixels, read_picture

FEW = 8  # inputs, for which workers are not worth their start
AHEAD = 4  # batches that each worker decodes ahead


class Seen(NamedTuple):
    """An input on its way to the network."""

    one: Input
    file: dict[str, float | None]  # size and time, see `stamp`
    picture: Picture | None  # None: a video, or so large that one at a time is in memory
    error: str | None  # why it cannot be read


class Decoding(Dataset):
    """Inputs -> decoded pictures of at most `max_pixels`; `white` as of `read_picture`."""

    def __init__(self, max_pixels: int, white: float | None) -> None:
        self.max_pixels = max_pixels
        self.white = white

    def __getitem__(self, one: Input) -> Seen:
        file, picture = stamp(one.path), None
        if not one.is_video:
            try:
                if picture_pixels(one.path) <= self.max_pixels:
                    picture = read_picture(one.path, self.white)
            except UserError as error:
                return Seen(one, file, None, str(error))
        return Seen(one, file, picture, None)


def look_ahead(
    inputs: Iterable[Input],
    count: int,
    batch_size: int,
    num_workers: int | str,
    max_pixels: int,
    white: float | None,
    timeout: int,
) -> Iterator[list[Seen]]:
    """The inputs in their order, in batches, decoded ahead.

    Args:
        inputs: are gone through once, as far as is needed.
        count: how many there are.
        batch_size: of a batch.
        num_workers: loader processes; `auto` leaves cores for the network.
        max_pixels: larger pictures are not decoded here.
        white: the white level of images of more than 8 bits a channel, see `read_picture`.
        timeout: seconds that a batch of the workers is waited for; 0: any time.
    """
    workers = default_workers() if num_workers == "auto" else int(num_workers)
    if count < FEW:
        workers = 0
    loader = DataLoader(
        Decoding(max_pixels, white),
        batch_sampler=Batches(inputs, batch_size),
        collate_fn=list,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=one_thread,
        timeout=timeout if workers else 0,
    )
    yield from loader


class Batches:
    """Lists of `batch_size` inputs, made when they are asked for."""

    def __init__(self, inputs: Iterable[Input], batch_size: int) -> None:
        self.inputs = inputs
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[Input]]:
        batch: list[Input] = []
        for one in self.inputs:
            batch.append(one)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
