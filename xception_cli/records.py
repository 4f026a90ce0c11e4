"""Records: rows of metrics.jsonl, and entries inside of entries of run.json and result.json."""

from dataclasses import dataclass
from typing import NotRequired, TypedDict


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


class CalibrationFound(TypedDict):
    """What calibration found, as far as it is read again; see `evaluation.calibration`."""

    temperature: float
    target_precision: NotRequired[float]
    confidence: NotRequired[float | None]
    precision_confidence: NotRequired[float]


class Gain(TypedDict):
    """A class that more images are likely to help: its recall with half of them, and with all."""

    name: str
    half: float
    whole: float


class Decision(TypedDict):
    """What a time budget decided, after what, and why."""

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
    """What is drawn of an epoch; a row of metrics.jsonl has more."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    accuracy: float
