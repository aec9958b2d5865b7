"""A batch computed in parts is the batch computed at once, on one process and on several."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, TINY_INSTANCES, small_network
from processes import TESTS, end, start

THREE_STEPS = [
    *[o for o in TINY if not o.startswith("experiment=")],
    "+callback.fault={_target_: faults.NothingRandom}",
    "batch_norm.frozen=true",  # its statistics are of a part; see docs/devices.md
    "trainer.precision=32-true",
    "trainer.max_steps=3",
    "optimizer.lr=0.05",
    "batch_size=8",
]
# All anchors and regions train, none is drawn.
OF_ALL = ["architecture.samples=100000", "architecture.positive_fraction=1.0"]
OF_ALL_ANCHORS = ["architecture.rpn.samples=100000", "architecture.rpn.positive_fraction=1.0"]
# More queries than segments, and steps that no rounding makes a query look elsewhere by.
QUERIES = ["architecture.num_queries=30", "loss.num_points=64", "optimizer.lr=1e-3"]
CROPS = ["dataset.source.size=[64,64]", "dataset.transform.crop_size=[64,64]"]
CASES = {
    "ohem": ["dataset=shapes", "architecture=deeplabv3", "loss=ohem", "loss.pixel.min_kept=0.3",
             "loss.pixel.threshold=0.1"],
    "encnet": ["dataset=shapes", "architecture=encnet",
               "loss.pixel.class_weights=[1,2,1,2,1,2,1,2]"],
    "labels": ["dataset=shapes", "architecture=deeplabv2", "loss.resize=labels"],
    "unnormalised": ["dataset=shapes", "architecture=fcn_torchvision", "loss.normalize=false",
                     "optimizer.lr=1e-5"],
    "lovasz": ["dataset=shapes", "architecture=pspnet", "loss=lovasz",
               "loss.region.per_image=true"],
    "mask_rcnn": ["dataset=shapes_instances", "architecture=mask_rcnn", *TINY_INSTANCES,
                  *OF_ALL, *OF_ALL_ANCHORS],
    "panet": ["dataset=shapes_instances", "architecture=panet", *TINY_INSTANCES, *OF_ALL,
              *OF_ALL_ANCHORS],
    "mask2former": ["dataset=shapes_panoptic", "architecture=mask2former", "inference=panoptic",
                    *QUERIES, *CROPS],
    "mask2former_instances": ["dataset=shapes_instances", "architecture=mask2former",
                              *TINY_INSTANCES, "inference=masks", *QUERIES],
    "fpn": ["dataset=shapes_instances", "architecture=fpn", *TINY_INSTANCES, *OF_ALL],
}  # fmt: skip


SLOW = ("panet", "fpn", "mask2former_instances")


def settings(name: str) -> list[str]:
    chosen = CASES[name]
    tiny = THREE_STEPS
    if chosen[0] == "dataset=shapes_instances":
        tiny = [o for o in THREE_STEPS if "crop_size" not in o and "source.size" not in o]
    return [*chosen[:2], *small_network(*chosen[:2]), *tiny, *chosen[2:]]


def weights(run: str) -> dict:
    return torch.load(Path(run) / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def assert_close(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    difference = max((one[n].double() - other[n].double()).abs().max().item() for n in one)
    assert difference <= 1e-6


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CASES],
)
def test_parts_are_the_whole(segtrain, monkeypatch, name):
    monkeypatch.syspath_prepend(TESTS)
    for parts in (1, 4):
        code, _, err = segtrain(
            *settings(name), f"trainer.accumulate_grad_batches={parts}",
            f"hydra.run.dir=outputs/{parts}",
        )  # fmt: skip
        assert code == 0, err
    assert_close(weights("outputs/1"), weights("outputs/4"))


def test_resumed_with_another_number_of_parts(segtrain, monkeypatch):
    """The same images in each step, validated at the same steps."""
    monkeypatch.syspath_prepend(TESTS)
    run = [*settings("ohem"), "trainer.max_steps=6", "trainer.val_every_n_steps=2"]
    assert segtrain(*run, "hydra.run.dir=outputs/whole")[0] == 0
    struck = "+callback.strike={_target_: faults.StrikeAt, event: step, count: 3, number: 15}"
    assert segtrain(*run, struck, "hydra.run.dir=outputs/run")[0] == 128 + 15
    resumed = ["resume=outputs/run", "trust_code=true", "trainer.accumulate_grad_batches=4"]
    assert segtrain(*resumed)[0] == 0
    assert_close(weights("outputs/whole"), weights("outputs/run"))
    assert len(list(Path("outputs/run/checkpoints").iterdir())) == 2
    log = Path("outputs/run/run.log").read_text()
    assert [f"step {step}/6  val" in log for step in range(1, 7)] == [False, True] * 3


@pytest.mark.parametrize(
    "name",
    ["ohem", pytest.param("encnet", marks=pytest.mark.slow),
     pytest.param("mask2former", marks=pytest.mark.slow),
     pytest.param("mask_rcnn", marks=pytest.mark.slow)],
)  # fmt: skip
def test_two_processes_with_two_parts_each_are_the_whole(segtrain, monkeypatch, name):
    monkeypatch.syspath_prepend(TESTS)
    code, _, err = segtrain(*settings(name), "hydra.run.dir=outputs/whole")
    assert code == 0, err
    code, _, err = end(start(
        "-m", "segtrain", *settings(name), "trainer.devices=2",
        "trainer.accumulate_grad_batches=2", "hydra.run.dir=outputs/parts",
    ))  # fmt: skip
    assert code == 0, err
    assert_close(weights("outputs/whole"), weights("outputs/parts"))
