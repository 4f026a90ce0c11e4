"""PathList: paths from a file or from stdin, one at a time and never all in memory."""

import codecs
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from weakref import finalize

from xception_cli.console import quoted, say, show
from xception_cli.data.formats import TABLES, suffixes
from xception_cli.errors import MachineError, UsageError
from xception_cli.files import why
from xception_cli.notation import is_url

STDIN = "-"
_BLOCK = 1 << 16
_LONGEST = 1 << 16  # bytes of a path; systems allow 4,096
_MOST_WITHOUT_PATH = 1 << 20  # bytes: /dev/zero has no path, and no end
_MOST = 1 << 30  # bytes of a list: ten million paths of 100 bytes
_PATH_END = re.compile(rb"[^\0\r\n]\r?[\0\n]")


class PathList:
    """Paths in the order of a list; a list can be iterated repeatedly.

    A line is a path; if the list has zero bytes, as `find -print0` writes them, each ends a path.

    Args:
        file: The list, seekable; is closed with the list.
        name: Its name in messages.
        root: Folder that its paths are relative to; None for the current one.

    Raises:
        UsageError: It has no path, or an invalid one; names the line.
    """

    def __init__(self, file: IO[bytes], name: str, root: Path | None = None) -> None:
        finalize(self, file.close)
        self._file = file
        self._root = root
        start = self._read(0)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UsageError(f"{show(name)} is UTF-16", hint="save the list as UTF-8")
        self._start = len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0
        self._end = b"\0" if b"\0" in start else b"\n"
        self._count = 0
        for line, path in self._paths(name):
            self._count += 1
            if is_url(path):
                raise UsageError(
                    f"{show(name)}, line {line}: {show(path)} is a URL, not a file",
                    hint="download the images first",
                )
        if not self._count:
            raise UsageError(f"{show(name)} lists no path", hint="write one path per line")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Path]:
        """Yield the paths."""
        for _, path in self._paths(""):
            yield Path(path) if self._root is None else self._root / path

    def _paths(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield each path with the number of its line."""
        line, rest, at = 0, b"", self._start
        while block := self._read(at):
            at += len(block)
            *whole, rest = (rest + block).split(self._end)
            if len(rest) > _LONGEST:
                raise UsageError(
                    f"{show(name)}, line {line + len(whole) + 1} is over {_LONGEST:,} bytes long",
                    hint="a list has one path per line",
                )
            for entry in whole:
                line += 1
                if path := self._decode(entry):
                    yield line, path
        if path := self._decode(rest):
            yield line + 1, path

    def _decode(self, entry: bytes) -> str:
        return os.fsdecode(entry if self._end == b"\0" else entry.removesuffix(b"\r"))

    def _read(self, at: int) -> bytes:
        self._file.seek(at)  # another iterator may have moved it
        return self._file.read(_BLOCK)


def open_list(source: str, root: Path | None = None) -> PathList:
    """Open a list of paths; it is copied to a temporary file first, so that changes do not matter.

    Args:
        source: A file, or `-` for stdin, which is read to its end.
        root: Folder that its paths are relative to; None for the current one.

    Raises:
        UsageError: It cannot be read, or seems to have no end; or see `PathList`.
        MachineError: The disk of temporary files is full.
    """
    if Path(source).suffix.lower() in suffixes() | {*TABLES}:
        raise UsageError(
            f"{show(source)} looks like an image or a table, not a list of paths",
            hint=f"xception predict {quoted(source)}; a list has one path per line",
        )
    name = "the list on stdin" if source == STDIN else source
    if root is not None and not root.is_dir():
        raise UsageError(f"the folder --root {show(root)} does not exist")
    try:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - the list keeps it open
    except OSError as error:
        raise MachineError(f"cannot make a temporary file: {why(error)}") from error
    try:
        if source == STDIN:
            if sys.stdin.isatty():
                say("list      type one path per line; Ctrl-D ends the list")
            _copy(sys.stdin.buffer, copy, name)
        else:
            with Path(source).open("rb") as file:
                _copy(file, copy, name)
    except BaseException as error:
        copy.close()
        if isinstance(error, (OSError, ValueError)):
            raise UsageError(f"cannot read the list {show(source)}: {why(error)}") from error
        raise
    return PathList(copy, name, root)


def _copy(source: IO[bytes], copy: IO[bytes], name: str) -> None:
    size = last_path = 0
    while block := source.read(_BLOCK):
        size += len(block)
        if _PATH_END.search(block):
            last_path = size
        elif size - last_path > _MOST_WITHOUT_PATH:
            raise UsageError(
                f"{show(name)} has over {_MOST_WITHOUT_PATH:,} bytes without a path",
                hint="a list has one path per line",
            )
        if size > _MOST:
            raise UsageError(
                f"{show(name)} is over {_MOST:,} bytes long", hint="split the list into several"
            )
        try:
            copy.write(block)
        except OSError as error:
            raise MachineError(
                f"cannot copy the list to {show(tempfile.gettempdir())}: {why(error)}",
                hint="free some space, or set TMPDIR to another folder",
            ) from error
