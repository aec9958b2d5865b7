"""How many loader workers there are, how they start, and how they end."""

import os
import signal
from multiprocessing.queues import Queue

import cv2

from segtrain.hardware import cores
from segtrain.lifetime import end_with_parent


def default_workers() -> int:
    """Half the cores of this training process, at most 8: the rest feed the device or compute."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(8, cores() // processes // 2))


def one_thread(worker: int) -> None:
    """Worker start-up: parallelism comes from the workers, not from threads inside them.

    A signal that goes to all processes of a job is the training's to answer: it still needs the
    workers for the step that it ends with. A worker ends with the training, though; and where it
    cannot hand over a batch, as without room in /dev/shm: the training would wait for ever.
    """
    end_with_parent()
    Queue._on_queue_feeder_error = staticmethod(_end)
    cv2.setNumThreads(0)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _end(error: Exception, batch: object) -> None:
    """What multiprocessing does instead is to print a traceback and go on without the batch."""
    os.kill(os.getpid(), signal.SIGKILL)
