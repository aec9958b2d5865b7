import numpy as np
import pytest

from segtrain.dataset.labels import SHAPES
from segtrain.dataset.shapes import CLASSES, VOID, Shapes, shapes
from segtrain.errors import UserError


def split(name="train", num_images=40, size=(96, 96), seed=0):
    return Shapes(name, num_images=num_images, size=size, seed=seed)


def test_drawing_depends_on_the_index_alone():
    one, other = split(), split()
    forward = [one.read(index) for index in range(5)]
    backward = [other.read(index) for index in reversed(range(5))][::-1]
    for (image, mask), (same_image, same_mask) in zip(forward, backward, strict=True):
        assert np.array_equal(image, same_image)
        assert np.array_equal(mask, same_mask)


def test_splits_and_seeds_differ():
    images = [split(name).read(0)[0] for name in ("train", "val", "test")]
    images.append(split(seed=1).read(0)[0])
    for index, image in enumerate(images):
        assert not any(np.array_equal(image, other) for other in images[index + 1 :])


@pytest.mark.parametrize("size", [(32, 32), (96, 96), (70, 131)])
def test_semantic_and_instance_masks_agree(size):
    for index in range(10):
        scene = split(size=size).scene(index)
        assert scene.image.shape == (*size, 3)
        assert scene.instances.shape == (len(scene.labels), *size)
        assert scene.instances.sum(0).max(initial=0) <= 1
        semantic = np.zeros(size, np.uint8)
        for visible, label in zip(scene.instances, scene.labels, strict=True):
            assert visible.sum() >= 20
            semantic[visible] = label
        valid = scene.mask != VOID
        assert (scene.mask[valid] == semantic[valid]).all()


def test_void_is_one_pixel_on_either_side_of_a_boundary():
    scene = split().scene(3)
    owner = np.zeros(scene.mask.shape, int)
    for position, visible in enumerate(scene.instances):
        owner[visible] = position + 1
    boundary = np.zeros(owner.shape, bool)
    for axis in (0, 1):
        change = np.diff(owner, axis=axis) != 0
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        boundary[tuple(before)] |= change
        boundary[tuple(after)] |= change
    assert ((scene.mask == VOID) == boundary).all()


def test_classes_are_all_there_and_imbalanced():
    source = split(num_images=150)
    counts = np.zeros(256, int)
    for index in range(len(source)):
        counts += np.bincount(source.read(index)[1].ravel(), minlength=256)
    share = counts[: len(CLASSES)] / counts[: len(CLASSES)].sum()
    assert (share > 0.005).all()
    assert 0.4 < share[0] < 0.7
    assert share[CLASSES.index("stick")] < 0.5 * np.sort(share)[1]


def test_arrays_belong_to_the_caller():
    source = split()
    image, mask = source.read(0)
    image[:], mask[:] = 0, 0
    assert source.read(0)[0].any()


def test_errors():
    with pytest.raises(UserError, match="no split 'holdout'; expected one of train"):
        shapes("holdout", SHAPES, {"train": 3}, [64, 64], 0)
    with pytest.raises(ValueError, match="too small"):
        split(size=(31, 64))
    with pytest.raises(IndexError):
        split(num_images=2).read(2)
