"""A network's graph as an ONNX file."""

import json
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from segtrain.errors import UserError
from segtrain.export.torch_export import traced_shape

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
AXES = ("batch", "channel", "height", "width")


def require_packages() -> None:
    """Refuses to begin where a package is missing.

    Raises:
        UserError: says how to install them.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f"format=onnx needs {', '.join(PACKAGES)}; missing: {', '.join(missing)}. Install what "
            f"is missing: pip install {' '.join(missing)}"
        )


def write_onnx(
    program: ExportedProgram, path: Path, description: dict[str, Any], returns: tuple[str, ...]
) -> None:
    """Writes one file with graph, weights and, as metadata, what the network is.

    Args:
        program: with the input `image` (N, 3, H, W) uint8 RGB.
        path: of the file.
        description: becomes the metadata; what is no text becomes JSON.
        returns: what the outputs are called.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    for chatty in ("onnx_ir", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    axes = {
        number: name
        for number, (name, length) in enumerate(zip(AXES, traced_shape(program), strict=True))
        if isinstance(length, torch.SymInt)
    }
    converted = torch.onnx.export(
        program,
        input_names=["image"],
        output_names=list(returns),
        dynamic_shapes={"image": axes},
        verbose=False,
    )
    ClearMetadataAndDocStringPass()(converted.model)  # traces of this machine's files
    converted.model.metadata_props.update(
        {key: value if isinstance(value, str) else json.dumps(value)
         for key, value in description.items()}
    )  # fmt: skip
    converted.save(path)


def load_onnx(path: Path) -> Callable[[Tensor], Tensor | tuple[Tensor, ...]]:
    """The written file in onnxruntime, on the CPU, as a function of images (N, 3, H, W) uint8.

    It gives the output, or several as a tuple.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = tuple(map(torch.from_numpy, session.run(None, {"image": image.numpy()})))
        return outputs if len(outputs) > 1 else outputs[0]

    return run
