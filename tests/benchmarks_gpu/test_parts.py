"""Each part leaves the figures that its table needs."""

import importlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gpu.cell import Cell, Setting
from benchmarks.gpu.journal import Journal
from benchmarks.gpu.parts import PARTS
from benchmarks.gpu.runner import ROOT
from benchmarks.gpu.verdicts import feed_verdict, loss_verdict

STEP = {"batch", "M parameters", "images/s", "ms", "MB", "GFLOPs an image", "peer"}
PEER = {"peer images/s", "peer MB", "times the peer", "second A / first A"}
BESIDE = {"ms", "peer ms", "times faster", "MB", "peer MB"}
SHARES = {"images/s", "in all s", "network s", "metric s", "not the network %"}
# Beginnings of cells' names, and the figures that each of them leaves on a CPU.
REQUIRED = {
    "smoke": {
        "quickstart": {"passes", "mIoU %", "precision", "images/s"},
        "resume": {"passes", "unequal tensors"},
        "evaluation as on the CPU": {"passes", "difference"},
        "no waiting": {"passes", "steps"},
        "averaged weights": {"passes", "where"},
        "trainer.deterministic=true": {"passes"},
        "kernels are not tried": {"passes", "in validation"},
        "waiting in a detector": {"steps"},
        "card": {"bf16 TFLOP/s"},
    },
    "loss": {
        "equal": {"equal", "fused loss", "fused gradient", "strips loss", "strips gradient"},
        r"\d+ classes": {f"{form} {unit}" for form in ("whole", "strips", "fused", "plain")
                         for unit in ("ms", "MB")},
    },
    "step": {"DeepLabv3|PSPNet|Mask|FCN": STEP | PEER, "EncNet": STEP},
    "feed": {
        "generated": {"workers", "images/s", "cached images/s", "shards images/s",
                      "torchvision images/s"},
        "copy": {"pageable GB/s"},
        "training": {"images/s", "data_wait_fraction"},
    },
    "all": {"": {"fits", "batch", "images/s", "MB"}},
    "inference": {
        "sliding": {"plain ms", "4 at once ms", "times faster", "largest difference"},
        "six scales|Mask R-CNN|mask pasting": BESIDE,
        "CRF": {"segtrain ms", "on the device ms"},
        "predict a folder": {"images/s", "torchvision images/s", "times the peer"},
        "predict a video": {"images/s"},
    },
    "evaluate": {"mIoU|AP": SHARES},
    "export": {"quickstart": {"equal", "largest difference", "ms", "eager ms"}},
    "camvid": {"narrow": {"min to 55", "min to 70", "best val mIoU %", "test mIoU %"}},
    "nccl": {"gloo, two processes, evaluation": {"passes", "largest difference", "mIoU %"}},
}  # fmt: skip
NEEDS_A_GPU = {
    ("smoke", "16-mixed, clipped, AdamW"), ("smoke", "16-mixed, clipped, SGD"),
    ("smoke", "NVML that fails"), ("nccl", "nccl, one process, evaluation"),
    ("nccl", "gloo, two processes, SyncBN"), ("nccl", "nccl, one process, SyncBN"),
    ("camvid", "ResNet-50, pretrained"),
}  # fmt: skip
# Whose `passes` has nothing to count on a CPU.
OPEN = ("no waiting", "waiting in a detector")
QUICK = {
    "smoke": "averaged weights on the device", "loss": "equal, 19 classes",
    "step": "EncNet-R101 481 bf16", "feed": "training quickstart", "all": "DeepLabv3",
    "inference": "sliding window, 1024x2048", "evaluate": "mIoU, quickstart on shapes",
    "camvid": "narrow ResNet, from scratch",
}  # fmt: skip


def cells_of(part: str, setting: Setting) -> dict[str, Cell]:
    (module,) = (p.module for p in PARTS if p.name == part)
    return {cell.name: cell for cell in importlib.import_module(module).cells(setting)}


def check(part: str, name: str, figures: dict) -> None:
    required = [keys for pattern, keys in REQUIRED[part].items() if re.match(pattern, name)]
    assert required, f"{part}/{name} is not listed"
    assert required[0] <= figures.keys(), f"{part}/{name}"
    for key in ("passes", "equal"):
        assert figures.get(key, True) or name.startswith(OPEN), f"{part}/{name}: {figures}"
    speeds = [value for key, value in figures.items() if key.endswith("images/s")]
    assert all(value > 0 for value in speeds), f"{part}/{name}"


def test_every_part_is_tried():
    assert list(REQUIRED) == [part.name for part in PARTS]
    assert QUICK.keys() | {"export", "nccl"} == REQUIRED.keys()  # those take ten seconds


@pytest.mark.parametrize("part", QUICK)
@pytest.mark.filterwarnings("ignore:divide by zero")  # of Triton's interpreter
def test_a_cell_of_each_part(part, tmp_path):
    told = []
    setting = Setting("cpu", True, tmp_path, told.append)
    figures = cells_of(part, setting)[QUICK[part]].measure(setting)
    check(part, QUICK[part], figures)
    if part == "camvid":
        assert told[-1].items() <= figures.items()  # known before the end


@pytest.mark.parametrize("part", REQUIRED)
def test_cells_of_the_full_form(part):
    setting = Setting("cuda", False)
    cells, tiny = cells_of(part, setting), cells_of(part, replace(setting, tiny=True))
    assert len(cells) >= len(tiny) > 0
    assert all(0 < cell.seconds < cell.limit(setting) < 900 for cell in cells.values())


@pytest.mark.slow
def test_the_whole_tiny_form_leaves_what_each_part_must(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny",
               "--out", str(out)]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, timeout=1200)
    cells = Journal(out / "gpu.jsonl").cells()
    expected = {(part.name, name) for part in PARTS
                for name in cells_of(part.name, Setting("cpu", True))}  # fmt: skip
    assert cells.keys() == expected
    page = Path(out / "gpu.md").read_text()
    assert "Not measured yet" not in page
    for (part, name), entry in cells.items():
        if (part, name) in NEEDS_A_GPU:
            assert entry["status"] == "skipped", f"{part}/{name}"
            continue
        assert entry["status"] == "ok", f"{part}/{name}: {entry.get('reason')}"
        check(part, name, entry["figures"])
        assert f"| {name} |" in page
    assert "Verdict: fused wins nowhere" in page  # by Triton's interpreter
    assert sorted(os.listdir(out)) == ["gpu.jsonl", "gpu.log", "gpu.md"]


def loss_figures(fused: float, equal: bool) -> dict:
    return {
        ("loss", "equal, 19 classes"): {"equal": equal},
        ("loss", "19 classes bf16"): {"whole ms": 4.0, "strips ms": 3.0, "fused ms": fused},
        ("loss", "171 classes bf16"): {"whole ms": 40.0, "strips ms": 30.0, "fused ms": 8.0},
    }


@pytest.mark.parametrize(
    ("fused", "equal", "said"),
    [
        (1.0, True, "Verdict: fused is equal and wins everywhere: loss.form=null should take it"),
        (9.0, True, "Verdict: fused is equal and wins at 171 classes bf16: loss.form=null"),
        (1.0, False, "but is not shown to be equal"),
    ],
)
def test_the_verdict_on_the_loss(fused, equal, said):
    assert said in loss_verdict(loss_figures(fused, equal))[-1]


def test_no_verdict_without_the_kernels():
    figures = loss_figures(1.0, True)
    figures["loss", "19 classes bf16"]["fused ms"] = "skipped: Triton is not installed"
    assert "fused was not measured" in loss_verdict(figures)[-1]


def test_the_loader_against_the_step():
    found = {("feed", "voc"): {"images/s": 300.0},
             ("step", "DeepLabv3-R50 513 bf16"): {"images/s": 150.0}}  # fmt: skip
    (line,) = feed_verdict(found)
    assert "delivers 300 images/s" in line
    assert "2 times what is needed" in line
