"""History: what fine-tuning remembers between epochs, above all which model is the best so far."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from xception_cli.entries import read_entries
from xception_cli.errors import ArtifactError
from xception_cli.records import Scores
from xception_cli.training.checkpoint import NEW_RUN


@dataclass
class History:
    """What training remembers between epochs; saved with the state.

    Attributes:
        best_epoch: Epoch of the best fine-tuned model; 0 if there is none yet.
        best_score: Its monitored metric.
        best_loss: Its val loss, which breaks ties.
        epochs_without_better: Epochs since then.
        stopped_early: Patience ran out.
        metrics_bytes: Length of metrics.jsonl.
    """

    best_epoch: int = 0
    best_score: float = float("-inf")
    best_loss: float = float("inf")
    epochs_without_better: int = 0
    stopped_early: bool = False
    metrics_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data, with None for infinity, which JSON lacks."""
        return {
            name: None if isinstance(value, float) and math.isinf(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "History":
        """Rebuild a history from the result of `to_dict`.

        Raises:
            ArtifactError: It is damaged.
        """
        finite = {n: v for n, v in data.items() if v not in (None, -math.inf, math.inf)}
        try:
            return read_entries(cls, finite)
        except ValueError as error:
            raise ArtifactError(f"the training state is damaged: {error}", hint=NEW_RUN) from error

    @classmethod
    def of_state(cls, saved: Mapping[str, Any] | None, epochs: int | None) -> "History":
        """Return the history of a saved state, or of a new run.

        Args:
            saved: The state; None in a new run.
            epochs: Planned number of epochs; None if a time budget decides it. If it is larger than
                before, patience starts again.
        """
        if saved is None:
            return cls()
        history = cls.from_dict(saved["history"])
        if epochs is not None and epochs > saved["max_epochs"]:
            history.stopped_early, history.epochs_without_better = False, 0
        return history

    def offer(self, epoch: int, scores: Scores, monitor: str) -> bool:
        """Keep a model if it is the best so far; a tie goes to the lower val loss.

        Args:
            epoch: Of the model.
            scores: On val.
            monitor: The setting: with `last`, each epoch replaces the one before.
        """
        if monitor == "last":
            self.best_epoch, self.best_score, self.best_loss = epoch, -scores.loss, scores.loss
            return True
        # Rounding must not decide a tie: recalls of 0, 0, 5/7 and of 0, 1/7, 4/7 differ in one bit.
        score = round(getattr(scores, monitor), 9)
        # A nan score compares as False. A nan loss would only decide a tie, but a model of nan
        # weights still has an accuracy: that of always predicting the first class.
        if not math.isnan(scores.loss) and (
            (score, -scores.loss) > (self.best_score, -self.best_loss)
        ):
            self.best_epoch, self.best_score, self.best_loss = epoch, score, scores.loss
            self.epochs_without_better = 0
            return True
        self.epochs_without_better += 1
        return False
