"""The user's cache, by kind: listing and clearing it."""

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xception_cli.console import show
from xception_cli.errors import UsageError
from xception_cli.files import cache_folder
from xception_cli.suggestions import did_you_mean

# Only our own files, by kind: the folder may be one where the user has other files.
_FILES = {
    "weights": ("xception-imagenet-*",),
    "scans": ("scans/*.sqlite*", "scans/*.lock"),
    "features": ("features/pooled/??/*", "features/activations/??/*"),
}
KINDS = {
    "weights": "ImageNet weights, downloaded",
    "scans": "results of data checks, by folder",
    "features": "features of the pretrained network, by image",
}
COMPUTED = ("scans", "features")  # can be recreated without a download


@dataclass(frozen=True)
class Content:
    """The files of one kind.

    Attributes:
        kind: One of `KINDS`.
        files: Number of files.
        size: Total size in bytes.
    """

    kind: str
    files: int
    size: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return {
            "kind": self.kind,
            "title": KINDS[self.kind],
            "files": self.files,
            "bytes": self.size,
        }


def list_cache() -> list[Content]:
    """List the content of the cache, by kind.

    Raises:
        MachineError: HOME is not set.
    """
    return [_count(kind, remove=False) for kind in KINDS]


def clear_cache(kinds: Collection[str]) -> list[Content]:
    """Remove content from the cache; a process that uses it computes it again.

    Args:
        kinds: Keys of `KINDS`.

    Returns:
        The removed content.

    Raises:
        UsageError: A kind is unknown.
        MachineError: HOME is not set.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(
            f"the cache has no kind {show(repr(unknown[0]))}, expected {', '.join(KINDS)}",
            hint=did_you_mean(unknown[0], KINDS, "xception cache ls"),
        )
    return [_count(kind, remove=True) for kind in KINDS if kind in kinds]


def _count(kind: str, *, remove: bool) -> Content:
    count = size = 0
    for pattern in _FILES[kind]:
        for path in cache_folder().glob(pattern):
            with suppress(OSError):  # already removed by another process, or not removable
                length = path.lstat().st_size
                if remove:
                    path.unlink()
                count, size = count + 1, size + length
    if remove:
        _remove_empty(cache_folder() / kind)
    return Content(kind, count, size)


def _remove_empty(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty
            Path(path).rmdir()
