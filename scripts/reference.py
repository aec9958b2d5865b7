"""MkDocs hook: the reference of commands, configuration groups, experiments and papers' figures.

Made from `conf/`, the docstrings of the classes it names and the commands' own help while the site
is built, so that it says what the code says. `mkdocs.yml` names this file under `hooks`.
"""

import ast
import functools
import re
from pathlib import Path

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from segtrain.cli.main import COMMANDS
from segtrain.configuration import comments
from segtrain.configuration.folder import conf_dir
from segtrain.zoo.catalogue import every
from segtrain.zoo.listing import score

ROOT = Path(__file__).resolve().parents[1]
NOTE = "*Made from `conf/` and the code when this site was built.*"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages; MkDocs calls this."""
    for name, content in pages().items():
        files.append(File.generated(config, name, content=content))
    return files


def pages() -> dict[str, str]:
    """Markdown of every generated page, by its path in the site's sources."""
    groups = [folder.name for folder in sorted(conf_dir().iterdir()) if folder.is_dir()]
    others = ("hydra", "zoo")  # the zoos have a page of their own, see zoo.py
    found = {f"reference/{group}.md": group_page(group) for group in groups if group not in others}
    return found | {
        "reference/commands.md": commands_page(),
        "reference/published.md": published_page(),
    }


def commands_page() -> str:
    """Every command with its own keys."""
    parts = [
        "# Commands",
        NOTE,
        "`segtrain [COMMAND] [key=value ...]`; without a command: `train`.",
    ]
    for command, text in COMMANDS.items():
        parts += [f"## `{command}` {{ #{command} }}", f"{escaped(text)}."]
        file = conf_dir() / f"{command}.yaml"
        if file.is_file():
            parts += [header(file), choices(file), table(file, "")]
        else:
            module = ROOT / "segtrain" / "cli" / f"{command}.py"
            parts.append(ast.get_docstring(ast.parse(module.read_text())) or "")
    return join(parts)


def group_page(group: str) -> str:
    """Every option of a group, then of the groups inside it."""
    parts = [f"# {group}", NOTE]
    for folder in sorted({file.parent for file in (conf_dir() / group).rglob("*.yaml")}):
        inner = folder.relative_to(conf_dir()).as_posix()
        parts.append(f"## {inner}")
        for file in sorted(folder.glob("*.yaml")):
            anchor = "-".join(file.relative_to(conf_dir() / group).with_suffix("").parts)
            parts.append(f"### `{inner}={file.stem}` {{ #{anchor} }}")
            parts += experiment(file) if group == "experiment" else option(file, inner)
    return join(parts)


def option(file: Path, group: str) -> list[str]:
    """What an option is, chooses and sets."""
    return [header(file), choices(file), table(file, f"{group.replace('/', '.')}.")]


def experiment(file: Path) -> list[str]:
    """What an experiment is, and what it sets, as it stands in its file."""
    body = file.read_text().split("\n")
    while body and (body[0].startswith("#") or not body[0]):
        body.pop(0)
    settings = "\n".join(body).strip()
    return [header(file), f"```yaml\n{settings}\n```"]


def published_page() -> str:
    """The papers' figures that `segtrain table` compares with."""
    content = yaml.safe_load((conf_dir() / "published.yaml").read_text())
    titles = {name: entry["title"] for name, entry in content["benchmarks"].items()}
    rows = ["| system | benchmark | paper | split, protocol, source | experiments | comparable |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    for system, cells in content["systems"].items():
        for benchmark, cell in cells.items():
            where = f"{cell['split']}; {cell['protocol']}; {cell['source']}"
            can_be = "yes" if cell["comparable"] else f"no. {cell.get('note', '')}".strip()
            names = ", ".join(f"`{name}`" for name in cell["experiments"])
            value, title = cell["value"], titles[benchmark]
            rows.append(f"| {system} | {title} | {value} | {where} | {names} | {can_be} |")
    text = "Figures of the papers, from `conf/published.yaml`; none of them was measured here."
    return join(["# Papers' figures", NOTE, text, "\n".join(rows)])


def results_table() -> str:
    """The papers' figures in the layout of README: 11 systems, and the experiment of each cell.

    The last column has for each system a published network that can be evaluated.
    """
    content = yaml.safe_load((conf_dir() / "published.yaml").read_text())
    titles = [entry["title"] for entry in content["benchmarks"].values()]
    titles.append("by evaluation")
    rows = [f"| papers' numbers | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
    for system, cells in content["systems"].items():
        shown = []
        for benchmark in content["benchmarks"]:
            cell = cells.get(benchmark)
            shown.append(f"{cell['value']}<br>`{cell['experiments'][0]}`" if cell else "")
        shown.append(by_evaluation(system, content["benchmarks"]))
        rows.append(f"| {system} | {' | '.join(shown)} |")
    return "\n".join(rows)


def by_evaluation(system: str, benchmarks: dict[str, dict]) -> str:
    """The network of a system with the highest published figure on the first benchmark it has.

    Empty where no zoo has one whose file can be fetched.
    """
    for benchmark in benchmarks.values():
        found = [
            (figure, row.weights)
            for row in every()
            if row.system == system and row.dataset in benchmark["datasets"] and not row.by_hand
            and (figure := score(row, next(iter(row.protocols)))) is not None
        ]  # fmt: skip
        if found:
            figure, name = max(found)
            return f"{figure:g} {benchmark['title']}<br>`{name}`"
    return ""


def header(file: Path) -> str:
    """The comment on top of a file as a paragraph."""
    return escaped(" ".join(comments.header(file)))


def choices(file: Path) -> str:
    """What a file's defaults list chooses of other groups."""
    items = [f"`{group}={name}`" for group, name in comments.choices(file).items()]
    return f"Chooses {', '.join(items)}." if items else ""


def table(file: Path, prefix: str) -> str:
    """Keys of a file with defaults and meanings: its comments, or else its class's docstring."""
    keys = comments.keys(file, prefix, arguments)
    if not keys:
        return ""
    rows = ["| key | default | |", "|---|---|---|"]
    rows += [f"| `{k.name}` | {code(k.value)} | {escaped(k.comment)} |" for k in keys]
    return "\n".join(rows)


@functools.cache
def arguments(target: str) -> dict[str, str]:
    """Argument -> meaning, from the Google docstring of a class or function of this package."""
    module, _, name = target.rpartition(".")
    file = ROOT / f"{module.replace('.', '/')}.py"
    if not file.is_file():
        return {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            text = (ast.get_docstring(node) or "").partition("Args:\n")[2]
            section = re.split(r"\n\n(?=\S)", text)[0]
            found = re.findall(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
            return {
                argument: " ".join(meaning.split())
                for named, meaning in found
                for argument in named.split(", ")
            }
    return {}


def code(text: str) -> str:
    """In a table's cell, as code."""
    return f"`{text}`".replace("|", "\\|") if text else ""


def escaped(text: str) -> str:
    """A sentence whose angle brackets, stars and bars are to be read as such."""
    parts = text.split("`")
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"([<>*|_\[\]])", r"\\\1", parts[index])
    return "`".join(parts)


def join(parts: list[str]) -> str:
    """Paragraphs of a page."""
    return "\n\n".join(part for part in parts if part) + "\n"
