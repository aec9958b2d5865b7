import numpy as np
import torch

from segtrain.dataset.instances import target_from_masks, training_objects, whole_masks
from segtrain.task.padding import MEAN_RGB, padded


def sample(height: int, width: int, number: int):
    """Image of one colour and its overlapping objects, the last one a crowd."""
    masks = np.zeros((number, height, width), np.uint8)
    for index, mask in enumerate(masks):
        mask[index : index + 5, 2 * index : 2 * index + 7] = 1
    crowd = np.arange(number) == number - 1
    objects = target_from_masks(masks, list(range(number)), crowd, 0)
    image = torch.full((3, height, width), 7, dtype=torch.uint8)
    return image, training_objects(objects, (width, height), flip=False)


def test_images_of_all_sizes_are_one_batch_and_their_masks_lie_where_they_were():
    samples = [sample(20, 30, 4), sample(24, 16, 2), sample(8, 8, 0)]
    images, targets = (list(part) for part in zip(*samples, strict=True))
    batch, found = padded({"image": images, "target": targets, "name": ["a", "b", "c"]})
    assert batch.shape == (3, 3, 24, 30)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for whole, image, target, own in zip(batch, images, targets, found, strict=True):
        height, width = image.shape[1:]
        expected = torch.tensor(MEAN_RGB, dtype=torch.uint8).view(3, 1, 1).repeat(1, 24, 30)
        expected[:, :height, :width] = image
        assert torch.equal(whole, expected)
        inside = own.masks[:, :height, :width].numpy()
        np.testing.assert_array_equal(inside, whole_masks(target, (height, width)))
        assert inside.sum() == own.masks.sum()
        assert torch.equal(own.labels, target["labels"])
        assert not own.crowd.any()
    assert [len(own.labels) for own in found] == [3, 1, 0]
