"""AP and AR against pycocotools, with masks pasted by torchvision."""

import contextlib
import copy
import io
import json
import pickle
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import multiprocessing

from segtrain.label_set import LabelSet
from segtrain.masks import paste
from segtrain.metric import matching
from segtrain.metric.coco import CocoEvaluation, best

SIZE = (120, 160)
COUNT = 4
IDS = [7, 13, 90, 91]
SPARSE = LabelSet(tuple("abcd"), ((0, 0, 0),) * COUNT, {7: 0, 13: 1, 90: 2, 91: 3, 5: None})


def random_boxes(rng, count):
    """From less than a pixel to more than the image, some of them partly outside."""
    side = rng.choice([0.5, 3, 20, 60, 150], (count, 1)) * rng.uniform(0.6, 1.4, (count, 2))
    corner = rng.uniform(0, 0.9, (count, 2)) * (SIZE[1], SIZE[0])
    return np.concatenate([corner, corner + side], 1).astype(np.float32)


def random_masks(rng, count):
    noise = rng.normal(0.6, 1.5, (count, 7, 7)).astype(np.float32)
    smooth = [cv2.GaussianBlur(mask, (0, 0), 1).clip(0, 1) for mask in noise]
    return np.array(smooth, np.float32).reshape(-1, 7, 7)


def official_codes(masks, boxes, size=SIZE):
    # Here, as it takes long to import, which the processes of a test need not do.
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    if not len(masks):
        return []
    pasted = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), size)
    columns = np.asfortranarray((pasted[:, 0] > 0.5).numpy().transpose(1, 2, 0).astype(np.uint8))
    return [code["counts"] for code in rle.encode(columns)]


def sample_of(masks, boxes, labels, scores, truth):
    """Detections, best first, truth, and the detections' official codes."""
    order = np.argsort(-scores, kind="stable")
    arrays = {"boxes": boxes, "scores": scores, "labels": labels, "masks": masks}
    found = {key: torch.from_numpy(array[order]) for key, array in arrays.items()}
    return found, truth, official_codes(masks[order], boxes[order], truth["size"])


def random_sample(seed, objects, detections, crowds=0.15, proposals=False):
    """Half of the detections are jittered objects; a score may stand many times."""
    rng = np.random.default_rng(seed)
    boxes, masks = random_boxes(rng, objects), random_masks(rng, objects)
    codes = official_codes(masks, boxes)
    area = [rle.area({"size": SIZE, "counts": code}) * rng.uniform(0.7, 1.3) for code in codes]
    truth = {"boxes": boxes, "labels": rng.integers(0, COUNT, objects), "codes": codes,
             "crowd": rng.random(objects) < crowds, "area": np.array(area, np.float32),
             "size": SIZE, "image_id": 1000 - 7 * seed}  # fmt: skip
    found_boxes, found_masks = random_boxes(rng, detections), random_masks(rng, detections)
    labels = rng.integers(0, COUNT, detections)
    for place in range(detections // 2 if objects else 0):
        chosen, shift = rng.integers(objects), rng.normal(0, 0.07, 4).astype(np.float32)
        side = np.tile(boxes[chosen, 2:] - boxes[chosen, :2], 2)
        found_boxes[place] = boxes[chosen] + shift * side
        found_masks[place], labels[place] = masks[chosen], truth["labels"][chosen]
    scores = rng.integers(1, 15, detections) + 5 * (np.arange(detections) < detections // 2)
    scores = (scores / 20).astype(np.float32)
    return sample_of(found_masks, found_boxes, labels * (not proposals), scores, truth)


@pytest.fixture(scope="module")
def samples():
    """Without objects, detections, both; with crowds only, with many of each; as proposals too."""
    odd = [(3, 0), (0, 9), (0, 0), (5, 30, 1.0), (300, 150), (6, 250), (1, 1050), (8, 5)]
    numbers = [*odd, *[(4, 15)] * 8]
    return {
        proposals: [random_sample(seed, *n, proposals=proposals) for seed, n in enumerate(numbers)]
        for proposals in (False, True)
    }


def annotations(entries, images):
    coco = COCO()
    categories = [{"id": number} for number in IDS]
    coco.dataset = {"images": images, "annotations": entries, "categories": categories}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def official_truth(samples):
    images, entries = [], []
    for _, truth, _ in samples:
        height, width = truth["size"]
        images.append({"id": truth["image_id"], "height": height, "width": width})
        for place, code in enumerate(truth["codes"]):
            x1, y1, x2, y2 = truth["boxes"][place].tolist()
            entries.append(
                {"id": len(entries) + 1, "image_id": truth["image_id"],
                 "category_id": IDS[truth["labels"][place]], "bbox": [x1, y1, x2 - x1, y2 - y1],
                 "segmentation": {"size": [height, width], "counts": code},
                 "area": truth["area"][place].item(), "iscrowd": int(truth["crowd"][place])}
            )  # fmt: skip
    return annotations(entries, images)


def official_results(samples, boxes, categories=IDS):
    entries = []
    for found, truth, codes in samples:
        for place, code in enumerate(codes):
            entry = {"image_id": truth["image_id"], "score": found["scores"][place].item(),
                     "category_id": categories[found["labels"][place]],
                     "segmentation": {"size": list(truth["size"]), "counts": code}}  # fmt: skip
            if boxes:  # without, loadRes takes the mask's area
                x1, y1, x2, y2 = found["boxes"][place].tolist()
                entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            entries.append(entry)
    return entries


def evaluate(truth, results, kind, class_agnostic=False, limits=(1, 10, 100)):
    """pycocotools' evaluation, and the scores out of its tables."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.params.useCats = int(not class_agnostic)
        evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()

    def mean(values):
        return None if (values == -1).all() else values[values > -1].mean()

    precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"]
    sizes = {"small": 1, "medium": 2, "large": 3}
    classes = 0 if class_agnostic else precision.shape[2]
    return evaluation, {
        "ap": mean(precision[..., 0]),
        "ap50": mean(precision[0, ..., 0]),
        "ap75": mean(precision[5, ..., 0]),
        **{f"ap_{name}": mean(precision[..., size]) for name, size in sizes.items()},
        **{f"ar_{name}": mean(recall[:, :, size, -1]) for name, size in sizes.items()},
        **{f"ar@{limit}": mean(recall[:, :, 0, index]) for index, limit in enumerate(limits)},
        **{f"ap of {label}": mean(precision[:, :, label, 0]) for label in range(classes)},
    }


def flat(part):
    scores = asdict(part)
    del scores["precision"]
    ar, per_class = scores.pop("ar"), scores.pop("per_class_ap")
    scores |= {f"ar@{limit}": value for limit, value in ar.items()}
    return scores | {f"ap of {label}": value for label, value in enumerate(per_class)}


def collected(samples, class_agnostic=False, limits=(1, 10, 100)):
    evaluation = CocoEvaluation(COUNT, class_agnostic, limits)
    for found, truth, _ in samples:
        evaluation.update([found], [truth])
    return evaluation


@pytest.mark.parametrize("limits", [(1, 10, 100), (10, 100, 1000)])
@pytest.mark.parametrize(
    ("class_agnostic", "proposals"), [(False, False), (True, False), (True, True)]
)
def test_equals_pycocotools(samples, monkeypatch, class_agnostic, proposals, limits):
    """Without classes there is no AP, and images are matched some at a time."""
    monkeypatch.setattr(matching, "IMAGES_AT_ONCE", 7)
    chosen = samples[proposals]
    ours = collected(chosen, class_agnostic, limits).compute()
    for kind, part in (("segm", ours.masks), ("bbox", ours.boxes)):
        results = official_results(chosen, boxes=kind == "bbox")
        peer, theirs = evaluate(official_truth(chosen), results, kind, class_agnostic, limits)
        assert None not in theirs.values()
        if class_agnostic:
            theirs |= {name: None for name in theirs if name.startswith("ap")}
            assert 0.01 < part.ar[limits[0]] < part.ar[limits[-1]] < 0.99
            assert part.precision is None
        else:
            assert 0.02 < part.ap < part.ap50 < 0.9
            areas = [part.precision.mean(), *part.precision[[0, 5]].mean(1)]
            assert areas == pytest.approx([part.ap, part.ap50, part.ap75])
        assert flat(part) == pytest.approx(theirs, abs=1e-9)
        if limits == (1, 10, 100) and not class_agnostic:  # what it prints
            stats = [part.ap, part.ap50, part.ap75, part.ap_small, part.ap_medium, part.ap_large,
                     *part.ar.values(), part.ar_small, part.ar_medium, part.ar_large]  # fmt: skip
            assert stats == pytest.approx(peer.stats, abs=1e-9)


def test_written_results_are_those_of_the_server(samples, tmp_path):
    evaluation, truth = collected(samples[False]), official_truth(samples[False])
    scores = evaluation.compute()
    for boxes, kind, part in ((False, "segm", scores.masks), (True, "bbox", scores.boxes)):
        evaluation.write_results(tmp_path / "results.json", SPARSE, boxes)
        entries = json.loads((tmp_path / "results.json").read_text())
        assert entries == list(evaluation.results(SPARSE, boxes))
        assert {entry["category_id"] for entry in entries} == set(IDS)
        _, theirs = evaluate(truth, str(tmp_path / "results.json"), kind)
        assert flat(part) == pytest.approx(theirs, abs=1e-9)
    # With a box in the entry, its area stands for the mask's: scores by size are others.
    _, theirs = evaluate(truth, str(tmp_path / "results.json"), "segm")
    assert theirs["ap"] == pytest.approx(scores.masks.ap, abs=1e-9)
    assert theirs["ap_small"] != pytest.approx(scores.masks.ap_small, abs=1e-4)


def test_nothing_found_and_nothing_to_be_found(tmp_path):
    sample = random_sample(0, 3, 0, crowds=0)
    empty = collected([sample])
    present = sample[1]["labels"]
    assert len(set(present)) < COUNT
    expected = [0.0 if label in present else None for label in range(COUNT)]
    assert empty.compute().masks.per_class_ap == expected
    assert empty.compute().boxes.ar == {1: 0.0, 10: 0.0, 100: 0.0}
    empty.write_results(tmp_path / "none.json", SPARSE)
    assert json.loads((tmp_path / "none.json").read_text()) == []
    only_crowds = collected([random_sample(1, 5, 10, crowds=1)])
    assert only_crowds.compute().masks.ap is None
    assert only_crowds.compute().masks.ar == {1: None, 10: None, 100: None}
    empty.reset()
    assert set(flat(empty.compute().boxes).values()) == {None}


def test_best_of_a_label():
    scores = np.array([0.9, 0.5, 0.8, 0.5, 0.5, 0.1], np.float32)
    labels = np.array([1, 1, 0, 0, 1, 1])
    assert best(scores, labels, 2, class_agnostic=False).tolist() == [2, 3, 0, 1]
    assert best(scores, labels, 3, class_agnostic=True).tolist() == [2, 3, 0]
    assert best(scores[:0], labels[:0], 3, class_agnostic=True).tolist() == []


def test_only_codes_are_kept():
    found, truth, _ = random_sample(3, 4, 250)
    evaluation = CocoEvaluation(COUNT, True, (10, 100))
    for number in range(10):
        evaluation.update([found], [{**truth, "image_id": number}])
    with pytest.raises(ValueError, match="image id 9 stands for two"):
        evaluation.update([found], [{**truth, "image_id": 9}])
    assert len(evaluation.images) == 10
    for image in evaluation.images.values():
        assert len(image.codes) == len(image.boxes) == len(image.scores) == 100
        arrays = image.boxes, image.scores, image.labels, image.truth["boxes"], image.truth["area"]
        assert all(array.base is None for array in arrays)  # no views of what the network made
    assert len(pickle.dumps(evaluation.images)) < 10 * 100 * 200


def work(rank, folder, samples):
    """Both processes have one of the images, as samplers do that give all the same number."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    evaluation = collected(samples[rank::2] + samples[2:3] * rank)
    evaluation.compute()
    scores = evaluation.compute()
    evaluation.write_results(folder / "shared.json", SPARSE)
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(scores))
    dist.destroy_process_group()


def test_processes_share_images(tmp_path):
    samples = [random_sample(seed, 4, 12) for seed in range(7)]
    alone = collected(samples)
    alone.write_results(tmp_path / "alone.json", SPARSE)
    multiprocessing.spawn(work, (tmp_path, samples), nprocs=2)
    for rank in range(2):
        assert pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) == alone.compute()
    assert (tmp_path / "shared.json").read_text() == (tmp_path / "alone.json").read_text()


def jittered_objects(coco, image_id, categories, rng):
    """A sample of a real image: its annotations, and they once more, coarse and moved."""
    entries, image = coco.imgToAnns[image_id], coco.imgs[image_id]
    boxes = np.array([entry["bbox"] for entry in entries], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([categories.index(entry["category_id"]) for entry in entries], np.int64)
    truth = {"boxes": boxes, "labels": labels, "size": (image["height"], image["width"]),
             "area": np.array([entry["area"] for entry in entries], np.float32),
             "crowd": np.array([entry["iscrowd"] for entry in entries], bool),
             "codes": [coco.annToRLE(entry)["counts"] for entry in entries],
             "image_id": image_id}  # fmt: skip
    masks = rng.normal(0, 0.1, (len(entries), 28, 28)).astype(np.float32)
    for mask, entry, (x1, y1, x2, y2) in zip(masks, entries, boxes.astype(int), strict=True):
        crop = coco.annToMask(entry)[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
        mask += cv2.resize(crop.astype(np.float32), (28, 28), interpolation=cv2.INTER_AREA)
    shift = rng.normal(0, 0.06, boxes.shape).astype(np.float32)
    moved = boxes + np.tile(boxes[:, 2:] - boxes[:, :2], 2) * shift
    return sample_of(masks, moved, labels, rng.random(len(masks), np.float32), truth)


def test_real_annotations(real_data):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(real_data / "coco_instances/annotations/instances_val2017.json"))
    rng, categories = np.random.default_rng(0), sorted(coco.cats)
    samples = [jittered_objects(coco, image_id, categories, rng) for image_id in coco.imgs]
    evaluation = CocoEvaluation(len(categories))
    evaluation.update([sample[0] for sample in samples], [sample[1] for sample in samples])
    ours = evaluation.compute()
    for kind, part in (("segm", ours.masks), ("bbox", ours.boxes)):
        results = official_results(samples, kind == "bbox", categories)
        _, theirs = evaluate(copy.deepcopy(coco), results, kind)
        assert flat(part) == pytest.approx(theirs, abs=1e-6)
        assert 0.3 < part.ap < 0.9


@pytest.mark.parametrize("frames", ["whole_pixels", "exact"])
def test_masks_lie_in_their_boxes_as_is_said(frames):
    found, truth, _ = random_sample(3, objects=5, detections=12)
    evaluation = CocoEvaluation(COUNT)
    evaluation.update([{**found, "frames": frames}], [truth])
    boxes, masks = found["boxes"].numpy(), found["masks"].numpy()
    kept = evaluation.images[truth["image_id"]].codes
    assert sorted(kept) == sorted(paste(masks, boxes, SIZE, 0.5, frames))
    other = "exact" if frames == "whole_pixels" else "whole_pixels"
    assert sorted(kept) != sorted(paste(masks, boxes, SIZE, 0.5, other))
