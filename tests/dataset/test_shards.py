"""Shards read from a folder: the samples, their order, what is damaged."""

import io
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import annotation, composed, write_coco, write_pair
from torch.utils.data import DataLoader

from segtrain.assembly import build_data
from segtrain.dataset.batches import collate_crops
from segtrain.dataset.labels import CITYSCAPES
from segtrain.dataset.order import windowed_permutation
from segtrain.dataset.panoptic_labels import CITYSCAPES_PANOPTIC
from segtrain.dataset.shard_index import ShardReading, check_description, open_shards
from segtrain.dataset.shard_labels import encode_mask
from segtrain.dataset.stream import StepSampler, TrainStream
from segtrain.errors import UserError
from segtrain.prepare.shards import write_shards

webdataset = pytest.importorskip("webdataset", reason="pip install segtrain[shards]")

SMALL = [
    "dataset.source.num_images={train: 12, val: 5, test: 5}",
    "dataset.source.size=[40, 40]",
    "dataset.num_workers=0",
]


def module(*overrides):
    return build_data(composed(*overrides))


def written(folder, *overrides, splits=("train",), count=4):
    data = module(*overrides)
    write_shards(data, list(splits), count, 128, folder)
    return data


@pytest.fixture
def shapes(tmp_path):
    """Data modules of files and of shards (3 images each), with crops of the images' size."""
    overrides = [*SMALL, "dataset.transform.crop_size=[32, 32]",
                 "dataset.transform.scale_range=[0.5, 2.0]"]  # fmt: skip
    written(tmp_path / "shards", *overrides)

    def make(*more):
        return module(*overrides, f"dataset.shards={tmp_path / 'shards'}", *more)

    return module(*overrides), make


def same(one, other):
    return all(np.array_equal(one[key], other[key]) for key in one)


def test_pairs_are_read_as_from_their_files(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(5):
        write_pair(
            tmp_path / "own", f"im.age{index}", rng.integers(0, 2, (30, 20 + index), np.uint8)
        )
    (tmp_path / "own/classes.txt").write_text("a\nb\n")
    root = f"dataset.source.root={tmp_path / 'own'}"
    data = written(tmp_path / "shards", "dataset=folder", root, splits=("train", "val"), count=2)
    reading = f"dataset.shards={tmp_path / 'shards'}"
    shards = module("dataset=folder", "dataset.source.root=nowhere", reading)
    assert shards.labels == data.labels
    for split in ("train", "val", "train+val"):
        files, read = data.source(split), shards.source(split)
        assert len(files) == len(read)
        index_of = {files.name(index): index for index in range(len(files))}
        for index in range(len(read)):
            other = index_of.pop(read.name(index))
            for a, b in zip(files.read(other), read.read(index), strict=True):
                assert np.array_equal(a, b)
                assert a.dtype == b.dtype
            assert np.array_equal(files.class_counts(other), read.class_counts(index))
            with open(files.image_file(other), "rb") as file:
                assert read.content(index)[0] == file.read()
    with pytest.raises(UserError, match="no shards of split 'tset'; there are: train, val"):
        shards.source("tset")


def test_instances_are_read_as_from_their_files(tmp_path):
    marks = [annotation(1, 3, [[10, 10, 30, 10, 30, 30]]), annotation(1, 1, [[0, 0, 9, 0, 9, 7]])]
    write_coco(tmp_path, marks)
    overrides = ["dataset=coco2017", f"dataset.source.root={tmp_path}", "dataset.num_workers=0"]
    data = written(tmp_path / "shards", *overrides, splits=("val2017",), count=2)
    shards = module(*overrides[::2], f"dataset.shards={tmp_path / 'shards'}").source("val2017")
    files = data.source("val2017")
    for index, position in enumerate(shards.table["position"]):
        (image, target), (own_image, own) = files.read(int(position)), shards.read(index)
        assert np.array_equal(image, own_image)
        assert target.keys() == own.keys()
        assert same(target, own)
        assert all(target[key].dtype == own[key].dtype for key in target if key != "image_id")
    drawn = written(tmp_path / "drawn", "dataset=shapes_instances", *SMALL).source("train")
    read = module("dataset=shapes_instances", *SMALL, f"dataset.shards={tmp_path / 'drawn'}")
    read = read.source("train")
    assert all(
        same(drawn.read(int(position))[1], read.read(index)[1])
        for index, position in enumerate(read.table["position"])
    )


@pytest.mark.parametrize("name", ["shapes_panoptic", "shapes_multilabel"])
def test_labels_of_several_bytes_are_read_as_drawn(tmp_path, name):
    data = written(tmp_path / "shards", f"dataset={name}", *SMALL, count=2)
    read = module(f"dataset={name}", *SMALL, f"dataset.shards={tmp_path / 'shards'}")
    files, shards = data.source("train"), read.source("train")
    for index, position in enumerate(shards.table["position"].tolist()):
        for ours, theirs in zip(shards.read(index), files.read(position), strict=True):
            assert np.array_equal(ours, theirs)
        assert np.array_equal(shards.class_counts(index), files.class_counts(position))


def test_shards_of_one_kind_of_masks_are_not_read_as_another(tmp_path):
    """A label map may be the same: that of Cityscapes is, semantic and panoptic."""
    described = {"kind": "masks", "dataset": "cityscapes", "labels": CITYSCAPES.to_plain()}
    with pytest.raises(UserError, match="hold masks, the data set has panoptic masks"):
        check_description(described, "there", CITYSCAPES_PANOPTIC, semantic=True)
    described = {"kind": "panoptic masks", "dataset": "cityscapes_panoptic",
                 "labels": CITYSCAPES_PANOPTIC.to_plain()}  # fmt: skip
    check_description(described, "there", CITYSCAPES_PANOPTIC, semantic=True)
    fewer = replace(CITYSCAPES_PANOPTIC, things=frozenset({13}))
    with pytest.raises(UserError, match="other classes"):
        check_description(described, "there", fewer, semantic=True)


def test_webdataset_itself_reads_them(shapes, tmp_path):
    files = shapes[0].source("train")
    urls = sorted(map(str, (tmp_path / "shards/train").glob("*.tar")))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    names = [sample["name.txt"].decode() for sample in samples]
    assert sorted(names) == [files.name(index) for index in range(12)]
    assert io.BytesIO(samples[0]["image.png"]).read(4) == b"\x89PNG"


def test_without_a_window_training_is_that_on_files(shapes):
    data, make = shapes
    shards = make()
    for position in range(24):
        ours = TrainStream(shards.source("train"), shards.transform, 3)[position]
        theirs = TrainStream(data.source("train"), data.transform, 3)[position]
        assert ours[2] == theirs[2]
        assert np.array_equal(ours[0], theirs[0])
        assert np.array_equal(ours[1], theirs[1])


def epoch(source, transform, rank, world, first_batch=0, workers=2, epochs=1):
    """What one process's workers read of an epoch of 12 images in batches of 6: bytes and names."""
    sampler = StepSampler(2 * epochs, 6, rank, world, first_batch)
    loader = DataLoader(TrainStream(source, transform, 3), batch_sampler=sampler,
                        num_workers=workers, collate_fn=collate_crops)  # fmt: skip
    return [
        (name, image.numpy().tobytes(), mask.numpy().tobytes())
        for batch in loader
        for image, mask, name in zip(batch["image"], batch["mask"], batch["name"], strict=True)
    ]


@pytest.mark.parametrize("window", ["auto", 1, 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_is_that_of_the_files_on_any_number_of_processes(shapes, window, world):
    data, make = shapes
    shards = make(f"dataset.shard_window={window}")
    source = shards.source("train")
    seen = [sample for r in range(world) for sample in epoch(source, shards.transform, r, world)]
    files = [sample[0] for sample in epoch(data.source("train"), data.transform, 0, 1)]
    assert Counter(sample[0] for sample in seen) == Counter(files)
    whole = epoch(source, shards.transform, 0, 1, workers=0)
    assert Counter(seen) == Counter(whole)  # crops and all


@pytest.mark.parametrize("window", ["auto", 2])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_resuming_amid_an_epoch_is_exact(shapes, window, world):
    _, make = shapes
    data = make(f"dataset.shard_window={window}")
    for rank in range(world):
        share = 6 // world
        whole = epoch(data.source("train"), data.transform, rank, world, epochs=3)
        resumed = epoch(data.source("train"), data.transform, rank, world, first_batch=3, epochs=3)
        assert whole[3 * share :] == resumed


def test_a_window_needs_few_shards_at_a_time():
    counts = [3, 4, 5, 6, 7]
    order, ends = windowed_permutation(counts, 2, seed=1, epoch=0)
    assert sorted(order) == list(range(25))
    owner = np.repeat(np.arange(5), counts)
    starts = [0, *ends[:-1]]
    shards = [set(owner[order[a:b]]) for a, b in zip(starts, ends, strict=True)]
    assert [len(window) for window in shards] == [2, 2, 1]
    assert set().union(*shards) == set(range(5))
    again = windowed_permutation(counts, 2, seed=1, epoch=1)[0]
    assert not np.array_equal(order, again)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "this shard is lost"),
        (lambda path: path.write_bytes(path.read_bytes()[:-512]), "this shard is damaged"),
    ],
)
def test_a_lost_or_cut_shard_is_named_at_once(shapes, tmp_path, damage, message):
    path = tmp_path / "shards/train/00002.tar"
    damage(path)
    with pytest.raises(UserError, match=f"{path}: {message}"):
        shapes[1]().source("train")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_shard_that_is_corrupt_or_goes_is_named_when_it_is_read(shapes, tmp_path, workers):
    data = shapes[1]()
    source = data.source("train")
    path = tmp_path / "shards/train/00002.tar"
    content = bytearray(path.read_bytes())
    content[int(source.table["start"][6]) + 50] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}: this shard is corrupt: shapes/train/0000"):
        epoch(source, data.transform, 0, 1, workers=workers)
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: this shard is lost"):
        epoch(source, data.transform, 0, 1, workers=workers)


def test_the_index_is_checked(shapes, tmp_path):
    table = tmp_path / "shards/train/samples.npz"
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"samples\.npz: corrupt"):
        shapes[1]().source("train")
    described = tmp_path / "shards/dataset.json"
    described.write_text(json.dumps({**json.loads(described.read_text()), "version": 9}))
    with pytest.raises(UserError, match="shards of version 9"):
        shapes[1]().source("train")
    with pytest.raises(UserError, match="no shards there"):
        module("dataset.shards=nowhere").source("train")


def test_shards_of_other_classes_or_labels_are_refused(shapes, tmp_path):
    reading = f"dataset.shards={tmp_path / 'shards'}"
    with pytest.raises(UserError, match="dataset=shapes, have other classes"):
        module("dataset=camvid", reading).source("train")
    with pytest.raises(UserError, match="hold masks, the data set has instances"):
        module("dataset=shapes_instances", reading).source("train")
    with pytest.raises(UserError, match=r"cannot be used with dataset\.shards"):
        module(*SMALL, reading, "dataset.cache=true").read_source("train")


def test_the_same_data_set_gives_the_same_bytes(tmp_path):
    for name in "ab":
        written(tmp_path / name, *SMALL)
    for path in (tmp_path / "a").rglob("*.tar"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_more_splits_may_join_but_none_is_replaced(tmp_path):
    data = written(tmp_path, *SMALL)
    write_shards(data, ["val"], 1, 128, tmp_path)
    reading = ShardReading(str(tmp_path))
    assert len(open_shards(reading, ["train", "val"], data.labels, True)) == 17
    with pytest.raises(UserError, match="there are shards already, of shapes, train, val"):
        write_shards(data, ["val"], 1, 128, tmp_path)
    with pytest.raises(UserError, match="there are shards already"):
        written(tmp_path, "dataset=shapes_instances", *SMALL, splits=("test",))


def test_what_differs_after_writing_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "segtrain.prepare.shards.encode_mask", lambda mask: encode_mask(np.minimum(mask, 6))
    )
    with pytest.raises(
        UserError, match=r"0000\d\.tar: shapes/train/\d+ is not what its files hold"
    ):
        written(tmp_path, *SMALL)
    assert not (tmp_path / "dataset.json").exists()
