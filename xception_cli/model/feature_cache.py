"""FeatureCache: features of frozen networks, kept in the user's cache by the content of images.

An entry is a file, named by the digest of all that decides its numbers: the content of the image,
the view, the weights, the arithmetic of the machine, and our own code. So an entry is never
outdated. It is written under another name and renamed, so processes need no lock. Features of an
image without an entry are computed again.
"""

import functools
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xception_cli.console import say, show
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import MachineError, UsageError
from xception_cli.files import cache_folder, why, with_sum, without_sum, write_cached
from xception_cli.model.folding import packs_weights
from xception_cli.regular import read_regular
from xception_cli.runtime import Runtime, versions

LIMIT = "XCEPTION_FEATURES_GB"  # the environment variable
_GIGABYTES = 5.0  # its default
# An image's pooled features save as much time as its activations, in a 25th of the space. Each kind
# has its own share of the limit, so that the activations of one training do not push out the pooled
# features of many folders.
_SHARES = {"pooled": 0.2, "activations": 0.8}
_LOW = 0.9  # fraction of its share that a kind keeps when its oldest entries are removed
_ABANDONED = 86_400  # seconds after which a half-written file is abandoned

Array = np.ndarray[Any, Any]


class FeatureCache:
    """Entries by kind, `pooled` and `activations`, each up to its share of a size limit.

    The least recently used ones are removed, but never those of this process, so that a run larger
    than the limit keeps some of its features instead of none.

    Args:
        folder: Their folder; it need not exist.
        limit: Total bytes; 0 disables the cache.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self._folder = folder
        self._limit = limit
        self._began = time.time()
        self._room: dict[str, float] = {}
        self._full: set[str] = set()

    @property
    def keeps(self) -> bool:
        """Whether the cache can hold anything."""
        return bool(self._limit)

    def has(self, kind: str, name: str) -> bool:
        """Return whether there is an entry, intact or damaged."""
        return bool(self._limit) and self._path(kind, name).is_file()

    def load(self, kind: str, name: str, size: int) -> bytes | None:
        """Return an entry of `size` bytes; None if there is none, or it is damaged."""
        if not self._limit:
            return None
        path = self._path(kind, name)
        try:
            content = without_sum(read_regular(path, 2 * size, follow=False), name)
            if content is None or len(content) != size:
                path.unlink()
                return None
        except OSError:
            return None
        with suppress(OSError):  # the cache may be read-only
            os.utime(path)  # so that it is removed last
        return content

    def keep(self, kind: str, name: str, content: bytes) -> None:
        """Keep an entry, if there is room; report once if nothing can be written."""
        summed = with_sum(content, name)
        path = self._path(kind, name)
        try:
            if not self._take_room(kind, len(summed)):
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            write_cached(path, summed)
        except FileNotFoundError:  # another process has just cleared the cache
            return
        except OSError as error:
            self._limit = 0.0
            say(f"note      features cannot be cached in {show(self._folder)}: {why(error)}")

    def _path(self, kind: str, name: str) -> Path:
        return self._folder / kind / name[:2] / name

    def _take_room(self, kind: str, size: int) -> bool:
        if not self._limit or kind in self._full:
            return False
        if self._room.get(kind, 0) < size:
            self._room[kind] = self._make_room(kind)
            if self._room[kind] < size:
                self._full.add(kind)
                return False
        self._room[kind] -= size
        return True

    def _make_room(self, kind: str) -> float:
        """Remove the least recently used entries of a kind if necessary; return the free bytes."""
        share = self._limit * _SHARES[kind]
        entries = sorted(self._entries(kind))
        left = sum(size for _, size, _ in entries)
        if left >= _LOW * share:
            for used, size, path in entries:
                if left <= _LOW * share or used >= self._began:
                    break
                with suppress(OSError):  # another process has just removed it
                    Path(path).unlink()
                left -= size
        self._folder.mkdir(parents=True, exist_ok=True)
        # Features can be computed again: they must not fill the disk.
        return min(share - left, shutil.disk_usage(self._folder).free / 2)

    def _entries(self, kind: str) -> Iterator[tuple[float, int, str]]:
        """Yield the time of last use, the bytes and the path of each entry of a kind."""
        for folder in (self._folder / kind).glob("??"):
            with suppress(OSError), os.scandir(folder) as files:
                for file in files:
                    status = file.stat(follow_symlinks=False)
                    age = self._began - status.st_mtime
                    if file.name.endswith(".partial") and age > _ABANDONED:
                        Path(file.path).unlink()
                        continue
                    yield status.st_mtime, status.st_size, file.path


def open_feature_cache() -> FeatureCache:
    """Open the cache of this user; without a cache folder, it is disabled.

    Raises:
        UsageError: The environment variable of its limit is not a number.
    """
    text = os.environ.get(LIMIT, str(_GIGABYTES))
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise UsageError(
            f"{LIMIT} is {show(repr(text))}, expected gigabytes such as {_GIGABYTES:g}",
            hint=f"unset {LIMIT}; 0 disables the cache",
        )
    try:
        return FeatureCache(cache_folder() / "features", limit)
    except MachineError:  # HOME is not set
        return FeatureCache(Path(), 0.0)


@dataclass(frozen=True)
class KeptView:
    """One view of some images in the cache.

    Attributes:
        cache: The cache.
        about: Digest of all that decides the numbers, except the content of the image.
        digests: Of the images' contents, by index.
    """

    cache: FeatureCache
    about: str
    digests: Sequence[str]

    def has(self, index: int, after: str | None = None) -> bool:
        """Return whether `load` is likely to succeed."""
        return self.cache.has(*self._entry(index, after))

    def load(self, index: int, row: Array, after: str | None = None) -> bool:
        """Load the features of an image into `row`, and return whether they were cached.

        Args:
            index: Of the image.
            row: Output: `(POOLED,)`, float32; or activations as in `FeatureStore`.
            after: The step whose activations these are; None for pooled features.
        """
        kind, name = self._entry(index, after)
        content = self.cache.load(kind, name, row.nbytes)
        if content is None:
            return False
        row[...] = np.frombuffer(content, row.dtype).reshape(row.shape)
        return True

    def keep(self, index: int, row: Array, after: str | None = None) -> None:
        """Keep the features of an image; see `load`."""
        self.cache.keep(*self._entry(index, after), np.ascontiguousarray(row).tobytes())

    def _entry(self, index: int, after: str | None) -> tuple[str, str]:
        named = repr((self.about, after, self.digests[index]))
        kind = "pooled" if after is None else "activations"
        return kind, blake2b(named.encode(), digest_size=20).hexdigest()


def kept_view(
    cache: FeatureCache,
    *,
    weights: str,
    runtime: Runtime,
    preprocessing: Preprocessing,
    view: str,
    digests: Sequence[str],
) -> KeptView:
    """Name one view of images in the cache.

    Args:
        cache: From `open_feature_cache`.
        weights: Digest of the frozen network's.
        runtime: Where it is computed.
        preprocessing: Of the pixels.
        view: The transform, and what its random numbers depend on in addition to the content.
        digests: Of the images' contents, by index.
    """
    pixels = {n: v for n, v in asdict(preprocessing).items() if n != "max_pixels"}
    about = (weights, _arithmetic(runtime), _code_digest(), pixels, view)
    return KeptView(cache, sha256(repr(about).encode()).hexdigest(), digests)


def _arithmetic(runtime: Runtime) -> tuple[object, ...]:
    """Return all that decides the last bits of a result: libraries choose kernels by it."""
    cpu = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return (
        versions(),
        runtime.describe_device(),  # with the number of threads
        runtime.precision,
        runtime.deterministic,
        packs_weights(runtime),
        torch.backends.cpu.get_cpu_capability(),
        sorted(cpu.items()),
    )


@functools.cache
def _code_digest() -> str:
    """Return the SHA-256 of our code that decodes, transforms and computes."""
    package = Path(__file__).parents[1]
    files = [package / "runtime.py", package / "seeds.py"]
    files += [*package.glob("data/*.py"), *package.glob("model/*.py")]
    return sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()
