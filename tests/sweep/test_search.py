"""Hydra's sweep syntax as Optuna's distributions, and experiments from overrides."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from segtrain.sweep.search import distribution


def parse(text):
    return OverridesParser.create().parse_override(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1,0.5", CategoricalDistribution(["1", "0.5"])),
        ("a=choice(x,y)", CategoricalDistribution(["x", "y"])),
        ("a=range(2,9,2)", IntDistribution(2, 8, step=2)),
        ("a=range(0,1,0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("a=interval(0,2)", FloatDistribution(0.0, 2.0)),
        ("a=int(interval(1,9))", IntDistribution(1, 9)),
        ("a=tag(log,interval(1e-3,0.1))", FloatDistribution(1e-3, 0.1, log=True)),
        ("a=tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
    ],
)
def test_distribution(text, expected):
    assert distribution(parse(text)) == expected
