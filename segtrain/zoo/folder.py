"""A network as a folder of files: `config.json` beside its weights, as the hub has it.

The weights are one file of safetensors, several that an index names, or one of PyTorch's.
"""

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from segtrain.errors import UserError
from segtrain.foreign import admit

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"[A-Za-z0-9][\w.-]*\.safetensors", re.ASCII)  # a file of the same folder
LARGEST_FILE = 16_000_000  # bytes of JSON
LARGEST_NUMBER = 65_536  # channels, layers or the like of a network
# Its `model_type`s that are read.
TRANSFORMERS = ("segformer", "upernet", "mask2former", "eomt", "eomt_dinov3")


def folder_of(source: str | Path) -> Path | None:
    """The folder of a network that `source` is, or whose file it is; None for anything else."""
    path = Path(source)
    if path.is_dir():
        return path if (path / CONFIG).is_file() else None
    if path.name not in (CONFIG, *WEIGHTS, INDEX) or not path.is_file():
        return None
    try:
        require_config(path.parent, trust_code=True)  # it may be of another kind, or of a backbone
    except UserError:
        return None
    return path.parent


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder that hold its weights; none where they are not all there.

    Raises:
        UserError: an index names other files than those of the folder.
    """
    whole, pickled = (folder / name for name in WEIGHTS)
    if (folder / INDEX).is_file() and not whole.is_file():
        files = [folder / name for name in shard_names(folder / INDEX)]
        return files if all(file.is_file() for file in files) else []
    return [file for file in (whole, pickled) if file.is_file()][:1]


def shard_names(index: Path) -> list[str]:
    """The files that an index names.

    Raises:
        UserError: it is none, or names something else than files beside it.
    """
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(f"{index}: names no files of weights (weight_map)")
    for name in names.values():
        if not isinstance(name, str) or not SHARD.fullmatch(name):
            raise UserError(f"{index}: names {str(name)[:80]!r}, expected files of its own folder, "
                            "such as model-00001-of-00002.safetensors")  # fmt: skip
    return sorted(set(names.values()))


def read_tensors(folder: Path) -> "dict[str, Tensor]":
    """All tensors of a folder's weights.

    Raises:
        UserError: a file is missing or damaged, or two of them have one tensor.
    """
    from segtrain.architecture.weights import read_state_dict

    files = weight_files(folder)
    if not files:
        wanted = f"{', '.join(WEIGHTS)}, or all that {INDEX} names"
        raise UserError(f"{folder}: has no weights: {wanted}")
    state: dict[str, Tensor] = {}
    for file in files:
        part = read_state_dict(file)
        if twice := sorted(state.keys() & part.keys()):
            raise UserError(f"{folder}: {twice[0]} stands in two files of the weights")
        state |= part
    return state


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of finite numbers, which names no code from elsewhere.

    Raises:
        UserError: there is none, or it is something else.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path}: has more than {LARGEST_FILE:,} bytes, expected thousands")
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse,
                             parse_float=_finite)  # fmt: skip
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise UserError(f"{path}: not a readable JSON file ({reason[:200]})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, expected keys and values")
    return content


def require_config(folder: Path, trust_code: bool = False) -> dict[str, Any]:
    """What a folder's `config.json` says, if its network is one that is read.

    Args:
        folder: with the file.
        trust_code: whether it may name classes that are not part of this package.

    Returns:
        Where segtrain wrote it, the entries of `segtrain.export.folder.describe`, and in any case
        `model_type` where the tensors have the names of transformers.

    Raises:
        UserError: it says nothing of a network, names code, or has numbers that cannot be.
    """
    path = folder / CONFIG
    content = read_json(path)
    if "auto_map" in content:
        raise UserError(f"{path}: wants code of its own repository to be run (auto_map), which "
                        "segtrain never does")  # fmt: skip
    content = admit(content, str(folder), trust_code)
    if isinstance(content.get("segtrain"), dict):
        own = content["segtrain"]
        if "model_type" in content:
            own = own | {"model_type": content["model_type"]}
        content = own
    is_own = "architecture" in content
    if not is_own and content.get("model_type") not in TRANSFORMERS:
        raise UserError(
            f"{path}: not the description of a network that is known: model_type is "
            f"{str(content.get('model_type'))[:80]!r}, expected {' or '.join(TRANSFORMERS)} of "
            "transformers, or what segtrain export format=hub writes"
        )
    checked = content["architecture"] if is_own else content
    for key, number in _numbers(checked, "architecture" if is_own else ""):
        if abs(number) > LARGEST_NUMBER:
            raise UserError(f"{path}: {key} is {str(number)[:20]}, expected at most "
                            f"{LARGEST_NUMBER:,}")  # fmt: skip
    return content


def _numbers(node: Any, key: str) -> "list[tuple[str, float]]":
    if isinstance(node, dict):
        parts = [(f"{key}.{name}" if key else str(name), value) for name, value in node.items()]
    elif isinstance(node, list):
        parts = [(key, value) for value in node]
    else:
        return [(key, node)] if isinstance(node, int | float) else []
    return [found for name, value in parts for found in _numbers(value, name)]


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        _refuse(text)
    return number


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"the number {text[:20]} is not finite")
