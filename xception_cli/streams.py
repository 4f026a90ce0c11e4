"""Streams: standard streams that were closed at the start, and errors of writing to stdout."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from xception_cli.errors import MachineError


def open_closed_streams() -> None:
    """Open the standard streams that are closed (`>&-`); Python has None for them.

    Otherwise the next file to be opened would get the number of such a stream, and with it all that
    libraries print. Reading stdin then finds nothing, writing to stdout fails, and stderr is
    discarded.
    """
    for name, flags in {
        "stdin": os.O_RDONLY,
        "stdout": os.O_RDONLY,
        "stderr": os.O_WRONLY,
    }.items():
        if getattr(sys, name) is None:
            number = os.open(os.devnull, flags)
            os.set_inheritable(number, True)  # for helper processes
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


@contextmanager
def writing_to_stdout() -> Iterator[None]:
    """Write to stdout and flush it.

    Raises:
        SystemExit: The reader has closed the pipe; exit code 141, as shells report it.
        MachineError: stdout is closed, or its disk is full.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # Otherwise Python reports the error again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(141)
        raise MachineError(
            f"the output cannot be written to stdout: {(error.strerror or str(error)).lower()}",
            hint="redirect it to a file on a disk with free space; or to /dev/null to discard it",
        ) from error
