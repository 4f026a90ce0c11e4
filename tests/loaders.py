"""Whole batches of a loader, whose parts the product joins on the device."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from xception_cli.data.loading import Batch, read_parts


def read_batches(loader: "DataLoader[Any]") -> Iterator[Batch]:
    """Iterate over a loader, batch by batch."""
    for parts in read_parts(loader):
        pixels = [part.pixels for part in parts if len(part.indices)] or [parts[0].pixels]
        yield Batch(
            torch.cat(pixels),
            torch.cat([part.labels for part in parts]),
            torch.cat([part.indices for part in parts]),
            [failure for part in parts for failure in part.failures],
        )
