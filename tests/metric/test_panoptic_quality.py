"""Panoptic quality, against a slow count, Cityscapes' own evaluator and published figures."""

import contextlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation.evalPanopticSemanticLabeling import (
    average_pq,
    pq_compute_single_core,
)
from PIL import Image

from segtrain.label_set import VOID
from segtrain.metric.panoptic import (
    BITS,
    PanopticQuality,
    image_quality,
    panoptic_counts,
    quality,
)
from segtrain.segments import CROWD, index, pack


def random_maps(seed, classes=5, segments=12, size=(60, 80), crowds=True, void=0.1):
    """A drawn truth (classes, numbers) and a found map (H, W) with labels that resemble it."""
    rng = np.random.default_rng(seed)
    owner = np.zeros(size, int)
    for number in range(1, segments + 1):
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        height, width = rng.integers(1, 1 + np.array(size) // 3)  # a pixel at least
        owner[top : top + height, left : left + width] = number
    labels = rng.integers(0, classes - 1, segments + 1)  # the last class is absent
    numbers = np.arange(segments + 1)
    numbers[labels == 0] = 0  # stuff
    if crowds:
        numbers[(rng.random(segments + 1) < 0.2) & (labels > 0)] = CROWD
    truth_classes = labels[owner].astype(np.uint8)
    truth_classes[rng.random(size) < void] = VOID
    moved = np.roll(owner, rng.integers(-2, 3, 2), (0, 1))
    moved[rng.random(size) < 0.05] = rng.integers(0, segments + 1)
    found_labels = np.where(rng.random(segments + 1) < 0.8, labels, rng.integers(0, classes - 1))
    missing = rng.random(segments + 1) < 0.1
    kept, found = np.unique(np.where(missing[moved], -1, moved), return_inverse=True)
    if kept[0] < 0:
        return truth_classes, numbers[owner], found.reshape(size), found_labels[kept[1:]]
    return truth_classes, numbers[owner], found.reshape(size) + 1, found_labels[kept]


def slow(classes, numbers, found, labels, num_classes):
    """IoU sums, hits, false positives and misses (4, K), segment by segment."""
    counts = np.zeros((4, num_classes))
    segments = {(c, n) for c, n in zip(classes.ravel(), numbers.ravel(), strict=True) if c != VOID}
    masks = {key: (classes == key[0]) & (numbers == key[1]) for key in segments}
    matched = set()
    for number, label in enumerate(labels.tolist(), 1):
        own = found == number
        hit = False
        for key, mask in masks.items():
            union = (own & (classes != VOID)) | mask
            iou = np.count_nonzero(own & mask) / np.count_nonzero(union)
            if key[0] == label and key[1] != CROWD and iou > 0.5:
                counts[:2, label] += iou, 1
                matched.add(key)
                hit = True
        excused = (classes == VOID) | ((classes == label) & (numbers == CROWD))
        if not hit and np.count_nonzero(own & excused) / np.count_nonzero(own) <= 0.5:
            counts[2, label] += 1
    for label, number in segments - matched:
        counts[3, label] += number != CROWD
    return counts


def ours(classes, numbers, found, labels, num_classes):
    segments = {"map": torch.from_numpy(found).int(), "labels": torch.from_numpy(labels)}
    truth = index(torch.from_numpy(pack(classes, numbers)))
    return panoptic_counts(segments, truth, num_classes)


@pytest.mark.parametrize("seed", range(12))
def test_counts_equal_slow_ones(seed):
    maps = random_maps(seed, segments=3 + 5 * (seed % 4))
    counts = ours(*maps, 5).double().numpy()
    counts[0] /= 2**BITS
    np.testing.assert_allclose(counts, slow(*maps, 5), rtol=0, atol=1e-11)


def test_counts_of_300_segments():
    maps = random_maps(1, classes=100, segments=300, size=(120, 160))
    counts = ours(*maps, 100).double().numpy()
    counts[0] /= 2**BITS
    np.testing.assert_allclose(counts, slow(*maps, 100), rtol=0, atol=1e-11)


def row(*runs):
    """A picture one pixel high of (value, length)."""
    return np.concatenate([np.full((1, length), value) for value, length in runs], 1)


def test_half_is_no_match():
    classes, numbers = row((1, 20)).astype(np.uint8), row((1, 20))
    assert ours(classes, numbers, row((1, 10), (0, 10)), np.array([1]), 2).tolist() == [
        [0, 0], [0, 0], [0, 1], [0, 1],
    ]  # fmt: skip
    assert ours(classes, numbers, row((1, 11), (0, 9)), np.array([1]), 2)[1:].tolist() == [
        [0, 1], [0, 0], [0, 0],
    ]  # fmt: skip


@pytest.mark.parametrize(("excused", "extra"), [(10, 1), (11, 0)])
@pytest.mark.parametrize("kind", ["void", "crowd"])
def test_what_lies_more_than_half_in_void_or_a_crowd_is_no_mistake(excused, extra, kind):
    classes = row((VOID if kind == "void" else 1, excused), (0, 20 - excused)).astype(np.uint8)
    numbers = row((CROWD if kind == "crowd" else 0, excused), (0, 20 - excused))
    counts = ours(classes, numbers, row((1, 20)), np.array([1]), 2)
    assert counts[2].tolist() == [0, extra]
    assert counts[3].tolist() == [1, 0]  # crowds are none


def test_a_crowd_of_another_class_excuses_nothing():
    classes, numbers = row((0, 20)).astype(np.uint8), row((CROWD, 20))
    assert ours(classes, numbers, row((1, 20)), np.array([1]), 2)[2].tolist() == [0, 1]


def test_nothing_found_and_nothing_there():
    empty = np.zeros((2, 3), int), np.zeros(0, int)
    counts = ours(np.full((2, 3), VOID, np.uint8), np.zeros((2, 3), int), *empty, 2)
    assert counts.tolist() == [[0, 0]] * 4
    assert image_quality(counts).isnan()
    assert quality(counts).means([0, 1]) == {"pq": None, "sq": None, "rq": None}
    counts = ours(np.zeros((2, 3), np.uint8), np.zeros((2, 3), int), *empty, 2)
    assert quality(counts).pq == quality(counts).sq == [0.0, None]
    assert image_quality(counts) == 0


def test_quality_of_an_image_is_over_all_classes_together():
    classes = row((0, 10), (1, 10), (2, 10)).astype(np.uint8)
    found, labels = row((1, 10), (2, 8), (3, 2), (0, 10)), np.array([0, 1, 0])
    counts = ours(classes, row((0, 30)), found, labels, 3)
    assert image_quality(counts).item() == pytest.approx((1 + 0.8) / (2 + (1 + 1) / 2))


def test_order_does_not_matter():
    counts = [ours(*random_maps(seed), 5) for seed in range(4)]
    one, other = PanopticQuality(5), PanopticQuality(5)
    for number in range(4):
        one.update(counts[number])
        other.update(counts[3 - number])
    assert torch.equal(one.compute(), other.compute())
    assert torch.equal(one.compute(), sum(counts))


def write(folder, name, ids):
    colours = np.dstack([ids % 256, ids // 256 % 256, ids // 65536]).astype(np.uint8)
    Image.fromarray(colours).save(folder / name)


def official(folder, samples, num_classes, things):
    """Qualities by class, of all, things and stuff by Cityscapes' evaluator."""
    entries = []
    for image, (classes, numbers, found, labels) in enumerate(samples):
        keys = np.where(classes == VOID, 0, (classes.astype(int) + 1) * 2**16 + numbers)
        write(folder, f"{image}_truth.png", keys)
        write(folder, f"{image}_found.png", found)
        truths = [
            {"id": int(key), "category_id": int(key >> 16) - 1, "area": int((keys == key).sum()),
             "iscrowd": int(key % 2**16 == CROWD)}
            for key in np.unique(keys[keys > 0])
        ]  # fmt: skip
        segments = [{"id": n, "category_id": c} for n, c in enumerate(labels.tolist(), 1)]
        entries.append((
            {"image_id": image, "file_name": f"{image}_truth.png", "segments_info": truths},
            {"image_id": image, "file_name": f"{image}_found.png", "segments_info": segments},
        ))  # fmt: skip
    categories = {k: {"id": k, "isthing": int(k in things)} for k in range(num_classes)}
    with contextlib.redirect_stdout(io.StringIO()):
        stat = pq_compute_single_core(0, entries, folder, folder, categories)
    return average_pq(stat, categories)


def test_equal_to_cityscapes_own_evaluator(tmp_path):
    samples = [random_maps(seed, classes=9, segments=20) for seed in range(6)]
    things = {2, 3, 4, 7}
    theirs = official(tmp_path, samples, 9, things)
    total = sum(ours(*sample, 9) for sample in samples)
    found = quality(total)
    parts = {"All": range(9), "Things": things, "Stuff": set(range(9)) - things}
    for name, classes in parts.items():
        expected = {key: theirs[name][key] for key in ("pq", "sq", "rq")}
        assert found.means(sorted(classes)) == pytest.approx(expected, abs=1e-9)
    for label, expected in theirs["per_class"].items():
        if found.pq[label] is not None:
            assert found.pq[label] == pytest.approx(expected["pq"], abs=1e-9)
    assert found.pq[8] is None
    assert 0.2 < found.means(range(9))["pq"] < 0.8


@pytest.fixture
def known(real_data) -> Path:
    folder = real_data / "panoptic_eval"
    if not folder.is_dir():
        pytest.skip("SEGTRAIN_DATA does not hold the panoptic sample data")
    return folder


def ids(path):
    colours = np.array(Image.open(path).convert("RGB"), int)
    return colours @ [1, 256, 65536]


def coco_maps(folder, entry, order):
    """Classes and numbers (H, W) of one image in COCO's panoptic format."""
    picture = ids(folder / entry["file_name"])
    classes, numbers = np.full(picture.shape, VOID, np.uint8), np.zeros(picture.shape, int)
    for number, segment in enumerate(entry["segments_info"], 1):
        own = picture == segment["id"]
        classes[own] = order.index(segment["category_id"])
        numbers[own] = CROWD if segment["iscrowd"] else number
    return classes, numbers


def found_maps(folder, entry, order):
    """Map and labels of one image in COCO's panoptic format."""
    picture, segments = ids(folder / entry["file_name"]), entry["segments_info"]
    found = sum(n * (picture == segment["id"]) for n, segment in enumerate(segments, 1))
    return found, np.array([order.index(segment["category_id"]) for segment in segments])


def test_known_figures_in_cocos_format(known):
    folder = known / "deeplab_testdata"
    expected = json.loads((known / "expected.json").read_text())["coco_format_4_images"]
    expected = expected["pq_by_running_panopticapi_7bb4655"]
    truth = json.loads((folder / "coco_gt.json").read_text())
    found = json.loads((folder / "coco_pred.json").read_text())["annotations"]
    found = {entry["image_id"]: entry for entry in found}
    order = [category["id"] for category in truth["categories"]]
    total = torch.zeros(4, len(order), dtype=torch.int64)
    for entry in truth["annotations"]:
        maps = coco_maps(folder / "coco_gt", entry, order)
        answer = found_maps(folder / "coco_pred", found[entry["image_id"]], order)
        total += ours(*maps, *answer, len(order))
    own = quality(total)
    is_thing = [category["isthing"] for category in truth["categories"]]
    parts = {"All": {0, 1}, "Things": {1}, "Stuff": {0}}
    for name, kinds in parts.items():
        classes = [label for label, kind in enumerate(is_thing) if kind in kinds]
        shown = {key: expected[name][key] for key in ("pq", "sq", "rq")}
        assert own.means(classes) == pytest.approx(shown, abs=1e-9)
    for label, category in enumerate(truth["categories"]):
        overlaps, *counts = expected["per_class_iousum_tp_fp_fn"][category["name"]]
        assert total[0, label].item() / 2**BITS == pytest.approx(overlaps, abs=1e-7)
        assert total[1:, label].tolist() == counts


def test_known_figures_of_pairs_of_pictures(known):
    folder = known / "deeplab_testdata"
    expected = json.loads((known / "expected.json").read_text())["png_pairs_pq_published"]
    classes_of = expected["reading"]["instance_class_map"]["team"]
    picture = cv2.imread(str(folder / "team_gt_instance.png"), cv2.IMREAD_GRAYSCALE)
    lookup = np.full(256, VOID, np.uint8)
    for value, label in classes_of.items():
        lookup[int(value)] = VOID if label == 0 else label
    colours = np.array(Image.open(folder / "team_pred_class.png").convert("RGB"))
    found_classes = np.zeros(colours.shape[:2], int)
    for colour, label in expected["reading"]["class_colour_map"].items():
        found_classes[(colours == np.array(colour.split(","), int)).all(2)] = label
    instance = cv2.imread(str(folder / "team_pred_instance.png"), cv2.IMREAD_GRAYSCALE)
    keys = np.where(found_classes == 0, 0, found_classes * 256 + instance)
    kept, found = np.unique(keys, return_inverse=True)
    assert kept[0] == 0
    own = quality(ours(lookup[picture], picture.astype(int), found.reshape(keys.shape),
                       kept[1:] // 256, 3))  # fmt: skip
    figures = expected["team_alone_num_classes_3"]
    shown = {key: figures[key] for key in ("pq", "sq", "rq")}
    assert own.means(range(3)) == pytest.approx(shown, abs=1e-7)


def test_a_truth_against_itself(known):
    folder = known / "panopticapi_sample_data"
    truth = json.loads((folder / "panoptic_examples.json").read_text())
    order = [category["id"] for category in truth["categories"]]
    total = torch.zeros(4, len(order), dtype=torch.int64)
    for entry in truth["annotations"]:
        maps = coco_maps(folder / "panoptic_examples", entry, order)
        answer = found_maps(folder / "panoptic_examples", entry, order)
        total += ours(*maps, *answer, len(order))
    own = quality(total)
    assert own.means(range(len(order))) == {"pq": 1.0, "sq": 1.0, "rq": 1.0}
    assert sum(value is not None for value in own.pq) == 8
