"""Chains of experiments: their order, whole chains of two stages, interrupted ones, mistakes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, only_run, results_of

from segtrain.cli.chain import START, first_checkpoint, stages
from segtrain.configuration.folder import conf_dir
from segtrain.errors import UserError

TESTS = Path(__file__).parents[1]
SMALL = [override for override in TINY if not override.startswith("experiment=")]


def write_experiments(conf: Path, **contents: str) -> Path:
    (conf / "experiment").mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (conf / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{content}\n")
    return conf


def test_order_of_the_stages(tmp_path):
    conf = write_experiments(
        tmp_path, a="seed: 1", b="starts_from: a", c="starts_from: b", d="starts_from: null",
        derived="defaults: [c]", own="defaults: [a, c, override /dataset: voc]\nstarts_from: null",
    )  # fmt: skip
    assert stages("c", conf) == ["a", "b", "c"]
    assert stages("d", conf) == ["d"]
    assert stages("derived", conf) == ["a", "b", "derived"]
    assert stages("own", conf) == ["own"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("one", ["circle", "one <- two <- one"]),
        ("itself", ["circle", "itself <- itself"]),
        ("lost", ["unknown experiment 'oen'", "which lost starts from", "nearest: one"]),
        ("onne", ["unknown experiment 'onne'", "nearest: one"]),
    ],
)
def test_stages_that_cannot_be_found(tmp_path, name, parts):
    conf = write_experiments(
        tmp_path, one="starts_from: two", two="starts_from: one",
        itself="starts_from: itself", lost="starts_from: oen",
    )  # fmt: skip
    with pytest.raises(UserError) as caught:
        stages(name, conf)
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["experiment=<name>", "resume=<folder"]),
        (["experiment=quickstart", "resume=x"], ["give one of"]),
        (["-m", "experiment=quickstart", "seed=1,2"], ["chain takes no -m"]),
        (["experiment=quickstrt"], ["unknown experiment 'quickstrt'", "nearest: quickstart"]),
        (["experiment=quickstart", "quick:seed=1"], ["quick:seed=1", "stages are quickstart"]),
        (["experiment=quickstart", "hydra.run.dir=full"], ["full is not empty"]),
        (["resume=full"], ["full/chain.yaml", "a chain's folder"]),
    ],
)
def test_mistakes(segtrain, arguments, parts):
    Path("full").mkdir()
    Path("full/file").touch()
    code, _, err = segtrain("chain", *arguments)
    assert code == 2
    assert err.startswith("segtrain: error: ")
    assert all(part in err for part in parts), err
    assert not Path("outputs").exists()


def test_no_chain_under_torchrun(segtrain, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", "0")
    assert segtrain("chain", "experiment=quickstart")[0] == 2


@pytest.fixture
def installed(tmp_path):
    """A copy of the package with two more experiments, `second` from `first`; starts commands."""
    site = tmp_path / "site"
    shutil.copytree(conf_dir().parent / "segtrain", site / "segtrain",
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    shutil.copytree(conf_dir(), site / "conf")
    first = "defaults: [quickstart]\nseed: 3"
    second = "defaults: [quickstart]\nstarts_from: first\noptimizer: {lr: 0.0}"
    write_experiments(site / "conf", first=first, second=second)
    environment = {**os.environ, "PYTHONPATH": f"{site}:{TESTS}", "OMP_NUM_THREADS": "1"}

    def start(*arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "segtrain", *arguments],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=heed_interrupts,
        )  # fmt: skip

    return start


def heed_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finished(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.terminate()  # hands it on to the stage
        raise
    return process.returncode, out, err


def parameters(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    return {name: tensor for name, tensor in state.items() if name.endswith("weight")}


def assert_second_started_from_first(folder: Path) -> None:
    """The second stage's learning rate is 0."""
    first, second = parameters(folder / "1_first"), parameters(folder / "2_second")
    assert first
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.fixture
def two_checkpoints(tmp_path, monkeypatch):
    """A run with a best and a last checkpoint, and recipes that start from either."""
    conf = write_experiments(
        tmp_path / "conf", plain="starts_from: a", late=f"{START}: last",
        derived="defaults: [late]", own=f"defaults: [late]\n{START}: best",
    )  # fmt: skip
    monkeypatch.setattr("segtrain.cli.chain.conf_dir", lambda: conf)
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("best", "last"):
        (folder / f"{name}.ckpt").touch()
    return folder.parent


@pytest.mark.parametrize(
    ("stage", "overrides", "name"),
    [
        ("plain", [], "best"),
        ("late", [], "last"),
        ("derived", [], "last"),
        ("own", [], "best"),
        ("late", [f"{START}=best"], "best"),
        ("plain", [f"plain:{START}=last"], "last"),
        ("plain", [f"late:{START}=last"], "best"),
    ],
)
def test_a_stage_starts_from_the_checkpoint_that_its_recipe_names(
    two_checkpoints, stage, overrides, name
):
    found = first_checkpoint(two_checkpoints, stage, overrides)
    assert found == two_checkpoints / "checkpoints" / f"{name}.ckpt"


def test_a_stage_starts_from_the_last_checkpoint_where_none_is_best(two_checkpoints):
    (two_checkpoints / "checkpoints" / "best.ckpt").unlink()
    assert first_checkpoint(two_checkpoints, "plain", []).name == "last.ckpt"
    (two_checkpoints / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match=r"no checkpoint: .*best\.ckpt and .*last\.ckpt do not"):
        first_checkpoint(two_checkpoints, "plain", [])


def test_no_such_checkpoint_of_a_stage(two_checkpoints):
    with pytest.raises(UserError, match=f"{START}=worst: expected best or last"):
        first_checkpoint(two_checkpoints, "plain", [f"{START}=worst"])


def test_a_chain_of_two_stages(installed, segtrain):
    code, out, err = finished(
        installed("chain", "experiment=second", *SMALL, "trainer.max_steps=2",
                  "first:trainer.max_steps=3", "trainer.val_every_n_steps=1")
    )  # fmt: skip
    assert code == 0, err
    folder = only_run("outputs/second/*")
    assert {path.name for path in folder.iterdir()} == {
        "chain.yaml", "1_first", "2_second", "results.json", "checkpoints"
    }  # fmt: skip
    first, second = results_of(folder / "1_first"), results_of(folder / "2_second")
    assert (first["global_step"], second["global_step"]) == (3, 2)
    assert (first["experiment"], second["experiment"]) == ("first", "second")
    assert_second_started_from_first(folder)
    assert "this recipe starts from" not in out
    last_lines = out.splitlines()[-6:]
    for stage, outcome in (("1_first", first), ("2_second", second)):
        (line,) = [line for line in last_lines if stage in line]
        assert line.split()[1] == f"{100 * outcome['metrics']['miou']:.2f}"
        assert "shapes test" in line
    # The folder reads as the last stage's run, also where it was moved to.
    assert results_of(folder) == second
    moved = folder.rename("moved")
    code, _, err = segtrain(
        "evaluate", f"run={moved}", "hydra.run.dir=again", "trainer.accelerator=cpu"
    )
    assert code == 0, err
    assert results_of(Path("again"))["metrics"] == second["metrics"]


@pytest.mark.slow
def test_interrupted_and_resumed(installed):
    """SIGINT to the chain saves the running stage; what is done is not done again."""
    chain = installed(
        "chain", "experiment=second", *SMALL, "hydra.run.dir=it's one", "first:trainer.max_steps=2",
        "second:trainer.max_steps=100000", "trainer.val_every_n_steps=1000000",
        "trainer.checkpoint_every_n_steps=1000000", "trainer.log_every_n_steps=1",
    )  # fmt: skip
    folder = Path("it's one")
    log = folder / "2_second/run.log"
    while chain.poll() is None and not (log.exists() and "step 2/" in log.read_text()):
        time.sleep(0.1)
    chain.send_signal(signal.SIGINT)
    code, _, err = finished(chain)
    assert code == 128 + signal.SIGTERM, err
    assert "stopped by SIGTERM" in err
    assert "stage 2 of 2, second, ended with exit code 143" in err
    assert f"segtrain chain resume={folder}" in err
    assert not (folder / "results.json").exists()
    saved = torch.load(folder / "2_second/checkpoints/last.ckpt", weights_only=True)
    step = saved["global_step"]
    assert step >= 2
    done = (folder / "1_first/results.json").stat().st_mtime_ns

    code, out, err = finished(
        installed("chain", f"resume={folder}", f"second:trainer.max_steps={step + 2}",
                  "trainer.val_every_n_steps=1")
    )  # fmt: skip
    assert code == 0, err
    assert "stage 1 of 2" not in out
    assert (folder / "1_first/results.json").stat().st_mtime_ns == done
    assert results_of(folder)["global_step"] == step + 2
    assert_second_started_from_first(folder)
    plan = yaml.safe_load((folder / "chain.yaml").read_text())
    assert plan["overrides"][-1] == "trainer.val_every_n_steps=1"
    assert finished(installed("chain", f"resume={folder}"))[0] == 0  # nothing is left to do


def test_a_failed_stage_ends_the_chain(installed):
    code, _, err = finished(
        installed("chain", "experiment=second", *SMALL, "first:trainer.max_stepz=1")
    )
    assert code == 2
    assert "trainer.max_stepz" in err
    assert "stage 1 of 2, first, ended with exit code 2" in err
    folder = only_run("outputs/second/*")
    assert not (folder / "2_second").exists()


def test_a_recipe_alone_says_what_it_starts_from(segtrain):
    code, out, _ = segtrain(*TINY, "trainer.max_steps=1", "starts_from=fcn16s_voc")
    assert code == 0
    assert "starts from fcn16s_voc" in out
    assert "segtrain chain experiment=quickstart" in out
