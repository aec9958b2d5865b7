"""A callback that strikes a running process, put into runs with `+callback.fault._target_`."""

import contextlib
import os
import resource
import subprocess
import time
from pathlib import Path

import torch
from pytorch_lightning.callbacks import Callback

from segtrain.errors import UserError


class Strike(Callback):
    """Sends a signal to its own process before optimiser step `step` + 1, once per folder and rank.

    `rank` -1 strikes every process.
    """

    def __init__(self, step: int, number: int, rank: int) -> None:
        self.step = step
        self.number = number
        self.rank = rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        mark = Path(f"struck_{trainer.global_rank}")
        chosen = self.rank in (-1, trainer.global_rank)
        if chosen and trainer.global_step == self.step and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), self.number)


class Crash(BaseException):
    """As sudden as a kill, for whatever is on the disk."""


class StrikeAt(Callback):
    """Ends its own process at an event of the training, once per folder and rank.

    Args:
        event: `step`, `save`, `val_start`, `val_middle`, `val_end` or `test`.
        count: at which of these events, from 1 on.
        number: of the signal; 0 raises `Crash` instead. SIGTERM lets the process go on.
    """

    def __init__(self, event: str, count: int, number: int) -> None:
        self.event = event
        self.left = count
        self.number = number

    def _strike(self, event, trainer):
        if event != self.event or trainer.state.fn != "fit":
            return
        self.left -= 1
        self._end(trainer.global_rank) if self.left == 0 else None

    def _end(self, rank):
        mark = Path(f"struck_{rank}")
        if mark.exists():
            return
        mark.touch()
        if not self.number:
            raise Crash
        os.kill(os.getpid(), self.number)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._strike("step", trainer)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self._strike("save", trainer)

    def on_validation_start(self, trainer, pl_module):
        self._strike("val_start", trainer)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._strike("val_middle", trainer)

    def on_validation_end(self, trainer, pl_module):
        self._strike("val_end", trainer)

    def on_fit_end(self, trainer, pl_module):
        if self.event == "test":
            pl_module.on_test_epoch_start = lambda: self._end(trainer.global_rank)


class StrikeAll(Callback):
    """Sends a signal to all processes of the session before optimiser step `step` + 1."""

    def __init__(self, step: int, number: int) -> None:
        self.step = step
        self.number = number

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step and trainer.is_global_zero:
            command = ["kill", f"-{self.number}", "--", f"-{os.getpgid(0)}"]
            subprocess.run(command, start_new_session=True)  # as a stranger
            time.sleep(1)


class Fail(Callback):
    """Raises an error of the user's in one process before optimiser step `step` + 1."""

    def __init__(self, step: int, rank: int) -> None:
        self.step = step
        self.rank = rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.global_step, trainer.global_rank) == (self.step, self.rank):
            raise UserError("this disk of mine is broken")


class Hang(Callback):
    """Lets a process wait before optimiser step `step` + 1, once, after it wrote `hangs`."""

    def __init__(self, step: int, rank: int) -> None:
        self.step = step
        self.rank = rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        mark = Path("hangs")
        here = (trainer.global_step, trainer.global_rank) == (self.step, self.rank)
        if here and not mark.exists():
            mark.touch()
            time.sleep(600)


class SpoilLoss(Callback):
    """Makes the loss of one process NaN at optimiser step `step` + 1."""

    def __init__(self, step: int, rank: int = 0) -> None:
        self.step = step
        self.rank = rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.global_step, trainer.global_rank) == (self.step, self.rank):
            handle = pl_module.model.register_forward_hook(self._spoil)
            self.handle = handle

    def _spoil(self, module, inputs, outputs):
        self.handle.remove()
        return {**outputs, "logits": outputs["logits"] * float("nan")}


class SpoilGradient(Callback):
    """Makes a gradient infinite at optimiser step `step` + 1, whose loss is finite."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == self.step:
            next(pl_module.model.parameters()).grad.fill_(float("inf"))


class ForbidWaiting(Callback):
    """Lets every operation of a GPU that makes the host wait raise, in steps that log nothing."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        logs = (trainer.global_step + 1) % trainer.log_every_n_steps == 0
        if trainer.global_step >= 3 and not logs:  # the first steps choose kernels
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._allow()

    def on_exception(self, trainer, pl_module, exception):
        self._allow()

    def _allow(self):
        torch.cuda.set_sync_debug_mode("default")


FORBIDS_WAITING = "+callback.fault={_target_: faults.ForbidWaiting}"


RAND = torch.rand


class NothingRandom(Callback):
    """No dropout, the same random places for every mask, and labels of which every other image has
    3 % left: unlike parts of a batch."""

    def on_train_start(self, trainer, pl_module):
        torch.rand = same_for_all
        for module in pl_module.modules():
            if isinstance(module, torch.nn.modules.dropout._DropoutNd):
                module.p = 0.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for name, mask in zip(batch["name"], batch.get("mask", ()), strict=False):
            if int(name.rpartition("/")[2]) % 2:
                mask[len(mask) // 32 :] = 255

    def on_train_end(self, trainer, pl_module):
        torch.rand = RAND


def same_for_all(*size: int, device: torch.device | None = None) -> torch.Tensor:
    """In the place of `torch.rand`: what the last two axes show is the same all over the others."""
    generator = torch.Generator().manual_seed(0)
    return RAND(size[-2:], generator=generator).to(device).expand(size)


@contextlib.contextmanager
def largest_file(size: int):
    """Lets every write of this process beyond so many bytes of a file fail, by the system itself.

    What fails is what a full disk or a quota lets fail, whoever runs the tests.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def cut(path: Path) -> None:
    """Half of a file is left, as of a copy that was broken off."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


# Damages of any file, and of one that holds text.
BYTES = {
    "empty": lambda path: path.write_bytes(b""),
    "latin-1": lambda path: path.write_bytes(b"\xe4\xf6\xfc: [\xff"),
    "zeros": lambda path: path.write_bytes(bytes(300)),
    "cut": cut,
}
TEXTS = {
    **BYTES,
    "a list": lambda path: path.write_text("[1, 2]"),
    "a word": lambda path: path.write_text("word"),
    "open": lambda path: path.write_text("{a: [1, 2"),
    "no keys": lambda path: path.write_text("{}"),
}
