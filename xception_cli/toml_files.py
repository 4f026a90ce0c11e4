"""TOML files of settings: read and written, with names checked; values are `TrainConfig`'s task."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xception_cli.config import TrainConfig
from xception_cli.console import say, show
from xception_cli.errors import UsageError
from xception_cli.files import why
from xception_cli.numerals import count_of
from xception_cli.suggestions import did_you_mean
from xception_cli.synonyms import OPTIONS
from xception_cli.texts import read_text

_NAMES = [setting.name for setting in dataclasses.fields(TrainConfig)]
_HEADER = "# xception train --config THIS_FILE repeats the run."
_LISTS = "xception train --help lists the settings"
_DOTS = 1000  # in a line of a TOML file


def read_toml(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file.

    Raises:
        UsageError: The file is missing or not TOML, or names an unknown setting.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the config {show(path)}: {why(error)}") from error
    # Python's parser takes memory by the square of a key's parts: 10 GB for a key of 100 kB.
    if any(line.count(".") > _DOTS and line.lstrip()[0] != "#" for line in text.split("\n")):
        raise UsageError(f"{show(path)} is not a file of settings: a line has over {_DOTS:,} dots")
    try:
        settings = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "a number has too many digits"
        if isinstance(error, RecursionError):
            reason = "too many brackets"
        elif isinstance(error, tomllib.TOMLDecodeError):
            reason = show(error)
        raise UsageError(f"{show(path)} is not valid TOML: {reason}") from error
    check_names(settings, show(path))
    return settings


def check_names(settings: Mapping[str, object], where: str) -> None:
    """Check that each setting is one of `TrainConfig`.

    Args:
        settings: Values by name.
        where: Where they come from, for the message.

    Raises:
        UsageError: A setting is unknown; the hint suggests a similar one.
    """
    for name in settings:
        if name not in _NAMES:
            raise UsageError(
                f"{where} has an unknown setting {show(name)}",
                hint=did_you_mean(name, _NAMES, _LISTS, also=OPTIONS),
            )


def note_missing(path: Path, found: Mapping[str, object]) -> None:
    """Print a note on settings that config.toml of a run has lost, as it is written whole."""
    text = read_text(path)
    lost = [n for n in _NAMES if n not in found and f"# {n} is not set" not in text]
    if lost and (text.startswith(_HEADER) or not text.strip()):
        names = f"{', '.join(lost[:3])}, ..." if len(lost) > 3 else ", ".join(lost)
        say(
            f"note      {show(path)} lacks {count_of(len(lost), 'setting')} ({names}): their "
            "defaults are used"
        )


def to_toml(config: TrainConfig) -> str:
    """Write a config as TOML; `None` is written as a comment, since TOML has no null."""
    lines = [_HEADER]
    for name, value in dataclasses.asdict(config).items():
        lines.append(f"# {name} is not set" if value is None else f"{name} = {_toml_value(value)}")
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = "".join(
            f"\\u{ord(c):04x}" if ord(c) < 0x20 or ord(c) == 0x7F else c
            for c in value.replace("\\", "\\\\").replace('"', '\\"')
        )
        return f'"{escaped}"'
    return repr(value)
