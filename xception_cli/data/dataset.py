"""ImageDataset and KeyedBatches: images as tensors by key, and the order they are read in.

A key is `(epoch, index)`. Everything random about an image is a function of `(seed, epoch, index)`,
or of the epoch and its content, so that neither the number of workers nor a resume changes it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import Dataset, Sampler

from xception_cli.console import show
from xception_cli.data.image_cache import ImageCache
from xception_cli.data.images import ImageError, decode, naming, read_bytes, to_image
from xception_cli.data.inspection import content_digest
from xception_cli.data.opening import turns
from xception_cli.data.transforms import Transform
from xception_cli.errors import DataError
from xception_cli.processes import ALONE, Processes
from xception_cli.seeds import drawing_from, key

Key = tuple[int, int]  # (epoch, index)


class ImageDataset(Dataset[tuple[int, int, torch.Tensor | str]]):
    """Images by key, as (index, label, pixels or the reason why there are none).

    Args:
        root: Folder that the paths are relative to.
        paths: Paths of the image files.
        labels: Class index of each image.
        transform: Turns a decoded image into uint8 pixels `(3, height, width)`.
        least_side: See `images.decode`.
        grey_bits: See `images.decode`.
        seed: Random seed.
        cache: Cache of decoded images, if each is read in many epochs.
        in_memory: Images in memory, by index; their paths are not read.
        digests: Digests of the files' contents, if results are cached by them; empty if unknown. A
            file must still have that content, which then seeds its transform instead of `seed` and
            its index.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: Sequence[int],
        transform: Transform,
        *,
        least_side: int | None = None,
        grey_bits: int = 16,
        seed: int = 0,
        cache: ImageCache | None = None,
        in_memory: Mapping[int, Image.Image] | None = None,
        digests: Sequence[str] | None = None,
    ) -> None:
        self.root = root
        self.cache = cache
        self.paths = list(paths)
        self.labels = list(labels)
        self.transform = transform
        self.least_side = least_side
        self.grey_bits = grey_bits
        self.seed = seed
        self.in_memory = in_memory or {}
        self.digests = digests

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: Key) -> tuple[int, int, torch.Tensor | str]:
        epoch, index = at
        with ExitStack() as held:
            try:
                read = partial(self._read, index, held)
                image = read() if self.cache is None else self.cache.get(index, read)
            except ImageError as error:
                return index, self.labels[index], error.message
            origin: tuple[object, ...] = (self.seed, "augment", epoch, index)
            if self.digests is not None:
                origin = ("view", epoch, self.digests[index])
            with drawing_from(*origin):
                return index, self.labels[index], self.transform(image)

    def _read(self, index: int, held: ExitStack) -> Image.Image:
        """Decode an image; if it is large, others wait until `held` is closed."""
        if index in self.in_memory:
            return to_image(self.in_memory[index], grey_bits=self.grey_bits)
        path = self.root / self.paths[index]
        with naming(path):
            content = read_bytes(path)
            known = "" if self.digests is None else self.digests[index]
            if known and content_digest(content) != known:
                raise ImageError("its content has changed")
            held.enter_context(turns.take(content, least_side=self.least_side))
            return decode(content, least_side=self.least_side, grey_bits=self.grey_bits)

    def require_all(self, failures: Sequence[tuple[int, str]]) -> None:
        """Raise an error for the first image that could not be decoded.

        Raises:
            DataError: A file vanished or changed after it was checked; the message names it.
        """
        if failures:
            index, reason = failures[0]
            raise DataError(
                f"{show(self.root / self.paths[index])}: {reason}; it was there when the run "
                "started",
                hint="restore it and continue with --resume, or start a new run",
            )


class KeyedBatches(Sampler[list[Key]]):
    """Batches of keys, shuffled or sampled by (seed, epoch), or in order.

    Processes that train together each get a share of every batch; shares differ by at most one key.

    Attributes:
        weights: `(count,)`, sampling weights, with replacement; None takes each index once.
        epoch: The epoch of the next pass, from 0.
        start: Number of batches to skip in the next pass, for a resume inside an epoch.
        chosen: Indices of a pass in order; None for all.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool,
        weights: torch.Tensor | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.processes = processes
        self.seed = seed
        self.shuffle = shuffle
        self.weights = weights
        self.epoch = 0
        self.start = 0
        self.chosen: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self._bounds()) - 1

    @property
    def rows(self) -> int:
        """Rows of one process that a GPU computes for each batch, however few its keys are.

        In inference, all sets of images have the same: the kernels for them are prepared once.
        """
        full = -(-self.batch_size // self.processes.count)
        return min(full, self.count) if self.shuffle else full

    def sizes(self) -> list[int]:
        """Return the number of keys of one process in each batch."""
        rank, count = self.processes.rank, self.processes.count
        return [len(range(begin + rank, end, count)) for begin, end in pairwise(self._bounds())]

    def _bounds(self) -> list[int]:
        """Return where each batch begins in the order, and where the last one ends."""
        count = self.count if self.chosen is None else len(self.chosen)
        bounds = list(range(0, count, self.batch_size))
        last = count - bounds[-1] if bounds else 0
        # Batch statistics of a single image are useless, so it joins the batch before. So do fewer
        # images than there are processes, because each process needs one.
        least = max(2 if self.shuffle else 1, self.processes.count)
        if len(bounds) > 1 and last < least:
            bounds.pop()
        return [*bounds, count]

    def order(self) -> list[int]:
        """Return this epoch's order of indices."""
        if not self.shuffle:
            return list(range(self.count) if self.chosen is None else self.chosen)
        generator = torch.Generator().manual_seed(key(self.seed, "order", self.epoch))
        if self.weights is not None:
            drawn = self.weights.multinomial(self.count, replacement=True, generator=generator)
            return drawn.tolist()
        return torch.randperm(self.count, generator=generator).tolist()

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order, bounds = self.epoch, self.order(), self._bounds()
        rank, count = self.processes.rank, self.processes.count
        for begin, end in list(pairwise(bounds))[self.start :]:
            yield [(epoch, index) for index in order[begin + rank : end : count]]
