"""Workers: the processes that decode images: how many, how they start, how a death is noticed."""

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from xception_cli.console import show
from xception_cli.cores import usable_cores
from xception_cli.data.opening import turns
from xception_cli.errors import MachineError
from xception_cli.runtime import Runtime


def default_workers(runtime: Runtime) -> int:
    """Return the number of image-loading processes: enough for a GPU, few if the CPU trains."""
    wanted = 16 if runtime.device.type == "cuda" else 2
    return max(1, min(wanted, usable_cores() // runtime.processes.local_count))


def start_worker(max_pixels: int, _: int) -> None:
    """Initialise a worker, in its process.

    Args:
        max_pixels: Largest image, see `Turns`; a spawned worker does not inherit it.
    """
    turns.max_pixels = max_pixels
    # Ctrl-C reaches the whole process group; the parent must finish its batch.
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):  # Windows lacks some
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


@contextmanager
def worker_errors() -> Iterator[None]:
    """Turn the ways in which DataLoader reports a dead worker into a `MachineError`."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        # The last two: it died after sending a batch and before its memory was opened.
        # A bug in a worker is "in DataLoader worker process", a death "DataLoader worker (pid".
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
            raise
        raise _death(show(error)) from error


def check_workers(loader: "DataLoader[Any]") -> None:
    """Check that all workers are alive; DataLoader checks only those with pending work.

    Raises:
        MachineError: A worker died.
    """
    for worker in getattr(loader._iterator, "_workers", ()):  # private in torch 2.14
        if not worker.is_alive():
            raise _death(f"worker {worker.pid} ended with {worker.exitcode}")


def start_error(error: OSError) -> MachineError:
    """Return the error for workers that cannot be started: their locks need space in /dev/shm."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    traceback.clear_frames(error.__traceback__)  # torch's incomplete iterator fails when freed
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
