"""Inspection: the digest of an image file, and whether it can be used."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from xception_cli.console import screen
from xception_cli.cores import usable_cores
from xception_cli.data.images import ImageError, naming, read_bytes


@dataclass(frozen=True)
class Inspection:
    """What training needs to know about an image file.

    Attributes:
        digest: BLAKE2b of the content, 32 hexadecimal digits; empty if it could not be read.
        problem: Why it cannot be used; None if it can, or if it was only hashed.
    """

    digest: str
    problem: str | None = None


def content_digest(content: bytes) -> str:
    """Return the BLAKE2b digest of an image file's bytes, 32 hexadecimal digits."""
    return blake2b(content, digest_size=16).hexdigest()


def inspect(path: Path) -> Inspection:
    """Hash a file; only the scan decodes it, see `check.scan`."""
    try:
        with naming(path):
            return Inspection(content_digest(read_bytes(path)))
    except ImageError as error:
        return Inspection("", error.message)


def inspect_all(paths: list[Path]) -> list[Inspection]:
    """Inspect files in order, without stopping at a problem.

    Threads suffice: hashlib releases the GIL.
    """
    with (
        ThreadPoolExecutor(max_workers=min(8, usable_cores())) as pool,
        screen.bar("hashing images", len(paths)) as bar,
    ):
        found = []
        for inspection in pool.map(inspect, paths):
            found.append(inspection)
            bar.advance(1)
    return found
