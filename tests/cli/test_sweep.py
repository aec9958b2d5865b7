"""Sweeps from the command line: killed and resumed, in parallel, searched, and their best."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml
from conftest import TINY, results_of

TESTS = Path(__file__).parents[1]
SWEEP = Path("outputs/sweep")
BASE = [*TINY, "trainer.max_steps=2", "trainer.val_every_n_steps=1"]
HERE = f"hydra.sweep.dir={SWEEP}"
SPACE = ["optimizer.lr=tag(log,interval(1e-3,1e-1))", "batch_size=2,4"]


def begin(*arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}",
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    return subprocess.Popen([sys.executable, "-m", "segtrain", *arguments], env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def ledger(folder: Path = SWEEP) -> dict[int, dict]:
    content = json.loads((folder / "sweep.json").read_text())
    return {entry["job"]: entry for entry in content["jobs"]}


def states(folder: Path = SWEEP) -> list[str]:
    return [entry["state"] for _, entry in sorted(ledger(folder).items())]


def wait_until(condition, seconds=120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finished(folder: Path = SWEEP) -> dict[str, str]:
    """When each finished job finished."""
    return {file.parent.name: json.loads(file.read_text())["finished"]
            for file in folder.glob("*/results.json")}  # fmt: skip


def trials(folder: Path = SWEEP) -> list:
    return optuna.load_study(study_name="segtrain", storage=f"sqlite:///{folder}/optuna.db").trials


def test_ledger_names_the_best_and_resume_runs_what_failed(segtrain):
    swept = ["batch_size=0.5,4", "optimizer=sgd_poly,adamw_poly"]
    code, out, err = segtrain("-m", *BASE, *swept, HERE)
    assert code == 2
    assert err.count("batch_size=0.5") == 2
    assert states() == ["failed", "failed", "done", "done"]
    assert "job 0: batch_size=0.5" in out
    assert f"segtrain sweep resume={SWEEP}" in out
    scores = [entry["validation"] for entry in ledger().values()]
    assert scores[0] >= scores[1]  # best first
    assert scores[2:] == [None, None]
    before = finished()
    assert segtrain("sweep", f"show={SWEEP}")[0] == 0
    assert segtrain("sweep", f"resume={SWEEP}")[0] == 2
    assert finished() == before
    code, _, err = segtrain("sweep", f"resume={SWEEP}", "batch_size=2")
    assert code == 2
    assert "differ in batch_size" in err


def test_best_experiment_reproduces_its_metric(segtrain):
    code, out, _ = segtrain("-m", *BASE, "optimizer=adamw_poly", "optimizer.lr=0.003,0.03", HERE)
    assert code == 0
    best = SWEEP / "best.yaml"
    assert f"segtrain experiment={best}" in out
    number = next(iter(ledger()))
    content = yaml.safe_load(best.read_text())
    assert content["defaults"] == ["quickstart", "_self_", {"override /optimizer": "adamw_poly"}]
    assert segtrain(f"experiment={best}", "hydra.run.dir=outputs/again")[0] == 0
    first, again = results_of(SWEEP / str(number)), results_of(Path("outputs/again"))
    assert again["metrics"] == first["metrics"]
    assert again["experiment"] == "best"


def test_experiment_files_of_the_user(segtrain):
    code, _, err = segtrain("experiment=nowhere.yaml")
    assert code == 2
    assert "nowhere.yaml: there is no such file" in err
    Path("quickstart.yaml").write_text("# @package _global_\nseed: 3\n")
    code, _, err = segtrain("experiment=quickstart.yaml")
    assert code == 2
    assert "rename" in err
    Path("mine.yaml").write_text("# @package _global_\ndefaults: [quickstart]\nseed: 3\n")
    code, out, _ = segtrain("experiment=mine.yaml", "--cfg", "job")
    assert code == 0
    assert yaml.safe_load(out)["seed"] == 3


def test_killed_sweep_goes_on_from_the_checkpoint(segtrain, monkeypatch):
    fault = "_target_: faults.Strike, step: 3, number: 9, rank: 0"
    settings = ["trainer.max_steps=4", "trainer.checkpoint_every_n_steps=1"]
    killed = begin("-m", *BASE, *settings, "seed=1,2", HERE, f"+callback.fault={{{fault}}}")
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    monkeypatch.syspath_prepend(TESTS)
    assert segtrain("sweep", f"resume={SWEEP}")[0] == 2  # it names a callback of the tests
    code, out, err = segtrain("sweep", f"resume={SWEEP}", "trust_code=true")
    assert code == 0, err
    assert "step 2/4" not in out.partition("step 4/4")[0]  # of the first job
    assert states() == ["done", "done"]
    assert results_of(SWEEP / "0")["global_step"] == 4


def test_killed_search_resumes_to_its_number_of_trials(segtrain):
    settings = ["sweep=optuna", "sweep.trials=8", "sweep.pruner=null", HERE]
    search = begin(*BASE, *settings, *SPACE)
    wait_until(lambda: len(finished()) >= 3 and (SWEEP / "3" / "config.yaml").is_file())
    search.kill()
    search.communicate()
    before = finished()
    assert 3 <= len(before) < 8
    code, _, err = segtrain("sweep", f"resume={SWEEP}")
    assert code == 0, err
    assert states() == ["done"] * 8
    assert before.items() <= finished().items()
    found = trials()
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 8
    assert len({trial.params["optimizer.lr"] for trial in found}) == 8
    assert [trial.value for trial in found] == [ledger()[n]["validation"] for n in range(8)]
    assert (SWEEP / "best.yaml").is_file()
    assert segtrain("sweep", f"resume={SWEEP}")[0] == 0
    assert len(trials()) == 8
    assert segtrain("sweep", f"resume={SWEEP}", "sweep.trials=9")[0] == 0
    assert states() == ["done"] * 9


def test_bad_trials_are_pruned(segtrain):
    pruner = "+sweep.pruner={_target_: optuna.pruners.ThresholdPruner, lower: 0.99}"
    settings = ["sweep=optuna", "sweep.trials=2", "~sweep.pruner", pruner, SPACE[0], HERE]
    code, _, err = segtrain(*BASE, *settings)
    assert code == 0, err
    assert states() == ["pruned", "pruned"]
    assert [trial.state.name for trial in trials()] == ["PRUNED"] * 2
    assert [list(trial.intermediate_values) for trial in trials()] == [[1], [1]]
    assert not list(SWEEP.glob("*/results.json"))


def test_two_sweeps_share_a_storage(segtrain):
    storage = f"sqlite:///{Path.cwd()}/shared.db"
    settings = ["sweep=optuna", "sweep.trials=4", "sweep.pruner=null", SPACE[0],
                f"sweep.storage={storage}"]  # fmt: skip
    other = begin(*BASE, *settings, "hydra.sweep.dir=outputs/a")
    wait_until(lambda: Path("outputs/a/0/config.yaml").is_file())
    code, _, err = segtrain(*BASE, *settings, "hydra.sweep.dir=outputs/b")
    assert code == 0, err
    _, err = other.communicate(timeout=180)
    assert other.returncode == 0, err
    found = optuna.load_study(study_name="segtrain", storage=storage).trials
    assert {trial.state.name for trial in found} == {"COMPLETE"}
    assert 4 <= len(found) <= 5  # both may have asked for the last one at once
    assert len({trial.params["optimizer.lr"] for trial in found}) == len(found)
    folders = [trial.user_attrs["folder"] for trial in found]
    assert {Path(folder).name for folder in folders} == {"a", "b"}
    assert len(ledger(Path("outputs/a"))) + len(ledger(Path("outputs/b"))) == len(found)


def test_a_search_of_another_space_is_refused(segtrain):
    settings = ["sweep=optuna", "sweep.trials=1", f"sweep.storage=sqlite:///{Path.cwd()}/s.db"]
    assert segtrain(*BASE, *settings, "seed=1,2")[0] == 0
    code, _, err = segtrain(*BASE, *settings, "batch_size=2,4")
    assert code == 2
    assert "sweep.study=<name>" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "optimizer.lr=interval(0.1,1)"], "sweep=optuna"),
        (["sweep=optuna"], "nothing to search"),
        (["sweep=optuna", "seed=1,2", "sweep.storage=nosuch://x"], "sweep.storage=nosuch://x"),
        (["sweep", "resume=nowhere"], "nowhere/sweep.json does not exist"),
        (["sweep"], "resume=<folder of a sweep>"),
        (["sweep=joblib", "seed=1,2", "sweep.jobs=0"], "sweep.jobs=0"),
        (["sweep=nothing", "seed=1,2"], "unknown sweep 'nothing'"),
    ],
)
def test_what_cannot_be_swept_is_said(segtrain, monkeypatch, arguments, said):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    code, _, err = segtrain(*arguments)
    assert code == 2
    assert said in err


def test_parallel_jobs_report_as_others_do(segtrain):
    code, out, err = segtrain(*BASE, "sweep=joblib", "batch_size=0.5,4", HERE)
    assert code == 2
    assert "[0] segtrain: error: batch_size=0.5" in err
    assert "[1] " in out
    assert states() == ["failed", "done"]


@pytest.mark.slow
def test_a_signal_ends_parallel_jobs_and_their_sweep(segtrain):
    settings = ["sweep=joblib", "trainer.max_steps=400", "trainer.val_every_n_steps=10"]
    sweep = begin(*BASE, *settings, "seed=1,2,3", HERE)
    wait_until(lambda: len(list(SWEEP.glob("*/checkpoints/last.ckpt"))) == 2)
    sweep.terminate()
    _, err = sweep.communicate(timeout=90)
    assert sweep.returncode == 128 + signal.SIGTERM, err
    assert states() == ["stopped", "stopped", "left"]
    assert segtrain("sweep", f"resume={SWEEP}", "trainer.max_steps=20")[0] == 0
    assert states() == ["done"] * 3


@pytest.mark.slow
def test_killed_parallel_search_leaves_no_process(segtrain):
    settings = ["sweep=[optuna,joblib]", "sweep.trials=4", "sweep.pruner=null",
                "trainer.max_steps=100"]  # fmt: skip
    search = begin(*BASE, *settings, SPACE[0], HERE)
    wait_until(lambda: len(list(SWEEP.glob("*/checkpoints/last.ckpt"))) == 2)
    search.kill()
    search.communicate()
    code, _, err = segtrain("sweep", f"resume={SWEEP}", "trainer.max_steps=4")
    assert code == 0, err
    assert states() == ["done"] * 4
    assert len(trials()) == 4


def test_jobs_of_two_processes_are_evaluated():
    """DDP inside a sweep."""
    sweep = begin("-m", *BASE, "trainer=ddp_cpu", "seed=1,2", HERE)
    _, err = sweep.communicate(timeout=240)
    assert sweep.returncode == 0, err
    for number in "01":
        results = results_of(SWEEP / number)
        assert (results["devices"], results["images"]) == (2, 7)


@pytest.mark.slow
def test_jobs_of_submitit(segtrain):
    code, out, _ = segtrain("-m", *BASE, "hydra/launcher=submitit_local", "batch_size=0.5,4", HERE)
    assert code == 2
    assert states() == ["failed", "done"]
    assert "job 0: batch_size=0.5" in out


def test_missing_plugin_is_named(segtrain, monkeypatch):
    from segtrain.configuration.messages import explain_config

    error = ValueError("Could not find 'hydra/launcher/joblib'\n\nAvailable options")
    assert "pip install 'segtrain[sweep]'" in explain_config(error)
    with contextlib.suppress(KeyError):
        monkeypatch.delitem(sys.modules, "segtrain.sweep.search")
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = segtrain("sweep=optuna", "seed=1,2")
    assert code == 2
    assert "pip install 'segtrain[sweep]'" in err
