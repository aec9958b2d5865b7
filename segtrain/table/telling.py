"""What tells runs apart that look alike in a table: the settings in which they differ."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from segtrain.configuration.aliases import ALIASES
from segtrain.table import wording
from segtrain.table.changes import TRAINED_BY
from segtrain.table.groups import NO_PART_OF_THE_RECIPE, Group

MOST = 5  # settings that are shown
LONGEST = 24  # characters of a value
OF_EVALUATION = ("dataset", "inference", "trainer", "output_stride", "ensemble")
TARGET = "._target_"


class Difference(NamedTuple):
    """A setting in which runs differ.

    Args:
        key: the full key; of objects whose class differs, the object's.
        title: its last part, or more where that is not enough.
        values: one a group; None where it has no such key.
    """

    key: str
    title: str
    values: list[Any]

    def text(self, position: int) -> str:
        """A value as the table shows it; of a long one, such as a path, the end."""
        value = self.values[position]
        text = wording.NONE if value is None else str(value)
        if text.startswith("segtrain."):  # a class
            text = text.rpartition(".")[2]
        return text if len(text) <= LONGEST else f"...{text[3 - LONGEST :]}"


def differences(groups: Sequence[Group], looks: Sequence[Hashable]) -> list[Difference]:
    """The settings that tell groups apart, the most telling first, a handful at most.

    Where none do, or not enough, the last one is the folder.

    Args:
        groups: rows of the table.
        looks: of each, what the other columns say of it; those that differ there are told apart.
    """
    flat = [settings(group) for group in groups]
    every = dict.fromkeys(key for of in flat for key in of)
    texts = {key: [repr(of.get(key)) for of in flat] for key in every}  # lists are values too
    candidates = []
    for key in every:
        same = _joined(looks, *(texts[target] for target in _targets_above(key) if target in every))
        if _alike(_joined(same, texts[key])) < _alike(same):
            candidates.append(key)
    chosen: list[str] = []
    told = list(looks)
    while candidates and len(chosen) < MOST:
        best = min(
            candidates,
            # What tells most apart; then a class before its settings, what makes another training
            # before what does not, and what has many values.
            key=lambda key: (
                _alike(_joined(told, texts[key])), not key.endswith(TARGET),
                not key.startswith(TRAINED_BY), -len(set(texts[key])),
            ),
        )  # fmt: skip
        told = _joined(told, texts[best])
        chosen.append(best)
        candidates.remove(best)
    found = [
        Difference(key.removesuffix(TARGET), title, [of.get(key) for of in flat])
        for key, title in zip(chosen, _titles(chosen), strict=True)
    ]
    if _alike(told):
        found.append(Difference("folder", "folder", [str(g.runs[0].folder) for g in groups]))
    return found


def settings(group: Group) -> dict[str, Any]:
    """Value by full key of what a group was trained, and evaluated, by.

    Objects of another class have other keys; the class alone stands for them.
    """
    config = dict(group.config or {})
    if group.runs[0].config is not None and not group.runs[0].is_training:
        own = group.runs[0].config
        config |= {key: own[key] for key in OF_EVALUATION if own.get(key)}
    found: dict[str, Any] = {}

    def walk(node: dict, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            elif prefix or key not in NO_PART_OF_THE_RECIPE:
                found[f"{prefix}{key}"] = value

    walk(config, "")
    return found


def _targets_above(key: str) -> list[str]:
    """The keys of the classes that a setting is one of; of a class those around it."""
    parts = key.removesuffix(TARGET).split(".")
    return [".".join(parts[:count]) + TARGET for count in range(1, len(parts))]


def _titles(keys: Sequence[str]) -> list[str]:
    """The short forms of keys, or else so many of their last parts that none is there twice."""
    short = {of["train"]: alias for alias, of in ALIASES.items() if "train" in of}
    parts = [short.get(key, key.removesuffix(TARGET)).split(".") for key in keys]
    titles = [".".join(of[-1:]) for of in parts]
    count = 1
    while len(set(titles)) < len(titles):
        count += 1
        titles = [
            ".".join(of[-count:]) if titles.count(title) > 1 else title
            for of, title in zip(parts, titles, strict=True)
        ]
    return titles


def _joined(looks: Sequence[Hashable], *texts: Sequence[str]) -> list[Hashable]:
    return list(zip(looks, *texts, strict=True))


def _alike(looks: Sequence[Hashable]) -> int:
    """Pairs of groups that look alike."""
    return sum(count * (count - 1) // 2 for count in Counter(looks).values())
