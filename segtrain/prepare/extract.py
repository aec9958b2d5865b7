"""Unpacks archives, refusing all that would end outside the folder."""

import logging
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from segtrain.errors import UserError
from segtrain.writing import naming

logger = logging.getLogger("segtrain")
BLOCK = 1 << 20  # bytes read at once
# What the readers raise for broken archives; zipfile's RuntimeError stands for encrypted ones.
DAMAGED = (EOFError, RuntimeError, ValueError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


def extract(path: Path, folder: Path) -> None:
    """Extracts a .tar, .tar.gz, .tgz or .zip over what is in the folder; copies any other file.

    Raises:
        UserError: a member would be written outside the folder or is no file, folder or link
            (nothing is written then); or the archive is damaged.
        OSError: the folder cannot be written.
    """
    logger.info("extracting %s to %s", path, folder)
    name = path.name.lower()
    try:
        with naming(folder):
            if name.endswith((".tar", ".tar.gz", ".tgz")):
                _extract_tar(path, folder)
            elif name.endswith(".zip"):
                _extract_zip(path, folder)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / path.name)
    except (OSError, *DAMAGED) as error:
        if getattr(error, "errno", None) is not None:  # the disk's, not of what was read
            raise
        raise UserError(
            f"{path}: cannot be extracted to {folder}: {error}. If the archive is damaged or "
            "truncated, remove it and run again to download it anew"
        ) from None


def _extract_tar(path: Path, folder: Path) -> None:
    with tarfile.open(path, "r:" if path.name.lower().endswith(".tar") else "r:gz") as tar:
        members = tar.getmembers()
        # tarfile takes a broken header for the end, and gzip checks its sum at the very end only.
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end-of-archive block")
        while tar.fileobj.read(BLOCK):
            pass
        _check_tar(path, members)
        # A second guard where this Python has it; it also drops owners and odd permissions.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(folder, members)


def _check_tar(path: Path, members: list[tarfile.TarInfo]) -> None:
    """Refuses what could end outside the folder, whatever the order of the members."""
    links = {PurePosixPath(member.name) for member in members if member.issym()}
    files = {PurePosixPath(member.name) for member in members if member.isreg()} - links
    for member in members:
        name, reason = PurePosixPath(member.name), None
        if _leaves(member.name):
            reason = "lies outside the folder"
        elif not links.isdisjoint(name.parents):
            reason = "lies behind a link"
        elif member.issym():
            reason = "is a link to the outside" if _link_leaves(name, member.linkname) else None
        elif member.islnk():
            reason = None if PurePosixPath(member.linkname) in files else "links to no file in it"
        elif not (member.isreg() or member.isdir()):
            reason = "is a device or another special file"
        if reason:
            raise _refusal(path, member.name, reason)


def _extract_zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if _leaves(member.filename):
                raise _refusal(path, member.filename, "lies outside the folder")
            # zipfile would write a link as a text file: even a harmless one would be lost.
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(path, member.filename, "is a link or a special file")
            member.filename = member.filename.replace("\\", "/")  # as some of Windows write them
        _check_room(path, folder, sum(member.file_size for member in archive.infolist()))
        for member in archive.infolist():
            archive.extract(member, folder)


def _check_room(path: Path, folder: Path, size: int) -> None:
    place = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(place).free
    if size > free:
        raise UserError(f"{path}: unpacks to {size / 2**20:,.1f} MB, but in {place} only "
                        f"{free / 2**20:,.1f} MB are free")  # fmt: skip


def _leaves(name: str) -> bool:
    """Whether a path has a root, a drive letter or an upward step, to POSIX or to Windows."""
    path = PureWindowsPath(name)  # it takes both kinds of slash
    return bool(path.drive or path.root) or ".." in path.parts or "\0" in name


def _link_leaves(name: PurePosixPath, target: str) -> bool:
    """Whether a symbolic link may lead out, perhaps through another link inside."""
    # Upward steps are safe at the front only: further back they start where a link has led.
    parts = PureWindowsPath(target).parts
    upward = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
    return upward >= len(name.parts) or _leaves("/".join(parts[upward:]))


def _refusal(path: Path, member: str, reason: str) -> UserError:
    return UserError(
        f"{path}: unsafe archive, nothing was extracted: its member {member!r} {reason}; expected "
        "files, folders and links inside. Get it from the publisher again, or extract it by hand"
    )
