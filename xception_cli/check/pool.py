"""Pool: the helper processes of a scan, of which none outlives the command, however it ends."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import connection, resource_tracker
from typing import Any, TypeVar

from xception_cli.cores import usable_cores
from xception_cli.data.opening import turns
from xception_cli.errors import MORE_THREADS, NO_THREADS, MachineError

_PROCESSES = 16  # at most
_CHUNK = 16  # items that a helper gets at a time

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[[list[Item]], list[Result]], items: Iterator[Item]
) -> Iterator[Result]:
    """Apply a function to chunks of items, of which only a few are in progress at a time.

    Args:
        function: What the helpers do, one helper for each core.
        items: What it is applied to.

    Yields:
        The result of each item, in order.

    Raises:
        MachineError: A helper was killed, or the system starts no more processes.
    """
    processes = min(_PROCESSES, usable_cores())
    # Forking this process would copy its threads' locks.
    way = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(way)
    _start_tracker()
    pool = ProcessPoolExecutor(
        processes,
        context,
        initializer=_start_helper,
        initargs=(context.Lock(), turns.max_pixels),
    )
    ahead: deque[Future[list[Result]]] = deque()
    try:
        while chunk := list(islice(items, _CHUNK)):
            with _main_program_not_imported(), _signals_deferred():  # it may start a helper
                ahead.append(pool.submit(function, chunk))
            if len(ahead) > 2 * processes:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()
    except BrokenProcessPool as error:
        raise MachineError(
            "a process that scans images was killed; the system may be out of memory",
            hint="run the same command again to resume",
        ) from error
    except EOFError as error:  # Python's fork server has ended
        raise MachineError(NO_THREADS, hint=MORE_THREADS) from error
    finally:
        with suppress(RuntimeError):  # its own thread could not be started
            pool.shutdown(cancel_futures=True)


def _start_tracker() -> None:
    """Start Python's tracker of semaphores so that no hangup ends it, like SIGINT and SIGTERM.

    Otherwise (3.11) it is started again when the helpers end, and prints tracebacks.
    """
    if hasattr(signal, "pthread_sigmask"):  # Windows has no tracker
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # is inherited
        try:
            resource_tracker.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _main_program_not_imported() -> Iterator[None]:
    """Start processes without importing the user's main program, which would run it again."""
    main = sys.modules["__main__"]
    hidden = {n: vars(main)[n] for n in ("__file__", "__spec__") if n in vars(main)}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Start processes whole: a signal would leave a half started one, which fails with a traceback.

    Their executor, too, waits only for processes that it knows to have started.
    """
    received: list[int] = []
    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"):  # Windows lacks some
        number = getattr(signal, name, None)
        if number and callable(signal.getsignal(number)):
            with suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, lambda n, _: received.append(n))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in received[:1]:
            signal.raise_signal(number)


def _start_helper(lock: Any, max_pixels: int) -> None:
    """Initialise a helper process.

    Args:
        lock: Lock for large images, see `Turns`.
        max_pixels: Largest image, see `Turns`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches helpers too; the parent ends them
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    turns.lock, turns.max_pixels = lock, max_pixels
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """End when the parent process has ended, for any reason.

    If the parent is killed, a helper would otherwise wait for work forever: it holds open the pipe
    that the fork server watches.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
