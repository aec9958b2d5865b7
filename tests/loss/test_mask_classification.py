"""The loss of mask classification: equal to an independent one, on every kind of target."""


import numpy as np
import pytest
import torch
from processes import on_two_processes
from torch.utils._python_dispatch import TorchDispatchMode

from segtrain.loss.mask_classification import MaskClassificationLoss
from segtrain.segments import CROWD, TrueSegments, pack, unpack

CLASSES, QUERIES, POINTS = 5, 12, 300
FACTORS = {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 5.0, "no_object_weight": 0.1}


def make(**changes) -> MaskClassificationLoss:
    settings = {**FACTORS, "num_points": POINTS, "oversampling": 3.0, "importance": 0.75}
    return MaskClassificationLoss(**(settings | changes))


def queries(images: int, number: int = QUERIES, side: int = 12) -> dict:
    return {
        "class_logits": torch.randn(images, number, CLASSES + 1, requires_grad=True),
        "mask_logits": (3 * torch.randn(images, number, side, side)).requires_grad_(),
    }


def outputs(images: int, layers: int = 2, **shape) -> dict:
    torch.manual_seed(0)
    return {**queries(images, **shape), "auxiliary": [queries(images) for _ in range(layers)]}


def tiles(images: int, values: int, side: int = 6) -> torch.Tensor:
    """(N, 8 side, 8 side) uint8: tiles that take random values."""
    torch.manual_seed(1)
    tile = torch.randint(0, values, (images, side, side), dtype=torch.uint8)
    return tile.repeat_interleave(8, 1).repeat_interleave(8, 2)


def panoptic(images: int) -> torch.Tensor:
    """(N, 48, 48, 3) uint8 of stuff, instances and a crowd."""
    numbers = tiles(images, 4).numpy().astype("uint16") * 200
    numbers[:, :8, :8] = CROWD
    classes = tiles(images, CLASSES).numpy()
    return torch.stack(
        [torch.from_numpy(pack(c, n)) for c, n in zip(classes, numbers, strict=True)]
    )


def overlapping(images: int, number: int = 4) -> list[TrueSegments]:
    torch.manual_seed(2)
    masks = tiles(images * number, 2).bool().view(images, number, 48, 48)
    masks[:, :, 0, 0] = True
    labels = torch.randint(0, CLASSES, (images, number))
    crowd = torch.zeros(number, dtype=torch.bool)
    return [TrueSegments(m, each, crowd) for m, each in zip(masks, labels, strict=True)]


def semantic(images: int) -> torch.Tensor:
    """The first image has all classes, the second nothing but void, the others some void."""
    mask = tiles(images, CLASSES)
    mask[1] = 255
    mask[2:, :20] = 255
    return mask


def without_crowds(target: torch.Tensor | list[TrueSegments]) -> list[TrueSegments]:
    found = [unpack(own) for own in target] if isinstance(target, torch.Tensor) else target
    return [TrueSegments(o.masks[~o.crowd], o.labels[~o.crowd], o.crowd[~o.crowd]) for o in found]


def reference(outputs: dict, target, loss: MaskClassificationLoss) -> dict[str, torch.Tensor]:
    """The weighted terms as transformers has them, at the points that the same seed gives."""
    from transformers import Mask2FormerConfig  # slow to import, and not needed by the workers
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    config = Mask2FormerConfig(
        num_labels=CLASSES, train_num_points=loss.num_points, oversample_ratio=loss.oversampling,
        importance_sample_ratio=loss.importance, **FACTORS,
    )  # fmt: skip
    names = {"mask_logits": "masks_queries_logits", "class_logits": "class_queries_logits"}
    layers = [{names[key]: own[key] for key in names} for own in [outputs, *outputs["auxiliary"]]]
    segments = without_crowds(target)
    terms = Mask2FormerLoss(config, {})(
        **layers[0], auxiliary_predictions=layers[1:] or None,
        mask_labels=[own.masks.float() for own in segments],
        class_labels=[own.labels for own in segments],
    )  # fmt: skip
    factors = {"cross_entropy": 2.0, "mask": 5.0, "dice": 5.0}
    weighted = {name: value * next(f for key, f in factors.items() if key in name)
                for name, value in terms.items()}  # fmt: skip
    last = {"class": "loss_cross_entropy", "mask": "loss_mask", "dice": "loss_dice"}
    result = {name: weighted.pop(key) for name, key in last.items()}
    return result | ({"aux": sum(weighted.values())} if weighted else {})


@pytest.mark.parametrize("target", [semantic(4), panoptic(3), overlapping(3)])
def test_equals_an_independent_loss_at_the_same_points(target):
    """Terms and gradients, with an image without objects, crowds, and overlapping segments."""
    found, loss = outputs(len(target)), make()
    leaves = [own[key] for own in [found, *found["auxiliary"]] for key in own if key != "auxiliary"]
    torch.manual_seed(3)
    terms = loss(found, target)
    own = torch.autograd.grad(sum(terms.values()), leaves)
    torch.manual_seed(3)
    expected = reference(found, target, loss)
    torch.testing.assert_close(terms, expected, rtol=1e-5, atol=1e-5)
    others = torch.autograd.grad(sum(expected.values()), leaves)
    torch.testing.assert_close(own, others, rtol=1e-4, atol=1e-6)


def test_same_numbers_with_deterministic_algorithms():
    """Which take another way to the values at points, whose gradient a GPU repeats."""
    found, target = outputs(2), panoptic(2)
    results = []
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        torch.manual_seed(3)
        total = sum(make()(found, target).values())
        results.append((total, *torch.autograd.grad(total, found["mask_logits"])))
    torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(*results)


VOID = torch.full((2, 48, 48), 255, dtype=torch.uint8)


@pytest.mark.parametrize(
    "target", [VOID, VOID[..., None].expand(-1, -1, -1, 3), [unpack(VOID[0])] * 2]
)
def test_without_any_object_masks_cost_nothing_and_queries_learn_so(target):
    found = outputs(2)
    terms = make()(found, target)
    sum(terms.values()).backward()
    assert terms["mask"] == terms["dice"] == 0
    assert terms["class"] > 0
    assert (found["mask_logits"].grad == 0).all()
    assert found["class_logits"].grad.isfinite().all()


def test_more_objects_than_queries():
    target = overlapping(2, number=300)
    found = outputs(2)
    torch.manual_seed(3)
    terms = make()(found, target)
    torch.manual_seed(3)
    torch.testing.assert_close(terms, reference(found, target, make()))


def test_crowds_are_no_examples():
    target = panoptic(2)
    void = target.clone()
    is_crowd = (target[..., 1] == 255) & (target[..., 2] == 255)
    assert is_crowd.any()
    void[is_crowd] = 255
    terms = []
    for labels in (target, void):
        torch.manual_seed(3)
        terms.append(make()(outputs(2), labels))
    torch.testing.assert_close(*terms)


def test_float32_under_autocast():
    found, target = outputs(2, layers=0), tiles(2, CLASSES)
    half = {key: found[key].bfloat16() for key in ("class_logits", "mask_logits")}
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        terms = make()({**half, "auxiliary": []}, target)
    torch.manual_seed(3)
    expected = make()({k: v.float() for k, v in half.items()} | {"auxiliary": []}, target)
    assert all(term.dtype == torch.float32 for term in terms.values())
    torch.testing.assert_close(terms, expected)


def test_outputs_that_are_not_finite_make_the_loss_so():
    """The training stops then, and says at which batch."""
    found = outputs(2, layers=0)
    found["mask_logits"] = found["mask_logits"] * float("nan")
    found["class_logits"] = found["class_logits"] * float("inf")
    assert not sum(make()(found, tiles(2, CLASSES)).values()).isfinite()


@pytest.fixture
def one_point(monkeypatch) -> None:
    """Masks are compared at a single place, so that no part of a batch draws other ones."""
    monkeypatch.setattr(torch, "rand", lambda *size, device=None: torch.full(size, 0.4))


def share(found: dict, images: slice) -> dict:
    """Some of a batch's images."""
    return {key: [share(layer, images) for layer in value] if key == "auxiliary" else value[images]
            for key, value in found.items()}  # fmt: skip


def uneven() -> torch.Tensor:
    """Four images with many segments, one, none and some."""
    mask = semantic(4)
    mask[3] = 255
    mask[3, :30] = 2
    return mask


def test_parts_add_up_to_the_whole(one_point):
    loss, found, target = make(), outputs(4), uneven()
    whole = loss(found, target)
    parts = [slice(0, 2), slice(2, 4)]
    numbers = [loss.weights(None, target[part])["masks"] for part in parts]
    weights = {"masks": torch.stack(numbers).mean()}
    terms = [loss(share(found, part), target[part], weights) for part in parts]
    added = {name: sum(term[name] for term in terms) / len(parts) for name in whole}
    torch.testing.assert_close(added, whole)


def _train_a_share(rank: int, port: int, queue) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=2)
    torch.rand = lambda *size, device=None: torch.full(size, 0.4)
    part = slice(2 * rank, 2 * rank + 2)
    terms = make()(share(outputs(4), part), uneven()[part])
    queue.put((rank, {name: term.item() for name, term in terms.items()}))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_average_to_the_whole_batch(one_point):
    shares = on_two_processes(_train_a_share)
    for name, value in make()(outputs(4), uneven()).items():
        mean = (shares[0][name] + shares[1][name]) / 2
        assert mean == pytest.approx(value.item(), rel=1e-5), name


class Largest(TorchDispatchMode):
    """The most elements of a tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_no_mask_of_a_segment_is_ever_whole():
    """As 64 masks of 512x512 would, 17 million elements."""
    side, parts = 512, 8
    row = torch.arange(side) * parts // side
    numbers = (row[:, None] * parts + row + 1).numpy()
    mask = torch.from_numpy(pack(np.zeros((side, side), np.uint8), numbers))[None]
    found = outputs(1, number=100)
    with Largest() as largest:
        sum(make()(found, mask).values()).backward()
    assert len(unpack(mask[0]).labels) == parts**2
    assert largest.elements <= side * side
