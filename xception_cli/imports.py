"""Imports: large packages, imported if memory suffices, and without garbage collections."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from xception_cli.errors import is_out_of_memory

_NEEDED = 300_000_000  # bytes; NumPy and SciPy alone take more


@contextmanager
def importing() -> Iterator[None]:
    """Import large packages, such as torch, in less time, and exit sooner.

    The collector would visit their objects again and again, while they are imported and at exit,
    and free almost none: a quarter of the time of `python -c "import torch"` (2.14).

    Raises:
        MemoryError: There is too little; OpenBLAS (0.3.30) would try forever, or raise SIGINT.
    """
    if is_out_of_memory(None, _NEEDED):
        raise MemoryError
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # the collector ignores what there is by now
        if was_enabled:
            gc.enable()
