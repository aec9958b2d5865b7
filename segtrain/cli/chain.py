"""`chain`: an experiment and those that it starts from, trained in turn, each by a process."""

import re
import shutil
import sys
from datetime import datetime
from pathlib import Path
from shlex import quote

import yaml

from segtrain.cli import launch
from segtrain.cli.child import run_process
from segtrain.configuration.folder import conf_dir
from segtrain.configuration.messages import nearest
from segtrain.errors import RunStopped, UserError
from segtrain.foreign import admit_overrides, read_record
from segtrain.table.runs import read_results
from segtrain.writing import complete, write_text

PLAN = "chain.yaml"
START = "starts_from_checkpoint"
OWN = ("experiment", "resume", "hydra.run.dir")  # read here, not handed to the stages


def run(overrides: list[str]) -> int:
    """Trains the stages of `experiment=`, or those that are left of `resume=`.

    Raises:
        UserError: no such chain, or an override that cannot be one of its.
        RunStopped: a stage failed, or a signal ended it.
    """
    if launch.is_worker():
        raise UserError("chain starts processes itself: no torchrun, but trainer.devices=<number>")
    given = dict(override.partition("=")[::2] for override in overrides)
    for override in overrides:
        if override.startswith("-"):
            raise UserError(f"chain takes no {override}: it trains every stage once")
    if bool(given.get("experiment")) == bool(given.get("resume")):
        raise UserError("give one of experiment=<name> and resume=<folder of a chain>")
    added = [override for override in overrides if override.partition("=")[0] not in OWN]
    if given.get("resume"):
        folder = Path(given["resume"])
        plan = read_plan(folder, "trust_code=true" in overrides)
    else:
        folder = new_folder(given["experiment"], given.get("hydra.run.dir"))
        plan = {"stages": stages(given["experiment"], conf_dir()), "overrides": []}
    for override in added:
        named = re.match(r"([\w-]+):", override)
        if named and named[1] not in plan["stages"]:
            known = ", ".join(plan["stages"])
            raise UserError(f"{override}: no such stage; the stages are {known}")
    plan["overrides"] += added
    write_text(folder / PLAN, yaml.safe_dump(plan, sort_keys=False))
    train(plan, added, folder)
    finish(plan["stages"], folder)
    return 0


def stages(experiment: str, conf_dir: Path) -> list[str]:
    """The experiments to train, first to last, found by following `starts_from`.

    Raises:
        UserError: an unknown experiment, or one that starts from itself.
    """
    known = {path.stem: path for path in (conf_dir / "experiment").glob("*.yaml")}
    found: list[str] = []
    name: str | None = experiment
    while name is not None:
        if name not in known:
            of = f", which {found[-1]} starts from" if found else ""
            raise UserError(f"unknown experiment '{name}'{of}; {nearest(name, sorted(known))}")
        if name in found:
            raise UserError(f"starts_from goes round in a circle: {' <- '.join([*found, name])}")
        found.append(name)
        name = stated(known[name], "starts_from")
    return found[::-1]


def stated(file: Path, key: str) -> str | None:
    """A key of an experiment's file, or else of the experiments that it is derived from."""
    content = yaml.safe_load(file.read_text()) or {}
    if key in content:
        return content[key]
    bases = [file.parent / f"{entry}.yaml" for entry in content.get("defaults", [])
             if isinstance(entry, str)]  # fmt: skip
    values = [stated(base, key) for base in bases if base.is_file()]
    return next((value for value in reversed(values) if value), None)


def first_checkpoint(before: Path, stage: str, overrides: list[str]) -> Path:
    """The checkpoint of the run `before` that a stage starts from: its recipe says, or the user.

    Raises:
        UserError: neither best nor last is asked for, or there is no such checkpoint.
    """
    of_stage = [*general(overrides, first=False), *own(overrides, stage)]
    given = dict(override.partition("=")[::2] for override in of_stage)
    recipe = stated(conf_dir() / "experiment" / f"{stage}.yaml", START)
    which = given.get(START) or recipe or "best"
    if which not in ("best", "last"):
        raise UserError(f"{START}={which}: expected best or last")
    names = ["last.ckpt"] if which == "last" else ["best.ckpt", "last.ckpt"]
    files = [before / "checkpoints" / name for name in names]
    if found := next((file for file in files if file.is_file()), None):
        return found.resolve()
    raise UserError(f"no checkpoint: {' and '.join(map(str, files))} do not exist")


def new_folder(experiment: str, chosen: str | None) -> Path:
    """Where a chain will lie; not made yet."""
    time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(chosen or f"outputs/{experiment}/{time}")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; to go on: "
                        f"segtrain chain {quote(f'resume={folder}')}")  # fmt: skip
    return folder


def read_plan(folder: Path, trust_code: bool) -> dict:
    """Stages and overrides of a chain that was begun.

    Raises:
        UserError: it is no such folder, or its overrides may run code from elsewhere.
    """
    if not (folder / PLAN).is_file():
        raise UserError(f"resume={folder}: {folder / PLAN} does not exist; give a chain's folder")
    plan = read_record(folder / PLAN, {"stages": list, "overrides": list}, trust_code)
    return plan | {
        key: admit_overrides(plan[key], str(folder / PLAN), trust_code)
        for key in ("stages", "overrides")
    }


def run_folder(folder: Path, stages: list[str], stage: str) -> Path:
    """`<folder>/<k>_<stage>`."""
    return folder / f"{stages.index(stage) + 1}_{stage}"


def train(plan: dict, added: list[str], folder: Path) -> None:
    """Trains what has no results yet, each stage from the checkpoint of the one before.

    Args:
        plan: content of chain.yaml.
        added: the overrides of this call, which a stage that is resumed does not have yet.
        folder: of the chain.
    """
    names = plan["stages"]
    for stage in names:
        first = stage == names[0]
        run_dir = run_folder(folder, names, stage)
        weights = []
        if not first:
            before = run_folder(folder, names, names[names.index(stage) - 1])
            weights = [f"weights={first_checkpoint(before, stage, plan['overrides'])}"]
        if not (run_dir / "results.json").is_file():
            if (run_dir / "checkpoints" / "last.ckpt").is_file():
                arguments = [f"resume={run_dir}", *general(added, first), *own(added, stage)]
            else:
                arguments = [
                    f"experiment={stage}", *general(plan["overrides"], first), *weights,
                    *own(plan["overrides"], stage), f"hydra.run.dir={run_dir}",
                ]  # fmt: skip
            place = f"stage {names.index(stage) + 1} of {len(names)}, {stage}"
            print(f"chain       {place}", flush=True)
            command = [sys.executable, "-m", "segtrain", *arguments]
            if code := run_process(command).code:
                raise RunStopped(
                    f"{place}, ended with exit code {code}. Go on with: segtrain chain "
                    f"{quote(f'resume={folder}')} (overrides: {PLAN} there)",
                    exit_code=code,
                )


def general(overrides: list[str], first: bool) -> list[str]:
    """The overrides of all stages; `weights` is the first one's."""
    return [
        override
        for override in overrides
        if not re.match(r"[\w-]+:", override) and (first or not override.startswith("weights="))
    ]


def own(overrides: list[str], stage: str) -> list[str]:
    """The overrides `<stage>:key=value`, without the stage."""
    start = f"{stage}:"
    return [override.removeprefix(start) for override in overrides if override.startswith(start)]


def finish(stages: list[str], folder: Path) -> None:
    """Makes the chain's folder read as a run, the last stage's, and prints all stages."""
    last = run_folder(folder, stages, stages[-1])
    with complete(folder / "results.json") as partial:
        shutil.copyfile(last / "results.json", partial)
    link = folder / "checkpoints"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(last.name) / "checkpoints")
    rows = [("stage", "mIoU %", "split", "run folder")]
    for stage in stages:
        run_dir = run_folder(folder, stages, stage)
        outcome = results(run_dir)
        miou = outcome["metrics"].get("miou")
        figure = "-" if miou is None else f"{100 * miou:.2f}"
        rows.append((stage, figure, f"{outcome['dataset']} {outcome['split']}", str(run_dir)))
    name, figure, split, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    print()
    for row in rows:
        print(f"{row[0]:<{name}}  {row[1]:>{figure}}  {row[2]:<{split}}  {row[3]}")
    print(f"\nchain       {folder}", flush=True)


def results(run_dir: Path) -> dict:
    """Content of a run's `results.json`."""
    return read_results(run_dir / "results.json")
