"""What is chosen, and the order in which it is trained."""

import pytest

from segtrain.cli.chain import stages
from segtrain.configuration.folder import conf_dir, options
from segtrain.errors import UserError
from segtrain.plan.jobs import Job, Target, jobs, targets
from segtrain.table.published import read_published


def chosen(*experiments):
    published = read_published(conf_dir() / "published.yaml")
    return targets(experiments, options("experiment"), *published, lambda n: stages(n, conf_dir()))


def test_the_table_is_every_cell_by_its_first_experiment():
    wanted = chosen("table")
    assert len(wanted) == 20
    order = [job.name for job in jobs(wanted, None)]
    assert len(order) == len(set(order))
    assert order[:3] == ["fcn32s_voc", "fcn16s_voc", "fcn8s_voc"]
    # One stage of two cells is trained once, before both.
    assert order.count("deeplabv2_cocovoc") == 1
    assert order.index("deeplabv2_cocovoc") < order.index("deeplabv2_context")


def test_patterns_and_names():
    names = [target.experiment for target in chosen("deeplabv3_*", "quickstart", "fcn8s_voc")]
    assert names[0] == "fcn8s_voc"  # in the order of the table
    assert "quickstart" in names
    assert {name for name in names if name.startswith("deeplabv3_")} == {
        name for name in options("experiment") if name.startswith("deeplabv3_")
    }


def test_an_unknown_one_is_told():
    with pytest.raises(UserError, match="'deeplab_v3_voc'; nearest: deeplabv3_voc"):
        chosen("deeplab_v3_voc")


def test_seeds_and_evaluations():
    wanted = [Target("x", ("a", "b"), ("inference=sliding",)), Target("y", ("a", "c"))]
    assert jobs(wanted, [1, 2])[:5] == [
        Job("a_seed1", "a", 1, None),
        Job("b_seed1", "b", 1, "a_seed1"),
        Job("b_seed1_evaluated", "b", 1, "b_seed1", ("inference=sliding",)),
        Job("c_seed1", "c", 1, "a_seed1"),
        Job("a_seed2", "a", 2, None),
    ]
