"""What is said of a key or choice that does not exist: the nearest ones, and where to look."""

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segtrain.configuration.aliases import meant
from segtrain.configuration.folder import options

CLOSE = 0.5  # likeness of names that may be each other's slip of the pen


def explain_config(error: BaseException) -> str:
    """What Hydra or OmegaConf refused, with the nearest names."""
    text = str(error)
    kind = type(error).__name__
    if kind == "OverrideParseException":
        reason = error.message.splitlines()[0]
        return f"{error.override!r} cannot be read: expected key=value ({reason})"
    if text.startswith("Ambiguous value"):
        given = text.splitlines()[0].partition("'")[2].rstrip("'")
        key, _, values = given.partition("=")
        return f"{given}: expected one value; a list is {key}=[{values}], a sweep needs -m"
    full_key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None)
    if kind == "MissingMandatoryValue":
        return f"{full_key} is missing: give {full_key}=<value>"
    if "Interpolation" in kind or "ValidationError" in (kind, type(error.__cause__).__name__):
        reason = str(error.__cause__ or error).splitlines()[0]
        return f"{full_key}: {reason}" if full_key else reason
    plugin = re.search(r"Could not find 'hydra/launcher/(joblib|submitit)", text)
    if plugin:
        package = f"hydra-{plugin[1]}-launcher"
        return f"this sweep needs {package}: pip install 'segtrain[sweep]' (or {package})"
    missing = re.search(r"Could not find '([\w/-]+)/([^/']*)'", text)
    if missing:
        group, name = missing.groups()
        return f"unknown {group} '{name}'; {nearest(name, options(group))}{of_timm(group, name)}"
    refused = re.search(r"Could not override '([^']+)'", text)
    cause = error if getattr(error, "parent_node", None) is not None else error.__cause__
    parent = getattr(cause, "parent_node", None)
    key = refused.group(1) if refused else getattr(cause, "full_key", None)
    if key and parent is not None:
        return explain_key(key, parent)
    if refused:
        return f"unknown key '{key}'"
    appended = re.search(r"An item is already at '([^']+)'", text)
    if appended:
        return f"+{appended[1]}: the key is there already; without the plus: {appended[1]}=<value>"
    return text.splitlines()[0]


def explain_key(key: str, parent: Any) -> str:
    """Why a key cannot be set, and which key or sign is meant.

    Args:
        key: with all parts, such as `trainer.max_stepz`.
        parent: the node of the composed configuration that has no such key.
    """
    from omegaconf import OmegaConf, open_dict

    from segtrain.configuration.checking import takes

    siblings = [str(name) for name in parent]
    if not siblings:
        return f"unknown key '{key}'; {key.rpartition('.')[0]} holds a value, not keys"
    root = parent._get_root()
    command = OmegaConf.select(root, "hydra.job.name")
    if command is None:
        return f"unknown key '{key}'; {nearest(key.rpartition('.')[2], siblings)}"
    with open_dict(root):
        root.pop("hydra")
    config = OmegaConf.to_container(root, resolve=False)
    group, name = [*key.split("."), ""][:2]
    if name in options(group) and name not in (config.get(group) or {}):
        both = ",".join([*(config.get(group) or {}), name])
        return f"unknown key '{key}': {name} is not chosen; choose it with {group}=[{both}]"
    if group not in config and options(group):
        return f"unknown key '{key}': no {group} is chosen; choose one of {chosen(group)}"
    if takes(command, config, key):
        return f"unknown key '{key}': it is not in the configuration yet; add it with +{key}=..."
    section, _, name = key.rpartition(".")
    section = section.replace(".", "/")
    told = f"unknown key '{key}'; {suggest(key, config, siblings)}"
    if "/" in section and options(section) and not difflib.get_close_matches(name, siblings, n=1):
        told += f"; another {section.rpartition('/')[2]} may have it: {chosen(section)}"
    return told


def chosen(group: str) -> str:
    """The choices of a group, as the command line names them."""
    return f"{group}={'|'.join(options(group))}"


def of_timm(group: str, name: str) -> str:
    """How to get a backbone of timm of that name, where there may be one."""
    if "architecture" not in group or not name:
        return ""
    found = nearest_models(name).partition("nearest: ")[2].split(", ")[0]
    if found == "none":
        return ""
    return f"; a backbone of timm: architecture/backbone=timm architecture.backbone.name={found}"


def nearest_models(name: str) -> str:
    """That timm has no such model or weights, and which a name may stand for."""
    import timm

    if timm.is_model(name):  # of other weights than those after the dot
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        return f"timm has no weights '{name}'; nearest: {', '.join(tags[:6]) or 'none'}"
    plain = {re.sub("[^a-z0-9]", "", model): model for model in timm.list_models()}
    wanted = re.sub("[^a-z0-9]", "", name.lower())
    near = [model for text, model in plain.items() if wanted and text.startswith(wanted)]
    near = near or [plain[text] for text in difflib.get_close_matches(wanted, plain, n=6)]
    own = f"; here it is architecture/backbone={name}" * (name in options("architecture/backbone"))
    return f"timm has no model '{name}'; nearest: {', '.join(near[:6]) or 'none'}{own}"


def suggest(key: str, config: dict[str, Any], siblings: Sequence[str]) -> str:
    """The nearest right keys: of the same last part, of a well-known other name, or alike.

    Args:
        key: that does not exist.
        config: all that does.
        siblings: names that stand where `key` does.
    """
    known = [other for other in keys_of(config) if other != key]
    name = key.rpartition(".")[2]
    found = [other for other in known if other.rpartition(".")[2] == name]
    found += [other for other in meant(name) if other in known]
    if found:
        return f"nearest: {', '.join(_as_choice(other) for other in found[:3])}"
    if difflib.get_close_matches(name, siblings, n=1, cutoff=CLOSE):
        return nearest(name, siblings)
    last = {other.rpartition(".")[2]: other for other in reversed(known)}
    near = difflib.get_close_matches(name, last, n=3, cutoff=0.75)
    if near:
        return f"nearest: {', '.join(_as_choice(last[other]) for other in near)}"
    return nearest(name, siblings)


def keys_of(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key of a configuration with all its parts, sections included."""
    for name, value in config.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{name}.")


def _as_choice(key: str) -> str:
    """A key, or its group where it is one that is chosen."""
    group = key.replace(".", "/")
    return group if "/" in group and options(group) else key


def nearest(name: str, known: list[str]) -> str:
    """`nearest: a, b`, or the whole list where nothing is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=CLOSE)
    return f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}"


def where_to_look(message: str) -> str:
    """How Python finds the user's own module that it has not found; empty for other messages."""
    missing = re.search(r"No module named '(\w+)", message)
    if missing is None or missing[1] in sys.modules:
        return ""
    name = missing[1]
    if not (Path(f"{name}.py").is_file() or Path(name).is_dir()):
        return f"\nPut the folder that holds {name} on PYTHONPATH, or install it"
    return (f"\n{name} lies in this folder, where the command `segtrain` does not look: "
            "python -m segtrain ... does, or PYTHONPATH=. segtrain ...")  # fmt: skip
