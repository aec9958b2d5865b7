"""Code blocks of README.md and docs/, and what their command lines would compose."""

import itertools
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from segtrain.cli.main import COMMANDS, split_command
from segtrain.cli.own_experiment import with_own_experiments
from segtrain.cli.shorthand import RUNS, expand
from segtrain.configuration.folder import conf_dir, options

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = {"network", "gpu", "data", "hours"}
BLOCK = re.compile(
    r"^(?:<!-- needs: ([\w, ]+) -->\n)?```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
INSTALL = ("python3 -m venv", "bin/activate", "pip install", "-m pytest")
STARTS = ("segtrain", "scripts/train.sbatch")  # what follows are its arguments
WITHOUT_CONFIG = {  # they read their few options themselves
    "sweep": {"show", "resume"},
    "tensorboard": {"run", "port", "host"},
    "zoo": {"name", "zoo", "system", "dataset", "output", "check", "resume", "folder"},
}


class Block(NamedTuple):
    """One fenced block."""

    needs: set[str]  # what a test does not have; empty where the block is run
    language: str
    title: str  # a file that the reader writes, or empty
    code: str


class Line(NamedTuple):
    """One command line of `segtrain`."""

    environment: dict[str, str]
    as_module: bool  # python -m segtrain, which finds modules in the current folder
    arguments: list[str]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, from top to bottom."""
    text = page.read_text()
    found = [
        Block(set((needs or "").replace(",", " ").split()), language, title, code)
        for needs, language, title, code in BLOCK.findall(text)
    ]
    assert len(found) * 2 == len(re.findall("^ *```", text, re.MULTILINE)), f"{page}: odd fences"
    assert text.count("<!-- needs:") == sum(bool(block.needs) for block in found), page
    return found


def lines(code: str) -> list[str]:
    """The command lines of a block, comments and continuation left out."""
    joined = re.sub(r"\\\n\s*", "", code)
    texts = [shlex.join(shlex.split(line, comments=True)) for line in joined.splitlines()]
    return [text for text in texts if text]


def commands(code: str) -> list[Line]:
    """What a block asks of segtrain.

    Raises:
        AssertionError: a line is something else.
    """
    found = []
    for text in lines(code):
        for part in re.split(r" '?&&'? ", text):
            if any(install in part for install in INSTALL):
                continue
            words = shlex.split(part)
            if words[-1].endswith("bin/segtrain"):  # behind an installation
                words[-1] = "segtrain"
            start = next((n for n, word in enumerate(words) if word in STARTS), None)
            if start is None and words[:2] == ["python", "scripts/export_table.py"]:
                continue
            assert start is not None, f"neither segtrain nor an installation: {part}"
            environment = dict(
                word.split("=", 1) for word in words[:start] if re.match(r"[A-Z_]+=", word)
            )
            as_module = "-m" in words[:start]
            found.append(Line(environment, as_module, words[start + 1 :]))
    return found


def compose_line(arguments: list[str]) -> int:
    """Composes every configuration that a command line stands for; returns how many.

    Raises:
        hydra.errors.HydraException: a key or choice does not exist.
    """
    from conftest import composed

    command, overrides = full_keys(arguments)
    assert command in COMMANDS
    if command in WITHOUT_CONFIG:
        assert {text.partition("=")[0] for text in overrides} <= WITHOUT_CONFIG[command], arguments
        return 1
    settings = without_flags(overrides)
    if command == "chain":
        return compose_chain(settings)
    if command in ("plan", "reproduce"):
        from segtrain.cli.collect import collected

        settings = [text for text in collected(command, settings) if "hydra.run" not in text]
    if command == "train" and any(text.startswith("resume=") for text in settings):
        settings = [text for text in settings if not text.startswith("resume=")]
    jobs = combinations(settings)
    for job in jobs:
        composed(*job, command=command)
    return len(jobs)


def full_keys(arguments: list[str]) -> tuple[str, list[str]]:
    """Command and overrides, without short forms; runs are left as they are, which may be none.

    What `data=` of one's own stands for is put in its place, for the reader has the files.
    """
    command, overrides = split_command(list(arguments))
    own = [text for text in overrides if re.match(r"data=.*[./]", text)]
    if own:
        is_detector = "model=mask_rcnn" in overrides
        experiment = f"experiment={'own_instances' if is_detector else 'own'}"
        chosen = experiment if command == "train" else "dataset=folder"
        overrides = [chosen if text in own else text for text in overrides]
    runs = [text for text in overrides if text.partition("=")[0] in (*RUNS, "resume")]
    return command, [*expand(command, [text for text in overrides if text not in runs]), *runs]


def compose_chain(settings: list[str]) -> int:
    """Composes the stages of a chain with the overrides for all of them and for each."""
    from conftest import composed

    from segtrain.cli.chain import stages

    given = dict(text.partition("=")[::2] for text in settings)
    if "resume" in given:
        return 0
    names = stages(given["experiment"], conf_dir())
    for text in settings:
        named = re.match(r"([\w-]+):", text)
        assert not named or named[1] in names, text
    for name in names:
        own = [text.removeprefix(f"{name}:") for text in settings if text.startswith(f"{name}:")]
        general = [t for t in settings if not re.match(r"[\w-]+:|experiment=", t)]
        composed(f"experiment={name}", *general, *own)
    return len(names)


def without_flags(arguments: list[str]) -> list[str]:
    """Overrides alone; a folder of configuration files becomes a place to search."""
    kept, words = [], iter(arguments)
    for word in words:
        if word == "--config-dir":
            kept.append(f"hydra.searchpath=['file://{Path(next(words)).absolute()}']")
        elif word == "--cfg":
            next(words)
        elif not word.startswith("-"):
            kept.append(word)
    return with_own_experiments(kept)


def combinations(overrides: list[str]) -> list[list[str]]:
    """One list of overrides for every job of a sweep; a search counts with one value a key."""
    choices = []
    for text in overrides:
        key, _, value = text.partition("=")
        if pattern := re.fullmatch(r"glob\((.*)\)", value):
            found = [name for name in options(key) if fnmatch(name, pattern[1])]
            assert found, text
            choices.append([f"{key}={name}" for name in found])
        elif re.match(r"(tag|interval|int|range)\(", value):
            choices.append([f"{key}=1"])
        else:
            parts = re.split(r",(?![^\[{(]*[\]})])", value)
            choices.append([f"{key}={part}" for part in parts] if key[0] != "~" else [text])
    return [list(job) for job in itertools.product(*choices)]


def tiny(command: str, overrides: list[str]) -> list[str]:
    """More overrides that make a documented training or benchmark one of seconds."""
    if command == "benchmark":
        return ["measure.rounds=1", "measure.size=[65,65]", "batch_size=2",
                "trainer.accelerator=cpu", *small_backbone(overrides)]  # fmt: skip
    if command in ("evaluate", "report"):
        return ["trainer.accelerator=cpu", *(["report=null"] if command == "evaluate" else [])]
    if command != "train" or any(text.startswith("resume=") for text in overrides):
        return ["trainer.accelerator=cpu", "trainer.max_steps=6"] if command == "train" else []
    from conftest import composed

    config = composed(*combinations(without_flags(overrides) or ["experiment=quickstart"])[0])
    dataset = config["dataset"]
    added = ["report=null", "trainer.accelerator=cpu", "trainer.max_steps=2",
             "trainer.max_epochs=null", "trainer.val_every_n_steps=2", "batch_size=4",
             "dataset.num_workers=0"]  # fmt: skip
    added += small_backbone(overrides)
    if "num_images" in dataset["source"]:
        added += ["dataset.source.num_images={train: 8, val: 3, test: 3}"]
        added += ["dataset.source.size=[64,64]"]
    if "crop_size" in dataset["transform"]:
        added += ["dataset.transform.crop_size=[65,65]"]
    else:
        added += ["dataset.transform.short_side=[64,64]", "dataset.transform.long_side=64"]
    return added


def small_backbone(overrides: list[str]) -> list[str]:
    """Overrides for a small backbone of the same kind, untrained."""
    from conftest import composed, small_network

    chosen = combinations(without_flags(overrides) or ["experiment=quickstart"])[0]
    chosen = [text for text in chosen if not text.startswith("measure")]
    backbone = composed(*chosen)["architecture"]["backbone"]
    if backbone.get("name") == "test_resnet":
        return []
    if backbone.get("name", "").startswith("convnext"):
        return ["architecture.backbone.name=test_convnext", "architecture.backbone.weights=none"]
    return small_network(*chosen)
