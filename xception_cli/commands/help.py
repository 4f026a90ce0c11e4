"""Help: the help text of a command, in panels on a terminal and in sections elsewhere."""

import io
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from xception_cli.commands import usage
from xception_cli.numerals import span

_NARROW, _BOXES, _WIDE = 40, 60, 120  # columns: least, least with boxes, most
_INDENT = 2
OPTIONS, COMMANDS, ARGUMENTS = "General", "Commands", "Arguments"  # names of the default panels


def render_help(command: Any, context: Any) -> str:
    """Write a command's description, its example, and its options by subject."""
    is_terminal = sys.stdout.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
    encoding = getattr(sys.stdout, "encoding", None) or ""
    width = _width(is_terminal)
    has_boxes = is_terminal and encoding.lower().startswith("utf") and width >= _BOXES
    shown = Console(
        file=io.StringIO(), force_terminal=is_terminal or None, highlight=False, emoji=False,
        markup=False, width=width,
    )  # fmt: skip
    shown.print(Text.assemble(("Usage: ", "bold"), usage.usage_line(command, context)))
    for paragraph in (command.help or "").split("\n\n"):
        shown.print()
        shown.print(Text(textwrap.fill(" ".join(paragraph.split()), width)))
    if command.epilog:
        shown.print()
        shown.print(Text.assemble(("Example: ", "bold"), command.epilog), soft_wrap=True)
    if has_boxes:
        shown.print()
    for title, rows in _panels(command, context):
        if has_boxes:
            body = _write_rows(rows, width - 2 * _INDENT)
            shown.print(
                Panel(body, title=Text(title, style="bold"), title_align="left", border_style="dim")
            )
        else:
            shown.print()
            shown.print(Text(f"{title}:", style="bold"))
            body = _write_rows(rows, width - _INDENT)
            for line in body.split("\n"):
                shown.print(Text(" " * _INDENT).append_text(line))
    text: str = shown.file.getvalue()  # type: ignore[attr-defined]
    return text


def _width(is_terminal: bool) -> int:
    columns = os.environ.get("COLUMNS", "")
    known = int(columns) if columns.isdecimal() else 80
    if is_terminal:
        known = Console(file=sys.stdout).width
    return min(max(known, _NARROW), _WIDE)


_Row = tuple[str, str, str]  # name, metavar and help


def _panels(command: Any, context: Any) -> list[tuple[str, list[_Row]]]:
    """Return the panels in the order of their first option; arguments come first."""
    panels: dict[str, list[_Row]] = {}
    for name, inner in getattr(command, "commands", {}).items():
        summary = " ".join((inner.help or "").split("\n\n")[0].split())
        panels.setdefault(inner.rich_help_panel or COMMANDS, []).append((name, "", summary))
    for one in command.get_params(context):
        if not getattr(one, "hidden", False):
            is_argument = one.param_type_name == "argument"
            panel = one.rich_help_panel or (ARGUMENTS if is_argument else OPTIONS)
            panels.setdefault(panel, []).append(_row(one, is_argument))
    first, last = panels.pop(ARGUMENTS, []), panels.pop(OPTIONS, [])
    panels = {ARGUMENTS: first, **panels, OPTIONS: last}
    return [(title, rows) for title, rows in panels.items() if rows]


def _row(option: Any, is_argument: bool) -> _Row:
    if isinstance(option.show_default, str):  # range and default, of a setting
        notes = [option.show_default]
    else:
        notes = [span(*usage.bounds(option))]
        if isinstance(option.default, (str, int, float, Path)) and option.default is not False:
            notes.append(f"default {'on' if option.default is True else option.default}")
    is_off = option.default is False or option.show_default == "off"
    shown = "; ".join(note for note in notes if note and not is_off)
    text = (option.help or "") + (f" ({shown})" if shown else "")
    if is_argument:
        return usage.metavar(option), "", text
    short = [name for name in option.opts if not name.startswith("--")]
    long = usage.flag_of(option)
    if option.secondary_opts and not is_off:
        long = f"--[no-]{long[2:]}"
    takes = "" if option.is_flag else usage.metavar(option)
    return ", ".join([*short, long]), takes, text


def _write_rows(rows: Sequence[_Row], width: int) -> Text:
    """Write names and help in two columns; the help of a long name starts below it."""
    longest = max(len(f"{name} {takes}".strip()) for name, takes, _ in rows)
    column = min(longest + 2, 26 if width < 100 else 40)
    lines = []
    for name, takes, text in rows:
        named = Text(name, style="bold cyan")
        if takes:
            named.append(f" {takes}", style="not bold yellow")
        wrapped = textwrap.wrap(
            text, width - column, break_long_words=False, break_on_hyphens=False
        ) or [""]
        if len(named) + 2 > column:
            lines.append(named)
        else:
            named.append(" " * (column - len(named)), style="none")
            lines.append(named.append(wrapped.pop(0), style="not bold default"))
        lines += [Text(" " * column + line) for line in wrapped]
    return Text("\n").join(lines)
