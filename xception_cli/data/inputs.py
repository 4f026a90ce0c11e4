"""ImageInputs: decoded images as inputs of the network, in batches on its device."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from xception_cli.data.dataset import ImageDataset, KeyedBatches
from xception_cli.data.loading import Pass, create_loader, read_parts, start_pass
from xception_cli.data.transforms import Preprocessing
from xception_cli.data.workers import check_workers, worker_errors
from xception_cli.runtime import Runtime


class Inputs(NamedTuple):
    """Inputs of a network, and their labels.

    Attributes:
        values: `(batch or more, channels, height, width)`, float, on the device. Rows after the
            last label are padding, see `Runtime.join_parts`.
        labels: `(batch,)`, int64, on the device.
        indices: `(batch,)`, int64, on the CPU: indices of the images.
    """

    values: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


class ImageInputs:
    """Decoded images as inputs of the whole network, in batches; each pass decodes them again.

    Args:
        dataset: The images.
        batches: The keys of each batch.
        preprocessing: The pixel preprocessing.
        runtime: Where to compute.
        workers: Number of image-loading processes.
        passes: How often the images are read.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batches: KeyedBatches,
        *,
        preprocessing: Preprocessing,
        runtime: Runtime,
        workers: int,
        passes: int = 1,
    ) -> None:
        self.dataset = dataset
        self.batches = batches
        self.preprocessing = preprocessing
        self.runtime = runtime
        self.loader = create_loader(
            dataset,
            batches,
            workers=workers,
            passes=passes,
            side=preprocessing.image_size,
            device=runtime.device,
        )
        self._begun: tuple[int, Pass] | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Inputs]:
        """Yield batches.

        Raises:
            DataError: An image vanished or changed.
            MachineError: A worker process died, even if its work was done.
        """
        begun, self._begun = self._begun, None
        ahead = begun is not None and (begun[0], 0) == (self.batches.epoch, self.batches.start)
        for parts in read_parts(self.loader, begun[1] if begun and ahead else None):
            check_workers(self.loader)
            for part in parts:
                self.dataset.require_all(part.failures)
            pixels = self.runtime.join_parts([part.pixels for part in parts], self.batches.rows)
            values = self.preprocessing.normalize(pixels)
            yield Inputs(
                values.contiguous(memory_format=self.runtime.memory_format),
                self.runtime.to_device(torch.cat([part.labels for part in parts])),
                torch.cat([part.indices for part in parts]),
            )

    def begin(self, epoch: int) -> None:
        """Let the workers start on an epoch's first batches before they are needed."""
        if self.loader.num_workers:
            self.batches.epoch, self.batches.start = epoch, 0
            with worker_errors():
                self._begun = epoch, start_pass(self.loader)

    def example(self, count: int) -> torch.Tensor:
        """Return values of the shape of a batch of `count`."""
        size = self.preprocessing.image_size
        return torch.zeros((count, 3, size, size), device=self.runtime.device).contiguous(
            memory_format=self.runtime.memory_format
        )
