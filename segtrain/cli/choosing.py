"""What a command line chooses, as far as its short forms depend on it, before it is composed."""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import yaml

from segtrain.cli.paths import plain_path
from segtrain.configuration.aliases import SIDES
from segtrain.configuration.folder import conf_dir, options
from segtrain.errors import UserError
from segtrain.table.runs import read_config

DETECTING = ("detect", "propose")  # inference of detectors
SEVERAL = ("plan", "reproduce")  # commands with experiments=[...]


class Chosen(NamedTuple):
    """A command line, but for its short forms.

    Args:
        command: its name.
        arguments: full keys, flags and the like.
        folders: of configuration files, the user's own before `conf/`.
    """

    command: str
    arguments: list[str]
    folders: list[Path]

    @classmethod
    def of(cls, command: str, arguments: Sequence[str]) -> "Chosen":
        """What arguments choose."""
        flags = ("--config-dir", "-cd")
        own = [Path(value) for flag, value in _flags(arguments) if flag in flags]
        for argument in arguments:
            if argument.startswith("hydra.searchpath="):
                own += map(Path, re.findall(r"file://([^'\",\]]+)", argument))
        return cls(command, list(arguments), [*own, conf_dir()])

    def with_more(self, overrides: Sequence[str]) -> "Chosen":
        """The same with more overrides."""
        return self._replace(arguments=[*self.arguments, *overrides])

    @property
    def settings(self) -> dict[str, str]:
        """Value by key."""
        pairs = (argument.partition("=") for argument in self.arguments)
        return {key.lstrip("+"): value for key, equals, value in pairs if equals}

    @property
    def is_sweep(self) -> bool:
        """Whether commas part the values of several runs."""
        flags = {"-m", "--multirun"} & set(self.arguments)
        return bool(flags or "sweep" in self.settings)

    @property
    def resumed(self) -> Path | None:
        """The run or chain that is gone on with."""
        given = self.settings.get("resume", "null")
        return Path(plain_path(given)) if given not in ("", "null") else None

    @property
    def own_keys(self) -> set[str]:
        """Groups and top-level keys of the user's own configuration."""
        flags = ("--config-name", "-cn")
        names = {value for flag, value in _flags(self.arguments) if flag in flags}
        found: set[str] = set()
        for folder in self.folders[:-1]:
            found |= {path.name for path in folder.glob("*/")}
            for name in names | {self.command}:
                file = folder / f"{name.removesuffix('.yaml')}.yaml"
                found |= (_content(file) if file.is_file() else {}).keys()
        return found

    def own_experiment(self, stage: str, instances: bool, panoptic: bool = False) -> list[str]:
        """The experiment of one's own data, where none is chosen and the command trains one."""
        name = "own_instances" if instances else "own_panoptic" if panoptic else "own"
        if stage or self.settings.keys() & {"experiment", "experiments", "evaluations"}:
            return []
        if self.command in SEVERAL:
            return [f"experiments=[{name}]"]
        return [f"experiment={name}"] if self.command in ("train", "chain") else []

    def is_detector(self, stage: str, typed: str) -> bool:
        """Whether the network finds instances.

        Args:
            stage: `<experiment>:` that the question is about, or empty.
            typed: the argument that depends on it.

        Raises:
            UserError: some of several do, or a network does not exist.
        """
        if self.command == "evaluate":
            return self._evaluates_detector()
        if self.own_experiment(stage, False) and not self._given("architecture", stage):
            return False
        found = set()
        for name in self._choices("architecture", stage):
            file = self._file("architecture", name)
            if file is None:
                from segtrain.configuration.messages import nearest

                raise UserError(f"unknown architecture '{name}'; "
                                f"{nearest(name, options('architecture'))}")  # fmt: skip
            found.add(self._choice("inference", file) in DETECTING)
        return _one_of(found, typed, "detectors and networks that label pixels")

    def sees_whole_images(self, stage: str, typed: str) -> bool:
        """Whether training sees images whole, resized by their sides, and not crops of them.

        Raises:
            UserError: some of several trainings do.
        """
        if self.resumed is not None and self.command == "train":
            transforms = [((read_config(self.resumed) or {}).get("dataset") or {}).get("transform")]
        else:
            files = [self._file("dataset", name) for name in self._choices("dataset", stage)]
            transforms = [_content(file).get("transform") for file in files if file]
        side = SIDES[0].rpartition(".")[2]
        found = {side in transform for transform in transforms if transform}
        return _one_of(found, typed, "data sets that are seen whole and in crops")

    def jitters_scale(self, stage: str) -> bool:
        """Whether images of instances are cropped in training, after large-scale jitter."""
        return bool(self._choices("dataset/transform/scale_jitter", stage) - {None, "null"})

    def _evaluates_detector(self) -> bool:
        given = {key: plain_path(value) for key, value in self.settings.items()}
        if weights := given.get("weights"):
            from segtrain.zoo.catalogue import find, is_row

            name = find(weights).architecture[0].partition("=")[2] if is_row(weights) else None
            file = name and self._file("architecture", name)
            return bool(file) and self._choice("inference", file) in DETECTING
        checkpoint = Path(given.get("checkpoint", ""))
        config = read_config(Path(given.get("run", checkpoint.parent.parent)))
        if config is None and checkpoint.is_file():
            from segtrain.trained import stored_config

            config = stored_config(checkpoint, trust_code=True)[0]  # nothing of it is built here
        target = ((config or {}).get("inference") or {}).get("_target_", "")
        return target.split(".")[-2:-1] in ([name] for name in DETECTING)

    def _given(self, group: str, stage: str) -> set[str]:
        """The options of a group that the command line chooses; of a sweep all."""
        given = self.settings.get(f"{stage}{group}") or self.settings.get(group) or ""
        return {name.strip(" '\"") for name in given.split(",")} - {""}

    def _choices(self, group: str, stage: str) -> set[str]:
        """The options of a group, of each run."""
        if given := self._given(group, stage):
            return given
        found = {self._choice(group, file) for file in self._experiments(stage)}
        command = self.command if (conf_dir() / f"{self.command}.yaml").is_file() else "train"
        default = self._choice(group, conf_dir() / f"{command}.yaml")
        default = default or self._choice(group, conf_dir() / "train.yaml")
        return {name or default for name in found} or {default}

    def _experiments(self, stage: str) -> Iterator[Path]:
        """Files of the experiments that are chosen."""
        if stage:
            names = [stage.removesuffix(":")]
        elif self.command in SEVERAL:
            given = self.settings.get("experiments", "*").strip("[]").split(",")
            patterns = ["*" if name == "table" else name.strip(" '\"") for name in given]
            known = options("experiment")
            names = [name for name in known if any(fnmatch(name, one) for one in patterns)]
        else:
            value = plain_path(self.settings.get("experiment", ""))
            names = [value] if Path(value).is_file() else value.split(",") if value else []
        for name in names:
            own, file = Path(name), self._file("experiment", name.strip("[]"))
            if own.is_file() or file is not None:
                yield own if own.is_file() else file

    def _file(self, group: str, name: str, beside: Path | None = None) -> Path | None:
        """The file of an option; what does not exist is refused when all is composed."""
        places = [folder / group for folder in self.folders]
        files = [place / f"{name}.yaml" for place in ([beside] if beside else []) + places]
        return next((file for file in files if file.is_file()), None)

    def _choice(self, group: str, file: Path) -> str | None:
        """What a file's list of defaults chooses of a group, or those chosen before do."""
        entries = _content(file).get("defaults") or []
        below = None
        for entry in entries:
            for key, value in entry.items() if isinstance(entry, dict) else ():
                if re.sub(r"^override |@.*$", "", key).removeprefix("/") == group:
                    return value
            if isinstance(entry, str) and entry != "_self_":
                base = self._file(file.parent.name, entry, beside=file.parent)
                base = base or self._file("experiment", entry)
                below = (self._choice(group, base) if base else None) or below
        return below


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Hydra's flags that take a value."""
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        if argument[:1] == "-":
            flag, equals, value = argument.partition("=")
            yield flag, value if equals else following


def _content(file: Path) -> dict:
    return yaml.safe_load(file.read_text()) or {}


def _one_of(found: set[bool], typed: str, both: str) -> bool:
    if len(found) > 1:
        raise UserError(f"{typed}: does not mean the same for {both}, of which both are chosen; "
                        "start them one by one, or give <experiment>:key=value where that is "
                        "taken")  # fmt: skip
    return found == {True}
