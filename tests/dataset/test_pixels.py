import shutil

import numpy as np
import pytest
from conftest import composed, write_pair
from panoptic_sets import write_set

from segtrain.assembly import build_data
from segtrain.dataset import cache
from segtrain.dataset.pixels import CachedPixels
from segtrain.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGTRAIN_CACHE", str(tmp_path / "cache"))


def data_of(root, **changes):
    config = composed("dataset=folder", f"dataset.source.root={root}", "dataset.num_workers=0")
    config["dataset"] |= {"cache": True, **changes}
    return build_data(config)


def test_reads_exactly_what_the_source_reads(folder_set):
    data = data_of(folder_set)
    source, cached = data.source("train"), data.train_source
    assert isinstance(cached, CachedPixels)
    assert len(cached) == len(source) == 6
    for index in range(6):
        assert cached.name(index) == source.name(index)
        for ours, theirs in zip(cached.read(index), source.read(index), strict=True):
            assert ours.dtype == theirs.dtype
            assert (ours == theirs).all()
            with pytest.raises(ValueError, match="read-only"):
                ours[:] = 0


def test_training_samples_are_the_same(folder_set):
    data = data_of(folder_set)
    for seed in range(5):
        ours = data.transform(*data.train_source.read(1), (seed,))
        theirs = data.transform(*data.source("train").read(1), (seed,))
        assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))


def test_images_of_any_size_and_evaluation(folder_set):
    write_pair(folder_set, "p6", np.ones((21, 33), np.uint8))
    data = data_of(folder_set)
    image, mask = data.val_source.read(0)
    assert image.shape == (21, 33, 3)
    batch = data.transform.collate_eval([(image, mask, "p6")])
    batch["image"][0][:] = 0  # belongs to the batch, not to the cache
    assert data.val_source.read(0)[0].any()


def test_is_built_once_and_again_after_a_change(folder_set, monkeypatch):
    built = []
    rebuild = cache._rebuild
    monkeypatch.setattr(cache, "_rebuild", lambda *args: (built.append(1), rebuild(*args)))
    for _ in range(2):
        assert len(data_of(folder_set).train_source) == 6
    assert len(built) == 1
    write_pair(folder_set, "p2", np.full((40, 48), 2, np.uint8))
    assert (data_of(folder_set).train_source.read(2)[1] == 2).all()
    assert len(built) == 2
    (folder_set / "classes.txt").write_text("sky\nvoid\ncar\n")  # another meaning of the masks
    assert set(np.unique(data_of(folder_set).train_source.read(0)[1])) == {0, 1, 255}
    assert len(built) == 3


def test_nothing_is_left_of_a_build_that_failed(folder_set, tmp_path):
    (folder_set / "masks" / "p3.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"p3\.png: not a readable mask"):
        data_of(folder_set).read_source("train")
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_needs_files_and_space(folder_set, monkeypatch):
    config = composed("dataset=shapes", "dataset.cache=true")
    with pytest.raises(UserError, match="shapes has no image and mask files"):
        build_data(config).read_source("train")
    usage = shutil.disk_usage(folder_set)._replace(free=1000)
    monkeypatch.setattr("segtrain.dataset.pixels.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"needs about .* GB .*SEGTRAIN_CACHE"):
        data_of(folder_set).read_source("train")


def test_labels_of_several_bytes_are_kept(tmp_path):
    """Panoptic ones, and planes of classes that may overlap."""
    write_set(tmp_path / "set", {"train": ["a", "b"], "val": ["c"]})
    planes = tmp_path / "planes"
    for name in ("one", "two"):
        write_pair(planes, name, np.kron(np.eye(4, dtype=np.uint8), np.full((5, 6), 255, np.uint8)))
    for kind, root in (("folder_panoptic", tmp_path / "set"), ("folder_multilabel", planes)):
        config = composed(f"dataset={kind}", f"dataset.source.root={root}", "dataset.cache=true",
                          "dataset.num_workers=0")  # fmt: skip
        data = build_data(config)
        source, cached = data.source("train"), data.train_source
        assert isinstance(cached, CachedPixels)
        for index in range(len(source)):
            for ours, theirs in zip(cached.read(index), source.read(index), strict=True):
                assert ours.ndim == 3
                assert np.array_equal(ours, theirs)
