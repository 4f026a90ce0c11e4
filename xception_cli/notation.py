"""Notation: text with its own syntax: patterns, durations, URLs."""

import math
import re

from xception_cli.console import show
from xception_cli.errors import UsageError

ALL = 999_999_999  # classes that `--top all` stands for


def check_pattern(pattern: str) -> None:
    """Check that a regular expression can name groups.

    Raises:
        UsageError: It is not a regular expression, or has no group in parentheses.
    """
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:  # too large a count, too many (
        raise UsageError(
            f"group_by is {show(repr(pattern))}, which is not a regular expression: {error}"
        ) from error
    if not groups:
        raise UsageError(
            f"group_by is {show(repr(pattern))}, which has no group in parentheses",
            hint=r"put what names the group in parentheses: --group-by 'patient(\d+)'",
        )


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `10m`, `1.5h` or `2h30m`.

    Raises:
        UsageError: It is not a duration, or zero.
    """
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip().lower())
    try:
        parts = [float(part) if part else 0.0 for part in match.groups()] if match else []
    except ValueError:  # 1.2.3m
        parts = []
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not 0 < seconds < math.inf:
        raise UsageError(
            f"budget is {show(repr(text))}, expected a time such as 90s, 10m, 2h or 1h30m"
        )
    return seconds


def parse_unknown(text: str) -> str | float:
    """Return `off`, `auto` or the probability that the value of `--unknown` stands for.

    Raises:
        UsageError: It is something else.
    """
    if text in {"off", "auto"}:
        return text
    try:
        probability = float(text)
    except ValueError:
        probability = -1.0
    if not 0 <= probability <= 1:
        raise UsageError(f"unknown is {show(repr(text))}, expected off, auto or 0 to 1")
    return probability


def parse_top(text: str) -> int:
    """Return the number of classes that the value of `--top` stands for; `all` is a huge one.

    Raises:
        UsageError: It is something else.
    """
    if text == "all":
        return ALL
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise UsageError(
            f"--top is {show(repr(text))}, expected a whole number from 1, or all",
            hint="--top 3 prints the three most probable classes, --top all every class",
        )
    return int(text)


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(text: str) -> bool:
    """Return whether a path is a URL."""
    return _URL.match(text) is not None
