"""`segtrain evaluate`: protocols, output stride and ensembles of trained runs."""

from types import SimpleNamespace

import pytest
import torch
from conftest import TINY, composed, only_run, results_of

from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.assembly import build_data, build_evaluation, build_task
from segtrain.cli import evaluate
from segtrain.cli.evaluate import find_checkpoint, join_ensemble, stored_config
from segtrain.dataset.labels import SHAPES_INSTANCES
from segtrain.errors import UserError
from segtrain.inference.ensemble import Ensemble, EnsembleInference


@pytest.fixture
def run(segtrain):
    assert segtrain(*TINY, "hydra.run.dir=outputs/run")[0] == 0
    return only_run("outputs/run")


def evaluated(segtrain, *overrides) -> dict:
    code, _, err = segtrain(
        "evaluate", "run=outputs/run", "trainer.accelerator=cpu", "hydra.run.dir=outputs/again",
        *overrides,
    )  # fmt: skip
    assert code == 0, err
    return results_of(only_run("outputs/again"))


def test_every_protocol_is_named(segtrain, run):
    found = evaluated(segtrain, "inference=multiscale", "inference/window=sliding",
                      "inference.window.crop_size=[24,24]", "inference.window.stride=[16,16]",
                      "inference.scales=[0.75,1.5]")["protocol"]  # fmt: skip
    assert found["inference"] == "sliding"
    assert found["scales"] == [0.75, 1.5]
    assert found["flip"] is True
    assert found["stride"] == [16, 16]


def test_output_stride_of_the_test(segtrain, run):
    """The same weights look at a finer grid; where the stride is what it was, nothing changes."""
    own = results_of(run)
    same = evaluated(segtrain, "output_stride=8")
    assert same["metrics"] == own["metrics"]
    other = evaluated(segtrain, "output_stride=16")
    assert other["metrics"] != own["metrics"]
    assert other["parameters"] == own["parameters"]
    assert other["protocol"]["output_stride"] == 16


def network(run):
    checkpoint = find_checkpoint({"run": str(run), "checkpoint": None})
    config, _ = stored_config(checkpoint)
    data = build_data(config)
    task = build_task(config, data.labels)
    load_weights(task.model, read_state_dict(checkpoint), "run")
    return data, task.model.eval(), task.inference


def test_ensembles_average_probabilities(segtrain, run):
    assert segtrain(*TINY, "seed=7", "hydra.run.dir=outputs/other")[0] == 0
    results = evaluated(segtrain, "ensemble=[outputs/other]")
    assert results["protocol"]["ensemble"] == 2
    assert results["architecture"] == "Ensemble"
    data, first, inference = network(run)
    _, second, _ = network(only_run("outputs/other"))
    image = torch.from_numpy(data.source("test").read(0)[0]).permute(2, 0, 1)
    with torch.no_grad():
        both = EnsembleInference([inference, inference], None)(Ensemble([first, second]), [image])
        each = [inference(model, [image])[0].softmax(0) for model in (first, second)]
    torch.testing.assert_close(both[0], (each[0] + each[1]) / 2)


def test_an_ensemble_of_one_run_twice_scores_as_the_run(segtrain, run):
    twice = evaluated(segtrain, "ensemble=[outputs/run]")
    assert twice["metrics"] == results_of(run)["metrics"]


def test_members_must_know_the_same_classes(segtrain, run, folder_set):
    other = [o for o in TINY if "dataset.source" not in o and "crop_size" not in o]
    assert segtrain(*other, "dataset=folder", f"dataset.source.root={folder_set}",
                    "dataset.transform.crop_size=[32,32]", "dataset.preflight_masks=2",
                    "hydra.run.dir=outputs/other")[0] == 0  # fmt: skip
    code, _, err = segtrain("evaluate", "run=outputs/run", "ensemble=[outputs/other]")
    assert code == 2
    assert "other classes" in err


@pytest.mark.parametrize("task", ["multilabel", "instance", "proposal", "panoptic"])
def test_ensembles_are_of_semantic_networks(task):
    own = SimpleNamespace(inference=SimpleNamespace(task=task))
    with pytest.raises(UserError, match=f"the network to evaluate is for '{task}'"):
        join_ensemble(own, ["outputs/other"], False)


def test_members_of_ensembles_are_semantic(monkeypatch):
    member = SimpleNamespace(config=composed("experiment=mask_rcnn_shapes"))
    monkeypatch.setattr(evaluate, "member", lambda *_: member)
    own = SimpleNamespace(model=None, inference=SimpleNamespace(task="semantic"))
    with pytest.raises(UserError, match="outputs/other is for 'instance'"):
        join_ensemble(own, ["outputs/other"], False)


def test_proposal_wise(segtrain, run):
    found = evaluated(segtrain, "inference=proposalwise", "inference.side=32",
                      "inference.boxes.shares=[0.5]", "inference.count=5")["protocol"]  # fmt: skip
    assert found["boxes"] == "GridBoxes"
    assert found["count"] == 5


def test_a_crf_after_all(segtrain, run):
    found = evaluated(segtrain, "inference=whole", "inference/crf=deeplabv2")["protocol"]
    assert found["crf"] is True
    assert found["crf_bilateral_sigma"] == 67


EXTRA = {"dice", "boundary_iou", "miou_i", "miou_c", "miou_i_worst", "calibration_error"}


def test_extra_metrics_are_stored_printed_and_shown(segtrain, run):
    code, out, err = segtrain(
        "evaluate", "run=outputs/run", "trainer.accelerator=cpu", "hydra.run.dir=outputs/again",
        "extra_metrics=[dice,boundary_iou,per_image,calibration]", "report.examples=0",
    )  # fmt: skip
    assert code == 0, err
    results = results_of(only_run("outputs/again"))
    found, own = results["metrics"], results_of(run)["metrics"]
    assert {name: found[name] for name in own} == own
    assert found.keys() - own.keys() == EXTRA | {"per_class_dice", "per_class_boundary_iou"}
    assert all(0 <= found[name] < 1 for name in EXTRA)
    assert found["dice"] > found["miou"] > 0
    assert results["config_sha256"] == results_of(run)["config_sha256"]  # nothing else differs
    for title in ("Dice %", "boundary IoU %", "calibration error", "mIoU by image"):
        assert title in out
    page = (only_run("outputs/again") / "report.html").read_text()
    for title in ("Dice by class", "boundary IoU by class", "calibration error"):
        assert title in page
    code, out, err = segtrain("table", "runs=outputs/again", "layout=runs", "sort=-dice")
    assert code == 0, err
    assert f"{100 * found['dice']:.2f}" in out


def test_calibration_is_of_probabilities_whatever_inference_gives(segtrain, run):
    """Logits of one look, probabilities of several networks that are the same."""
    once = evaluated(segtrain, "extra_metrics=[calibration]")["metrics"]
    twice = evaluated(segtrain, "extra_metrics=[calibration]", "ensemble=[outputs/run]")["metrics"]
    assert twice["calibration_error"] == pytest.approx(once["calibration_error"], abs=1e-5)


def test_extra_metrics_are_of_semantic_networks():
    with pytest.raises(UserError, match=r"extra_metrics=\['dice'\]"):
        build_evaluation("instance", SHAPES_INSTANCES, ["dice"])
