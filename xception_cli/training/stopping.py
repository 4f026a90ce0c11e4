"""StopSignals: how a signal stops a training, at once or after its state is saved."""

import os
import signal
from types import FrameType, TracebackType
from typing import Any

from ignite.engine import Engine

from xception_cli.console import say
from xception_cli.errors import StoppedError, signal_name
from xception_cli.processes import Processes, is_left_to_nohup

_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2")


class _StopNow(BaseException):
    """Raised to end the run at once; no library's `except Exception` can catch it."""


class StopSignals:
    """Handles stop signals during a run, and restores the earlier handlers after it.

    Outside of training (`graceful` is False) a signal ends the run at once, with `StoppedError`. In
    training the first one sets `requested`, and the loop saves and stops after its batch; another
    SIGINT stops at once. SIGUSR1 sets `save_requested`: save now and continue.

    LSF and Grid Engine send SIGUSR2 before they end a job. A caller's handler of it stays: submitit
    has one.

    Attributes:
        graceful: Whether the training loop checks `requested`.
        requested: The number of the signal that asked to stop.
        save_requested: Whether to save the state after this batch.
        hint: The command that continues, for the error.
    """

    def __init__(self, hint: str) -> None:
        self.graceful = False
        self.requested: int | None = None
        self.save_requested = False
        self.hint = hint
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for name in (*_STOPPING, "SIGUSR1"):
            number = getattr(signal, name, None)  # Windows lacks some
            if number is None or is_left_to_nohup(number):
                continue
            if name == "SIGUSR2" and signal.getsignal(number) is not signal.SIG_DFL:
                continue
            action = self._save if name == "SIGUSR1" else self._stop
            try:
                self._previous[number] = signal.signal(number, action)
            except ValueError:  # not in the main thread: the caller's handlers stay
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if isinstance(error, _StopNow):
            saved = "what was saved before is intact"
            raise self.error(self.requested or signal.SIGINT, saved) from None

    def _stop(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            os._exit(128 + number)  # a worker that has just been forked
        if self.graceful and (self.requested is None or number != signal.SIGINT):
            if self.requested is None:
                self.requested = number
                again = " (Ctrl-C again to stop at once)" if number == signal.SIGINT else ""
                say(f"stopping  after this batch, saving…{again}")
            return
        # Python ignores an exception in a finalizer: then `requested` stops the training loop.
        self.requested = number
        raise _StopNow

    def _save(self, _: int, __: FrameType | None) -> None:
        self.save_requested = True

    def error(self, number: int, saved: str) -> StoppedError:
        """Make the error that ends the run: which signal, and what was saved."""
        return StoppedError(number, f"stopped by {signal_name(number)}; {saved}", hint=self.hint)


def asked_to_stop(stop: StopSignals, processes: Processes) -> bool:
    """Return whether a signal asked to stop, in this process or in another one."""
    number = processes.largest(stop.requested or 0)
    if number:  # else a signal that just reached this process alone counts next time
        stop.requested = number
    return number != 0


def stopped_error(stop: StopSignals, trainer: Engine) -> StoppedError:
    """Return the error of a run that a signal stopped after its state was saved."""
    where = f"iteration {trainer.state.iteration:,} (epoch {trainer.state.epoch})"
    return stop.error(stop.requested or 0, f"the state is saved at {where}")
