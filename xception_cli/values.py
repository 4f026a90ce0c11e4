"""Values: the value of a setting, checked against its type and range, in words for its user."""

import math
import os
import typing
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from xception_cli.console import show
from xception_cli.entries import LARGEST
from xception_cli.errors import UsageError
from xception_cli.numerals import span
from xception_cli.suggestions import expect_choice

_PLAIN = (bool, int, float, str, type(None))
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def checked(name: str, value: Any, kind: Any, low: float | None, high: float | None) -> Any:
    """Return the value of a setting; numbers of NumPy become Python's, whole ones floats if needed.

    Args:
        name: Of the setting.
        value: As it was given.
        kind: bool, int, float, str or a Literal.
        low: Of a number, at least; None for no limit.
        high: At most; the same.

    Raises:
        UsageError: It has another type, or is out of range.
    """
    if kind in {int, float} and not isinstance(value, bool):
        if isinstance(value, Integral):
            value = int(value)
        elif isinstance(value, Real):
            value = float(value)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise UsageError(f"{name} is too large: a number of {value.bit_length()} bits")
    choices = typing.get_args(kind)
    if choices:
        expect_choice(name, value, choices)
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise UsageError(f"{name} is {_shown(value)}, expected {_KINDS[kind]}")
    if kind is str:
        _check_text(name, value)
    if kind in {int, float}:
        _check_range(name, value, low, high)
    return value


def checked_path(name: str, value: object) -> Path:
    """Return the path that an argument in Python names.

    Raises:
        UsageError: It is not a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise UsageError(
            f"{name} is {_shown(value)}, expected a path",
            hint='a path is a str or a pathlib.Path, such as "runs/food"',
        )
    return Path(value)


def _shown(value: object) -> str:
    return show(repr(value)) if isinstance(value, _PLAIN) else f"a {type(value).__name__}"


def _check_text(name: str, value: str) -> None:
    if "\0" in value:
        raise UsageError(f"{name} is {show(repr(value))}: a name cannot contain a zero byte")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise UsageError(
            f"{name} is {show(value)}, which is not UTF-8: config.toml cannot store it",
            hint="rename it, or make a link to it under another name",
        )


def _check_range(name: str, value: float, low: float | None, high: float | None) -> None:
    # `not >=` rather than `<`, so that nan is refused too
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        expected = span(low, high) if high is None else f"from {span(low, high)}"
        raise UsageError(f"{name} is {value:,}, expected {expected}")
    if value == math.inf:
        raise UsageError(f"{name} is {value}, expected a finite number")
