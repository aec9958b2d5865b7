"""Commands that lack something, or name what is not there, say so at once and leave nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, untrained
from PIL import Image

WITHOUT_TORCH = [
    ["train", "experiment=nothing"],
    ["resume=nowhere"],
    ["chain"],
    ["chain", "experiment=nothing"],
    ["sweep"],
    ["sweep", "resume=nowhere"],
    ["evaluate"],
    ["evaluate", "run=nowhere"],
    ["evaluate", "run=nowhere", "checkpoint=x"],
    ["evaluate", "run=nowhere", "trainer.compile=perhaps"],
    ["evaluate", "run=nowhere", "protocol=x"],
    ["predict"],
    ["predict", "run=nowhere"],
    ["predict", "input=."],
    ["predict", "input=nowhere.png", "run=nowhere"],
    ["predict", "input=.", "run=nowhere"],
    ["export"],
    ["export", "checkpoint=nowhere"],
    ["export", "format=nothing"],
    ["report"],
    ["report", "run=nowhere"],
    ["prepare", "dataset=nothing"],
    ["table", "runs=nowhere"],
    ["table", "output=table.nothing"],
    ["table", "layout=nothing"],
    ["zoo", "nothing=1"],
    ["plan", "seeds=x"],
    ["reproduce", "seeds=x"],
    ["benchmark", "measure=nothing"],
    ["nothing"],
]
WITH_TORCH = [
    ["prepare", "nothing=1"],
    ["prepare", "from=nowhere"],
    ["prepare", "from=nowhere", "to=new"],
    ["plan", "experiments=[nothing]"],
    ["plan", "output=plan.nothing"],
    ["reproduce", "experiments=[nothing]"],
    ["dataset=folder", "dataset.source.root=nowhere"],
]
# Many in one process, which tells after each whether PyTorch came in.
SCRIPT = """
import sys
from segtrain.cli.main import main

for line in sys.stdin:
    print("CODE", main(line.split()), "torch" in sys.modules, flush=True)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> list[str]:
    """What each line of WITHOUT_TORCH ends with, and the empty folder they were run in."""
    folder = tmp_path_factory.mktemp("light")
    lines = "\n".join(" ".join(arguments) for arguments in WITHOUT_TORCH)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=lines, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    return [line for line in done.stdout.splitlines() if line.startswith("CODE")]


@pytest.mark.parametrize("number", range(len(WITHOUT_TORCH)), ids=map(" ".join, WITHOUT_TORCH))
def test_is_refused_before_pytorch_is_imported(told, number):
    assert told[number] == "CODE 2 False"


@pytest.mark.parametrize("arguments", WITH_TORCH, ids=" ".join)
def test_leaves_no_folder(segtrain, arguments):
    code, _, err = segtrain(*arguments)
    assert code == 2, err
    assert list(Path.cwd().iterdir()) == []


def test_a_folder_of_the_users_name_is_kept(segtrain):
    code, _, _ = segtrain("plan", "experiments=[nothing]", "hydra.run.dir=mine")
    assert code == 2
    assert Path("mine/run.log").is_file()


def test_what_lies_beside_an_unused_folder_is_kept(segtrain):
    Path("outputs/plan/earlier").mkdir(parents=True)
    assert segtrain("plan", "experiments=[nothing]")[0] == 2
    assert [folder.name for folder in Path("outputs/plan").iterdir()] == ["earlier"]


def test_a_picture_is_predicted_without_what_trainings_need(tmp_path):
    Image.new("RGB", (32, 32), "tan").save("a.png")
    file = untrained(tmp_path / "x.ckpt", *TINY)
    line = f"predict checkpoint={file} input=a.png device=cpu"
    code = f"import sys; from segtrain.cli.main import main; code = main({line.split()})\n"
    code += "print(code, {'pytorch_lightning', 'torchmetrics', 'albumentations'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 set()", done.stderr
