"""Scores of a validation, and the history of them that decides which model is kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ignite.engine import Engine

from xception_cli.data.loading import PictureInputs
from xception_cli.errors import DivergedError
from xception_cli.model.features import FeatureInputs


@dataclass
class Scores:
    """What validation found.

    Attributes:
        loss: Cross-entropy.
        accuracy: Part of the images that are right.
        macro_recall: Mean recall of the classes that val has.
        recall: Of each class; None for one that val lacks.
        top_k: Of `top_k_accuracy`.
        top_k_accuracy: Part of the images whose class is among the k likeliest; None for k of 1.
    """

    loss: float
    accuracy: float
    macro_recall: float
    recall: list[float | None]
    top_k: int
    top_k_accuracy: float | None


def validate(
    evaluator: Engine,
    inputs: FeatureInputs | PictureInputs | list[object],
    support: Sequence[int],
    top_k: int,
) -> Scores:
    """Run the evaluator and read its metrics.

    Args:
        evaluator: From `create_evaluator`.
        inputs: Batches of val.
        support: Images of each class in val.
        top_k: As the evaluator was made with.

    Raises:
        DivergedError: The loss is not finite.
    """
    metrics = evaluator.run(inputs).metrics
    if not math.isfinite(metrics["loss"]):
        raise DivergedError(
            f"the loss on val is {metrics['loss']}",
            hint="a smaller --lr and --head-lr; the best model so far is kept",
        )
    recall = [
        float(value) if n else None
        for value, n in zip(metrics["recall"].tolist(), support, strict=True)
    ]
    present = [value for value in recall if value is not None]
    return Scores(
        loss=float(metrics["loss"]),
        accuracy=float(metrics["accuracy"]),
        macro_recall=sum(present) / len(present),
        recall=recall,
        top_k=top_k,
        top_k_accuracy=float(metrics["top_k_accuracy"]) if top_k > 1 else None,
    )


@dataclass
class History:
    """What training remembers between epochs; saved with the state.

    Attributes:
        best_epoch: Of the best model; 0 is the probe, -1 none yet.
        best_score: Its monitored metric.
        best_loss: Its val loss, which decides between equal scores.
        epochs_without_better: Epochs since then.
        stopped_early: Patience ran out.
        metrics_bytes: Length of metrics.jsonl.
    """

    best_epoch: int = -1
    best_score: float = float("-inf")
    best_loss: float = float("inf")
    epochs_without_better: int = 0
    stopped_early: bool = False
    metrics_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data, which has no infinity: None stands for it."""
        return {
            name: None if isinstance(value, float) and math.isinf(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "History":
        """Rebuild what `to_dict` gave."""
        return cls(**{name: value for name, value in data.items() if value is not None})

    def offer(self, epoch: int, scores: Scores, monitor: str) -> bool:
        """Take a model as the best one if it is; a tie goes to the lower val loss."""
        score = getattr(scores, monitor)
        # A nan score compares as False. A nan loss would only decide a tie, but a model of nan
        # weights still has an accuracy: that of always saying the first class.
        if not math.isnan(scores.loss) and (
            (score, -scores.loss) > (self.best_score, -self.best_loss)
        ):
            self.best_epoch, self.best_score, self.best_loss = epoch, score, scores.loss
            self.epochs_without_better = 0
            return True
        self.epochs_without_better += 1
        return False
