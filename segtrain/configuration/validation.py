"""Checks a resolved configuration against type hints, before anything is built.

The signature of what a node names in `_target_` says which keys the node has and which values they
take; a `TypedDict` says so of a section without a class of its own. Ranges and choices stand in the
hints (see `segtrain.values`).
"""

from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from hydra.utils import get_object

from segtrain.configuration.folder import options
from segtrain.configuration.hints import (
    LISTS,
    Unfit,
    bare,
    choices,
    fit,
    given_names,
    is_object,
    lenient,
    parameters_of,
    shown,
    words,
)
from segtrain.configuration.messages import chosen, suggest, where_to_look
from segtrain.errors import UserError

RESERVED = {"_partial_": bool, "_recursive_": bool, "_convert_": str, "_args_": list}
OWN = "segtrain."  # what is missing in calls of others' functions, they say themselves


def validate(hint: Any, value: Any, key: str = "") -> Any:
    """The value, with whole numbers such as 2e4 as integers.

    Args:
        hint: the type that it should have: as a rule a `TypedDict`, or `Node` with `Given`.
        value: plain: dictionaries, lists, text, numbers.
        key: what messages call it; "" for a whole configuration.

    Raises:
        UserError: names every key whose value is not of its type, which is missing, or which
            nothing reads; what was found and what is expected. Settings of objects are looked at
            where all else is right, since their classes take seconds to import.
    """
    root = value if isinstance(value, dict) else {}
    _Check(root, of_objects=False).whole(hint, value, key)
    return _Check(root, of_objects=True).whole(hint, value, key)


class _Check:
    """One walk over a configuration; `problems` are sentences.

    Args:
        root: the whole of it.
        of_objects: whether settings of objects are checked, whose classes are imported for it.
    """

    def __init__(self, root: dict, of_objects: bool) -> None:
        self.root = root
        self.of_objects = of_objects
        self.problems: list[str] = []

    def whole(self, hint: Any, value: Any, key: str) -> Any:
        result = self.value(hint, value, key)
        if self.problems:
            raise UserError("\n  ".join(self.problems))
        return result

    def value(self, hint: Any, value: Any, key: str) -> Any:
        for choice in choices(hint) if isinstance(value, dict | list) else ():
            kind = bare(choice)
            if isinstance(value, dict):
                if is_typeddict(kind):
                    return self.section(kind, value, key)
                if get_origin(kind) is dict:
                    inner = get_args(kind)[1]
                    return {k: self.value(inner, v, _join(key, k)) for k, v in value.items()}
                if is_object(kind) or (kind is Any and "_target_" in value):
                    return self.node(value, key, given_names(choice))
            if isinstance(value, list) and get_origin(kind) in LISTS:
                (inner,) = get_args(kind)
                if any(is_object(bare(entry)) for entry in choices(inner)):
                    return [self.value(inner, v, f"{key}[{n}]") for n, v in enumerate(value)]
        try:
            return fit(hint, value)
        except Unfit as unfit:
            more = f"; {unfit.more}" if unfit.more else ""
            self.problems.append(f"{key}={shown(value)}: expected {_expected(hint, key)}{more}")
            return value

    def section(self, schema: type, value: dict, key: str) -> dict:
        hints = get_type_hints(schema, include_extras=True)
        for name in sorted(schema.__required_keys__ - value.keys()):
            expected = _expected(hints[name], _join(key, name))
            self.problems.append(f"{_join(key, name)} is missing: expected {expected}")
        return self.entries(value, key, hints)

    def entries(
        self, value: dict, key: str, hints: dict[str, Any], closed: bool = True, owner: str = ""
    ) -> dict:
        """Values by name, each of its type; `owner` is whose arguments they are."""
        result = {}
        for name, entry in value.items():
            result[name] = self.value(hints.get(name, Any), entry, _join(key, name))
            if name not in hints and closed:
                known = [other for other in hints if other not in RESERVED]
                near = suggest(_join(key, name), self.root, known)
                takes = f" ({owner} takes {', '.join(known) or 'none'})" if owner else ""
                self.problems.append(f"unknown key '{_join(key, name)}'; {near}{takes}")
        return result

    def node(self, value: dict, key: str, given: frozenset[str]) -> dict:
        if "_target_" not in value:
            self.problems.append(
                f"{key}={value}: settings of something that is not chosen; choose it in its group "
                f"({_choose(key)}), or leave them out"
            )
            return value
        if not self.of_objects:
            return value
        name = value["_target_"]
        target = self.imported(name, f"{key}._target_")
        if not callable(target):
            if target is not None:
                self.problems.append(f"{key}._target_={name}: expected a class or a function")
            return value
        if target is get_object:
            self.imported(value.get("path"), f"{key}.path")
        parameters, closed = parameters_of(target, name)
        is_own = str(name).startswith(OWN)
        found = {k: v for k, v in value.items() if k != "_target_"}
        hints = dict(RESERVED)
        for argument, parameter in parameters.items():
            if argument in given:
                continue
            is_free = argument in found and _equal(found[argument], parameter.default)
            hints[argument] = Any if is_free else lenient(parameter.hint, is_own)
            if is_own and parameter.required and not {argument, "_args_"} & found.keys():
                expected = _expected(parameter.hint, _join(key, argument))
                self.problems.append(f"{_join(key, argument)} is missing: expected {expected}")
        owner = str(name).rpartition(".")[2]
        return {"_target_": name, **self.entries(found, key, hints, closed, owner)}

    def imported(self, name: Any, key: str) -> Any:
        """What a dotted name stands for; None where there is no such thing."""
        try:
            return get_object(name)
        except Exception as error:  # importing a module of others can raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            hint = where_to_look(str(error))
            self.problems.append(f"{key}={shown(name)}: expected a name that can be imported, such "
                                 f"as segtrain.loss.region.Dice ({reason}){hint}")  # fmt: skip
            return None


def _expected(hint: Any, key: str) -> str:
    """What a message says of a type; of an object, also what its group holds."""
    group = key.replace(".", "/")
    if any(is_object(bare(choice)) for choice in choices(hint)) and options(group):
        return f"{words(hint)}, as of {_choose(key)}"
    return words(hint)


def _choose(key: str) -> str:
    """How something of the group around a key is chosen."""
    group = key.replace(".", "/")
    while group and not options(group):
        group = group.rpartition("/")[0]
    return chosen(group) if group else "group=name"


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else str(name)


def _equal(value: Any, default: Any) -> bool:
    return type(value) is type(default) and value == default
