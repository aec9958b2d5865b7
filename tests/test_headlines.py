"""Every task has a metric by which its runs are compared, wherever runs are."""

import pytest
from tabling import write_results

from segtrain.assembly import build_evaluation
from segtrain.headlines import HEADLINES, TITLES
from segtrain.inference.semantic import SemanticInference
from segtrain.label_set import LabelSet
from segtrain.sweep.ledger import score
from segtrain.table.groups import group_runs
from segtrain.table.runs import find_runs

LABELS = LabelSet(("a", "b"), ((0, 0, 0),) * 2, {0: 0, 1: 1}, things=frozenset({1}))


@pytest.mark.parametrize("task", HEADLINES)
def test_runs_of_every_task_are_compared(task, tmp_path):
    inference = SemanticInference(None, False, [1.0], False, None, None)
    inference.thresholds = None
    evaluation = build_evaluation(task, LABELS, inference=inference)
    assert evaluation.task == task
    evaluation.reset()
    assert evaluation.headline in evaluation.compute()
    assert evaluation.headline in TITLES
    metrics = {evaluation.headline: 0.25, "miou": 0.25}
    folder = write_results(tmp_path / "run", task=task, metrics=metrics)
    assert score(folder) == {"metric": evaluation.headline, "value": 0.25, "split": "val"}
    runs, faults = find_runs([str(tmp_path)])
    assert not faults
    (group,) = group_runs(runs)
    assert (group.metric, group.mean) == (evaluation.headline, 0.25)
