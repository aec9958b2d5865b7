"""Cityscapes' archives against the official evaluation scripts, which read and score them."""

import zipfile
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import only_run, results_of, small_network, untrained
from PIL import Image

from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.assembly import build_data, build_evaluation, build_task
from segtrain.dataset.cityscapes import CityscapesInstances, cityscapes
from segtrain.dataset.labels import CITYSCAPES, CITYSCAPES_INSTANCES
from segtrain.errors import UserError
from segtrain.masks import decode
from segtrain.submit.cityscapes import CityscapesFormat, CityscapesInstanceFormat
from segtrain.submit.instances import found_instances
from segtrain.submit.submission import Submission
from segtrain.trained import stored_config

SIZE = (64, 128)
FRAMES = ("frankfurt_000000_000294", "frankfurt_000001_000019", "lindau_000000_000019")
TEST = ("berlin_000000_000019", "bielefeld_000000_000321")
LISTED = np.array([7, 8, 11, 17, 21, 23, 24, 26, 33], np.uint8)


@pytest.fixture
def tree(tmp_path):
    """Val with labels and two objects an image, test without; images of noise."""
    rng = np.random.default_rng(0)
    for stem in (*FRAMES, *TEST):
        split, city = "test" if stem in TEST else "val", stem.split("_")[0]
        image = tmp_path / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8)).save(image)
        if split == "val":
            folder = tmp_path / "gtFine" / "val" / city
            folder.mkdir(parents=True, exist_ok=True)
            labels = np.kron(rng.choice(LISTED, (4, 8)), np.ones((16, 16), np.uint8))
            ids = labels.astype(np.uint16)
            ids[8:48, 10:60], ids[4:50, 70:110] = 26000, 24001
            labels[8:48, 10:60], labels[4:50, 70:110] = 26, 24
            Image.fromarray(labels).save(folder / f"{stem}_gtFine_labelIds.png")
            Image.fromarray(ids).save(folder / f"{stem}_gtFine_instanceIds.png")
    return tmp_path


def evaluate(segtrain, checkpoint, *overrides):
    code, _, err = segtrain(
        "evaluate", f"checkpoint={checkpoint}", "submit=true", "trainer.accelerator=cpu",
        "trainer.precision=32-true", "hydra.run.dir=outputs/test", *overrides,
    )  # fmt: skip
    assert code == 0, err
    return only_run("outputs/test")


def predictions(checkpoint, split, inference=None):
    """What the network itself finds in each image."""
    config, _ = stored_config(checkpoint)
    config["inference"] |= inference or {}
    data = build_data(config)
    task = build_task(config, data.labels).eval()
    load_weights(task.model, read_state_dict(checkpoint), "run")
    source = data.source(split)
    for index in range(len(source)):
        image = torch.from_numpy(source.read(index)[0]).permute(2, 0, 1)
        with torch.no_grad():
            yield task.inference(task.model, [image])[0]


def unpack(archive, folder):
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        file.extractall(folder)
    return folder


@pytest.fixture
def semantic(tree):
    return untrained(
        tree / "semantic.ckpt", "experiment=quickstart", "dataset=cityscapes",
        f"dataset.source.root={tree}", "dataset.num_workers=0",
        "architecture.backbone.name=test_resnet", "architecture.backbone.weights=none",
    )  # fmt: skip


def official(name, monkeypatch, tree, results):
    """An evaluation script of cityscapesscripts; its settings belong to the module."""
    module = pytest.importorskip(f"cityscapesscripts.evaluation.{name}")
    monkeypatch.setattr(module, "args", Namespace(**vars(module.args)))
    module.args.quiet, module.args.predictionPath = True, str(results)
    module.args.predictionWalk, module.args.JSONOutput = None, False
    module.args.cityscapesPath = str(tree)
    return module


def truths(tree, kind):
    return sorted(str(path) for path in tree.glob(f"gtFine/val/*/*_{kind}.png"))


def test_label_ids_score_as_the_official_script_says(segtrain, tree, semantic, monkeypatch):
    run = evaluate(segtrain, semantic, "split=val")
    folder = unpack(run / "cityscapes_val_test.zip", run / "files")
    script = official("evalPixelLevelSemanticLabeling", monkeypatch, tree, folder)
    script.args.evalInstLevelScore = False
    files = truths(tree, "labelIds")
    found = [script.getPrediction(script.args, file) for file in files]
    scores = script.evaluateImgLists(found, files, script.args)
    ours = results_of(run)["metrics"]
    assert scores["averageScoreClasses"] == pytest.approx(ours["miou"], abs=1e-9)
    for path, scored in zip(found, predictions(semantic, "val"), strict=True):
        picture = Image.open(path)
        assert (picture.mode, picture.size) == ("L", (128, 64))
        table = [label.id for label in sorted(script.trainId2label.values(), key=train_id)]
        wanted = np.array(table[-19:], np.uint8)[scored.argmax(0).numpy()]
        assert np.array_equal(np.asarray(picture), wanted)
    assert len(np.unique(wanted)) > 1


def train_id(label):
    return label.trainId if label.trainId != 255 else -1


def test_test_split_without_labels(segtrain, semantic):
    run = evaluate(segtrain, semantic, "split=test")
    assert not (run / "results.json").exists()
    with zipfile.ZipFile(run / "cityscapes_test_test.zip") as file:
        assert file.namelist() == [f"{stem}_labelIds.png" for stem in TEST]


def test_masks_of_a_detector_are_read_back(segtrain, tree, monkeypatch):
    run = untrained(
        tree / "instance.ckpt", "experiment=mask_rcnn_shapes", "dataset=cityscapes_instances",
        f"dataset.source.root={tree}", "dataset.num_workers=0",
        *small_network("experiment=mask_rcnn_shapes"), "inference.short_sides=[64]",
        "inference.min_score=0", "inference.max_detections=6",
    )  # fmt: skip
    done = evaluate(segtrain, run, "split=val")
    folder = unpack(done / "cityscapes_instances_val_test.zip", done / "files")
    script = official("evalInstanceLevelSemanticLabeling", monkeypatch, tree, folder)
    seen = 0
    for file, found in zip(truths(tree, "instanceIds"), predictions(run, "val"), strict=True):
        listed = script.readPredInfo(script.getPrediction(file, script.args), script.args)
        wanted = [
            (raw, score, decode([code], SIZE)[0].astype(bool))
            for raw, score, code in found_instances(found, SIZE, CITYSCAPES_INSTANCES)
        ]
        wanted = [entry for entry in wanted if entry[2].any()]
        assert len(listed) == len(wanted)
        for (path, info), (raw, score, mask) in zip(listed.items(), wanted, strict=True):
            picture = Image.open(path)
            assert picture.mode == "L"
            assert (info["labelID"], info["conf"]) == (raw, score)
            assert np.array_equal(np.asarray(picture), np.where(mask, 255, 0))
            seen += 1
    assert seen > 3
    assert "ap" in results_of(done)["metrics"]


def write_true_objects(tree, run_dir, monkeypatch):
    """A submission of two processes, whose detections are the true objects' boxes."""
    source = CityscapesInstances(str(tree), "val", CITYSCAPES_INSTANCES)
    server = CityscapesInstanceFormat(CITYSCAPES_INSTANCES, "val", "x")
    parts = [
        Submission(build_evaluation("instance", CITYSCAPES_INSTANCES), source, server, run_dir)
        for _ in range(2)
    ]
    parts[0].reset()
    for process, part in enumerate(parts):
        monkeypatch.setattr("segtrain.submit.submission.rank", lambda process=process: process)
        part.source.labelled = False  # so that they are only written
        for index in range(process, len(source), 2):
            image, target = source.read(index)
            single = ~target["crowd"]
            found = {
                "boxes": torch.from_numpy(target["boxes"][single]),
                "labels": torch.from_numpy(target["labels"][single]),
                "scores": torch.full((single.sum(),), 0.9),
                "masks": torch.ones(single.sum(), 28, 28),
            }
            batch = {"image": [torch.from_numpy(image).permute(2, 0, 1)],
                     "target": [target], "name": [source.name(index)]}  # fmt: skip
            part.update([found], batch)
    return parts[0]


def test_true_objects_have_full_ap(tree, monkeypatch):
    """Those of at least 1000 pixels, by the official script."""
    archive = write_true_objects(tree, tree / "run", monkeypatch).finish()
    folder = unpack(archive, tree / "files")
    script = official("evalInstanceLevelSemanticLabeling", monkeypatch, tree, folder)
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # which NumPy 2.4 has no longer
    monkeypatch.setattr(script, "writeDict2JSON", lambda *_: None)  # fails at NumPy's integers
    script.args.gtInstancesFile = str(tree / "gtInstances.json")
    files = truths(tree, "instanceIds")
    found = [script.getPrediction(file, script.args) for file in files]
    scores = script.evaluateImgLists(found, files, script.args)["averages"]["classes"]
    assert scores["car"]["ap50%"] == scores["person"]["ap50%"] == 1


@pytest.mark.parametrize("fault", ["list", "mask", "size", "values", "empty", "line", "class"])
def test_a_wrong_instance_file_is_named(tree, monkeypatch, fault):
    submission = write_true_objects(tree, tree / "run", monkeypatch)
    listed = submission.folder / f"{FRAMES[1]}.txt"
    mask = submission.folder / "masks" / f"{FRAMES[1]}_0.png"
    pixels = np.array(Image.open(mask))
    wrong = {"size": pixels[:32], "values": pixels // 255, "empty": pixels * 0}
    if fault in wrong:
        Image.fromarray(wrong[fault]).save(mask)
    elif fault == "line":
        listed.write_text(listed.read_text().replace(" 0.8", ""))
    elif fault == "class":
        listed.write_text(listed.read_text().replace(" 26 ", " 2 "))
    else:
        (listed if fault == "list" else mask).unlink()
    with pytest.raises(UserError, match=FRAMES[1]):
        submission.finish()


def test_a_missing_label_map_is_named(tree):
    source = cityscapes(str(tree), "test", CITYSCAPES)
    submission = Submission(
        build_evaluation("semantic", CITYSCAPES), source,
        CityscapesFormat(CITYSCAPES, "test", "x"), tree / "run",
    )  # fmt: skip
    submission.reset()
    images = [torch.from_numpy(source.read(index)[0]).permute(2, 0, 1) for index in range(2)]
    names = [source.name(index) for index in range(2)]
    submission.update([torch.rand(19, *SIZE)] * 2, {"image": images, "name": names})
    path = submission.folder / f"{TEST[1]}_labelIds.png"
    wanted = path.read_bytes()
    Image.fromarray(np.full(SIZE, 18, np.uint8)).save(path)  # a train id that is no label id
    with pytest.raises(UserError, match=f"{TEST[1]}.*18"):
        submission.finish()
    path.unlink()
    with pytest.raises(UserError, match=TEST[1]):
        submission.finish()
    path.write_bytes(wanted)
    assert zipfile.ZipFile(submission.finish()).namelist()[1] == path.name
