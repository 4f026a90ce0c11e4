"""What ends a training early: signals, and a time budget."""

import signal
import time
from types import FrameType, TracebackType
from typing import Any

from xception_cli.console import duration, say
from xception_cli.errors import StoppedError
from xception_cli.rundir import RunDir

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


class Budget:
    """What is left of the time, and the decisions taken on it.

    They are kept in run.json, so that a resumed run goes on with them; time in which the run stood
    still does not count. `views` and `epochs` only ever follow the last decision.

    Args:
        run: Whose run.json holds the record; read when it is there.
        record: As `run.json` has it under `timed`, or as `open_budget` makes it.
    """

    def __init__(self, run: RunDir, record: dict[str, Any]) -> None:
        self._run = run
        self._record = record
        self._began = time.monotonic() - record["spent"]

    @property
    def left(self) -> float:
        """Seconds until the kept model has to be evaluated."""
        reserved = self._record["budget"] - self._record["evaluation"]
        return float(reserved - (time.monotonic() - self._began))

    @property
    def views(self) -> int:
        """Views of each training image, by the last decision."""
        return int(self._record["decisions"][-1]["views"])

    @property
    def epochs(self) -> int:
        """Epochs, by the last decision."""
        return int(self._record["decisions"][-1]["epochs"])

    def another_view(self, done: int, seconds: float) -> bool:
        """Tell whether there is time for one more view and the training behind it.

        Args:
            done: Views that are there.
            seconds: What one takes.
        """
        if seconds + self.epochs * self._record["epoch"] <= self.left:
            self.keep()
            return True
        self._decide(f"view {done}", "there is no time for more views", views=done)
        return False

    def fit_epochs(self, done: int, wanted: int, seconds: float) -> int:
        """Return how many epochs there are to be in all.

        Args:
            done: Epochs that are behind us.
            wanted: No more than these.
            seconds: What one takes.
        """
        fitting = max(done, min(wanted, done + int(self.left / seconds)))
        if fitting != self.epochs:
            why = f"an epoch takes {duration(seconds)}"
            self._decide(f"epoch {done}", why, epochs=fitting)
        else:
            self.keep()
        return fitting

    def end_now(self, done: int) -> None:
        """Record that time was up inside the epoch behind `done`."""
        self._decide(f"epoch {done}", "time is up inside the next one", epochs=done)

    def keep(self) -> None:
        """Write down how much time was spent."""
        self._record["spent"] = round(time.monotonic() - self._began, 1)
        self._run.update_info({"timed": self._record})

    def _decide(self, after: str, why: str, **changes: int) -> None:
        decision = {"views": self.views, "epochs": self.epochs, **changes}
        self._record["decisions"].append({"after": after, **decision, "why": why})
        self.keep()
        now = ", ".join(f"{value} {name}" for name, value in changes.items())
        say(f"plan      behind {after}: {now} in all; {why}")


def new_record(
    *, budget: float, spent: float, expected: dict[str, float], views: int, epochs: int
) -> dict[str, Any]:
    """Make the record of a run that starts.

    Args:
        budget: Seconds.
        spent: Seconds that are gone already.
        expected: Seconds of each phase, from `plan.expected_seconds`.
        views: Of each training image.
        epochs: Of training.
    """
    return {
        "budget": budget,
        "spent": round(spent, 1),
        "evaluation": round(expected["evaluation"], 1),
        "epoch": round(expected.get("fine-tuning", 0.0) / epochs, 3),
        "decisions": [{"after": "start", "views": views, "epochs": epochs, "why": "the plan"}],
    }
