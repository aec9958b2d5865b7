"""The configuration of a command, or of a run from a file, checked against its schema."""

from collections.abc import Collection
from copy import deepcopy
from typing import Any, TypedDict

from segtrain.configuration.schema import (
    Benchmark,
    Demo,
    Evaluate,
    Export,
    Plan,
    Predict,
    Prepare,
    Recipe,
    ReportAgain,
    Reproduce,
    Table,
)
from segtrain.configuration.validation import validate
from segtrain.errors import UserError
from segtrain.values import Text

SCHEMAS: dict[str, type] = {
    "train": Recipe,
    "benchmark": Benchmark,
    "evaluate": Evaluate,
    "predict": Predict,
    "demo": Demo,
    "export": Export,
    "report": ReportAgain,
    "prepare": Prepare,
    "table": Table,
    "plan": Plan,
    "reproduce": Reproduce,
}


def checked(command: str, config: dict[str, Any]) -> dict[str, Any]:
    """The resolved configuration of a command, which nothing in it will stop.

    Raises:
        UserError: see `segtrain.configuration.validation.validate`.
    """
    return validate(SCHEMAS[command], config)


def checked_stored(config: dict[str, Any], parts: Collection[str], origin: str) -> dict[str, Any]:
    """The configuration of a run from a file, whose parts that are used nothing in them will stop.

    What else the file holds, perhaps of an older version of the program, does no harm.

    Args:
        config: that was admitted (see `segtrain.foreign.admit`), as names in it are imported.
        parts: keys of `Recipe`.
        origin: what messages call the file.

    Raises:
        UserError: see `segtrain.configuration.validation.validate`.
    """
    hints = Recipe.__annotations__ | {"experiment": Text}  # which is stored always
    schema = TypedDict("schema", {part: hints[part] for part in parts})
    try:
        return config | validate(schema, {key: config[key] for key in parts if key in config})
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None


def takes(command: str, config: dict[str, Any], key: str) -> bool:
    """Whether something would read a key that the configuration does not have yet."""
    whole = deepcopy(config)
    *sections, name = key.split(".")
    node = whole
    for section in sections:
        node = node.get(section)
        if not isinstance(node, dict):
            return False
    node[name] = None
    try:
        checked(command, whole)
    except UserError as error:
        return f"unknown key '{key}'" not in str(error)
    return True
