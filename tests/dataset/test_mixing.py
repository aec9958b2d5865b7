"""Samples made of two, masks of classes: pixel and label are always one source's."""

import numpy as np
import pytest
import torch
import yaml
from conftest import composed
from torch.utils.data import DataLoader

from segtrain.assembly import build_data
from segtrain.configuration.folder import conf_dir, options
from segtrain.configuration.schema import checked
from segtrain.dataset.batches import collate_crops
from segtrain.dataset.labels import CAMVID, SHAPES_PANOPTIC
from segtrain.dataset.mixing import REACH, ClassMix, CutMix, PasteClasses
from segtrain.dataset.shapes import Shapes
from segtrain.dataset.stream import StepSampler, TrainStream
from segtrain.dataset.transforms import train_semantic
from segtrain.errors import UserError
from segtrain.segments import CROWD, numbers_of, pack

VOID, SIZE = 255, (30, 40)
TRANSFORM = train_semantic(SIZE, (0.5, 2.0), 0.0, 0.5, 0.0, 0.2, 0.2, 0.2, 0.1)
MIXES = {
    "cutmix": CutMix(1.0, (0.1, 0.5)),
    "classmix": ClassMix(1.0),
    "paste_classes": PasteClasses(CAMVID, ["building", "pole"], 1.0, tries=3),
}


def read(ahead: int):
    """Images that tell where each pixel is from: red how far ahead, green and blue the place."""
    rng = np.random.default_rng(ahead)
    mask = np.kron(rng.choice([0, 1, 2, 5, VOID], (6, 8)), np.ones((5, 5))).astype(np.uint8)
    rows, columns = np.indices(SIZE)
    return np.stack([np.full(SIZE, ahead), rows, columns], 2).astype(np.uint8), mask


def as_it_is(image, mask, seed):
    return image, mask


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_pixel_and_label_are_of_one_place_of_one_image(mix):
    mixed = 0
    for seed in range(20):
        image, mask = mix(read, as_it_is, (seed, 5))
        others = set(np.unique(image[..., 0]).tolist()) - {0}
        assert len(others) <= 1
        assert all(1 <= ahead <= REACH for ahead in others)
        for ahead in {0, *others}:
            source, labels = read(ahead)
            of_it = image[..., 0] == ahead
            assert (image[of_it] == source[of_it]).all()
            assert (mask[of_it] == labels[of_it]).all()
        mixed += bool(others)
    assert mixed >= 18


def test_cutmix_pastes_one_rectangle_of_the_share():
    for seed in range(30):
        image, _ = CutMix(1.0, (0.2, 0.3))(read, as_it_is, (seed,))
        rows, columns = np.nonzero(image[..., 0])
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert area == len(rows)
        assert 0.17 < area / image[..., 0].size < 0.33


@pytest.mark.parametrize("mix", ["classmix", "paste_classes"])
def test_whole_classes_are_pasted_and_never_void(mix):
    for seed in range(30):
        image, mask = MIXES[mix](read, as_it_is, (seed,))
        pasted = image[..., 0] > 0
        if not pasted.any():
            continue
        labels = read(int(image[..., 0].max()))[1]
        classes, shown = set(labels[pasted].tolist()), set(labels.ravel().tolist()) - {VOID}
        assert VOID not in classes
        assert (np.isin(labels, list(classes)) == pasted).all()
        if mix == "classmix":
            assert len(classes) == -(-len(shown) // 2)
        else:
            assert classes <= {CAMVID.names.index(name) for name in ("building", "pole")}


def test_without_names_the_smallest_class_is_pasted():
    mix = PasteClasses(CAMVID, None, 1.0, tries=1)
    for seed in range(10):
        image, _ = mix(read, as_it_is, (seed,))
        labels = read(int(image[..., 0].max()))[1]
        shown, counts = np.unique(labels[labels != VOID], return_counts=True)
        assert (image[..., 0] > 0).sum() == counts.min()
    void = np.full(SIZE, VOID, np.uint8)
    image, _ = mix(lambda ahead: (read(ahead)[0], void), as_it_is, (0,))
    assert (image[..., 0] == 0).all()


def test_what_is_not_mixed_is_what_it_was():
    source = Shapes("train", num_images=10, size=(40, 40), seed=0)
    plain = TrainStream(source, TRANSFORM, 3)
    for mix in (CutMix(0.0, (0.1, 0.5)), ClassMix(0.0), PasteClasses(CAMVID, ["pole"], 0.0, 1)):
        mixed = TrainStream(source, TRANSFORM, 3, mix)
        for position in range(4):
            for expected, got in zip(plain[position], mixed[position], strict=True):
                assert np.array_equal(expected, got)


def test_images_of_the_source_are_not_written_to():
    image, mask = read(0)
    kept = image.copy(), mask.copy()
    for array in (image, mask):
        array.flags.writeable = False
    ClassMix(1.0)(lambda ahead: read(ahead) if ahead else (image, mask), as_it_is, (0,))
    assert (image == kept[0]).all()
    assert (mask == kept[1]).all()


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_an_epoch_is_the_same_resumed_and_on_any_workers(mix):
    stream = TrainStream(Shapes("train", num_images=10, size=(40, 40), seed=0), TRANSFORM, 0, mix)

    def batches(sampler, workers):
        return list(DataLoader(stream, batch_sampler=sampler, num_workers=workers,
                               collate_fn=collate_crops))  # fmt: skip

    whole = batches(StepSampler(4, 4, 0, 1, first_batch=0), 0)
    resumed = batches(StepSampler(4, 4, 0, 1, first_batch=2), 2)
    shares = [batches(StepSampler(4, 4, rank, 2, first_batch=0), 0) for rank in range(2)]
    for expected, got in zip(whole[2:], resumed, strict=True):
        assert expected["name"] == got["name"]
        assert torch.equal(expected["image"], got["image"])
        assert torch.equal(expected["mask"], got["mask"])
    for step, expected in enumerate(whole):
        for rank in range(2):
            assert torch.equal(expected["mask"][rank::2], shares[rank][step]["mask"])
    assert not torch.equal(whole[0]["image"], whole[1]["image"])


def test_classes_are_those_of_the_data_set():
    with pytest.raises(UserError, match="no class bulding; the data set has sky, building"):
        PasteClasses(CAMVID, ["pole", "bulding"], 0.5, 4)


@pytest.mark.parametrize(
    ("dataset", "mix", "kind"),
    [("shapes", "mosaic", "is for instances"), ("shapes_instances", "cutmix", "is for masks")],
)
def test_a_mix_is_for_its_kind_of_labels(dataset, mix, kind):
    with pytest.raises(UserError, match=kind):
        build_data(composed(f"dataset={dataset}", f"dataset/mix={mix}"))


def target_of(name: str) -> str:
    return yaml.safe_load((conf_dir() / f"dataset/mix/{name}.yaml").read_text())["_target_"]


@pytest.mark.parametrize("name", options("dataset/mix"))
def test_every_preset_mixes_the_shapes(name):
    kind = "shapes_instances" if "instance" in target_of(name) else "shapes"
    config = composed(f"dataset={kind}", f"dataset/mix={name}", "dataset.mix.probability=1.0")
    data = build_data(checked("train", config))
    streams = [TrainStream(data.train_source, data.transform, 0, mix) for mix in (None, data.mix)]
    plain, mixed = (stream[0] for stream in streams)
    assert plain[0].dtype == mixed[0].dtype == np.uint8
    assert not np.array_equal(plain[0], mixed[0])


PANOPTIC = {
    "cutmix": CutMix(1.0, (0.1, 0.5), SHAPES_PANOPTIC),
    "classmix": ClassMix(1.0, SHAPES_PANOPTIC),
    "paste_classes": PasteClasses(SHAPES_PANOPTIC, None, 1.0, tries=3),
}


def read_panoptic(ahead: int):
    """As `read`, with labels whose instances are called the same in every image."""
    rng = np.random.default_rng(ahead)
    classes = np.kron(rng.choice([0, 1, 5, VOID], (6, 8)), np.ones((5, 5))).astype(np.uint8)
    numbers = np.kron(rng.choice([1, 2, 300, CROWD], (6, 8)), np.ones((5, 5), int))
    numbers[(classes == 5) | (classes == VOID)] = 0
    return read(ahead)[0], pack(classes, numbers)


@pytest.mark.parametrize("mix", PANOPTIC.values(), ids=PANOPTIC)
def test_instances_of_two_panoptic_samples_stay_apart(mix):
    mixed = 0
    for seed in range(20):
        image, mask = mix(read_panoptic, as_it_is, (seed, 5))
        segments = {}
        for ahead in np.unique(image[..., 0]).tolist():
            of_it = image[..., 0] == ahead
            own = read_panoptic(ahead)[1]
            assert (mask[of_it][:, 0] == own[of_it][:, 0]).all()
            # Where two pixels were of one segment they still are, and of two they are of two.
            pairs = np.unique(np.concatenate([own[of_it], mask[of_it]], 1), axis=0)
            assert len(pairs) == len(np.unique(pairs[:, :3], axis=0))
            assert len(pairs) == len(np.unique(pairs[:, 3:], axis=0))
            single = (numbers_of(pairs[None, :, 3:])[0] < CROWD) & (pairs[:, 0] < 5)
            segments[ahead] = {tuple(row) for row in pairs[single, 3:].tolist()}
            crowds = numbers_of(pairs[None, :, :3])[0] == CROWD
            assert (numbers_of(pairs[None, :, 3:])[0][crowds] == CROWD).all()
        if len(segments) == 2:
            mixed += 1
            assert not set.intersection(*segments.values())
    assert mixed >= 15


@pytest.mark.parametrize("name", ["classmix", "paste_classes"])
def test_pixels_of_several_classes_are_not_chosen_by_class(name):
    with pytest.raises(UserError, match=r"dataset\.mix=\w+ chooses pixels by their class"):
        build_data(composed("dataset=shapes_multilabel", f"dataset/mix={name}"))


@pytest.mark.parametrize("dataset", ["shapes_multilabel", "shapes_panoptic"])
def test_cutmix_is_for_all_masks(dataset):
    data = build_data(composed(f"dataset={dataset}", "dataset/mix=cutmix",
                               "dataset.mix.probability=1.0"))  # fmt: skip
    image, mask, _ = TrainStream(data.source("train"), data.transform, 0, data.mix)[3]
    assert image.shape[:2] == mask.shape[:2] == (96, 96)
    assert mask.ndim == 3
