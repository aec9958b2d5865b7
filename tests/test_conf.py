"""Every configuration file composes, builds and trains; a new file is tested without new lines."""

import pytest
import yaml
from conftest import TINY, composed, only_run, results_of

from segtrain.build import make
from segtrain.cli.main import GROUPS, conf_dir, options

EXPERIMENTS = options("experiment")
TARGET_GROUPS = ("architecture", "loss", "optimizer", "inference", "logger")


def yaml_files():
    return sorted(conf_dir().rglob("*.yaml"))


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_says_what_it_is(path):
    first = path.read_text().splitlines()[0 if path.parent.name != "experiment" else 1]
    assert first.startswith("# ")
    assert len(first) > 20


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_trains_one_step_on_shapes(name, segtrain):
    config = composed(f"experiment={name}")
    overrides = [
        override
        for override in TINY
        if not override.startswith(("experiment", "architecture.", "trainer.max_", "trainer.val"))
    ] + ["dataset=shapes", "dataset.splits={train: train, val: val, test: test}"]
    small = (
        "test_resnet" if config["architecture"]["backbone"]["multi_grid"] is None else "resnet50"
    )
    code, _, err = segtrain(
        f"experiment={name}",
        *overrides,
        f"architecture.backbone.name={small}",
        "architecture.backbone.weights=none",
        "trainer.max_steps=1",
        "trainer.max_epochs=null",
        "trainer.val_every_n_steps=1",
        "loss.pixel.class_weights=null",  # of another class count than the stand-in's
        "inference.logit_adjustment=null",
    )
    assert code == 0, err
    results = results_of(only_run(f"outputs/{name}/*"))
    assert results["experiment"] == name
    assert results["global_step"] == 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_names_architecture_and_data_set(name):
    config = composed(f"experiment={name}")
    if name != "quickstart":
        architecture, dataset = name.split("_")
        assert dataset == config["dataset"]["name"]
        assert config["architecture"]["_target_"].lower().endswith(architecture)


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in GROUPS for name in options(group)]
)
def test_every_group_file_targets_its_own_package(group, name):
    content = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())
    nodes = content.values() if group == "callback" else [content]
    expected = {"measure": "segtrain.benchmark", "logger": "pytorch_lightning.loggers"}
    for node in nodes:
        if group == "trainer":
            assert "_target_" not in node
        elif group == "callback":
            assert node["_target_"].startswith(("segtrain.callback", "pytorch_lightning.callbacks"))
        else:
            assert node["_target_"].startswith(expected.get(group, f"segtrain.{group}"))


@pytest.mark.parametrize("name", options("callback"))
def test_callbacks_build(name):
    config = composed(f"callback=[{name}]")
    for node in config["callback"].values():
        make(node)


def test_sweep_over_one_group_keeps_the_others():
    config = composed("optimizer=sgd_poly", "batch_size=2")
    assert config["optimizer"]["momentum"] == 0.9
    assert config["batch_size"] == 2
