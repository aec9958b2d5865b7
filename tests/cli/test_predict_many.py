"""`segtrain predict` of many inputs: shared out, killed, resumed, and every output exactly once."""

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from predicting import picture, write_run, write_video
from processes import children, end, kill, start

from segtrain.cli import predict
from segtrain.writing import complete

ENDINGS = (".png", "_overlay.jpg", ".json")
TWO = ("trainer.accelerator=cpu", "trainer.devices=2", "num_workers=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "semantic")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Another network for the same classes."""
    return write_run(
        tmp_path_factory.mktemp("runs") / "other", "architecture=fcn_torchvision", "dataset=shapes"
    )


def manifest(folder="out") -> dict[str, dict]:
    """The lines by name, each of which is there once."""
    lines = [json.loads(line) for line in Path(folder, "manifest.jsonl").read_text().splitlines()]
    found = {line["name"]: line for line in lines}
    assert len(found) == len(lines)
    assert not Path(folder, "manifest.parts").exists()
    return found


def so_far(folder="out") -> dict[str, dict]:
    """Lines of a prediction in work, whole ones."""
    found = {}
    for path in [Path(folder, "manifest.jsonl"), *Path(folder).glob("manifest.parts/[0-9].jsonl")]:
        if path.is_file():
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    entry = json.loads(line)
                    assert entry["name"] not in found
                    found[entry["name"]] = entry
    return found


def times(entries: dict[str, dict], folder="out") -> dict[str, int]:
    """When the outputs of predicted inputs were written."""
    return {name: os.stat(Path(folder, name)).st_mtime_ns
            for entry in entries.values() for name in entry["outputs"]}  # fmt: skip


def outputs(folder="out") -> set[str]:
    found = {path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()}
    return {str(path) for path in found if path.name[0] != "."} - {"manifest.jsonl", "predict.yaml"}


def await_lines(count: int, process) -> None:
    """Until a prediction that has just been started has written so many lines."""
    started = time.time()
    while process.poll() is None:
        folder = Path("out/manifest.parts")
        with contextlib.suppress(FileNotFoundError):  # until rank zero has begun
            if (folder / "inputs.jsonl").stat().st_mtime > started:
                lines = [part.read_bytes().count(b"\n") for part in folder.glob("[0-9].jsonl")]
                if sum(lines) >= count:
                    return
        time.sleep(0.005)
    raise AssertionError(process.communicate())


def ranks(process) -> dict[int, int]:
    """Rank -> process id of those that a command has started."""
    found = {}
    for pid in children(process.pid):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        for variable in variables:
            if variable.startswith(b"RANK="):
                found.setdefault(int(variable[5:]), pid)  # before its loader workers
    return found


def assert_whole(entries: dict[str, dict]) -> None:
    """Nothing is half: what bears a result's name can be read, and what a line names is there."""
    for name in outputs():
        if name.endswith(".json"):
            json.loads(Path("out", name).read_text())
        elif not name.startswith("manifest"):
            Image.open(Path("out", name)).load()
    for entry in entries.values():
        assert all(Path("out", name).is_file() for name in entry["outputs"])


def test_killed_and_resumed_on_other_numbers_of_processes(segtrain, run):
    names = [f"{number % 3}/{number // 3:03}" for number in range(60)]
    for seed, name in enumerate(names):
        picture(f"in/{name}.png", seed=seed)
    Path("in/1/broken.jpg").write_text("a poem")
    command = ["predict", f"run={run}", "input=in", "device=cpu"]
    code, _, err = segtrain(*command, "output=whole")
    assert code == 1
    assert "1 of 61 inputs were skipped" in err
    command += ["output=out"]
    kept: dict[str, int] = {}
    for number, victim in ((signal.SIGKILL, "all"), (signal.SIGTERM, "launcher")):
        process = start("-m", "segtrain", *command, *TWO)
        await_lines(6, process)
        if victim == "all":
            kill(process)
        else:
            os.kill(process.pid, number)
            code, _, err = end(process, timeout=60)
            assert code == 128 + number
            assert "Traceback" not in err
            assert "stopped by SIGTERM after " in err
            assert "the same command goes on with the others" in err
        entries = so_far()
        assert 6 <= len(entries) < 60
        assert_whole(entries)
        assert kept.items() <= times(entries).items()  # nothing is done twice
        kept |= times(entries)
    code, out, err = segtrain(*command)
    assert code == 1
    assert "of 61 inputs are finished in out" in out
    assert "skipped     in/1/broken.jpg" in out
    assert outputs() == outputs("whole") == {name + end for name in names for end in ENDINGS}
    assert kept.items() <= times(manifest()).items()
    for name in outputs():
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()
    assert manifest() == manifest("whole")
    assert Counter(entry["status"] for entry in manifest().values()) == {"ok": 60, "failed": 1}
    assert manifest()["0/000"] == {
        "name": "0/000", "input": str(Path("in/0/000.png").resolve()), "status": "ok",
        "message": manifest()["0/000"]["message"], "outputs": [f"0/000{e}" for e in ENDINGS],
        "width": 64, "height": 48, "bytes": os.path.getsize("in/0/000.png"),
        "modified": os.path.getmtime("in/0/000.png"),
    }  # fmt: skip


def test_what_is_finished_and_what_is_done_again(segtrain, run):
    for name in "abcdef":
        picture(f"in/{name}.png", seed=ord(name))
    write_video("in/v.mp4", count=2)
    Path("in/g.jpg").write_text("a poem")
    command = ["predict", f"run={run}", "input=in", "output=out", "device=cpu"]
    assert segtrain(*command)[0] == 1
    before = times(manifest())
    picture("in/g.jpg")  # mended
    picture("in/b.png", seed=9)  # another picture
    os.utime("in/b.png", (1, 1))
    Path("out/c_overlay.jpg").unlink()
    Path("out/d.json").write_text("")  # as after a power cut
    with Path("out/manifest.jsonl").open("a") as file:
        file.write('{"name": "torn", "inp')
    picture("in/new.png")
    code, out, err = segtrain(*command)
    assert code == 0, err
    assert "goes on     4 of 9 inputs are finished in out" in out
    assert "(5 predicted, 4 were there)" in out
    after = times(manifest())
    again = {name.partition(".")[0].partition("_")[0] for name in after
             if before.get(name) != after[name]}  # fmt: skip
    assert again == {"b", "c", "d", "g", "new"}
    assert set(manifest()) == {*"abcdefgv", "new"}
    # One more input of another folder joins what is there.
    picture("more/h.png")
    assert segtrain(*command, "input=more")[0] == 0
    assert set(manifest()) == {*"abcdefghv", "new"}
    assert times(manifest()).items() >= after.items()


def test_results_of_other_settings_are_refused(segtrain, run, other):
    picture("in/a.png")
    command = ["predict", "input=in", "output=out", "device=cpu"]
    assert segtrain(*command, f"run={run}")[0] == 0
    before = times(manifest())
    for changed, shown in (
        ([f"run={run}", "max_pixels=99"], "(max_pixels: 4000000 there, 99 now)"),
        ([f"run={run}", "classes=[star]"], '(classes: [] there, ["star"] now)'),
        ([f"run={run}", "inference=multiscale"], "(inference: {"),
        ([f"run={other}"], f"(network: {run}/checkpoints/best.ckpt ("),
    ):
        code, _, err = segtrain(*command, *changed)
        assert code == 2
        assert "out holds results of other settings" in err
        assert shown in err
        assert "overwrite=true" in err
    assert times(manifest()) == before
    # Where the file lies, and how it is computed, are no settings.
    copied = run.rename(run.with_name("moved"))
    assert segtrain(*command, f"run={copied}", "batch_size=2", "num_workers=1")[0] == 0
    copied.rename(run)
    assert times(manifest()) == before
    code, _, err = segtrain(*command, f"run={run}", "max_pixels=99", "overwrite=true")
    assert code == 0, err
    assert times(manifest()).keys() == before.keys()
    assert not times(manifest()).items() & before.items()


def test_lists_folders_and_patterns_together(segtrain, run):
    for seed, name in enumerate(("x/a.png", "y/a.png", "y/z/a.png", "w/a.jpg", "w/b.jpg")):
        picture(f"in/{name}", seed=seed)
    Path("list.txt").write_text("in/x/a.png\nin/y\n\nin/x/a.png\nin/x/../x/a.png\n")
    code, _, err = segtrain("predict", f"run={run}", "input=[list.txt,in/w/a*]", "output=out")
    assert code == 0, err
    assert outputs() == {n + end for n in ("x/a", "y/a", "y/z/a", "w/a") for end in ENDINGS}
    for name in ("x/a", "y/a", "y/z/a"):
        said = json.loads(Path("out", name + ".json").read_text())
        assert said["input"] == f"in/{name}.png"


def test_a_video_called_manifest(segtrain, run):
    Path("in").mkdir()
    write_video("in/manifest.mp4", count=2)
    assert segtrain("predict", f"run={run}", "input=in", "output=out")[0] == 0
    assert outputs() == {"manifest.mp4.jsonl", "manifest.mp4_overlay.mp4"}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_mixed_sizes(segtrain, run, workers):
    for seed in range(11):
        picture(f"in/{seed:02}.png", seed=seed, size=((64, 48), (40, 40), (90, 80))[seed % 5 // 2])
    Path("in/05.png").write_text("a poem")
    one, several = ["predict", f"run={run}", "input=in"], ["batch_size=4", f"num_workers={workers}"]
    one += ["max_pixels=7000"]
    assert segtrain(*one, "output=one")[0] == 1
    assert segtrain(*one, "output=out", *several)[0] == 1
    assert outputs() == outputs("one")
    for name in manifest():
        if name != "05":
            labels = [np.asarray(Image.open(f"{folder}/{name}.png")) for folder in ("one", "out")]
            assert (labels[0] == labels[1]).mean() > 0.999


def test_signal_in_one_process(segtrain, run, monkeypatch):
    for seed in range(5):
        picture(f"in/{seed}.png", seed=seed)
    save, before = predict.save, signal.getsignal(signal.SIGTERM)

    def strike(prediction, predictor, one, *arguments):
        if one.stem == "2":
            os.kill(os.getpid(), signal.SIGTERM)
        return save(prediction, predictor, one, *arguments)

    monkeypatch.setattr(predict, "save", strike)
    code, _, err = segtrain("predict", f"run={run}", "input=in", "output=out")
    assert code == 143
    assert "stopped by SIGTERM after 3 of 5 inputs; the same command goes on" in err
    assert len(outputs() - {"manifest.parts/inputs.jsonl", "manifest.parts/0.jsonl"}) == 9
    code, _, err = segtrain("predict", f"run={run}", "input=in")
    assert code == 143
    assert "the same command with output=" in err
    assert signal.getsignal(signal.SIGTERM) == before


def test_two_commands_do_not_write_into_one_folder(segtrain, run, monkeypatch):
    monkeypatch.setattr("segtrain.cli.manifest.PATIENCE", 0.2)
    picture("in/a.png")
    Path("out").mkdir()
    code = "import fcntl, time; f = open('out/.manifest.lock', 'a+'); " \
        "fcntl.lockf(f, fcntl.LOCK_SH); print(1, flush=True); time.sleep(600)"  # fmt: skip
    holder = start("-c", code)
    assert holder.stdout.readline()
    command = ["predict", f"run={run}", "input=in", "output=out"]
    code, _, err = segtrain(*command)
    assert code == 2
    assert "another process is writing results there" in err
    kill(holder)
    assert segtrain(*command)[0] == 0


@pytest.mark.slow
def test_orphans_end(run):
    for seed in range(200):
        picture(f"in/{seed:03}.png", seed=seed)
    process = start("-m", "segtrain", "predict", f"run={run}", "input=in", "output=out", *TWO)
    await_lines(4, process)
    started = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.communicate()
    assert len(so_far()) < 200


def test_files_are_whole_or_not_there(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("old", "new"):
        with complete(path) as partial:
            partial.write_text(text)
        assert path.read_text() == text

    def fail():
        with complete(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_restarted_by_itself(run):
    for seed in range(100):
        picture(f"in/{seed:03}.png", seed=seed)
    Path("in/broken.jpg").write_text("a poem")
    command = [
        "-m",
        "segtrain",
        "predict",
        f"run={run}",
        "input=in",
        *TWO,
        "trainer.max_restarts=2",
    ]
    process = start(*command)
    code, _, err = end(process)
    assert code == 2
    assert "restarts need output=<folder>" in err
    process = start(*command, "output=out", "overwrite=true")
    await_lines(6, process)
    os.kill(ranks(process)[1], signal.SIGKILL)
    kept = times(so_far())
    code, out, err = end(process)
    assert code == 0, err
    assert "1 of 101 inputs were skipped" in out
    assert len(manifest()) == 101
    assert len(kept) >= 18
    assert kept.items() <= times(manifest()).items()


def memory(process) -> dict[int, int]:
    """Resident bytes of a command and of all that it has started, by process."""
    found = {}
    for pid in [process.pid, *children(process.pid)]:
        with contextlib.suppress(OSError, IndexError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found[pid] = pages * os.sysconf("SC_PAGE_SIZE")
    return found


@pytest.mark.slow
def test_ten_thousand(run):
    """Two processes, killed twice, resumed: every output exactly once, memory flat."""
    count = 10_000
    rng = np.random.default_rng(0)
    for number in range(count):
        folder = Path(f"in/{number % 10}")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(folder / f"{number:05}.png")
    command = ["-m", "segtrain", "predict", f"run={run}", "input=in", "output=out", *TWO]
    kept: dict[str, int] = {}
    for lines in (1500, 1000):
        process = start(*command)
        await_lines(lines + random.Random(lines).randrange(100), process)
        kill(process)
        entries = so_far()
        assert kept.items() <= times(entries).items()
        kept |= times(entries)
    process = start(*command)
    await_lines(1, process)
    started = time.monotonic()
    samples = []
    while process.poll() is None:
        samples.append(memory(process))
        time.sleep(0.5)
    seconds = time.monotonic() - started
    code, out, err = end(process)
    assert code == 0, err
    assert f"({count - len(kept) // 3} predicted, {len(kept) // 3} were there)" in out
    found = manifest()
    assert len(found) == count
    assert {entry["status"] for entry in found.values()} == {"ok"}
    expected = {f"{n % 10}/{n:05}{ending}" for n in range(count) for ending in ENDINGS}
    assert outputs() == expected
    assert kept.items() <= times(found).items()
    totals = [sum(sample.values()) for sample in samples[:-2]]  # the end takes processes away
    second, last = totals[len(totals) // 4 : len(totals) // 2], totals[3 * len(totals) // 4 :]
    print(
        f"{count - len(kept) // 3} in {seconds:.0f} s; MiB of all processes: "
        f"{max(second) / 2**20:.0f} in the second quarter, {max(last) / 2**20:.0f} in the last"
    )
    assert max(last) <= 1.1 * max(second)
