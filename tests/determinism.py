"""What PyTorch refuses on a GPU under `torch.use_deterministic_algorithms`, seen on a CPU.

Operations of the forward and of the backward pass are recorded as the dispatcher gets them, while
Python code that asks whether a tensor is on a GPU is told so.
"""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

Refuses = Callable[[tuple], bool]


def always(arguments: tuple) -> bool:
    return True


# The list "will throw a RuntimeError when mode=True" in the docstring of
# `torch.use_deterministic_algorithms` (2.14), and the operations in which PyTorch's and
# torchvision's CUDA code call `alertNotDeterministic`, with the arguments for which they do.
DOCUMENTED: dict[str, dict[str, Refuses]] = {
    "torch.nn.AvgPool3d": {"aten.avg_pool3d_backward": always},
    "torch.nn.AdaptiveAvgPool2d": {"aten._adaptive_avg_pool2d_backward": always},
    "torch.nn.AdaptiveAvgPool3d": {"aten._adaptive_avg_pool3d_backward": always},
    "torch.nn.AdaptiveMaxPool2d": {"aten.adaptive_max_pool2d_backward": always},
    "torch.nn.FractionalMaxPool2d": {"aten.fractional_max_pool2d_backward": always},
    "torch.nn.FractionalMaxPool3d": {"aten.fractional_max_pool3d_backward": always},
    "torch.nn.MaxUnpool1d": {"aten.max_unpool2d": always},
    "torch.nn.MaxUnpool2d": {"aten.max_unpool2d": always},
    "torch.nn.MaxUnpool3d": {"aten.max_unpool3d": always},
    "torch.nn.functional.interpolate": {
        "aten.upsample_linear1d_backward": always,
        "aten.upsample_bilinear2d_backward": always,
        "aten.upsample_bicubic2d_backward": always,
        "aten.upsample_trilinear3d_backward": always,
        "aten._upsample_bilinear2d_aa_backward": always,
        "aten._upsample_bicubic2d_aa_backward": always,
    },
    "torch.nn.ReflectionPad1d": {"aten.reflection_pad1d_backward": always},
    "torch.nn.ReflectionPad2d": {"aten.reflection_pad2d_backward": always},
    "torch.nn.ReflectionPad3d": {"aten.reflection_pad3d_backward": always},
    # Of maps, summed or averaged: atomic additions. Reduction 0 is none.
    "torch.nn.NLLLoss": {"aten.nll_loss2d_forward": lambda a: a[3] != 0},
    "torch.nn.CTCLoss": {"aten._ctc_loss_backward": always},
    "torch.nn.EmbeddingBag": {"aten._embedding_bag_dense_backward": lambda a: a[7] == 2},  # max
    "torch.Tensor.put_": {"aten.put": always, "aten.put_": always},
    "torch.histc": {"aten.histc": always},
    "torch.bincount": {"aten.bincount": lambda a: len(a) > 1 and a[1] is not None},  # weights
    "torch.median": {"aten.median.dim": always, "aten.nanmedian.dim": always},
    "torch.nn.functional.grid_sample": {
        "aten.grid_sampler_2d_backward": always,
        "aten.grid_sampler_3d_backward": always,
    },
    "torch.Tensor.scatter_reduce": {
        "aten.scatter_reduce": lambda a: a[4] == "prod",
        "aten.scatter_reduce_": lambda a: a[4] == "prod",
    },
    "torch.Tensor.resize_": {"aten.resize_": lambda a: a[0].is_quantized},
}
UNDOCUMENTED: dict[str, Refuses] = {
    # Whose functions go another way under determinism on a GPU.
    "aten.replication_pad1d_backward": always,
    "aten.replication_pad2d_backward": always,
    "aten.replication_pad3d_backward": always,
    "aten.max_pool3d_with_indices_backward": always,
    "aten.index_reduce": always,
    "aten.index_reduce_": always,
    "torchvision._roi_align_backward": always,
    "torchvision._roi_pool_backward": always,
    "torchvision._ps_roi_align_backward": always,
    "torchvision._ps_roi_pool_backward": always,
    "torchvision._deform_conv2d_backward": always,
}
REFUSED = {name: when for part in DOCUMENTED.values() for name, when in part.items()} | UNDOCUMENTED


class Refusals(TorchDispatchMode):
    """Notes which operations a GPU would refuse.

    Attributes:
        names: of all operations.
        refused: those of them that are refused with the arguments that they got.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.refused: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket)
        self.names.add(name)
        when = REFUSED.get(name) or REFUSED.get(str(func))
        if when is not None and when(args):
            self.refused.add(name)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[Refusals]:
    """Determinism is asked for, tensors say that they are on a GPU, and operations are noted."""
    with pytest.MonkeyPatch.context() as patch, Refusals() as found:
        # torchvision compiles what it has for a GPU, which takes long and hides its operations.
        patch.setattr(torch, "compile", lambda function, **settings: function)
        patch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True), raising=False)
        patch.setattr(torch.Tensor, "is_cpu", property(lambda tensor: False), raising=False)
        torch.use_deterministic_algorithms(True)
        try:
            yield found
        finally:
            torch.use_deterministic_algorithms(False)
