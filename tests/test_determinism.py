"""`trainer.deterministic=true` on a GPU: no step takes an operation that PyTorch refuses there."""

import dataclasses
import functools
import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import TINY_INSTANCES, composed, small_network
from determinism import DOCUMENTED, REFUSED, as_on_a_gpu
from hydra.utils import get_class

from segtrain.assembly import build_data, build_task, task_of
from segtrain.configuration.folder import conf_dir, options
from segtrain.dataset.stream import EvalImages, TrainStream
from segtrain.label_set import LabelSet
from segtrain.planes import pack
from segtrain.segments import pack as pack_segments

CLASSES = 5
NETWORKS = {"semantic": "deeplabv3_torchvision", "multilabel": "deeplabv3_torchvision",
            "instance": "mask_rcnn", "proposal": "fpn", "masks": "mask2former"}  # fmt: skip
PARTNERS = {"multilabel": {"loss=multilabel", "inference=multilabel"}}  # by task
SETTINGS = [  # beside the defaults of the files
    ("loss=cross_entropy", "loss.form=strips"),
    ("loss=cross_entropy", "loss.pixel.label_smoothing=0.1"),
    ("loss=cross_entropy", "loss.form=strips", "loss.pixel.class_weights=[1,2,1,3,1]"),
    ("loss=cross_entropy", "loss.resize=labels"),
    ("loss=ohem", "loss.form=strips"),
    ("loss=lovasz", "loss.region.per_image=true"),
    ("inference=detect", "inference.flip=true", "inference.box_voting=0.8",
     "inference.mask_voting=0.5"),
]  # fmt: skip
# Numbers that choose no operation, such as regions an image, so that a step is fast.
FEW = {"short_side": 64, "short_sides": [64], "long_side": 64, "side": 64, "count": 2,
       "crop_size": [32, 32], "stride": [16, 16], "samples": 16, "max_proposals": 20,
       "num_points": 50, "short": 64, "long": 64,
       "pre_nms": {"train": 50, "test": 50}, "post_nms": {"train": 20, "test": 20}}  # fmt: skip
PER_CLASS = ("class_weights", "logit_adjustment")


def selections() -> list[tuple[str, ...]]:
    """Every experiment and architecture; every loss, inference protocol and CRF with a network."""
    alone = [(f"{group}={name}",) for group in ("experiment", "architecture")
             for name in options(group)]  # fmt: skip
    files = [(f"{group}={name}",) for group in ("loss", "inference", "inference/crf")
             for name in options(group)]  # fmt: skip
    return alone + [(*company_of(chosen[0]), *chosen) for chosen in [*files, *SETTINGS]]


def company_of(choice: str) -> list[str]:
    """An architecture that a loss or an inference protocol is for, and what else goes with it."""
    content = yaml.safe_load((conf_dir() / f"{choice.replace('=', '/')}.yaml").read_text())
    chosen = get_class(content["_target_"])
    task = getattr(chosen, "network", getattr(chosen, "task", "semantic"))
    group = choice.partition("=")[0]
    others = [one for one in sorted(PARTNERS.get(task, ())) if one.partition("=")[0] != group]
    return [f"architecture={NETWORKS[task]}", *others]


def few(node: dict) -> dict:
    """The node with the values of FEW, and with numbers for CLASSES where it has some for each."""
    changed = {**node, **{key: FEW[key] for key in node.keys() & FEW.keys()}}
    changed |= {key: [1.0] * CLASSES for key in PER_CLASS if node.get(key) is not None}
    return {key: few(value) if isinstance(value, dict) else value for key, value in changed.items()}


def small(selection: tuple[str, ...]) -> dict:
    """What a step consists of, with a small network, small images and few regions."""
    config = composed(*selection)
    for override in small_network(*selection):  # faster than to compose anew
        path, _, value = override.lstrip("+").partition("=")
        *groups, key = path.split(".")
        functools.reduce(dict.__getitem__, groups, config)[key] = yaml.safe_load(value)
    parts = ("architecture", "loss", "inference", "batch_norm")
    return {part: few(config[part]) for part in parts}


@functools.cache
def instances():
    """Labels, a training batch and one to evaluate."""
    config = composed("dataset=shapes_instances", "architecture=mask_rcnn", *TINY_INSTANCES)
    data = build_data(config)
    stream = TrainStream(data.train_source, data.transform, 0)
    images = EvalImages(data.val_source, 0, 1)
    return (data.labels, data.transform.collate_train([stream[0], stream[1]]),
            data.transform.collate_eval([images[0], images[1]]))  # fmt: skip


@functools.cache
def pixels():
    """As `instances`, for semantic networks."""
    numbers = range(CLASSES)
    names, palette = tuple(map(str, numbers)), ((0, 0, 0),) * CLASSES
    labels = LabelSet(names, palette, {**{k: k for k in numbers}, 255: None})
    images = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
    masks = torch.randint(0, CLASSES, (2, 48, 64), dtype=torch.uint8)
    masks[:, :5] = 255
    batch = {"image": images, "mask": masks, "name": ["a", "b"]}
    return labels, batch, {**batch, "image": list(images), "mask": list(masks)}


@functools.cache
def planes():
    """As `pixels`, of classes that overlap."""
    labels, batch, whole = pixels()
    masks = np.random.default_rng(0).random((2, CLASSES, 48, 64)) < 0.3
    packed = torch.from_numpy(np.stack([pack(one) for one in masks]))
    packed[:, :5] = 255
    return (dataclasses.replace(labels, overlapping=True), {**batch, "mask": packed},
            {**whole, "mask": list(packed)})  # fmt: skip


@functools.cache
def segments():
    """As `pixels`, of things and stuff."""
    labels, batch, whole = pixels()
    numbers = np.random.default_rng(0).integers(0, 3, (2, 48, 64))
    packed = torch.from_numpy(np.stack([
        pack_segments(classes.numpy(), own)
        for classes, own in zip(batch["mask"], numbers, strict=True)
    ]))  # fmt: skip
    return (dataclasses.replace(labels, things=frozenset({0, 1})), {**batch, "mask": packed},
            {**whole, "mask": list(packed)})  # fmt: skip


@functools.cache
def refused_by(parts: str) -> tuple[set[str], set[str]]:
    """In a step of training and in an evaluation; many recipes have the same parts."""
    config = {**composed(), **json.loads(parts)}
    samples = {"semantic": pixels, "multilabel": planes, "panoptic": segments}
    labels, batch, whole = samples.get(task_of(config["inference"]), instances)()
    task = build_task(config, labels)
    with as_on_a_gpu() as training:
        sum(task.evaluation.terms(task.model, task.loss, batch).values()).backward()
    assert "aten.convolution_backward" in training.names
    task.eval()
    with as_on_a_gpu() as evaluation, torch.inference_mode():
        task.on_test_epoch_start()
        task.test_step(whole, 0)
        task.on_test_epoch_end()
    return training.refused, evaluation.refused


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("selection", selections(), ids=" ".join)
def test_selection(selection):
    parts = json.dumps(small(selection), sort_keys=True)
    assert refused_by(parts) == (set(), set())


def test_the_operations_are_those_that_pytorch_documents():
    """So that another version of PyTorch cannot refuse more of them unnoticed."""
    text = torch.use_deterministic_algorithms.__doc__
    refused = text.partition("operations will throw")[2].partition("In addition")[0]
    entries = re.findall(r"\* :\w+:`([\w.]+)`", refused)
    assert "torch.nn.NLLLoss" in entries
    assert set(entries) <= DOCUMENTED.keys()


def test_the_operations_exist():
    """So that another version of PyTorch cannot rename them unnoticed."""
    for name in REFUSED:
        space, operation, *overload = name.split(".")
        packet = getattr(getattr(torch.ops, space), operation)
        assert not overload or overload[0] in packet.overloads(), name


def test_refusals_are_seen():
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    with as_on_a_gpu() as found:
        F.cross_entropy(x, target, reduction="none").sum().backward()
        F.interpolate(x, (8, 8), mode="bilinear").sum().backward()
        torch.bincount(target.flatten())
    assert found.refused == set()
    with as_on_a_gpu() as found:
        F.cross_entropy(x, target, reduction="sum").backward()
        F.interpolate(x, (8, 8), mode="bicubic").sum().backward()
        torch.bincount(target.flatten(), torch.ones(16))
    expected = {"aten.nll_loss2d_forward", "aten.upsample_bicubic2d_backward", "aten.bincount"}
    assert found.refused == expected
