"""Decoded images and train-id masks in two flat files, of which only what a crop shows is read.

Decoding dominates the reading of large PNGs: a 2048x1024 image and its mask take some 50 ms, while
the memory-mapped crop of one costs a copy. The price is disk space: 4 bytes a pixel, of panoptic
sets 6.
"""

import logging
import re
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from segtrain.contracts import Listing, Source
from segtrain.dataset.cache import cache_root, cached_folder, fingerprint
from segtrain.dataset.stream import EvalImages
from segtrain.dataset.workers import one_thread
from segtrain.errors import UserError
from segtrain.terminal import track

logger = logging.getLogger("segtrain")


def cached_pixels(source: Source, name: str, num_workers: int) -> "CachedPixels":
    """A semantic source from the cache, built when first asked for and anew after a change.

    Args:
        source: the split.
        name: of the data set and split.
        num_workers: processes that decode while it is built; other processes wait.

    Raises:
        UserError: there is not enough disk space, or a file cannot be read.
    """
    listing = source.listing()
    place = sha256("\n".join(listing.files).encode()).hexdigest()[:8]
    readable = re.sub(r"[^\w.-]+", "_", name)
    folder = cached_folder(
        f"pixels/{readable}-{place}",
        fingerprint(listing),
        lambda target: write_pixels(source, target, num_workers),
    )
    return CachedPixels(source, folder)


class CachedPixels:
    """A semantic source whose pixels come from the cache, exactly as the source reads them.

    Args:
        source: the split; names, counts and files remain its own.
        folder: what `write_pixels` made of it.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self.source = source
        self.labelled = source.labelled
        self.index = np.load(folder / "index.npy")  # (N, 3) int64: first pixel, height, width
        self.images = np.memmap(folder / "images.bin", np.uint8, "r")
        self.masks = np.memmap(folder / "masks.bin", np.uint8, "r")
        self.depth = self.masks.size // (self.images.size // 3)  # bytes of a pixel's label

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and mask (H, W) or (H, W, B), uint8, read-only, read where looked at."""
        first, height, width = map(int, self.index[index])
        last = first + height * width
        image = self.images[3 * first : 3 * last].reshape(height, width, 3)
        mask = self.masks[self.depth * first : self.depth * last]
        size = (height, width) if self.depth == 1 else (height, width, self.depth)
        return image.view(np.ndarray), mask.reshape(size).view(np.ndarray)

    def image_file(self, index: int) -> str | None:
        return self.source.image_file(index)

    def class_counts(self, index: int) -> np.ndarray:
        return self.source.class_counts(index)

    def listing(self) -> Listing:
        return self.source.listing()


def write_pixels(source: Source, folder: Path, num_workers: int) -> None:
    """Decodes every sample of a semantic source into `folder`.

    Raises:
        UserError: there is not enough disk space.
    """
    needed = sum(array.size for array in source.read(0)) * len(source)
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise UserError(
            f"{cache_root()}: the cache of {len(source)} images needs about {needed / 1e9:.1f} GB "
            f"and {free / 1e9:.1f} GB are free; set SEGTRAIN_CACHE to a larger disk, or "
            "dataset.cache=false"
        )
    logger.info("cache       writing %d images, about %.1f GB, to %s", len(source), needed / 1e9,
                cache_root())  # fmt: skip
    loader = DataLoader(
        EvalImages(source, rank=0, world_size=1),
        batch_size=None,
        num_workers=num_workers,
        worker_init_fn=one_thread,
    )
    rows, first = [], 0
    with open(folder / "images.bin", "wb") as images, open(folder / "masks.bin", "wb") as masks:
        for image, mask, _ in track(loader, len(source), "caching"):
            images.write(np.ascontiguousarray(image).data)
            masks.write(np.ascontiguousarray(mask).data)
            rows.append((first, *mask.shape[:2]))
            first += mask.shape[0] * mask.shape[1]
    np.save(folder / "index.npy", np.array(rows, np.int64))
