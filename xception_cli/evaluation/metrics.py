"""What an evaluation measures: each number with its 95 % interval, and the confusions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_recall_fscore_support,
)

from xception_cli.evaluation.calibration import calibration_error
from xception_cli.evaluation.intervals import (
    FEWEST_UNITS,
    Interval,
    Tallies,
    average_precision_draws,
    count_units,
    percentile_interval,
    proportion_interval,
    tally,
)
from xception_cli.evaluation.scored import Scored
from xception_cli.files import utf8

TOP = 5  # images whose class is among this many best guesses; the field's habit
_PAIRS = 20  # most confused pairs that are listed; the confusion matrix has them all


@dataclass(frozen=True)
class ClassMetrics:
    """How one class fared; what cannot be measured is None.

    `_low` and `_high` are the ends of the 95% interval: Wilson's, of f1 and average precision the
    bootstrap's, see `intervals`.

    Attributes:
        name: The class.
        n: Its images (the support).
        precision: Part of the images given this class that are of it; None if none was given it.
        precision_low: Its interval's lower end, as for the following.
        precision_high: Its upper end.
        recall: Part of its images that were recognised.
        recall_low: Lower end.
        recall_high: Upper end.
        f1: Harmonic mean of precision and recall.
        f1_low: Lower end.
        f1_high: Upper end.
        average_precision: Area under the curve of precision over recall, by this class's
            probability.
        average_precision_low: Lower end.
        average_precision_high: Upper end.
    """

    name: str
    n: int
    precision: float | None = None
    precision_low: float | None = None
    precision_high: float | None = None
    recall: float | None = None
    recall_low: float | None = None
    recall_high: float | None = None
    f1: float | None = None
    f1_low: float | None = None
    f1_high: float | None = None
    average_precision: float | None = None
    average_precision_low: float | None = None
    average_precision_high: float | None = None


@dataclass(frozen=True)
class Confusion:
    """One class taken for another.

    Attributes:
        true: What the images show.
        predicted: What they were taken for.
        n: How many.
        part: Of the images of the true class.
    """

    true: str
    predicted: str
    n: int
    part: float


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
class Contaminated:
    """What accuracy would be together with images that the model was trained on.

    Attributes:
        trained_on: How many images it was trained on, or near-copies of; they count nowhere else.
        images: With these.
        groups: Units that these belong to.
        correct: How many of all were recognised.
        accuracy: Part of them.
        accuracy_low: Lower end of its 95% interval.
        accuracy_high: Upper end.
    """

    trained_on: int
    images: int
    groups: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True)
class Corrected:
    """Validation accuracy, corrected for having selected the model by it.

    Attributes:
        candidates: How many models the selection was among.
        accuracy: What the selected model is expected to have on new images.
        accuracy_low: Lower end of its 95% interval.
        accuracy_high: Upper end.
    """

    candidates: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True)
class EvalReport:
    """What was measured on one set of images; parts are in 0..1.

    Attributes:
        name: The split, or the name of the folder.
        data: The data folder as it was given; never an absolute path.
        images: Images that were scored.
        groups: Units that these belong to; as many as images where none has company.
        correct: How many of them were recognised.
        accuracy: Part of them (top-1).
        accuracy_low: Lower end of its 95% interval.
        accuracy_high: Upper end.
        top_k: k of `top_k_accuracy`: 5, or the number of classes if that is less.
        top_k_accuracy: Part whose class is among the k best guesses; None where every class is.
        macro_recall: Mean recall of the classes that have images (balanced accuracy).
        macro_f1: Mean F1 of the classes that have images.
        weighted_f1: The same, each class weighted by its images.
        cohen_kappa: How much better than chance: 0 is chance, 1 is perfect; None if undefined.
        matthews: Matthews correlation of classes and guesses; None if either is always the same.
        mean_average_precision: Mean of the classes' average precision.
        log_loss: Mean negative logarithm of the right class's probability, in nats.
        calibration_error: Expected calibration error: mean gap between the best class's
            probability and how often it is right.
        answered: Images that `predict --unknown auto` would answer; None if the model has no rule.
        answered_correct: How many of these answers are right.
        intervals: 95% intervals of the numbers above by their names (of `answered` as a share of
            the images, of `answered_correct` as a share of the answers); None where resampling says
            nothing, for instance when every image is right.
        per_class: One for each class of the model, in its order.
        confusion: Counts by true class (row) and predicted class (column).
        confused: The most confused pairs of classes, the most frequent first.
        failures: Images that could not be scored.
        note: What the reader must know about these numbers.
        contaminated: What they would be with the images that the model was trained on; None if
            there are none.
        corrected: The accuracy where these images selected the model; None where they did not.
    """

    name: str
    data: str
    images: int
    groups: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    top_k: int
    top_k_accuracy: float | None
    macro_recall: float
    macro_f1: float
    weighted_f1: float
    cohen_kappa: float | None
    matthews: float | None
    mean_average_precision: float
    log_loss: float
    calibration_error: float
    answered: int | None
    answered_correct: int | None
    intervals: Mapping[str, Interval | None]
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    confused: tuple[Confusion, ...] = ()
    failures: tuple[EvalFailure, ...] = ()
    note: str | None = None
    contaminated: Contaminated | None = None
    corrected: Corrected | None = None

    @property
    def expected(self) -> float:
        """Accuracy to expect on new images like these."""
        return self.accuracy if self.corrected is None else self.corrected.accuracy

    def to_dict(self) -> dict[str, Any]:
        r"""Return plain data that JSON can hold; names that are not UTF-8 are written `\xNN`."""
        data = asdict(self)
        data["name"], data["data"] = utf8(self.name), utf8(self.data)
        data["per_class"] = [{**row, "name": utf8(row["name"])} for row in data["per_class"]]
        data["failures"] = [{name: utf8(v) for name, v in f.items()} for f in data["failures"]]
        data["confusion"] = [list(row) for row in self.confusion]
        data["confused"] = [
            {**pair, "true": utf8(pair["true"]), "predicted": utf8(pair["predicted"])}
            for pair in data["confused"]
        ]
        data["intervals"] = {
            name: None if ends is None else list(ends) for name, ends in self.intervals.items()
        }
        return data


def join_notes(*notes: str | None) -> str | None:
    """Join what a reader must know; None if that is nothing."""
    return "; ".join(note for note in notes if note) or None


def contaminate(report: EvalReport, others: Scored, trained_on: Scored) -> EvalReport:
    """Add to a report what accuracy would be together with images that the model was trained on.

    Args:
        report: Of the others.
        others: These, as far as they were scored.
        trained_on: Images that the model was trained on, as far as they were scored.
    """
    both = (others, trained_on)
    hits = np.concatenate([scored.guesses == scored.labels for scored in both])
    units = np.concatenate([scored.units for scored in both])
    low, high = proportion_interval(hits, units)
    found = Contaminated(
        len(trained_on.photos), len(hits), count_units(units), int(hits.sum()),
        float(hits.mean()), low, high,
    )  # fmt: skip
    return replace(report, contaminated=found)


def measure(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    units: NDArray[np.str_],
    classes: Sequence[str],
    *,
    name: str,
    data: str = "",
    answered: NDArray[np.bool_] | None = None,
    failures: Sequence[EvalFailure] = (),
    note: str | None = None,
) -> EvalReport:
    """Measure how well probabilities fit labels.

    Args:
        labels: `(images,)`, indices of the true classes; at least one.
        probabilities: `(images, classes)`; rows sum to 1.
        units: `(images,)`, what each belongs to.
        classes: Names; two or more. A class without images has n = 0 and no numbers.
        name: See `EvalReport`, as for the following.
        data: The folder.
        answered: `(images,)`, whether `--unknown auto` would answer.
        failures: Images that could not be scored.
        note: What the reader must know.
    """
    # The first of equal probabilities wins, in the guess and among the k best alike.
    guesses = np.argsort(-probabilities, axis=1, kind="stable")
    hits, guessed = guesses == labels[:, None], guesses[:, 0]
    correct, k, every = int(hits[:, 0].sum()), min(TOP, len(classes)), np.arange(len(classes))
    # float32 rows sum to 1 within 1e-7; scikit-learn wants it closer.
    exact = probabilities / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    tallies = tally(labels, guessed, _losses(labels, exact), units, len(classes))
    ranked = average_precision_draws(labels, exact, units)
    confusion = confusion_matrix(labels, guessed, labels=every)
    per_class = _per_class(labels, guessed, exact, units, classes, tallies, ranked)
    present = np.unique(labels)
    accuracy_low, accuracy_high = proportion_interval(hits[:, 0], units)
    in_top = hits[:, :k].any(axis=1) if k < len(classes) else None
    intervals = {
        "top_k_accuracy": None if in_top is None else proportion_interval(in_top, units),
        "mean_average_precision": percentile_interval(ranked[:, present].mean(axis=1))
        if len(ranked)
        else None,
    }
    for statistic in _RESAMPLED:
        intervals[statistic] = percentile_interval(getattr(tallies, statistic))
    if count_units(units) < min(FEWEST_UNITS, len(labels)):
        intervals = dict.fromkeys(intervals) | {"top_k_accuracy": intervals["top_k_accuracy"]}
    if answered is not None:
        intervals["answered"] = proportion_interval(answered, units)
        some = hits[answered, 0]
        intervals["answered_correct"] = (
            proportion_interval(some, units[answered]) if len(some) else None
        )
    return EvalReport(
        name=name,
        data=data,
        images=len(labels),
        groups=count_units(units),
        correct=correct,
        accuracy=correct / len(labels),
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        top_k=k,
        top_k_accuracy=None if in_top is None else int(in_top.sum()) / len(labels),
        macro_recall=_mean([row.recall for row in per_class]),
        macro_f1=_mean([row.f1 for row in per_class]),
        weighted_f1=float(f1_score(labels, guessed, average="weighted", zero_division=0)),
        cohen_kappa=_kappa(labels, guessed),
        matthews=None
        if len(present) == 1 or np.ptp(guessed) == 0
        else float(matthews_corrcoef(labels, guessed)),
        mean_average_precision=_mean([row.average_precision for row in per_class]),
        log_loss=float(log_loss(labels, exact, labels=every)),
        calibration_error=calibration_error(exact, labels),
        answered=None if answered is None else int(answered.sum()),
        answered_correct=None if answered is None else int((answered & hits[:, 0]).sum()),
        intervals=intervals,
        per_class=per_class,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        confused=_confused(confusion, classes),
        failures=tuple(failures),
        note=note,
    )


_RESAMPLED = ("macro_recall", "macro_f1", "weighted_f1", "cohen_kappa", "matthews", "log_loss")


def _losses(labels: NDArray[np.int64], exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what each image adds to the log loss, clipped as scikit-learn clips."""
    right = exact[np.arange(len(labels)), labels]
    losses: NDArray[np.float64] = -np.log(np.clip(right, np.finfo(np.float64).eps, 1))
    return losses


def _mean(values: Sequence[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


def _kappa(labels: NDArray[np.int64], guessed: NDArray[np.int64]) -> float | None:
    if len(np.unique(np.concatenate([labels, guessed]))) == 1:  # chance would be right as often
        return None
    return float(cohen_kappa_score(labels, guessed))


def _confused(confusion: NDArray[np.int64], classes: Sequence[str]) -> tuple[Confusion, ...]:
    totals = confusion.sum(axis=1)
    pairs = []
    for row, column in np.argwhere(confusion):
        if row != column:
            n = int(confusion[row, column])
            pairs.append(Confusion(classes[row], classes[column], n, float(n / totals[row])))
    return tuple(sorted(pairs, key=lambda pair: (-pair.n, -pair.part))[:_PAIRS])


def _per_class(
    labels: NDArray[np.int64],
    guessed: NDArray[np.int64],
    exact: NDArray[np.float64],
    units: NDArray[np.str_],
    classes: Sequence[str],
    tallies: Tallies,
    ranked: NDArray[np.float64],
) -> tuple[ClassMetrics, ...]:
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, guessed, labels=np.arange(len(classes)), zero_division=np.nan
    )
    rows = []
    for label, name in enumerate(classes):
        true, given = labels == label, guessed == label
        n = int(support[label])
        if n == 0:
            rows.append(ClassMetrics(name, 0))
            continue
        precision_low, precision_high = (
            proportion_interval(true[given], units[given]) if given.any() else (None, None)
        )
        recall_low, recall_high = proportion_interval(given[true], units[true])
        f1_low, f1_high = percentile_interval(tallies.f1[:, label]) or (None, None)
        average_low, average_high = percentile_interval(ranked[:, label]) or (None, None)
        rows.append(
            ClassMetrics(
                name=name,
                n=n,
                precision=float(precision[label]) if given.any() else None,
                precision_low=precision_low,
                precision_high=precision_high,
                recall=float(recall[label]),
                recall_low=recall_low,
                recall_high=recall_high,
                f1=float(f1[label]),
                f1_low=f1_low,
                f1_high=f1_high,
                average_precision=float(average_precision_score(true, exact[:, label])),
                average_precision_low=average_low,
                average_precision_high=average_high,
            )
        )
    return tuple(rows)
