"""Rows: the rows of an issues.csv or split.csv that a person edited, by column."""

import os
import re
import unicodedata
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from xception_cli.console import listing, show
from xception_cli.csv_files import read_users_table
from xception_cli.errors import UsageError
from xception_cli.files import from_utf8, why
from xception_cli.numerals import count_of

TOO_LONG = 'a cell that contains the separator needs quotes: "a,b"'
_LISTED = 10  # rows named in a message


def read_edited(
    path: Path, what: str, columns: Sequence[str], required: Sequence[str], hint: str
) -> list[tuple[int, dict[str, str]]]:
    """Read the rows that are not empty, with the numbers of their lines.

    Spreadsheets may have saved the file with a byte order mark, with `;` or tabs, with further
    columns or in another order. Missing cells at the end of a row are empty.

    Args:
        path: The file.
        what: What it is, for messages: `the fixes`.
        columns: Names of the columns that are returned, empty if the file lacks them.
        required: Those that it must have.
        hint: Of an error: what such a file is.

    Raises:
        UsageError: It cannot be read, a required column is missing, a column is there twice, or
            a row has more cells than there are columns.
    """
    try:
        found, lines = read_users_table(
            path, lambda names: {*required} <= {column_name(name) for name in names}
        )
        rows = [(number, row) for number, row in lines if any(cell.strip() for cell in row)]
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {what} {show(path)}: {why(error)}", hint=hint) from error
    if not found:
        raise UsageError(f"cannot read {what} {show(path)}: it is empty", hint=hint)
    names = [column_name(name) for name in found]
    if missing := [name for name in required if name not in names]:
        raise UsageError(
            f"{show(path)} has no column {' or '.join(missing)}, but: {show(', '.join(found))}",
            hint=hint,
        )
    if repeated := [name for name in columns if names.count(name) > 1]:
        raise UsageError(
            f"{show(path)} has {count_of(names.count(repeated[0]), 'column')} called {repeated[0]}",
            hint="delete the wrong one, or rename it",
        )
    if longer := too_long(rows, len(names)):
        raise UsageError(
            listing(f"{show(path)} has {count_of(len(names), 'column')}, but:", longer, _LISTED),
            hint=TOO_LONG,
        )
    at = {name: names.index(name) for name in columns if name in names}
    return [
        (number, {n: row[at[n]] if n in at and at[n] < len(row) else "" for n in columns})
        for number, row in rows
    ]


def column_name(text: str) -> str:
    """Return the name of a column without differences of case, spaces and hyphens."""
    return re.sub(r"[\s-]+", "_", text.strip().lower())


def too_long(rows: Sequence[tuple[int, list[str]]], columns: int) -> list[str]:
    """Describe the rows that have a cell beyond the last column."""
    return [
        f"line {number}: {count_of(len(row), 'cell')}"
        for number, row in rows
        if any(cell.strip() for cell in row[columns:])
    ]


def named_image(text: str, known: Container[str]) -> str:
    """Return the known path that a cell names, also in another spelling; else the cell itself."""
    paths = (os.path.normpath(written) for written in spellings(text))
    return text if text in known else next((path for path in paths if path in known), text)


def spellings(text: str) -> Iterator[str]:
    r"""Yield a path as written, then as other systems write it: `\`, bytes as `\xNN`, NFC, NFD."""
    yield text
    if text != text.strip():
        yield text.strip()
    if "\\" in text:
        yield from_utf8(text)
        yield slashed(text)
    for form in ("NFC", "NFD"):  # a Mac may have written the names, or unpacked the images
        for written in dict.fromkeys((text, slashed(text))):
            if (other := unicodedata.normalize(form, written)) != written:
                yield other


def slashed(text: str) -> str:
    """Return a path that Windows wrote as other systems write it."""
    return text.strip().replace("\\", "/")
