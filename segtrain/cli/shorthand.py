"""Short forms on the command line: `epochs=30`, `data=photos/`, `run=latest` become full keys.

Nothing else sees them: what is composed, stored and handed to other processes has the full keys.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from segtrain.cli.choosing import Chosen
from segtrain.cli.paths import CHOICES, parted, plain_path
from segtrain.configuration.aliases import ALIASES, SIDES
from segtrain.errors import UserError

RUNS = ("run", "ensemble")  # keys that take runs by name, in every command that has them
ARGUMENT = re.compile(r"(?:([\w-]+):)?(\w+)=(.*)", re.DOTALL)
STAGED = ("chain", "plan", "reproduce")  # take <experiment>:key=value
SIZE = re.compile(r"\s*\[?\s*(\d+)\s*(?:,\s*(\d+)\s*)?\]?\s*")
SHOWING = {"--cfg", "-c"}  # flags that print the configuration, beside which nothing may stand
NAME = re.compile(r"\w[\w .+-]*")
OTHER = {"epochs": "trainer.max_steps", "steps": "trainer.max_epochs"}  # of which one is null
ROOT = "dataset.source.root"


class Short(NamedTuple):
    """A short form that was given.

    Args:
        typed: the whole argument.
        stage: `<experiment>:` before it, or empty.
        alias: its name.
        value: behind the equals sign.
    """

    typed: str
    stage: str
    alias: str
    value: str


def expand(command: str, arguments: Sequence[str]) -> list[str]:
    """The command line with the full keys, after saying what each short form stands for.

    Args:
        command: its name.
        arguments: behind it.

    Raises:
        UserError: a short form has no meaning there, or contradicts another argument; or there is
            no such run or data set.
    """
    arguments = _with_runs(command, arguments)
    chosen = Chosen.of(command, [a for a in arguments if _short(command, a) is None])
    shorts = dict.fromkeys(
        short for a in arguments
        if (short := _short(command, a)) and short.alias not in chosen.own_keys
    )  # fmt: skip
    if not shorts:
        return arguments
    made: dict[Short, list[str]] = {}
    # What is chosen comes first, since the rest depends on it.
    order = ("model", "multilabel", "data")
    for short in sorted(
        shorts, key=lambda short: order.index(short.alias) if short.alias in order else len(order)
    ):
        made[short] = [f"{short.stage}{o}" for o in _overrides(short, chosen)]
        chosen = chosen.with_more(made[short])
    _refuse_contradictions(arguments, made)
    for short in shorts:
        _say(f"{short.typed}  ->  {' '.join(made[short])}", arguments)
    full = [o for overrides in made.values() for o in overrides]
    # What is said key by key comes last, and has the last word on the details of data=.
    return [*dict.fromkeys(full), *(a for a in arguments if a not in {s.typed for s in made})]


def _short(command: str, argument: str) -> Short | None:
    """The short form that an argument is, if it is one."""
    parts = ARGUMENT.fullmatch(argument)
    if parts is None or command not in ALIASES.get(parts[2], ()):
        return None
    if parts[1] and command not in STAGED:
        return None
    return Short(argument, f"{parts[1]}:" if parts[1] else "", parts[2], parts[3])


def _overrides(short: Short, chosen: Chosen) -> list[str]:
    """What a short form stands for."""
    special: dict[str, Callable[[Short, Chosen], list[str]]] = {
        "data": _data, "multilabel": _multilabel, "name": _name, "size": _size
    }  # fmt: skip
    if chosen.resumed and short.alias in ("data", "model", "backbone", "name"):
        raise UserError(f"{short.typed}: a run that is resumed keeps its data, network and folder; "
                        "leave it out, or start another from its weights: "
                        "weights=<run folder>/checkpoints/last.ckpt")  # fmt: skip
    if not short.value.strip():
        raise UserError(f"{short.typed}: expected a value; {short.alias} stands for "
                        f"{_key(short, chosen)}")  # fmt: skip
    if short.alias in special:
        return special[short.alias](short, chosen)
    overrides = [f"{_key(short, chosen)}={short.value}"]
    if short.alias in OTHER and short.value != "null":
        overrides.append(f"{OTHER[short.alias]}=null")
    return overrides


def _key(short: Short, chosen: Chosen) -> str:
    return ALIASES[short.alias][chosen.command]


def _data(short: Short, chosen: Chosen) -> list[str]:
    """The data set; and an experiment for it where none is chosen."""
    from segtrain.cli.logs import to_console
    from segtrain.prepare.recognition import recognise

    instances = chosen.is_detector(short.stage, short.typed)
    values = parted(short.value) if chosen.is_sweep else [short.value]
    with to_console(sys.stderr if SHOWING & set(chosen.arguments) else sys.stdout):
        multilabel = chosen.settings.get(f"{short.stage}inference") == "multilabel"
        found = [recognise(plain_path(value), instances, multilabel) for value in values]
    for told in dict.fromkeys(one.told for one in found):
        _say(f"{'data':<12}{told}", chosen.arguments)
    settings = [dict(o.split("=", 1) for o in one.overrides) for one in found]
    differing = [key for key in settings[0] if len({one.get(key) for one in settings}) > 1]
    if len(differing) > 1 or len({tuple(one) for one in settings}) > 1:
        raise UserError(f"{short.typed}: these are read in different ways, which a sweep cannot "
                        "put side by side; start one training for each")  # fmt: skip
    panoptic = all(one.get("dataset", "").endswith("_panoptic") for one in settings)
    overrides = chosen.own_experiment(short.stage, instances, panoptic)
    for key in settings[0]:
        overrides.append(f"{key}={','.join(dict.fromkeys(one[key] for one in settings))}")
    return overrides


def _multilabel(short: Short, chosen: Chosen) -> list[str]:
    """Loss and inference of classes that may overlap."""
    if short.value not in ("true", "false"):
        raise UserError(f"{short.typed}: expected true or false")
    if short.value == "false":
        return []
    return [f"{short.stage}{group}=multilabel" for group in ("inference", "loss")]


def _name(short: Short, chosen: Chosen) -> list[str]:
    """The folder of the run."""
    from segtrain.cli.main import COMMANDS
    from segtrain.named_runs import LATEST, SWEEPS

    value = short.value.strip("'\"")
    if not NAME.fullmatch(value) or value in (LATEST, SWEEPS, *COMMANDS):
        raise UserError(f"{short.typed}: expected a name of letters, digits, spaces and . _ + - "
                        "for the folder outputs/<name>, which is no command's; hydra.run.dir= "
                        "takes a path")  # fmt: skip
    if chosen.command == "chain":
        return [f"hydra.run.dir=outputs/{value}/{datetime.now():%Y-%m-%d_%H-%M-%S}"]
    from segtrain.cli.app import run_folders

    return run_folders(value)


def _size(short: Short, chosen: Chosen) -> list[str]:
    """Of pictures: what training sees of them, or `predict`."""
    texts = [short.value]
    if chosen.is_sweep:
        texts = re.findall(r"\[[^\]]*\]|[^,\[\]]+", short.value)
    sizes = [SIZE.fullmatch(text) for text in texts]
    if not sizes or None in sizes:
        raise UserError(f"{short.typed}: expected pixels, as size=512 or size=512,384 for height "
                        "and width")  # fmt: skip
    pairs = [(int(size[1]), int(size[2] or size[1])) for size in sizes]
    if chosen.command == "predict":
        if any(height != width for height, width in pairs):
            raise UserError(f"{short.typed}: expected one number, for the shorter side")
        return [f"short_side={','.join(str(height) for height, _ in pairs)}"]
    if not chosen.sees_whole_images(short.stage, short.typed):
        crops = ",".join(f"[{height},{width}]" for height, width in pairs)
        return [f"{_key(short, chosen)}={crops}"]
    if len(pairs) > 1:
        raise UserError(f"{short.typed}: stands for {' and '.join(SIDES)} where images are seen "
                        "whole; sweep one of them")  # fmt: skip
    short_side, long_side = sorted(pairs[0])
    if sizes[0][2] is None:
        long_side = round(short_side * 1333 / 800)  # the usual shape, Mask R-CNN's
    sides = [f"{SIDES[0]}=[{short_side},{short_side}]", f"{SIDES[1]}={long_side}"]
    if chosen.jitters_scale(short.stage):
        height, width = pairs[0]
        sides.append(f"dataset.transform.scale_jitter.crop_size=[{height},{width}]")
    return sides


def _refuse_contradictions(arguments: Sequence[str], made: dict[Short, list[str]]) -> None:
    """Refuses a key that is given twice.

    Raises:
        UserError: by a short form and by itself, or by two short forms.
    """
    typed = {short.typed for short in made}
    settings = [a.lstrip("+").partition("=")[::2] for a in arguments if a not in typed]
    given: dict[str, tuple[str, str]] = {}  # full key -> its value and the short form
    for short, overrides in made.items():
        for number, override in enumerate(overrides):
            key, _, value = override.partition("=")
            other = given.setdefault(key, (value, short.typed))
            if other[0] != value:
                raise UserError(f"{other[1]} and {short.typed}: give one of them; both set {key}")
            # Of data= the data set itself; its details may be given one by one.
            bound = short.alias != "data" or key.rpartition(":")[2] in ("dataset", ROOT)
            for name, own in settings:
                if name == key and bound and (number == 0 or own != value):
                    raise UserError(
                        f"{short.typed} and {name}={own}: give one of them; "
                        f"{short.typed} is short for {' '.join(overrides)}"
                    )


def _with_runs(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments with the folders of runs that are named, as `latest` or `leaves`."""
    keys = () if command == "tensorboard" else RUNS
    keys = ("resume",) if command == "train" else keys
    is_sweep = any(a in ("-m", "--multirun") or a.startswith("sweep=") for a in arguments)
    result = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        new = argument
        if equals and key in keys and value not in ("", "null") and not os.path.lexists(value):
            new = f"{key}={_runs(key, value, is_sweep)}"
        if new != argument:
            _say(f"{argument}  ->  {new}", arguments)
        result.append(new)
    return result


def _runs(key: str, value: str, is_sweep: bool) -> str:
    """One run, several in brackets, or the several of a sweep."""
    from segtrain.named_runs import OUTPUTS, find_run
    from segtrain.zoo.catalogue import is_published

    def found(given: str) -> str:
        if not given or "${" in given or CHOICES.fullmatch(given) or is_published(given):
            return given
        path = given if os.path.lexists(OUTPUTS / given) else plain_path(given)
        try:
            folder = find_run(path, unfinished=key == "resume")
        except UserError as error:
            raise UserError(f"{key}={error}") from None
        return given if str(folder) == path else str(folder)

    if os.path.lexists(OUTPUTS / value):
        return found(value)
    if value[0] + value[-1] == "[]":
        return f"[{','.join(map(found, parted(value[1:-1])))}]"
    return ",".join(map(found, parted(value))) if is_sweep and "," in value else found(value)


def _say(line: str, arguments: Sequence[str]) -> None:
    """Prints a line; beside the configuration where that is printed."""
    from segtrain.text import visible

    print(visible(line), file=sys.stderr if SHOWING & set(arguments) else sys.stdout, flush=True)
