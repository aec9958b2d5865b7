"""Configurations against signatures: those of this package, and those of anybody's own classes."""

import math
from typing import Annotated, Literal

import pytest

from segtrain.configuration.validation import validate
from segtrain.errors import UserError
from segtrain.values import Count, Given, Node, Positive


class Typed:
    """Somebody's own, with annotations."""

    def __init__(self, lr: float, steps: int = 3, mode: Literal["a", "b"] = "a", *, more=None):
        self.lr = lr


class Narrow(Typed):
    """With ranges."""

    def __init__(self, lr: Positive, *, sizes: list[Count]):
        super().__init__(lr)


class Sloppy:
    """As Python lets one write: no type, the wrong default, a class, and anything else."""

    def __init__(self, untyped, implicit: int = None, part: "Typed | None" = None, **rest):  # noqa: RUF013
        self.untyped = untyped


class Unknown:
    """Annotated with a name that nobody knows."""

    def __init__(self, value: "Nowhere"):  # noqa: F821
        self.value = value


class Called:
    """An object, not a class."""

    def __call__(self, anything):
        return anything


called = Called()
number = 3


def node(name: str, **settings) -> dict:
    return {"_target_": f"test_validation.{name}", **settings}


@pytest.mark.parametrize(
    "right",
    [
        node("Typed", lr=1),
        node("Typed", lr=0.5, steps=2e4, mode="b", more={"any": [1, None]}, _partial_=True),
        node("Typed"),  # what is missing, the class says itself
        node("Narrow", lr=1e-3, sizes=[1, 2]),
        node("Sloppy", untyped={"a": {"b": math.nan}}, implicit=None, part="by name", else_=[{}]),
        node("Sloppy", untyped=node("Typed", lr=1), part=node("Typed", lr=2)),
        node("Unknown", value=[object]),
        node("called", anything=1),
    ],
    ids=str,
)
def test_own_classes_may_be_anything(right):
    assert validate(Node, right, "own") == right


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (node("Typed", lr="fast"), "own.lr=fast: expected a number$"),
        (node("Typed", lr=True), "own.lr=true: expected a number$"),
        (node("Typed", lr=math.nan), "own.lr=nan: expected a number$"),
        (node("Typed", lr=10**400), "own.lr=10"),
        (node("Typed", lr=1, steps=0.5), "own.steps=0.5: expected a whole number$"),
        (node("Typed", lr=1, mode="c"), "own.mode=c: expected one of a, b$"),
        (node("Typed", lr=1, speed=2), r"unknown key 'own.speed'; .*Typed takes lr, steps, mode"),
        (node("Narrow", lr=0, sizes=[]), "own.lr=0: expected a number above 0$"),
        (node("Narrow", lr=1, sizes=[0]), r"own.sizes=\[0\]: expected a list, each entry a whole"),
        (node("Sloppy", untyped=node("Typed", lr="x")), "own.untyped.lr=x: expected"),
        (node("Sloppy", untyped=1, more=node("nothing")), "own.more._target_=test_validation.noth"),
        (node("number"), "own._target_=test_validation.number: expected a class or a function"),
        (node("Typed", lr=1, _partial_="no"), "own._partial_=no: expected true or false"),
        ({"lr": 1}, "not chosen"),
        (None, "own=null: expected the settings of an object"),
        ("Typed", "own=Typed: expected the settings of an object"),
    ],
    ids=str,
)
def test_their_annotations_are_used(wrong, message):
    with pytest.raises(UserError, match=message):
        validate(Node, wrong, "own")


def test_what_the_code_adds_is_neither_missing_nor_settable():
    node = {"_target_": "segtrain.loss.region.Dice", "smooth": 1.0}
    hint = Annotated[Node, Given("ignore_index")]
    assert validate(hint, node, "loss") == node
    with pytest.raises(UserError, match="unknown key 'loss.ignore_index'"):
        validate(hint, {**node, "ignore_index": 3}, "loss")
    with pytest.raises(UserError, match="loss.ignore_index is missing"):
        validate(Node, node, "loss")
    with pytest.raises(UserError, match="loss.smooth is missing: expected a number of at least 0"):
        validate(hint, {"_target_": "segtrain.loss.region.Dice"}, "loss")


def test_every_problem_is_named():
    with pytest.raises(UserError) as error:
        validate(Node, node("Typed", lr="x", steps="y", other=1), "own")
    assert len(str(error.value).splitlines()) == 3
