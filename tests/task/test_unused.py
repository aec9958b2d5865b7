"""Parameters without a use are found before a training, whatever the network; no others are."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, architectures, composed, small_network
from processes import end, start
from torch import nn

from segtrain.assembly import build_task, make
from segtrain.dataset.instances import target_from_masks, training_objects
from segtrain.task.segmentation import Segmentation
from segtrain.task.unused import freeze_unused, unused_parameters

CLASSES = 5
SIZE = 64
HRNET = ["architecture/backbone=timm", "architecture.backbone.name=hrnet_w18_small"]
# Chains, whose last map needs all before it, and one of parallel branches.
BACKBONES = ["convnext_atto", "densenet121", "hrnet_w18_small", "regnety_002"]


def with_auxiliary(name: str) -> list[list[str]]:
    """What to change in an architecture so that it has an auxiliary head, and has none."""
    if "auxiliary" not in composed(f"architecture={name}")["architecture"]:
        return [[]]
    return [["architecture.auxiliary=true"], ["architecture.auxiliary=false"]]


def task_of(name: str, *overrides: str) -> Segmentation:
    """An untrained network for the set of shapes of its kind, ready to train."""
    dataset = "shapes_instances" if name in architectures("instance") else "shapes"
    config = composed(f"architecture={name}", f"dataset={dataset}", *overrides)
    torch.manual_seed(0)
    return build_task(config, make(config["dataset"]["labels"]))


def small_task(name: str, *overrides: str) -> Segmentation:
    return task_of(name, *small_network(f"architecture={name}"), *overrides)


def without_gradient(task: Segmentation) -> list[str]:
    """Names of the parameters that a whole training step gives no gradient."""
    task.train()
    if task.evaluation.task == "semantic":
        batch = {
            "image": torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8),
            "mask": torch.randint(0, CLASSES, (2, SIZE, SIZE), dtype=torch.uint8),
        }
    else:
        masks = np.zeros((2, SIZE, SIZE), np.uint8)
        masks[0, 5:30, 8:20] = masks[1, 40:60, 2:50] = 1
        objects = target_from_masks(masks, [0, 1], np.zeros(2, bool), 0)
        image = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8)
        target = training_objects(objects, (SIZE, SIZE), flip=False)
        batch = {"image": [image, image], "target": [target, target]}
    sum(task.evaluation.terms(task.model, task.loss, batch).values()).backward()
    return [name for name, parameter in task.model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        (name, overrides)
        for kind in ("semantic", "instance", "mask_classification")
        for name in architectures(kind)
        for overrides in with_auxiliary(name)
    ],
)
def test_networks_of_the_papers_use_all_they_have(name, overrides):
    task = small_task(name, *overrides)
    assert unused_parameters(task.model) == []
    assert without_gradient(task) == []


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", ["deeplabv3", "fcn32s", "mask_rcnn"])
def test_those_of_a_backbone_that_a_training_step_gives_no_gradient(name, backbone):
    backbones = [o for o in small_network("architecture=mask_rcnn") if "backbone" not in o]
    task = task_of(
        name, "architecture/backbone=timm", f"architecture.backbone.name={backbone}",
        "architecture.backbone.weights=none", *(backbones if name == "mask_rcnn" else []),
    )  # fmt: skip
    found = unused_parameters(task.model)
    assert found == without_gradient(task)
    assert bool(found) == (backbone == "hrnet_w18_small" and name != "mask_rcnn")


def test_looking_changes_nothing_but_what_learns():
    task = small_task("encnet", "batch_norm.frozen=true")
    task.model.unused = nn.Linear(2, 2)
    before = copy.deepcopy(task.model)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    freeze_unused(task.model)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()
    for (name, value), old in zip(
        task.model.state_dict().items(), before.state_dict().values(), strict=True
    ):
        assert torch.equal(value, old), name
    for part, old in zip(task.model.modules(), before.modules(), strict=True):
        assert part.training == old.training
    changed = {
        name
        for (name, new), old in zip(task.model.named_parameters(), before.parameters(), strict=True)
        if new.requires_grad != old.requires_grad
    }
    assert changed == {"unused.weight", "unused.bias"}


def test_a_network_that_was_just_evaluated_and_one_image_a_process():
    """Heads of the training are seen, and maps of a single value are no trouble."""
    model = small_task("pspnet").model
    assert unused_parameters(model.eval()) == []
    assert not model.training


def test_a_compiled_network_is_not_compiled_for_it():
    def backend(graph, inputs):
        raise AssertionError("compiled")

    model = small_task("deeplabv3").model
    model.compile(backend=backend)
    assert unused_parameters(model) == []
    with pytest.raises(Exception, match="compiled"):
        model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_two_processes_train_with_a_backbone_that_has_unused_parameters():
    steps = ["trainer.max_steps=3", "trainer.val_every_n_steps=3", "trainer.devices=2"]
    tiny = [*TINY, *HRNET, "architecture.backbone.output_stride=32", "hydra.run.dir=run"]
    code, _, err = end(start("-m", "segtrain", *tiny, *steps))
    assert code == 0, err
    (line,) = [x for x in Path("run/run.log").read_text().splitlines() if "unused      " in x]
    assert "66 parameters stay as they are" in line
    assert "backbone.body.stage4." in line
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    network = task_of("deeplabv3", *HRNET, "architecture.backbone.weights=none").model
    assert sum(len(g["params"]) for g in groups) == len(list(network.parameters())) - 66
