"""Texts: files as editors and spreadsheets save them: UTF-8, UTF-16 with a mark, Windows-1252."""

import codecs
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from xception_cli.regular import open_regular, read_regular

WINDOWS = "cp1252"  # "CSV" of Excel in Western Europe and America
SAVE_IN_EXCEL = "File > Save as > CSV UTF-8"
LARGEST_TEXT = 500_000_000  # bytes of a JSON file, which is read as a whole
_LARGEST_SETTINGS = 200_000  # bytes of a TOML file
_LONGEST_LINE = 100_000_000  # characters; a CSV file with 100,000 classes of ours has fewer
_CHUNK = 2**20  # bytes
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


def read_text(path: Path) -> str:
    """Read a file of settings as a whole.

    Raises:
        ValueError: The file is neither UTF-8 nor UTF-16.
        OSError: The file cannot be read, or is too large.
    """
    content = read_regular(path, _LARGEST_SETTINGS)
    try:
        return content.decode(_encoding(content))
    except UnicodeDecodeError as error:
        raise _undecodable(path, error.start) from error


def guess_encoding(path: Path) -> str | None:
    """Return `WINDOWS` for a text whose first character beyond ASCII is not UTF-8, else None.

    Files that programs write are UTF-8; this is for those that people save. A zero byte means that
    it is no text, such as a workbook.

    Raises:
        OSError: The file cannot be read.
    """
    with os.fdopen(open_regular(path, follow=True), "rb") as file:
        if _encoding(file.read(2)) == "utf-16":
            return None
        at = 0
        file.seek(0)
        while chunk := file.read(_CHUNK):
            if b"\0" in chunk:
                return None
            if found := _BEYOND_ASCII.search(chunk):
                file.seek(at + found.start())
                return None if _starts_as_utf8(file.read(4)) else WINDOWS
            at += len(chunk)
    return None


def _starts_as_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > 0
    return True


def read_lines(
    path: Path,
    longest: int = _LONGEST_LINE,
    *,
    follow: bool = True,
    encoding: str | None = None,
) -> Iterator[str]:
    """Read the lines of a text file of any size, one by one, with their ends.

    Args:
        path: The file.
        longest: Maximum length of a line, in characters.
        follow: Follow a link, for files that the user named.
        encoding: Its encoding; None for UTF-8 or UTF-16.

    Raises:
        ValueError: The file has another encoding, or a line is longer.
        OSError: The file cannot be read.
    """
    with os.fdopen(open_regular(path, follow=follow), "rb") as file:
        encoding, number = encoding or _encoding(file.read(2)), 0
        file.seek(0)
        text = io.TextIOWrapper(file, encoding, newline="")
        try:
            while line := text.readline(longest + 1):
                number += 1
                if len(line) > longest:
                    raise ValueError(f"line {number:,} has over {longest:,} characters")
                yield line
        except UnicodeDecodeError as error:
            file.seek(0)
            raise _undecodable(path, _find_undecodable(file, encoding)) from error


def _encoding(start: bytes) -> str:
    marked = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "utf-16" if marked else "utf-8-sig"


def _undecodable(path: Path, at: int) -> ValueError:
    is_excels = path.suffix.lower() in {".csv", ".tsv", ".xlsx", ".xls"}
    how = f" (in Excel: {SAVE_IN_EXCEL})" if is_excels else ""
    return ValueError(f"byte {at:,} is not UTF-8; save the file as UTF-8{how}")


def _find_undecodable(file: IO[bytes], encoding: str) -> int:
    """Return the place of the first byte that cannot be decoded."""
    decoder, at = codecs.getincrementaldecoder(encoding)(), 0
    while chunk := file.read(_CHUNK):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            return at - pending + error.start
        at += len(chunk)
    return at - len(decoder.getstate()[0])  # the file ends inside of a character
