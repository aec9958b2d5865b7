"""Which runs are found, counted once, and taken together."""

import json
import shutil
from pathlib import Path

import pytest
from tabling import evaluation, training, write_results

from segtrain.errors import UserError
from segtrain.table.groups import group_runs
from segtrain.table.runs import find_runs


def groups_below(*roots):
    runs, faults = find_runs(roots or ["outputs"])
    assert not faults
    return group_runs(runs)


def test_seeds_of_one_recipe_are_one_group():
    write_results("outputs/a", training(), miou=0.70, seed=1)
    write_results("outputs/b", training(), miou=0.74, seed=2)
    write_results("outputs/c", training(optimizer={"lr": 0.1}), miou=0.6, seed=3)
    both, other = groups_below()
    assert both.seeds == [1, 2]
    assert both.mean == pytest.approx(0.72)
    assert both.spread == pytest.approx(0.0282842712)  # sample standard deviation
    assert other.seeds == [3]
    assert other.spread is None


@pytest.mark.parametrize(
    "changed",
    [{"split": "train"}, {"protocol": {"flip": True}}, {"experiment": "x"}, {"dataset": "camvid"}],
)
def test_another_split_or_protocol_is_another_group(changed):
    write_results("outputs/a", training(), seed=1)
    write_results("outputs/b", training(), seed=2, **changed)
    assert [group.seeds for group in groups_below()] == [[1], [2]]


def test_without_configuration_nothing_is_taken_together():
    write_results("outputs/a", seed=1, config_sha256="1")
    write_results("outputs/b", seed=2, config_sha256="2")
    assert len(groups_below()) == 2


def test_chains_of_two_seeds_are_one_group_though_their_checkpoints_differ():
    for seed in (1, 2):
        first = write_results(f"outputs/{seed}/1_first", training(experiment="f"), seed=seed,
                              experiment="f")  # fmt: skip
        weights = str((first / "checkpoints/best.ckpt").resolve())
        config = training(starts_from="f", weights=weights)
        second = write_results(f"outputs/{seed}/2_second", config, seed=seed)
        shutil.copy(second / "results.json", f"outputs/{seed}/results.json")  # as chain does
    groups = groups_below()
    assert sorted(group.seeds for group in groups) == [[1, 2], [1, 2]]
    assert all(run.config is not None for group in groups for run in group.runs)


def test_chains_whose_first_stages_differ_are_two_groups():
    for seed, rate in ((1, 0.1), (2, 0.2)):
        first = write_results(f"outputs/{seed}/1", training(optimizer={"lr": rate}), seed=seed)
        weights = str((first / "checkpoints/best.ckpt").resolve())
        write_results(f"outputs/{seed}/2", training(starts_from="f", weights=weights), seed=seed)
    assert sorted(group.seeds for group in groups_below()) == [[1], [1], [2], [2]]


def test_evaluations_of_two_seeds_are_one_group_and_twice_the_same_is_once():
    for seed in (1, 2):
        run = write_results(f"outputs/{seed}", training(), seed=seed)
        shared = {"seed": seed, "checkpoint_sha256": str(run), "protocol": {"flip": True},
                  "checkpoint": str(run / "checkpoints/best.ckpt"),
                  "timing": {"train_seconds": None}}  # fmt: skip
        for number in (1, 2):
            folder = f"outputs/evaluate/{seed}{number}"
            write_results(folder, evaluation(run=str(run)), miou=0.8, **shared)
    trained, evaluated = groups_below()
    assert (trained.seeds, evaluated.seeds) == ([1, 2], [1, 2])
    assert evaluated.mean == pytest.approx(0.8)
    assert evaluated.config["optimizer"] == {"lr": 0.01}  # that of the training


def test_an_evaluation_as_the_training_evaluated_counts_once():
    run = write_results("outputs/a", training())
    write_results("outputs/evaluate/b", evaluation(run=str(run)), checkpoint_sha256=str(run),
                  timing={"train_seconds": None}, finished="2027")  # fmt: skip
    (group,) = groups_below()
    assert [r.folder for r in group.runs] == [Path("outputs/a")]


def test_a_repeated_seed_counts_once_and_is_told():
    write_results("outputs/a", training(), miou=0.1, finished="2026-01-01")
    write_results("outputs/b", training(), miou=0.2, finished="2026-01-02")
    (group,) = groups_below()
    assert group.mean == 0.2
    assert [run.folder.name for run in group.repeated] == ["a"]


def test_folders_given_twice_or_linked_count_once():
    write_results("outputs/a", training())
    Path("link").symlink_to("outputs")
    assert len(groups_below("outputs", "outputs/a", "link")[0].runs) == 1


def test_what_is_unfinished_or_broken_is_told():
    import yaml

    whole = write_results("outputs/ok", training())
    content = json.loads((whole / "results.json").read_text())

    def broken(name, text):
        folder = Path("outputs") / name
        folder.mkdir()
        (folder / "results.json").write_text(text)

    broken("text", "{")
    broken("list", "[]")
    broken("schema", json.dumps(content | {"schema": 2}))
    broken("task", json.dumps(content | {"task": "x"}))
    broken("split", json.dumps({k: v for k, v in content.items() if k != "split"}))
    broken("metric", json.dumps(content | {"metrics": {"miou": None}}))
    for name, config in (("begun", training()), ("tested", evaluation()), ("prepare", {"x": 1})):
        (Path("outputs") / name).mkdir()
        (Path("outputs") / name / "config.yaml").write_text(yaml.safe_dump(config))
    (Path("outputs/begun/run.log")).write_text("INFO step 10/90  loss\nINFO step 20/90  loss\n")
    (Path("outputs/begun/checkpoints")).mkdir()
    (Path("outputs/begun/checkpoints/last.ckpt")).touch()
    (Path("outputs/damaged")).mkdir()
    (Path("outputs/damaged/config.yaml")).write_text("a: [")
    (Path("outputs/chain")).mkdir()
    (Path("outputs/chain/chain.yaml")).write_text("stages: [a, b]")

    runs, faults = find_runs(["outputs"])
    assert [run.folder.name for run in runs] == ["ok"]
    told = {fault.folder.name: (fault.kind, fault.reason) for fault in faults}
    assert told.keys() == {"text", "list", "schema", "task", "split", "metric", "begun", "tested",
                           "damaged", "chain"}  # fmt: skip
    assert {name for name, (kind, _) in told.items() if kind == "unfinished"} == {
        "begun", "tested", "chain",
    }  # fmt: skip
    assert "schema 2, expected 1" in told["schema"][1]
    assert "split is missing, expected str" in told["split"][1]
    assert "no number for miou, found None" in told["metric"][1]
    assert "step 20/90" in told["begun"][1]
    assert "segtrain resume=outputs/begun" in told["begun"][1]
    assert "segtrain chain resume=outputs/chain" in told["chain"][1]


def test_no_such_folder():
    with pytest.raises(UserError, match="runs=lost: no such folder"):
        find_runs(["lost"])
