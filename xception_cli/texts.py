"""Texts: files as editors and spreadsheets save them, in UTF-8, or in UTF-16 with a mark."""

import codecs
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from xception_cli.regular import open_regular, read_regular

LARGEST_TEXT = 500_000_000  # bytes of a JSON or TOML file, which is read as a whole
_LONGEST_LINE = 100_000_000  # characters; a CSV file with 100,000 classes of ours has fewer
_CHUNK = 2**20  # bytes


def read_text(path: Path) -> str:
    """Read a text file as a whole.

    Raises:
        ValueError: The file is neither UTF-8 nor UTF-16.
        OSError: The file cannot be read, or is too large.
    """
    content = read_regular(path, LARGEST_TEXT)
    try:
        return content.decode(_encoding(content))
    except UnicodeDecodeError as error:
        raise _undecodable(error.start) from error


def read_lines(path: Path, longest: int = _LONGEST_LINE, *, follow: bool = True) -> Iterator[str]:
    """Read the lines of a text file of any size, one by one, with their ends.

    Args:
        path: The file.
        longest: Maximum length of a line, in characters.
        follow: Follow a link, for files that the user named.

    Raises:
        ValueError: The file is neither UTF-8 nor UTF-16, or a line is longer.
        OSError: The file cannot be read.
    """
    with os.fdopen(open_regular(path, follow=follow), "rb") as file:
        encoding, number = _encoding(file.read(2)), 0
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
            raise _undecodable(_find_undecodable(file, encoding)) from error


def _encoding(start: bytes) -> str:
    marked = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "utf-16" if marked else "utf-8-sig"


def _undecodable(at: int) -> ValueError:
    return ValueError(f"byte {at:,} is not UTF-8; save the file as UTF-8")


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
