"""COCO's archive against json, pycocotools and the same network's detections."""

import json
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from conftest import annotation, only_run, results_of, small_network, untrained, write_coco
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.assembly import build_data, build_evaluation, build_task
from segtrain.dataset import labels
from segtrain.dataset.batches import collate_instances
from segtrain.dataset.coco import CocoInstances
from segtrain.errors import UserError
from segtrain.metric.coco import CocoEvaluation
from segtrain.submit.coco import CocoFormat, read_entries
from segtrain.submit.submission import Submission
from segtrain.trained import stored_config

NAME = "detections_test-dev2017_test_results"
SIZES = {9: (40, 60), 139: (50, 30), 785: (40, 60)}  # H, W


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Three images of noise without labels in test-dev2017, three black ones in val2017."""
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))
    polygon = [[10, 10, 50, 10, 50, 30, 10, 30]]
    write_coco(tmp_path, [annotation(1, 5, polygon, category=90, bbox=(10, 10, 40, 20))])
    rng = np.random.default_rng(0)
    entries = []
    (tmp_path / "test2017").mkdir()
    for number, (height, width) in SIZES.items():
        name = f"{number:012}.jpg"
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "test2017" / name)
        entries.append({"id": number, "file_name": name, "height": height, "width": width})
    info = {"images": entries[::-1], "categories": [{"id": raw} for raw in labels.COCO_CLASSES]}
    (tmp_path / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(info))
    return tmp_path


def checkpoint_of(tree, experiment, *overrides):
    return untrained(
        tree / "run.ckpt", f"experiment={experiment}", "dataset=coco2017",
        f"dataset.source.root={tree}", "dataset.num_workers=0",
        *small_network(f"experiment={experiment}"), *overrides,
    )  # fmt: skip


@pytest.fixture
def checkpoint(tree):
    return checkpoint_of(
        tree, "mask_rcnn_shapes", "inference.short_sides=[64]", "inference.min_score=0",
        "inference.max_detections=8",
    )  # fmt: skip


def evaluate(segtrain, checkpoint, *overrides):
    return segtrain(
        "evaluate", f"checkpoint={checkpoint}", "submit=true", "trainer.accelerator=cpu",
        "trainer.precision=32-true", "hydra.run.dir=outputs/test", *overrides,
    )  # fmt: skip


def own_results(checkpoint, split):
    """The network's detections as the evaluation has them."""
    config, _ = stored_config(checkpoint)
    data = build_data(config)
    task = build_task(config, data.labels).eval()
    load_weights(task.model, read_state_dict(checkpoint), "run")
    source = data.source(split)
    evaluation = CocoEvaluation(data.labels.num_classes)
    for index in range(len(source)):
        batch = collate_instances([(*source.read(index), source.name(index))])
        with torch.no_grad():
            evaluation.update(task.inference(task.model, batch["image"]), batch["target"])
    return list(evaluation.results(data.labels, boxes=False))


def read_json(archive):
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == [f"{archive.stem}.json"]
        return json.loads(file.read(f"{archive.stem}.json"))


def test_archive_holds_the_detections(segtrain, tree, checkpoint):
    code, out, err = evaluate(segtrain, checkpoint, "split=test-dev2017")
    assert code == 0, err
    archive = only_run("outputs/test") / f"{NAME}.zip"
    assert str(archive) in out
    assert not (archive.parent / "results.json").exists()
    found = read_json(archive)
    assert len({entry["category_id"] for entry in found}) > 1
    wanted = own_results(checkpoint, "test-dev2017")
    assert sorted(found, key=json.dumps) == sorted(wanted, key=json.dumps)
    assert len(found) > 3
    truth = COCO(str(tree / "annotations" / "image_info_test-dev2017.json"))
    loaded = truth.loadRes(found)
    assert len(loaded.anns) == len(found)
    for entry in loaded.anns.values():
        assert loaded.annToMask(entry).shape == SIZES[entry["image_id"]]
        assert entry["area"] == loaded.annToMask(entry).sum()  # of the mask, not of a box


def test_split_with_labels_scores_as_pycocotools_says(segtrain, tree, checkpoint):
    code, _, err = evaluate(segtrain, checkpoint, "split=val2017")
    assert code == 0, err
    run = only_run("outputs/test")
    content = json.loads((tree / "annotations" / "instances_val2017.json").read_text())
    content["categories"] = [{"id": raw} for raw in labels.COCO_CLASSES]
    (tree / "truth.json").write_text(json.dumps(content))
    truth = COCO(str(tree / "truth.json"))
    found = truth.loadRes(read_json(run / "detections_val2017_test_results.zip"))
    script = COCOeval(truth, found, "segm")
    for step in (script.evaluate, script.accumulate, script.summarize):
        step()
    metrics = results_of(run)["metrics"]
    assert metrics["ar100"] == pytest.approx(script.stats[8])
    assert metrics["ap"] == pytest.approx(script.stats[0])


def test_proposals_are_refused(segtrain, tree):
    run = checkpoint_of(tree, "fpn_shapes")
    code, _, err = evaluate(segtrain, run, "split=test-dev2017")
    assert code == 2
    assert "no server takes segment proposals" in err


def detections(count):
    corner = torch.arange(count)[:, None] * 2.0
    return {
        "boxes": torch.cat([corner, corner, corner + 9, corner + 9], 1),
        "scores": torch.linspace(1, 0.1, count),
        "labels": torch.tensor([79, 0, 11][:count], dtype=torch.long),
        "masks": torch.ones(count, 28, 28),
    }


@pytest.fixture
def submission(tree, monkeypatch):
    """Three, no and two objects in the images, written by two processes."""
    source = CocoInstances(str(tree), "test-dev2017", labels.COCO, [])
    evaluation = build_evaluation("instance", labels.COCO)
    server = CocoFormat(labels.COCO, "test-dev2017", "test")
    parts = [Submission(evaluation, source, server, tree / "run") for _ in range(2)]
    parts[0].reset()
    for process, part in enumerate(parts):
        monkeypatch.setattr("segtrain.submit.submission.rank", lambda process=process: process)
        for index in range(process, 3, 2):
            batch = collate_instances([(*source.read(index), source.name(index))])
            part.update([detections((3, 0, 2)[index])], batch)
    assert parts[0].compute() == {}
    assert not evaluation.evaluation.images  # nothing is kept where nothing can be measured
    return parts[0]


def test_images_come_in_order_and_may_be_empty(submission):
    found = read_json(submission.finish())
    places = [(entry["image_id"], entry["category_id"]) for entry in found]
    assert places == [(9, 90), (9, 1), (9, 13), (785, 90), (785, 1)]
    assert {entry["segmentation"]["size"][0] for entry in found} == {40}


def test_no_detection_at_all_is_a_list(submission):
    for path in submission.folder.glob("[0-9]*.jsonl"):
        path.write_text("")
    assert read_json(submission.finish()) == []


WRONG = {
    "image": ({"image_id": 10}, "image 10"),
    "category": ({"category_id": 12}, "12"),
    "score": ({"score": 1.5}, "1.5"),
    "nan": ({"score": float("nan")}, "nan"),
    "size": ({"segmentation": {"size": [60, 40], "counts": "PPY14"}}, r"\[60, 40\]"),
    "box": ({"bbox": [1, 2, 3, 4]}, "bbox"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_entry_is_named(submission, change, message):
    path = submission.folder / "785.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(lines[0] + "\n" + json.dumps(json.loads(lines[1]) | change))
    with pytest.raises(UserError, match=f"{NAME}.json, entry 4.*{message}"):
        submission.finish()


def test_a_missing_image_is_named(submission):
    (submission.folder / "139.jsonl").unlink()  # which would be empty
    with pytest.raises(UserError, match="139.jsonl is missing"):
        submission.finish()
    assert not submission.archive.exists()


@pytest.mark.parametrize(
    "text", ["", "[\n", "[\n{}\n{}\n]", "[\n{},\n]", "[\n{}\n", "[\n{}\n]\n{}", "[\n{\n]", "{}"]
)
def test_damaged_lists_are_no_lists(text):
    with pytest.raises(UserError, match="x.json"):
        list(read_entries(BytesIO(text.encode()), "x.json"))


@pytest.mark.parametrize("entries", [[], [{"a": 1}], [{"a": 1}, {"b": 2}, {}]])
def test_lists_are_read_line_by_line(entries):
    text = "[\n" + ",\n".join(map(json.dumps, entries)) + ("\n]\n" if entries else "]\n")
    assert list(read_entries(BytesIO(text.encode()), "x.json")) == entries
