"""`python -m benchmarks.gpu --minutes 20 --out FOLDER`: a page of figures from minutes of a GPU."""

import argparse
import shlex
import sys
from pathlib import Path

from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.runner import Options, run


def main(arguments: list[str] | None = None) -> int:
    names = ", ".join(part.name for part in PARTS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the figures; the same one goes on")
    add("--minutes", type=float, default=20)
    add("--only", default="", help=f"parts ({names}) or beginnings of part/cell, with commas")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--tiny", action="store_true", help="small and few, to try the command itself")
    add("--again", action="store_true", help="also what was skipped, failed or ran out of time")
    given = parser.parse_args(arguments)
    only = [name for name in given.only.split(",") if name]
    unknown = {name.partition("/")[0] for name in only} - {part.name for part in PARTS}
    if unknown:
        parser.error(f"--only {', '.join(sorted(unknown))}: the parts are {names}")
    if given.device == "cpu" and not given.tiny:
        parser.error("--device cpu is for --tiny: the networks of the table are for GPUs")
    if given.device == "cuda":
        import torch  # seconds, which an error need not wait for

        if not torch.cuda.is_available():
            parser.error("PyTorch finds no GPU; --device cpu --tiny tries the command without one")
    words = sys.argv[1:] if arguments is None else arguments
    options = Options(
        given.minutes, given.out.absolute(), only, given.device, given.tiny, given.again,
        shlex.join(["python", "-m", "benchmarks.gpu", *words]),
    )  # fmt: skip
    return run(options, PARTS)


if __name__ == "__main__":
    sys.exit(main())
