"""The one source for sets of image and mask files."""

from collections.abc import Callable, Iterable, Sequence
from glob import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segtrain.contracts import Listing
from segtrain.dataset.counts import count_labels
from segtrain.dataset.files import check_sizes, read_image, read_mask
from segtrain.dataset.packed import PackedStrings
from segtrain.errors import UserError
from segtrain.label_set import LabelSet


class Pair(NamedTuple):
    """Paths of one image and of its mask; an empty mask where the labels are not public."""

    image: str
    mask: str


class PackedPairs(Sequence):
    """Pairs in flat arrays, see `PackedStrings`."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        images, masks = zip(*pairs, strict=True)
        self.images, self.masks = PackedStrings(images), PackedStrings(masks)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pair:
        return Pair(self.images[index], self.masks[index])


class ImageMaskPairs:
    """One split of a set whose masks are files of raw label values.

    Args:
        pairs: the split's files, in a fixed order, at least one.
        labels: turns raw mask values into train ids.
        root: left out of the names that messages show.
        exclusive: patterns relative to the root (`train/*.png`) of files that some split of the set
            must list.
        white: the white level of images of more than 8 bits a channel, see `decode_image`; None: by
            each file's own range.
        decode: (path, labels) -> labels of a mask file, where those are not `read_train_ids`'.
    """

    def __init__(
        self,
        pairs: list[Pair],
        labels: LabelSet,
        root: str | Path,
        exclusive: tuple[str, ...] = (),
        white: float | None = None,
        decode: Callable[[str, LabelSet], np.ndarray] | None = None,
    ) -> None:
        self.pairs = PackedPairs(pairs)
        self.labels = labels
        self.root = Path(root)
        self.exclusive = exclusive
        self.white = white
        self.decode = decode or read_train_ids
        self.labelled = bool(pairs[0].mask)

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return str(Path(self.pairs[index].image).relative_to(self.root))

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and its labels, all void where they are not public.

        Labels are (H, W) uint8 train ids; of panoptic sets (H, W, 3), see `segtrain.segments`.

        Raises:
            UserError: a file is missing, truncated or no image; the sizes differ; a mask value
                is not in the label map. The message names the file.
        """
        pair = self.pairs[index]
        image = read_image(pair.image, self.white)
        if not pair.mask:
            size = image.shape[: 2 if self.labels.things is None else 3]
            return image, np.full(size, self.labels.ignore_index, np.uint8)
        mask = self.decode(pair.mask, self.labels)
        check_sizes(pair.mask, mask.shape[:2], pair.image, image.shape[:2])
        return image, mask

    def image_file(self, index: int) -> str:
        return self.pairs[index].image

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 pixels per class; void last."""
        return count_labels(self.decode(self.pairs[index].mask, self.labels), self.labels)

    def listing(self) -> Listing:
        return Listing(
            key=self.labels.describe() + (f" white {self.white:g}" if self.white else ""),
            files=[path for pair in self.pairs for path in pair if path],
            patterns=[f"{escape(str(self.root))}/{pattern}" for pattern in self.exclusive],
        )


def read_train_ids(path: str, labels: LabelSet) -> np.ndarray:
    """Train ids (H, W) uint8 of a mask file of raw values.

    Raises:
        UserError: see `read_mask`; or a value is not in the label map. Names the file.
    """
    try:
        return labels.encode(read_mask(path, labels.colours))
    except UserError as error:
        if path in str(error):
            raise
        raise UserError(f"{path}: {error}") from None
