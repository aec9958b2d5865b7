"""Videos through OpenCV: frames in, pictures of one size out."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import cv2
import numpy as np

from segtrain.errors import UserError

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv")
# What OpenCV's wheels can always write: MPEG-4 part 2, and VP8, which browsers show too.
CODECS = {".mp4": "mp4v", ".webm": "VP80"}
RATE = 25.0  # frames a second, where a file does not say


class VideoFile:
    """The frames of a video, decoded one by one, upright.

    Args:
        path: any file that OpenCV's build has a decoder for.

    Attributes:
        rate: frames a second.
        count: how many the file says that it has; 0 where it does not.

    Raises:
        UserError: the file is missing or damaged, or there is no decoder for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.capture = cv2.VideoCapture(str(path)) if path.is_file() else None
        if self.capture is None or not self.capture.isOpened():
            reason = "damaged, or this OpenCV has no decoder for it" if self.capture else "no such"
            raise UserError(f"{path}: not a readable video ({reason})")
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate <= 1000 else RATE
        self.count = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 RGB."""
        while True:
            found, frame = self.capture.read()
            if not found:
                self.capture.release()
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


class VideoWriter:
    """Pictures of one size as an `.mp4` or `.webm`; a context manager.

    Args:
        path: of the file.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self.rate = rate
        self.writer: cv2.VideoWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        if self.writer is None:
            return
        self.writer.release()
        # OpenCV does not say that a disk is full.
        if reason[0] is None and self.path.suffix == ".mp4" and not has_index(self.path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def write(self, picture: np.ndarray) -> None:
        """Adds a picture (H, W, 3) uint8 RGB, padded to even sides.

        Raises:
            UserError: OpenCV's build has no encoder.
        """
        height, width = picture.shape[:2]
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        if self.writer is None:
            codec = CODECS[self.path.suffix]
            fourcc = cv2.VideoWriter_fourcc(*codec)
            size = picture.shape[1::-1]
            self.writer = cv2.VideoWriter(str(self.path), fourcc, self.rate, size)
            if not self.writer.isOpened():
                raise UserError(
                    f"{self.path}: this OpenCV has no encoder for {codec}; install "
                    "opencv-python-headless from PyPI, or give the frames as pictures "
                    "(ffmpeg -i <video> frames/%06d.png)"
                )
        self.writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def has_index(path: Path) -> bool:
    """Whether an MP4 holds its index, which is written last, to the end."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, start = int.from_bytes(head[:4]), file.tell() - 8
            if size == 1:  # a length of 64 bits follows
                size = int.from_bytes(file.read(8))
            if head[4:] == b"moov":
                return start + size <= path.stat().st_size
            file.seek(start + max(size, 8))
    return False
