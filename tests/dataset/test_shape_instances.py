import numpy as np
import pytest

from segtrain.dataset.instances import mask_boxes
from segtrain.dataset.labels import SHAPES, SHAPES_INSTANCES
from segtrain.dataset.shape_instances import shape_instances
from segtrain.errors import UserError


def split(name="train", count=12, size=(48, 64), seed=0):
    return shape_instances(name, SHAPES_INSTANCES, {name: count}, size, seed)


def test_masks_are_the_visible_parts_of_the_scene():
    source = split()
    for index in range(len(source)):
        scene = source.scenes.scene(index)
        for _ in range(2):  # drawn, and from memory
            image, target = source.read(index)
            assert (image == scene.image).all()
            assert (target["masks"] == scene.instances).all()
            assert (target["labels"] == scene.labels - 1).all()
        assert (target["boxes"] == mask_boxes(scene.instances)).all()
        assert (target["area"] == scene.instances.sum((1, 2))).all()
        assert not target["crowd"].any()
        assert target["image_id"] == index
        assert len(target["labels"]) >= 3
        names = [SHAPES_INSTANCES.names[label] for label in target["labels"]]
        assert names == [SHAPES.names[label] for label in scene.labels]


def test_arrays_belong_to_the_caller():
    source = split()
    image, target = source.read(0)
    image[:], target["masks"][:] = 0, 0
    again, other = source.read(0)
    assert again.any()
    assert other["masks"].any()


def test_counts_names_and_listing():
    source = split("val")
    counts = source.class_counts(1)
    assert counts.tolist() == [*np.bincount(source.read(1)[1]["labels"], minlength=7), 0]
    assert source.name(3) == "shapes/val/000003"
    keys = {split("val", seed=seed).listing().key for seed in (0, 1)}
    assert len(keys | {source.scenes.listing().key}) == 3
    with pytest.raises(UserError, match="no split 'holdout'; expected one of train"):
        shape_instances("holdout", SHAPES_INSTANCES, {"train": 3}, [64, 64], 0)


def test_classes_look_as_in_shapes():
    assert SHAPES_INSTANCES.num_classes == 7
    assert SHAPES_INSTANCES.palette == SHAPES.palette[1:]
