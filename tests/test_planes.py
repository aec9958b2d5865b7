"""Labels of classes that may overlap, packed into bits."""

import numpy as np
import pytest
import torch

from segtrain.dataset.transforms import train_semantic
from segtrain.planes import count_planes, pack, unpack


@pytest.mark.parametrize("classes", [1, 8, 9, 40])
def test_what_was_packed_comes_back(classes):
    rng = np.random.default_rng(0)
    masks, void = rng.random((classes, 5, 7)) < 0.4, rng.random((5, 7)) < 0.2
    found, valid = unpack(torch.from_numpy(pack(masks, void))[None], classes)
    assert (found[0].numpy() == masks).all()
    assert (valid[0].numpy() == ~void).all()
    counts = count_planes(pack(masks, void), classes)
    assert counts.tolist() == [*(masks & ~void).sum((1, 2)), void.sum()]


@pytest.mark.parametrize("rotation", [0.0, 30.0])
@pytest.mark.parametrize("classes", [2, 33])
def test_planes_go_through_the_transforms_as_a_label_map_does(classes, rotation):
    labels = np.random.default_rng(1).integers(0, classes, (24, 30)).astype(np.uint8)
    labels[:4] = 255
    planes = pack(labels == np.arange(classes)[:, None, None], labels == 255)
    preset = train_semantic([40, 40], [0.5, 2.0], rotation, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0)
    image = np.zeros((24, 30, 3), np.uint8)
    for seed in range(6):
        _, mask = preset(image, labels, (seed,))
        _, packed = preset(image, planes, (seed,))
        found, valid = unpack(torch.from_numpy(np.ascontiguousarray(packed)), classes)
        assert (valid.numpy() == (mask != 255)).all()
        expected = mask == np.arange(classes)[:, None, None]
        equal = found.numpy()[:, mask != 255] == expected[:, mask != 255]
        # Turned, a pixel half-way between two falls to another one of them by its channels.
        assert equal.mean() > 0.99 if rotation else equal.all()
