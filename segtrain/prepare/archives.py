"""The archives of a data set: which are needed, and whether they are extracted."""

import logging
from pathlib import Path

from segtrain.dataset.preparation import Archive, Preparation
from segtrain.errors import UserError
from segtrain.prepare.extract import extract
from segtrain.prepare.fetch import check_digest, download

logger = logging.getLogger("segtrain")


def obtain_all(preparation: Preparation, keep_archives: bool) -> None:
    """Downloads and extracts what is not there yet.

    Raises:
        UserError: something has to be fetched by hand first (says what, and where to put it), or
            see `obtain`.
    """
    root = Path(preparation.root)
    missing = []
    for archive in preparation.archives:
        put_there = place(archive, root).is_file()
        if not put_there and (archive.optional or (archive.login and not is_there(archive, root))):
            missing += [] if archive.optional else [archive]
        elif not obtain(archive, root, keep_archives):
            logger.info("there       %s", root / _created(archive, root)[0])
    if missing or (not preparation.archives and not root.is_dir()):
        wanted = [f"  {place(archive, root)}  from {archive.url}" for archive in missing]
        lines = [f"{root}: to be fetched by hand", *wanted, preparation.note or ""]
        raise UserError("\n".join([*filter(None, lines), "Then run this command again."]))


def obtain(archive: Archive, root: Path, keep_archives: bool) -> bool:
    """Makes one of `archive.creates` exist; an interrupted run is taken up where it ended.

    An archive that already lies in `root/downloads` is used without network, and left there.

    Returns:
        Whether anything was done.

    Raises:
        UserError: see `download`, `check_digest` and `extract`; or the archive does not hold what
            it should.
    """
    path, marker = place(archive, root), _marker(archive, root)
    if is_there(archive, root):
        return False
    try:
        put_there = path.is_file() and not marker.exists()
        if path.is_file():
            _check_put_there(path, archive.digest)
        else:
            download(archive.url, path, archive.digest)
        marker.touch()
        extract(path, root / archive.folder)
        if not _created(archive, root):
            raise UserError(
                f"{path}: extracted to {root / archive.folder}, expected {archive.creates[0]} in "
                "it, found none; remove this archive and run again"
            )
        marker.unlink()
        if not (keep_archives or put_there):
            path.unlink()
    except OSError as error:
        raise UserError(f"{path}: {error}") from None
    return True


def _check_put_there(path: Path, digest: str | None) -> None:
    try:
        check_digest(path, digest)
    except UserError as error:
        raise UserError(f"{error}. Remove the file, or put the right one there") from None


def is_there(archive: Archive, root: Path) -> bool:
    """Whether the archive was extracted, and to its end."""
    return bool(_created(archive, root)) and not _marker(archive, root).exists()


def place(archive: Archive, root: Path) -> Path:
    """Where the archive itself is kept."""
    return root / "downloads" / archive.file_name


def _created(archive: Archive, root: Path) -> list[str]:
    return [name for name in archive.creates if (root / name).exists()]


def _marker(archive: Archive, root: Path) -> Path:
    """Tells a finished extraction from one that was cut short after it had made `creates`."""
    return place(archive, root).with_name(archive.file_name + ".extracting")
