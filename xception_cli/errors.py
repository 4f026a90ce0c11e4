"""The errors shown to users, and the exit codes of the command.

XceptionError            what happened, with the value received; and a hint: what to type next
├── UsageError        2  an invalid command, option or setting
├── DataError         3  the data folder or its images are unusable
├── ArtifactError     4  a model, state or weights file is refused
├── MachineError      5  disk, memory, permission, device or a missing package
├── DivergedError     6  the loss or the weights are no longer finite
├── WeightsError      7  the pretrained weights cannot be obtained
├── RunBusyError      8  another process is writing this run folder
└── StoppedError   128+n stopped by signal n, after saving the state

0 is success, 1 is a bug of ours (with a traceback), 141 a closed output pipe.
"""

import errno
import mmap
import os
import re
import signal

MORE_MEMORY = "close other programs, or allow this one more memory; then run the command again"
# Message and hint where the system starts no more of them, as with many cores on a shared computer.
NO_THREADS = "the system allows no more threads or processes"
MORE_THREADS = (
    "close other programs, or allow more (ulimit -u; --pids-limit of a container); or run the "
    "command with OMP_NUM_THREADS=1 and --workers 0"
)
SMALLER_STEPS = "a smaller --lr and --head-lr; the best model so far is kept"
# Of the system, torch on a CPU, oneDNN, and onnxruntime. oneDNN's primitive descriptor is another
# matter: it lacks the operation.
_NO_MEMORY = re.compile(
    "allocate memory|not enough memory|bad_alloc|could not create a primitive(?! descriptor)"
)
# Of the loader of shared libraries, also on a disk that is mounted noexec.
_NOT_MAPPED, _LIBRARY = "failed to map segment", 2_000_000_000  # bytes of torch's largest


class XceptionError(Exception):
    """A foreseeable problem, reported to the user in sentences.

    Args:
        message: What happened and where, with the value received.
        hint: What to do or type next.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(XceptionError):
    """An invalid command, option or setting."""

    exit_code = 2


class DataError(XceptionError):
    """The data folder or its images are unusable."""

    exit_code = 3


class ArtifactError(XceptionError):
    """A model, state or weights file is refused."""

    exit_code = 4


class MachineError(XceptionError):
    """Disk, memory, permission, device or a missing package."""

    exit_code = 5


class DivergedError(XceptionError):
    """The loss, the gradients or the weights are no longer finite."""

    exit_code = 6


class WeightsError(XceptionError):
    """The pretrained weights cannot be obtained."""

    exit_code = 7


class RunBusyError(XceptionError):
    """Another process is writing this run folder."""

    exit_code = 8


class StoppedError(XceptionError):
    """Stopped by a signal, after saving the state.

    Args:
        signal_number: The signal; the exit code is 128 plus this.
        message: What was saved.
        hint: How to resume.
    """

    def __init__(self, signal_number: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal_number


def signal_name(number: int) -> str:
    """Name a signal, and the key that sends it."""
    name = signal.Signals(number).name
    return f"{name} (Ctrl-C)" if number == signal.SIGINT else name


def is_out_of_threads(error: BaseException) -> bool:
    """Return whether an error was raised because no thread or process can be started."""
    if isinstance(error, BlockingIOError):  # of `os.fork`
        return error.filename is None and error.strerror == os.strerror(errno.EAGAIN)
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


def is_out_of_memory(error: BaseException | None, needed: int = 0) -> bool:
    """Return whether an error, or one that was being handled, was raised because memory ran out.

    Whatever reads a file asks this before it calls the file damaged.

    Args:
        error: Of Python or a library.
        needed: Bytes that were needed, if the library does not say why it failed: whether so many
            can be reserved now.
    """
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
            return True
        message = str(error).lower()
        if _NO_MEMORY.search(message):
            return True
        if _NOT_MAPPED in message:
            needed = max(needed, _LIBRARY)
        error = error.__context__
    try:
        mmap.mmap(-1, max(1, needed)).close()  # reserved, not filled
    except OSError:
        return True
    return False
