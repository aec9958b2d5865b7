"""Panoptic evaluation: its metrics, and the same numbers on several processes."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from segtrain.assembly import build_evaluation
from segtrain.errors import UserError
from segtrain.inference.masks import boxes_around
from segtrain.label_set import VOID, LabelSet
from segtrain.masks import encode
from segtrain.metric.confusion import confusion_matrix, scores
from segtrain.metric.panoptic import image_quality, panoptic_counts, quality
from segtrain.segments import CROWD, index, pack, unpack
from segtrain.task.panoptic import PanopticEvaluation, true_things

NAMES = ("sky", "car", "grass", "person")
LABELS = LabelSet(NAMES, ((0, 0, 0),) * 4, {k: k for k in range(4)}, things=frozenset({1, 3}))
SIZE = (40, 50)


def sample(seed):
    """Labels (H, W, 3) of an image, and an answer that resembles them."""
    rng = np.random.default_rng(seed)
    classes, numbers = np.zeros(SIZE, np.uint8), np.zeros(SIZE, int)
    for number in range(1, 9):
        top, left = rng.integers(0, SIZE)
        window = slice(top, top + rng.integers(4, 20)), slice(left, left + rng.integers(4, 20))
        label = rng.integers(0, 4)
        classes[window], numbers[window] = label, number if label in LABELS.things else 0
    numbers[(classes == 3) & (numbers == 4)] = CROWD
    classes[:3] = VOID
    mask = torch.from_numpy(pack(classes, numbers))
    truth = index(mask)
    found = truth.map.roll(int(rng.integers(0, 3)), 1).int()
    labels = truth.labels.where(torch.from_numpy(rng.random(len(truth.labels)) < 0.9), 0)
    masks = torch.stack([found == place for place in range(1, len(labels) + 1)])
    thing = torch.isin(labels, torch.tensor([1, 3])) & masks.any(2).any(1)
    instances = {
        "boxes": boxes_around(masks[thing]),
        "scores": torch.from_numpy(rng.random(int(thing.sum()))).float(),
        "labels": labels[thing],
        "masks": masks[thing],
        "frames": "image",
    }
    semantic = torch.cat([torch.zeros(1).long(), labels])[found.long()].to(torch.uint8)
    return mask, {"map": found, "labels": labels, "scores": torch.ones(len(labels)),
                  "semantic": semantic, "instances": instances}  # fmt: skip


def evaluated(samples):
    evaluation = PanopticEvaluation(LABELS)
    evaluation.reset()
    for mask, found in samples:
        evaluation.update([found], {"image": [], "mask": [mask], "name": [""]})
    return evaluation


def test_metrics_are_those_of_their_parts():
    samples = [sample(seed) for seed in range(4)]
    evaluation = evaluated(samples)
    metrics = evaluation.compute()
    counts = [panoptic_counts(found, index(mask), 4) for mask, found in samples]
    own = quality(sum(counts))
    assert metrics[evaluation.headline] == own.means(range(4))["pq"]
    for part, classes in (("", range(4)), ("_things", [1, 3]), ("_stuff", [0, 2])):
        for name, value in own.means(classes).items():
            assert metrics[name + part] == value
    assert metrics["per_class_pq"] == dict(zip(NAMES, own.pq, strict=True))
    pixels = sum(
        confusion_matrix(found["semantic"], mask[..., 0], 4, VOID) for mask, found in samples
    )
    assert metrics["miou"] == scores(pixels).miou
    assert metrics["per_class_iou"]["car"] == scores(pixels).per_class_iou[1]
    assert np.array_equal(evaluation.confusion(), pixels.numpy())
    assert evaluation.image_scores().tolist() == [image_quality(each).item() for each in counts]
    assert 0.1 < metrics["ap"] < metrics["ap50"] <= 1
    assert json.loads(json.dumps(metrics)) == metrics


def test_a_perfect_answer():
    mask, found = sample(5)
    truth = unpack(mask)
    whole = torch.isin(truth.labels, torch.tensor([1, 3])) & ~truth.crowd
    masks = truth.masks[whole]
    found["map"], found["labels"] = index(mask).map.int(), truth.labels
    found["semantic"] = mask[..., 0].clamp(max=3)
    found["instances"] = {
        "boxes": boxes_around(masks),
        "scores": torch.ones(len(masks)),
        "labels": truth.labels[whole],
        "masks": masks,
        "frames": "image",
    }
    metrics = evaluated([(mask, found)]).compute()
    for name in ("pq", "sq", "rq", "pq_things", "pq_stuff", "miou", "ap", "ap50", "ap75"):
        assert metrics[name] == pytest.approx(1.0)


def test_true_instances_are_the_segments_of_things():
    mask, _ = sample(2)
    truth = unpack(mask)
    chosen = torch.isin(truth.labels, torch.tensor([1, 3]))
    things = true_things(index(mask), LABELS.things, 7)
    assert things["codes"] == encode(truth.masks[chosen].numpy())
    assert things["labels"].tolist() == truth.labels[chosen].tolist()
    assert things["crowd"].tolist() == truth.crowd[chosen].tolist()
    assert things["area"].tolist() == truth.masks[chosen].sum((1, 2)).tolist()
    assert things["boxes"].tolist() == boxes_around(truth.masks[chosen]).tolist()
    assert (things["size"], things["image_id"]) == (SIZE, 7)
    nothing = true_things(index(torch.full((4, 5, 3), VOID, dtype=torch.uint8)), LABELS.things, 0)
    assert nothing["boxes"].shape == (0, 4)
    assert nothing["codes"] == []


def test_a_split_begins_anew():
    samples = [sample(seed) for seed in range(3)]
    evaluation = evaluated(samples)
    evaluation.compute()
    evaluation.reset()
    for mask, found in samples[:1]:
        evaluation.update([found], {"image": [], "mask": [mask], "name": [""]})
    alone = evaluated(samples[:1])
    assert evaluation.compute() == alone.compute()
    assert evaluation.image_scores().tolist() == alone.image_scores().tolist()


def test_other_metrics_are_refused():
    assert build_evaluation("panoptic", LABELS).headline == "pq"
    with pytest.raises(UserError, match="extra_metrics"):
        build_evaluation("panoptic", LABELS, ["dice"])


def work(rank, folder, count):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    evaluation = evaluated([sample(seed) for seed in range(rank, count, 2)])
    metrics = evaluation.compute()
    images, counts = evaluation.image_scores().tolist(), evaluation.confusion().tolist()
    (folder / f"{rank}.json").write_text(json.dumps([metrics, images, counts]))
    dist.destroy_process_group()


def test_processes_share_images(tmp_path):
    alone = evaluated([sample(seed) for seed in range(5)])
    expected = [alone.compute(), alone.image_scores().tolist(), alone.confusion().tolist()]
    # Forked, as those that load data are: torchmetrics takes long to import anew.
    multiprocessing.start_processes(work, (tmp_path, 5), nprocs=2, start_method="fork")
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected
