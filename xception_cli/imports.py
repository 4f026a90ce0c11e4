"""Imports: large packages, imported if memory suffices, and without garbage collections."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xception_cli.cores import usable_cores
from xception_cli.errors import MORE_THREADS, NO_THREADS, MachineError, is_out_of_memory

_NEEDED = 300_000_000  # bytes; NumPy and SciPy alone take more
_OPENBLAS = 64  # threads that NumPy's wheels allow it at most
_STACK = 2**23  # bytes that a thread reserves by default


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
    if sys.platform == "linux" and not {"numpy", "scipy"} <= sys.modules.keys():  # with OpenBLAS
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
    """Check that OpenBLAS can start its threads: one for each core, unless fewer are set.

    Processes are started instead, which Linux counts too: each thread of Python would reserve 64 MB
    of address space, which `ulimit -v` limits.
    """
    cores = usable_cores()
    fewer = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    needed = min(cores, _OPENBLAS, int(fewer) if fewer.isdecimal() else cores) - 1
    if is_out_of_memory(None, _NEEDED + needed * _STACK):
        raise MemoryError
    started: list[int] = []
    try:
        for _ in range(needed):
            process = os.fork()
            if not process:
                os._exit(0)
            started.append(process)
    except BlockingIOError as error:
        raise MachineError(NO_THREADS, hint=MORE_THREADS) from error
    finally:
        for process in started:
            with suppress(ChildProcessError):  # SIGCHLD is ignored: it is gone already
                os.waitpid(process, 0)
