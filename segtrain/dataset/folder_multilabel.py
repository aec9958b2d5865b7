"""A user's own masks of classes that may overlap: `images/`, and a mask a class in `masks/`."""

from glob import escape
from pathlib import Path
from typing import Literal

import numpy as np

from segtrain.contracts import Listing
from segtrain.dataset.counts import count_labels
from segtrain.dataset.files import check_sizes, read_image, read_lines, read_mask, require_folder
from segtrain.dataset.folder import IMAGE_ENDINGS, MASK_ENDINGS, by_name, split_names
from segtrain.dataset.labels import overlapping
from segtrain.dataset.packed import PackedStrings
from segtrain.dataset.white import common_white
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.planes import pack
from segtrain.values import Natural, Positive, Text

LAYOUT = (
    "expected images/<name>.*, and masks/<class>/<name>.png in the folder dataset.source.root; "
    "or masks/<name>.png of a single class"
)
VOID = "void"  # the folder of masks whose pixels count nowhere
ONLY = "object"  # the single class, where classes.txt does not name it


def multilabel_labels(root: Text) -> LabelSet:
    """The classes of a folder: the lines of `classes.txt`, or the folders inside `masks/`.

    Raises:
        UserError: there is no such folder, or no class or one twice.
    """
    base = require_folder(Path(root), LAYOUT)
    masks = require_folder(base / "masks", LAYOUT)
    path = base / "classes.txt"
    names = sorted(entry.name for entry in masks.iterdir()
                   if entry.is_dir() and not entry.name.startswith("."))  # fmt: skip
    if path.exists():
        names = read_lines(path)
    names = [name for name in names if name != VOID] or [ONLY]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: class {', '.join(twice)} stands more than once")
    return overlapping(tuple(names))


class MaskPlanes:
    """One split of images with a mask file a class; a class without one is nowhere in the image.

    Args:
        names: of the images, at least one.
        images: their files by name.
        masks: for each class and then for void, files by the image's name.
        labels: the classes.
        root: left out of the names that messages show.
        void_value: of masks, that counts nowhere; all others but 0 are the class.
        white: see `ImageMaskPairs`.
    """

    labelled = True

    def __init__(
        self,
        names: list[str],
        images: dict[str, str],
        masks: list[dict[str, str]],
        labels: LabelSet,
        root: Path,
        void_value: int | None,
        white: float | None,
    ) -> None:
        self.images = PackedStrings([images[name] for name in names])
        self.masks = [PackedStrings([files.get(name, "") for name in names]) for files in masks]
        self.labels = labels
        self.root = root
        self.void_value = void_value
        self.white = white

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return str(Path(self.images[index]).relative_to(self.root))

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W, B) uint8, see `segtrain.planes`.

        Raises:
            UserError: a file is missing or damaged, or sizes differ; the message names the file.
        """
        image = read_image(self.images[index], self.white)
        return image, self._planes(index, image.shape[:2])

    def image_file(self, index: int) -> str:
        return self.images[index]

    def class_counts(self, index: int) -> np.ndarray:
        """(K + 1,) int64 pixels per class, which may overlap; void last."""
        return count_labels(self.read(index)[1], self.labels)

    def listing(self) -> Listing:
        files = [self.images[index] for index in range(len(self))]
        files += [path for paths in self.masks for index in range(len(self))
                  if (path := paths[index])]  # fmt: skip
        key = f"{self.labels.describe()} void {self.void_value} white {self.white}"
        return Listing(key, files, [f"{escape(str(self.root))}/images/*"])

    def _planes(self, index: int, size: tuple[int, int]) -> np.ndarray:
        shown = np.zeros((len(self.masks), *size), bool)
        void = shown[-1]
        for plane, paths in zip(shown, self.masks, strict=True):
            if not (path := paths[index]):
                continue
            raw = read_mask(path)
            check_sizes(path, raw.shape, self.images[index], size)
            if self.void_value is not None:
                void |= raw == self.void_value
            plane |= (raw != 0) & (raw != self.void_value)
        return pack(shown[:-1], void)


def folder_multilabel(
    root: Text,
    split: str,
    labels: LabelSet,
    void_value: Natural | None,
    white_level: Positive | Literal["auto"] | None = "auto",
) -> MaskPlanes:
    """One split of `images/<name>.*` with `masks/<class>/<name>.png`; see `folder` for splits.

    In a mask everything but 0 is the class. Where there is a single class, masks may lie in
    `masks/` itself. `masks/void/<name>.png` shows what counts nowhere.

    Args:
        root: the folder.
        split: train, val, or any that has a list.
        labels: of `multilabel_labels`.
        void_value: value of masks that counts nowhere, such as 255 of masks of 0, 1 and 255.
        white_level: see `folder`.

    Raises:
        UserError: as `folder`; an image without the mask of any class is missing one.
    """
    base = require_folder(Path(root), LAYOUT)
    images = by_name(require_folder(base / "images", LAYOUT), IMAGE_ENDINGS)
    folder = require_folder(base / "masks", LAYOUT)
    places = [folder / name for name in (*labels.names, VOID)]
    if labels.num_classes == 1 and not places[0].is_dir():
        places[0] = folder
    masks = [by_name(place, MASK_ENDINGS) if place.is_dir() else {} for place in places]
    names = split_names(base, split, sorted(images))
    if not names:
        raise UserError(f"{base}: split '{split}' is empty ({len(images)} images in images/)")
    for name in names:
        if name not in images:
            raise UserError(f"{base / 'images'}: no image named {name} (listed in {split})")
        if not any(name in files for files in masks):
            raise UserError(f"{folder}: no mask {name}.png of any class for image {images[name]}; "
                            f"{LAYOUT}")  # fmt: skip
    white = common_white(sorted(images.values())) if white_level == "auto" else white_level
    return MaskPlanes(names, images, masks, labels, base, void_value, white)
