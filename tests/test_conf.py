"""Every configuration file composes, builds and trains; a new file is tested without new lines."""

import pytest
import yaml
from conftest import (
    TINY,
    TINY_INSTANCES,
    choices,
    composed,
    only_run,
    results_of,
    small_network,
)

from segtrain.assembly import make
from segtrain.cli.chain import stages
from segtrain.cli.main import GROUPS
from segtrain.configuration.folder import conf_dir, options

EXPERIMENTS = options("experiment")
TARGET_GROUPS = ("architecture", "loss", "optimizer", "inference", "logger")


def yaml_files():
    return sorted(conf_dir().rglob("*.yaml"))


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_says_what_it_is(path):
    lines = path.read_text().splitlines()
    is_global = path.relative_to(conf_dir()).parts[0] in ("experiment", "sweep")
    first = lines[int(is_global)]
    assert first.startswith("# ")
    assert len(first) > 20


def stand_in(name: str) -> list[str]:
    """Overrides that put tiny shapes in the place of an experiment's data."""
    shared = [
        override
        for override in TINY
        if not override.startswith(("experiment", "architecture", "trainer.max_", "trainer.val"))
    ] + ["dataset.splits={train: train, val: val, test: test}"]
    config = composed(f"experiment={name}")
    if config["architecture"]["_target_"].startswith("segtrain.architecture.mask_class"):
        return stand_in_of_masks(config, shared)
    if "instance" in config["architecture"]["_target_"]:
        sized = [o for o in shared if "size=[" not in o and "crop_size" not in o] + TINY_INSTANCES
        plural = "short_sides" in config["inference"]
        side = "inference.short_sides=[64]" if plural else "inference.short_side=64"
        if "scale_jitter" in config["dataset"]["transform"]:
            sized.append("dataset.transform.scale_jitter.crop_size=[64,64]")
        return ["dataset=shapes_instances", *sized, side, "inference.long_side=64"]
    if "multilabel" in config["inference"]["_target_"]:
        return ["dataset=shapes_multilabel", *shared]
    shared += [
        "dataset=shapes",
        "loss.pixel.class_weights=null",  # of another class count than the stand-in's
        "inference.logit_adjustment=null",
        *(["inference.least_size=null"] if "least_size" in config["inference"] else []),
    ]
    if config["architecture"]["backbone"]["_target_"].endswith("ThreeBranches"):
        # In bfloat16 on a CPU, PyTorch gives a strided 3x3 convolution of a 1x1 map no gradient but
        # what the memory held.
        shared += ["dataset.source.size=[64, 64]", "dataset.transform.crop_size=[64, 64]"]
    if "objects" in choices(name)["dataset"]:
        shared += ["~dataset.transform.jitter", "~dataset.transform.others"]
    return shared


def stand_in_of_masks(config: dict, shared: list[str]) -> list[str]:
    """As `stand_in`, of a network that learns masks of classes, of segments or of instances."""
    inference, transform = config["inference"], config["dataset"]["transform"]
    kind = inference["_target_"].split(".")[-2]
    sets = {"panoptic": "shapes_panoptic", "masks": "shapes_instances"}
    if kind == "masks":
        shared = [o for o in shared if "size=[" not in o] + TINY_INSTANCES
    else:
        shared = [o.replace("[32, 32]", "[64, 64]") for o in shared]
    if "scale_jitter" in transform:
        shared.append("dataset.transform.scale_jitter.crop_size=[64,64]")
    sizes = [f"inference.{key}=null" for key in ("size", "least_size") if key in inference]
    if inference.get("window"):
        sizes += ["inference.window.crop_size=[64,64]", "inference.window.stride=[64,64]"]
    return [f"dataset={sets.get(kind, 'shapes')}", *shared, *sizes, "loss.num_points=50"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_trains_one_step_on_shapes(name, segtrain):
    code, _, err = segtrain(
        f"experiment={name}",
        *stand_in(name),
        *small_network(f"experiment={name}"),
        "trainer.max_steps=1",
        "trainer.max_epochs=null",
        "trainer.val_every_n_steps=1",
        "batch_size=2",
    )
    assert code == 0, err
    results = results_of(only_run(f"outputs/{name}/*"))
    assert results["experiment"] == name
    assert results["global_step"] == 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_names_architecture_and_data_set(name):
    """`<architecture>_<data set>`, and a stage of its recipe where there are several; the backbone
    before it where that is what the recipe is known by."""
    if name in ("quickstart", "multilabel_shapes", "binary_shapes") or name.startswith("own"):
        return
    chosen, config = choices(name), composed(f"experiment={name}")
    if name.startswith("dinov2_"):
        assert "dinov2" in config["architecture"]["backbone"]["name"]
        name = name.removeprefix("dinov2_")
    architecture = max((a for a in options("architecture") if name.startswith(a + "_")), key=len)
    dataset, *_ = name.removeprefix(architecture + "_").split("_")
    assert chosen["architecture"].startswith(architecture)
    assert config["dataset"]["name"].startswith(dataset)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_starts_from_one_with_the_same_network(name):
    config = composed(f"experiment={name}")
    if config["starts_from"] is not None:
        before = composed(f"experiment={config['starts_from']}")
        assert before["architecture"]["_target_"] == config["architecture"]["_target_"]
        assert stages(name, conf_dir())[-2:] == [config["starts_from"], name]


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in GROUPS for name in options(group)]
)
def test_every_group_file_targets_its_own_package(group, name):
    content = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())
    nodes = content.values() if group in ("callback", "logger") else [content]
    expected = {"measure": "segtrain.benchmark", "logger": "pytorch_lightning.loggers"}
    for node in nodes:
        if group in ("trainer", "sweep"):
            assert "_target_" not in node
        elif group == "callback":
            assert node["_target_"].startswith(("segtrain.callback", "pytorch_lightning.callbacks"))
        else:
            assert node["_target_"].startswith(
                expected.get(group, f"segtrain.{group.split('/')[0]}")
            )


@pytest.mark.parametrize("name", options("callback"))
def test_callbacks_build(name):
    config = composed(f"callback=[{name}]")
    for node in config["callback"].values():
        make(node)


def test_sweep_over_one_group_keeps_the_others():
    config = composed("optimizer=sgd_poly", "batch_size=2")
    assert config["optimizer"]["momentum"] == 0.9
    assert config["batch_size"] == 2
