"""Every panoptic configuration gives image and labels, to train on and to evaluate, in batches."""

import numpy as np
import pytest
from conftest import composed
from panoptic_sets import write_set
from PIL import Image

from segtrain.assembly import build_data
from segtrain.configuration.folder import options
from segtrain.dataset.counts import class_frequency
from segtrain.dataset.stream import EvalImages, TrainStream
from segtrain.label_set import VOID
from segtrain.segments import unpack

NAMES = [name for name in options("dataset") if name.endswith("_panoptic")]


@pytest.fixture
def data_of(real_data, tmp_path, monkeypatch):
    """Data modules with little data: real ones, or stand-ins in the official layout."""
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))

    def make(name):
        chosen = []
        if name == "shapes_panoptic":
            chosen = ["dataset.source.num_images={train: 4, val: 2, test: 2}"]
        elif name == "coco_panoptic":
            chosen = [f"dataset.source.root={real_data / name}",
                      "dataset.splits={train: val2017, val: val2017, test: val2017}"]  # fmt: skip
        elif name == "cityscapes_panoptic":
            chosen = [f"dataset.source.root={real_data / 'cityscapes'}",
                      "dataset.splits={train: val, val: val, test: val}"]  # fmt: skip
        elif name == "folder_panoptic":
            write_set(tmp_path / "set", {"train": ["a", "b"], "val": ["c"]})
            chosen = [f"dataset.source.root={tmp_path / 'set'}"]
        elif name == "ade20k_panoptic":
            (tmp_path / "ade/annotations_instance/validation").mkdir(parents=True)
            for kind in ("images", "annotations"):
                (tmp_path / "ade" / kind).symlink_to(real_data / "ade20k" / kind)
            for path in (tmp_path / "ade/annotations/validation").iterdir():
                labels = np.asarray(Image.open(path))
                lamp = (labels == 37)[..., None] * np.array([19, 5, 0])  # the 19th of 100
                Image.fromarray(lamp.astype(np.uint8)).save(
                    tmp_path / "ade/annotations_instance/validation" / path.name)  # fmt: skip
            chosen = [f"dataset.source.root={tmp_path / 'ade'}", "dataset.splits.train=validation"]
        return build_data(composed(f"dataset={name}", *chosen, "dataset.num_workers=0",
                                   "dataset.transform.crop_size=[64, 96]"))  # fmt: skip

    return make


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_every_set(name, data_of):
    data = data_of(name)
    data.check()
    labels, source = data.labels, data.train_source
    assert labels.things
    assert labels.things < set(range(labels.num_classes))
    stream = TrainStream(source, data.transform, 0)
    batch = data.transform.collate_train([stream[position] for position in range(3)])
    assert batch["image"].shape == (3, 3, 64, 96)
    assert batch["mask"].shape == (3, 64, 96, 3)
    whole = data.transform.collate_eval([EvalImages(source, 0, 1)[0]])
    assert whole["mask"][0].shape == (*whole["image"][0].shape[1:], 3)
    for mask in (*batch["mask"], *whole["mask"]):
        classes = set(mask[..., 0].unique().tolist())
        assert classes <= {*range(labels.num_classes), VOID}
        found = unpack(mask)
        numbered = (mask[..., 1] > 0) & (mask[..., 0] != VOID)
        assert set(mask[..., 0][numbered].tolist()) <= labels.things
        assert set(found.labels.tolist()) == classes - {VOID}
    pixels, _ = class_frequency(source, name, 0)
    counts = sum(source.class_counts(index) for index in range(len(source)))
    assert pixels.tolist() == counts[:-1].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_joined_splits_and_listings(name, data_of):
    data = data_of(name)
    split = data.splits["val"]
    joined, one = data.source(f"{split}+{split}"), data.source(split)
    assert len(joined) == 2 * len(one)
    assert np.array_equal(joined.read(len(one))[1], one.read(0)[1])
    listing = one.listing()
    assert not listing.faults
    files = 2 * len(one) + len(one) * (name == "ade20k_panoptic")
    assert len(set(listing.files)) == (0 if name == "shapes_panoptic" else files)
