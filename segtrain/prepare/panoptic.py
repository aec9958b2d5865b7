"""COCO's panoptic PNGs out of the archives that its archive holds."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from segtrain.errors import UserError
from segtrain.prepare.extract import extract


def unpack_masks(root: Path) -> bool:
    """Extracts `annotations/panoptic_<split>.zip` where the folder of its PNGs is not there yet.

    Returns:
        Whether anything was done.

    Raises:
        UserError: see `extract`; or the archive holds no folder of its name.
    """
    done = False
    for archive in sorted((root / "annotations").glob("panoptic_*.zip")):
        target = archive.with_suffix("")
        if target.is_dir() or (root / target.name).is_dir():
            continue
        with TemporaryDirectory(dir=target.parent) as work:
            extract(archive, Path(work))
            if not (Path(work) / target.name).is_dir():
                raise UserError(f"{archive}: holds no folder {target.name}; get it anew")
            os.replace(Path(work) / target.name, target)
        done = True
    return done
