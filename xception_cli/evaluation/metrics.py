"""What an evaluation measures: accuracy and recall with their intervals, and the confusions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from xception_cli.files import utf8

TOP = 5  # images whose class is among this many best guesses; the field's habit


@dataclass(frozen=True)
class ClassMetrics:
    """How one class fared; what cannot be measured is None.

    Attributes:
        name: The class.
        n: Its images (the support).
        precision: Part of the images given this class that are of it; None if none was given it.
        recall: Part of its images that were recognised.
        recall_low: Lower end of the 95 % Wilson interval of recall.
        recall_high: Upper end.
        f1: Harmonic mean of precision and recall.
    """

    name: str
    n: int
    precision: float | None
    recall: float | None
    recall_low: float | None
    recall_high: float | None
    f1: float | None


@dataclass(frozen=True)
class EvalFailure:
    """An image that could not be scored.

    Attributes:
        path: Relative to the data folder.
        reason: Why.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class EvalReport:
    """What was measured on one set of images; parts are in 0..1.

    Attributes:
        name: The split, or the name of the folder.
        data: The data folder as it was given; never an absolute path.
        images: Images that were scored.
        correct: How many of them were recognised.
        accuracy: Part of them (top-1).
        accuracy_low: Lower end of its 95 % Wilson interval.
        accuracy_high: Upper end.
        top_k: k of `top_k_accuracy`: 5, or the number of classes if that is less.
        top_k_accuracy: Part whose class is among the k best guesses; None where every class is.
        macro_recall: Mean recall of the classes that have images.
        log_loss: Mean negative logarithm of the right class's probability, in nats.
        per_class: One for each class of the model, in its order.
        confusion: Counts by true class (row) and predicted class (column).
        failures: Images that could not be scored.
        note: What the reader must know about these numbers.
    """

    name: str
    data: str
    images: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    top_k: int
    top_k_accuracy: float | None
    macro_recall: float
    log_loss: float
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    failures: tuple[EvalFailure, ...] = ()
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        r"""Return plain data that JSON can hold; names that are not UTF-8 are written `\xNN`."""
        data = asdict(self)
        data["name"], data["data"] = utf8(self.name), utf8(self.data)
        data["per_class"] = [{**row, "name": utf8(row["name"])} for row in data["per_class"]]
        data["failures"] = [{name: utf8(v) for name, v in f.items()} for f in data["failures"]]
        data["confusion"] = [list(row) for row in self.confusion]
        return data


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a proportion (Wilson 1927); `trials` is over 0."""
    interval = binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def measure(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    classes: Sequence[str],
    *,
    name: str,
    data: str = "",
    failures: Sequence[EvalFailure] = (),
    note: str | None = None,
) -> EvalReport:
    """Measure how well probabilities fit labels.

    Args:
        labels: `(images,)`, indices of the true classes; at least one.
        probabilities: `(images, classes)`; rows sum to 1.
        classes: Names; two or more. A class without images has n = 0 and no numbers.
        name: See `EvalReport`, as for the following.
        data: The folder.
        failures: Images that could not be scored.
        note: What the reader must know.
    """
    # The first of equal probabilities wins, in the guess and among the k best alike.
    guesses = np.argsort(-probabilities, axis=1, kind="stable")
    hits = guesses == labels[:, None]
    correct, k = int(hits[:, 0].sum()), min(TOP, len(classes))
    accuracy_low, accuracy_high = wilson_interval(correct, len(labels))
    per_class = _per_class(labels, guesses[:, 0], classes)
    recalls = [row.recall for row in per_class if row.recall is not None]
    every = np.arange(len(classes))
    confusion = confusion_matrix(labels, guesses[:, 0], labels=every).tolist()
    # float32 rows sum to 1 within 1e-7; scikit-learn wants it closer.
    exact = probabilities / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    return EvalReport(
        name=name,
        data=data,
        images=len(labels),
        correct=correct,
        accuracy=correct / len(labels),
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        top_k=k,
        top_k_accuracy=float(hits[:, :k].any(axis=1).mean()) if k < len(classes) else None,
        macro_recall=float(np.mean(recalls)),
        log_loss=float(log_loss(labels, exact, labels=every)),
        per_class=per_class,
        confusion=tuple(tuple(row) for row in confusion),
        failures=tuple(failures),
        note=note,
    )


def _per_class(
    labels: NDArray[np.int64], guessed: NDArray[np.int64], classes: Sequence[str]
) -> tuple[ClassMetrics, ...]:
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, guessed, labels=np.arange(len(classes)), zero_division=np.nan
    )
    rows = []
    for label, name in enumerate(classes):
        n = int(support[label])
        if n == 0:
            rows.append(ClassMetrics(name, 0, None, None, None, None, None))
            continue
        recognised = int(np.sum((labels == label) & (guessed == label)))
        never_guessed = np.isnan(precision[label])
        rows.append(
            ClassMetrics(
                name,
                n,
                None if never_guessed else float(precision[label]),
                float(recall[label]),
                *wilson_interval(recognised, n),
                float(f1[label]),
            )
        )
    return tuple(rows)
