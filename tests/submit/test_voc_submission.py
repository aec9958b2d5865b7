"""VOC's archive against Pillow, tar and the same network's predictions."""

import json
import os
import subprocess
import sys
import tarfile
from io import BytesIO

import numpy as np
import pytest
import torch
from conftest import composed, only_run, results_of, untrained, write_pair
from PIL import Image

from segtrain.architecture.weights import load_weights, read_state_dict
from segtrain.assembly import build_data, build_evaluation, build_task
from segtrain.dataset.labels import VOC
from segtrain.dataset.voc import voc
from segtrain.errors import UserError
from segtrain.submit.submission import Submission
from segtrain.submit.voc import VocFormat, competition_of
from segtrain.trained import stored_config

SIZES = {"2008_000006": (33, 50), "2008_000011": (40, 30), "2008_000012": (33, 50)}
FOLDER = "results/VOC2012/Segmentation/comp5_test_cls"


@pytest.fixture
def tree(tmp_path):
    """Three images without masks in test, two with masks in train and val."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for name, size in SIZES.items():
        write_pair(base, name, np.zeros(size, np.uint8))
    (base / "masks").rename(tmp_path / "unused")
    for index, name in enumerate(("2007_000032", "2007_000033")):
        write_pair(base, name, np.full((30, 40), index, np.uint8))
    (base / "images").rename(base / "JPEGImages")
    (base / "masks").rename(base / "SegmentationClass")
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("\n".join(SIZES))
    (lists / "val.txt").write_text("2007_000032\n2007_000033\n")
    return tmp_path


@pytest.fixture
def checkpoint(tree):
    return untrained(
        tree / "voc.ckpt", "experiment=quickstart", "dataset=voc", f"dataset.source.root={tree}",
        "dataset.num_workers=0", "dataset.eval_batch_size=1", "dataset.splits.train=trainval",
        "architecture.backbone.name=test_resnet", "architecture.backbone.weights=none",
    )  # fmt: skip


def evaluate(segtrain, checkpoint, *overrides):
    return segtrain(
        "evaluate", f"checkpoint={checkpoint}", "submit=true", "trainer.accelerator=cpu",
        "trainer.precision=32-true", "hydra.run.dir=outputs/test", *overrides,
    )  # fmt: skip


def predictions(checkpoint, split):
    """Train ids of each image, by the network itself."""
    config, _ = stored_config(checkpoint)
    data = build_data(config)
    task = build_task(config, data.labels).eval()
    load_weights(task.model, read_state_dict(checkpoint), "run")
    source = data.source(split)
    for index in range(len(source)):
        image = torch.from_numpy(source.read(index)[0]).permute(2, 0, 1)
        with torch.no_grad():
            yield task.inference(task.model, [image])[0].argmax(0).numpy()


def entries(archive):
    with tarfile.open(archive) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


def test_archive_holds_the_predictions(segtrain, checkpoint):
    code, out, err = evaluate(segtrain, checkpoint, "split=test")
    assert code == 0, err
    run = only_run("outputs/test")
    archive = run / "voc2012_test_comp5_test.tar.gz"
    assert str(archive) in out
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "run.log", archive.name, "submission.json",
    }  # fmt: skip
    made = json.loads((run / "submission.json").read_text())
    assert (made["split"], made["images"], made["archive"]) == ("test", 3, archive.name)
    assert "metrics" not in made
    found = entries(archive)
    assert list(found) == [f"{FOLDER}/{name}.png" for name in SIZES]
    for content, wanted in zip(found.values(), predictions(checkpoint, "test"), strict=True):
        picture = Image.open(BytesIO(content))
        assert picture.mode == "P"
        assert content[24:26] == bytes([8, 3])  # bits and colour type of the PNG header
        assert picture.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert picture.getpalette()[765:] == [224, 224, 192]
        assert np.array_equal(np.asarray(picture), wanted)
    assert len(np.unique(wanted)) > 1


@pytest.mark.slow
def test_two_processes_write_the_same(segtrain, checkpoint):
    assert evaluate(segtrain, checkpoint, "split=test")[0] == 0
    archive = only_run("outputs/test") / "voc2012_test_comp5_test.tar.gz"
    done = subprocess.run(
        [sys.executable, "-m", "segtrain", "evaluate", f"checkpoint={checkpoint}", "split=test",
         "submit=true", "trainer.accelerator=cpu", "trainer.precision=32-true",
         "trainer.devices=2", "hydra.run.dir=outputs/two"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert entries(only_run("outputs/two") / archive.name) == entries(archive)


def test_split_with_labels_is_scored_too(segtrain, checkpoint):
    code, _, err = evaluate(segtrain, checkpoint, "split=val", "submit_competition=comp6")
    assert code == 0, err
    run = only_run("outputs/test")
    assert 0 <= results_of(run)["metrics"]["miou"] <= 1
    names = entries(run / "voc2012_val_comp6_test.tar.gz")
    assert list(names)[0] == "results/VOC2012/Segmentation/comp6_val_cls/2007_000032.png"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(["split=test", "submit=false"], "no public labels"),
     (["split=test", "submit_competition=comp4"], "comp5, comp6"),
     (["dataset=shapes"], "shapes has no test server"),
     (["dataset=context", "dataset.labels.path=segtrain.dataset.labels.VOC"],
      "dataset=voc, cityscapes, cityscapes_instances, coco2014, coco2017")],
)  # fmt: skip
def test_what_no_server_takes_is_refused(segtrain, tree, overrides, message):
    dataset = "shapes" if overrides[0] == "dataset=shapes" else "voc"
    root = [f"dataset.source.root={tree}"] if dataset == "voc" else []
    run = untrained(
        tree / "run.ckpt", "experiment=quickstart", f"dataset={dataset}",
        *root, "architecture.backbone.name=test_resnet",
        "architecture.backbone.weights=none",
    )  # fmt: skip
    code, _, err = evaluate(segtrain, run, *overrides)
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["dataset.splits.train=train"], "comp5"),
        (["dataset.splits.train=trainval+trainval_hard"], "comp5"),
        (["dataset.splits.train=trainaug"], "comp6"),
        (["dataset.splits.train=train+sbd_val"], "comp6"),
        (["architecture.backbone.weights=imagenet"], "comp6"),
        (["weights=coco.ckpt"], "comp6"),
        (["dataset=cocovoc"], "comp6"),
    ],
)
def test_competition_of_runs(overrides, expected):
    plain = ["dataset=voc", "architecture=deeplabv3", "architecture.backbone.weights=none"]
    own = composed(*plain)
    assert competition_of([own, composed(*plain, *overrides)]) == expected


@pytest.fixture
def submission(tree):
    """A submission to which every image was written: class 0 at the top, 20 below."""
    source = voc(str(tree), "test", VOC)
    submission = Submission(
        build_evaluation("semantic", VOC), source, VocFormat("comp5", "test", "x"), tree / "run"
    )
    submission.reset()
    for index in range(len(source)):
        image, mask = source.read(index)
        scores = torch.zeros(21, *mask.shape)
        scores[20, 10:] = 1
        image, mask = torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)
        batch = {"image": [image], "mask": [mask], "name": [source.name(index)]}
        submission.update([scores], batch)
    assert submission.compute() == {}
    return submission


def test_what_is_right_passes(submission):
    with tarfile.open(submission.finish()) as tar:
        tar.extractall(submission.archive.parent, filter="data")
    picture = np.asarray(Image.open(submission.archive.parent / FOLDER / "2008_000006.png"))
    assert picture.shape == (33, 50)
    assert (picture[:10] == 0).all()
    assert (picture[10:] == 20).all()
    assert not submission.folder.exists()


@pytest.mark.parametrize("fault", ["gone", "size", "grey", "value", "palette", "broken"])
def test_a_wrong_file_is_named(submission, fault):
    path = submission.folder / FOLDER / "2008_000011.png"
    picture = Image.open(path)
    picture.load()
    if fault == "size":
        picture.resize((50, 33), 0).save(path)
    elif fault == "grey":
        Image.fromarray(np.asarray(picture)).save(path)
    elif fault == "value":
        picture.putpixel((0, 0), 21)
        picture.save(path)
    elif fault == "palette":
        picture.putpalette(bytes(range(256)) * 3)
        picture.save(path)
    elif fault == "broken":
        path.write_bytes(path.read_bytes()[:80])
    else:
        path.unlink()
    with pytest.raises(UserError, match="2008_000011"):
        submission.finish()
    assert not submission.archive.exists()


def test_a_missing_share_is_named(submission):
    lines = (submission.folder / "images-0.jsonl").read_text().splitlines()
    (submission.folder / "images-0.jsonl").write_text("\n".join(lines[:2]))
    with pytest.raises(UserError, match="2008_000012.*1 of 3"):
        submission.finish()


def test_archives_are_checked_for_every_image_once(submission):
    images = submission._images()
    archive = submission.folder / "x.tar.gz"
    server = submission.server
    for wrong, message in ((images[:2], "2008_000012"), ([*images, images[0]], "twice")):
        server.pack(submission.folder, wrong, archive)
        with pytest.raises(UserError, match=message):
            server.check(archive, images)
    server.pack(submission.folder, images, archive)
    with pytest.raises(UserError, match="2008_000012"):
        server.check(archive, images[:2])
