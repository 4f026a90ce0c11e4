"""Output: the two consoles, escaping of untrusted text, tables and progress bars.

stdout carries data only (a table or JSON that was asked for); all messages go to stderr and, once
a run folder exists, to its `train.log`.
"""

import datetime
import logging
import os
import shlex
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from xception_cli.numerals import duration
from xception_cli.regular import open_regular
from xception_cli.streams import writing_to_stdout
from xception_cli.terminal import hang, lay_out

# Ignite logs "Engine run is terminating due to exception" (0.5.5) before our own message.
logging.getLogger("ignite").setLevel(logging.CRITICAL)

_LONGEST = 201  # characters of an untrusted string, with the ellipsis
_UNSAFE = {"Cc", "Cf", "Zl", "Zp", "Co", "Cn", "Cs"}  # Unicode categories


def safe(text: object) -> str:
    r"""Replace characters that could trick a terminal or a log; line breaks are kept.

    Control, format, separator, private and unassigned characters and undecodable bytes become
    `\xNN` or `\uNNNN`.
    """
    parts = []
    for char in str(text):
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif char != "\n" and unicodedata.category(char) in _UNSAFE:
            parts.append(f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
        else:
            parts.append(char)
    return "".join(parts)


def show(text: object, longest: int = _LONGEST) -> str:
    """Make an untrusted string (a file name, a class name) safe and short, on one line."""
    shown = safe(text).replace("\n", "\\x0a")
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def quoted(path: object) -> str:
    """Quote a path so that it can be pasted into a shell."""
    return shlex.quote(safe(path))


def typed(path: Path) -> str:
    """Return a folder as a user would type it: relative if it is below the current folder."""
    here, absolute = Path.cwd(), path.absolute()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


NAMED = 5  # names in one sentence


def enumerated(names: Sequence[str], most: int = NAMED) -> str:
    """List untrusted names in a sentence: the first ones, and the number of the others."""
    if len(names) > most + 1:
        return ", ".join([*map(show, names[:most]), f"and {len(names) - most:,} more"])
    return ", ".join(map(show, names))


def listing(sentence: str, lines: Sequence[str], most: int) -> str:
    """Return a sentence, below it the first lines of a list, and the number of the others."""
    more = [f"and {len(lines) - most:,} more"] if len(lines) > most else []
    return "\n  ".join([sentence, *lines[:most], *more])


class _Console(Console):
    """A console that raises an error for a closed pipe instead of ending the process (rich 15)."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console(stream: IO[str]) -> Console:
    # A new console per call, so that a redirected stream is used. Piped output is not wrapped: a
    # program or an editor reads it, and has its own width.
    width = None if stream.isatty() else 200
    return _Console(file=stream, width=width, highlight=False, emoji=False, markup=False)


def is_interactive() -> bool:
    """Return whether stderr can show progress bars: a capable terminal, and not a CI log."""
    return (
        sys.stderr is not None  # as in a program without a console
        and sys.stderr.isatty()
        and os.environ.get("TERM") not in {"dumb", "unknown"}
        and "CI" not in os.environ
        and "NO_COLOR" not in os.environ
    )


class Screen:
    """stderr, with a copy of every line in the run's log. There is one per process: `screen`."""

    def __init__(self) -> None:
        self.quiet = False
        self._log: Path | None = None
        self._unlogged: list[str] = []
        self._progress: Progress | None = None

    def log_to(self, path: Path | None) -> None:
        """Copy messages to this file, including earlier ones; None stops copying."""
        self._log = path
        pending, self._unlogged = self._unlogged, []
        if path is not None:
            self._append(pending)

    def say(self, message: str = "", *, style: str = "", log_only: bool = False) -> None:
        """Write a message to stderr and to the log."""
        message = safe(message)
        if not self.quiet and not log_only and sys.stderr is not None:
            self._print(message, style)
        self._record(message)

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Suppress messages, and keep them out of a log that is opened later."""
        before = self.quiet, self._unlogged
        self.quiet, self._unlogged = True, []
        try:
            yield
        finally:
            self.quiet, self._unlogged = before

    def _print(self, message: str, style: str) -> None:
        try:
            console = _console(sys.stderr) if self._progress is None else self._progress.console
            text = Text(message, style=style)
            if sys.stderr.isatty():
                text = lay_out(message, style, console.width)
            console.print(text, soft_wrap=True)  # words and paths stay whole when copied
        except (OSError, RuntimeError):
            # The terminal is gone, or a signal interrupted a write (re-entrant write). The message
            # is lost, but the training must continue or be saved.
            self.quiet = True

    def _record(self, line: str) -> None:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        stamped = f"{stamp} {line}".rstrip()
        if self._log is None:
            self._unlogged.append(stamped)
            del self._unlogged[:-1000]  # a library user may never open a log
        else:
            self._append([stamped])

    def _append(self, lines: Sequence[str]) -> None:
        if self._log is not None and lines:
            try:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                with os.fdopen(open_regular(self._log, flags), "a", encoding="utf-8") as file:
                    file.write("".join(f"{line}\n" for line in lines))
            except OSError:
                self._log = None  # the log is only a copy; important writes report a full disk

    @contextmanager
    def bar(
        self, what: str, total: int, unit: str = "images", *, heartbeat: bool = True
    ) -> Iterator["Bar"]:
        """Show the progress of a phase: a bar on a terminal, a line every 30 seconds elsewhere.

        A bar opened inside another one is shown below it.

        Args:
            what: Name of the phase.
            total: Number of units; a phase of none shows nothing.
            unit: Name of the units.
            heartbeat: Whether to print lines if there is no terminal.
        """
        # While a bar is shown, rich before 15 replaces stderr by what is no terminal.
        if not total or self.quiet or (self._progress is None and not is_interactive()):
            yield _Heartbeat(self if heartbeat else None, what, total, unit)
            return
        if self._progress is not None:
            task = self._progress.add_task(what, total=total, unit=unit, note="")
            try:
                yield Bar(self._progress, task)
            finally:
                self._progress.remove_task(task)
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            # On a narrow terminal the bar becomes shorter, before any other column is wrapped.
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            _Speed(Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[note]}"),
            console=_console(sys.stderr),
            transient=True,
            redirect_stdout=False,  # rich would redirect data to stderr while a bar is shown
        )
        progress = self._progress
        try:
            progress.start()
            yield Bar(progress, progress.add_task(what, total=total, unit=unit, note=""))
        finally:
            self._progress = None
            with suppress(OSError):  # the terminal may be gone; report the original error
                progress.stop()


class _Speed(ProgressColumn):
    """Units per second; empty for units that take over a minute."""

    def render(self, task: Any) -> Text:
        known = task.speed and task.fields["unit"] != "epochs"
        return Text(f"{task.speed:.1f} {task.fields['unit']}/s" if known else "")


class Bar:
    """One line of a rich progress display."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self, count: int, note: str = "") -> None:
        """Advance by `count` units, with a short note after the bar."""
        self._progress.update(self._task, advance=count, note=note)

    def restart(self, what: str, done: int = 0) -> None:
        """Restart the progress under another name."""
        self._progress.reset(self._task, description=what, completed=done)


class _Heartbeat(Bar):
    """Progress without a terminal: a line every 30 seconds."""

    def __init__(self, screen: Screen | None, what: str, total: int, unit: str) -> None:
        self._clock = time.monotonic
        self._screen = screen
        self._what, self._total, self._unit = what, total, unit
        self._done = self._already = 0
        self._started = self._last = self._clock()

    def advance(self, count: int, note: str = "") -> None:
        self._done += count
        now = self._clock()
        if self._screen is not None and now - self._last >= 30:
            self._last = now
            speed = max(1e-9, (self._done - self._already) / (now - self._started))
            rate = "" if self._unit == "epochs" else f"{speed:.1f} {self._unit}/s, "
            left = duration(max(0, self._total - self._done) / speed)
            line = f"{self._what}: {self._done:,} of {self._total:,}, {rate}{left} left"
            self._screen.say(f"{line}  {note}".rstrip())

    def restart(self, what: str, done: int = 0) -> None:
        self._what, self._done, self._already = what, done, done
        self._started = self._last = self._clock()


screen = Screen()
say = screen.say


def emit(data: Any, *, wrap: bool = False) -> None:
    """Write data to stdout: a line of text, which a terminal may `wrap`, or a rich table.

    A function makes the table for a number of columns.

    Raises:
        SystemExit, MachineError: See `writing_to_stdout`.
    """
    with writing_to_stdout():
        if isinstance(data, str):
            # A path may contain bytes that are not UTF-8, which a strict stream rejects.
            text = data.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            if wrap and sys.stdout.isatty():
                text = hang(text, _console(sys.stdout).width)
            sys.stdout.write(f"{text}\n")
        else:
            console = _console(sys.stdout)
            console.print(data(console.width) if callable(data) else data)


def new_table(*columns: str, title: str | None = None) -> Table:
    """Create an empty table in the common style; a column that starts with `>` is right-aligned."""
    table = Table(title=title, box=None, pad_edge=False, title_justify="left", header_style="bold")
    for column in columns:
        right = column.startswith(">")
        # Names wrap rather than being cut; numbers stay whole.
        table.add_column(
            column.lstrip(">"),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
        )
    return table


def fail(message: str, hint: str | None) -> None:
    """Print what went wrong and what to type next, the last lines of a command that failed.

    `--quiet` does not silence it.
    """
    _end(f"error: {message}", hint)


def stop(message: str, hint: str | None) -> None:
    """Print that a command was stopped, and what to type next; this is not an error."""
    _end(message, hint)


def _end(message: str, hint: str | None) -> None:
    screen.quiet = False
    say(message, style="bold")
    if hint:
        say(f"hint: {hint}")
