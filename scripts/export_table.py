"""The table of docs/export.md: every semantic architecture, full size, exported in both formats.

Networks have random weights, batch-norm statistics of the pictures and terms that let no class win
everywhere, so that classes change from place to place as a trained network's do.

    pip install '.[export]'
    python scripts/export_table.py                # all of them: up to an hour on two cores
    python scripts/export_table.py pspnet encnet
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from segtrain.assembly import build_model, make
from segtrain.configuration.composing import compose_config
from segtrain.configuration.folder import conf_dir
from segtrain.export.compare import compare, smooth_pictures
from segtrain.export.deployed import Deployed, one_look
from segtrain.export.onnx import load_onnx, write_onnx
from segtrain.export.torch_export import load_program, trace, write_program

CLASSES = 21
SIZES = [(129, 193), (240, 320)]  # as `segtrain export` compares; traced at another
HEAD = "| `architecture=` | format | file | largest logit | largest difference | same class |"


def semantic_architectures() -> list[str]:
    """Choices of conf/architecture that score the classes of every pixel."""
    files = sorted((conf_dir() / "architecture").glob("*.yaml"))
    targets = {f.stem: yaml.safe_load(f.read_text())["_target_"] for f in files}
    return [name for name, target in targets.items() if ".instance." not in target]


def lively(name: str, images: Tensor) -> nn.Module:
    """The full-size network, whose scores differ from place to place of (N, 3, H, W) uint8."""
    torch.manual_seed(0)
    overrides = [f"architecture={name}", "architecture.backbone.weights=none"]
    model = build_model(compose_config(overrides), CLASSES).train()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "classifier" in parameter_name:
                parameter.normal_(0, 0.5)
        model(images)
    return model.eval()


def rows(name: str, folder: Path) -> list[str]:
    """One row a format, with the worst of both sizes."""
    pictures = smooth_pictures()
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    network = lively(name, images)
    with torch.no_grad():
        means = network(images)["logits"].mean((0, 2, 3))
    protocol = compose_config([])["inference"] | {"logit_adjustment": (-means).tolist()}
    look = one_look(make(protocol))

    def original(image: Tensor) -> Tensor:
        return torch.stack(look(network, list(image)))

    found = []
    for format_name in ("onnx", "torch_export"):
        path = folder / {"onnx": "model.onnx", "torch_export": "model.pt2"}[format_name]
        deployed = Deployed(network, look, "logits")
        program = trace(deployed, None)
        if format_name == "onnx":
            write_onnx(program, path, {}, deployed.returns)
            exported = load_onnx(path)
        else:
            write_program(program, path, {})
            exported = load_program(path)
        results = [compare(exported, original, pictures, size) for size in SIZES]
        agreement = min(result.label_agreement for result in results)
        found.append(
            f"| `{name}` | {format_name} | {path.stat().st_size / 1e6:.0f} MB "
            f"| {max(result.largest_logit for result in results):.2g} "
            f"| {max(result.largest_difference for result in results):.1g} "
            f"| {100 * agreement:.3f} % |"
        )
        path.unlink()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("architectures", nargs="*", help="all by default")
    chosen = parser.parse_args().architectures or semantic_architectures()
    print(HEAD, "|---|---|---|---|---|---|", sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for architecture in chosen:
            print(*rows(architecture, Path(temporary)), sep="\n", flush=True)
