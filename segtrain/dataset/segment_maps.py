"""Images whose segments are in PNGs, one colour each, with a JSON that tells their classes."""

from pathlib import Path

import numpy as np

from segtrain.contracts import Listing
from segtrain.dataset.annotated import AnnotatedImages, category_lookup
from segtrain.dataset.counts import count_labels
from segtrain.dataset.files import read_mask
from segtrain.dataset.panoptic_annotations import PanopticAnnotations
from segtrain.errors import UserError
from segtrain.label_set import VOID, LabelSet
from segtrain.segments import CROWD, pack


class SegmentMaps(AnnotatedImages):
    """Images with panoptic labels; what no segment covers is void.

    Instances are numbered from 1 in the order of the file. Segments of one class of stuff count as
    one, as the crowds of one class do.

    Args:
        annotations: of the images and more.
        folder: that the image names are relative to.
        masks: folder that the names of the PNGs are relative to.
        chosen: (n,) positions of the images among those of the file.
        labels: the classes; raw values are category ids.
    """

    def __init__(
        self,
        annotations: PanopticAnnotations,
        folder: Path,
        masks: Path,
        chosen: np.ndarray,
        labels: LabelSet,
    ) -> None:
        super().__init__(annotations, folder, chosen, labels)
        self.masks = masks
        self.lookup = category_lookup(labels)
        self.is_thing = np.isin(np.arange(VOID + 1), list(labels.things))

    def mask_file(self, index: int) -> str:
        return str(self.masks / self.annotations.mask_names[self.chosen[index]])

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W, 3) uint8, see `segtrain.segments`.

        The mask is void throughout where the labels are not public.

        Raises:
            UserError: a file is missing or damaged, or its size is not the annotated one; a
                category is not in the label map; the PNG shows a segment that has no entry, or not
                one that has; names file and id.
        """
        return self.read_image(index), self._mask(index)

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 pixels per class; void last."""
        return count_labels(self._mask(index), self.labels)

    def listing(self) -> Listing:
        listing = super().listing()
        masks = [self.mask_file(index) for index in range(len(self))] if self.labelled else []
        return Listing(listing.key, [*listing.files, *masks], (), listing.faults, listing.notes)

    def _mask(self, index: int) -> np.ndarray:
        number = self.chosen[index]
        height, width = self.annotations.sizes[number].tolist()
        if not self.labelled:
            return np.full((height, width, 3), VOID, np.uint8)
        path = self.mask_file(index)
        colours = read_mask(path, colours=True)
        if colours.shape != (height, width):
            raise UserError(
                f"{path}: the mask is {colours.shape[1]}x{colours.shape[0]} but "
                f"{self.annotations.path} says {width}x{height} (width x height)"
            )
        part = self.annotations.segments(number)
        classes, numbers = self._meanings(part, path)
        ids = np.append(self.annotations.ids[part], 0)
        try:
            return label_segments(colours, ids, classes, numbers)
        except ValueError as error:
            raise UserError(f"{path}: {error} in {self.annotations.path}") from None

    def _meanings(self, part: slice, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Train id and number of an image's segments; last, of pixels that belong to none."""
        raw = self.annotations.categories[part]
        train = self.lookup[np.minimum(raw, len(self.lookup) - 1)]
        if (train < -1).any():
            raise UserError(f"{path}: category id {raw[train < -1][0]} is not in the label map: "
                            f"{self.labels.describe()}")  # fmt: skip
        classes = np.append(np.where(train < 0, VOID, train), VOID)
        crowd = np.append(self.annotations.crowds[part], False)
        single = self.is_thing[classes] & ~crowd
        numbers = np.where(single, np.cumsum(single), 0)
        numbers[crowd & (classes != VOID)] = CROWD
        return classes.astype(np.uint8), numbers


def label_segments(
    colours: np.ndarray, ids: np.ndarray, classes: np.ndarray, numbers: np.ndarray
) -> np.ndarray:
    """Labels (H, W, 3) uint8, see `segtrain.segments`, of a map of segments.

    Args:
        colours: (H, W) int, 0xRRGGBB, of which R + 256 G + 65536 B is the segment's id.
        ids: (n,) of the segments; last, 0, which may be nowhere.
        classes: (n,) uint8 train ids.
        numbers: (n,) of the instances.

    Raises:
        ValueError: a segment of the map is not among the ids, or one of the ids is not in the map.
    """
    keys = _swapped(ids)
    order = np.argsort(keys)
    flat = colours.ravel()
    # Along a row segments are long, so that what is looked up are runs and not pixels.
    starts = np.flatnonzero(np.append(True, flat[1:] != flat[:-1]))
    place = np.searchsorted(keys[order], flat[starts])
    position = order[np.minimum(place, len(keys) - 1)]
    unknown = keys[position] != flat[starts]
    if unknown.any():
        number = _swapped(flat[starts][unknown][:1])[0]
        raise ValueError(f"shows a segment {number}, which has no entry")
    absent = np.setdiff1d(np.arange(len(ids) - 1), position)
    if absent.size:
        raise ValueError(f"shows no pixel of segment {ids[absent[0]]}, which has an entry")
    runs = np.diff(np.append(starts, flat.size))
    labels = pack(classes[None, position], numbers[None, position])[0]
    return labels.repeat(runs, 0).reshape(*colours.shape, 3)


def _swapped(numbers: np.ndarray) -> np.ndarray:
    """0xRRGGBB of 0xBBGGRR, and the other way round."""
    return (numbers & 0xFF) << 16 | numbers & 0xFF00 | numbers >> 16
