"""Imports: large packages, imported if memory suffices, and without garbage collections."""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from xception_cli.errors import MORE_THREADS, NO_THREADS, MachineError, is_out_of_memory

_NEEDED = 300_000_000  # bytes; NumPy and SciPy alone take more


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
    """Check that OpenBLAS can start its threads: one for each core, unless it is told otherwise."""
    told = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    needed = int(told) if told.isdecimal() else os.cpu_count() or 1
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
