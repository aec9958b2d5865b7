"""Messages: to the console, and with their times to run.log."""

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from segtrain.cli import launch
from segtrain.terminal import lines, screen
from segtrain.text import visible
from segtrain.writing import naming

HANDLER = "segtrain"
NOISY = ("pytorch_lightning", "lightning_fabric", "torch.distributed", "timm", "tensorboard",
         "mlflow", "alembic", "git")  # fmt: skip
FALSE_ALARMS = (
    ".*LeafSpec.* is deprecated",  # of Lightning's own code
    ".*your dataloader is not resumable",  # ours starts at the right batch by itself
    ".*in eval mode at the start of training",  # frozen parts are
    ".*`srun` command is available",  # processes are started by torchrun, or by this program
    ".*exists and is not empty",  # the checkpoints of the run that is being resumed
    ".*no `val_dataloader`",  # a benchmark only trains
    ".*sync_dist=True",  # what is logged is the same on every process
    ".*find_unused_parameters=True was specified",  # for the fixed order of its sums
)


class PlainFormatter(logging.Formatter):
    """Spells out what a terminal would act on."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a log."""
        return visible(super().format(record))


class Terminal(logging.StreamHandler):
    """Prints above the bars that are shown, and leaves out the lines that tell the same."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message."""
        if not screen.is_shown:
            super().emit(record)
        elif record.name != lines.name:
            screen.say(self.format(record))


class LogFile(logging.FileHandler):
    """A log whose disk is full ends the command, as any other file's does."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        with naming(Path(self.baseFilename)):
            raise  # noqa: PLE0704  (called where the error is handled)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of the line that ended the command
            super().close()


def report_thread(failed: threading.ExceptHookArgs) -> None:
    """Says why a thread ended, but of TensorBoard's writer: whoever writes next is told by it."""
    if not type(failed.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(failed)


@contextlib.contextmanager
def to_console(stream: TextIO) -> Iterator[None]:
    """Messages of this package to the console, before a run has a folder for its log."""
    package = logging.getLogger("segtrain")
    handler, level = Terminal(stream), package.level
    handler.setFormatter(PlainFormatter("%(message)s"))
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)


def configure_logging(path: Path) -> None:
    """Messages to the console, and with their times to run.log; warnings only but for rank zero."""
    threading.excepthook = report_thread
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if handler.name == HANDLER]:
        root.removeHandler(handler)  # of the job before, in a sweep
        handler.close()
    handlers: list[tuple[logging.Handler, str]] = [(Terminal(sys.stdout), "%(message)s")]
    if launch.rank() == 0:
        handlers.append((LogFile(path), "%(asctime)s %(levelname)s %(message)s"))
    for handler, form in handlers:
        handler.name = HANDLER
        handler.setFormatter(PlainFormatter(form))
        root.addHandler(handler)
    root.setLevel(logging.INFO if launch.rank() == 0 else logging.WARNING)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for message in FALSE_ALARMS:
        warnings.filterwarnings("ignore", message=message)
