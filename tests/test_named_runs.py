"""Run folders by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segtrain.errors import UserError
from segtrain.named_runs import find_run, short_name

FIRST, LATER, LAST = (f"2026-01-0{day}_10-00-00" for day in (1, 2, 3))


def make_run(folder: str, log: str | None = None, saved: bool = True, done: bool = True) -> Path:
    """A run folder as a training leaves it, as far as names need it."""
    run = Path(folder)
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    if log is not None:
        (run / "run.log").write_text(f"{log},123 INFO data\n2027-01-01 00:00:00,000 INFO later\n")
    if saved:
        (run / "checkpoints" / "last.ckpt").touch()
    if done:
        (run / "results.json").touch()
    return run


@pytest.fixture
def runs() -> dict[str, Path]:
    """Trainings of every kind, and what is none; the oldest was written to last."""
    found = {
        "leaves": make_run(f"outputs/leaves/{LATER}"),
        "leaves before": make_run(f"outputs/leaves/{FIRST}"),
        "trees": make_run(f"outputs/trees/{FIRST}_2"),
        "trees before": make_run(f"outputs/trees/{FIRST}"),
        "job": make_run(f"outputs/multirun/sweep/{FIRST}/10", log="2026-01-02 09:00:00"),
        "job before": make_run(f"outputs/multirun/sweep/{FIRST}/9", log="2026-01-01 11:00:00"),
        "stage": make_run(f"outputs/chain/{FIRST}/2_b", log="2026-01-02 08:00:00"),
        "reproduced": make_run(f"outputs/reproduce/{FIRST}/a", log="2026-01-02 07:00:00"),
    }
    Path(f"outputs/reproduce/{FIRST}/config.yaml").touch()
    for folder in (f"outputs/evaluate/{LAST}", f"outputs/leaves/{LAST}"):  # saved nothing
        Path(folder).mkdir(parents=True)
        Path(folder, "config.yaml").touch()
    make_run(f"outputs/predict/{LAST}")  # such as a picture's folder; no training writes there
    os.utime("outputs/trees", (4e9, 4e9))
    os.utime(found["leaves before"] / "config.yaml", (4e9, 4e9))
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("latest", "leaves"),
        ("leaves", "leaves"),
        (f"leaves/{FIRST}", "leaves before"),
        ("trees", "trees"),
        ("sweep", "job"),
        (f"sweep/{FIRST}", "job"),
        (f"sweep/{FIRST}/9", "job before"),
        ("chain", "stage"),
        ("reproduce", "reproduced"),
        (f"outputs/trees/{FIRST}", "trees before"),
        (Path("leaves"), "leaves"),
    ],
)
def test_the_newest_of_a_name(runs, given, expected):
    assert find_run(given) == runs[expected]


def test_a_run_without_a_time_in_its_name_is_as_old_as_its_log(runs):
    own = make_run("outputs/mine/first try", log="2026-01-02 11:00:00")
    assert find_run("latest") == own


def test_a_path_that_exists_wins(runs):
    for name in ("latest", "leaves"):
        Path(name).mkdir()
        assert find_run(name) == Path(name)


def test_the_latest_that_is_unfinished(runs):
    with pytest.raises(UserError, match="latest: every run .* finished.*resume=leaves epochs="):
        find_run("latest", unfinished=True)
    going = make_run(f"outputs/trees/{LATER}", done=False)
    make_run(f"outputs/trees/{LAST}", saved=False, done=False)
    assert find_run("latest", unfinished=True) == going


def test_names_that_there_are_not(runs):
    with pytest.raises(UserError, match="^leavs: .*nearest: leaves; newest: outputs/leaves/"):
        find_run("leavs")
    Path("outputs/empty").mkdir()
    with pytest.raises(UserError, match="outputs/empty holds none"):
        find_run("empty")


@pytest.mark.parametrize("given", ["latest", "leaves", "outputs/x", "/nowhere/x"])
def test_no_run_at_all(given):
    with pytest.raises(UserError, match=f"^{given}: .*no run"):
        find_run(given)


def test_short_names_find_their_runs(runs):
    for run in runs.values():
        assert find_run(short_name(run)) == run
        assert short_name(run.absolute()) == short_name(run)
    assert short_name(runs["leaves"]) == "leaves"
    assert short_name(runs["leaves before"]) == f"leaves/{FIRST}"
    assert short_name(runs["job before"]) == f"sweep/{FIRST}/9"
    Path("leaves").mkdir()
    assert short_name(runs["leaves"]) == f"leaves/{LATER}"
    elsewhere = make_run("elsewhere/run")
    assert short_name(elsewhere) == "elsewhere/run"


def test_runs_are_found_without_heavy_imports():
    code = "import sys, segtrain.named_runs; print({'torch', 'hydra', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
