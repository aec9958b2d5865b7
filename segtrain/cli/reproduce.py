"""`reproduce`: a plan's trainings in order, and evaluations of published networks.

What is done is kept, what fails is listed.
"""

import logging
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from shlex import quote

import yaml

from segtrain.cli import chain, launch
from segtrain.cli.child import run_process
from segtrain.cli.collect import check_names
from segtrain.cli.plan import chosen, find_rows, find_targets
from segtrain.cli.table import show
from segtrain.configuration.composing import compose_config
from segtrain.configuration.folder import conf_dir
from segtrain.configuration.schema import Reproduce
from segtrain.errors import RunStopped, UserError
from segtrain.foreign import admit_overrides, read_record
from segtrain.plan.jobs import Job, Target, evaluations, jobs
from segtrain.published.checks import missing_data, write_checks
from segtrain.table.sheet import Cell, Column, Sheet
from segtrain.table.writing import print_sheet
from segtrain.writing import write_text

logger = logging.getLogger("segtrain")

STATE = "reproduce.yaml"
OF_EVALUATIONS = re.compile(r"(protocol|report|split|dataset|inference)[.=]")


def run(config: Reproduce, run_dir: Path, outputs: Sequence[Path] = ()) -> None:
    """Runs everything that is left, then prints what became of it, and the table.

    Args:
        config: of the command.
        run_dir: of everything.
        outputs: more files for the table of published networks.

    Raises:
        UserError: there is no such experiment or folder, or an override fits no training.
        RunStopped: something failed, or a signal ended it.
    """
    if launch.is_worker():
        raise UserError("reproduce starts processes itself: no torchrun, but "
                        "trainer.devices=<number>")  # fmt: skip
    added = list(config["overrides"])
    if run_dir.is_relative_to(Path.cwd()):
        run_dir = run_dir.relative_to(Path.cwd())  # as it is shown
    trust_code = "trust_code=true" in added
    state = read_state(run_dir, trust_code) if config["resume"] else new_state(config)
    state["overrides"] += added
    wanted = find_targets(state["experiments"])
    if not state["evaluate"]:
        wanted = [Target(target.title, target.stages) for target in wanted]
    trainings = jobs(wanted, state["seeds"])
    check_overrides(state["overrides"], list(dict.fromkeys(job.experiment for job in trainings)))
    rows = find_rows(state["evaluations"])
    missing = missing_data(rows)
    order = [*trainings, *evaluations(rows)]
    state["jobs"] = {job.name: state["jobs"].get(job.name, {"state": "left"}) for job in order}
    write_state(run_dir, state)
    for number, job in enumerate(order, 1):
        print(f"reproduce   {number} of {len(order)}, {job.name}", flush=True)
        run_job(job, state, added, run_dir, missing.get(job.weights))
    failed = finish(order, state, run_dir)
    if rows:
        write_checks(rows, run_dir, [run_dir / "zoo.md", run_dir / "zoo.json", *outputs])
    if wanted:
        in_table = any("," in target.title for target in wanted)
        tables = [run_dir / "table.md", run_dir / "table.html"]
        show([run_dir], "published" if in_table else "runs", None, tables)
    if failed:
        raise RunStopped(
            f"{len(failed)} of {len(order)} failed: {', '.join(failed)}. Try them again with: "
            f"segtrain reproduce {quote(f'resume={run_dir}')} (overrides: {STATE} there)",
            exit_code=1,
        )


def new_state(config: Reproduce) -> dict:
    """What is to be done; nothing is done yet."""
    kept = {key: config[key] for key in ("seeds", "evaluate")}
    experiments, rows = chosen(config)
    return {"experiments": experiments, "evaluations": rows, **kept, "overrides": [], "jobs": {}}


def read_state(folder: Path, trust_code: bool) -> dict:
    """What was to be done in a folder, and what became of it.

    Raises:
        UserError: it is no such folder, or its overrides may run code from elsewhere.
    """
    if not (folder / STATE).is_file():
        (folder / "config.yaml").unlink(missing_ok=True)  # written just now
        raise UserError(f"resume={folder}: {folder / STATE} does not exist; give a folder that "
                        "segtrain reproduce began")  # fmt: skip
    kinds = {"experiments": list, "seeds": list | None, "evaluate": bool, "overrides": list,
             "jobs": dict}  # fmt: skip
    state = {"evaluations": [], **read_record(folder / STATE, kinds, trust_code)}
    for key in ("experiments", "evaluations", "overrides"):
        admit_overrides(state[key], str(folder / STATE), trust_code)
    return state


def write_state(folder: Path, state: dict) -> None:
    """Keeps the state where a person can read it, in one step."""
    write_text(folder / STATE, yaml.safe_dump(state, sort_keys=False))


def check_overrides(overrides: list[str], experiments: Sequence[str]) -> None:
    """Refuses at once what no training would take; what one of them refuses fails there alone.

    Raises:
        UserError: an override is for no training, or fits none.
    """
    check_names(overrides, experiments)
    first: UserError | None = None
    for name in experiments:
        try:
            general = [o for o in chain.general(overrides, first=True) if "trust_code=" not in o]
            compose_config([f"experiment={name}", *general])
        except UserError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise first


def run_job(
    job: Job, state: dict, added: list[str], folder: Path, missing: str | None = None
) -> None:
    """Runs one job unless it is done or cannot start, and keeps what became of it.

    Args:
        job: what is run.
        state: of all of them.
        added: overrides of this call.
        folder: of everything.
        missing: what has to be done first by hand; None for nothing.

    Raises:
        RunStopped: a signal ended it.
    """
    entry = state["jobs"][job.name]
    if (folder / job.name / "results.json").is_file():
        entry["state"] = "done"
    elif job.after is not None and state["jobs"][job.after]["state"] != "done":
        entry.update(state="left", reason=f"needs {job.after}")
    elif missing is not None:
        entry.update(state="left", reason=missing)
    else:
        entry.clear()
        entry.update(state="running", folder=job.name, log=f"{job.name}.log", started=now())
        write_state(folder, state)
        log = folder / entry["log"]
        outcome = run_process(
            [sys.executable, "-m", "segtrain", *arguments(job, state["overrides"], added, folder)],
            log=log,
        )
        is_done = outcome.code == 0 and (folder / job.name / "results.json").is_file()
        entry.update(
            state="done" if is_done else "interrupted" if outcome.signal else "failed",
            exit_code=outcome.code, finished=now(),
        )  # fmt: skip
        if outcome.signal:
            write_state(folder, state)
            raise RunStopped(
                f"{job.name} ended with exit code {outcome.code}. "
                f"Go on with: segtrain reproduce {quote(f'resume={folder}')}",
                exit_code=128 + outcome.signal,
            )
    write_state(folder, state)


def arguments(job: Job, overrides: list[str], added: list[str], folder: Path) -> list[str]:
    """Command line of a job: a training from the start or where it was interrupted, or a test.

    Args:
        job: what is run.
        overrides: all there are.
        added: those of this call, which a training that is resumed does not have yet.
        folder: of everything.
    """
    run_dir = folder / job.name
    place = f"hydra.run.dir={run_dir}"
    known = yaml.safe_load((conf_dir() / "trainer/evaluate.yaml").read_text())
    keys = {"trust_code", *(f"trainer.{key}" for key in known)}
    every = [*chain.general(overrides, first=True), *chain.own(overrides, job.experiment)]
    if job.weights is not None:
        shared = [o for o in every if o.partition("=")[0] in keys or OF_EVALUATIONS.match(o)]
        return ["evaluate", f"weights={job.weights}", *shared, place]
    if job.evaluate is not None:
        shared = [o for o in every if o.partition("=")[0] in keys]
        return ["evaluate", f"run={folder / job.after}", *job.evaluate, *shared, place]
    first = job.after is None
    if (run_dir / "checkpoints" / "last.ckpt").is_file():
        new = chain.general(added, first)
        return [f"resume={run_dir}", *new, *chain.own(added, job.experiment)]
    seed = [] if job.seed is None else [f"seed={job.seed}"]
    weights = []
    if not first:
        before = chain.first_checkpoint(folder / job.after, job.experiment, overrides)
        weights = [f"weights={before}"]
    return [
        f"experiment={job.experiment}", *chain.general(overrides, first), *seed, *weights,
        *chain.own(overrides, job.experiment), place,
    ]  # fmt: skip


def finish(order: Sequence[Job], state: dict, folder: Path) -> list[str]:
    """Prints what became of every job; returns the failed ones with their exit codes."""
    columns = (Column("job", "training or evaluation"), Column("state", "state"),
               Column("code", "exit code", True), Column("log", "log", wraps=True))  # fmt: skip
    rows, failed = [], []
    for job in order:
        entry = state["jobs"][job.name]
        code, log = entry.get("exit_code"), entry.get("log")
        reason = f", {entry['reason']}" if "reason" in entry else ""
        rows.append([Cell(job.name), Cell(entry["state"] + reason),
                     Cell("-" if code is None else str(code)),
                     Cell("-" if log is None else str(folder / log))])  # fmt: skip
        if entry["state"] == "failed":
            failed.append(f"{job.name} (exit code {code})")
    print()
    print_sheet(Sheet("jobs", "Trainings and evaluations", columns, rows))
    return failed


def now() -> str:
    """ISO 8601, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
