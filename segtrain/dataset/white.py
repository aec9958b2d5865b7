"""The white level that the images of a folder have in common."""

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from segtrain.dataset.cache import cached_folder, files_fingerprint
from segtrain.dataset.decoding import PNG_START, is_deep, read_range, white_level
from segtrain.dataset.files import read_bytes
from segtrain.dataset.orientation import TIFF_STARTS, open_image
from segtrain.errors import UserError
from segtrain.hardware import cores

logger = logging.getLogger("segtrain")

ENDINGS = (".png", ".tif", ".tiff")  # of files that may have more than 8 bits a channel


def common_white(files: Sequence[str]) -> float | None:
    """What is white in all of these images; None where each has at most 8 bits a channel.

    By the largest value that any of them holds, so that all are read alike: files of a 12-bit
    camera have 4095, however dark some of them are. Said once; kept until a file changes.

    Raises:
        UserError: some hold whole and some floating-point numbers, or numbers that are no
            brightness; or such a file is damaged.
    """
    candidates = tuple(file for file in files if file.lower().endswith(ENDINGS))
    return _find(candidates, files_fingerprint(candidates)) if candidates else None


@lru_cache(maxsize=4)
def _find(files: tuple[str, ...], fingerprint: str) -> float | None:
    deep = [file for file in files if _is_deep(file)]
    if not deep:
        return None

    def build(folder: Path) -> None:
        with ThreadPoolExecutor(cores()) as pool:
            found = list(pool.map(lambda file: read_range(read_bytes(file), file), deep))
        kinds = {is_whole: file for file, (_, is_whole) in zip(deep, found, strict=True)}
        if len(kinds) > 1:
            raise UserError(f"{kinds[True]} holds whole and {kinds[False]} floating-point numbers; "
                            "write the images of a set alike")  # fmt: skip
        highest, (whole,) = max(value for value, _ in found), kinds
        level = white_level(highest, whole)
        (folder / "white.json").write_text(json.dumps({"highest": highest, "white": level}))

    name = sha256("\n".join(deep).encode(errors="surrogateescape")).hexdigest()[:16]
    cached = cached_folder(f"white/{name}", fingerprint, build)
    content = json.loads((cached / "white.json").read_text())
    logger.info("depth       %d of %d images have more than 8 bits a channel, values up to %g: %g "
                "is white in all of them (dataset.source.white_level)",
                len(deep), len(files), content["highest"], content["white"])  # fmt: skip
    return content["white"]


def _is_deep(file: str) -> bool:
    with open(file, "rb") as opened:
        head = opened.read(26)
    if head.startswith(PNG_START):
        return len(head) == 26 and head[24] > 8
    try:
        with open_image(file) as image:
            return is_deep(image)
    except Exception:  # of damaged files, which are named when they are read, and of float colours
        return head[:4] in TIFF_STARTS
