"""Decoded images, kept on disk while a run needs them: later epochs decode nothing."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from PIL import Image

_HEADER = 8  # bytes: width and height


class KeptImages:
    """Images as training takes them, one file of raw RGB each.

    The page cache is the RAM tier. What is kept is what reading the image again would give, so
    that neither a full disk nor the number of kept images changes a number. Loader processes share
    the files: each is written beside its place and moved there whole.

    Args:
        folder: Where the files lie; made if it can be, else nothing is kept.
        name: That the files begin with.
        prepare: What is done to a decoded image before it is kept.
        count: How many images are kept; later ones are read and prepared each time.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        prepare: Callable[[Image.Image], Image.Image],
        count: int,
    ) -> None:
        self._folder = folder
        self._name = name
        self._prepare = prepare
        self._count = count
        try:
            folder.mkdir(exist_ok=True)
        except OSError:  # read-only, or the run folder is on another machine
            self._count = 0

    def get(self, index: int, read: Callable[[], Image.Image]) -> Image.Image:
        """Return an image, prepared.

        Args:
            index: Of the image.
            read: Reads and decodes it, if it is not kept.
        """
        if index >= self._count:
            return self._prepare(read())
        path = self._folder / f"{self._name}-{index:08}.rgb"
        kept = _load(path)
        if kept is None:
            kept = self._prepare(read())
            self._save(path, kept)
        return kept

    def _save(self, path: Path, picture: Image.Image) -> None:
        partial = path.with_suffix(f".{os.getpid()}.partial")
        header = b"".join(side.to_bytes(_HEADER // 2, "little") for side in picture.size)
        try:
            partial.write_bytes(header + picture.tobytes())
            partial.replace(path)  # without fsync: after a crash the next run starts anew
        except OSError:  # the disk is full
            self._count = 0
            with suppress(OSError):
                partial.unlink()


def _load(path: Path) -> Image.Image | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    width, height = (
        int.from_bytes(content[at : at + _HEADER // 2], "little") for at in (0, _HEADER // 2)
    )
    if not width * height or len(content) != _HEADER + 3 * width * height:
        return None
    return Image.frombytes("RGB", (width, height), content[_HEADER:])


def fraction_to_keep(folder: Path, needed: int, allowed: float) -> float:
    """Return which fraction of the images to keep: half of what is free on the disk, at most.

    Args:
        folder: A folder on the disk.
        needed: Bytes of all images.
        allowed: Bytes that they may take.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return 0.0
    return min(1.0, min(allowed, free / 2) / max(1, needed))
