"""report.html at the end of runs and evaluations, and made anew."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from browser import complaints, look, requests
from conftest import REPORTED, TINY_INSTANCES, only_run, results_of, small_network

from segtrain.report import run_report
from segtrain.report.record import read_confusion, read_image_scores

INSTANCES = [
    o for o in REPORTED if not o.startswith(("experiment", "architecture")) and "size=[" not in o
]


def text_of(folder) -> str:
    return (folder / "report.html").read_text()


@pytest.fixture
def run(segtrain):
    code, out, err = segtrain(*REPORTED, "hydra.run.dir=outputs/run")
    assert code == 0, err
    assert "report.html" in out
    assert "WARNING" not in err
    return only_run("outputs/run")


def test_a_run_says_what_it_is(run, segtrain):
    results, text = results_of(run), text_of(run)
    assert f"{100 * results['metrics']['miou']:.2f} %" in text
    assert "training loss" in text
    assert "learning rate" in text
    assert text.count('class="example"') == 6  # of seven images
    assert "max_steps: 4" in text
    counts, names = read_confusion(run)
    iou = counts.diagonal() / np.maximum(1, counts.sum(0) + counts.sum(1) - counts.diagonal())
    told = results["metrics"]["per_class_iou"]
    assert names == list(told)
    assert iou.tolist() == pytest.approx([value or 0.0 for value in told.values()])
    scores = read_image_scores(run)
    assert scores.metric == "miou"
    assert scores.names[3] == "shapes/test/000003"
    assert len(scores.scores) == 7
    # Made anew it is the same, but for times.
    (run / "report.html").unlink()
    assert segtrain("report", f"run={run}", "trainer.accelerator=cpu")[0] == 0
    assert text_of(run).count('class="example"') == 6
    assert text_of(run).count("<polyline") == text.count("<polyline") > 3


def test_an_evaluation_has_the_curves_of_its_training(run, segtrain):
    code, _, err = segtrain("evaluate", f"run={run}", "split=val", "inference=multiscale",
                            "trainer.accelerator=cpu", "hydra.run.dir=outputs/again")  # fmt: skip
    assert code == 0, err
    again = only_run("outputs/again")
    text = text_of(again)
    assert "training loss" in text
    assert "0.5, 0.75, 1, 1.25, 1.5, 1.75" in text
    assert "val, 7 images" in text
    (again / "report.html").unlink()
    assert segtrain("report", f"run={again}", "examples=1", "trainer.accelerator=cpu")[0] == 0
    assert text_of(again).count('class="example"') == 3
    assert "val, 7 images" in text_of(again)


def test_what_is_gone_is_missing_from_the_report(run, segtrain):
    moved = run.parent / "moved"
    shutil.move(run, moved)
    shutil.rmtree(moved / "checkpoints")
    shutil.rmtree(moved / "tensorboard")
    code, out, err = segtrain("report", f"run={moved}")
    assert code == 0, err
    assert "without pictures" in out
    assert "Curves are missing" in text_of(moved)
    assert "There are no pictures" in text_of(moved)
    assert "Confusion matrix" in text_of(moved)


def test_runs_of_older_versions(run, segtrain):
    """They have neither the option nor the record of images; resuming one is no error."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["report"]
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for name in ("report.html", "confusion.csv", "image_scores.csv"):
        (run / name).unlink()
    assert segtrain("report", f"run={run}", "trainer.accelerator=cpu")[0] == 0
    assert "no image_scores.csv" in text_of(run)
    assert "Confusion matrix" not in text_of(run)
    (run / "report.html").unlink()
    assert segtrain(f"resume={run}", "trainer.max_steps=6")[0] == 0
    assert not (run / "report.html").exists()


def test_no_report_where_none_is_asked_for(segtrain):
    assert segtrain(*REPORTED, "report=null", "hydra.run.dir=outputs/run")[0] == 0
    assert not (only_run("outputs/run") / "report.html").exists()
    assert (only_run("outputs/run") / "confusion.csv").exists()


def test_csv_logs_have_curves_too(segtrain):
    assert (
        segtrain(*REPORTED, "logger=csv", "report.examples=0", "hydra.run.dir=outputs/run")[0] == 0
    )
    text = text_of(only_run("outputs/run"))
    assert "training loss" in text
    assert "validation" in text
    assert 'class="example"' not in text


def test_a_failing_report_is_a_warning(segtrain, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("no reason")

    monkeypatch.setattr(run_report, "heat_map", fail)
    code, out, err = segtrain(*REPORTED, "hydra.run.dir=outputs/run")
    assert code == 0, err
    assert "report.html was not made (ZeroDivisionError: no reason)" in out
    run = only_run("outputs/run")
    assert results_of(run)["metrics"]["miou"] is not None
    assert not [path for path in run.iterdir() if path.suffix == ".partial"]


def test_a_folder_without_results(segtrain, tmp_path):
    code, _, err = segtrain("report", f"run={tmp_path}")
    assert code == 2
    assert "results.json" in err


def test_the_hash_of_a_configuration_leaves_the_report_out(run, segtrain):
    own = results_of(run)["config_sha256"]
    assert segtrain(*REPORTED, "report=null", "hydra.run.dir=outputs/other")[0] == 0
    assert results_of(only_run("outputs/other"))["config_sha256"] == own


def run_of_instances(segtrain, experiment: str) -> Path:
    sides = ["inference.short_side=64"] if "fpn" in experiment else ["inference.short_sides=[64]"]
    code, _, err = segtrain(
        f"experiment={experiment}", *INSTANCES, *TINY_INSTANCES, *sides, "inference.long_side=64",
        *small_network(f"experiment={experiment}"), "hydra.run.dir=outputs/run",
    )  # fmt: skip
    assert code == 0, err
    return only_run("outputs/run")


@pytest.mark.parametrize("experiment", ["mask_rcnn_shapes", "fpn_shapes"])
def test_instances_have_examples(segtrain, experiment):
    run = run_of_instances(segtrain, experiment)
    assert (run / "report.html").read_text().count('class="example"') == 6


@pytest.mark.parametrize(
    ("experiment", "panels"), [("mask_rcnn_shapes", "errors"), ("fpn_shapes", "best fits")]
)
def test_instances_in_the_browser(segtrain, chromium, experiment, panels):
    run = run_of_instances(segtrain, experiment)
    look(chromium, run / "report.html")
    assert complaints(chromium) == []
    assert requests(chromium) == []
    examples = chromium.find_elements("css selector", ".example")
    assert len(examples) == 6
    assert examples[0].find_elements("css selector", f'[data-panel="{panels}"]')
    assert not (run / "confusion.csv").exists()
    assert len(read_image_scores(run).scores) == 7


def test_segments_in_reports_and_tables(segtrain):
    code, out, err = segtrain(
        "experiment=eomt_shapes", *INSTANCES, *small_network("experiment=eomt_shapes"),
        "inference.object_threshold=0", "hydra.run.dir=outputs/run",
    )  # fmt: skip
    assert code == 0, err
    assert "PQ of things" in out
    assert "report.html was not made" not in out
    run = only_run("outputs/run")
    results, text = results_of(run), text_of(run)
    assert results["things"] == ["circle", "square", "triangle", "star", "ring"]
    assert text.count('class="example"') == 6
    assert text.index("PQ of things by class") < text.index("PQ of stuff by class")
    assert "Confusion matrix" in text
    code, _, err = segtrain(
        "evaluate", f"run={run}", "split=val", "inference=panoptic", "report=null",
        "inference.object_threshold=0.9", "trainer.accelerator=cpu", "hydra.run.dir=outputs/again",
    )  # fmt: skip
    assert code == 0, err
    assert results_of(only_run("outputs/again"))["protocol"]["object_threshold"] == 0.9
    code, out, err = segtrain("table", "runs=outputs", "layout=runs", "sort=-pq_stuff",
                              "output=table.md")  # fmt: skip
    assert code == 0, err
    lines = Path("table.md").read_text().splitlines()
    head = next(line for line in lines if "PQ of things" in line)
    assert [name for name in ("SQ %", "RQ %", "PQ of stuff %") if name not in head] == []


def test_a_run_in_the_browser(run, chromium):
    look(chromium, run / "report.html", 400, dark=True)
    assert complaints(chromium) == []
    assert requests(chromium) == []
    hrefs = "return [...document.querySelectorAll('.links a')].map(a => a.getAttribute('href'))"
    for href in chromium.execute_script(hrefs):
        assert (run / href).exists()
