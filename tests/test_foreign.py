"""Files that come from elsewhere run nothing, whichever command opens them."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY
from PIL import Image

from segtrain.errors import UserError
from segtrain.foreign import admit, admit_overrides, own_names, read_checkpoint, read_yaml

HOSTILE = {"_target_": "os.mkdir", "path": "SEEN"}
# Where it can stand in a configuration; what loads it builds some of these places and not others.
PLACES = {
    "architecture": lambda c, x: c["architecture"]["backbone"]["timm_arguments"].update(x=x),
    "inference": lambda c, x: c["inference"].update(scales=x),
    "dataset": lambda c, x: c["dataset"]["labels"].update(x=x),
    "list": lambda c, x: c["dataset"]["transform"].update(crop_size=[x, 32]),
    "tuple": lambda c, x: c["architecture"].update(rates=(6, (x,))),
    "callback": lambda c, x: c["callback"].update(x=x),
    "loss": lambda c, x: c["loss"].update(x=x),
    "key": lambda c, x: c.update({("_target_", "os.mkdir"): x}),
    "unknown": lambda c, x: c.update(comment={"deep": [{"er": x}]}),
    "import": lambda c, x: c["dataset"].update(
        labels={"_target_": "hydra.utils.get_object", "path": "os.environ"}
    ),
    "resolver": lambda c, x: c["architecture"].update(
        backbone="${oc.create:{_target_:os.mkdir,path:SEEN}}"
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, which the tests copy and spoil."""
    from segtrain.cli.main import main

    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TINY, "trainer.max_steps=1", f"hydra.run.dir={folder}"]) == 0
    return folder


def spoilt(trained: Path, place: str) -> Path:
    """A copy whose checkpoints and config.yaml are hostile."""
    run = Path("run")
    shutil.copytree(trained, run)
    for file in (run / "checkpoints").iterdir():
        content = torch.load(file, weights_only=True)
        PLACES[place](content["segtrain"]["config"], dict(HOSTILE))
        torch.save(content, file)
    config = yaml.safe_load((run / "config.yaml").read_text())
    PLACES[place](config, dict(HOSTILE))
    if place not in ("tuple", "key"):  # which YAML itself refuses to read
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    else:
        (run / "config.yaml").write_text(yaml.dump(config))
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("a.png")
    return run


COMMANDS = {
    "predict": ["predict", "run=run", "input=a.png"],
    "predict a checkpoint": ["predict", "checkpoint=run/checkpoints/last.ckpt", "input=a.png"],
    "export": ["export", "run=run", "format=safetensors"],
    "evaluate": ["evaluate", "run=run"],
    "evaluate with another protocol": ["evaluate", "run=run", "dataset=shapes", "inference=whole"],
    "ensemble": ["evaluate", "run=GOOD", "ensemble=[run]"],
    "resume": ["resume=run", "trainer.max_steps=2"],  # is done otherwise
    "report": ["report", "run=run"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["tuple", "unknown"])
def test_every_command_refuses(segtrain, trained, command, place):
    run = spoilt(trained, place)
    arguments = [part.replace("GOOD", str(trained)) for part in COMMANDS[command]]
    code, _, err = segtrain(*arguments)
    assert code == 2, err
    assert str(run) in err
    assert not Path("SEEN").exists()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_every_place_is_looked_at(segtrain, trained, command, place):
    spoilt(trained, place)
    code, _, err = segtrain(*COMMANDS[command])
    assert code == 2, err
    assert not Path("SEEN").exists()


def test_exported_folders(segtrain, trained):
    assert segtrain("export", f"run={trained}", "format=safetensors", "output=model")[0] == 0
    config = json.loads(Path("model/config.json").read_text())
    PLACES["architecture"](config, dict(HOSTILE))
    Path("model/config.json").write_text(json.dumps(config))
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save("a.png")
    code, _, err = segtrain("predict", "model=model", "input=a.png")
    assert code == 2
    assert "model names os.mkdir, which is not part of segtrain" in err
    assert not Path("SEEN").exists()


RECORDS = {
    "chain": ("chain.yaml", {"stages": ["quickstart"], "overrides": ["OVERRIDE"]}),
    "reproduce": ("reproduce.yaml", {"experiments": ["quickstart"], "seeds": [1], "evaluate": True,
                                     "overrides": ["OVERRIDE"], "jobs": {}}),
    "sweep": ("sweep.json", {"command": "train", "overrides": ["OVERRIDE"], "swept": [],
                             "jobs": []}),
}  # fmt: skip


@pytest.mark.parametrize("command", RECORDS)
@pytest.mark.parametrize(
    "override",
    ["+callback.x={_target_:os.mkdir,path:SEEN}", "callback.x.'_target_'=os.mkdir",
     "seed=${oc.create:x}", "--config-dir=elsewhere", "hydra.searchpath=[file:///elsewhere]"],
)  # fmt: skip
def test_records_of_orchestrators(segtrain, command, override):
    name, content = RECORDS[command]
    Path("all").mkdir()
    text = json.dumps(content).replace("OVERRIDE", override)  # which YAML reads too
    (Path("all") / name).write_text(text)
    code, _, err = segtrain(command, "resume=all")
    assert code == 2, err
    assert "which may run code from elsewhere" in err or "holds the reference" in err
    assert not Path("SEEN").exists()


def test_pruner_of_a_resumed_trial(segtrain, trained):
    shutil.copytree(trained, "run")
    trial = {"storage": "sqlite:///x.db", "study": "x", "trial": 0, "pruner": HOSTILE}
    Path("run/trial.json").write_text(json.dumps(trial))
    code, _, err = segtrain("resume=run", "trainer.max_steps=2")
    assert code == 2
    assert "names os.mkdir" in err
    assert not Path("SEEN").exists()


def test_trusted_files_may(segtrain, trained):
    spoilt(trained, "unknown")
    assert segtrain("evaluate", "run=run", "trust_code=true")[0] == 0
    assert segtrain("report", "run=run", "trust_code=true", "examples=0")[0] == 0
    assert segtrain("resume=run", "trainer.max_steps=2", "trust_code=true")[0] == 0


def test_what_conf_names_is_admitted():
    assert "segtrain.architecture.semantic.deeplabv3.DeepLabv3" in own_names()
    assert "segtrain.dataset.labels.VOC" in own_names()
    assert not {name for name in own_names() if name.startswith(("os.", "builtins."))}
    node = {"_target_": "segtrain.architecture.semantic.deeplabv3.DeepLabv3", "rates": (6, 12)}
    assert admit(node, "x") == node | {"rates": [6, 12]}
    assert admit_overrides(["optimizer.lr=1", "hydra.launcher.n_jobs=2"], "x")


@pytest.mark.parametrize("text", ["&a [*a]", "{a: &a {b: *a}}"])
def test_a_file_inside_itself(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match="inside themselves"):
        read_yaml(file)


def test_a_file_that_grows(tmp_path):
    file = tmp_path / "config.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    file.write_text("\n".join(lines))
    with pytest.raises(UserError, match="1,000,000 values"):
        read_yaml(file)


def test_a_checkpoint_that_inflates(tmp_path, segtrain, trained):
    file = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (20 << 20))
    with pytest.raises(UserError, match="20,971,520"):
        read_checkpoint(file, "checkpoint")
    run = Path("run")
    shutil.copytree(trained, run)
    shutil.copy(file, run / "checkpoints/last.ckpt")
    for arguments in (["evaluate", f"checkpoint={file}"], [*TINY, f"weights={file}"],
                      ["resume=run", "trainer.max_steps=2"]):  # fmt: skip
        code, _, err = segtrain(*arguments)
        assert code == 2
        assert "20,971,520" in err


class Writes:
    def __reduce__(self):
        return (exec, ("import os; os.mkdir('SEEN')",))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code(tmp_path, zipped):
    file = tmp_path / "pickle.ckpt"
    torch.save({"state_dict": Writes()}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_checkpoint(file, "checkpoint")
    assert not Path("SEEN").exists()
