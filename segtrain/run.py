"""Run folders in Python: what a training or evaluation was, how it came out, and its network."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

from segtrain import notebook
from segtrain.errors import UserError
from segtrain.headlines import TITLES
from segtrain.named_runs import find_run
from segtrain.table import runs as records
from segtrain.table.wording import duration, millions, protocol

if TYPE_CHECKING:
    from segtrain.predictor import Predictor
    from segtrain.report.curves import Curve

SIGNS = ("results.json", "config.yaml", "chain.yaml")  # one of them is in every run folder
SHOWN = 50  # runs of a table


class Run:
    """A run folder. It is read when something is asked for, and never written.

    Args:
        folder: of a training or an evaluation, such as `outputs/quickstart/<date_time>`, or the
            name of one below `outputs/`, such as `latest` (see `segtrain.named_runs.find_run`).

    Attributes:
        folder: where it lies.

    Raises:
        UserError: it is no run folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = find_run(folder)
        if not any((self.folder / name).is_file() for name in SIGNS):
            raise UserError(f"{folder}: no run folder, which has config.yaml; segtrain.runs() "
                            "lists those below outputs")  # fmt: skip

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def name(self) -> str:
        """The last two parts of its folder: `<experiment>/<date_time>`."""
        return "/".join(self.folder.absolute().parts[-2:])

    @cached_property
    def record(self) -> records.Run | records.Fault:
        """What the tables of results know of it."""
        found = records.read_folder(self.folder, [name for name in SIGNS
                                                  if (self.folder / name).is_file()])  # fmt: skip
        if found is None:
            raise UserError(f"{self.folder}: neither of a training nor of an evaluation")
        return found

    @property
    def state(self) -> str:
        """finished, unfinished or broken."""
        return "finished" if isinstance(self.record, records.Run) else self.record.kind

    @property
    def note(self) -> str:
        """What is missing in a run that is not finished, and how to go on; else empty."""
        return "" if isinstance(self.record, records.Run) else self.record.reason

    @cached_property
    def config(self) -> dict:
        """The resolved configuration.

        Raises:
            UserError: there is none, or it is damaged.
        """
        config = records.read_config(self.folder)
        if config is None:
            raise UserError(f"{self.folder / 'config.yaml'}: cannot be read")
        return config

    @property
    def results(self) -> dict | None:
        """Content of `results.json`; None where the run is not finished."""
        return self.record.results if isinstance(self.record, records.Run) else None

    @property
    def metric(self) -> str | None:
        """The headline metric's name: miou, pq, ap or ar1000; None where there are no results."""
        return self.record.metric if isinstance(self.record, records.Run) else None

    @property
    def score(self) -> float | None:
        """The headline metric, 0..1; None where there are no results."""
        return self.record.score if isinstance(self.record, records.Run) else None

    @property
    def scores(self) -> notebook.Table:
        """Scores of every class, 0..1: a row a class; None where a class is absent.

        Networks whose classes are not scored have one row for all.
        """
        from segtrain.report.results import title_of

        metrics = self.results["metrics"] if self.results else {}
        columns = {name: values for name, values in metrics.items() if isinstance(values, dict)}
        if not columns:
            columns = {name: {"all": value} for name, value in metrics.items()}
        titles = [title_of(name.replace("per_class_", "")) for name in columns]
        classes = dict.fromkeys(label for values in columns.values() for label in values)
        rows = [(label, *(values.get(label) for values in columns.values())) for label in classes]
        return notebook.Table(("class", *titles), tuple(rows))

    @cached_property
    def history(self) -> "dict[str, Curve]":
        """Logged values by their tags, such as `train/loss`: each has `steps` and `values`, (n,).

        Empty where nothing was logged.
        """
        from segtrain.report.curves import read_curves

        return read_curves(self.folder)

    @property
    def best(self) -> Path | None:
        """The checkpoint with the best headline metric in validation, if there is one."""
        return self._file("checkpoints", "best.ckpt")

    @property
    def last(self) -> Path | None:
        """The checkpoint of the last step, if there is one."""
        return self._file("checkpoints", "last.ckpt")

    @property
    def report(self) -> Path | None:
        """`report.html`, if there is one."""
        return self._file("report.html")

    def load(self) -> "Predictor":
        """Its network, from the best checkpoint, else the last.

        `segtrain.load(run, ...)` is the same, with settings.

        Raises:
            UserError: it has no checkpoint that can be used.
        """
        from segtrain.loading import load

        return load(self)

    def __repr__(self) -> str:
        return notebook.one_line(f"<Run {self.name}: {self._outcome()}>")

    def _repr_html_(self) -> str:
        results = self.results
        if results is None:
            return notebook.card(self.name, self.state, notebook.facts({"": self.note}))
        files = {"report": self.report, "best checkpoint": self.best, "last checkpoint": self.last}
        timing = results["timing"]
        found = {
            TITLES[self.metric]: notebook.percent(self.score),
            "data set": f"{results['dataset']} {results['split']}",
            "network": f"{results['architecture']}, {millions(results.get('parameters'))}",
            "protocol": protocol(results["protocol"]),
            "steps": str(results.get("global_step", "-")),
            "training": duration(timing.get("train_seconds")),
            **{name: str(file) for name, file in files.items() if file},
        }
        return notebook.card(self.name, self._outcome(), notebook.facts(found),
                             self.scores._repr_html_())  # fmt: skip

    def _outcome(self) -> str:
        if self.score is None:
            return self.state
        return f"{TITLES[self.metric]} {notebook.percent(self.score)}"

    def _file(self, *parts: str) -> Path | None:
        path = self.folder.joinpath(*parts)
        return path if path.is_file() else None


class Runs(Sequence[Run]):
    """Several runs, which show themselves as a table.

    Args:
        runs: in this order.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = tuple(runs)

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> "Runs": ...

    def __getitem__(self, index: int | slice) -> "Run | Runs":
        found = self._runs[index]
        return Runs(found) if isinstance(index, slice) else found

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __repr__(self) -> str:
        return notebook.one_line(f"<Runs {len(self)}: {', '.join(run.name for run in self)}>")

    def _repr_html_(self) -> str:
        shown = self._runs[:SHOWN]
        rest = f", the first {SHOWN}" if len(shown) < len(self) else ""
        rows = [[notebook.value_cell(value) for value in _row(run)] for run in shown]
        heads = ("run", "state", "network", "data set", "metric", "score", "training")
        return notebook.card(f"{len(self)} runs", f"newest first{rest}",
                             notebook.table(heads, rows))  # fmt: skip


def runs(root: str | Path = "outputs") -> Runs:
    """The trainings and evaluations below a folder, the newest first.

    Args:
        root: the folder.

    Raises:
        UserError: there is no such folder.
    """
    if not Path(root).is_dir():
        raise UserError(f"{root}: no such folder; runs are written into outputs/, in the folder "
                        "that segtrain was started in")  # fmt: skip
    listed = []
    for records_found in records.find_runs([root]):
        for record in records_found:
            run = Run(record.folder)
            run.record = record  # which has been read already
            listed.append(run)
    return Runs(sorted(listed, key=_begun, reverse=True))


def _begun(run: Run) -> float:
    """When its configuration was written, in seconds since 1970."""
    return next((run.folder / name).stat().st_mtime for name in reversed(SIGNS)
                if (run.folder / name).is_file())  # fmt: skip


def _row(run: Run) -> tuple[str | float | None, ...]:
    if run.results is None:
        return (run.name, run.state, None, None, None, None, None)
    of = run.results
    seconds = of["timing"].get("train_seconds")
    return (run.name, run.state, of["architecture"], f"{of['dataset']} {of['split']}",
            TITLES[run.metric], run.score, duration(seconds))  # fmt: skip
