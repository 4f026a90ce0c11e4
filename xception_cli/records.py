"""Records: rows of metrics.jsonl, and nested entries of run.json and result.json."""

from dataclasses import dataclass
from typing import NotRequired, TypedDict


@dataclass
class Scores:
    """Validation scores.

    Attributes:
        loss: Cross-entropy.
        accuracy: Fraction of the images classified correctly.
        macro_recall: Mean recall of the classes in val.
        recall: Recall of each class; None for a class without validation images.
        top_k: The k of `top_k_accuracy`.
        top_k_accuracy: Fraction of images whose class is among the k most probable; None if k is 1.
    """

    loss: float
    accuracy: float
    macro_recall: float
    recall: list[float | None]
    top_k: int
    top_k_accuracy: float | None


class CalibrationFound(TypedDict):
    """Results of calibration that are read again; see `evaluation.calibration`."""

    temperature: float
    fitted_temperature: NotRequired[float]
    target_precision: NotRequired[float]
    confidence: NotRequired[float | None]
    precision_confidence: NotRequired[float]


class Gain(TypedDict):
    """A class that more images are likely to help: its recall with half of them and with all."""

    name: str
    half: float
    whole: float


class Decision(TypedDict):
    """A decision of a time budget, when it was made, and why."""

    after: str
    views: int
    epochs: int
    why: str


class BudgetRecord(TypedDict):
    """The clock of a run with a time budget, in seconds; see `training.budget`."""

    budget: float
    spent: float
    evaluation: float
    epoch: float
    decisions: list[Decision]


class EpochMetrics(TypedDict):
    """The plotted metrics of an epoch; a row of metrics.jsonl has more."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    accuracy: float
