import math
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from segtrain.loss.detection import DetectionLoss, ProposalLoss


def outputs(anchors=8, positives=3, regions=6, examples=2, seed=0):
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw).requires_grad_()

    return {
        "objectness": normal(anchors),
        "objectness_target": (torch.arange(anchors) < positives).float(),
        "anchor_deltas": normal(positives, 4),
        "anchor_target": normal(positives, 4).detach(),
        "class_logits": normal(regions, 4),
        "class_target": torch.arange(regions) % 4,
        "box_deltas": normal(examples, 4),
        "box_target": normal(examples, 4).detach(),
        "mask_logits": normal(examples, 5, 5),
        "mask_target": torch.rand(examples, 5, 5, generator=draw),
    }


def smooth_l1(found, wanted, beta):
    total = 0.0
    for a, b in zip(found.flatten().tolist(), wanted.flatten().tolist(), strict=True):
        d = abs(a - b)
        total += 0.5 * d * d / beta if d < beta else d - 0.5 * beta
    return total


def binary(logits, target):
    total = 0.0
    for x, y in zip(logits.flatten().tolist(), target.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    return total


def test_terms_are_the_papers():
    out = outputs()
    terms = DetectionLoss(anchor_beta=1 / 9, box_beta=1.0)(out)
    scores = out["class_logits"].log_softmax(1)
    picked = -sum(float(scores[i, t]) for i, t in enumerate(out["class_target"].tolist()))
    expected = {
        "objectness": binary(out["objectness"], out["objectness_target"]) / 8,
        "anchor": smooth_l1(out["anchor_deltas"], out["anchor_target"], 1 / 9) / 8,
        "class": picked / 6,
        "box": smooth_l1(out["box_deltas"], out["box_target"], 1.0) / 6,
        "mask": binary(out["mask_logits"], out["mask_target"]) / 50,
    }
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_masks_of_proposals_weigh_more():
    out = outputs()
    terms = ProposalLoss(mask_weight=10.0)(out)
    assert float(terms["mask"]) == pytest.approx(
        10 * binary(out["mask_logits"], out["mask_target"]) / 50, rel=1e-5
    )


@pytest.mark.parametrize("loss", [DetectionLoss(0.1, 1.0), ProposalLoss(10.0)])
def test_without_objects_nothing_is_nan(loss):
    out = outputs(positives=0, examples=0)
    total = sum(loss(out).values())
    total.backward()
    assert math.isfinite(float(total))
    assert torch.isfinite(out["objectness"].grad).all()


def _share(rank, store, results):
    os.environ["MASTER_ADDR"] = "localhost"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    part = outputs(seed=0) if rank == 0 else outputs(16, 0, 10, 0, seed=1)
    terms = DetectionLoss(1 / 9, 1.0)(part)
    results[rank] = {name: float(term) for name, term in terms.items()}
    dist.destroy_process_group()


def test_processes_share_one_mean(tmp_path):
    """Uneven shares on two processes weigh as on one: their average is the whole batch's loss."""
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_share, (str(tmp_path / "store"), results), nprocs=2)
        got = {name: (results[0][name] + results[1][name]) / 2 for name in results[0]}
    parts = outputs(seed=0), outputs(16, 0, 10, 0, seed=1)
    joined = {key: torch.cat([part[key] for part in parts]).detach() for key in parts[0]}
    whole = DetectionLoss(1 / 9, 1.0)(joined)
    assert got == pytest.approx({name: float(term) for name, term in whole.items()}, rel=1e-5)
