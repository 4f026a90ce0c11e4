"""Budget: the clock of a run with `--budget`, and the decisions based on it."""

import time
from typing import Any

from xception_cli.console import say
from xception_cli.numerals import count_of, duration
from xception_cli.rundir import RunDir


class Budget:
    """The time left, and the decisions based on it.

    The decisions are stored in run.json, so that a resumed run keeps to them. The time between a
    stop and a resume does not count. `views` and `epochs` follow the last decision.

    Args:
        run: The run whose run.json holds the record.
        record: The value of `timed` in run.json, or from `new_record`.
    """

    def __init__(self, run: RunDir, record: dict[str, Any]) -> None:
        self._run = run
        self._record = record
        self._began = time.monotonic() - record["spent"]

    @property
    def left(self) -> float:
        """Seconds until training has to end, so that there is time for selection and evaluation."""
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
        """Return whether there is time for one more view and the training after it.

        Args:
            done: Views computed so far.
            seconds: Duration of one view.
        """
        if seconds + self.epochs * self._record["epoch"] <= self.left:
            self.keep()
            return True
        self._decide(f"view {done}", "there is no time for more views", views=done)
        return False

    def fit_epochs(self, done: int, wanted: int, seconds: float) -> int:
        """Return the total number of epochs that fit into the time.

        Args:
            done: Completed epochs.
            wanted: Upper limit.
            seconds: Duration of one epoch.
        """
        fitting = max(done, min(wanted, done + int(self.left / seconds)))
        if fitting != self.epochs:
            why = f"an epoch takes {duration(seconds)}"
            self._decide(f"epoch {done}", why, epochs=fitting)
        else:
            self.keep()
        return fitting

    def end_now(self, done: int) -> None:
        """Record that time was up in the epoch after `done`."""
        self._decide(f"epoch {done}", "the time is up during the next one", epochs=done)

    def keep(self) -> None:
        """Record the time spent."""
        self._record["spent"] = round(time.monotonic() - self._began, 1)
        self._run.update_info({"timed": self._record})

    def _decide(self, after: str, why: str, **changes: int) -> None:
        decision = {"views": self.views, "epochs": self.epochs, **changes}
        self._record["decisions"].append({"after": after, **decision, "why": why})
        self.keep()
        now = ", ".join(count_of(value, name[:-1]) for name, value in changes.items())
        say(f"plan      after {after}: {now} in all; {why}")


def new_record(
    *, budget: float, spent: float, expected: dict[str, float], views: int, epochs: int
) -> dict[str, Any]:
    """Make the record of a new run.

    Args:
        budget: Seconds.
        spent: Seconds spent already.
        expected: Seconds of each phase, from `expected_seconds`.
        views: Of each training image.
        epochs: Of training.
    """
    before = {"features", "probe", "fine-tuning"}
    afterwards = sum(value for name, value in expected.items() if name not in before)
    return {
        "budget": budget,
        "spent": round(spent, 1),
        "evaluation": round(afterwards, 1),
        "epoch": round(expected.get("fine-tuning", 0.0) / epochs, 3),
        "decisions": [{"after": "start", "views": views, "epochs": epochs, "why": "the plan"}],
    }
