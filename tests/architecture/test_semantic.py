"""Every architecture file in conf/: shapes, gradients, odd sizes; a new one is tested unasked."""

import copy
import math

import pytest
import torch
import torch.distributed as dist
from conftest import architectures, composed, small_network
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from segtrain.assembly import build_model, make

NAMES = architectures("semantic")
SCORING = NAMES + architectures("mask_classification")  # semantic ones in evaluation
BACKENDS = [  # of torch.compile; what the first one cannot do, no other can
    "eager", *(pytest.param(name, marks=pytest.mark.slow) for name in ("aot_eager", "inductor")),
]  # fmt: skip
CLASSES = 5


def small(name: str, *overrides: str, classes: int = CLASSES) -> nn.Module:
    """The architecture of conf/ with all its parts on a small backbone."""
    chosen = f"architecture={name}"
    config = composed(chosen, *small_network(chosen), *overrides)
    torch.manual_seed(0)
    return build_model(config, classes)


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("name", SCORING)
@pytest.mark.parametrize("size", [(64, 64), (33, 47), (65, 129), (1, 1)])
def test_any_size_in_evaluation(name, size):
    model = small(name).eval()
    with torch.no_grad():
        outputs = model(pixels(2, 3, *size))
    assert set(outputs) == {"logits", "align_corners"}
    assert outputs["logits"].shape[:2] == (2, CLASSES)
    at_64 = model(pixels(1, 3, 64, 64))["logits"].shape[2]
    stride = 2 ** round(math.log2(64 / at_64))
    assert stride in (1, 2, 4, model.backbone.output_stride)
    for length, got in zip(size, outputs["logits"].shape[2:], strict=True):
        assert got - -(-length // stride) in ((0, 1) if at_64 * stride > 64 else (0,))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("batch", "size"), [(2, (64, 64)), (1, (33, 47))])
def test_every_parameter_learns(name, batch, size):
    """Batch 1 and odd sizes included, through the loss that training uses."""
    model = small(name).train()
    for parameter in model.parameters():  # classifiers that start at zero pass no gradient on
        if not parameter.any():
            nn.init.normal_(parameter, std=0.01)
    loss = make(composed()["loss"], ignore_index=255)
    target = torch.randint(0, CLASSES, (batch, *size), dtype=torch.uint8)
    sum(loss(model(pixels(batch, 3, *size)), target).values()).backward()
    without = [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not without
    assert sum(p.grad.any().item() for p in model.parameters()) > 0.8 * len(
        list(model.parameters())
    )


@pytest.mark.parametrize("name", SCORING)
def test_state_dict_survives_saving(name, tmp_path):
    model, other = small(name), small(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    other.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    image = pixels(1, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(model.eval()(image)["logits"], other.eval()(image)["logits"])


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_and_copy(name):
    """Forward and backward in bfloat16; evaluation close to float32."""
    model = copy.deepcopy(small(name))
    image = pixels(2, 3, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model.train()(image)
        outputs["logits"].float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        exact = model.eval()(image)["logits"]
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(image)["logits"].float()
    assert (exact - rough).abs().max() <= 0.05 * exact.abs().max() + 1e-3


@pytest.mark.parametrize("name", SCORING)
def test_memory_format_does_not_matter(name):
    model = small(name, "trainer.channels_last=false").eval()
    image = pixels(2, 3, 49, 70)
    with torch.no_grad():
        expected = model(image)["logits"]
        model = model.to(memory_format=torch.channels_last)
        got = model(image.contiguous(memory_format=torch.channels_last))["logits"]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(name, backend):
    """As one graph; slow: the backward pass as one too, and with kernels generated for both."""
    model = small(name).train()
    for dropout in (m for m in model.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)):
        dropout.p = 0.0
    image = pixels(2, 3, 48, 48)
    expected = model(image)["logits"]
    torch.compiler.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    got = compiled(image)["logits"]
    got.square().mean().backward()
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SCORING)
def test_only_classifiers_depend_on_the_classes(name):
    """Weights made for other classes load but for layers that are called classifiers."""
    first, second = small(name).state_dict(), small(name, classes=CLASSES + 2).state_dict()
    assert first.keys() == second.keys()
    differ = {key for key in first if first[key].shape != second[key].shape}
    assert differ == {key for key in first if "classifier" in key}


def ddp_worker(rank: int, folder: str) -> None:
    """One step of every architecture on half of the batch."""
    dist.init_process_group("gloo", f"file://{folder}/sync", rank=rank, world_size=2)
    torch.set_num_threads(1)
    for name in NAMES:
        model = small(name).train()
        image = torch.randint(
            0, 256, (2, 3, 41, 57), dtype=torch.uint8, generator=torch.Generator().manual_seed(7)
        )
        wrapped = DistributedDataParallel(model)
        loss = make(composed()["loss"], ignore_index=255)
        target = torch.full((1, 41, 57), rank, dtype=torch.uint8)
        for _ in range(2):  # a parameter without a gradient would stop the second
            sum(loss(wrapped(image[rank : rank + 1]), target).values()).backward()
        torch.save([p.grad for p in model.parameters()], f"{folder}/{name}.{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_share_every_gradient(tmp_path):
    torch.multiprocessing.spawn(ddp_worker, (str(tmp_path),), nprocs=2)
    for name in NAMES:
        mine, other = (torch.load(tmp_path / f"{name}.{rank}.pt") for rank in (0, 1))
        assert len(mine) == len(list(small(name).parameters()))
        for a, b in zip(mine, other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "share"),
    [("deeplabv3", 0.1), ("deeplabv3plus", 0.1), ("deeplabv3plus_xception", 0.1),
     ("deeplabv3_torchvision", 0.5)],
)  # fmt: skip
def test_deeplab_drops_a_share_of_what_its_aspp_finds(name, share):
    """As the authors' code; torchvision's has more."""
    model = small(name).train()
    part = model.head if hasattr(model, "head") else model
    dropped = []
    part.dropout.register_forward_hook(lambda _, inputs, out: dropped.append(out == 0))
    part.dropout.register_forward_pre_hook(lambda _, inputs: (inputs[0] + 1,))  # no zeros of ReLU
    model(pixels(2, 3, 64, 64))
    assert dropped[0].float().mean() == pytest.approx(share, abs=0.04)
