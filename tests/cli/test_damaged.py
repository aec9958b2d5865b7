"""Whatever is damaged in a run, each command that reads it says which file, and why."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY
from faults import BYTES, TEXTS
from predicting import picture


def checkpoint(change):
    """A damage of what a checkpoint holds."""

    def damage(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        torch.save(change(content), path)

    return damage


def reshaped(content: dict) -> dict:
    state = content["state_dict"]
    name = next(key for key in state if key.endswith("weight"))
    return content | {"state_dict": state | {name: torch.zeros(3)}}


CHECKPOINTS = {
    **BYTES,
    "a list": checkpoint(lambda content: [content]),
    "no weights": checkpoint(lambda content: {k: v for k, v in content.items()
                                              if k != "state_dict"}),
    "no step": checkpoint(lambda content: {k: v for k, v in content.items()
                                           if k != "global_step"}),
    "no configuration": checkpoint(lambda content: content | {"segtrain": {}}),
    "a number for the configuration": checkpoint(
        lambda content: content | {"segtrain": content["segtrain"] | {"config": 3}}
    ),
    "other shapes": checkpoint(reshaped),
}  # fmt: skip
SET = [override for override in TINY if override.startswith("dataset.source.")]
COMMANDS = {
    "evaluate": (["evaluate", "run=run"], {"run/checkpoints/best.ckpt": CHECKPOINTS}),
    "ensemble": (["evaluate", "run=GOOD", "ensemble=[run]"],
                 {"run/checkpoints/best.ckpt": CHECKPOINTS}),
    "predict": (["predict", "run=run", "input=a.png"], {"run/checkpoints/best.ckpt": CHECKPOINTS}),
    "export": (["export", "run=run", "format=safetensors"],
               {"run/checkpoints/best.ckpt": CHECKPOINTS}),
    "resume": (["resume=run", "trainer.max_steps=2"],
               {"run/checkpoints/last.ckpt": CHECKPOINTS, "run/config.yaml": TEXTS,
                "run/trial.json": TEXTS}),
    "report": (["report", "run=run", "examples=0"],
               {"run/results.json": TEXTS, "run/config.yaml": TEXTS, "run/confusion.csv": TEXTS}),
    "chain": (["chain", "resume=run"], {"run/chain.yaml": TEXTS}),
    "reproduce": (["reproduce", "resume=run"], {"run/reproduce.yaml": TEXTS}),
    "sweep": (["sweep", "resume=run"], {"run/sweep.json": TEXTS}),
    "predict exported": (["predict", "run=exported", "input=a.png"],
                         {"exported/config.json": TEXTS, "exported/model.safetensors": BYTES}),
    "predict again": (["predict", "run=GOOD", "input=a.png", "output=predicted"],
                      {"predicted/predict.yaml": TEXTS}),
    "train on shards": ([*TINY, "trainer.max_steps=1", "dataset.shards=shards"],
                        {"shards/dataset.json": TEXTS, "shards/train/index.json": TEXTS,
                         "shards/train/samples.npz": BYTES, "shards/train/00000.tar": BYTES}),
    "add to shards": (["prepare", "dataset=shapes", *SET, "shards=1", "shard_splits=[test]",
                       "output=shards"], {"shards/dataset.json": TEXTS}),
}  # fmt: skip
MADE_OF_IT = {
    "exported": ["export", "run=run", "format=safetensors", "output=exported"],
    "predicted": ["predict", "run=run", "input=a.png", "output=predicted"],
    "shards": ["prepare", "dataset=shapes", *SET, "shards=1", "shard_splits=[train,val]",
               "output=shards"],
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from segtrain.cli.main import main

    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TINY, "trainer.max_steps=1", f"hydra.run.dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def place(trained, tmp_path_factory):
    """A folder with the run and what commands make of it."""
    from segtrain.cli.main import main

    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(trained, folder / "run")
    with contextlib.chdir(folder):
        picture("a.png")
        for command in MADE_OF_IT.values():
            assert main([*command, "hydra.run.dir=log"]) == 0
    return folder


CASES = [(command, name, damage) for command, (_, files) in COMMANDS.items()
         for name, damages in files.items() for damage in damages]  # fmt: skip


# One reader serves all commands: every damage by one of them, and some by each, are enough by day.
@pytest.mark.parametrize(
    ("command", "name", "damage"),
    [
        pytest.param(*case, marks=pytest.mark.slow if number % 4 and case[0] != "predict" else ())
        for number, case in enumerate(CASES)
    ],
)
def test_one_message_that_names_the_file(segtrain, trained, place, command, name, damage):
    shutil.copytree(place, ".", dirs_exist_ok=True)
    arguments, files = COMMANDS[command]
    files[name][damage](Path(name))
    code, _, err = segtrain(*[part.replace("GOOD", str(trained)) for part in arguments])
    assert code == 2, err
    assert err.startswith("segtrain: error: ")
    assert name in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, marks=() if damage in ("cut", "no status") else pytest.mark.slow)
        for damage in ("no status", "a list", "a word", "no keys", *BYTES)
    ],
)
def test_inputs_of_a_damaged_manifest_are_predicted_anew(segtrain, place, damage):
    shutil.copytree(place, ".", dirs_exist_ok=True)
    path = Path("predicted/manifest.jsonl")
    (whole,) = path.read_text().splitlines()
    if damage in BYTES:
        BYTES[damage](path)
    else:
        lines = {"a list": "[1]", "a word": "{word}", "no keys": "{}",
                 "no status": json.dumps({**json.loads(whole), "status": None})}  # fmt: skip
        path.write_text(lines[damage] + "\n")
    code, _, err = segtrain(*MADE_OF_IT["predicted"])
    assert code == 0, err
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["outputs"] == json.loads(whole)["outputs"]
    assert json.loads(line)["message"] == json.loads(whole)["message"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, marks=() if damage == "latin-1" else pytest.mark.slow)
        for damage in TEXTS
    ],
)
@pytest.mark.parametrize("name", ["image_scores.csv", "tensorboard", "csv/metrics.csv"])
def test_a_report_does_without_what_is_damaged(segtrain, place, name, damage):
    """It is made, without pictures or curves, and says so of the file."""
    shutil.copytree(place, ".", dirs_exist_ok=True)
    if name == "csv/metrics.csv":
        shutil.rmtree("run/tensorboard")
        Path("run/csv").mkdir()
        Path("run", name).write_text("epoch,step,train/loss\n0,1,0.5\n0,2,0.25\n")
    files = list(Path("run").glob(f"{name}/events*" if name == "tensorboard" else name))
    assert files
    for path in files:
        TEXTS[damage](path)
    code, out, err = segtrain("report", "run=run", "examples=1", "trainer.accelerator=cpu")
    assert code == 0, err
    assert "Traceback" not in out + err
    assert Path("run/report.html").is_file()


@pytest.mark.parametrize("damage", TEXTS)
def test_the_table_goes_on_with_the_other_runs(segtrain, trained, damage):
    for name in ("good", "run"):
        shutil.copytree(trained, f"all/{name}")
    TEXTS[damage](Path("all/run/results.json"))
    code, out, err = segtrain("table", "runs=all", "layout=runs", "output=table.csv")
    assert code == 0, err
    assert "1 results in 1 groups, 1 folders not counted" in out
    assert "results.json" in Path("table.csv").read_text()


@pytest.mark.parametrize("damage", TEXTS)
def test_the_table_takes_a_run_with_a_damaged_configuration(segtrain, trained, damage):
    shutil.copytree(trained, "all/run")
    TEXTS[damage](Path("all/run/config.yaml"))
    code, out, err = segtrain("table", "runs=all", "layout=runs")
    assert code == 0, err
    assert "1 results in 1 groups" in out


def test_the_tests_damage_what_is_whole(trained):
    assert isinstance(yaml.safe_load((trained / "config.yaml").read_text()), dict)
    assert isinstance(json.loads((trained / "results.json").read_text()), dict)
