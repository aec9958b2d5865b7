"""Run folders by name: `latest`, a name below `outputs/`, or the path itself."""

import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from segtrain.configuration.folder import options
from segtrain.configuration.messages import nearest
from segtrain.errors import UserError

OUTPUTS = Path("outputs")  # of the current folder
SWEEPS = "multirun"  # in it
LATEST = "latest"
SHOWN = 3  # runs in a message
TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")


def find_run(given: str | Path, unfinished: bool = False) -> Path:
    """The folder of a run.

    Args:
        given: a path, which wins where it exists; `latest`, the run that was started last; or
            what stands behind `outputs/` (`leaves`, `leaves/<date_time>`), of which the newest.
        unfinished: whether `latest` passes over runs that have results, or have saved nothing.

    Raises:
        UserError: there is none; begins with what was given and names the nearest and newest.
    """
    if os.path.lexists(given):
        return Path(given)
    name = str(given)
    if name == LATEST:
        found = list(runs_below(OUTPUTS))
        going = [folder for folder in found if _is_unfinished(folder)] if unfinished else found
        if going:
            return newest(going)
        if found:
            raise UserError(f"{name}: every run below {OUTPUTS} is finished; to train on: "
                            f"resume={short_name(newest(found))} epochs=<more>")  # fmt: skip
        raise UserError(f"{name}: there is no run folder below {OUTPUTS} of {Path.cwd()} yet")
    for place in (OUTPUTS / name, OUTPUTS / SWEEPS / name):
        if found := list(runs_below(place)):
            return newest(found)
    lacking = "holds none" if (OUTPUTS / name).is_dir() else f"and {name} do not exist"
    raise UserError(f"{name}: no run folder; {OUTPUTS / name} {lacking}; {_others(name)}")


def short_name(folder: Path) -> str:
    """The shortest text that `find_run` takes for a run: its name, the time too, or the path."""
    inside = _inside(folder)
    for count in range(1, len(inside.parts)):
        name = "/".join(inside.parts[:count])
        if not os.path.lexists(name):
            place = next(p for p in (OUTPUTS / name, OUTPUTS / SWEEPS / name) if p.is_dir())
            if newest(runs_below(place)).resolve() == folder.resolve():
                return name
    return str(folder) if os.path.lexists(inside) or not inside.parts else str(inside)


def runs_below(place: Path) -> Iterator[Path]:
    """Folders that a training made, with `config.yaml` and `checkpoints/`; `place` may be one."""
    # Where commands write that do not train; there may be a million pictures of `predict`.
    others = {*options("")} - {"train", "reproduce"} | {"zoo"}
    for found, folders, files in os.walk(place):
        folder = Path(found)
        if "config.yaml" in files and "checkpoints" in folders:
            yield folder
            folders.clear()
        elif folder in (OUTPUTS, OUTPUTS / SWEEPS):
            folders[:] = [name for name in folders if name not in others]


def newest(folders: Iterable[Path]) -> Path:
    """The run that was started last."""
    return max(folders, key=_started)


def _started(folder: Path) -> tuple[float, list[int]]:
    """When a run was started; of the same second's, the number in the name counts.

    Its name tells; or else the first line of its log, which a resumed run goes on with.
    """
    numbers = [int(digits) for digits in re.findall(r"\d+", folder.name)]
    if time := TIME.match(folder.name):
        return _seconds(time[0]), numbers
    try:
        with (folder / "run.log").open(errors="replace") as log:
            written = datetime.strptime(log.readline()[:23], "%Y-%m-%d %H:%M:%S,%f")
            return written.timestamp(), numbers
    except (OSError, ValueError):
        pass
    for parent in folder.parents:
        if time := TIME.match(parent.name):
            return _seconds(time[0]), numbers
    return (folder / "config.yaml").stat().st_mtime, numbers


def _seconds(time: str) -> float:
    try:
        return datetime.strptime(time, "%Y-%m-%d_%H-%M-%S").timestamp()
    except ValueError:  # digits that are no date
        return 0.0


def _is_unfinished(folder: Path) -> bool:
    saved = (folder / "checkpoints" / "last.ckpt").is_file()
    return saved and not (folder / "results.json").is_file()


def _inside(folder: Path) -> Path:
    """The part of a path behind `outputs/`, or `outputs/multirun/`; `.` of one elsewhere."""
    absolute = folder.absolute()
    for place in (OUTPUTS / SWEEPS, OUTPUTS):
        if absolute.is_relative_to(place.absolute()):
            return absolute.relative_to(place.absolute())
    return Path()


def _others(name: str) -> str:
    """What else a name may stand for."""
    found = sorted(runs_below(OUTPUTS), key=_started, reverse=True)
    if not found:
        return f"there are no runs below {OUTPUTS} of {Path.cwd()}"
    names = list(dict.fromkeys(_inside(folder).parts[0] for folder in found))
    shown = ", ".join(str(folder) for folder in found[:SHOWN])
    return f"{nearest(name, names)}; newest: {shown}"
