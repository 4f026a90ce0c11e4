"""Workers: the processes that decode images; how one starts, and how its death is noticed."""

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from xception_cli.console import show
from xception_cli.errors import MachineError


def start_worker(_: int) -> None:
    """Prepare a worker, in its process."""
    # Ctrl-C reaches the whole process group; the parent still wants to finish its batch.
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):  # Windows lacks some
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


@contextmanager
def worker_errors() -> Iterator[None]:
    """Turn the ways in which DataLoader notices a dead worker into a `MachineError`."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        # The latter two: it died between handing over a batch and the opening of its memory.
        # A bug in a worker says "in DataLoader worker process", a death "DataLoader worker (pid".
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
            raise
        raise _death(show(error)) from error


def check_workers(loader: "DataLoader[Any]") -> None:
    """See that all workers live: DataLoader asks only for those that still owe it something.

    Raises:
        MachineError: One died.
    """
    for worker in getattr(loader._iterator, "_workers", ()):  # of torch 2.14; it has no other name
        if not worker.is_alive():
            raise _death(f"worker {worker.pid} ended with {worker.exitcode}")


def start_error(error: OSError) -> MachineError:
    """Make the error of workers that cannot be started: their locks take room in /dev/shm."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    traceback.clear_frames(error.__traceback__)  # torch's half-made iterator fails as it is freed
    sys.unraisablehook = hook
    return MachineError(
        f"the processes that decode images cannot be started: {error.strerror}",
        hint="--workers 0; or a larger /dev/shm: docker run --shm-size 64m",
    )


def _death(how: str) -> MachineError:
    return MachineError(
        f"a process that decodes images died: {how}",
        hint="memory may be short: try --workers 0",
    )
