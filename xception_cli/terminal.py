"""Terminal: how a message looks on one: its label in colour, its lines wrapped below its text.

A file or a pipe gets the same words without both: a program or an editor has a width of its own.
"""

import re

from rich.cells import cell_len
from rich.text import Text

COLUMN = 10  # where the text of a message begins, after its label
_LABEL = re.compile(r"[a-z]+(?: [a-z]+)?")
_ENDING = re.compile(r"(?:error|hint|next): ")  # of the last lines of a command
_STYLES = {
    **dict.fromkeys(("error:", "stops"), "bold red"),
    "warning": "yellow",
    **dict.fromkeys(("hint:", "next:"), "bold cyan"),  # what to type
}
_COMMANDS = ("next: xception ", "next: python ")
# Not in `3 min 20 s`, and not in `apple 84.0%`.
_BREAK = re.compile(r" (?!(?<=\d )(?:s|min|h|GB|MB)\b)(?<!\d min )(?<!\d h )(?!\d+\.\d%)")
_HANGING = 4  # columns
_NARROWEST = 30  # columns for the text


def lay_out(message: str, style: str, width: int) -> Text:
    """Colour and wrap a message for a terminal.

    A word that is longer than a line stays whole, and so does a command, so that it can be copied.

    Args:
        message: Lines, without control characters.
        style: Style of the first line, after its label.
        width: Of the terminal, in columns.
    """
    laid_out = Text()
    for number, line in enumerate(message.split("\n")):
        label = _label_of(line)
        indent = len(label) or len(line) - len(line.lstrip())
        text = line[indent:]
        if not line.startswith(_COMMANDS) and width - indent >= _NARROWEST:
            text = f"\n{' ' * indent}".join(_wrap(text, width - indent))
        laid_out.append("\n" if number else "")
        laid_out.append(label or " " * indent, style=_STYLES.get(label.strip(), "dim"))
        laid_out.append(text, style="" if number else style)
    return laid_out


def hang(text: str, width: int) -> str:
    """Wrap a line for a terminal, the later lines indented."""
    return f"\n{' ' * _HANGING}".join(_wrap(text, width - _HANGING))


def _label_of(line: str) -> str:
    """Return a line's label with the spaces after it, or nothing."""
    if found := _ENDING.match(line):
        return found[0]
    start, text = line[:COLUMN], line[COLUMN:]
    is_label = text[:1].strip() and start[-1] == " " and _LABEL.fullmatch(start.rstrip())
    return start if is_label else ""


def _wrap(text: str, width: int) -> list[str]:
    """Break a text at spaces into lines of at most `width` columns."""
    first, *words = _BREAK.split(text)
    lines = [first]
    for word in words:
        longer = f"{lines[-1]} {word}"
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
