"""What `input=` names: pictures and videos, and what their results are called."""

import functools
import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from segtrain.errors import UserError
from segtrain.report.video import VIDEOS

PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm",
    ".pgm", ".pbm", ".jp2", ".avif",
)  # fmt: skip
KNOWN = frozenset((*PICTURES, *VIDEOS))
MANIFEST = "manifest"  # what a video's results may not be called: <name>.jsonl is the manifest

Names = dict[str, dict[str, None]]  # folder -> names of files in it: a million are 0.1 GB so


class Input(NamedTuple):
    """One picture or video."""

    stem: str  # of its results, with the sub-folders in which it lies
    path: Path

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its ending."""
        return self.path.suffix.lower() in VIDEOS


def find_inputs(given: str | list[str], output: Path) -> dict[str, str]:
    """Everything that `given` names; what lies in `output` is left out.

    Args:
        given: a file, a folder (with all below it), a pattern, or a `.txt` list of files and
            folders, whose lines are relative to the list or to the current folder; or several.
        output: where results go.

    Returns:
        The stem of the results -> the file, in the order of folders and names. Stems have the
        folders below the one that all inputs have in common.

    Raises:
        UserError: there is nothing, or results would take the place of what was given.
    """
    names: Names = {}
    bases: set[str] = set()
    for one in [given] if isinstance(given, str) else given:
        bases |= _find(str(one), names)
    base = os.path.commonpath([os.path.abspath(folder) for folder in bases]) if bases else ""
    if base:
        _leave_out_results(names, Path(base), output)
    if not any(names.values()):
        shown = given if isinstance(given, str) else f"[{','.join(map(str, given))}]"
        raise UserError(f"input={shown}: no picture and no video there; endings that are known: "
                        + " ".join((*PICTURES, *VIDEOS)))  # fmt: skip
    return _named(names, base)


def _find(given: str, names: Names) -> set[str]:
    """Adds what one argument names; returns the folders that the results' names start below."""
    path = Path(given)
    if path.is_dir():
        _walk(str(path), names)
        return {str(path)}
    if path.is_file() and path.suffix.lower() == ".txt":
        return _listed(path, names)
    if path.exists():  # what is no regular file is refused when it is read
        return {_add(str(path), names)}
    if glob.has_magic(given):
        bases = {str(Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)))}
        for file in glob.iglob(given, recursive=True):
            if _is_known(os.path.basename(file)):
                bases.add(_add(os.path.normpath(file), names))
        return bases
    raise UserError(f"input={given}: no such file or folder")


def _is_known(name: str) -> bool:
    return name[:1] != "." and os.path.splitext(name)[1].lower() in KNOWN


def _add(file: str, names: Names) -> str:
    folder, name = os.path.split(file)
    names.setdefault(folder, {})[name] = None
    return folder


def _walk(top: str, names: Names) -> None:
    for folder, folders, files in os.walk(top):
        known = [name for name in files + folders if _is_known(name)]
        folders[:] = [name for name in folders if name not in known]  # refused when it is read
        if known:
            names.setdefault(os.path.normpath(folder), {}).update(dict.fromkeys(known))


def _listed(path: Path, names: Names) -> set[str]:
    """The files and folders of a list, each where it is: beside the list, or from here."""
    bases = set()
    with path.open(errors="surrogateescape") as lines:
        for line in filter(None, map(str.strip, lines)):
            file = os.path.normpath(os.path.join(path.parent, line))
            if not os.path.isabs(line) and not os.path.exists(file):
                file = os.path.normpath(line)
            if os.path.splitext(file)[1].lower() not in KNOWN and os.path.isdir(file):
                _walk(file, names)
                bases.add(file)
            else:
                bases.add(_add(file, names))
    return bases


def _leave_out_results(names: Names, base: Path, output: Path) -> None:
    """Takes a results folder below the inputs out of them."""
    base, output = base.resolve(), output.resolve()
    if base == output:
        raise UserError(f"output={output} is the folder of the input, where results would take the "
                        "place of pictures, whose names they bear; choose another")  # fmt: skip
    if output.is_relative_to(base):
        for folder in list(names):
            if Path(folder).resolve().is_relative_to(output):
                del names[folder]


def _named(names: Names, base: str) -> dict[str, str]:
    """Stems without endings; with them where two in a folder differ by nothing else."""
    inputs: dict[str, str] = {}
    for folder, stem, name in _stems(names, base):
        if stem in inputs:
            raise UserError(f"input: results of several files would be called {stem}; give them "
                            "one after another")  # fmt: skip
        inputs[stem] = os.path.join(folder, name)
    return inputs


def _stems(names: Names, base: str) -> Iterator[tuple[str, str, str]]:
    """Folder, stem and name of every file."""
    relative = functools.partial(os.path.relpath, start=base)
    for folder in sorted(names):
        inside = relative(folder or ".")
        files = sorted(names[folder])
        plain = [os.path.splitext(name)[0] for name in files]
        # Case is no difference on some file systems.
        count = Counter(name.lower() for name in plain)
        if inside == ".":
            count[MANIFEST] += 1
        whole = Counter(name.lower() for name in files)
        for name, short in zip(files, plain, strict=True):
            stem = name if count[short.lower()] > 1 else short
            if whole[name.lower()] > 1:
                stem = stem.lower()  # which is refused, as it is there twice
            yield folder, stem if inside == "." else os.path.join(inside, stem), name
