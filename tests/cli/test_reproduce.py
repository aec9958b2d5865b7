"""`reproduce` on the embedded shapes: one training fails, one is interrupted, the rest goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import TINY, results_of

from segtrain.cli.reproduce import arguments
from segtrain.plan.jobs import Job

SMALL = [o for o in TINY if not o.startswith(("experiment=", "architecture.backbone.name"))]


def state_of(folder: str) -> dict:
    return yaml.safe_load((Path(folder) / "reproduce.yaml").read_text())


def test_one_fails_the_rest_goes_on_and_what_is_done_is_kept(segtrain):
    code, out, err = segtrain(
        "reproduce", "experiments=[pspnet_shapes,encnet_shapes]", *SMALL,
        "pspnet_shapes:trainer.max_stepz=1", "hydra.run.dir=all",
    )  # fmt: skip
    assert code == 1
    assert "1 of 2 failed: pspnet_shapes (exit code 2)" in err
    assert "segtrain reproduce resume=" in err
    jobs = state_of("all")["jobs"]
    assert {name: (job["state"], job["exit_code"]) for name, job in jobs.items()} == {
        "pspnet_shapes": ("failed", 2), "encnet_shapes": ("done", 0),
    }  # fmt: skip
    assert "unknown key 'trainer.max_stepz'" in Path("all/pspnet_shapes.log").read_text()
    assert "all/pspnet_shapes.log" in out
    assert "step 4/4" in Path("all/encnet_shapes.log").read_text()
    score = results_of(Path("all/encnet_shapes"))["metrics"]["miou"]
    assert f"{100 * score:.2f}" in Path("all/table.md").read_text()
    assert Path("all/table.html").is_file()

    # The mistake is taken out of the file that holds the plan.
    text = Path("all/reproduce.yaml").read_text()
    Path("all/reproduce.yaml").write_text(text.replace("- pspnet_shapes:trainer.max_stepz=1\n", ""))
    before = Path("all/encnet_shapes/results.json").stat().st_mtime_ns
    code, out, err = segtrain("reproduce", "resume=all")
    assert code == 0, err
    assert {job["state"] for job in state_of("all")["jobs"].values()} == {"done"}
    assert Path("all/encnet_shapes/results.json").stat().st_mtime_ns == before
    assert results_of(Path("all/pspnet_shapes"))["global_step"] == 4


@pytest.mark.parametrize(
    ("stage", "overrides", "name"),
    [
        ("fcn16s_voc", [], "last"),  # as the authors' release
        ("fcn16s_voc", ["starts_from_checkpoint=best"], "best"),
        ("pspnet_voc_coco", [], "best"),
    ],
)
def test_a_stage_starts_from_the_checkpoint_that_its_recipe_names(
    tmp_path, stage, overrides, name
):
    folder = tmp_path / "before" / "checkpoints"
    folder.mkdir(parents=True)
    for checkpoint in ("best", "last"):
        (folder / f"{checkpoint}.ckpt").touch()
    job = Job(name=stage, experiment=stage, seed=None, after="before")
    command = arguments(job, overrides, [], tmp_path)
    assert f"weights={folder / name}.ckpt" in command


def heed_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_interrupted_and_resumed(segtrain):
    process = subprocess.Popen(
        [sys.executable, "-m", "segtrain", "reproduce", "experiments=[deeplabv3_shapes]", *SMALL,
         "seeds=[5]", "trainer.max_steps=100000", "trainer.val_every_n_steps=1000000",
         "trainer.log_every_n_steps=1", "hydra.run.dir=all"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=heed_interrupts,
    )  # fmt: skip
    log = Path("all/deeplabv3_shapes_seed5.log")
    while process.poll() is None and not (log.exists() and "step 2/" in log.read_text()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, err
    assert "Go on with: segtrain reproduce resume=" in err
    assert state_of("all")["jobs"]["deeplabv3_shapes_seed5"]["state"] == "interrupted"
    steps = [line for line in log.read_text().splitlines() if line.startswith("step ")]
    step = int(steps[-1].split()[1].partition("/")[0])

    code, _, err = segtrain("reproduce", "resume=all", f"trainer.max_steps={step + 3}",
                            "trainer.val_every_n_steps=1")  # fmt: skip
    assert code == 0, err
    results = results_of(Path("all/deeplabv3_shapes_seed5"))
    assert (results["global_step"], results["seed"]) == (step + 3, 5)
    assert log.read_text().count("step 1/") == 1  # went on, did not begin again


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["experiments=[x_shapes]"], ["'x_shapes'"]),
        (["experiments=[pspnet_shapes]", "trainer.max_stepz=1"], ["max_stepz"]),
        (["experiments=[pspnet_shapes]", "encnet_shapes:seed=1"], ["encnet_shapes"]),
        (["resume=lost"], ["lost/reproduce.yaml does not exist"]),
    ],
)
def test_mistakes(segtrain, arguments, parts):
    code, _, err = segtrain("reproduce", *arguments)
    assert code == 2
    assert all(part in err for part in parts), err
