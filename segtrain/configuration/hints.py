"""Reads type hints of configuration values: what fits them, and what messages say of them."""

import collections.abc
import inspect
import sys
import types
from functools import cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from segtrain.values import HINTS_OF_OTHERS, LARGEST, Given, Node, Rule

PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "text",
         Path: "a path", type(None): "null", dict: "a mapping", list: "a list"}  # fmt: skip
LISTS = (list, collections.abc.Sequence)
UNIONS = (Union, types.UnionType)


class Parameter(NamedTuple):
    """One argument of a function: the hint of its type, and whether it has to be given."""

    hint: Any
    required: bool
    default: Any


class Unfit(Exception):  # noqa: N818  (a sign between the functions below, which no caller sees)
    """A value is not of its type; `more` is what a rule says of it."""

    def __init__(self, more: str = "") -> None:
        super().__init__(more)
        self.more = more


@cache
def parameters_of(target: Any, name: str) -> tuple[dict[str, Parameter], bool]:
    """Arguments of a class or function, and whether it takes no others.

    A type that cannot be told counts as any.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # of compiled code
        return {}, False
    has_init = inspect.isclass(target) and target.__init__ is not object.__init__
    try:
        hints = get_type_hints(target.__init__ if has_init else target, include_extras=True)
    except Exception:  # names that are only imported for type checkers
        hints = {}
    known = HINTS_OF_OTHERS.get(name, {})
    hints |= known
    kind = inspect.Parameter
    parameters = {
        key: Parameter(hints.get(key, Any), given.default is kind.empty, given.default)
        for key, given in signature.parameters.items()
        if given.kind in (kind.POSITIONAL_OR_KEYWORD, kind.KEYWORD_ONLY)
    }
    parameters |= {key: Parameter(known[key], False, None) for key in known.keys() - parameters}
    takes_any = any(p.kind is kind.VAR_KEYWORD for p in signature.parameters.values())
    return parameters, bool(known) or not takes_any


def shown(value: Any) -> str:
    """A value as the command line has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if str(value).strip() else repr(value)


def fit(hint: Any, value: Any) -> Any:
    """The value as the hint has it.

    Raises:
        Unfit: it is of another type, or breaks a rule.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (NotRequired, Annotated):
        value = fit(inner[0], value)
        for rule in inner[1:]:
            if isinstance(rule, Rule) and not rule.holds(value):
                raise Unfit(rule.nearest(value) if rule.nearest else "")
        return value
    if origin in UNIONS:
        for choice in inner:
            try:
                return fit(choice, value)
            except Unfit as unfit:
                last = unfit
        raise last
    if origin is Literal:
        if any(type(value) is type(choice) and value == choice for choice in inner):
            return value
        raise Unfit
    if origin in LISTS and isinstance(value, list):
        return [fit(inner[0], entry) for entry in value]
    if origin is tuple and isinstance(value, list):
        entries = [inner[0]] * len(value) if inner[-1] is ... else inner
        if len(entries) != len(value):
            raise Unfit
        return [fit(entry, v) for entry, v in zip(entries, value, strict=True)]
    if hint in (int, float) and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        if hint is float:
            return value
        if abs(value) > LARGEST:
            raise Unfit(f"at most {LARGEST:,}")
        if value == int(value):
            return int(value)
    if hint in (bool, str, dict, list, type(None)) and type(value) is hint:
        return value
    if hint is Path and isinstance(value, str):
        return value
    raise Unfit


def words(hint: Any, rules: str = "") -> str:
    """A type in words, with the rules that stand around it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (NotRequired, Annotated):
        told = "".join(f" {rule.words}" for rule in inner[1:] if isinstance(rule, Rule))
        return words(inner[0], told + rules)
    if origin in UNIONS:
        return " or ".join(words(choice) for choice in inner) + rules
    if origin is Literal:
        names = ", ".join(shown(choice) for choice in inner)
        return names if len(inner) == 1 else f"one of {names}"
    if origin in LISTS:
        return f"a list{rules}, each entry {words(inner[0])}"
    if origin is tuple:
        same = len(set(inner)) == 1 or inner[-1] is ...
        count = f" of {len(inner)}" if inner[-1] is not ... else ""
        entries = f"each entry {words(inner[0])}" if same else ", ".join(map(words, inner))
        return f"a list{count}{rules}: {entries}"
    if is_typeddict(hint):
        return f"a mapping of {', '.join(hint.__annotations__)}"
    if hint in PLAIN:
        return PLAIN[hint] + rules
    return "a mapping" if origin is dict else "the settings of an object, with _target_"


def choices(hint: Any) -> list[Any]:
    """The types of a union, or the one type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in UNIONS:
        return [choice for part in inner for choice in choices(part)]
    if origin in (NotRequired, Annotated) and get_origin(bare(hint)) in UNIONS:
        return choices(bare(hint))
    return [hint]


def bare(hint: Any) -> Any:
    """A type without what is annotated."""
    while get_origin(hint) in (NotRequired, Annotated):
        hint = get_args(hint)[0]
    return hint


def given_names(hint: Any) -> frozenset[str]:
    """Arguments that the code adds to an object of this type."""
    if get_origin(hint) is NotRequired:
        return given_names(get_args(hint)[0])
    notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return frozenset().union(*(note.names for note in notes if isinstance(note, Given)))


def is_object(hint: Any) -> bool:
    """Whether values of a type are built, from the settings of a node."""
    if hint is Node or get_origin(hint) is collections.abc.Callable:
        return True
    is_class = isinstance(hint, type) and get_origin(hint) is None
    return is_class and hint is not Any and hint not in PLAIN and not is_typeddict(hint)


def lenient(hint: Any, is_own: bool) -> Any:
    """The hint; any type instead where others' functions take objects, which they may convert."""
    if is_own:
        return hint
    kind = bare(hint)
    if get_origin(kind) in (*UNIONS, tuple, *LISTS):
        parts = [part for part in get_args(kind) if part is not ...]
        return Any if any(lenient(part, False) is Any for part in parts) else hint
    return hint if kind in PLAIN or get_origin(kind) is Literal else Any
