"""Whatever is damaged in a run, each command that reads it says which file, and why."""

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
COMMANDS = {
    "evaluate": (["evaluate", "run=run"], {"checkpoints/best.ckpt": CHECKPOINTS}),
    "ensemble": (["evaluate", "run=GOOD", "ensemble=[run]"],
                 {"checkpoints/best.ckpt": CHECKPOINTS}),
    "predict": (["predict", "run=run", "input=a.png"], {"checkpoints/best.ckpt": CHECKPOINTS}),
    "export": (["export", "run=run", "format=safetensors"],
               {"checkpoints/best.ckpt": CHECKPOINTS}),
    "resume": (["resume=run", "trainer.max_steps=2"],
               {"checkpoints/last.ckpt": CHECKPOINTS, "config.yaml": TEXTS, "trial.json": TEXTS}),
    "report": (["report", "run=run", "examples=0"], {"results.json": TEXTS, "config.yaml": TEXTS}),
    "chain": (["chain", "resume=run"], {"chain.yaml": TEXTS}),
    "reproduce": (["reproduce", "resume=run"], {"reproduce.yaml": TEXTS}),
    "sweep": (["sweep", "resume=run"], {"sweep.json": TEXTS}),
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from segtrain.cli.main import main

    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TINY, "trainer.max_steps=1", f"hydra.run.dir={folder}"]) == 0
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
def test_one_message_that_names_the_file(segtrain, trained, command, name, damage):
    shutil.copytree(trained, "run")
    picture("a.png")
    arguments, files = COMMANDS[command]
    files[name][damage](Path("run", name))
    code, _, err = segtrain(*[part.replace("GOOD", str(trained)) for part in arguments])
    assert code == 2, err
    assert err.startswith("segtrain: error: ")
    assert f"run/{name}" in err
    assert "Traceback" not in err


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
