"""The user's cache by kind: what is there, and how it is cleared."""

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from xception_cli.console import show
from xception_cli.errors import UsageError
from xception_cli.files import cache_folder

# By kind, our own files: the folder may be one of the user's, who has other files there.
_FILES = {
    "weights": ("xception-imagenet-*",),
    "scans": ("scans/*.sqlite*", "scans/*.lock"),
    "features": ("features/pooled/??/*", "features/activations/??/*"),
}
KINDS = {
    "weights": "ImageNet weights, downloaded",
    "scans": "what data checks found, by folder",
    "features": "what the pretrained network computed, by image",
}
COMPUTED = ("scans", "features")  # made again without a download


@dataclass(frozen=True)
class Content:
    """The files of one kind.

    Attributes:
        kind: One of `KINDS`.
        files: How many there are.
        size: Of all, in bytes.
    """

    kind: str
    files: int
    size: int


def list_cache() -> list[Content]:
    """Count what is in the cache, by kind.

    Raises:
        MachineError: HOME is not set.
    """
    return [_count(kind, remove=False) for kind in KINDS]


def clear_cache(kinds: Collection[str]) -> list[Content]:
    """Remove what is in the cache; a process that uses it computes it again.

    Args:
        kinds: Of `KINDS`.

    Returns:
        What was removed.

    Raises:
        UsageError: There is no such kind.
        MachineError: HOME is not set.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(
            f"the cache has no kind {show(repr(unknown[0]))}, expected {', '.join(KINDS)}",
            hint="xception cache ls",
        )
    return [_count(kind, remove=True) for kind in KINDS if kind in kinds]


def _count(kind: str, *, remove: bool) -> Content:
    count = size = 0
    for pattern in _FILES[kind]:
        for path in cache_folder().glob(pattern):
            with suppress(OSError):  # another process has just removed it; or it cannot be removed
                length = path.lstat().st_size
                if remove:
                    path.unlink()
                count, size = count + 1, size + length
    if remove:
        _remove_empty(cache_folder() / kind)
    return Content(kind, count, size)


def _remove_empty(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # it is not empty
            Path(path).rmdir()
