"""MkDocs hook: model cards of the published checkpoints, one page.

Made from `conf/zoo/*.yaml` and the networks themselves while the site is built, so that it is never
out of date. `docs/zoo/<zoo>.yaml` holds under `parity` the largest difference between outputs of
the zoo's own code and of ours on the same weights, by the name of a row; other rows of the same
network have it too.
"""

import functools
from pathlib import Path

import torch
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from segtrain.assembly import make
from segtrain.configuration.composing import compose_config
from segtrain.configuration.folder import conf_dir
from segtrain.report.results import title_of
from segtrain.zoo.catalogue import entries, zoo_names
from segtrain.zoo.classes import labels_of
from segtrain.zoo.entry import Entry
from segtrain.zoo.files import file_name

PARITY = Path(__file__).resolve().parents[1] / "docs" / "zoo"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the page; MkDocs calls this."""
    files.append(File.generated(config, "reference/zoo.md", content=page()))
    return files


def page() -> str:
    """Markdown of the page."""
    parts = [
        "# Published checkpoints",
        "*Made from `conf/zoo/` and the networks when this site was built.*",
        "Figures are the zoos' own, in percent; `segtrain zoo check=<names>` measures them. "
        "*Parity*: the largest difference between the outputs of the zoo's code and of ours on the "
        "same random weights, in standard deviations of the output.",
    ]
    for zoo in zoo_names():
        parts += card(zoo)
    return "\n\n".join(parts) + "\n"


def card(zoo: str) -> list[str]:
    """A zoo: where it comes from, its rows, and how each was tested."""
    content = yaml.safe_load((conf_dir() / "zoo" / f"{zoo}.yaml").read_text())
    rows, known = list(entries(zoo).values()), parity(zoo)
    alike = {entries(zoo)[name].architecture: value for name, value in known.items()}
    commit = f", commit {content['commit']}" if content.get("commit") else ""
    table = ["| name | system | data set | published | parameters | parity | file, hash |",
             "|---|---|---|---|---:|---:|---|"]  # fmt: skip
    table += [line(row, known.get(row.name, alike.get(row.architecture))) for row in rows]
    parts = [
        f"## {content['title']} {{ #{zoo} }}",
        f"Source: <{content['source']}>{commit}. Licence of the weights: {content['licence']}.",
        "\n".join(table),
    ]
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note.strip(), []).append(f"`{row.name}`")
    parts += [f"{'All' if len(names) == len(rows) else ', '.join(names)}: {note}"
              for note, names in notes.items()]  # fmt: skip
    return parts


def line(row: Entry, difference: float | None) -> str:
    """A row of a zoo as one of the table."""
    figures = [
        f"{title_of(metric)} {value:g}{'' if name == 'single' else f' ({name})'}"
        for name, protocol in row.protocols.items()
        for metric, value in protocol.published.items()
    ]
    known = row.sha256 or (f"sha1 {row.sha1}" if row.sha1 else "no hash is known")
    where = "by hand" if row.by_hand else file_name(row)
    cells = (
        f"`{row.weights}`", row.system, f"`{row.dataset}` {row.split}", "<br>".join(figures),
        f"{parameters(row.architecture, row.dataset):,}",
        "" if difference is None else f"{float(difference):.1e}",
        f"[{where}]({row.address})<br>`{known}`",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


@functools.cache
def parameters(architecture: tuple[str, ...], dataset: str) -> int:
    """Of a row's network, which is not built for that."""
    config = compose_config([*architecture, "architecture.backbone.weights=none"])
    with torch.device("meta"):
        model = make(config["architecture"], num_classes=labels_of(dataset).num_classes)
    return sum(parameter.numel() for parameter in model.parameters())


def parity(zoo: str) -> dict[str, float]:
    """What the tests of a zoo's networks measured, by row."""
    file = PARITY / f"{zoo}.yaml"
    return yaml.safe_load(file.read_text())["parity"] if file.is_file() else {}
