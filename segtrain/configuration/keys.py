"""Where the value of a key with dots lies in a configuration."""

from typing import Any


def holder_of(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str] | None:
    """The part of the configuration that holds a key's value, and the key's name there.

    None where there is no such place: a network without a loss of pixels has no class weights.
    """
    *parts, last = key.split(".")
    node: Any = config
    for part in parts:
        node = node.get(part) if isinstance(node, dict) else None
    return (node, last) if isinstance(node, dict) and last in node else None
