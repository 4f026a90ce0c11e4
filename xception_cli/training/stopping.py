"""StopSignals: Ctrl-C and its relatives stop a run between two batches, with its state saved."""

import signal
from types import FrameType, TracebackType
from typing import Any

from xception_cli.console import say
from xception_cli.errors import StoppedError

_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")


class StopSignals:
    """Takes the signals over while a run is on, and gives them back after it.

    Before training (`graceful` is False) a signal raises `StoppedError` at once. In training the
    first one sets `requested`, and the loop saves and stops after its batch; another SIGINT stops
    at once. SIGUSR1 sets `save_requested`: save now and go on.

    Attributes:
        graceful: Whether the training loop looks at `requested`.
        requested: The number of the signal that asks for the stop.
        save_requested: Whether the state is to be saved after this batch.
        hint: What to type to go on, for the error.
    """

    def __init__(self, hint: str) -> None:
        self.graceful = False
        self.requested: int | None = None
        self.save_requested = False
        self.hint = hint
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for name in (*_STOPPING, "SIGUSR1"):
            number = getattr(signal, name, None)  # Windows lacks some
            if number is None:
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

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self.graceful and (self.requested is None or number != signal.SIGINT):
            if self.requested is None:
                self.requested = number
                again = " (Ctrl-C again to stop at once)" if number == signal.SIGINT else ""
                say(f"stopping after this batch, saving…{again}")
            return
        raise self.error(number, "what was saved before is intact")

    def _save(self, _: int, __: FrameType | None) -> None:
        self.save_requested = True

    def error(self, number: int, saved: str) -> StoppedError:
        """Make the error that ends the run: which signal, and what was saved."""
        return StoppedError(
            number, f"stopped by {signal.Signals(number).name}; {saved}", hint=self.hint
        )
