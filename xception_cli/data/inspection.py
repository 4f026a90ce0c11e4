"""Inspection: the digest of an image file, and whether it can be decoded."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from xception_cli.console import screen
from xception_cli.data.images import ImageError, decode, naming, read_bytes
from xception_cli.data.opening import turns


@dataclass(frozen=True)
class Inspection:
    """The result of inspecting a file.

    Attributes:
        digest: BLAKE2b of the content, 32 hexadecimal digits; empty if it could not be read.
        problem: Why it is not a valid image; None if it is.
    """

    digest: str
    problem: str | None = None


def content_digest(content: bytes) -> str:
    """Return the BLAKE2b digest of an image file's bytes, 32 hexadecimal digits."""
    return blake2b(content, digest_size=16).hexdigest()


def inspect(path: Path, *, decoded: bool = True) -> Inspection:
    """Hash a file, and check that it fully decodes.

    Args:
        path: The file.
        decoded: False hashes only.
    """
    digest = ""
    try:
        with naming(path):
            content = read_bytes(path)
            digest = content_digest(content)
            if decoded:
                with turns.take(content, least_side=1):
                    decode(content, least_side=1)  # every byte is read at the smallest scale too
    except ImageError as error:
        return Inspection(digest, error.message)
    return Inspection(digest)


def inspect_all(paths: list[Path], *, decoded: bool = True) -> list[Inspection]:
    """Inspect files in order, without stopping at a problem.

    Threads suffice: Pillow and hashlib release the GIL.
    """
    what = "checking images" if decoded else "hashing images"
    with (
        ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool,
        screen.bar(what, len(paths)) as bar,
    ):
        found = []
        for inspection in pool.map(lambda path: inspect(path, decoded=decoded), paths):
            found.append(inspection)
            bar.advance(1)
    return found
