"""Image files by the names that exports call them, which are often those of another machine."""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from segtrain.errors import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the names of uploads


class ImageFinder:
    """Image files by the names that an export calls them.

    Args:
        folders: that are searched with their sub-folders; the first has precedence.
    """

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders
        self.by_name: dict[str, list[Path]] = {}
        self.names: dict[Path, tuple[str, ...]] = {}  # that found files were called
        seen: set[Path] = set()  # one folder may lie in the other
        for folder in folders:
            for path in visible_files(folder):
                if path.suffix.lower() in IMAGE_ENDINGS and path.resolve() not in seen:
                    seen.add(path.resolve())
                    self.by_name.setdefault(_folded(path.name), []).append(path)

    def find(self, name: str, *nearest: Path, splits: frozenset[str] = frozenset()) -> Path | None:
        """The file whose path ends as `name` does, below one of the nearest folders if there is
        one, else wherever there is exactly one.

        Names may be of Windows, absolute, percent-encoded, addresses, without their ending, or with
        what Label Studio puts before them.

        Args:
            name: as the export has it.
            nearest: folders that are looked into first.
            splits: of the image. One in the folder of another split is another image; what the
                folders of the name say where there are none.

        Raises:
            UserError: the file was found for another name already, so one of both is wrong.
        """
        for spelling in _spellings(name):
            parts = tuple(part for part in spelling.split("/") if part not in ("", ".", ".."))
            if not parts:
                continue
            wanted = splits or split_of(*reversed(parts[:-1]))
            file = self._placed(spelling, nearest) or self._by_tail(parts, nearest, wanted)
            if file is not None and not self._of_another_split(file, splits):
                self._check_name(file, name, parts)
                return file
        return None

    def _placed(self, name: str, nearest: tuple[Path, ...]) -> Path | None:
        """Where the name itself says."""
        if Path(name).suffix.lower() not in IMAGE_ENDINGS:
            return None
        places = (
            place
            for folder in (*nearest, *self.folders)
            for place in (folder / name, folder / "images" / name)
        )
        return next((place for place in places if os.path.isfile(place)), None)

    def _by_tail(
        self, parts: tuple[str, ...], nearest: tuple[Path, ...], splits: frozenset[str]
    ) -> Path | None:
        """The only file that shares the longest possible end of its path with the name."""
        found = [p for p in self._called(parts[-1]) if not self._of_another_split(p, splits)]
        for length in range(len(parts), 0, -1):
            tail = parts[-length:]
            alike = [path for path in found if path.parts[-length:-1] == tail[:-1]]
            alike = [path for path in alike if path.name == tail[-1]] or alike
            near = [path for path in alike if any(path.is_relative_to(f) for f in nearest)]
            if len(near or alike) == 1:
                return (near or alike)[0]
        return None

    def _called(self, name: str) -> list[Path]:
        """Files of a name, in either case, and of one without an ending in any format."""
        if Path(name).suffix.lower() in IMAGE_ENDINGS:
            return self.by_name.get(_folded(name), [])
        return [p for ending in IMAGE_ENDINGS for p in self.by_name.get(_folded(name) + ending, [])]

    def _of_another_split(self, file: Path, splits: frozenset[str]) -> bool:
        base = self.base_of(file)
        found = split_of(*file.relative_to(base).parent.parts) if splits and base else frozenset()
        return bool(found and not splits & found)

    def _check_name(self, file: Path, name: str, parts: tuple[str, ...]) -> None:
        known = self.names.setdefault(file, parts)
        shared = min(len(known), len(parts))
        if _without_ending(known[-shared:]) != _without_ending(parts[-shared:]):
            raise UserError(
                f"{file} is found for {name} as well as for {'/'.join(known)}, so at least one of "
                "them is missing; give images=<folder> with both under these names"
            )

    def base_of(self, file: Path) -> Path | None:
        """The folder it was found below; None for one elsewhere, which the export says itself."""
        return next((folder for folder in self.folders if file.is_relative_to(folder)), None)

    def __iter__(self) -> Iterator[Path]:
        """All image files."""
        return (path for paths in self.by_name.values() for path in paths)


def visible_files(folder: Path) -> list[Path]:
    """Regular files of a folder and its sub-folders, linked ones too, without hidden ones and what
    archives of macOS add."""
    found: list[Path] = []
    seen: set[str] = set()  # a link may lead to a folder above
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else filter(_is_visible, folders)
        found += [Path(place, name) for name in names if real not in seen and _is_visible(name)]
        seen.add(real)
    return sorted(path for path in found if os.path.isfile(path))


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def split_of(*texts: str) -> frozenset[str]:
    """The split that one of the texts names as a word, the first that does; or none."""
    for text in texts:
        for word in re.findall(r"[a-z]+", text.lower()):
            if word in SPLITS:
                return frozenset({SPLITS[word]})
    return frozenset()


def _spellings(name: str) -> Iterator[str]:
    """The paths that a name may mean, the likeliest first."""
    plain = name.replace("\\", "/")
    found = {plain: None, unquote(plain): None}
    if "://" in plain or "?" in plain:
        try:
            address = urlsplit(plain)
        except ValueError:  # of a host that is none
            return
        query = address.query.removeprefix("d=")  # Label Studio's own files: /data/local-files/?d=
        path = query if address.path.endswith("/") else address.path
        found |= {path: None, unquote(path): None}
    yield from found
    for spelling in found:
        folder, _, last = spelling.rpartition("/")
        if UPLOAD.match(last):
            yield f"{folder}/{UPLOAD.sub('', last)}".lstrip("/")


def _without_ending(parts: tuple[str, ...]) -> list[str]:
    """The parts of a path, alike for those that lead to one file."""
    last = Path(parts[-1])
    name = last.stem if last.suffix.lower() in IMAGE_ENDINGS else last.name
    return [_folded(part) for part in (*parts[:-1], name)]


def _folded(name: str) -> str:
    """Alike for names that differ in case, or in how systems compose letters with accents."""
    return unicodedata.normalize("NFC", name).casefold()
