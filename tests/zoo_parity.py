"""Networks of a zoo beside ours, on weights that both draw by one rule.

`tests/zoo/<zoo>/<model>.txt.gz` lists the names and shapes of the tensors in the zoo's file, and
`<model>.npz` has every seventh of the logits, in rows and columns, that the zoo's own code gives
for `picture` with weights that are `drawn`, resized to the picture as the zoo's test does.
"""

import gzip
from importlib import import_module
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from conftest import composed
from torch import Tensor, nn

from segtrain.architecture.weights import load_weights, without_prefixes
from segtrain.assembly import build_model, make
from segtrain.contracts import resize
from segtrain.zoo.catalogue import find
from segtrain.zoo.entry import Entry

FOLDER = Path(__file__).parent / "zoo"
EVERY = 7  # row and column of a picture


def shapes(zoo: str, model: str) -> dict[str, tuple[int, ...]]:
    """Of the tensors in the zoo's file."""
    with gzip.open(FOLDER / zoo / f"{model}.txt.gz", "rt") as file:
        words = [line.split() for line in file]
    return {name: tuple(map(int, sides)) for name, *sides in words}


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """The same values for the same name and shape, of a size that keeps signals alive."""
    generator = torch.Generator().manual_seed(crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if name.endswith("running_var"):
        return torch.rand(shape, generator=generator) + 0.5
    values = torch.randn(shape, generator=generator)
    if len(shape) < 2:
        return 0.1 * values + (0.7 if name.endswith("weight") else 0)
    return values * (2 / np.prod(shape[1:])) ** 0.5


def state_of(zoo: str, model: str, on_meta: bool = False) -> dict[str, Tensor]:
    """The tensors of the zoo's file, as it is read."""
    state = {
        name: torch.empty(shape, device="meta") if on_meta else drawn(name, shape)
        for name, shape in shapes(zoo, model).items()
    }
    return without_prefixes(state, Path(model))


def picture(height: int, width: int) -> Tensor:
    """(1, 3, H, W) uint8 RGB."""
    generator = torch.Generator().manual_seed(1000 * height + width)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)


def network(entry: Entry, num_classes: int) -> nn.Module:
    """Ours, as the row says."""
    return build_model(configured(entry.architecture), num_classes).eval()


def configured(architecture: tuple[str, ...]) -> dict:
    """A configuration with these overrides."""
    return composed(
        *architecture,
        "architecture.backbone.weights=none",
        "trainer.channels_last=false",  # other kernels add in another order
    )


def check_names(zoo: str, model: str) -> None:
    """The file is told by its names, and its tensors are exactly those of the row's network."""
    names = import_module(f"segtrain.zoo.names.{zoo}")
    entry, state = find(f"{zoo}/{model}"), state_of(zoo, model, on_meta=True)
    known = names.recognised(state)
    told = configured(known.architecture)["architecture"]
    assert told == configured(entry.architecture)["architecture"]
    assert known.system.startswith(entry.system)
    with torch.device("meta"):
        own = network(entry, known.num_classes).state_dict()
    found = names.renamed(state, own)
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in own.items()
    }
    labels = make(configured((f"dataset={entry.dataset}",))["dataset"]["labels"])
    if entry.classes is None:
        assert known.num_classes == labels.num_classes
    else:
        assert known.num_classes == len(entry.classes) == len(set(entry.classes))
        assert set(labels.names) <= set(entry.classes)


def check_logits(zoo: str, model: str) -> float:
    """Logits and labels are those of the zoo's code; the largest difference in deviations."""
    names, state = import_module(f"segtrain.zoo.names.{zoo}"), state_of(zoo, model)
    ours = network(find(f"{zoo}/{model}"), names.recognised(state).num_classes)
    load_weights(ours, names.renamed(state, ours.state_dict()), model)
    largest = 0.0
    with np.load(FOLDER / zoo / f"{model}.npz") as references:
        for size, expected in references.items():
            height, width = map(int, size.split("x"))
            with torch.no_grad():
                outputs = ours(picture(height, width))
            logits = resize(outputs["logits"], (height, width), outputs["align_corners"])
            found = logits[0, :, ::EVERY, ::EVERY].numpy()
            assert (found.argmax(0) == expected.argmax(0)).all()
            largest = max(largest, float(np.abs(found - expected).max() / expected.std()))
    assert largest <= 1e-4
    return largest
