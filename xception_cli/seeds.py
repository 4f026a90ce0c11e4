"""Seeds: random numbers as a function of what they are for, so that no generator's state counts."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import numpy as np
import torch


def key(*parts: Any) -> int:
    """Return a 63-bit seed that is a pure function of `parts`, the same on every machine."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def seed_everything(*parts: Any) -> None:
    """Seed torch (CUDA too), Python and numpy with `key(*parts)`."""
    seed = key(*parts)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def drawing_from(*parts: Any) -> Iterator[None]:
    """Seed the random generators with `key(*parts)`, and restore their states at the end."""
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would also seed CUDA, which this fork_rng does not restore.
        torch.default_generator.manual_seed(key(*parts))
        random.seed(key(*parts))
        np.random.seed(key(*parts) % 2**32)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
