"""The settings that tell runs apart in a table."""

import csv
from pathlib import Path

import pytest
from tabling import evaluation, training, write_results

from segtrain.table.comparison import compare
from segtrain.table.groups import group_runs
from segtrain.table.runs import find_runs
from segtrain.table.telling import LONGEST, MOST

COLUMNS = 14  # without those that tell apart


def rows() -> list[dict[str, str]]:
    """Title -> text of each row, the columns that tell apart only."""
    sheet = compare(group_runs(find_runs(["outputs"])[0]), None)
    own = len(sheet.columns) - COLUMNS
    return [
        {column.title: cell.text for column, cell in zip(sheet.columns, row, strict=True)
         if column in sheet.columns[1 : 1 + own]}
        for row in sheet.rows
    ]  # fmt: skip


def test_a_swept_key_is_a_column():
    for number, (lr, miou) in enumerate([(0.01, 0.5), (0.1, 0.7), (0.001, 0.6)]):
        write_results(f"outputs/{number}", training(optimizer={"lr": lr}), miou=miou)
    assert rows() == [{"lr": "0.1"}, {"lr": "0.001"}, {"lr": "0.01"}]


def test_what_is_told_by_other_columns_is_not_told_again():
    write_results("outputs/1", training(experiment="a", optimizer={"lr": 1}), experiment="a")
    write_results("outputs/2", training(experiment="b", optimizer={"lr": 2}), experiment="b")
    write_results("outputs/3", training(optimizer={"lr": 1}, batch_size=4), total_batch_size=4)
    write_results("outputs/4", training(optimizer={"lr": 1}, batch_size=8), total_batch_size=8)
    assert rows() == [{}, {}, {}, {}]


def test_experiments_that_differ_in_many_keys_do_not_hide_a_sweep_of_one():
    many = {f"key{number}": number for number in range(20)}
    write_results("outputs/0", training(experiment="a", loss=many), experiment="a", miou=0.9)
    for number, momentum in enumerate((0.9, 0.8), 1):
        write_results(f"outputs/{number}", training(optimizer={"momentum": momentum}))
    assert [row.keys() for row in rows()] == 3 * [{"momentum"}]


def test_the_most_telling_come_first_and_few_are_shown():
    for number in range(8):
        optimizer = {"lr": number % 2, "momentum": number % 4, "a": number // 4, "b": number // 4,
                     "c": number // 4, "d": number // 4}  # fmt: skip
        write_results(f"outputs/{number}", training(optimizer=optimizer))
    (titles,) = {tuple(row) for row in rows()}
    assert titles[0] == "momentum"
    assert len(titles) == MOST


def test_another_class_stands_for_its_settings():
    for number, (name, more) in enumerate([("a.One", {"x": 1}), ("a.Two", {"y": 1, "z": 2})]):
        config = training(architecture={"_target_": f"segtrain.{name}", **more})
        write_results(f"outputs/{number}", config, miou=number / 2)
    assert rows() == [{"architecture": "Two"}, {"architecture": "One"}]
    config = training(architecture={"_target_": "segtrain.a.Two", "y": 5, "z": 2})
    write_results("outputs/2", config, miou=0.9)
    assert rows()[0] == {"architecture": "Two", "y": "5"}


def test_evaluations_of_one_run_by_their_own_settings():
    for number, size in enumerate(([1, 2], [3, 4])):
        config = evaluation(inference={"window": {"crop_size": size}}, run="outputs/run")
        write_results(f"outputs/{number}", config, miou=number / 2, checkpoint_sha256=str(number),
                      timing={"train_seconds": None})  # fmt: skip
    assert rows() == [{"crop_size": "[3, 4]"}, {"crop_size": "[1, 2]"}]


def test_equal_last_parts_are_told_apart():
    for number in range(2):
        config = training(optimizer={"power": number}, loss={"power": number})
        write_results(f"outputs/{number}", config)
    assert rows()[0].keys() == {"optimizer.power", "loss.power"}


def test_long_values_end_as_they_are():
    for name in ("first", "second"):
        config = training(dataset={"source": {"root": f"{'/deep' * 9}/{name}"}})
        write_results(f"outputs/{name}", config)
    shown = {row["root"] for row in rows()}
    assert {text.rpartition("/")[2] for text in shown} == {"first", "second"}
    assert {len(text) for text in shown} == {LONGEST}


def test_where_nothing_differs_the_folder_does():
    write_results("outputs/one", config_sha256="1")
    write_results("outputs/two", config_sha256="2")
    assert {row["folder"] for row in rows()} == {"outputs/one", "outputs/two"}


@pytest.mark.parametrize("key", ["lr", "optimizer.lr"])
def test_sorted_by_what_tells_apart(segtrain, key):
    for number, lr in enumerate((0.01, 0.1, 0.001)):
        write_results(f"outputs/{number}", training(optimizer={"lr": lr}), miou=0.5)
    assert segtrain("table", "layout=runs", f"sort=-{key}", "output=t.csv")[0] == 0
    with Path("t.csv").open() as file:
        assert [row["optimizer.lr"] for row in csv.DictReader(file)] == ["0.1", "0.01", "0.001"]
