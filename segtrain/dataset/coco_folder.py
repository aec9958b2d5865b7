"""The folder of a user's COCO JSON: where its files lie, whether they are whole, what is val."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np

from segtrain.dataset.coco_annotations import SHOWN, CocoAnnotations
from segtrain.dataset.files import require_folder
from segtrain.dataset.panoptic_annotations import PanopticAnnotations
from segtrain.errors import UserError


def find_images(base: Path, images: str | None, layout: str) -> Path:
    """The folder of the images: the one of that name, or `images/` where there is one, or `base`.

    Raises:
        UserError: there is no such folder; says what is expected there.
    """
    require_folder(base, layout)
    inside = base / ("images" if images is None else images)
    return base if images is None and not inside.is_dir() else require_folder(inside, layout)


def find_annotations(
    base: Path, annotations: str | dict[str, str] | None, split: str | None, begin: str
) -> tuple[Path, bool]:
    """The annotation file of a split, and whether it is that of all splits.

    Args:
        base: the data set's folder.
        annotations: see `coco_json_instances`.
        split: its name; None: of any.
        begin: that the names of files may have before the split's.

    Raises:
        UserError: none is named or found.
    """
    if isinstance(annotations, str):
        return base / annotations, True
    if annotations is not None:
        wanted = next(iter(annotations), None) if split is None else split
        if wanted not in annotations:
            raise UserError(f"dataset.source.annotations names no file of split '{wanted}', only "
                            f"of {', '.join(annotations) or 'none'}")  # fmt: skip
        return base / annotations[wanted], False
    found = [
        path for place in (base, base / "annotations") for path in sorted(place.glob("*.json"))
    ]
    if len(found) == 1:
        return found[0], True
    names = [f"{start}{split or 'train'}.json" for start in ("", begin)]
    named = [path for path in found if path.name in names]
    if not named:
        raise UserError(
            f"{base}: neither {' nor '.join(names)} is there or in annotations/ (found: "
            f"{', '.join(path.name for path in found) or 'no *.json'}); name the files, "
            "dataset.source.annotations={train: a.json, val: b.json}, or one to share out"
        )
    return named[0], False


def require_whole(file: CocoAnnotations | PanopticAnnotations, folder: Path) -> None:
    """Refuses annotations that something is wrong with, or whose images are not all there.

    Raises:
        UserError: names what is wrong.
    """
    path = file.path
    if not (file.annotated and file.names):
        raise UserError(f"{path}: has no list of annotations or of categories")
    names = Counter(file.file_names)
    problems = [
        *file.faults,
        *(f"{path}: file_name {name} stands {n} times" for name, n in names.items() if n > 1),
        *(f"{folder / name}: no such image file; {path} names it"
          for name in names if not (folder / name).is_file()),
    ]  # fmt: skip
    if problems or not names:
        more = [f"... and {len(problems) - SHOWN} more"] if problems[SHOWN:] else []
        raise UserError("\n  ".join([*problems[:SHOWN], *more]) or f"{path}: names no image")


def choose_shared(
    file: CocoAnnotations | PanopticAnnotations,
    shared: bool,
    split: str,
    val_share: float,
    seed: int,
) -> np.ndarray:
    """(n,) positions of a split's images in a file that is shared out; in another all.

    Raises:
        UserError: it cannot be shared out, or not to such a split.
    """
    if not shared:
        return np.arange(len(file.file_names))
    if split not in ("train", "val"):
        raise UserError(f"{file.path} is shared out to train and val; for a split '{split}' name "
                        "the file of each split in dataset.source.annotations")  # fmt: skip
    is_val = np.array(share_out(list(file.file_names), val_share, seed))
    return np.flatnonzero(is_val == (split == "val"))


def share_out(names: list[str], val_share: float, seed: int) -> list[bool]:
    """Whether each image, by its name, is `val`: those whose names have the smallest hashes.

    A new image moves at most one other across. Both parts get at least one image.

    Raises:
        UserError: the share is not between 0 and 1, or there are fewer than two images.
    """
    if not 0 < val_share < 1 or len(names) < 2:
        raise UserError(f"{len(names)} images cannot be shared out with val_share={val_share}; "
                        "two images at least and a share between 0 and 1 are needed")  # fmt: skip
    hashes = [hashlib.sha256(f"{seed} {name}".encode()).hexdigest() for name in names]
    count = min(max(round(len(names) * val_share), 1), len(names) - 1)
    last = sorted(hashes)[count - 1]
    return [value <= last for value in hashes]
