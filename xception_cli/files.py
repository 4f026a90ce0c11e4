"""Files: durable writes, the cache folder, digests, and CSV without spreadsheet formulas."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from xception_cli.console import say, show
from xception_cli.errors import ArtifactError, MachineError, UsageError
from xception_cli.numerals import count_of
from xception_cli.regular import NEW, open_regular
from xception_cli.texts import guess_encoding, read_lines

TRIES = 3  # of a call that may fail temporarily
MOST_ROWS = 10_000_000  # of a CSV file of a run, which may be untrusted, if no number is expected

LONGEST_NAME = 255  # bytes of a file name, on every common file system
_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")
_TRANSIENT = {"EIO", "ESTALE", "EDQUOT", "EAGAIN"}  # errors of network file systems


def write_durably(path: Path, content: bytes | Callable[[], Iterable[bytes]]) -> None:
    """Write a whole file so that a crash at any moment leaves the old one or the new one.

    Temporary file in the same folder, fsync, rename, fsync of the folder. The mode follows the
    umask.

    Args:
        path: The file.
        content: Its bytes; or a function that returns them in parts, which are never all in memory.

    Raises:
        MachineError: The disk is full or read-only, or the folder is gone; no partial file is left.
    """
    for attempt in range(1, TRIES + 1):
        partial = partial_path(path, os.urandom(4).hex())
        try:
            _write_and_sync(partial, content)
            partial.replace(path)
            _sync_folder(path.parent)
        except BaseException as error:
            if not isinstance(error, FileExistsError):  # it belongs to another process
                with contextlib.suppress(OSError):
                    partial.unlink()
            if not isinstance(error, OSError):  # a signal: remove the partial file
                raise
            if is_transient(error) and attempt < TRIES:
                time.sleep(attempt)
                continue
            size = f" ({len(content):,} bytes)" if isinstance(content, bytes) else ""
            raise MachineError(
                f"cannot write {show(path)}{size}: {error.strerror}",
                hint=f"make the folder {show(path.parent)} first, or choose another one"
                if isinstance(error, (FileNotFoundError, NotADirectoryError))
                else "free some space or choose another --output; what was saved before is intact",
            ) from error
        return


def partial_path(path: Path, mark: str) -> Path:
    """Return the name of the file that is written before it becomes `path`, cut to a valid length.

    Args:
        path: In the same folder.
        mark: Makes the name unique; a random one cannot be guessed and created by others.
    """
    end = f".{mark}.partial"
    return path.with_name(cut_name(path.name, LONGEST_NAME - len(end)) + end)


def cut_name(name: str, most: int) -> str:
    """Cut a file name to a number of bytes, without splitting a character."""
    while len(os.fsencode(name)) > most:
        name = name[:-1]
    return name


def _write_and_sync(path: Path, content: bytes | Callable[[], Iterable[bytes]]) -> None:
    descriptor = open_regular(path, NEW)
    try:
        for part in [content] if isinstance(content, bytes) else content():
            view = memoryview(part)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and its rename is durable enough
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_transient(error: OSError) -> bool:
    """Return whether the same call may succeed a moment later."""
    return errno_name(error) in _TRANSIENT


def errno_name(error: OSError) -> str:
    """Return the name of an OSError's number, such as `ENOSPC`; empty if it has none."""
    return errno.errorcode.get(error.errno or 0, "")


def check_new_file(
    path: Path, suffixes: Sequence[str], doing: str, *, option: str = "--output"
) -> None:
    """Check that an option's file can be created, before its content is computed.

    Args:
        path: The file.
        suffixes: Accepted suffixes, the usual one first.
        doing: The action, for the message: `cannot <doing> PATH`.
        option: The option that names the file.

    Raises:
        UsageError: The file exists, its folder does not, or its suffix is not accepted.
    """
    if path.suffix.lower() not in suffixes:
        usual = path.with_name(f"{path.stem or path.name}{suffixes[0]}")
        raise UsageError(
            f"cannot {doing} {show(path)}: it must end in {' or '.join(suffixes)}",
            hint=f"{option} {show(usual)}",
        )
    if os.path.lexists(path):
        raise UsageError(
            f"{show(path)} already exists", hint=f"remove it, or choose another {option}"
        )
    if not path.parent.is_dir():
        raise UsageError(
            f"the folder {show(path.parent)} does not exist",
            hint=f"create it, or another {option}",
        )


def cache_folder() -> Path:
    """Return the user's cache folder, whose content can be recreated; it may not exist.

    Raises:
        MachineError: HOME is not set.
    """
    if chosen := os.environ.get("XCEPTION_CACHE"):
        return Path(chosen)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if Path(shared).is_absolute():  # the XDG specification: ignore a relative one
        return Path(shared) / "xception"
    if home := os.environ.get("HOME" if os.name != "nt" else "USERPROFILE"):
        return Path(home) / ".cache" / "xception"
    raise MachineError("HOME is not set", hint="set XCEPTION_CACHE to a folder that can be written")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_SUM = 4  # bytes of a checksum


def with_sum(content: bytes, *named: object) -> bytes:
    """Append a checksum of some bytes and of the names that they are stored under."""
    return content + zlib.crc32(content, zlib.crc32(repr(named).encode())).to_bytes(_SUM, "big")


def without_sum(summed: object, *named: object) -> bytes | None:
    """Return the bytes that were given to `with_sum`; None if they or their names are damaged."""
    if not isinstance(summed, bytes) or with_sum(summed[:-_SUM], *named) != summed:
        return None
    return summed[:-_SUM]


def utf8(text: str) -> str:
    r"""Write the bytes of a file name that are not UTF-8 as `\xNN`, so that it can be stored."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def from_utf8(text: str) -> str:
    r"""Return the file name that `utf8` encoded; a name may also contain `\xNN` literally."""
    return _BYTE.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), text)


def why(error: OSError | ValueError | RecursionError) -> str:
    """Return why a file cannot be read, without Python's error numbers and words."""
    if isinstance(error, RecursionError):
        return "too many brackets"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start:,} is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno:,}, column {error.colno:,} is not valid JSON"
    if "Exceeds the limit" in str(error):  # of `sys.set_int_max_str_digits`
        return "a number has too many digits"
    return show(getattr(error, "strerror", None) or error)


# Spreadsheets treat text that starts with `=` and the like as a formula (OWASP, CSV injection),
# also after a quote. One that separates by `;` or tabs ignores our quotes, so that a cell starts
# after each of these, and after a line break.
_CELL_START = r"(?:\A|(?<=[;\t\r\n]))"
_FORMULA = r"""(?="*[=+\-@\t\r\n\0'\uff1d\uff0b\uff0d\uff20])"""
UNMARKED, _MARKED = re.compile(_CELL_START + _FORMULA), re.compile(f"{_CELL_START}'{_FORMULA}")
_EXCELS = re.compile("sep=.?")


def _to_cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if not isinstance(value, str):
        return "" if value is None else str(value)
    return UNMARKED.sub("'", utf8(value))


def from_cell(cell: str) -> str:
    """Return the text that `to_csv` wrote as this cell."""
    return _MARKED.sub("", cell) if "'" in cell else cell


def to_csv(header: Sequence[object], rows: Iterable[Sequence[object]]) -> bytes:
    r"""Return the bytes of a CSV file: UTF-8, `\n` lines, floats with 6 significant digits.

    Text that a spreadsheet would take as a formula gets a leading `'`, which `from_csv`
    removes.
    """
    buffer = io.StringIO(newline="")
    # Python 3.11's writer quotes a lone `\r` only if it is part of its own line end.
    writer = csv.writer(buffer, lineterminator="\r\n")
    for row in (header, *rows):
        writer.writerow([_to_cell(value) for value in row])
        buffer.seek(buffer.tell() - 2)
        buffer.truncate()
        buffer.write("\n")
    return buffer.getvalue().encode()


Table = tuple[list[str], Iterator[tuple[int, list[str]]]]


def read_users_table(path: Path, fits: Callable[[list[str]], bool]) -> Table:
    """Read a CSV file as `read_table` does, also in Windows-1252, with a note."""
    if encoding := guess_encoding(path):
        windows = 'Windows-1252, the encoding of Excel\'s "CSV"'
        say(f"note      {show(path)} is not UTF-8: read as {windows}")
    return read_table(path, fits, encoding)


def read_table(path: Path, fits: Callable[[list[str]], bool], encoding: str | None = None) -> Table:
    """Read a CSV file of any size that a spreadsheet may have saved with `;` or tabs.

    Args:
        path: The file.
        fits: Whether these are the expected columns; finds the separator.
        encoding: See `read_lines`.

    Returns:
        The columns, or if none fit, those of the separator that gives the most; and each row with
        the number of its line, read one by one. Rows may have any number of cells.

    Raises:
        ValueError: It is not a CSV file; perhaps only while rows are read.
        OSError: It cannot be read; the same.
    """
    widest: Table = [], iter(())
    refused = None
    for separator in ",;\t":
        rows = _split_cells(path, separator, encoding)
        try:
            _, header = next(rows, (1, []))
        except ValueError as error:  # with another separator, quotes may be in the wrong places
            refused = error
            continue
        table = header, (row for row in rows if row[1])
        if fits(header):
            return table
        if len(header) > len(widest[0]):
            widest = table
    if refused is not None and not widest[0]:
        raise refused
    return widest


def _split_cells(
    path: Path, separator: str, encoding: str | None
) -> Iterator[tuple[int, list[str]]]:
    # Strict: a quote that is never closed would swallow all other rows without an error.
    reader = csv.reader(read_lines(path, encoding=encoding), delimiter=separator, strict=True)
    end = 0
    try:
        is_above = True  # the columns: empty lines, and the one that tells Excel the separator
        for row in reader:
            cells = [from_cell(cell) for cell in row]
            is_above = is_above and (not any(cells) or _EXCELS.fullmatch(cells[0]) is not None)
            if not is_above:
                yield reader.line_num, cells
            end = reader.line_num
    except csv.Error as error:
        fault = 'a quote (") in the wrong place'
        if "limit" in str(error):
            fault = f'a cell over {csv.field_size_limit():,} characters, or an unclosed quote (")'
        raise ValueError(f"not a CSV file: line {end + 1:,} has {fault}") from error


def from_csv(
    path: Path, header: Sequence[str], *older: Sequence[str], most: int = MOST_ROWS
) -> Iterator[list[str]]:
    """Read the rows of a CSV file that `to_csv` wrote, one by one.

    Args:
        path: The file.
        header: Its columns.
        older: Columns written by earlier versions, each of a different length.
        most: Expected number of rows, at most.

    Raises:
        ArtifactError: The file is missing, is not a CSV file, or has other columns or more rows.
    """
    known = [[utf8(name) for name in columns] for columns in (header, *older)]
    try:
        found, rows = read_table(path, known.__contains__)
        if found not in known:
            raise ArtifactError(
                f"{show(path)} has the columns {show(','.join(found))}, expected {','.join(header)}"
            )
        for count, (number, row) in enumerate(rows, start=1):
            if len(row) != len(found):
                raise ArtifactError(
                    f"{show(path)} is damaged: line {number} has {count_of(len(row), 'cell')}, "
                    f"expected {len(found)}"
                )
            if count > most:
                raise ArtifactError(
                    f"{show(path)} has over {count_of(most, 'row')}, more than expected"
                )
            yield row
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {show(path)}: {why(error)}") from error
