"""Overrides that a command hands on to the trainings it plans or starts."""

import re
from collections.abc import Sequence

import yaml

from segtrain.cli.paths import literal, with_literal_paths
from segtrain.configuration.folder import conf_dir
from segtrain.errors import UserError

COMMANDS = ("plan", "reproduce")


def collected(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments with all that are not options of the command in its list `overrides`.

    Raises:
        UserError: `experiment=`, which is no option of a training here.
    """
    known = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text()).keys()
    own, others = [], []
    for argument in arguments:
        key = argument.partition("=")[0].partition(".")[0]
        if key == "experiment":
            raise UserError(f"{argument}: {command} takes several, experiments=[...]; "
                            "patterns too, as experiments=[*_shapes]")  # fmt: skip
        is_own = argument.startswith("-") or "=" not in argument or key in known
        (own if is_own else others).append(argument)
    own = [re.sub(r"^experiments=glob\((.*)\)$", r"experiments=[\1]", text) for text in own]
    own = [re.sub(r"^experiments=\[\[(.*)\]\]$", r"experiments=[\1]", text) for text in own]
    resumed = [text for text in own if re.match(r"resume=(?!$|null$)", text)]
    if resumed:  # its folder is gone on with, not one of today's
        own.append(f"hydra.run.dir={resumed[0].removeprefix('resume=')}")
    if others:
        own.append(f"overrides=[{','.join(map(literal, with_literal_paths(others, False)))}]")
    return own


def check_names(overrides: Sequence[str], experiments: Sequence[str]) -> None:
    """Refuses an override for an experiment that is not among those.

    Raises:
        UserError: names it.
    """
    for override in overrides:
        named = re.match(r"([\w-]+):", override)
        if named and named[1] not in experiments:
            raise UserError(f"{override}: {named[1]} is not among the trainings, which are "
                            + ", ".join(experiments))  # fmt: skip
