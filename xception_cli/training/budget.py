"""Budget: the clock of a run with `--budget`, and the decisions taken on it."""

import time
from typing import Any

from xception_cli.console import duration, say
from xception_cli.rundir import RunDir


class Budget:
    """What is left of the time, and the decisions taken on it.

    They are kept in run.json, so that a resumed run continues with them; time between its processes
    does not count. `views` and `epochs` only ever follow the last decision.

    Args:
        run: Whose run.json holds the record; read when it is there.
        record: As `run.json` has it under `timed`, or as `new_record` makes it.
    """

    def __init__(self, run: RunDir, record: dict[str, Any]) -> None:
        self._run = run
        self._record = record
        self._began = time.monotonic() - record["spent"]

    @property
    def left(self) -> float:
        """Seconds until training has to end, for the selection and the evaluation."""
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
        """Tell whether there is time for one more view and the training after it.

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
            done: Completed epochs.
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
        """Record that time was up in the epoch after `done`."""
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
        say(f"plan      after {after}: {now} in all; {why}")


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
    before = {"features", "probe", "fine-tuning"}
    afterwards = sum(value for name, value in expected.items() if name not in before)
    return {
        "budget": budget,
        "spent": round(spent, 1),
        "evaluation": round(afterwards, 1),
        "epoch": round(expected.get("fine-tuning", 0.0) / epochs, 3),
        "decisions": [{"after": "start", "views": views, "epochs": epochs, "why": "the plan"}],
    }
