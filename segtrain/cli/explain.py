"""Errors of Hydra, workers and the operating system, said in the user's terms."""

import os
import re
import sys
import traceback

from segtrain.configuration.messages import explain_config
from segtrain.errors import RunStopped, UserError

WORKER_ERROR = "segtrain.errors.UserError: "
# What gloo and NCCL say of a process that has ended or cannot be reached.
LOST = re.compile(
    r"gloo/|Connection (closed|reset) by peer|Timed out waiting|remote process exited"
)
# An error of the operating system that names a file, and a worker's, which is handed over as text.
OS_ERROR = re.compile(r"\[Errno (\d+)\] [^\n]*?: '([^\n]+?)'(?: -> [^\n]*)?\s*$")
# What PyTorch says of a loader worker that was killed, or that has no room for its batch.
DIED = re.compile(
    r"DataLoader worker \(pid[^\n]*|unable to \w+ (shared memory|file </torch_)[^\n]*"
)
SILENT = re.compile(r"DataLoader timed out after (\d+) seconds")
# What OpenCV, PyTorch and its libraries say where the host or a GPU has no memory left.
NO_MEMORY = re.compile(
    r"[^\n]*(can't allocate memory|not enough memory|Insufficient memory|out of memory"
    r"|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED)[^\n]*"
)


def explain(error: BaseException) -> tuple[str, int] | None:
    """Message and exit code, or None where only a traceback helps."""
    if isinstance(error, UserError):
        # A worker process hands over its traceback as text; the message is its last part.
        return str(error).rpartition(WORKER_ERROR)[2].strip(), 2
    if isinstance(error, RunStopped):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, MemoryError) or (no_memory := NO_MEMORY.search(str(error))):
        said = str(error) if isinstance(error, MemoryError) else no_memory[0]
        return (
            f"out of memory ({said.strip().rpartition(chr(10))[2][:200]}); lower batch_size, "
            "dataset.transform.crop_size or dataset.eval_batch_size, raise "
            "trainer.accumulate_grad_batches, or set trainer.precision=bf16-mixed; for predict "
            "lower batch_size or max_pixels"
        ), 1
    if isinstance(error, OSError) and (found := OS_ERROR.search(str(error))):
        number, path = found.groups()
        return f"{path}: {os.strerror(int(number))}; what was saved before is untouched", 1
    if (died := died_worker(error)) is not None:
        return (
            f"a loader worker died ({died}); too little memory is the usual "
            "cause: lower dataset.num_workers (num_workers of predict) or batch_size, give a "
            "container more room in /dev/shm (docker run --shm-size=8g), or set the workers to 0 "
            "to see the error itself"
        ), 1
    if isinstance(error, RuntimeError) and (silent := SILENT.search(str(error))):
        return (
            f"the loader workers have given no batch for {silent[1]} s: a disk or a network share "
            "that they read hangs, or an image takes so long; raise dataset.timeout (timeout of "
            "predict), 0 waits for ever. What was saved before is untouched"
        ), 1
    if lost_process(error):
        return (
            "lost the connection to another process: it has ended, and said why before this line "
            "or on its own machine; or it cannot be reached "
            f"({str(error).splitlines()[0].partition(' This is typically')[0]})"
        ), 1
    if type(error).__module__.split(".")[0] in ("hydra", "omegaconf"):
        return explain_config(error), 2
    return None


def died_worker(error: BaseException) -> str | None:
    """What is known of the loader worker whose end is the error's cause; None if that is not it."""
    if isinstance(error, RuntimeError) and (died := DIED.search(str(error))):
        return died[0]
    # It may end while a batch is taken from its memory, before PyTorch sees that it has ended.
    if isinstance(error, ConnectionError | EOFError) and any(
        frame.f_globals.get("__name__") == "multiprocessing.resource_sharer"
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ):
        return f"{type(error).__name__}: {error}"
    return None


def lost_process(error: BaseException) -> bool:
    """Whether the error is but the consequence of another process's end."""
    dist = sys.modules.get("torch.distributed")
    if dist is not None and isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        return True
    return isinstance(error, RuntimeError) and LOST.search(str(error)) is not None
