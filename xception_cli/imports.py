"""Imports: large packages, imported if memory suffices, and without garbage collections."""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from xception_cli.errors import MORE_THREADS, NO_THREADS, MachineError, is_out_of_memory

_NEEDED = 300_000_000  # bytes; NumPy and SciPy alone take more
_OPENBLAS = 64  # threads that NumPy's wheels allow it at most


@contextmanager
def importing() -> Iterator[None]:
    """Import large packages, such as torch, in less time, and exit sooner.

    The collector would visit their objects again and again, while they are imported and at exit,
    and free almost none: a quarter of the time of `python -c "import torch"` (2.14).

    Raises:
        MemoryError: There is too little; OpenBLAS (0.3.30) would try forever, or raise SIGINT.
        MachineError: Too few threads can be started; OpenBLAS would raise SIGINT.
    """
    if is_out_of_memory(None, _NEEDED):
        raise MemoryError
    if not {"numpy", "scipy"} <= sys.modules.keys():  # each has an OpenBLAS
        _check_threads()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # the collector ignores what there is by now
        if was_enabled:
            gc.enable()


def _check_threads() -> None:
    """Check that OpenBLAS can start its threads: one for each core, unless fewer are set."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    fewer = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    needed = min(cores, _OPENBLAS, int(fewer) if fewer.isdecimal() else cores)
    enough = threading.Event()
    threads = [threading.Thread(target=enough.wait) for _ in range(needed - 1)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as error:
        raise MachineError(NO_THREADS, hint=MORE_THREADS) from error
    finally:
        enough.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
