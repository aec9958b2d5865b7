"""A published network's test beside what was published for it."""

from typing import TYPE_CHECKING

from torch import Tensor

from segtrain.assembly import with_sizes
from segtrain.configuration.schema import Evaluate, Recipe
from segtrain.errors import UserError
from segtrain.label_set import LabelSet
from segtrain.published.network import Published
from segtrain.report.results import Results, title_of
from segtrain.text import console
from segtrain.zoo.classes import in_order_of, require_classes
from segtrain.zoo.files import difference

if TYPE_CHECKING:
    from segtrain.dataset.datamodule import SegmentationData


def own_split(published: Published, data: "SegmentationData") -> str:
    """The split that a network is tested on where none is asked for.

    That of its row, if the data set is the row's; else the one that the data set reports.
    """
    assert published.row is not None
    is_own = data.name == published.trained.config["dataset"]["name"]
    return published.row.split if is_own else data.splits["test"]


def in_order_of_data(published: Published, labels: LabelSet, task: str) -> dict[str, Tensor]:
    """The network's tensors, for the classes of a data set in its order.

    Raises:
        UserError: the data set has other classes; or those of a detector in another order.
    """
    trained = published.trained
    known = trained.labels.names
    require_classes(known, labels, trained.origin)
    if task != "semantic" and known != labels.names:
        raise UserError(f"{trained.origin} finds the data set's classes, but in another order; "
                        f"evaluate it on dataset={published.dataset}")  # fmt: skip
    return in_order_of(trained.state, known, labels.names, trained.origin)


def published_entries(
    published: Published, config: Evaluate, merged: Recipe, data: "SegmentationData", sha256: str
) -> dict:
    """What `results.json` says of a network that was not trained here.

    Args:
        published: the network.
        config: of the command.
        merged: as it was evaluated.
        data: that it was evaluated on.
        sha256: of its file.

    Returns:
        `zoo`, and the figure that was published for its headline metric as `published`, which is
        comparable if nothing was done otherwise; None where it is of another split or data set.
    """
    row, trained = published.row, published.trained
    of_file = {"file": published.file.name, "sha256": sha256}
    if row is None:
        return {"zoo": {"name": trained.origin, **of_file}, "published": None}
    own = trained.config["dataset"]
    figures = row.protocols[published.protocol].published
    unlike = [
        text
        for text, is_other in (
            (f"data set {data.name}, not {own['name']}", data.name != own["name"]),
            (f"split {data.splits['test']}, not {row.split}", data.splits["test"] != row.split),
            ("other settings of inference",
             merged["inference"] != with_sizes(trained.config["inference"], own)),
            (f"output stride {config['output_stride']}", config["output_stride"] is not None),
            ("an ensemble", bool(config["ensemble"])),
            (f"precision {merged['trainer']['precision']}",
             merged["trainer"]["precision"] != "32-true"),
            ("another file than the zoo's", difference(row, published.file) is not None),
        )
        if is_other
    ]  # fmt: skip
    zoo = {
        "zoo": row.zoo, "name": row.name, "system": row.system, "address": row.address, **of_file,
        "licence": row.licence, "protocol": published.protocol, "published": figures,
        "unlike": unlike, "note": row.note,
    }  # fmt: skip
    metric = next(iter(figures))
    figure = {
        "value": figures[metric] / 100,
        "metric": metric,
        "source": f"{row.zoo}, {row.name}, {row.split}, protocol {published.protocol}",
        "comparable": not unlike,
    }
    return {"zoo": zoo, "published": figure}


def print_comparison(results: Results) -> None:
    """Measured beside published, of an evaluation of a zoo's network; nothing of others."""
    from rich.table import Table

    zoo = results.get("zoo") or {}
    if "published" not in zoo:
        return
    table = Table(title=f"{zoo['zoo']}/{zoo['name']}, protocol {zoo['protocol']}",
                  title_justify="left")  # fmt: skip
    for column in ("", "published %", "measured %", "difference"):
        table.add_column(column, justify="right" if column else "left")
    for metric, value in zoo["published"].items():
        measured = results["metrics"].get(metric)
        if measured is not None:
            table.add_row(title_of(metric), f"{value:.2f}", f"{100 * measured:.2f}",
                          f"{100 * measured - value:+.2f}")  # fmt: skip
    console().print(table)
    if zoo["unlike"]:
        console().print(f"not as it was published: {'; '.join(zoo['unlike'])}")
    if zoo["note"]:
        console().print(zoo["note"])
