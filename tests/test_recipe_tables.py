"""Recipes against their papers: what docs/recipes states is composed, and all of it is stated.

The kinds of parameters in parameter_kinds.yaml are by their names, each listed once: numbers of
blocks are written #, but for the last.
"""

import copy
import functools
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from test_recipes import FULL_SIZE

from segtrain.assembly import make
from segtrain.optimizer.groups import parameter_groups
from segtrain.trained import without_pretraining

ROOT = Path(__file__).parents[1]
KINDS = yaml.safe_load((ROOT / "tests" / "parameter_kinds.yaml").read_text())
spec = importlib.util.spec_from_file_location("recipes", ROOT / "scripts" / "recipes.py")
recipes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipes)
SYSTEM_OF = {name: system for system in recipes.systems().values() for name in system["recipes"]}

# What every recipe has to state, where its configuration has it.
REQUIRED = (
    "batch_size", "batch_norm", "frozen", "dataset.splits.train", "dataset.transform", "loss",
    "optimizer", "inference", "trainer.gradient_clip_val", "trainer.max_steps",
    "trainer.max_epochs", "weights_without", "starts_from", "starts_from_checkpoint",
    "architecture.rpn", "architecture.dropout", "architecture.samples",
    "architecture.positive_fraction", "architecture.positive_iou", "architecture.skip_scales",
    "architecture.auxiliary", "architecture.atrous_rates", "architecture.bins",
    "architecture.backbone.name", "architecture.backbone.multi_grid",
)  # fmt: skip
NO_ITEMS = ("_target_", "_partial_", "loss.form", "loss.region_weight")


def leaves(node: object, key: str) -> dict[str, object]:
    """Every value below a node, by its path."""
    if not isinstance(node, dict):
        return {key: node}
    return {k: v for name, value in node.items() for k, v in leaves(value, f"{key}.{name}").items()}


def to_state(config: dict) -> set[str]:
    """Paths that a recipe's table has to have."""
    wanted = set()
    for key in REQUIRED:
        found = recipes.value_at(config, key)
        if found is not None:
            wanted |= set(leaves(found[0], key))
    wanted = {key for key in wanted if not key.endswith(NO_ITEMS)}
    if not config["architecture"].get("auxiliary"):
        wanted.discard("loss.aux_weight")
    if "num_codes" not in config["architecture"]:
        wanted.discard("loss.presence_weight")
    if config["starts_from"] is None:
        wanted -= {"starts_from", "starts_from_checkpoint"}
    backbone = config["architecture"]["backbone"]
    if "output_stride" in backbone and "align_corners" in config["architecture"]:
        wanted.add("architecture.backbone.output_stride")
    if "name" not in backbone:
        wanted.add("architecture.backbone.weights")
    if config["batch_norm"]["decay"] is None:
        wanted.discard("batch_norm.decay")
    by_epochs = config["trainer"]["max_steps"] is None
    return wanted - {"trainer.max_steps" if by_epochs else "trainer.max_epochs"}


def table_of(name: str) -> list:
    return recipes.rows(SYSTEM_OF[name], name, recipes.composed(name))


def test_every_full_size_experiment_is_on_the_page():
    others = recipes.shared()["others"]
    assert sorted([*SYSTEM_OF, *others]) == sorted(FULL_SIZE)


@pytest.mark.parametrize("name", SYSTEM_OF)
def test_what_is_stated_is_composed(name):
    found = {row.key: (row.ours, row.expected) for row in table_of(name)}
    assert {key: ours for key, (ours, _) in found.items()} == {
        key: expected for key, (_, expected) in found.items()
    }


@pytest.mark.parametrize("name", SYSTEM_OF)
def test_everything_that_makes_a_recipe_is_stated(name):
    keys = [row.key for row in table_of(name)]
    assert to_state(recipes.composed(name)) - set(keys) == set()
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", SYSTEM_OF)
def test_comparable_is_what_has_no_reason_against_it(name):
    published = recipes.composed(name)["published"]
    is_comparable = published is not None and published["comparable"]
    assert is_comparable == (SYSTEM_OF[name]["recipes"][name] is None)


def test_deviations_of_a_training_are_not_comparable():
    """Data, weights, schedule: whoever deviates there cannot be compared."""
    keys = ("dataset.splits.train", "architecture.backbone.name", "trainer.max_steps",
            "trainer.max_epochs", "optimizer.lr", "batch_size", "dataset.transform.crop_size",
            "inference.least_size", "starts_from", "architecture.rpn._target_")  # fmt: skip
    for name, system in SYSTEM_OF.items():
        if any(row.key in keys and row.verdict == "stated" for row in table_of(name)):
            assert system["recipes"][name] is not None, name


def test_a_changed_recipe_changes_the_page():
    name = "deeplabv3_voc"
    config = copy.deepcopy(recipes.composed(name))
    assert "`optimizer.lr` `0.007`" in recipes.table(table_of(name), name)
    config["optimizer"]["lr"] = 0.01
    changed = recipes.rows(SYSTEM_OF[name], name, config)
    with pytest.raises(ValueError, match=r"optimizer.lr is 0.01, docs/recipes says 0.007"):
        recipes.table(changed, name)
    followed = [row._replace(expected=row.ours) for row in changed]
    assert "`optimizer.lr` `0.01`" in recipes.table(followed, name)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"verdict": "stated"}, "deviates without a reason"),
        ({"verdict": "fine"}, "choose from same, stated, variant"),
        ({"key": "optimizer.rate"}, "the configuration has no optimizer.rate"),
        ({"value": 1}, "unknown value"),
    ],
)
def test_incomplete_items_are_refused(item, message):
    whole = {"item": "rate", "key": "optimizer.lr", "ours": 0.007, "verdict": "same"}
    with pytest.raises(ValueError, match=message):
        recipes.row(whole | item, "deeplabv3_voc", recipes.composed("deeplabv3_voc"))


def test_the_page_has_every_recipe():
    text = recipes.page()
    for name in SYSTEM_OF:
        assert f"### `{name}`" in text
    assert text.count("Comparable with the paper's figure.") == sum(
        reason is None for system in recipes.systems().values()
        for reason in system["recipes"].values()
    )  # fmt: skip


@functools.cache
def network(node: str) -> torch.nn.Module:
    with torch.device("meta"):  # its names and shapes are enough
        return make(without_pretraining(json.loads(node)), num_classes=21)


def shortened(name: str) -> str:
    """A parameter's name as parameter_kinds.yaml has it."""
    *path, layer, part = name.split(".")
    return ".".join([*(re.sub(r"\d+", "#", step) for step in path), layer, part])


def kind_of(model: torch.nn.Module, name: str) -> str:
    listed = KINDS[f"{type(model).__name__}, {type(model.backbone).__name__}"]
    found = [k for k, names in listed.items() if name in names or shortened(name) in names]
    assert len(found) == 1, (name, found)
    return found[0]


@pytest.mark.parametrize("name", SYSTEM_OF)
def test_parameters_learn_and_decay_as_stated(name):
    """Every parameter is in one group, whose rate and decay are those of its kind."""
    stated = {row.key: row.expected for row in table_of(name)}
    model = network(json.dumps(recipes.composed(name)["architecture"]))
    keys = ("head_multiplier", "bias_multiplier", "no_decay")
    multipliers = {key: stated[f"optimizer.{key}"] for key in keys}
    node = {key: recipes.composed(name)["optimizer"][key] for key in keys}
    groups = parameter_groups(model, lr=1.0, weight_decay=1.0, **node)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    for key, parameter in model.named_parameters():
        kind = kind_of(model, key)
        rate = 1.0 if key.startswith("backbone.") else multipliers["head_multiplier"]
        rate *= multipliers["bias_multiplier"] if kind == "bias" else 1.0
        decay = 0.0 if kind in multipliers["no_decay"] else 1.0
        assert found.pop(id(parameter)) == (rate, decay), key
    assert not found
