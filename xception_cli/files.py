"""Files that survive: durable writes, the cache folder, digests; CSV that no spreadsheet runs."""

import codecs
import contextlib
import csv
import errno
import hashlib
import io
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from xception_cli.console import show
from xception_cli.errors import ArtifactError, MachineError, UsageError
from xception_cli.regular import NEW, open_regular, read_regular

TRIES = 3  # where an error is worth another try
LARGEST_TABLE = 500_000_000  # bytes of a CSV or JSON file that is read whole

LONGEST_NAME = 255  # bytes of a file name, on every common file system
_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")
_TRANSIENT = {"EIO", "ESTALE", "EDQUOT", "EAGAIN"}  # network file systems


def write_durably(path: Path, content: bytes) -> None:
    """Write a whole file so that a crash at any moment leaves the old one or the new one.

    Temporary file in the same folder, fsync, rename, fsync of the folder. The mode follows the
    umask.

    Raises:
        MachineError: The disk is full or read-only, or the folder is gone; nothing is left behind.
    """
    for attempt in range(1, TRIES + 1):
        partial = partial_path(path, os.urandom(4).hex())
        try:
            _write_and_sync(partial, content)
            partial.replace(path)
            _sync_folder(path.parent)
        except BaseException as error:
            if not isinstance(error, FileExistsError):  # then it is another's
                with contextlib.suppress(OSError):
                    partial.unlink()
            if not isinstance(error, OSError):  # a signal: nothing is left behind
                raise
            if is_transient(error) and attempt < TRIES:
                time.sleep(attempt)
                continue
            raise MachineError(
                f"cannot write {show(path)} ({len(content):,} bytes): {error.strerror}",
                hint=f"make the folder {show(path.parent)} first, or choose another one"
                if isinstance(error, (FileNotFoundError, NotADirectoryError))
                else "free some space or choose another --output; what was saved before is intact",
            ) from error
        return


def partial_path(path: Path, mark: str) -> Path:
    """Name the file that is written before it becomes `path`; a long name is cut to fit.

    Args:
        path: In the same folder.
        mark: Makes the name unique; a random one cannot be guessed, and so not be taken before.
    """
    end = f".{mark}.partial"
    return path.with_name(cut_name(path.name, LONGEST_NAME - len(end)) + end)


def cut_name(name: str, most: int) -> str:
    """Cut a file name to a number of bytes, between two characters."""
    while len(os.fsencode(name)) > most:
        name = name[:-1]
    return name


def _write_and_sync(path: Path, content: bytes) -> None:
    descriptor = open_regular(path, NEW)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; its rename is durable enough
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_transient(error: OSError) -> bool:
    """Tell whether the same call may well succeed a moment later."""
    return errno_name(error) in _TRANSIENT


def errno_name(error: OSError) -> str:
    """Name an OSError's number, `ENOSPC` for instance; empty when it has none."""
    return errno.errorcode.get(error.errno or 0, "")


def check_new_file(
    path: Path, suffixes: Sequence[str], doing: str, *, option: str = "--output"
) -> None:
    """See that a file can be made for an option, before what goes into it is computed.

    Args:
        path: The file.
        suffixes: That it may end in, the usual one first.
        doing: What is done, for the message: `cannot <doing> PATH`.
        option: That names it.

    Raises:
        UsageError: The file exists, its folder does not, or it ends otherwise.
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
            f"the folder {show(path.parent)} does not exist", hint=f"make it, or another {option}"
        )


def cache_folder() -> Path:
    """Return the user's folder for what may be downloaded or computed again; it may not exist.

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
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_SUM = 4  # bytes of a checksum


def with_sum(content: bytes, *named: object) -> bytes:
    """Append a checksum: of some bytes, and of what they are kept under."""
    return content + zlib.crc32(content, zlib.crc32(repr(named).encode())).to_bytes(_SUM, "big")


def without_sum(summed: object, *named: object) -> bytes | None:
    """Return the bytes that `with_sum` was given; None if they, or their name, are damaged."""
    if not isinstance(summed, bytes) or with_sum(summed[:-_SUM], *named) != summed:
        return None
    return summed[:-_SUM]


def utf8(text: str) -> str:
    r"""Write the bytes of a file name that are not UTF-8 as `\xNN`, so that a file can hold it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def from_utf8(text: str) -> str:
    r"""Return the file name that `utf8` wrote as this text; a name may also hold `\xNN` itself."""
    return _BYTE.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), text)


def why(error: OSError | ValueError) -> str:
    """Return why a file cannot be read, without the number that Python puts before it."""
    return show(getattr(error, "strerror", None) or error)


def read_text(path: Path) -> str:
    """Read a text file as editors and spreadsheets save it: UTF-8, or UTF-16 with its mark.

    Raises:
        ValueError: It is neither.
        OSError: It cannot be read.
    """
    content = read_regular(path, LARGEST_TABLE)
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start:,} is not UTF-8; save the file as UTF-8") from error


# Text that starts with `=` and the like is a formula to a spreadsheet (OWASP, CSV injection), also
# after a quote. One that separates by `;` or tabs ignores our quotes: a cell starts after each of
# these, and after a line break, too.
_CELL_START = r"(?:\A|(?<=[;\t\r\n]))"
_FORMULA = r"""(?="*[=+\-@\t\r\n\0'\uff1d\uff0b\uff0d\uff20])"""
_UNMARKED, _MARKED = re.compile(_CELL_START + _FORMULA), re.compile(f"{_CELL_START}'{_FORMULA}")


def _to_cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if not isinstance(value, str):
        return "" if value is None else str(value)
    return _UNMARKED.sub("'", utf8(value))


def from_cell(cell: str) -> str:
    """Return the text that a cell of `to_csv` stands for."""
    return _MARKED.sub("", cell)


def to_csv(header: Sequence[object], rows: Iterable[Sequence[object]]) -> bytes:
    r"""Make a CSV file's bytes: UTF-8, `\n` lines, floats with 6 significant digits.

    Where a spreadsheet would find a formula in a text, a `'` is put before it; `from_csv` takes it
    off.
    """
    buffer = io.StringIO(newline="")
    # Python 3.11's writer quotes a lone `\r` only where it is part of its own line end.
    writer = csv.writer(buffer, lineterminator="\r\n")
    for row in (header, *rows):
        writer.writerow([_to_cell(value) for value in row])
        buffer.seek(buffer.tell() - 2)
        buffer.truncate()
        buffer.write("\n")
    return buffer.getvalue().encode()


def read_table(
    path: Path, fits: Callable[[list[str]], bool]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a CSV file that a spreadsheet may have saved in its own way: with `;` or with tabs.

    Args:
        path: The file.
        fits: Whether these are the columns: so the separator is found.

    Returns:
        The columns; by `,` if none fit. And each row after the number of its line, with as many
        cells as it has.

    Raises:
        ValueError: It is no CSV file.
        OSError: It cannot be read.
    """
    text = read_text(path)
    tables = (_split_cells(text, separator) for separator in ",;\t")
    first, *others = tables
    header, *rows = next((table for table in (first, *others) if fits(table[0][1])), first)
    return header[1], [(number, row) for number, row in rows if row]


def _split_cells(text: str, separator: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        return [(reader.line_num, [from_cell(cell) for cell in row]) for row in reader] or [(1, [])]
    except csv.Error as error:
        raise ValueError(f"it is no CSV file: {error}") from error


def from_csv(path: Path, header: Sequence[str], *older: Sequence[str]) -> list[list[str]]:
    """Read the rows of a CSV file that `to_csv` wrote.

    Args:
        path: The file.
        header: Its columns.
        older: Columns that earlier versions wrote, each of another number.

    Raises:
        ArtifactError: The file is missing, is no CSV file, or has other columns.
    """
    known = [[utf8(name) for name in columns] for columns in (header, *older)]
    try:
        found, rows = read_table(path, known.__contains__)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {show(path)}: {why(error)}") from error
    if found not in known:
        raise ArtifactError(
            f"{show(path)} has the columns {show(','.join(found))}, expected {','.join(header)}"
        )
    for number, row in rows:
        if len(row) != len(found):
            raise ArtifactError(
                f"{show(path)} is damaged: line {number} has {len(row)} cells, expected "
                f"{len(found)}"
            )
    return [row for _, row in rows]
