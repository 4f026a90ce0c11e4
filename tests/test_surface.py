"""The options, with their types, ranges and defaults: they change only on purpose.

`python tests/test_surface.py` rewrites surface.txt; list differences in CHANGELOG.md.
"""

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import typer

from xception_cli.cli import app
from xception_cli.config import TrainConfig

SURFACE = Path(__file__).parent / "surface.txt"
# In train, an option that is not given is None; its default is in TrainConfig.
SETTINGS = {setting.name: setting for setting in dataclasses.fields(TrainConfig)}


def surface() -> str:
    """Describe each command: a line for each of its arguments and options."""
    return "\n\n".join("\n".join([words, *lines]) for words, lines in commands()) + "\n"


def commands() -> Iterator[tuple[str, list[str]]]:
    left = [("xception", typing.cast("Any", typer.main.get_command(app)))]
    while left:
        words, command = left.pop(0)
        left += [(f"{words} {n}", inner) for n, inner in getattr(command, "commands", {}).items()]
        if command.callback is not None:
            annotated = inspect.signature(command.callback).parameters
            made = [option for option in command.params if option.name in annotated]  # not --help
            yield words, [line(words, option, annotated[option.name]) for option in made]


def line(words: str, option: Any, parameter: inspect.Parameter) -> str:
    kind, *_ = typing.get_args(parameter.annotation)
    default, limits = parameter.default, getattr(option, "type", option)  # type: before Typer 0.29
    low, high = getattr(limits, "min", None), getattr(limits, "max", None)
    if words == "xception train" and option.name in SETTINGS:
        setting = SETTINGS[option.name]
        kind, default = typing.get_type_hints(TrainConfig)[setting.name], setting.default
        low, high = setting.metadata["at_least"], setting.metadata["at_most"]
    names = "/".join([*option.opts, *option.secondary_opts])
    span = "" if low is None else f" from {low:g}" + ("" if high is None else f" to {high:g}")
    meant = [typed(kind) + span, *([option.metavar] if option.metavar else [])]
    shown = "required" if default is inspect.Parameter.empty else f"= {default}"
    return f"  {names:36} {', '.join(dict.fromkeys(meant)):34}{shown}".rstrip()


def typed(kind: Any) -> str:
    """Abbreviate a type: `int?` may be None, a choice is its values."""
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return f"list of {typed(typing.get_args(kind)[0])}"
    if NoneType in typing.get_args(kind):
        return f"{typed(typing.get_args(kind)[0])}?"
    return str(kind.__name__)


def test_the_surface_of_the_command_line_is_unchanged() -> None:
    assert surface() == SURFACE.read_text(encoding="utf-8"), f"rewrite it: python {__file__}"


if __name__ == "__main__":
    SURFACE.write_text(surface(), encoding="utf-8")
