"""One file a zoo: how its files name what they hold, and the same under our names."""

from torch import Tensor


def rename(state: dict[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Every key with the prefix of the first rule that it fits replaced."""
    renamed = {}
    for key, value in state.items():
        old, new = next(((old, new) for old, new in rules if key.startswith(old)), ("", ""))
        renamed[new + key.removeprefix(old)] = value
    return renamed
