"""Whole runs from the command line to results.json, on the embedded set."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import REPORTED, TINY, only_run, results_of, small_network
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segtrain.cli import app
from segtrain.named_runs import short_name
from segtrain.report.record import read_confusion

TESTS = Path(__file__).parents[1]
TWENTY = [*TINY, "trainer.max_steps=20", "trainer.val_every_n_steps=20"]
TWO = ["trainer.devices=2", "dataset.source.num_images={train: 12, val: 7, test: 7}"]
SCHEMA = {
    "schema", "experiment", "task", "architecture", "backbone", "dataset", "split", "protocol",
    "metrics", "published", "images", "seed", "global_step", "epochs", "total_batch_size",
    "devices", "precision", "timing", "peak_memory_bytes", "parameters", "checkpoint",
    "checkpoint_sha256", "config_sha256", "git_revision", "versions", "finished",
}  # fmt: skip


def process(*arguments: str, launcher: tuple[str, ...] = ("-m", "segtrain"), timeout: int = 240):
    """The command line in a process of its own."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launcher, *arguments],
        env=environment, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def strike(step: int, number: int, rank: int) -> list[str]:
    fault = f"_target_: faults.Strike, step: {step}, number: {int(number)}, rank: {rank}"
    return [f"+callback.fault={{{fault}}}"]


def weights(run: Path) -> dict:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def assert_same_training(one: Path, other: Path) -> None:
    """Weights, averages, optimiser and schedule equal to the last bit."""
    first, second = weights(one), weights(other)
    assert first["global_step"] == second["global_step"]
    for part in ("state_dict", "current_model_state"):
        for name, tensor in first[part].items():
            assert torch.equal(tensor, second[part][name]), (part, name)
    states = zip(
        first["optimizer_states"][0]["state"].items(),
        second["optimizer_states"][0]["state"].items(),
        strict=True,
    )
    for (key, state), (other_key, other_state) in states:
        assert key == other_key
        for name in state:
            assert torch.equal(torch.as_tensor(state[name]), torch.as_tensor(other_state[name]))
    assert first["lr_schedulers"][0]["_last_lr"] == second["lr_schedulers"][0]["_last_lr"]


def test_run_folder_and_results(segtrain):
    code, out, _ = segtrain(
        *REPORTED, "published={value: 0.5, metric: miou, source: x, comparable: false}"
    )
    assert code == 0
    run = only_run()
    found = {path.name for path in run.iterdir()}
    assert found == {
        "config.yaml", "run.log", "tensorboard", "checkpoints", "results.json", "report.html",
        "confusion.csv", "image_scores.csv",
    }  # fmt: skip
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    results = results_of(run)
    assert set(results) == SCHEMA
    assert results["schema"] == 1
    assert results["experiment"] == "quickstart"
    assert results["architecture"] == "DeepLabv3"
    assert results["protocol"] == {
        "inference": "whole",
        "scales": [1.0],
        "flip": False,
        "pad": False,
        "crf": False,
        "logit_adjustment": None,
        "output_stride": 8,
    }
    assert results["images"] == 7
    assert results["global_step"] == 4
    assert results["epochs"] == pytest.approx(4 * 4 / 12)
    assert results["published"]["value"] == 0.5
    assert 0 <= results["metrics"]["miou"] <= 1
    assert list(results["metrics"]["per_class_iou"]) == [
        "background", "circle", "square", "triangle", "star", "ring", "cross", "stick",
    ]  # fmt: skip
    assert results["timing"]["train_seconds"] > 0
    assert 0 <= results["timing"]["data_wait_fraction"] <= 1
    made = results["timing"]["validations"]
    assert [one["step"] for one in made] == [4]
    assert 0 < made[0]["seconds"] <= results["timing"]["train_seconds"]
    assert 0 <= made[0]["score"] <= 1
    for place in ("checkpoints/best.ckpt", "results.json"):
        assert str(run / place) in out
    assert f"segtrain tensorboard run={short_name(run)}" in out
    told = "12 training images (train), 7 validation images (val), 7 test images (test)"
    assert told in out
    assert "mIoU" in out
    log = (run / "run.log").read_text()
    assert "step 4/4" in log
    assert yaml.safe_load((run / "config.yaml").read_text())["experiment"] == "quickstart"


def test_runs_of_one_second_have_folders_of_their_own():
    """Ten processes at once: the time alone does not tell them apart."""
    with ThreadPoolExecutor(10) as pool:
        folders = list(pool.map(app.claim, [Path("outputs/quickstart/now")] * 10))
    assert len(set(folders)) == 10
    assert Path("outputs/quickstart/now") in folders
    assert all((folder / "config.yaml").is_file() for folder in folders)


def test_a_folder_of_the_same_second_is_left_alone(segtrain, monkeypatch):
    taken = []

    def claim(folder):
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("of another run")
        taken.append(folder)
        return original(folder)

    original = app.claim
    monkeypatch.setattr(app, "claim", claim)
    assert segtrain(*TINY, "trainer.max_steps=1")[0] == 0
    assert (taken[0] / "config.yaml").read_text() == "of another run"
    own = taken[0].with_name(f"{taken[0].name}_2")
    assert {path.name for path in own.iterdir()} >= {"results.json", "checkpoints", "config.yaml"}
    assert [path.name for path in taken[0].iterdir()] == ["config.yaml"]


def test_tensorboard_holds_scalars_pictures_and_texts(segtrain):
    assert segtrain(*TINY)[0] == 0
    events = EventAccumulator(str(only_run() / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    expected = {
        "train/loss", "train/loss_main", "lr/backbone", "lr/head", "lr/head_no_decay", "val/miou",
        "val_iou/circle", "images_per_second", "data_wait_fraction", "test/miou",
    }  # fmt: skip
    assert expected <= set(tags["scalars"])
    assert "val/confusion" in tags["images"]
    assert sum(tag.startswith("val_images/shapes/val/") for tag in tags["images"]) == 7
    assert "config/text_summary" in tags["tensors"]


def test_evaluate_repeats_the_result_on_any_split(segtrain):
    assert segtrain(*TINY)[0] == 0
    run = only_run()
    assert segtrain("evaluate", f"run={run}")[0] == 0
    again = results_of(only_run("outputs/evaluate/*"))
    trained = results_of(run)
    assert again["metrics"] == trained["metrics"]
    assert again["checkpoint_sha256"] == trained["checkpoint_sha256"]
    assert (again["global_step"], again["epochs"]) == (4, trained["epochs"])
    checkpoint = run / "checkpoints" / "last.ckpt"
    protocol = ["inference=whole", "inference.scales=[0.5]"]
    arguments = [f"checkpoint={checkpoint}", "split=val", *protocol]
    assert segtrain("evaluate", *arguments, "hydra.run.dir=outputs/half")[0] == 0
    half = results_of(only_run("outputs/half"))
    assert half["split"] == "val"
    assert half["protocol"]["scales"] == [0.5]
    assert set(half) == SCHEMA


def test_sweep_makes_a_run_per_job(segtrain):
    code, _, _ = segtrain("-m", *TINY, "optimizer.lr=0.01,0.02", "trainer.max_steps=2")
    assert code == 0
    runs = sorted(Path.cwd().glob("outputs/multirun/quickstart/*/*/results.json"))
    rates = [
        yaml.safe_load((run.parent / "config.yaml").read_text())["optimizer"]["lr"] for run in runs
    ]
    assert rates == [0.01, 0.02]


def test_a_signal_ends_the_sweep(segtrain, monkeypatch):
    monkeypatch.syspath_prepend(TESTS)
    code, _, _ = segtrain("-m", *TINY, "seed=1,2", *strike(2, signal.SIGTERM, 0))
    assert code == 128 + signal.SIGTERM
    assert len(list(Path.cwd().glob("outputs/multirun/*/*/*/config.yaml"))) == 1


def test_a_failed_job_does_not_end_the_sweep(segtrain):
    code, _, err = segtrain("-m", *TINY, "batch_size=0.5,4", "trainer.max_steps=1")
    assert code == 2
    assert "batch_size" in err
    assert len(list(Path.cwd().glob("outputs/multirun/*/*/*/results.json"))) == 1


def test_deterministic_runs_are_bit_equal(segtrain):
    for name in ("a", "b"):
        settings = ["trainer.deterministic=true", "dataset.num_workers=1"]
        assert segtrain(*TINY, *settings, f"hydra.run.dir=outputs/{name}")[0] == 0
    assert_same_training(Path("outputs/a"), Path("outputs/b"))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_kill_and_resume_equals_an_uninterrupted_run(segtrain, monkeypatch, accumulate):
    """20 steps = 10 steps + SIGKILL + resume + 10 steps, in the middle of an epoch."""
    settings = [
        *TWENTY,
        f"trainer.accumulate_grad_batches={accumulate}",
        "architecture.refine=true",
    ]
    assert segtrain(*settings, "hydra.run.dir=outputs/whole")[0] == 0
    killed = process(
        *settings, "trainer.checkpoint_every_n_steps=5", *strike(10, signal.SIGKILL, 0),
        "hydra.run.dir=outputs/killed",
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert weights(Path("outputs/killed"))["global_step"] == 10
    monkeypatch.syspath_prepend(TESTS)
    assert segtrain("resume=outputs/killed", "trust_code=true")[0] == 0
    assert_same_training(Path("outputs/whole"), Path("outputs/killed"))
    assert (
        results_of(Path("outputs/killed"))["metrics"]
        == results_of(Path("outputs/whole"))["metrics"]
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signal_saves_and_ends_with_its_code(segtrain, monkeypatch, number):
    monkeypatch.syspath_prepend(TESTS)
    before = signal.getsignal(number)
    code, _, err = segtrain(*TWENTY, *strike(7, number, 0), "hydra.run.dir=outputs/run")
    assert code == 128 + number
    assert f"stopped by {signal.Signals(number).name} after step 8" in err
    assert "resume=outputs/run" in err.replace(str(Path.cwd()) + "/", "")
    assert signal.getsignal(number) == before
    assert segtrain("resume=outputs/run", "trust_code=true")[0] == 0
    assert segtrain(*TWENTY, "hydra.run.dir=outputs/whole")[0] == 0
    assert_same_training(Path("outputs/run"), Path("outputs/whole"))


def test_loss_that_is_not_finite_stops_the_run(segtrain, monkeypatch):
    monkeypatch.syspath_prepend(TESTS)
    fault = "+callback.fault={_target_: faults.SpoilLoss, step: 6}"
    settings = ["trainer.checkpoint_every_n_steps=1", "hydra.run.dir=outputs/run"]
    code, _, err = segtrain(*TWENTY, *settings, fault)
    assert code == 1
    assert "the loss is nan at step 7; its 4 images are named in" in err
    report = json.loads(Path("outputs/run/nonfinite_loss.json").read_text())
    assert report["step"] == 7
    assert len(report["batch"]) == 4
    assert all(name.startswith("shapes/train/") for name in report["batch"])
    assert_finite(Path("outputs/run"), step=6)


def test_gradient_that_is_not_finite_is_never_saved(segtrain, monkeypatch):
    """Though the loss of its step is finite."""
    monkeypatch.syspath_prepend(TESTS)
    fault = "+callback.fault={_target_: faults.SpoilGradient, step: 6}"
    settings = ["trainer.checkpoint_every_n_steps=1", "hydra.run.dir=outputs/run"]
    code, _, err = segtrain(*TWENTY, *settings, fault)
    assert code == 1
    assert "the weights or the optimiser's state are not finite at step 7" in err
    assert_finite(Path("outputs/run"), step=6)


def assert_finite(run: Path, step: int) -> None:
    saved = weights(run)
    assert saved["global_step"] == step
    for part in ("state_dict", "current_model_state"):
        assert all(tensor.isfinite().all() for tensor in saved[part].values())


def test_two_processes_stop_together_where_one_loss_is_not_finite():
    """At a step where rank zero, whose own loss is finite, would save the spoilt weights."""
    fault = "+callback.fault={_target_: faults.SpoilLoss, step: 6, rank: 1}"
    settings = ["trainer.checkpoint_every_n_steps=1", "hydra.run.dir=outputs/run"]
    done = process(*TWENTY, *TWO, *settings, fault)
    assert done.returncode == 1, done.stderr
    assert "the loss is nan at step 7 on process 1; its 2 images" in done.stderr
    assert json.loads(Path("outputs/run/nonfinite_loss_rank1.json").read_text())["rank"] == 1
    assert_finite(Path("outputs/run"), step=6)


def test_early_stopping(segtrain):
    callbacks = "callback=[early_stopping]"
    patience = "callback.early_stopping.patience=1"
    settings = ["trainer.max_steps=40", "trainer.val_every_n_steps=2", "optimizer.lr=0"]
    tiny = [override for override in TINY if override != "experiment=quickstart"]
    base = ["dataset=shapes", "architecture=deeplabv3", "architecture.backbone.multi_grid=null"]
    code, _, err = segtrain(*base, *tiny, callbacks, patience, *settings)
    assert code == 0, err
    assert results_of(only_run("outputs/deeplabv3_shapes/*"))["global_step"] < 40


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_any_precision(segtrain, precision):
    code, _, err = segtrain(
        *TINY, "optimizer=sgd_poly", "optimizer.weight_decay=0",
        "trainer.max_steps=1", f"trainer.precision={precision}", "trainer.gradient_clip_val=1e-9",
    )  # fmt: skip
    assert code == 0, err
    states = weights(only_run())["optimizer_states"][0]["state"].values()
    norm = torch.stack([state["momentum_buffer"].norm() for state in states]).norm()
    assert 0 < norm <= 1.01e-9  # momentum of the first step is the gradient


def test_a_run_without_callbacks(segtrain):
    tiny = [override for override in TINY if override != "experiment=quickstart"]
    base = ["dataset=shapes", "architecture=fcn_torchvision",
            *small_network("architecture=fcn_torchvision")]  # fmt: skip
    code, _, err = segtrain(*base, *tiny, "callback=[]", "logger=csv")
    assert code == 0, err
    assert list(only_run("outputs/fcn_torchvision_shapes/*").glob("csv/metrics.csv"))


def test_weights_start_from_another_run(segtrain):
    assert segtrain(*TINY, "hydra.run.dir=outputs/first")[0] == 0
    best = "outputs/first/checkpoints/best.ckpt"
    code, _, _ = segtrain(
        *TINY, f"weights={best}", "optimizer.lr=0", "hydra.run.dir=outputs/second"
    )
    assert code == 0
    first, second = (torch.load(f"outputs/{run}/checkpoints/best.ckpt", weights_only=True)
                     for run in ("first", "second"))  # fmt: skip
    for name, parameter in first["state_dict"].items():
        if name.endswith("weight"):
            assert torch.equal(parameter, second["state_dict"][name])


@pytest.mark.slow
def test_two_processes_kill_and_resume():
    """Training on two processes works, and resumes to the last bit."""
    whole = process(*TWENTY, *TWO, "hydra.run.dir=outputs/whole")
    assert whole.returncode == 0, whole.stderr
    assert results_of(Path("outputs/whole"))["devices"] == 2
    killed = process(
        *TWENTY, *TWO, "trainer.checkpoint_every_n_steps=10", *strike(10, signal.SIGKILL, -1),
        "hydra.run.dir=outputs/killed",
    )  # fmt: skip
    assert killed.returncode == 128 + signal.SIGKILL
    resumed = process("resume=outputs/killed", "trust_code=true")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_training(Path("outputs/whole"), Path("outputs/killed"))


@pytest.mark.parametrize(
    ("number", "rank"),
    [(signal.SIGTERM, 1), *(pytest.param(number, 0, marks=pytest.mark.slow)
                            for number in (signal.SIGUSR1, signal.SIGINT))],
)
def test_two_processes_stop_together_whichever_gets_the_signal(number, rank):
    stopped = process(*TWENTY, *TWO, *strike(7, number, rank), "hydra.run.dir=outputs/run")
    assert stopped.returncode == 128 + number, stopped.stderr
    assert stopped.stderr.count("stopped by") == 1
    assert weights(Path("outputs/run"))["global_step"] == 8


def test_torchrun_with_a_config_of_rank_zero():
    run = process(
        *TINY, "hydra.run.dir=outputs/run",
        launcher=("-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "segtrain"),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert results_of(Path("outputs/run"))["devices"] == 2
    assert list(Path("outputs").iterdir()) == [Path("outputs/run")]


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_matrices_are_identical_on_several_processes(segtrain, count):
    """Seven images, which neither two nor three divide, in batches of several."""
    extra = "extra_metrics=[dice,boundary_iou,per_image,calibration]"
    assert segtrain(*TINY, extra, "hydra.run.dir=outputs/run")[0] == 0
    run = Path("outputs/run")
    done = process(
        str(run / "checkpoints/best.ckpt"), "matrix.pt",
        launcher=("-m", "torch.distributed.run", f"--nproc-per-node={count}",
                  str(TESTS / "evaluate_matrix.py")),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    matrix = torch.load("matrix.pt", weights_only=True)
    assert matrix.dtype == torch.int64
    assert matrix.sum() > 0
    assert np.array_equal(matrix.numpy(), read_confusion(run)[0])
    scores = (run / "image_scores.csv").read_text()
    assert len(scores.splitlines()) == 8
    assert Path("image_scores.csv").read_text() == scores
    for rank in range(count):
        assert json.loads(Path(f"metrics.{rank}").read_text()) == results_of(run)["metrics"]


@pytest.mark.slow
def test_quickstart_learns():
    """The whole quickstart: mIoU of 0.75 or more on held-out images, within four minutes."""
    done = process(timeout=900)
    assert done.returncode == 0, done.stderr
    assert results_of(only_run())["metrics"]["miou"] >= 0.75


@pytest.mark.slow
def test_real_camvid_learns(real_data):
    done = process("experiment=deeplabv3_camvid", "trainer.max_steps=60", timeout=900)
    assert done.returncode == 0, done.stderr
    assert results_of(only_run("outputs/deeplabv3_camvid/*"))["metrics"]["miou"] >= 0.15
