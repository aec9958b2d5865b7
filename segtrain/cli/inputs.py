"""What `input=` names: pictures and videos, and what their results are called."""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from segtrain.errors import UserError

PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm",
    ".pgm", ".pbm", ".jp2", ".avif",
)  # fmt: skip
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv")


class Input(NamedTuple):
    """One picture or video."""

    path: Path
    stem: str  # of its results, with the sub-folders in which it lies

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its ending."""
        return self.path.suffix.lower() in VIDEOS


def find_inputs(given: str, output: Path) -> list[Input]:
    """Everything that `given` names, in order; what lies in `output` is left out.

    Args:
        given: a file, a folder (with all below it), a pattern, or a `.txt` list of files, whose
            lines are relative to the list or to the current folder.
        output: where results go.

    Raises:
        UserError: there is nothing, or results would take the place of what was given.
    """
    path = Path(given)
    if path.is_dir():
        base, files = path, [file for file in path.rglob("*") if _is_known(file)]
    elif path.is_file() and path.suffix.lower() == ".txt":
        files = _listed(path)
        base = _common(file.parent for file in files)
    elif path.is_file():
        base, files = path.parent, [path]
    elif glob.has_magic(given):
        found = (Path(name) for name in glob.glob(given, recursive=True))
        files = [file for file in found if _is_known(file)]
        base = _common([_until_magic(path), *(file.parent for file in files)])
    else:
        raise UserError(f"input={given}: no such file or folder")
    files = sorted(_without_results(files, base, output))
    if not files:
        raise UserError(f"input={given}: no picture and no video there; endings that are known: "
                        + " ".join((*PICTURES, *VIDEOS)))  # fmt: skip
    return [Input(file, stem) for file, stem in zip(files, _stems(files, base), strict=True)]


def _is_known(path: Path) -> bool:
    known = path.suffix.lower() in (*PICTURES, *VIDEOS)
    return known and path.name[0] != "." and path.is_file()


def _listed(path: Path) -> list[Path]:
    """The files of a list, each where it is: beside the list, or from the current folder."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    lines = [line for line in lines if line]
    beside = [path.parent / line for line in lines]
    return [near if near.exists() else Path(line) for near, line in zip(beside, lines, strict=True)]


def _common(folders: Iterable[Path]) -> Path:
    absolute = [folder.absolute() for folder in folders]
    return Path(os.path.commonpath(absolute)) if absolute else Path()


def _until_magic(pattern: Path) -> Path:
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))


def _without_results(files: list[Path], base: Path, output: Path) -> list[Path]:
    """The files without those in a results folder below them."""
    base, output = base.resolve(), output.resolve()
    if base == output:
        raise UserError(f"output={output} is the folder of the input, where results would take the "
                        "place of pictures, whose names they bear; choose another")  # fmt: skip
    if not output.is_relative_to(base):
        return files
    return [file for file in files if not file.resolve().is_relative_to(output)]


def _stems(files: list[Path], base: Path) -> list[str]:
    """Names without endings; with them where two in a folder differ by nothing else."""
    inside = [os.path.relpath(file, base) for file in files]
    plain = [os.path.splitext(name)[0] for name in inside]
    # Case is no difference on some file systems.
    count = Counter(name.lower() for name in plain)
    stems = [
        name if count[short.lower()] > 1 else short
        for name, short in zip(inside, plain, strict=True)
    ]
    twice = [name for name, times in Counter(stem.lower() for stem in stems).items() if times > 1]
    if twice:
        raise UserError(f"input: results of several files would be called {twice[0]}; give them "
                        "one after another")  # fmt: skip
    return stems
