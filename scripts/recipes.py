"""MkDocs hook: every paper recipe beside what the paper and the authors' release say.

Made from `docs/recipes/*.yaml` and the composed configurations while the site is built. One file a
system:

    title, paper, release    whose recipes these are
    recipes     name -> why a result cannot be compared with the paper's figure, or null
    items       what is compared, each with
      item      its name
      key       where it stands in the composed configuration, with dots
      ours      what stands there: one value, or one a recipe, the others' under `default`
      paper, release    what they say; `=` is the same as ours
      verdict   same, stated (a deviation), or variant (a choice of which both are the paper's)
      source    where it is said
      reason    why it deviates; of every row that is not the same
      of        the recipes it is about; all of them without it

`all.yaml` has the items of every recipe whose configuration has their key, and `others`: full-size
experiments that are of no paper here.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from segtrain.configuration.composing import compose_config

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "recipes"
VERDICTS = ("same", "stated", "variant")
FIELDS = ("item", "key", "ours", "paper", "release", "verdict", "source", "reason", "of")


class Row(NamedTuple):
    """One item of one recipe.

    Attributes:
        ours: what the composed configuration has.
        expected: what the page's data say that it has.
    """

    item: str
    key: str
    ours: Any
    expected: Any
    paper: str
    release: str
    verdict: str
    source: str
    reason: str


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the page; MkDocs calls this."""
    files.append(File.generated(config, "reference/recipes.md", content=page()))
    return files


@functools.cache
def systems() -> dict[str, dict]:
    """Content of every system's file, by its stem."""
    files = sorted(FOLDER.glob("*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text()) for file in files if file.stem != "all"}


@functools.cache
def shared() -> dict:
    """What holds for all systems, and the experiments that are of none."""
    return yaml.safe_load((FOLDER / "all.yaml").read_text())


@functools.cache
def composed(recipe: str) -> dict:
    """The configuration that a recipe trains with."""
    return compose_config([f"experiment={recipe}"])


def rows(system: dict, recipe: str, config: dict) -> list[Row]:
    """The items of a recipe, its system's first.

    Raises:
        ValueError: an item is incomplete, or names what there is not.
    """
    own = [item for item in system["items"] if recipe in item.get("of", system["recipes"])]
    known = {item["key"] for item in own}
    common = [item for item in shared()["items"] if item["key"] not in known]
    common = [item for item in common if value_at(config, item["key"]) is not None]
    return [row(item, recipe, config) for item in (*own, *common)]


def row(item: dict, recipe: str, config: dict) -> Row:
    """An item of a recipe beside its composed value."""
    where = f"{recipe}, {item.get('item')}"
    if unknown := set(item) - set(FIELDS):
        raise ValueError(f"{where}: unknown {', '.join(sorted(unknown))}")
    if item["verdict"] not in VERDICTS:
        raise ValueError(f"{where}: verdict {item['verdict']}; choose from {', '.join(VERDICTS)}")
    if item["verdict"] != "same" and not item.get("reason"):
        raise ValueError(f"{where}: deviates without a reason")
    found = value_at(config, item["key"])
    if found is None:
        raise ValueError(f"{where}: the configuration has no {item['key']}")
    expected = item["ours"]
    if isinstance(expected, dict):
        expected = expected[recipe] if recipe in expected else expected["default"]
    says = {key: str(item.get(key, "")) for key in ("paper", "release")}
    if item["verdict"] == "same" and not any(says.values()):
        says["paper"] = "="
    return Row(item["item"], item["key"], found[0], expected, **says, verdict=item["verdict"],
               source=str(item.get("source", "")), reason=item.get("reason", ""))  # fmt: skip


def value_at(config: dict, key: str) -> tuple[Any] | None:
    """The value at a path with dots, alone in a tuple; None where there is no such path."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return (node,)


def page() -> str:
    """Markdown of the page.

    Raises:
        ValueError: a composed value is not the one that the page's data state.
    """
    parts = [
        "# Recipes against their papers",
        "*Made from `docs/recipes/` and the composed configurations when this site was built.*",
        "What each recipe does beside what its paper and the authors' released code say. Where the "
        "two differ, the release that gave the table's figure counts. *same*: no deviation; "
        "*stated*: a deviation, with its reason; *variant*: one of several forms that are the "
        "authors'. `=` is the same as ours; an empty cell says nothing of it.",
    ]
    for system in systems().values():
        parts.append(f"## {system['title']}")
        parts.append(f"Paper: {system['paper']}. Release: {system['release']}.")
        for recipe, reason in system["recipes"].items():
            config = composed(recipe)
            comparable = "Comparable with the paper's figure."
            if reason is not None:
                comparable = f"Not comparable with the paper's figure: {reason}."
            parts += [f"### `{recipe}` {{ #{recipe} }}", comparable]
            parts.append(table(rows(system, recipe, config), recipe))
    return "\n\n".join(parts) + "\n"


def table(items: list[Row], recipe: str) -> str:
    """Markdown of the items, those that deviate first."""
    lines = ["| item | paper | release | ours | verdict | source |", "|---|---|---|---|---|---|"]
    for entry in sorted(items, key=lambda entry: entry.verdict == "same"):
        if entry.ours != entry.expected:
            raise ValueError(f"{recipe}: {entry.key} is {entry.ours}, docs/recipes says "
                             f"{entry.expected}")  # fmt: skip
        verdict = f"{entry.verdict}: {entry.reason}" if entry.reason else entry.verdict
        ours = f"`{entry.key}` `{text(entry.ours)}`"
        cells = (entry.item, entry.paper, entry.release, ours, verdict, entry.source)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def text(value: Any) -> str:
    """A value as YAML writes it."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
