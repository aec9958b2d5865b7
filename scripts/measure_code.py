"""How large the package is, and how far it is through it: `python scripts/measure_code.py`.

Prints the figures of docs/code.md. Lines are counted as `ruff format` leaves them, at 100 columns.
The way from the command line to `training_step` is that of a training of one step, which is run.
"""

import ast
import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "segtrain"
TASKS = {"semantic", "multilabel", "instance", "proposal", "panoptic", "masks"}
TINY = [
    "experiment=quickstart", "dataset.source.num_images={train: 4, val: 2, test: 2}",
    "dataset.source.size=[32, 32]", "dataset.transform.crop_size=[32, 32]",
    "dataset.num_workers=0", "architecture.backbone.name=test_resnet",
    "architecture.backbone.weights=none", "trainer.accelerator=cpu", "trainer.max_steps=1",
    "batch_size=2", "report=null", "logger=null",
]  # fmt: skip


def lines(files: list[Path]) -> int:
    """Of all the files."""
    return sum(len(path.read_text().splitlines()) for path in files)


def functions(files: list[Path]) -> Iterator[ast.FunctionDef]:
    """Every function and method."""
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield node


def bare_dicts(files: list[Path]) -> int:
    """Parameters of which the annotation says `dict` and nothing else."""
    count = 0
    for function in functions(files):
        every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        shown = (ast.unparse(one.annotation) for one in every if one.annotation)
        count += sum(re.fullmatch(r"dict( \| None)?", text) is not None for text in shown)
    return count


def task_branches(files: list[Path]) -> tuple[int, int]:
    """Comparisons with the name of a task, or with names of several; and files that have some."""
    places, holders = 0, set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Compare):
                continue
            named = [one.value for part in ast.walk(node) if isinstance(one := part, ast.Constant)]
            dense = any(isinstance(p, ast.Name) and p.id == "DENSE" for p in ast.walk(node))
            if dense or TASKS & {name for name in named if isinstance(name, str)}:
                places += 1
                holders.add(path)
    return places, len(holders)


def reading() -> list[Path]:
    """The files that docs/code.md lists between a command and the logged mIoU."""
    text = (ROOT / "docs/code.md").read_text().partition("`conf/train.yaml`")[2]
    names = re.findall(r"`([\w/]+\.py)`", text.partition("\n\n")[0])
    return [ROOT / name if name.startswith("segtrain/") else PACKAGE / name for name in names]


def way_to_training_step() -> list[str]:
    """Our own functions on the stack when a training takes its first step, outermost first."""
    from segtrain.cli.main import main
    from segtrain.task.segmentation import Segmentation

    found: list[str] = []
    original = Segmentation.training_step

    def step(self: Segmentation, batch: dict, batch_idx: int) -> object:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(str(PACKAGE)):
                found.insert(0, frame.f_code.co_qualname)
            frame = frame.f_back
        return original(self, batch, batch_idx)

    Segmentation.training_step = step
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            main(TINY)
    return found


def main() -> None:
    """Prints a table in Markdown."""
    files = sorted(PACKAGE.rglob("*.py"))
    configs = sorted((ROOT / "conf").rglob("*.yaml"))
    tests = sorted((ROOT / "tests").rglob("*.py"))
    way, branches = way_to_training_step(), task_branches(files)
    rows = {
        "package, lines / files": f"{lines(files):,} / {len(files)}",
        "disk to logged mIoU, files / lines": f"{len(reading())} / {lines(reading()):,}",
        "own functions from the command line to `training_step`": f"{len(way)} ({', '.join(way)})",
        "comparisons with a task's name / files": f"{branches[0]} / {branches[1]}",
        "parameters annotated bare `dict`": bare_dicts(files),
        "configuration, lines / files": f"{lines(configs):,} / {len(configs)}",
        "tests, lines / files": f"{lines(tests):,} / {len(tests)}",
    }
    print("| measure | now |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
