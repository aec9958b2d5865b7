"""How a data set gets onto the disk, as its configuration says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from segtrain.contracts import Source
from segtrain.values import Count, Given, NonNegative, Text


@dataclass(frozen=True)
class Archive:
    """One file of a data set's official download.

    Args:
        url: where it is, or where it can be asked for.
        digest: `md5:<hex>`, `sha1:<hex>` or `sha256:<hex>`; None where none is published.
        folder: where it is extracted, relative to the data set's root.
        creates: paths relative to the root, one of which is there once it is extracted.
        login: whether only the user may fetch it, after agreeing to a licence.
        optional: whether the set is complete without it; it is used where the user has put it.
        gigabytes: of the file, about; None where it is not known.
    """

    url: Text
    digest: Text | None
    folder: Text
    creates: list[Text]
    login: bool = False
    optional: bool = False
    gigabytes: NonNegative | None = None

    @property
    def file_name(self) -> str:
        """What it is called on disk."""
        return unquote(urlsplit(self.url).path).rpartition("/")[2]


@dataclass(frozen=True)
class Preparation:
    """How a data set gets onto the disk, and what it must be like then.

    Args:
        root: its folder.
        archives: its official download.
        convert: (root) -> whether it did something; run after the archives are extracted.
        counts: images of each split of the complete set, in the order in which they are checked;
            null where no number is published.
        optional: splits that may be absent.
        note: what else the user should know.
        panoptic: writes a split's labels in COCO's panoptic format; None where nothing does.
    """

    root: Text
    archives: list[Archive]
    convert: Annotated[Callable[[Path], bool], Given("root")] | None
    counts: dict[str, Count | None]
    optional: list[Text]
    note: Text | None
    panoptic: Annotated[
        Callable[[Source, str, Path], None], Given("source", "split", "folder")
    ] | None = None  # fmt: skip
