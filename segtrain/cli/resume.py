"""`train resume=<run folder>`: what goes on, and with which settings."""

import re
from pathlib import Path
from shlex import quote

from segtrain.cli.paths import with_literal_paths
from segtrain.configuration.checking import checked, checked_stored
from segtrain.configuration.schema import Recipe
from segtrain.errors import UserError
from segtrain.foreign import read_record
from segtrain.sweep.ledger import TRIAL

LAST = Path("checkpoints", "last.ckpt")  # in a run folder
NEEDED = ("architecture", "dataset", "optimizer", "trainer")  # of config.yaml
# What the checkpoint has, or what the steps done so far were counted and drawn by.
KEPT = (
    "architecture", "batch_norm", "batch_size", "frozen", "loss", "optimizer", "seed", "weights",
)  # fmt: skip


def resume(folder: str, overrides: list[str]) -> tuple[dict | None, Path]:
    """Configuration and folder of a run that goes on from its `last.ckpt`; None if it is done.

    Raises:
        UserError: the folder holds no run, or nothing was saved; or an override does not name a key
            of it, or one that a run keeps from its start, or gives a value that cannot be.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    run_dir = Path(folder)
    if not (run_dir / "config.yaml").is_file():
        raise UserError(f"resume={folder}: {run_dir / 'config.yaml'} does not exist; give a run "
                        "folder")  # fmt: skip
    if not (run_dir / LAST).is_file():
        raise UserError(f"resume={folder}: {run_dir / LAST} does not exist, the run ended before "
                        "it was first saved; start it anew")  # fmt: skip
    trust_code, changes = trusted([o for o in overrides if not o.startswith("resume=")])
    if not changes and (run_dir / "results.json").is_file():
        again = f"segtrain {quote(f'resume={run_dir}')} trainer.max_steps=<more>"
        print(f"segtrain: {run_dir} is done, its results are in {run_dir / 'results.json'}; "
              f"to train on: {again}")  # fmt: skip
        return None, run_dir
    stored = read_record(run_dir / "config.yaml", dict.fromkeys(NEEDED, dict), trust_code)
    if (run_dir / TRIAL).is_file():  # names a pruner
        read_record(run_dir / TRIAL, {"storage": str, "study": str, "trial": int}, trust_code)
    if "_target_" in stored.get("logger", {}):  # older runs had one, without a name
        stored["logger"] = {"logger": stored["logger"]}
    config = OmegaConf.create(stored)
    OmegaConf.set_struct(config, True)
    for change in with_literal_paths(changes, is_sweep=False):
        override = OverridesParser.create().parse_override(change.lstrip("+"))
        OmegaConf.update(config, override.key_or_group, override.value())
    config.resume = str(run_dir)
    result = OmegaConf.to_container(config, resolve=True)
    # What an older version of the program stored beside, and nothing reads, does no harm.
    read = {key: value for key, value in result.items() if key in Recipe.__annotations__}
    if changes:
        result |= checked("train", read)
    else:
        parts = Recipe.__required_keys__ | read.keys()
        result |= checked_stored(read, parts, str(run_dir / "config.yaml"))
    for key in KEPT:
        if result.get(key) != stored.get(key):
            named = ", ".join(c for c in changes if re.match(rf"\+*{key}[.=]", c))
            raise UserError(
                f"resume={folder}: {named} would be another training; a resumed run keeps its "
                f"{key}. Start one from its weights: weights={run_dir / LAST}"
            )
    return result, run_dir


def trusted(overrides: list[str]) -> tuple[bool, list[str]]:
    """Whether `trust_code=true` is among the overrides, and the others.

    It is told here, not in the configuration, which comes from the file that it is about.
    """
    others = [override for override in overrides if not override.startswith("trust_code=")]
    return "trust_code=true" in overrides, others
