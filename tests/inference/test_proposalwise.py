import pytest
import torch
import torch.nn.functional as F
from conftest import composed
from torch import nn

from segtrain.configuration.checking import checked
from segtrain.errors import UserError
from segtrain.inference.proposalwise import GridBoxes, ProposalWise, enlarged


class Net(nn.Module):
    """Scores that follow from the colours."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 1)
        self.align_corners = False

    def forward(self, image):
        return {"logits": self.conv(image.float() / 255), "align_corners": False}


def picture(height, width):
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, height, width), generator=draw, dtype=torch.uint8)


BOXES = torch.tensor([[0.0, 0, 40, 30], [10, 5, 20, 25], [30, 20, 80, 70], [5, 5, 5.5, 5.5]])


@pytest.mark.parametrize("aggregate", ["max", "mean"])
@pytest.mark.parametrize("crops_at_once", [1, 3])
def test_boxes_are_put_together_one_by_one(aggregate, crops_at_once):
    image, net = picture(30, 40), Net()
    inference = ProposalWise(lambda _: BOXES, 4, 1.25, 16, aggregate, crops_at_once, None)
    with torch.no_grad():
        (result,) = inference(net, [image])
    total, seen = torch.zeros(4, 30, 40), torch.zeros(30, 40)
    for x1, y1, x2, y2 in BOXES.tolist():
        grow_x, grow_y = 0.125 * (x2 - x1), 0.125 * (y2 - y1)
        left, top = max(0, int((x1 - grow_x) // 1)), max(0, int((y1 - grow_y) // 1))
        right = min(40, -int(-(x2 + grow_x) // 1))
        bottom = min(30, -int(-(y2 + grow_y) // 1))
        crop = image[None, :, top:bottom, left:right].float()
        crop = F.interpolate(crop, (16, 16), mode="bilinear", antialias=True)
        with torch.no_grad():
            score = net(crop)["logits"]
        score = F.interpolate(score, (bottom - top, right - left), mode="bilinear")[0]
        place = total[:, top:bottom, left:right]
        place[:] = torch.maximum(place, score) if aggregate == "max" else place + score
        seen[top:bottom, left:right] += 1
    if aggregate == "mean":
        total = total / seen.clamp(min=1)
    torch.testing.assert_close(result, total.softmax(0), atol=1e-5, rtol=1e-5)


def test_only_the_best_boxes_are_looked_at():
    image, net = picture(30, 40), Net()
    whole = torch.tensor([[0.0, 0, 40, 30]])
    with torch.no_grad():
        (one,) = ProposalWise(lambda _: BOXES, 1, 1.2, 16, "max", 4, None)(net, [image])
        (same,) = ProposalWise(lambda _: whole, 50, 1.2, 16, "max", 4, None)(net, [image])
    torch.testing.assert_close(one, same)


def test_enlarged_boxes_stay_inside_with_a_pixel_at_least():
    boxes = enlarged(torch.tensor([[-5.0, -5, 100, 100], [39.9, 29.9, 60, 60]]), 1.2, (30, 40))
    assert boxes.tolist() == [[0, 0, 40, 30], [37, 26, 40, 30]]


@pytest.mark.parametrize("size", [(1, 1), (30, 40)])
def test_grid_boxes_cover_the_image(size):
    boxes = GridBoxes([0.5, 0.75])(picture(*size))
    assert boxes[0].tolist() == [0, 0, size[1], size[0]]
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert float(boxes[:, 2].max()) == size[1]


def test_unknown_aggregate_is_refused():
    with pytest.raises(UserError, match="aggregate=median"):
        checked("train", composed("inference=proposalwise", "inference.aggregate=median"))
