"""Command lines with a published network: its own way of testing, before what the user chooses."""

from collections.abc import Sequence

from segtrain.zoo.catalogue import find, is_row, row_of_file
from segtrain.zoo.entry import Entry

COMMANDS = ("evaluate", "predict", "demo")
PRECISION = "trainer.precision=32-true"  # of the zoos' tests


def with_protocol(command: str, overrides: Sequence[str]) -> list[str]:
    """The overrides after those of the zoo's protocol, so that they change single values of it.

    A data set or protocol that is chosen takes the place of the zoo's.

    Args:
        command: one of COMMANDS.
        overrides: of the command line; where `weights` has several values, or is no zoo's, they
            are returned as they are.

    Raises:
        UserError: the zoo has no such network.
    """
    given = dict(override.partition("=")[::2] for override in overrides)
    weights = given.get("weights", "").strip("'\"")
    row = find(weights) if is_row(weights) and "," not in weights else row_of_file(weights)
    if row is None:
        return list(overrides)
    added = []
    for override in row.protocols[_protocol(row, given)].inference:
        group = "dataset" if override.startswith("dataset.") else "inference"
        if override.partition("=")[0] in given:
            continue
        is_own = group not in given or (group == "dataset" and given[group] == row.dataset)
        if is_own and (command == "evaluate" or group == "inference"):
            added.append(override)
    if command == "evaluate":
        added.insert(0, PRECISION)
        if "dataset" not in given:
            added.insert(0, f"dataset={row.dataset}")
    return [*added, *overrides]


def _protocol(row: Entry, given: dict[str, str]) -> str:
    chosen = given.get("protocol")
    return chosen if chosen in row.protocols else next(iter(row.protocols))
