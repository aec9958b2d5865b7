"""A process that measures cells of one part, one after the other, as it is told by its parent.

It reads a cell's name a line, and answers with lines of JSON: figures on the way, then the outcome.
When its parent is no more it ends itself and all that it has started.
"""

import argparse
import contextlib
import gc
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from benchmarks.gpu.cell import Figures, Setting, Skipped

# Messages of lack of memory, on the device or the host, that come in errors of other kinds.
MEMORY = ("out of memory", "OutOfMemoryError", "can't allocate memory", "for lack of memory",
          "bad_alloc", "STATUS_ALLOC_FAILED")  # fmt: skip
LONGEST = 300  # characters of a reason


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--scratch", type=Path, required=True)
    options = parser.parse_args()
    channel = os.fdopen(os.dup(1), "w")  # what libraries print goes to the log
    os.dup2(2, 1)
    # Not sys.stdin, whose lock the listening thread would hold while a loader's process is forked,
    # which closes its sys.stdin first thing.
    words = os.fdopen(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def say(message: dict) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    def report(figures: Figures) -> None:
        say({"figures": figures})

    names: queue.Queue[str] = queue.Queue()
    threading.Thread(target=listen, args=(words, names), daemon=True).start()
    if options.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
    setting = Setting(options.device, options.tiny, options.scratch, report)
    cells = {cell.name: cell for cell in importlib.import_module(options.module).cells(setting)}
    say({"ready": True})
    while True:
        cell = cells[names.get()]
        print(f"===== {cell.name}", file=sys.stderr, flush=True)
        started = time.perf_counter()
        with clean_state():
            outcome = outcome_of(cell.measure, setting)
        say({**outcome, "seconds": round(time.perf_counter() - started, 2)})


def outcome_of(measure: object, setting: Setting) -> dict:
    """Status and figures, or status and reason."""
    try:
        return {"status": "ok", "figures": measure(setting)}
    except Skipped as error:
        return {"status": "skipped", "reason": str(error)}
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())
        lacks_memory = isinstance(error, MemoryError) or any(word in text for word in MEMORY)
        status = "out of memory" if lacks_memory else "failed"
        return {"status": status, "reason": text[:LONGEST]}


@contextlib.contextmanager
def clean_state() -> Iterator[None]:
    """No cell sees what another has left: flags of PyTorch, compiled code, memory."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    flags = {
        (torch.backends.cuda.matmul, "allow_tf32"): False,
        (torch.backends.cudnn, "allow_tf32"): True,
        (torch.backends.cudnn, "benchmark"): False,
        (torch.backends.cudnn, "deterministic"): False,
    }
    gc.collect()
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(False)
    for (owner, name), value in flags.items():
        setattr(owner, name, value)
    if torch.cuda.is_initialized():
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    yield
    gc.collect()


def listen(words: IO[str], names: queue.Queue[str]) -> None:
    """Hands on what the parent says; the end of its words is the end of this process group."""
    for line in words:
        names.put(line.rstrip("\n"))
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
