"""`sweep resume=<folder>`: what is left of a sweep, or failed; `show=<folder>`: its ledger."""

from pathlib import Path

from segtrain.cli.main import COMMANDS
from segtrain.errors import UserError
from segtrain.foreign import admit_overrides
from segtrain.sweep.ledger import LEDGER, Ledger

ACTIONS = ("resume", "show")


def run(overrides: list[str]) -> int:
    """Goes on with a sweep, or prints where it stands.

    Overrides take the place of those the sweep was started with, for the jobs that still run.

    Raises:
        UserError: there is no such sweep, it cannot be one's of this version, or what it would run
            is not part of this package.
    """
    given = {key: value for key, _, value in (o.partition("=") for o in overrides) if value}
    chosen = [action for action in ACTIONS if action in given]
    if len(chosen) != 1:
        raise UserError("give one of resume=<folder of a sweep> (goes on with what is left) and "
                        "show=<folder> (prints where it stands); a new sweep is started with "
                        "segtrain -m <key>=<value>,<value> ...")  # fmt: skip
    action = chosen[0]
    folder = Path(given[action])
    ledger = Ledger.read(folder)
    for stored in (ledger.overrides, *(job.overrides for job in ledger.jobs.values())):
        admit_overrides(stored, str(folder / LEDGER), "trust_code=true" in overrides)
    if action == "show":
        ledger.print()
        return 0
    if ledger.command not in COMMANDS:
        raise UserError(f"{folder}: a sweep of '{ledger.command}', which is no command")
    from segtrain.cli import app

    changes = [o for o in overrides if o.partition("=")[0] not in (action, "trust_code")]
    refuse_new_jobs(ledger, changes)
    keys = {o.lstrip("+").partition("=")[0] for o in changes}
    kept = [o for o in ledger.overrides if o.lstrip("+").partition("=")[0] not in keys]
    where = f"hydra.sweep.dir={folder}"
    return app.compose_and_run(ledger.command, ["-m", *kept, *changes, where])


def refuse_new_jobs(ledger: Ledger, changes: list[str]) -> None:
    """Refuses overrides that would make other jobs of those that the ledger has.

    Raises:
        UserError: a key is one in which the jobs differ.
    """
    for change in changes:
        key = change.lstrip("+").partition("=")[0]
        if key in ledger.swept:
            raise UserError(f"{change}: the jobs of {ledger.folder} differ in {key}; to try other "
                            "values start a new sweep")  # fmt: skip
