"""Which trainings the table, or any choice of experiments, needs, and in what order."""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segtrain.configuration.messages import nearest
from segtrain.errors import UserError
from segtrain.table.published import Benchmark, Published
from segtrain.zoo.entry import Entry


@dataclass(frozen=True)
class Target:
    """What is wanted: a cell of the table, or an experiment.

    Args:
        title: what it is called.
        stages: the experiments that lead to it, first to last.
        evaluate: overrides of the evaluation that follows; none for the training's own alone.
    """

    title: str
    stages: tuple[str, ...]
    evaluate: tuple[str, ...] = ()

    @property
    def experiment(self) -> str:
        """The last stage, whose results count."""
        return self.stages[-1]


@dataclass(frozen=True)
class Job:
    """One training, or one evaluation after it.

    Args:
        name: its folder.
        experiment: what is trained.
        seed: in place of the experiment's own; None for that.
        after: name of the training whose checkpoint it starts from or evaluates; None for none.
        evaluate: overrides of an evaluation; None for a training.
        weights: of a published network, which is evaluated; None for a training or its evaluation.
    """

    name: str
    experiment: str
    seed: int | None
    after: str | None
    evaluate: tuple[str, ...] | None = None
    weights: str | None = None


def targets(
    chosen: Sequence[str],
    known: Sequence[str],
    benchmarks: dict[str, Benchmark],
    figures: Sequence[Published],
    stages: Callable[[str], list[str]],
) -> list[Target]:
    """What is chosen, in the order of the table, then of the choice.

    Args:
        chosen: names and patterns of experiments, or `table`, which stands for the first
            experiment of every cell.
        known: all experiments.
        benchmarks, figures: of the table.
        stages: the experiments that lead to one.

    Raises:
        UserError: a name or pattern is of no experiment.
    """
    names: list[str] = []
    for pattern in chosen:
        if pattern == "table":
            found = [figure.experiments[0] for figure in figures]
        else:
            found = fnmatch.filter(known, pattern)
        if not found:
            raise UserError(f"experiments: no experiment is called '{pattern}'; "
                            + nearest(pattern, [*known, "table"]))  # fmt: skip
        names += [name for name in found if name not in names]
    made = []
    for figure in figures:
        for name in figure.experiments:
            if name in names:
                title = f"{figure.system}, {benchmarks[figure.benchmark].title}"
                if name != figure.experiments[0]:
                    title += f" ({name})"
                made.append(Target(title, tuple(stages(name)), figure.evaluate))
    in_table = {target.experiment for target in made}
    return made + [Target(n, tuple(stages(n))) for n in names if n not in in_table]


def evaluations(rows: Sequence[Entry]) -> list[Job]:
    """One evaluation of each published network, on the data set that it was tested on."""
    made = []
    for row in rows:
        name = f"{row.zoo}/{row.name}".replace("/", "_")
        made.append(Job(name, row.weights, None, None, weights=row.weights))
    return made


def jobs(wanted: Sequence[Target], seeds: Sequence[int] | None) -> list[Job]:
    """Every training once, each after those that it starts from, and then the evaluations.

    Args:
        wanted: the targets.
        seeds: each is trained for each of them; None for the experiments' own.
    """
    made: dict[str, Job] = {}
    for seed in seeds or (None,):
        suffix = "" if seed is None else f"_seed{seed}"
        for target in wanted:
            before = None
            for stage in target.stages:
                name = stage + suffix
                made.setdefault(name, Job(name, stage, seed, before))
                before = name
            if target.evaluate:
                name = f"{before}_evaluated"
                made.setdefault(name, Job(name, target.experiment, seed, before, target.evaluate))
    return list(made.values())
