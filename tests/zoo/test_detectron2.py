"""Detectron2's Mask R-CNN and DeepLabs beside ours, on weights that both draw by one rule.

`detectron2/<model>.txt.gz` lists the names and shapes of the tensors of Detectron2's own network
of a row, and `<model>.npz` has what that network makes of `picture` with weights that are `drawn`:
a DeepLab the logits before they are enlarged; a detector, in float64, every so many of the values
of its parts, and its detections, of 30 proposals.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import composed
from torch import Tensor, nn
from zoo_parity import drawn, shapes

from segtrain.architecture.instance.fpn import with_coarsest
from segtrain.architecture.instance.roi import pool
from segtrain.architecture.weights import load_weights
from segtrain.assembly import make
from segtrain.zoo.catalogue import entries, find
from segtrain.zoo.names.detectron2 import recognised, renamed

FOLDER = Path(__file__).parent / "detectron2"
MODELS = sorted(path.name.removesuffix(".txt.gz") for path in FOLDER.glob("*.txt.gz"))
DEEPLABS = [model for model in MODELS if "deeplab" in model]
LARGE_DETECTORS = ["mask_rcnn_R_101_FPN_3x", "mask_rcnn_X_101_32x8d_FPN_3x"]
DETECTOR = "mask_rcnn_R_50_FPN_3x"
NEW_BASELINE = "mask_rcnn_R_50_FPN_100ep_LSJ"
# So that boxes move a little only, and that probabilities are neither alike nor 0 and 1.
SHARES = {"anchor_deltas": 0.05, "objectness_logits": 0.3, "bbox_pred": 0.3, "cls_score": 0.5,
          "mask_head.predictor": 0.5}  # fmt: skip
# Of an image of 160 x 120: of every level, beyond its edges, and hardly any.
BOXES = torch.tensor([
    [3, 5, 40, 60], [10.5, 20.25, 14, 27], [0, 0, 160, 120], [30, 10, 130, 100], [-4, -3, 20, 30],
    [100, 80, 170, 130], [60, 60, 60.5, 60.5], [12, 12, 124, 124],
], dtype=torch.float64)  # fmt: skip


def drawn_for(model: str, name: str, shape: tuple[int, ...]) -> Tensor:
    """As `drawn`, but for layers that must say little."""
    values = drawn(name, shape)
    if len(shape) < 2:
        return values
    for part, share in SHARES.items():
        if part in name:
            values *= share
    # ResNets below a pyramid see pixels of their own deviation, about 60.
    sees_pixels = name == "backbone.bottom_up.stem.conv1.weight" and "X_101" not in model
    return values / 64 if sees_pixels else values


def state_of(model: str) -> dict[str, Tensor]:
    return {
        name: drawn_for(model, name, shape) for name, shape in shapes("detectron2", model).items()
    }


def on_meta(model: str) -> dict[str, Tensor]:
    return {name: torch.empty(s, device="meta") for name, s in shapes("detectron2", model).items()}


def picture(size: str) -> Tensor:
    """(3, H, W) uint8 RGB, of large patches."""
    height, width = map(int, size.split("x"))
    generator = torch.Generator().manual_seed(1000 * height + width)
    coarse = torch.randint(0, 256, (1, 3, 5, 7), generator=generator).float()
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)[0].byte()


def configured(architecture: tuple[str, ...], *overrides: str) -> dict:
    return composed(*architecture, "architecture.backbone.weights=none", *overrides)


def network(model: str, *overrides: str) -> nn.Module:
    """Ours, with the drawn weights."""
    state = state_of(model)
    config = configured(find(f"detectron2/{model}").architecture, *overrides)
    ours = make(config["architecture"], num_classes=recognised(state).num_classes)
    load_weights(ours, renamed(state, ours.state_dict()), model)
    return ours.eval()


def references(model: str) -> dict[str, dict[str, np.ndarray]]:
    """Arrays by name, of each size."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(FOLDER / f"{model}.npz") as file:
        for name, array in file.items():
            size, _, part = name.partition(".")
            found.setdefault(size, {})[part] = array
    return found


def difference(found: Tensor, expected: np.ndarray) -> float:
    """The largest one, in deviations."""
    assert found.shape == expected.shape
    return float(np.abs(found.numpy() - expected).max() / expected.std())


@pytest.mark.parametrize("model", MODELS)
def test_files_are_recognised_and_fit_exactly(model):
    """Every tensor but counters has its place in the row's network, and every place its tensor."""
    entry, state = find(f"detectron2/{model}"), on_meta(model)
    known = recognised(state)
    assert known.system.startswith(entry.system)
    told, said = (configured(source.architecture)["architecture"] for source in (known, entry))
    assert told == said
    labels = make(configured(entry.architecture, f"dataset={entry.dataset}")["dataset"]["labels"])
    assert known.num_classes == labels.num_classes
    with torch.device("meta"):
        own = make(said, num_classes=known.num_classes).state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    found = {key: value.shape for key, value in renamed(state, own).items()}
    assert found == {key: value.shape for key, value in own.items() if key not in counters}


def test_rows_without_a_reference_are_of_the_same_networks():
    """But for how regions are read, which has no weights."""
    rows = [find(f"detectron2/{model}") for model in MODELS]
    kinds = [configured(row.architecture)["architecture"] for row in rows]
    for entry in entries("detectron2").values():
        own = configured(entry.architecture)["architecture"]
        assert any(own | {key: kind.get(key) for key in kind if key.startswith("roi_")} == kind
                   for kind in kinds)  # fmt: skip


def test_what_older_files_have_besides_is_dropped():
    state = on_meta(DETECTOR)
    more = dict.fromkeys(
        ("pixel_mean", "proposal_generator.anchor_generator.cell_anchors.0"), torch.zeros(3)
    )
    assert renamed(state | more, {}).keys() == renamed(state, {}).keys()


@pytest.mark.parametrize("model", DEEPLABS)
def test_logits_of_a_deeplab_equal_detectron2s(model):
    """With windows of 2x3 cells for the image features, and one that covers the map."""
    assert largest_of_deeplab(model) <= 1e-4


def largest_of_deeplab(model: str) -> float:
    ours = network(model)
    aspp = ours.aspp if hasattr(ours, "aspp") else ours.head.aspp
    assert aspp.pooling_window == (32, 64)
    largest = 0.0
    for size, expected in references(model).items():
        aspp.pooling_window = (32, 64) if size == "61x35" else (2, 3)
        with torch.no_grad():
            found = ours(picture(size)[None])["logits"][0]
        assert (found.argmax(0).numpy() == expected[""].argmax(0)).all()
        largest = max(largest, difference(found, expected[""]))
    return largest


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    return network(DETECTOR, "architecture.rpn.post_nms.test=30").double()


@pytest.mark.parametrize("size", ["120x160", "90x150"])
def test_parts_of_a_detector_equal_detectron2s(detector, size):
    assert largest_of_parts(detector, DETECTOR, size) <= 1e-4


def test_parts_of_a_new_baseline_equal_detectron2s():
    assert largest_of_parts(network(NEW_BASELINE).double(), NEW_BASELINE, "90x150") <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("model", LARGE_DETECTORS)
def test_parts_of_a_large_detector_equal_detectron2s(model):
    assert largest_of_parts(network(model).double(), model, "90x150") <= 1e-4


def largest_of_parts(ours: nn.Module, model: str, size: str) -> float:
    """Of a pyramid, its proposals' scores and offsets, anchors, and what heads say of boxes."""
    expected = references(model)[size]
    with torch.no_grad():
        view = ours.look([picture(size)])
        maps = with_coarsest(view.maps)
        objectness, deltas = (torch.cat(parts, 1)[0, ::7] for parts in zip(
            *(ours.rpn.score(m) for m in maps), strict=True))  # fmt: skip
        regions = pool(view.pooled, ours.backbone.strides, [BOXES], 7, ours.align)
        scores, offsets = ours.box(view.pooled, [BOXES])
        labels = 1 + 9 * torch.arange(len(BOXES))
        masks = ours.mask(view.pooled, [BOXES], labels)
    found = {
        **{f"p{level}": m[0, ::32, ::3, ::3] for level, m in enumerate(maps, 2)},
        "objectness": objectness,
        "deltas": deltas,
        "anchors": torch.cat(ours.rpn._anchors(maps))[::7],
        "regions": regions[:, ::32],
        "class_logits": scores.roll(-1, 1),
        "box_deltas": offsets[:, 1:].flatten(1),
        "mask_logits": masks[:, ::2, ::2],
    }
    return max(difference(value, expected[part]) for part, value in found.items())


@pytest.mark.parametrize("size", ["120x160", "90x150"])
def test_detections_equal_detectron2s(detector, size):
    height, width = size.split("x")
    inference = make(composed(
        "architecture=mask_rcnn", f"inference.short_sides=[{height}]",
        f"inference.long_side={width}",
    )["inference"])  # fmt: skip
    with torch.no_grad():
        (found,) = inference(detector, [picture(size)])
    expected = references(DETECTOR)[size]
    assert len(set(expected["classes"].tolist())) > 1
    assert found["labels"].tolist() == expected["classes"].tolist()
    for name, own in (("boxes", found["boxes"]), ("scores", found["scores"]),
                      ("masks", found["masks"][:, ::3, ::3])):  # fmt: skip
        np.testing.assert_allclose(own, expected[name], atol=1e-3, rtol=0)
