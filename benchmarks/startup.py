"""`python -m benchmarks.startup`: seconds until each command says something, and until it ends.

A quickstart of one step is trained first, in a temporary folder, and then used by the others.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = "hydra.run.dir=run"
TRAINING = [
    RUN, "report=null", "trainer.max_steps=1", "trainer.val_every_n_steps=1", "batch_size=4",
    "dataset.num_workers=0", "dataset.source.size=[64,64]", "dataset.transform.crop_size=[64,64]",
    "dataset.source.num_images={train: 8, val: 4, test: 4}", "trainer.accelerator=cpu",
    "architecture.backbone.name=test_resnet", "architecture.backbone.weights=none",
]  # fmt: skip
COMMANDS = [
    ["train", *TRAINING],
    ["evaluate", "run=run", "report=null", "trainer.accelerator=cpu"],
    ["predict", "run=run", "input=picture.png", "device=cpu"],
    ["export", "run=run", "format=safetensors"],
    ["report", "run=run", "examples=0"],
    ["table", "runs=."],
    ["plan", "experiments=[quickstart]"],
    ["zoo"],
    ["--help"],
    ["evaluate"],  # what lacks an argument
    ["predict"],
]


def measure(arguments: list[str], folder: Path) -> tuple[float, float, float]:
    """Wall seconds to the first line, to the end, and CPU seconds of one command."""
    before, started = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "segtrain", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    process.stdout.readline()
    first = time.perf_counter() - started
    process.communicate()
    after = os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])  # of children that have ended
    return first, time.perf_counter() - started, cpu


def main() -> None:
    from PIL import Image

    root = Path(__file__).resolve().parents[1]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    print(f"{'command':<40}{'first line':>12}{'end':>8}{'CPU':>8}")
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (64, 48), "tan").save(Path(folder, "picture.png"))
        for arguments in COMMANDS:
            first, end, cpu = measure(arguments, Path(folder))
            shown = " ".join(arguments[:2]) if RUN not in arguments else "train (one step)"
            print(f"{shown:<40}{first:>10.2f} s{end:>6.2f} s{cpu:>6.2f} s", flush=True)


if __name__ == "__main__":
    main()
