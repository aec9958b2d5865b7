"""What a run changed of its recipe."""

import pytest

from segtrain.table.changes import changes


def node(weights: str) -> dict:
    return {"architecture": {"backbone": {"weights": weights}}}


@pytest.mark.parametrize(
    ("recipe", "run", "is_same"),
    [
        ("imagenet", "/own/resnet.pth", True),
        ("imagenet", "none", False),
        ("imagenet", "vgg16_caffe:/own/vgg16.pth", False),
        ("vgg16_caffe", "vgg16_caffe:/own/vgg16.pth", True),
        ("vgg16_caffe", "/own/vgg16.pth", False),
        ("vgg16_caffe", "imagenet", False),
    ],
)
def test_a_file_stands_in_for_the_download_of_its_flavour(recipe, run, is_same):
    assert (changes(node(run), node(recipe)) == []) == is_same
