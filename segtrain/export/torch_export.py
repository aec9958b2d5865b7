"""A network's graph by torch.export, for PyTorch without this package, and on the way to ONNX."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from timm.layers import padding
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shapes

from segtrain.errors import UserError
from segtrain.export.deployed import Deployed
from segtrain.export.detector import DeployedDetector
from segtrain.export.queries import DeployedQueries
from segtrain.writing import TorchFile

# What the graph is made with; it takes others. At stride 32 these are 5x7 cells: a side that
# pyramids pool to as well would be taken for theirs.
TRACED_BATCH, TRACED_SIZE = 2, (160, 224)


def trace(
    network: Deployed | DeployedDetector | DeployedQueries, size: tuple[int, int] | None
) -> ExportedProgram:
    """The graph of a network: for any batch, and for pictures of any size.

    A detector's is for one picture of a fixed size, with as many objects as it shows.

    Args:
        network: to be traced.
        size: height and width of all pictures if they shall be fixed, else None.

    Raises:
        UserError: the network has no graph for any size, or torch.export cannot make one.
    """
    name = network.model.backbone.name
    if size is None and isinstance(network, DeployedDetector):
        raise UserError(
            "the graph of a detector is for pictures of one size, to which your "
            "program brings them; give size=[height,width], as size=[480,640]"
        )
    if size is None and getattr(network.model.backbone, "patch_size", None) is not None:
        raise UserError(f"{name} cuts its maps into windows, so that no graph takes pictures of "
                        "any size; give size=[height,width]")  # fmt: skip
    try:
        with padding_in_whole_numbers():
            program = _trace(network, size)
    except Exception as error:  # torch.export raises many kinds
        reason = str(error).strip().partition("\n")[0]
        hint = "; size=[height,width] asks for less" if size is None else ""
        raise UserError(
            f"torch.export makes no graph of {type(network.model).__name__} on {name} ({reason})"
            f"{hint}. SEGTRAIN_TRACEBACK=1 shows where"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # places on this machine's disk
    return program


def _trace(
    network: Deployed | DeployedDetector | DeployedQueries, size: tuple[int, int] | None
) -> ExportedProgram:
    if isinstance(network, DeployedDetector):
        with torch.no_grad():
            return torch.export.export(network, (torch.zeros(1, 3, *size, dtype=torch.uint8),))
    example = torch.zeros(TRACED_BATCH, 3, *(size or TRACED_SIZE), dtype=torch.uint8)
    dynamic = (0, 2, 3) if size is None else (0,)
    # By default torch.export assumes that no map has a side of one cell. It can do without, but
    # then it binds networks that permute their maps, such as ConvNeXt, to batches of two and more.
    for assumes_nothing in (True, False):
        with torch.no_grad(), shapes.patch(backed_size_oblivious=assumes_nothing):
            program = torch.export.export(
                network, (example,), dynamic_shapes={"image": dict.fromkeys(dynamic, Dim.DYNAMIC)}
            )
        if smallest_batch(program) <= 1:
            break
    return program


@contextlib.contextmanager
def padding_in_whole_numbers() -> Iterator[None]:
    """Lets timm's `SAME` padding be computed without fractions while a network is traced.

    Its ceil(length / stride) of sizes that are not known cannot be saved, and one layer after the
    other keeps the solver of shapes busy for hours.
    """
    original = padding.get_same_padding
    padding.get_same_padding = same_padding
    try:
        yield
    finally:
        padding.get_same_padding = original


def same_padding(length: int, kernel_size: int, stride: int, dilation: int) -> int:
    """Cells that TensorFlow adds, so that a side has ceil(length / stride) cells afterwards."""
    reach = (kernel_size - 1) * dilation + 1
    padded = -length % stride + reach - stride
    return padded if reach >= stride else max(padded, 0)


def smallest_batch(program: ExportedProgram) -> int:
    """The fewest pictures that the program says it takes."""
    return int(program.range_constraints[traced_shape(program)[0].node.expr].lower)


def traced_shape(program: ExportedProgram) -> torch.Size:
    """The shape of its one input; what may vary is a torch.SymInt."""
    (image,) = (n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs)
    return image.meta["val"].shape


def write_program(program: ExportedProgram, path: Path, description: dict) -> None:
    """Writes the program and, as its extra file `config.json`, what it is.

    `torch.export.load(path).module()` takes images (N, 3, H, W) uint8 RGB.
    """
    extra = {"config.json": json.dumps(description)}
    with open(path, "wb") as file, TorchFile(file) as writer:
        torch.export.save(program, writer, extra_files=extra)


def load_program(path: Path) -> Callable[[Tensor], Tensor]:
    """The written program as a function of images (N, 3, H, W) uint8 RGB."""
    return torch.export.load(path).module()
