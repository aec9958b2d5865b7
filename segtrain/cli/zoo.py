"""`zoo`: lists published networks; `check=` evaluates them and says how far off their figures are.

Nothing heavy is imported for the list.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from segtrain.errors import UserError
from segtrain.table.writing import markdown_page, print_sheet
from segtrain.writing import write_json, write_text
from segtrain.zoo.catalogue import select
from segtrain.zoo.entry import Entry
from segtrain.zoo.listing import listing, records

FILTERS = ("zoo", "system", "dataset")
ENDINGS = (".md", ".json")


def run(overrides: list[str]) -> int:
    """Prints the list, or runs the checks.

    Raises:
        UserError: no network is called so, or has what is asked for; an option is unknown.
        RunStopped: a check failed, or a signal ended them.
    """
    options = dict(override.partition("=")[::2] for override in overrides)
    filters = {key: options.pop(key) for key in FILTERS if key in options}
    outputs = [Path(path) for path in several(options.pop("output", ""))]
    for path in outputs:
        if path.suffix not in ENDINGS:
            raise UserError(f"output={path}: expected a name that ends in {', '.join(ENDINGS)}")
    if "check" in options or "resume" in options:
        check(options, filters, outputs)
        return 0
    names = several(options.pop("name", "*"))
    if options:
        raise UserError(f"unknown key '{next(iter(options))}'; zoo takes name=<pattern>, zoo=, "
                        "system=, dataset=, output=<file.md or .json>, and check=<names>, whose "
                        "other keys are those of evaluate")  # fmt: skip
    rows = select(names, **filters)
    sheet = listing(rows)
    print_sheet(sheet)
    for path in outputs:
        if path.suffix == ".md":
            write_text(path, markdown_page([sheet]))
        else:
            write_json(path, records(rows))
    return 0


def check(options: dict[str, str], filters: dict[str, str], outputs: Sequence[Path]) -> None:
    """Evaluates networks one after the other, in a folder that `resume=` goes on with.

    Raises:
        UserError, RunStopped: as `run`.
    """
    from segtrain.cli import app, reproduce
    from segtrain.cli.logs import configure_logging

    names, resume = options.pop("check", ""), options.pop("resume", "")
    time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(resume or options.pop("folder", "") or f"outputs/zoo/{time}")
    overrides = [f"{key}={value}" for key, value in options.items()]
    rows: list[Entry] = [] if resume else select(several(names or "*"), **filters)
    config = {
        "experiments": [], "evaluations": [row.weights for row in rows], "seeds": None,
        "evaluate": True, "resume": resume or None, "overrides": overrides,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    app.imported("reproduce")
    configure_logging(folder / "run.log")
    reproduce.run(config, folder, outputs)


def several(text: str) -> list[str]:
    """`[a,b]`, `a,b` or `a` as a list."""
    return [part.strip(" '\"") for part in text.strip().strip("[]").split(",") if part.strip()]
