"""The kernels give the cross-entropy and the gradients of the plain form, and are built for GPUs.

Without a GPU they are run by Triton's interpreter, in NumPy.
"""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import composed
from torch.testing import assert_close

from segtrain.assembly import make
from segtrain.errors import UserError

triton = pytest.importorskip("triton", reason="Triton is not installed")
fused = pytest.importorskip("segtrain.loss.fused")
DEVICE = "cpu" if triton.knobs.runtime.interpret else "cuda"
SIZES = [((3, 4), (11, 19)), ((3, 3), (9, 9)), ((1, 1), (8, 3)), ((6, 5), (6, 5)),
         ((6, 5), (6, 20)), ((10, 3), (4, 7)), ((2, 35), (3, 140)), ((4, 4), (1, 1))]  # fmt: skip


@pytest.mark.filterwarnings("ignore:divide by zero")  # outside of the image, by the interpreter
@pytest.mark.parametrize(("small", "size"), SIZES)
@pytest.mark.parametrize("align_corners", [False, True])
def test_every_pixel_and_gradient(small, size, align_corners):
    torch.manual_seed(0)
    classes = 18 if small == (3, 3) else 4  # more than the kernel takes at once
    scores = (5 * torch.randn(2, classes, *small, device=DEVICE)).requires_grad_()
    target = torch.randint(0, classes, (2, *size), dtype=torch.uint8, device=DEVICE)
    target[0, :2] = 255
    weight = torch.rand(2, *size, device=DEVICE)
    plain = scores.detach().double().requires_grad_()
    whole = F.interpolate(plain, size, mode="bilinear", align_corners=align_corners)
    expected = F.cross_entropy(whole, target.long(), ignore_index=255, reduction="none")
    (expected * weight).sum().backward()
    losses = fused.cross_entropy(scores, target, align_corners, 255)
    (losses * weight).sum().backward()
    assert_close(losses.double(), expected, atol=1e-5, rtol=1e-5)
    assert_close(scores.grad.double(), plain.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:divide by zero")
def test_channels_last_bfloat16():
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 3, 4, device=DEVICE).bfloat16()
    target = torch.randint(0, 3, (2, 6, 8), dtype=torch.uint8, device=DEVICE)
    gradients = []
    for given in (scores.float(), scores.to(memory_format=torch.channels_last)):
        leaf = given.requires_grad_()
        fused.cross_entropy(leaf, target, False, 255).sum().backward()
        assert leaf.grad.dtype == given.dtype
        gradients.append(leaf.grad.float())
    assert_close(gradients[1], gradients[0], atol=1e-6, rtol=2**-7)  # one step of bfloat16


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", ["cross_entropy", "ohem"])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_of_the_configuration(name, weighted):
    torch.manual_seed(0)
    node = composed(f"loss={name}")["loss"]
    node["pixel"]["class_weights"] = [0.5, 2.0, 1.0, 3.0, 0.1] if weighted else None
    target = torch.randint(0, 5, (3, 13, 18), dtype=torch.uint8, device=DEVICE)
    target[0, :9], target[1] = 255, 255
    logits = torch.randn(3, 5, 5, 7, device=DEVICE)
    found = []
    for form in ("whole", "fused"):
        leaf = logits.clone().requires_grad_()
        loss = make(node | {"form": form}, ignore_index=255).to(DEVICE)
        term = loss({"logits": leaf, "align_corners": False}, target)["main"]
        (3 * term).backward()
        found.append((term.detach(), leaf.grad))
    assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)


def test_label_smoothing_needs_all_scores():
    node = composed("loss=cross_entropy")["loss"]
    node["pixel"]["label_smoothing"] = 0.1
    with pytest.raises(UserError, match=r"label_smoothing=0.1 .* use loss.form=strips"):
        make(node | {"form": "fused"}, ignore_index=255)


def test_a_processor_has_no_kernels(monkeypatch):
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    loss = make(composed("loss=cross_entropy")["loss"] | {"form": "fused"}, ignore_index=255)
    outputs = {"logits": torch.randn(1, 3, 2, 2, requires_grad=True), "align_corners": False}
    with pytest.raises(UserError, match=r"loss.form=fused: needs a GPU, not a cpu"):
        loss(outputs, torch.zeros(1, 4, 4, dtype=torch.uint8))


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from segtrain.loss import fused
types = dict.fromkeys(("scores", "gradient"), "*bf16") | {"target": "*u8"}
types |= dict.fromkeys(("losses", "sums", "weights"), "*fp32")
types |= dict.fromkeys(("offset", "row_scale", "row_inverse", "column_scale", "column_inverse"),
                       "fp32")
sizes = {name: getattr(fused, name) for name in ("PIXELS", "CELLS", "CLASSES")}
for kernel in (fused.forward_kernel, fused.backward_kernel):
    for ones in ((), ("column_stride", "column_step"), ("height", "width", "row_reach")):
        known = {name: 1 for name in ones} | sizes  # an argument of one is a constant
        known = {name: value for name, value in known.items() if name in kernel.arg_names}
        signature = {name: "constexpr" if name in known else types.get(name, "i32")
                     for name in kernel.arg_names}
        for capability in (80, 90) if not ones else (90,):
            source = ASTSource(kernel, signature, constexprs=known)
            built = triton.compile(source, target=GPUTarget("cuda", capability, 32))
            assert built.asm["cubin"]
            print(kernel.__name__, capability, ones)
"""


def test_kernels_are_built_for_gpus(tmp_path):
    """Without one: Triton brings NVIDIA's assembler along."""
    process = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True,
                             env={"TRITON_CACHE_DIR": str(tmp_path), "PATH": ""})  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert len(process.stdout.splitlines()) == 2 * (2 + 1 + 1)
