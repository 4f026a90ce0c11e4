"""FeatureInputs: stored activations of the frozen prefix, as inputs of the other layers."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from xception_cli.data.dataset import Key, KeyedBatches
from xception_cli.data.inputs import Inputs
from xception_cli.model.feature_store import FeatureStore
from xception_cli.runtime import Runtime
from xception_cli.seeds import key


class FeatureInputs:
    """Stored activations as inputs of the trained part, batch by batch.

    In shuffled batches, image `i` is seen in view `(offset(seed, i) + epoch) % views`, so that the
    views alternate. In ordered batches, all images are seen in the same view.

    Args:
        store: The activations.
        labels: Labels of its images, `(count,)`, int64.
        batches: The keys of each batch.
        runtime: Where to compute.
        view: The view of ordered batches; 0 is the evaluation crop.
    """

    def __init__(
        self,
        store: FeatureStore,
        labels: torch.Tensor,
        batches: KeyedBatches,
        runtime: Runtime,
        view: int = 0,
    ) -> None:
        self.store = store
        self.labels = labels
        self.batches = batches
        self.runtime = runtime
        self.view = view
        offsets = [key(batches.seed, "view", index) % store.views for index in range(store.count)]
        self._offsets = torch.tensor(offsets)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Inputs]:
        # The next batch is read while the network works on this one, to hide the disk's latency.
        with ThreadPoolExecutor(max_workers=1) as reader:
            upcoming: Future[Inputs] | None = None
            for keys in self.batches:
                current, upcoming = upcoming, reader.submit(self._read, keys)
                if current is not None:
                    yield current.result()
            if upcoming is not None:
                yield upcoming.result()

    def example(self, count: int) -> torch.Tensor:
        """Return zeros of the shape of a batch of `count`."""
        some = torch.zeros(count, dtype=torch.int64)
        return self._to_device(self.store.read(some, some)).zero_()

    def _to_device(self, activations: torch.Tensor) -> torch.Tensor:
        placed = self.runtime.join_parts([activations], self.batches.rows)
        return placed if self.runtime.precision == "bf16" else placed.float()

    def _read(self, keys: list[Key]) -> Inputs:
        epoch = keys[0][0]
        indices = torch.tensor([index for _, index in keys])
        view = torch.full_like(indices, self.view)
        if self.batches.shuffle:
            view = (self._offsets[indices] + epoch) % self.store.views
        activations = self._to_device(self.store.read(indices, view))
        return Inputs(activations, self.runtime.to_device(self.labels[indices]), indices)
