"""`segtrain.Run` and `segtrain.runs`."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fragments import Fragment, require_still
from predicting import SEMANTIC, picture, write_run
from tabling import evaluation, training, write_results

import segtrain as package
from segtrain import Run, UserError, load, runs

INSTANCES = {
    "ap": 0.4,
    "box_ap": 0.45,
    "per_class_ap": {"cat": 0.4},
    "per_class_box_ap": {"cat": 0.5},
}


def test_a_finished_run(tmp_path):
    folder = write_results(tmp_path / "fcn" / "monday", training())
    run = Run(folder)
    assert (run.name, run.state, run.metric, run.score) == ("fcn/monday", "finished", "miou", 0.77)
    assert run.config["experiment"] == run.results["experiment"] == "deeplabv3_voc"
    assert list(run.scores) == [{"class": "cat", "IoU": 0.9}, {"class": "dog", "IoU": None}]
    assert (run.best, run.last, run.report, run.history) == (None, None, None, {})
    (folder / "report.html").touch()
    assert run.report == folder / "report.html"
    fragment = Fragment(run._repr_html_())
    require_still(fragment)
    assert ["mIoU", "77.0 %"] in fragment.rows
    assert ["cat", "90.0 %"] in fragment.rows
    assert repr(run) == "<Run fcn/monday: mIoU 77.0 %>"


def test_scores_of_masks_and_boxes(tmp_path):
    run = Run(write_results(tmp_path / "a", training(), task="instance", metrics=INSTANCES))
    run.results["metrics"].pop("per_class_iou")
    assert list(run.scores) == [{"class": "cat", "AP": 0.4, "AP of boxes": 0.5}]


def test_scores_without_classes(tmp_path):
    run = Run(write_results(tmp_path / "a", training(), task="proposal", metrics={"ar1000": 0.3}))
    run.results["metrics"].pop("per_class_iou")
    assert run.scores[0]["AR1000"] == 0.3


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    write_results(tmp_path / "a" / "<b>", training())
    (tmp_path / "a" / "<b>" / "results.json").unlink()
    (tmp_path / "a" / "<b>" / "checkpoints").mkdir()
    (tmp_path / "a" / "<b>" / "checkpoints" / "last.ckpt").touch()
    run = Run(tmp_path / "a" / "<b>")
    assert (run.state, run.results, run.score, list(run.scores)) == ("unfinished", None, None, [])
    assert "resume=" in run.note
    assert run.last.name == "last.ckpt"
    require_still(Fragment(run._repr_html_()))
    assert "resume=" in Fragment(run._repr_html_()).text


def test_history(tmp_path):
    folder = write_results(tmp_path / "a", training())
    (folder / "csv").mkdir()
    with (folder / "csv" / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["step", "train/loss"], [1, 2.0], [2, 1.5]])
    curve = Run(folder).history["train/loss"]
    assert curve.steps.tolist() == [1, 2]
    assert curve.values.tolist() == [2.0, 1.5]


def test_its_network_is_that_of_its_checkpoint(tmp_path):
    folder = write_run(tmp_path / "run", *SEMANTIC)
    write_results(tmp_path / "other", training())
    (tmp_path / "other" / "results.json").rename(folder / "results.json")
    run = Run(folder)
    assert run.best == folder / "checkpoints" / "best.ckpt"
    image = picture(tmp_path / "a.png")
    expected = load(folder, device="cpu")(image).labels
    assert np.array_equal(load(run, device="cpu")(image).labels, expected)
    assert np.array_equal(run.load()(image).labels, expected) or torch.cuda.is_available()


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_other_folders_are_no_runs(folder):
    with pytest.raises(UserError, match="no run folder"):
        Run(folder)


def test_runs_are_listed_newest_first(tmp_path):
    for number, name in enumerate(("b", "c", "a")):
        folder = write_results(Path("outputs") / name, training())
        os.utime(folder / "config.yaml", (number, number))
    Path("outputs/b/results.json").unlink()
    write_results("outputs/deep/inside", evaluation())
    found = runs()
    assert [run.folder.name for run in found] == ["inside", "a", "c", "b"]
    assert [run.folder.name for run in found[2:]] == ["c", "b"]
    assert [run.state for run in found] == ["finished"] * 3 + ["unfinished"]
    fragment = Fragment(found._repr_html_())
    require_still(fragment)
    assert len(fragment.rows) == 1 + 4
    assert len(repr(found)) < 120
    assert len(repr(runs("outputs/deep"))) < 120


def test_listing_a_folder_that_is_not_there():
    with pytest.raises(UserError, match="outputs: no such folder"):
        runs()


def test_listing_and_showing_imports_nothing_heavy(tmp_path):
    write_results("outputs/a", training())
    code = (
        "import sys, segtrain; found = segtrain.runs(); found._repr_html_(); "
        "found[0]._repr_html_(); print(sorted({'torch', 'cv2', 'hydra'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]


def test_the_package_lists_what_is_public():
    assert dir(package) == sorted(package.__all__)
    assert all(getattr(package, name) is not None for name in package.__all__)


def test_no_module_hides_what_is_public():
    """An import of `segtrain/<name>.py` would put the module where the function was."""
    root = Path(package.__file__).parent
    modules = {path.stem for path in root.iterdir() if path.suffix in ("", ".py")}
    assert not modules & set(package.__all__)
