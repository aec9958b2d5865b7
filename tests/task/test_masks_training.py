"""Mask classification from the command line: what belongs together, resumes, and learns."""

import re
from pathlib import Path

import pytest
import torch
from conftest import TINY_INSTANCES, only_run, results_of, small_network
from processes import TESTS

RUN = [
    "experiment=eomt_shapes", *small_network("experiment=eomt_shapes"), "loss.num_points=32",
    "dataset.source.num_images={train: 8, val: 2, test: 2}", "dataset.num_workers=0",
    "dataset.source.size=[32,32]", "dataset.transform.crop_size=[32,32]", "batch_size=2",
    "trainer.max_steps=4", "trainer.val_every_n_steps=4", "trainer.accelerator=cpu",
    "optimizer.warmup_steps=1", "callback=[ema]", "logger=null", "report=null",
]  # fmt: skip


def last(run: str) -> dict:
    return torch.load(Path(run) / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def test_struck_and_resumed_amid_the_annealing_is_the_same_training(segtrain, monkeypatch):
    monkeypatch.syspath_prepend(TESTS)
    code, _, err = segtrain(*RUN, "hydra.run.dir=outputs/whole")
    assert code == 0, err
    struck = "+callback.strike={_target_: faults.StrikeAt, event: step, count: 2, number: 15}"
    assert segtrain(*RUN, struck, "hydra.run.dir=outputs/run")[0] == 128 + 15
    amid = last("outputs/run")["model.mask_probability"]
    assert ((amid > 0) & (amid < 1)).any()
    assert segtrain("resume=outputs/run", "trust_code=true")[0] == 0
    one, other = last("outputs/whole"), last("outputs/run")
    assert not torch.equal(one["model.mask_probability"], amid)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


ANSWERS = [
    (["architecture=mask2former", "dataset=shapes_panoptic"],
     "dataset=shapes_panoptic has panoptic labels, which .* learn with inference=panoptic"),
    (["architecture=deeplabv3", "dataset=shapes_panoptic"],
     "dataset=shapes_panoptic has panoptic labels, which .* this inference is for 'semantic'"),
    (["architecture=mask2former", "inference=panoptic"], "inference=panoptic is for classes of"),
    (["architecture=mask2former", "dataset=shapes_instances"],
     "has instances for labels; .*; or give inference=masks"),
    (["architecture=mask2former", "inference=masks"],
     "has masks of classes for labels; .*; or give inference=whole"),
    (["architecture=mask2former", "inference=detect"],
     "architecture is for 'masks', loss is for 'masks', inference is for 'instance'"),
    (["architecture=mask_rcnn", "inference=masks", "dataset=shapes_instances"],
     "architecture is for 'instance', loss is for 'instance', inference is for 'masks'"),
    (["architecture=deeplabv3", "inference=panoptic", "dataset=shapes_panoptic"],
     "architecture is for 'semantic', loss is for 'semantic', inference is for 'masks'"),
    (["architecture=deeplabv3", "loss=mask_classification"],
     "architecture is for 'semantic', loss is for 'masks', inference is for 'semantic'"),
    (["architecture=mask2former", "loss=cross_entropy"],
     "architecture is for 'masks', loss is for 'semantic', inference is for 'semantic'"),
]  # fmt: skip


@pytest.mark.parametrize(("choices", "message"), ANSWERS)
def test_what_does_not_belong_together(choices, message, segtrain):
    few = "dataset.source.num_images={train: 2, val: 2, test: 2}"
    code, _, err = segtrain(*choices, *small_network(choices[0]), few, "trainer.max_steps=1")
    assert code == 2
    assert re.search(message, err.replace("\n", " ")), err


@pytest.mark.parametrize(
    ("dataset", "inference", "headline"),
    [("shapes", "whole", "miou"), ("shapes_panoptic", "panoptic", "pq"),
     ("shapes_instances", "masks", "ap")],
)  # fmt: skip
def test_one_network_for_every_kind_of_labels(dataset, inference, headline, segtrain):
    chosen = ["architecture=mask2former", f"dataset={dataset}", f"inference={inference}"]
    sizes = ["dataset.source.size=[64,64]", "dataset.transform.crop_size=[64,64]"]
    code, _, err = segtrain(
        *chosen, *small_network(chosen[0]), "loss.num_points=32", "batch_size=2",
        *(TINY_INSTANCES if inference == "masks" else sizes), "trainer.max_steps=1",
        "dataset.source.num_images={train: 2, val: 2, test: 2}", "dataset.num_workers=0",
        "callback=null", "logger=null", "report=null", "trainer.accelerator=cpu",
        "hydra.run.dir=run",
    )  # fmt: skip
    assert code == 0, err
    assert headline in results_of(Path("run"))["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask2former_shapes", "eomt_shapes"])
def test_learns_panoptic_segmentation(name, segtrain):
    code, _, err = segtrain(f"experiment={name}", "trainer.accelerator=cpu")
    assert code == 0, err
    metrics = results_of(only_run(f"outputs/{name}/*"))["metrics"]
    assert metrics["pq"] >= 0.6, metrics
