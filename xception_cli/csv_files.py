"""CSV files: written so that no spreadsheet runs a formula, and read as spreadsheets save them."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from xception_cli.console import say, show
from xception_cli.errors import ArtifactError
from xception_cli.files import utf8, why
from xception_cli.numerals import count_of
from xception_cli.texts import guess_encoding, read_lines

MOST_ROWS = 10_000_000  # of a file of a run, which may be untrusted, if no number is expected
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
        ValueError: It is not a CSV file, or in another encoding; perhaps only while rows are read.
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
        if any("\0" in name for name in header):
            raise ValueError(
                "it is UTF-16 without a byte order mark, or not text; save the file as UTF-8"
            )
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
        is_above = True  # the columns: empty lines, and the one that sets the separator for Excel
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
        if not found:
            raise ArtifactError(f"{show(path)} is empty")
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
