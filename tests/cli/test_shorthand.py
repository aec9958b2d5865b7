"""Short forms of keys: what they stand for in every command, and what they refuse."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TINY, architectures, choices, composed, only_run, write_pair
from hydra.core.override_parser.overrides_parser import OverridesParser

from segtrain.cli.choosing import Chosen
from segtrain.cli.collect import collected
from segtrain.cli.main import COMMANDS
from segtrain.cli.paths import with_literal_paths
from segtrain.cli.shorthand import expand
from segtrain.configuration.aliases import ALIASES, OTHER_NAMES, SIDES, meant
from segtrain.configuration.folder import conf_dir, options
from segtrain.configuration.messages import keys_of
from segtrain.loading import load
from segtrain.prepare import recognition

PAIRS = [(alias, command) for alias, commands in ALIASES.items() for command in commands]
# Of the others: a number.
VALUES = {"data": "shapes", "model": "pspnet", "name": "leaves", "multilabel": "true"}
COMPOSED = ["train", "evaluate", "predict", "report", "benchmark", "prepare"]
NEEDED = {"report": ["run=."]}


def base(command: str) -> str:
    """The command in whose configuration the keys of another lie."""
    return command if command in COMPOSED else "train"


@pytest.mark.parametrize(("alias", "command"), PAIRS)
def test_every_short_form_is_a_key_of_its_command(alias, command):
    assert command in COMMANDS
    key = ALIASES[alias][command]
    if key == "hydra.run.dir":
        return
    known = composed(*NEEDED.get(command, []), command=base(command))
    assert key in set(keys_of(known)) or options(key), (alias, command)


@pytest.mark.parametrize("alias", ALIASES)
def test_no_short_form_hides_a_key_or_a_group(alias):
    for command in ALIASES[alias]:
        file = conf_dir() / f"{base(command)}.yaml"
        own = conf_dir() / f"{command}.yaml"
        for content in (yaml.safe_load(one.read_text()) for one in (file, own) if one.is_file()):
            assert alias not in content
        assert not options(alias)


@pytest.mark.parametrize(("alias", "command"), PAIRS)
def test_a_short_form_becomes_its_full_key(alias, command, capsys):
    value = VALUES.get(alias, "7")
    typed = f"{alias}={value}"
    with_data = ["data=shapes"] if alias == "size" and command in ALIASES["data"] else []
    overrides = expand(command, [typed, *with_data])
    shown = {"size": "[7,7]" if command != "predict" else "7", "multilabel": "multilabel"}
    shown = shown.get(alias, value)
    key = ALIASES[alias][command]
    expected = f"hydra.run.dir=outputs/{value}/" if alias == "name" else f"{key}={shown}"
    assert any(override.startswith(expected) for override in overrides), overrides
    if (alias, command) == ("name", "train"):
        assert f"hydra.sweep.dir=outputs/multirun/{value}/${{now:%Y-%m-%d_%H-%M-%S}}" in overrides
    assert typed not in overrides
    assert f"{typed}  ->  " in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_other_commands_take_no_short_form(command):
    typed = [f"{alias}=7" for alias in ALIASES if command not in ALIASES[alias]]
    assert expand(command, typed) == typed


def test_words_of_other_programs_lead_to_keys():
    for other, alias in OTHER_NAMES.items():
        assert other not in ALIASES
        assert meant(other) == meant(alias) != ()


LONG = [
    (["model=pspnet", "dataset=shapes", "lr=0.5", "batch=2", "epochs=3", "size=64", "workers=1"],
     ["architecture=pspnet", "dataset=shapes", "optimizer.lr=0.5", "batch_size=2",
      "trainer.max_epochs=3", "trainer.max_steps=null",
      "dataset.transform.crop_size=[64,64]", "dataset.num_workers=1"]),
    (["experiment=quickstart", "epochs=3", "size=[64,32]", "devices=2", "backbone=resnet18"],
     ["experiment=quickstart", "trainer.max_epochs=3", "trainer.max_steps=null",
      "dataset.transform.crop_size=[64,32]", "trainer.devices=2",
      "architecture.backbone.name=resnet18"]),
    (["experiment=deeplabv3_folder", "steps=5", "size=64,32"],
     ["experiment=deeplabv3_folder", "trainer.max_epochs=null", "trainer.max_steps=5",
      "dataset.transform.crop_size=[64,32]"]),
    (["experiment=mask_rcnn_shapes", "size=96"],
     ["experiment=mask_rcnn_shapes", "dataset.transform.short_side=[96,96]",
      "dataset.transform.long_side=160"]),
    (["experiment=mask_rcnn_coco2017_lsj_400", "size=96"],
     ["experiment=mask_rcnn_coco2017_lsj_400", "dataset.transform.short_side=[96,96]",
      "dataset.transform.long_side=160", "dataset.transform.scale_jitter.crop_size=[96,96]"]),
    (["experiment=fpn_shapes", "size=128,96", "data=shapes_instances"],
     ["experiment=fpn_shapes", "dataset=shapes_instances",
      "dataset.transform.short_side=[96,96]", "dataset.transform.long_side=128"]),
]  # fmt: skip


@pytest.mark.parametrize(("short", "long"), LONG)
def test_the_same_configuration_as_by_full_keys(short, long):
    assert composed(*expand("train", short)) == composed(*long)


@pytest.mark.parametrize("command", ["predict", "evaluate", "report", "prepare", "benchmark"])
def test_the_same_configuration_of_other_commands(command):
    short = [f"{alias}={VALUES.get(alias, 7)}" for alias in ALIASES if command in ALIASES[alias]]
    known = {"data": "dataset=shapes", "model": "architecture=pspnet"}
    long = [known.get(alias) or f"{ALIASES[alias][command]}=7" for alias in ALIASES
            if command in ALIASES[alias]]  # fmt: skip
    long = [text.replace("crop_size=7", "crop_size=[7,7]") for text in long]
    needed = NEEDED.get(command, [])
    assert composed(*needed, *expand(command, short), command=command) == composed(
        *needed, *long, command=command
    )


@pytest.mark.parametrize("experiment", options("experiment"))
def test_choices_of_every_experiment_are_known_without_composing(experiment):
    found = Chosen.of("train", [f"experiment={experiment}"])
    full = choices(experiment)
    assert found._choices("architecture", "") == {full["architecture"]}
    assert found._choices("dataset", "") == {full["dataset"]}
    is_detector = found.is_detector("", "")
    assert is_detector == (full["architecture"] in architectures("instance"))


@pytest.mark.parametrize("name", options("dataset"))
def test_size_fits_every_data_set(name):
    overrides = expand("train", [f"dataset={name}", "size=64", "architecture=pspnet"])
    keys = {override.partition("=")[0].rpartition(".")[2] for override in overrides}
    transform = yaml.safe_load((conf_dir() / "dataset" / f"{name}.yaml").read_text())["transform"]
    assert keys - {"dataset", "architecture"} <= transform.keys()
    assert len(keys) > 2


@pytest.mark.parametrize("architecture", [*architectures("semantic"), *architectures("instance")])
def test_data_and_model_choose_the_experiment_of_own_data(architecture):
    name = "own_instances" if architecture in architectures("instance") else "own"
    overrides = expand("train", ["data=shapes", f"model={architecture}"])
    assert set(overrides) == {f"experiment={name}", "dataset=shapes",
                              f"architecture={architecture}"}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "arguments", "added"),
    [
        ("train", ["data=shapes"], ["experiment=own"]),
        ("chain", ["data=shapes"], ["experiment=own"]),
        ("plan", ["data=shapes"], ["experiments=[own]"]),
        ("reproduce", ["data=shapes", "model=mask_rcnn"],
         ["experiments=[own_instances]", "architecture=mask_rcnn"]),
        ("train", ["data=shapes", "model=mask2former"],
         ["experiment=own", "architecture=mask2former"]),
        ("train", ["data=shapes", "experiment=pspnet_voc"], ["experiment=pspnet_voc"]),
        ("plan", ["data=shapes", "experiments=[pspnet_voc]"], ["experiments=[pspnet_voc]"]),
        ("plan", ["pspnet_voc:data=shapes", "experiments=[pspnet_voc]"],
         ["experiments=[pspnet_voc]"]),
        ("prepare", ["data=shapes"], []),
        ("benchmark", ["data=shapes"], []),
        ("evaluate", ["data=shapes"], []),
    ],
)  # fmt: skip
def test_where_an_experiment_is_chosen_only_the_data_change(command, arguments, added):
    prefix = "pspnet_voc:" if "pspnet_voc:data=shapes" in arguments else ""
    assert set(expand(command, arguments)) == {f"{prefix}dataset=shapes", *added}


@pytest.mark.parametrize("name", ["shapes_panoptic", "coco_panoptic"])
def test_panoptic_data_choose_a_network_that_learns_them(name):
    assert set(expand("train", [f"data={name}"])) == {f"dataset={name}", "experiment=own_panoptic"}


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, bool]]:
    """What was to be recognised; anything is a folder of masks."""
    calls: list[tuple[str, bool]] = []

    def recognise(given: str, instances: bool, multilabel: bool) -> recognition.Recognised:
        calls.append((given, instances))
        overrides = ["dataset=folder", f"dataset.source.root={given}", "dataset.num_workers=3"]
        return recognition.Recognised(overrides, f"a folder, {given}")

    monkeypatch.setattr(recognition, "recognise", recognise)
    return calls


NAMES = ["photos", "a b", "it's", '"a"', "a=b", "a,b", "[a]", "größe", "$x", "#a", "{a: b}"]


def value_of(override: str) -> str:
    """The value as Hydra hands it on."""
    (literal,) = with_literal_paths([override], False)
    return OverridesParser.create().parse_override(literal).value()


@pytest.mark.parametrize("name", NAMES)
def test_runs_and_sources_of_any_name(name):
    run = Path("outputs", name, "2026-01-01_10-00-00")
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    os.mkdir(name + "_")
    found, source = expand("predict", [f"run={name}", f"source={name}_"])[::-1]
    assert (value_of(found), value_of(source)) == (str(run), f"{name}_")
    for argument in expand("evaluate", [f"ensemble=[{run},latest]", f"run={name}"]):
        assert value_of(argument) in (str(run), [str(run), str(run)])


@pytest.mark.parametrize("name", NAMES)
def test_data_takes_any_path(asked, name, capsys):
    os.mkdir(name)
    assert f"dataset.source.root={name}" in expand("train", [f"data={name}"])
    assert asked == [(name, False)]
    assert f"data        a folder, {name}\n" in capsys.readouterr().out


def test_paths_of_data_in_quotes_or_below_the_home_folder(asked):
    expand("train", ["data='a b'"])
    expand("train", ["data=~/photos"])
    assert [given for given, _ in asked] == ["a b", os.path.expanduser("~/photos")]


def test_detectors_ask_for_instances(asked):
    expand("train", ["data=x", "model=mask_rcnn"])
    expand("train", ["data=x", "experiment=panet_shapes"])
    expand("chain", ["data=x", "experiment=mask_rcnn_shapes"])
    expand("plan", ["data=x", "experiments=[mask_rcnn_*]"])
    expand("benchmark", ["data=x", "architecture=fpn"])
    assert {instances for _, instances in asked} == {True}
    asked.clear()
    expand("prepare", ["data=x"])
    expand("train", ["data=x", "experiment=fcn8s_voc"])
    assert {instances for _, instances in asked} == {False}


@pytest.mark.parametrize(("experiment", "expected"), [("quickstart", False), ("fpn_shapes", True)])
def test_evaluations_ask_for_what_their_network_finds(asked, experiment, expected):
    run = Path("outputs/leaves/2026-01-01_10-00-00")
    (run / "checkpoints").mkdir(parents=True)
    content = composed(f"experiment={experiment}")
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    expand("evaluate", ["run=latest", "data=x"])
    expand("evaluate", [f"checkpoint={run}/checkpoints/best.ckpt", "data=x"])
    weights = "torchvision/" + ("maskrcnn_resnet50_fpn" if expected else "deeplabv3_resnet101")
    expand("evaluate", [f"weights={weights}", "data=x"])
    assert asked == 3 * [("x", expected)]


def test_details_of_data_may_be_given_one_by_one(asked):
    overrides = expand("train", ["dataset.num_workers=0", "data=x"])
    assert overrides.index("dataset.num_workers=0") > overrides.index("dataset.num_workers=3")


def test_several_of_a_sweep(asked):
    assert expand("train", ["-m", "lr=0.1,0.2", "size=64,[32,48]", "model=pspnet,encnet"]) == [
        "architecture=pspnet,encnet", "optimizer.lr=0.1,0.2",
        "dataset.transform.crop_size=[64,64],[32,48]", "-m",
    ]  # fmt: skip
    assert "dataset.source.root=x,y" in expand("train", ["-m", "data=x,y"])
    swept = expand("train", ["sweep=optuna", "lr=tag(log,interval(1e-3,1e-1))"])
    assert "optimizer.lr=tag(log,interval(1e-3,1e-1))" in swept


def test_stages_and_experiments_of_their_own():
    assert expand("chain", ["experiment=fcn8s_voc", "fcn32s_voc:steps=3"])[:2] == [
        "fcn32s_voc:trainer.max_steps=3", "fcn32s_voc:trainer.max_epochs=null"
    ]  # fmt: skip
    sizes = expand("plan", ["mask_rcnn_shapes:size=64,96", "pspnet_voc:size=64"])
    assert sizes == [
        f"mask_rcnn_shapes:{SIDES[0]}=[64,64]", f"mask_rcnn_shapes:{SIDES[1]}=96",
        "pspnet_voc:dataset.transform.crop_size=[64,64]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["lr=1", "optimizer.lr=1"], ["lr=1 and optimizer.lr=1", "one of them"]),
        (["lr=1", "+optimizer.lr=2"], ["lr=1 and optimizer.lr=2"]),
        (["lr=1", "lr=2"], ["lr=1 and lr=2"]),
        (["epochs=1", "steps=2"], ["epochs=1 and steps=2"]),
        (["epochs=1", "trainer.max_steps=2"], ["epochs=1 and trainer.max_steps=2"]),
        (["data=shapes", "dataset=voc"], ["data=shapes and dataset=voc"]),
        (["model=pspnet", "architecture=fcn8s"], ["model=pspnet and architecture=fcn8s"]),
        (["data=shapes", "model=psp"], ["unknown architecture 'psp'", "nearest: pspnet"]),
        (["model=psp"], ["unknown architecture 'psp'", "pspnet"]),
        (["data=nowhere"], ["data=nowhere"]),
        (["epochs="], ["epochs=", "trainer.max_epochs"]),
        (["epochs=many"], ["trainer.max_epochs=many", "a number"]),
        (["size=big"], ["size=big", "size=512,384"]),
        (["size=1,2,3"], ["size=1,2,3"]),
        (["size=0"], ["crop_size=[0, 0]"]),
        (["-m", "experiment=mask_rcnn_shapes", "size=64,96"], ["size=64,96", "sweep one of them"]),
        (["-m", "experiment=mask_rcnn_shapes,fcn8s_voc", "size=64"], ["size=64", "one by one"]),
        (["-m", "data=shapes", "model=pspnet,fpn"], ["data=shapes", "one by one"]),
        (["name=a/b"], ["name=a/b", "hydra.run.dir="]),
        (["name=.."], ["name=.."]),
        (["name=predict"], ["name=predict"]),
        (["name=latest"], ["name=latest"]),
        (["resume=.", "data=shapes"], ["data=shapes", "resumed", "weights="]),
        (["resume=.", "name=x"], ["name=x", "resumed"]),
        (["resume=latest"], ["resume=latest", "no run folder"]),
        (["predict", "size=3,4"], ["size=3,4", "one number"]),
        (["predict", "source=a", "input=b"], ["source=a and input=b"]),
        (["evaluate", "epochs=3"], ["unknown key 'epochs'"]),
        (["benchmark", "size=3"], ["unknown key 'size'", "measure.size"]),
        (["model=fcn8s", "backbone=resnet50"], ["backbone.name", "architecture/backbone=", "timm"]),
        (["backbone=vgg16_aspp"], ["timm has no model", "architecture/backbone=vgg16_aspp"]),
        (["export", "run=latest"], ["run=latest", "no run folder"]),
        (["evaluate", "run=.", "ensemble=[leaves]"], ["ensemble=leaves", "do not exist"]),
        (["plan", "size=64"], ["size=64", "<experiment>:"]),
    ],
    ids=lambda value: " ".join(value) if "=" in value[-1] else "",
)
def test_mistakes(segtrain, arguments, parts):
    code, _, err = segtrain(*arguments)
    assert code == 2, err
    assert err.startswith("segtrain: error: ")
    for part in parts:
        assert part in err
    assert not list(Path.cwd().iterdir())


def test_an_own_group_or_key_wins(tmp_path):
    mine = tmp_path / "mine"
    (mine / "data").mkdir(parents=True)
    (mine / "train.yaml").write_text("lr: 3\n")
    (mine / "other.yaml").write_text("name: x\n")
    typed = ["--config-dir", str(mine), "data=x", "lr=1", "batch=2"]
    assert expand("train", typed) == ["batch_size=2", *typed[:-1]]
    named = ["--config-dir", str(mine), "--config-name=other", "name=y"]
    assert expand("train", named) == named


@pytest.mark.parametrize("flag", ["--config-dir={}", "hydra.searchpath=[file://{}]"])
def test_own_files_are_looked_into(asked, flag, tmp_path):
    (tmp_path / "architecture").mkdir()
    (tmp_path / "architecture/mine.yaml").write_text("defaults:\n  - mask_rcnn\n")
    expand("train", [flag.format(tmp_path), "data=x", "model=mine"])
    assert asked == [("x", True)]


def test_plans_take_any_path(asked):
    name = "it's, [a]={b}"
    os.mkdir(name)
    (override,) = (o for o in collected("plan", expand("plan", [f"data={name}"]))
                   if o.startswith("overrides="))  # fmt: skip
    parsed = OverridesParser.create().parse_override(override).value()
    assert composed(*parsed, "seed=1")["dataset"]["source"]["root"] == name


def test_a_run_of_a_name_and_what_can_be_done_with_it(segtrain, folder_set):
    """Trains, resumes, evaluates, predicts and exports, by short forms alone."""
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/own.yaml").write_text(
        "# @package _global_\ndefaults:\n  - quickstart\n  - override /dataset: folder\n"
        "trainer: {max_steps: 900}\n"
    )
    tiny = [o for o in TINY if not o.startswith(
        ("experiment", "dataset", "trainer.max", "architecture", "batch"))]  # fmt: skip
    network = ["architecture.backbone.weights=none", "architecture.backbone.multi_grid=null"]
    arguments = [f"data={folder_set}", "steps=2", "batch=4", "size=32", "workers=0",
                 "backbone=test_resnet", "name=leaves 1"]  # fmt: skip
    code, out, err = segtrain("--config-dir", "mine", *arguments, *tiny, *network)
    assert code == 0, err
    assert f"data={folder_set}  ->  experiment=own dataset=folder" in out
    run = only_run("outputs/leaves 1/*")
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert stored.keys() <= composed().keys() | {"experiment"}
    assert (stored["dataset"]["source"]["root"], stored["trainer"]["max_steps"]) == (
        str(folder_set), 2
    )  # fmt: skip
    write_pair(Path("other"), "p", np.zeros((40, 48), np.uint8))
    shutil.copy(folder_set / "classes.txt", "other")
    Path("other/val.txt").write_text("p\n")
    code, out, err = segtrain("val", "run=latest", "data=other", "trainer.accelerator=cpu",
                              "report=null")  # fmt: skip
    assert code == 0, err
    relative = run.relative_to(Path.cwd())
    assert f"run=latest  ->  run={relative}" in out
    source = f"{folder_set}/images/p1.jpg"
    code, out, err = segtrain("predict", "run=leaves 1", f"source={source}", "device=cpu")
    assert code == 0, err
    assert len(list(Path("outputs/predict").rglob("p1.png"))) == 1
    assert load("leaves 1", device="cpu").labels.names == ("sky", "road", "car")
    assert segtrain("report", "run=latest", "examples=0")[0] == 0
    assert segtrain("export", "run=leaves 1", "format=safetensors", "output=exported")[0] == 0
    assert segtrain("resume=leaves 1", "steps=3")[0] == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 3


def test_the_configuration_is_shown_alone(segtrain):
    code, out, err = segtrain("--cfg", "job", "experiment=quickstart", "epochs=3")
    assert code == 0
    assert yaml.safe_load(out)["trainer"]["max_epochs"] == 3
    assert "epochs=3  ->  trainer.max_epochs=3" in err


def test_a_named_run_that_starts_in_the_same_second_gets_a_folder_of_its_own(segtrain, monkeypatch):
    from segtrain.cli import app

    monkeypatch.setattr(app, "execute", lambda command, config, run_dir: 0)
    for _ in range(2):
        assert segtrain("experiment=quickstart", "name=leaves", "trainer.accelerator=cpu")[0] == 0
    assert len(list(Path("outputs/leaves").iterdir())) == 2
    assert not Path("outputs/quickstart").exists()
