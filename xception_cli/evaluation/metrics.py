"""The metrics of an evaluation with their 95% intervals, and the confusion matrix."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy
from sklearn.metrics import (
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
)

from xception_cli.data.units import have_groups, number_units
from xception_cli.evaluation.confidence import calibration_error, last_of_equal
from xception_cli.evaluation.eval_report import (
    ClassMetrics,
    Confusion,
    Contaminated,
    EvalReport,
    Uncounted,
)
from xception_cli.evaluation.intervals import (
    Estimate,
    count_units,
    macro_interval,
    proportion_interval,
)
from xception_cli.evaluation.resampling import (
    FEWEST_OF_CLASS,
    FEWEST_UNITS,
    Tallies,
    average_precision_draws,
    percentile_interval,
    tally,
)
from xception_cli.evaluation.scored import Scored

TOP = 5  # the usual k of top-k accuracy
_PAIRS = 20  # most confused pairs that are listed; the confusion matrix has them all
_EPSILON = float(np.finfo(np.float64).eps)
# Probabilities that are converted to float64 at once: for many images and classes, a copy of all of
# them would be a gigabyte.
_AT_ONCE = 1_000_000


def contaminate(report: EvalReport, others: Scored, trained_on: Scored) -> EvalReport:
    """Add to a report the accuracy including images that the model was trained on."""
    both = (others, trained_on)
    hits = np.concatenate([scored.hits for scored in both])
    units = np.concatenate([scored.units for scored in both])
    counts = (len(trained_on.photos), len(hits), count_units(units), int(hits.sum()))
    return replace(report, contaminated=Contaminated(*counts, _share(hits, units)))


def measure(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    units: NDArray[np.str_],
    classes: Sequence[str],
    *,
    name: str,
    data: str = "",
    answered: NDArray[np.bool_] | None = None,
    failures: Sequence[Uncounted] = (),
) -> EvalReport:
    """Evaluate probabilities against labels.

    Args:
        labels: `(images,)`, indices of the true classes; at least one.
        probabilities: `(images, classes)`; rows sum to 1 within 1e-6.
        units: `(images,)`.
        classes: Names; two or more. A class without images has n = 0 and no metrics.
        name: See `EvalReport`.
        data: The folder.
        answered: `(images,)`, whether `--unknown auto` would answer.
        failures: Images that could not be scored.
    """
    numbers, k = number_units(units), min(TOP, len(classes))
    answers = _read_answers(labels, probabilities)
    guessed, correct = answers.guesses, answers.before == 0
    tallies = tally(labels, guessed, -np.log(_clip(answers.right, 1)), numbers, len(classes))
    ranked = average_precision_draws(labels, probabilities, answers.sums, numbers)
    confusion = confusion_matrix(labels, guessed, labels=np.arange(len(classes)))
    ranking = _average_precision(labels, probabilities, answers.sums)
    per_class = _per_class(labels, guessed, ranking, numbers, classes, tallies, ranked)
    can_resample = count_units(numbers) >= FEWEST_UNITS
    smallest = min(count_units(numbers[labels == label]) for label in np.unique(labels))
    by_class = can_resample and smallest >= FEWEST_OF_CLASS

    def resampled(value: float | None, draws: NDArray[np.float64], possible: bool) -> Any:
        ends = percentile_interval(draws) if possible else None
        return None if value is None else Estimate(value, *(ends or ()))

    recalls = _mean([row.recall for row in per_class])
    scores = {
        "weighted_f1": float(f1_score(labels, guessed, average="weighted", zero_division=0)),
        "cohen_kappa": _kappa(labels, guessed),
        "matthews": _matthews(labels, guessed),
        "log_loss": float(np.average(-xlogy(1, _clip(answers.right, 1 - _EPSILON)))),
    }
    average = _mean([row.average_precision for row in per_class])
    return EvalReport(
        name=name,
        data=data,
        images=len(labels),
        groups=count_units(numbers),
        grouped=have_groups(units),
        correct=int(correct.sum()),
        accuracy=_share(correct, numbers),
        top_k=k,
        top_k_accuracy=_share(answers.before < k, numbers) if k < len(classes) else None,
        macro_recall=Estimate(recalls, *macro_interval(correct, labels, numbers)),
        macro_f1=resampled(_mean([row.f1 for row in per_class]), tallies.macro_f1, by_class),
        **{n: resampled(value, getattr(tallies, n), can_resample) for n, value in scores.items()},
        mean_average_precision=resampled(
            average, ranked[:, np.unique(labels)].mean(axis=1), by_class
        ),
        calibration_error=Estimate(calibration_error(answers.confidences, correct)),
        **_answered(answered, correct, numbers),
        per_class=per_class,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        confused=_confused(confusion, classes),
        failures=tuple(failures),
    )


def _answered(
    answered: NDArray[np.bool_] | None, correct: NDArray[np.bool_], units: NDArray[np.int64]
) -> dict[str, Any]:
    """Measure the answers that `--unknown auto` would give, see `EvalReport`."""
    if answered is None:
        return dict.fromkeys(("answered", "answered_correct", "coverage", "answer_precision"))
    right = correct[answered]
    return {
        "answered": len(right),
        "answered_correct": int(right.sum()),
        "coverage": _share(answered, units),
        "answer_precision": _share(right, units[answered]) if len(right) else None,
    }


class _Answers(NamedTuple):
    """The prediction for each image, `(images,)` each.

    Attributes:
        guesses: The most probable class, the first of equal ones.
        before: Number of classes that are more probable than the true one, or equal and before it.
        sums: Of the probabilities, which are divided by them to add up to 1 in float64.
        confidences: Probability of the guess, after the division.
        right: Probability of the true class, after the division.
    """

    guesses: NDArray[np.int64]
    before: NDArray[np.int64]
    sums: NDArray[np.float64]
    confidences: NDArray[np.float64]
    right: NDArray[np.float64]


def _read_answers(labels: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> _Answers:
    every, parts = np.arange(probabilities.shape[1]), []
    for some in _slices(*probabilities.shape):
        rows, true = probabilities[some].astype(np.float64), labels[some, None]
        right, sums = np.take_along_axis(rows, true, axis=1), rows.sum(axis=1)
        before = (rows > right) | ((rows == right) & (every < true))
        part = (rows.argmax(axis=1), before.sum(axis=1), sums, rows.max(axis=1) / sums)
        parts.append((*part, right[:, 0] / sums))
    return _Answers(*map(np.concatenate, zip(*parts, strict=True)))


def _slices(count: int, width: int) -> Iterator[slice]:
    """Yield slices of rows that have this width."""
    step = max(1, _AT_ONCE // width)
    yield from (slice(at, at + step) for at in range(0, count, step))


def _average_precision(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    sums: NDArray[np.float64],
) -> list[float | None]:
    """Compute the average precision of each class as scikit-learn does; None without images."""
    found: list[float | None] = []
    for some in _slices(*probabilities.T.shape):
        for scores in np.ascontiguousarray(probabilities[:, some].T) / sums:
            of_class = labels == len(found)
            found.append(_rank(of_class, scores) if of_class.any() else None)
    return found


def _rank(of_class: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    order = np.argsort(-scores)
    ends = last_of_equal(scores[order])
    hits = np.cumsum(of_class[order])[ends]
    recall = np.append((hits / hits[-1])[::-1], 0.0)
    # Summed from the lowest threshold up, in scikit-learn's order.
    return max(0.0, float(-np.sum(np.diff(recall) * (hits / (ends + 1))[::-1])))


def _share(hits: NDArray[np.bool_], units: NDArray[np.int64]) -> Estimate:
    return Estimate(float(hits.mean()), *proportion_interval(hits, units))


def _clip(probabilities: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """Keep probabilities away from 0, as scikit-learn does before it takes logarithms."""
    clipped: NDArray[np.float64] = np.clip(probabilities, _EPSILON, most)
    return clipped


def _mean(estimates: Sequence[Estimate | None]) -> float:
    return float(np.mean([estimate.value for estimate in estimates if estimate is not None]))


def _kappa(labels: NDArray[np.int64], guessed: NDArray[np.int64]) -> float | None:
    if len(np.unique(np.concatenate([labels, guessed]))) == 1:  # chance would be correct as often
        return None
    return float(cohen_kappa_score(labels, guessed))


def _matthews(labels: NDArray[np.int64], guessed: NDArray[np.int64]) -> float | None:
    if np.ptp(labels) == 0 or np.ptp(guessed) == 0:
        return None
    return float(matthews_corrcoef(labels, guessed))


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
    ranking: Sequence[float | None],
    units: NDArray[np.int64],
    classes: Sequence[str],
    tallies: Tallies,
    ranked: NDArray[np.float64],
) -> tuple[ClassMetrics, ...]:
    f1, support = precision_recall_fscore_support(
        labels, guessed, labels=np.arange(len(classes)), zero_division=np.nan
    )[2:]
    rows = []
    for label, name in enumerate(classes):
        true, given = labels == label, guessed == label
        if not true.any():
            rows.append(ClassMetrics(name, 0))
            continue
        average, f1_ends, ends = ranking[label], None, None
        if count_units(units[true]) >= FEWEST_OF_CLASS:
            f1_ends = percentile_interval(tallies.f1[:, label])
            ends = percentile_interval(ranked[:, label])
        rows.append(
            ClassMetrics(
                name=name,
                n=int(support[label]),
                precision=_share(true[given], units[given]) if given.any() else None,
                recall=_share(given[true], units[true]),
                f1=Estimate(float(f1[label]), *(f1_ends or ())),
                average_precision=None if average is None else Estimate(average, *(ends or ())),
            )
        )
    return tuple(rows)
