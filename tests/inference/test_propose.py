import pytest
import torch
from torch import nn

from segtrain.architecture.backbone import TimmBackbone
from segtrain.architecture.instance.fpn_proposals import FPNProposals
from segtrain.inference.propose import Propose


class Windows(nn.Module):
    """Proposes the left half of every image, and its own size."""

    def propose(self, images, count):
        self.sizes = [tuple(image.shape[1:]) for image in images]
        halves = [torch.tensor([[0.0, 0.0, width / 2, height]]) for height, width in self.sizes]
        return [(half, torch.ones(1), torch.ones(1, 14, 14)) for half in halves]


@pytest.mark.parametrize(
    ("size", "resized"),
    [((40, 60), (80, 120)), ((60, 40), (120, 80)), ((20, 90), (28, 130)), ((80, 100), (80, 100))],
)
def test_boxes_come_back_in_pixels_of_the_image(size, resized):
    model = Windows()
    image = torch.zeros(3, *size, dtype=torch.uint8)
    (found,) = Propose(short_side=80, long_side=130, max_proposals=5)(model, [image])
    assert model.sizes == [resized]
    torch.testing.assert_close(found["boxes"], torch.tensor([[0.0, 0.0, size[1] / 2, size[0]]]))
    assert found["labels"].dtype == torch.int64


def test_an_image_alone_and_among_others():
    torch.manual_seed(0)
    backbone = TimmBackbone("test_resnet", "none", 32, False, None, {})
    model = FPNProposals(2, backbone, 8, [5, 7], 16, 14, [32, 64, 128, 256, 512],
                         1.25, 128, 0.25).eval()  # fmt: skip
    for head in model.heads:
        nn.init.normal_(head.conv.weight)
        nn.init.normal_(head.scores.weight)
    propose = Propose(short_side=64, long_side=120, max_proposals=20)
    sizes = [(40, 60), (60, 40), (40, 60), (33, 70)]
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
    with torch.no_grad():
        together = propose(model, images)
        alone = [propose(model, [image])[0] for image in images]
    for one, among in zip(alone, together, strict=True):
        assert one["boxes"].shape == (20, 4)
        assert one["labels"].tolist() == [0] * 20
        assert (one["scores"].diff() <= 0).all()
        for key in one:
            torch.testing.assert_close(one[key], among[key], atol=1e-4, rtol=1e-4)


def test_protocol_names_the_scale():
    protocol = Propose(short_side=800, long_side=1333, max_proposals=1000).protocol
    assert protocol["inference"] == "propose"
    assert protocol["scales"] == [800]
