"""ImageCache: decoded images of a run on disk, so that further epochs need not decode them."""

import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from xception_cli.files import write_cached

_HEADER = 8  # bytes: width and height


class ImageCache:
    """Decoded images of a run, one file of raw RGB each.

    The page cache keeps them in memory. A cached image equals the image decoded again, so neither a
    full disk nor the number of cached images changes a result. Loader processes share the files.

    Args:
        folder: Folder of the files; if it cannot be created, nothing is cached.
        name: Prefix of the files.
        prepare: Applied to a decoded image before it is cached.
        count: Number of images to cache; the others are decoded and prepared each time.
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
        """Return an image, prepared."""
        if index >= self._count:
            return self._prepare(read())
        path = self._folder / f"{self._name}-{index:08}.rgb"
        cached = _load(path)
        if cached is None:
            cached = self._prepare(read())
            self._save(path, cached)
        return cached

    def _save(self, path: Path, image: Image.Image) -> None:
        header = b"".join(side.to_bytes(_HEADER // 2, "little") for side in image.size)
        try:
            write_cached(path, header + image.tobytes())
        except OSError:  # the disk is full
            self._count = 0


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


def cached_fraction(folder: Path, needed: int, allowed: float) -> float:
    """Return the fraction of the images to cache, using at most half of the free disk space."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return 0.0
    return min(1.0, min(allowed, free / 2) / max(1, needed))
