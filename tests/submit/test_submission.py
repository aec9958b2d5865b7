"""What every server's files have in common, whatever is in them."""

import pytest
import torch
from faults import largest_file

from segtrain.dataset.labels import CITYSCAPES, CITYSCAPES_INSTANCES, COCO, VOC
from segtrain.submit.cityscapes import CityscapesFormat, CityscapesInstanceFormat
from segtrain.submit.coco import CocoFormat
from segtrain.submit.panoptic import cityscapes_panoptic
from segtrain.submit.submission import SubmittedImage
from segtrain.submit.voc import VocFormat

SERVERS = {
    "voc": (VocFormat("comp6", "val", "x"), VOC),
    "cityscapes": (CityscapesFormat(CITYSCAPES, "val", "x"), CITYSCAPES),
    "cityscapes_instances": (
        CityscapesInstanceFormat(CITYSCAPES_INSTANCES, "val", "x"), CITYSCAPES_INSTANCES,
    ),
    "coco": (CocoFormat(COCO, "val2017", "x"), COCO),
    "cityscapes_panoptic": (cityscapes_panoptic(CITYSCAPES, "val", "x"), CITYSCAPES),
}  # fmt: skip


@pytest.mark.parametrize("limit", [0, 100])
@pytest.mark.parametrize("name", SERVERS)
def test_no_half_file_of_an_image_on_a_full_disk(tmp_path, name, limit):
    server, labels = SERVERS[name]
    image = SubmittedImage("berlin_000000_000019_leftImg8bit.png", (200, 300), 7)
    if name == "cityscapes_panoptic":
        ids = torch.randint(0, 200, image.size, generator=torch.manual_seed(0), dtype=torch.int32)
        found = {"map": ids, "labels": torch.zeros(199, dtype=torch.long)}
    elif name in ("voc", "cityscapes"):
        found = torch.rand(labels.num_classes, *image.size, generator=torch.manual_seed(0))
    else:
        found = {"boxes": torch.tensor([[10.0, 10, 250, 150]] * 9), "scores": torch.ones(9),
                 "labels": torch.zeros(9, dtype=torch.long),
                 "masks": torch.rand(9, 28, 28, generator=torch.manual_seed(0))}  # fmt: skip
    with largest_file(limit), pytest.raises(OSError, match="File too large") as caught:
        server.write(found, image, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
