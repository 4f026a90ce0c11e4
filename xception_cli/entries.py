"""Entries: plain data from a file, read as values of the types that a class declares."""

import math
from dataclasses import MISSING, fields, is_dataclass
from types import GenericAlias, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from xception_cli.console import show

T = TypeVar("T")

LARGEST = 2**63 - 1  # largest whole number that torch accepts


def read_entries(cls: type[T], data: Any) -> T:
    """Read a dataclass or a typed dictionary; unknown entries are ignored.

    Numbers must be finite; a whole number is accepted for a float.

    Args:
        cls: The class. Its entries are plain data, lists, dictionaries and such classes.
        data: Plain data, for example from `json.loads`.

    Raises:
        ValueError: An entry is missing or has another type; names it, with the value.
    """
    made: T = _read(cls, data, "")
    return made


def _read(kind: Any, value: Any, name: str, otherwise: str = "") -> Any:
    if kind is Any:
        return value
    if get_origin(kind) in {UnionType, Union}:  # one type, or None
        (only,) = (part for part in get_args(kind) if part is not NoneType)
        return None if value is None else _read(only, value, name, " or null")
    if get_origin(kind) is Annotated:  # a dictionary with these entries
        kind = get_args(kind)[1]
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value not in choices or type(value) not in map(type, choices):
            raise _wrong(name, value, " or ".join(map(str, choices)) + otherwise)
        return value
    if is_dataclass(kind) or is_typeddict(kind):
        return _read_class(kind, value, name, otherwise)
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin is tuple:  # of any length, from a list
        value = list(value) if type(value) is tuple else value
        return tuple(_read(GenericAlias(list, arguments[:1]), value, name, otherwise))
    if origin is float and type(value) is int and abs(value) <= LARGEST:
        value = float(value)
    if type(value) is not origin or not _is_sound(value):
        raise _wrong(name, value, origin.__name__ + otherwise)
    if origin is list and arguments:
        return [_read(arguments[0], part, f"{name}[{at}]") for at, part in enumerate(value)]
    if origin is dict and arguments:
        return {key: _read(arguments[1], part, f"{name}.{key}") for key, part in value.items()}
    return value


def _read_class(cls: Any, value: Any, name: str, otherwise: str) -> Any:
    if type(value) is not dict:
        raise _wrong(name or "it", value, f"dict{otherwise}")
    hints = get_type_hints(cls, include_extras=True)
    optional = (
        {
            entry.name
            for entry in fields(cls)
            if entry.default is not MISSING or entry.default_factory is not MISSING
        }
        if is_dataclass(cls)
        else cls.__optional_keys__
    )
    within = f"{name}." if name else ""
    for entry in hints:
        if entry not in value and entry not in optional:
            raise ValueError(f"it lacks {within}{entry}")
    return cls(
        **{
            entry: _read(_required(kind), value[entry], f"{within}{entry}")
            for entry, kind in hints.items()
            if entry in value
        }
    )


def _required(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is NotRequired else kind


def _is_sound(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) <= LARGEST
    if isinstance(value, str):
        # Bytes of a file name that are not UTF-8 are allowed, other lone surrogates are not.
        return not any(
            "\ud800" <= char <= "\udc7f" or "\udd00" <= char <= "\udfff" for char in value
        )
    return True


def _wrong(name: str, value: Any, expected: str) -> ValueError:
    is_long = isinstance(value, int) and abs(value) > LARGEST  # Python may refuse to format it
    shown = "a very long number" if is_long else show(repr(value))
    return ValueError(f"{name} is {shown}, expected {expected}")
