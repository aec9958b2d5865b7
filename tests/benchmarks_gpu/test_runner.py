"""Every figure is written down at once, a part that goes wrong leaves the others, and what is there
is not measured again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.cell import Part
from benchmarks.gpu.journal import Journal
from benchmarks.gpu.runner import ROOT, Options, run

HERE = Path(__file__).parent
STAND_INS = Part("first", "what", 1, "stand_ins")
SLOW = Part("slow", "how long", 1, "slow_ins")
COMMAND = """
import sys
from pathlib import Path
from benchmarks.gpu.runner import Options, run
from benchmarks.gpu.cell import Part
sys.exit(run(Options(1, Path("out"), device="cpu", tiny=True), [Part("slow", "", 1, "slow_ins")]))
"""


@pytest.fixture(autouse=True)
def modules_of_this_folder(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(HERE)
    path = [str(HERE), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("MEASURED", str(tmp_path / "measured"))


def measure(*parts, minutes=1.0, **settings) -> dict[tuple[str, str], dict]:
    """Runs the parts; the last word on each cell."""
    options = Options(minutes, Path("out"), device="cpu", tiny=True, **settings)
    assert run(options, parts) == 0
    return Journal(Path("out/gpu.jsonl")).cells()


def test_every_outcome_is_told_and_the_rest_is_there():
    cells = measure(STAND_INS)
    assert {name: entry["status"] for (_, name), entry in cells.items()} == {
        "good": "ok", "raising": "failed", "greedy": "out of memory", "killed": "out of memory",
        "hanging": "timed out", "lacking": "skipped", "last": "ok",
    }  # fmt: skip
    assert cells["first", "good"]["figures"] == {"images/s": 12.5, "equal": True, "nothing": None}
    assert cells["first", "hanging"]["figures"] == {"first": 1}  # found before it hung
    assert "ValueError: no | such network" in cells["first", "raising"]["reason"]
    page = Path("out/gpu.md").read_text()
    assert "| good | 12.5 | yes | - |" in page
    assert "out of memory: RuntimeError: CUDA out of memory" in page
    assert "skipped: a package is not installed" in page
    assert "failed: ValueError: no / such network" in page  # a bar would begin another column
    # Once more: nothing is left but what another machine might do better.
    before = Path("measured").read_text()
    assert measure(STAND_INS) == cells
    assert Path("measured").read_text() == before == "good\ngood\n"


def test_again_tries_what_was_not_measured():
    measure(STAND_INS, only=["first/lacking", "first/good"])
    entries = len(Journal(Path("out/gpu.jsonl")).entries())
    measure(STAND_INS, only=["first/lacking", "first/good"], again=True)
    (_, again) = Journal(Path("out/gpu.jsonl")).entries()[entries:]
    assert again["cell"] == "lacking"


def test_only_some_cells():
    assert [name for _, name in measure(STAND_INS, SLOW, only=["first/la"])] == ["lacking", "last"]
    page = Path("out/gpu.md").read_text()
    assert "Not measured yet: good, raising, greedy, killed, hanging." in page
    assert "slow" not in page


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_cut_loses_nothing_and_the_same_command_goes_on(number):
    process = subprocess.Popen([sys.executable, "-c", COMMAND], stdout=subprocess.DEVNULL)
    journal = Journal(Path("out/gpu.jsonl"))
    while not any("figures" in entry for entry in journal.entries()):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, number)
    assert process.wait(20) == (-9 if number == signal.SIGKILL else 128 + number)
    workers = workers_of(Path("out").absolute())
    deadline = time.monotonic() + 10
    while workers and time.monotonic() < deadline:  # they see that nobody is there any more
        workers = workers_of(Path("out").absolute())
    assert not workers
    entry = journal.cells()["slow", "slow"]
    assert entry["status"] == "unfinished"
    assert entry["figures"]["step"] < 59
    if number == signal.SIGTERM:
        assert "| unfinished |" in Path("out/gpu.md").read_text()
    with journal.path.open("a") as file:
        file.write('{"part": "slow", "ce')  # as a machine that loses its power leaves it
    assert measure(SLOW)["slow", "slow"]["figures"] == {"step": 60}


def workers_of(out: Path) -> list[str]:
    """Processes whose log is in a folder."""
    return [
        path.parts[2] for path in Path("/proc").glob("[0-9]*/fd/2")
        if os.path.realpath(path) == str(out / "gpu.log")
    ]  # fmt: skip


def test_the_time_of_the_command_ends_a_cell_that_is_not_done():
    started = time.monotonic()
    cells = measure(SLOW, minutes=2.5 / 60)
    assert time.monotonic() - started < 6
    assert cells["slow", "slow"]["status"] == "unfinished"  # not `timed out`: it goes on


def test_figures_of_different_kinds_are_not_mixed(capsys):
    measure(STAND_INS, only=["first/good"])
    assert run(Options(1, Path("out"), device="cuda", tiny=True), [STAND_INS]) == 2
    assert "holds figures of device=cpu tiny=True; give another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "smoke,stap"], "--only stap: the parts are smoke, loss, step, feed, all"),
        (["--device", "cpu"], "--device cpu is for --tiny"),
    ],
)
def test_what_cannot_be_asked_for(arguments, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--out", "out", *arguments])
    assert said in capsys.readouterr().err
    assert not Path("out").exists()


def test_lines_are_json_on_their_own():
    measure(STAND_INS, only=["first/good"])
    lines = Path("out/gpu.jsonl").read_text().splitlines()
    machine, cell = map(json.loads, lines)
    assert machine["machine"]["tiny"]
    assert cell["command"].endswith("--device cpu --tiny --only 'first/good'")
