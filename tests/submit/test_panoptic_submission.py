"""Panoptic archives against the official scripts of Cityscapes, which are COCO's, and by hand."""

import json
import zipfile

import numpy as np
import pytest
import street
import torch
from PIL import Image

from segtrain.assembly import build_evaluation
from segtrain.dataset.panoptic_labels import CITYSCAPES_PANOPTIC, COCO_PANOPTIC
from segtrain.errors import UserError
from segtrain.label_set import VOID
from segtrain.segments import CROWD, pack
from segtrain.submit.panoptic import cityscapes_panoptic, coco_panoptic
from segtrain.submit.submission import Submission

FRAMES = ("frankfurt_000000_000294", "lindau_000000_000019")
SIZE = (20, 30)


class Images:
    """Names alone, with labels or without."""

    def __init__(self, names, labelled=False):
        self.names, self.labelled = names, labelled

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return self.names[index]


def scenes(labels):
    """Found segments and true labels (H, W, 3) of two images; one class is wrong, one thing missed.

    Of the second image nothing is found in a corner.
    """
    rng = np.random.default_rng(0)
    things = sorted(labels.things)
    stuff = [label for label in range(labels.num_classes) if label not in labels.things]
    for number in range(2):
        found = street.street(SIZE)
        found["labels"] = torch.tensor([stuff[0], stuff[3], things[2], things[0]])
        classes = np.append(VOID, found["labels"].numpy())[found["map"].numpy()]
        numbers = np.where(np.isin(classes, things), found["map"].numpy(), 0)
        classes[:, -3:], numbers[:, -3:] = things[1], 7  # missed
        classes[-2:, :9], numbers[-2:, :9] = things[2], CROWD
        if number:
            found["labels"][1] = stuff[4]
        noise = rng.random(SIZE) < 0.1
        classes[noise], numbers[noise] = VOID, 255
        yield found, pack(classes.astype(np.uint8), numbers)


def submitted(labels, server, names, run_dir, masks=True) -> Submission:
    evaluation = build_evaluation("panoptic", labels)
    submission = Submission(evaluation, Images(names, masks), server, run_dir)
    submission.reset()
    for name, (found, mask) in zip(names, scenes(labels), strict=True):
        batch = {"image": [torch.zeros(3, *SIZE)], "mask": [torch.from_numpy(mask)], "name": [name]}
        submission.update([found], batch)
    return submission


def unpacked(archive, folder):
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        file.extractall(folder)
    return folder


def write_truth(folder, labels) -> None:
    """The labels as Cityscapes' own script writes them."""
    annotations, ids = [], labels.decode(np.arange(labels.num_classes)).tolist()
    (folder / "truth").mkdir(parents=True)
    for frame, (_, mask) in zip(FRAMES, scenes(labels), strict=True):
        classes, numbers = mask[..., 0].astype(int), mask[..., 1] + 256 * mask[..., 2].astype(int)
        picture, segments = np.zeros((*SIZE, 3), np.uint8), []
        for label in np.unique(classes[classes != VOID]).tolist():
            for number in np.unique(numbers[classes == label]).tolist():
                where = (classes == label) & (numbers == number)
                crowd = number == CROWD
                own = ids[label] * 1000 + number if number and not crowd else ids[label]
                picture[where] = own % 256, own // 256, own // 65536
                segments.append({"id": own, "category_id": ids[label], "iscrowd": int(crowd),
                                 "area": int(where.sum())})  # fmt: skip
        name = f"{frame}_gtFine_panoptic.png"
        Image.fromarray(picture).save(folder / "truth" / name)
        annotations.append({"image_id": frame, "file_name": name, "segments_info": segments})
    categories = [{"id": ids[label], "name": name, "isthing": int(label in labels.things)}
                  for label, name in enumerate(labels.names)]  # fmt: skip
    content = {"annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(content))


def test_cityscapes_scores_as_the_official_script_says(tmp_path, monkeypatch):
    module = pytest.importorskip("cityscapesscripts.evaluation.evalPanopticSemanticLabeling")
    labels = CITYSCAPES_PANOPTIC
    server = cityscapes_panoptic(labels, "val", "x")
    names = [f"val/x/{frame}_leftImg8bit.png" for frame in FRAMES]
    submission = submitted(labels, server, names, tmp_path / "run")
    metrics, archive = submission.compute(), submission.finish()
    assert archive.name == "cityscapes_panoptic_val_x.zip"
    folder = unpacked(archive, tmp_path / "files")
    write_truth(tmp_path / "gt", labels)
    truth = json.loads((tmp_path / "gt" / "truth.json").read_text())
    found = json.loads((folder / "cityscapes_panoptic_val.json").read_text())
    pairs = list(zip(truth["annotations"], found["annotations"], strict=True))
    categories = {entry["id"]: entry for entry in truth["categories"]}
    counts = module.pq_compute_single_core(
        0, pairs, tmp_path / "gt" / "truth", folder / "cityscapes_panoptic_val", categories
    )
    scores = module.average_pq(counts, categories)
    assert 0.1 < metrics["pq"] < 0.9
    for part, ending in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for name in ("pq", "sq", "rq"):
            assert metrics[name + ending] == pytest.approx(scores[part][name]), (part, name)


def test_coco_s_archive_holds_the_segments(tmp_path):
    server = coco_panoptic(COCO_PANOPTIC, "test-dev2017", "x")
    names = ["test2017/000000000139.jpg", "test2017/000000000785.jpg"]
    submission = submitted(COCO_PANOPTIC, server, names, tmp_path / "run", masks=False)
    assert submission.compute() == {}
    archive, stem = submission.finish(), "panoptic_test-dev2017_x_results"
    assert archive.name == f"{stem}.zip"
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == [f"{stem}.json", f"{stem}/000000000139.png",
                                   f"{stem}/000000000785.png"]  # fmt: skip
    folder = unpacked(archive, tmp_path / "files")
    entries = json.loads((folder / f"{stem}.json").read_text())["annotations"]
    assert [entry["image_id"] for entry in entries] == [139, 785]
    for entry, (found, _) in zip(entries, scenes(COCO_PANOPTIC), strict=True):
        pixels = np.asarray(Image.open(folder / stem / entry["file_name"])).astype(int)
        ids = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
        assert np.array_equal(ids, found["map"].numpy())
        names_of = {
            raw: COCO_PANOPTIC.names[train]
            for raw, train in COCO_PANOPTIC.raw_to_train.items()
            if train is not None
        }
        listed = [names_of[segment["category_id"]] for segment in entry["segments_info"]]
        assert listed == [COCO_PANOPTIC.names[label] for label in found["labels"].tolist()]


@pytest.mark.parametrize("fault", ["unlisted", "listed", "category", "size", "missing", "name"])
def test_what_the_server_would_refuse_is_named(tmp_path, fault):
    server = coco_panoptic(COCO_PANOPTIC, "val2017", "x")
    names = ["000000000139.jpg", "000000000785.jpg"]
    submission = submitted(COCO_PANOPTIC, server, names, tmp_path / "run", masks=False)
    png = submission.folder / server.stem / "000000000785.png"
    entry = submission.folder / "000000000785.png.json"
    content, pixels = json.loads(entry.read_text()), np.array(Image.open(png))
    if fault == "unlisted":
        pixels[0, 0] = 0, 0, 1
    elif fault == "listed":
        content["segments_info"].append({"id": 9, "category_id": 1})
    elif fault == "category":
        content["segments_info"][0]["category_id"] = 12
    elif fault == "size":
        pixels = pixels[:, 1:]
    elif fault == "name":
        content["file_name"] = "000000000786.png"
    entry.write_text(json.dumps(content))
    Image.fromarray(pixels).save(png)
    if fault == "missing":
        png.unlink()
    with pytest.raises(UserError, match="00000000078[56].png"):
        submission.finish()
    assert not submission.archive.exists()


def test_segments_without_a_pixel_are_left_out(tmp_path):
    server = coco_panoptic(COCO_PANOPTIC, "val2017", "x")
    submission = Submission(build_evaluation("panoptic", COCO_PANOPTIC), Images(["7.jpg"]), server,
                            tmp_path / "run")  # fmt: skip
    submission.reset()
    found = street.street(SIZE)
    found["map"][found["map"] == 3] = 0
    submission.update([found], {"image": [torch.zeros(3, *SIZE)], "name": ["7.jpg"]})
    folder = unpacked(submission.finish(), tmp_path / "files")
    (entry,) = json.loads((folder / f"{server.stem}.json").read_text())["annotations"]
    assert [segment["id"] for segment in entry["segments_info"]] == [1, 2, 4]


def test_an_image_of_another_name_is_refused(tmp_path):
    server = coco_panoptic(COCO_PANOPTIC, "val2017", "x")
    with pytest.raises(UserError, match="photo.jpg"):
        submitted(COCO_PANOPTIC, server, ["photo.jpg", "1.jpg"], tmp_path / "run", masks=False)
