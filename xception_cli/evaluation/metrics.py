"""What an evaluation measures: each number with its 95% interval, and the confusion matrix."""

from collections.abc import Sequence
from dataclasses import replace
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
from xception_cli.evaluation.eval_report import (
    ClassMetrics,
    Confusion,
    Contaminated,
    EvalFailure,
    EvalReport,
)
from xception_cli.evaluation.intervals import (
    FEWEST_UNITS,
    Estimate,
    Tallies,
    average_precision_draws,
    count_units,
    percentile_interval,
    proportion_interval,
    tally,
)
from xception_cli.evaluation.scored import Scored

TOP = 5  # images whose class is among this many best guesses; the field's habit
_PAIRS = 20  # most confused pairs that are listed; the confusion matrix has them all


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
    correct, k, every = hits[:, 0], min(TOP, len(classes)), np.arange(len(classes))
    # float32 rows sum to 1 within 1e-7; scikit-learn wants it closer.
    exact = probabilities / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    tallies = tally(labels, guessed, _losses(labels, exact), units, len(classes))
    ranked = average_precision_draws(labels, exact, units)
    confusion = confusion_matrix(labels, guessed, labels=every)
    per_class = _per_class(labels, guessed, exact, units, classes, tallies, ranked)
    can_resample = count_units(units) >= min(FEWEST_UNITS, len(labels))

    def resampled(value: float | None, draws: NDArray[np.float64]) -> Any:
        ends = percentile_interval(draws) if can_resample and len(draws) else None
        return None if value is None else Estimate(value, *(ends or ()))

    scores = {
        "macro_recall": _mean([row.recall for row in per_class]),
        "macro_f1": _mean([row.f1 for row in per_class]),
        "weighted_f1": float(f1_score(labels, guessed, average="weighted", zero_division=0)),
        "cohen_kappa": _kappa(labels, guessed),
        "matthews": _matthews(labels, guessed),
        "log_loss": float(log_loss(labels, exact, labels=every)),
    }
    average = _mean([row.average_precision for row in per_class])
    return EvalReport(
        name=name,
        data=data,
        images=len(labels),
        groups=count_units(units),
        correct=int(correct.sum()),
        accuracy=_share(correct, units),
        top_k=k,
        top_k_accuracy=_share(hits[:, :k].any(axis=1), units) if k < len(classes) else None,
        **{n: resampled(value, getattr(tallies, n)) for n, value in scores.items()},
        mean_average_precision=resampled(average, ranked[:, np.unique(labels)].mean(axis=1)),
        calibration_error=Estimate(calibration_error(exact, labels)),
        answered=None if answered is None else int(answered.sum()),
        answered_correct=None if answered is None else int((answered & correct).sum()),
        coverage=None if answered is None else _share(answered, units),
        answer_precision=None
        if answered is None or not answered.any()
        else _share(correct[answered], units[answered]),
        per_class=per_class,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        confused=_confused(confusion, classes),
        failures=tuple(failures),
        note=note,
    )


def _share(hits: NDArray[np.bool_], units: NDArray[np.str_]) -> Estimate:
    return Estimate(float(hits.mean()), *proportion_interval(hits, units))


def _losses(labels: NDArray[np.int64], exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what each image adds to the log loss, clipped as scikit-learn clips."""
    right = exact[np.arange(len(labels)), labels]
    losses: NDArray[np.float64] = -np.log(np.clip(right, np.finfo(np.float64).eps, 1))
    return losses


def _mean(estimates: Sequence[Estimate | None]) -> float:
    return float(np.mean([estimate.value for estimate in estimates if estimate is not None]))


def _kappa(labels: NDArray[np.int64], guessed: NDArray[np.int64]) -> float | None:
    if len(np.unique(np.concatenate([labels, guessed]))) == 1:  # chance would be right as often
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
    exact: NDArray[np.float64],
    units: NDArray[np.str_],
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
        average = float(average_precision_score(true, exact[:, label]))
        rows.append(
            ClassMetrics(
                name=name,
                n=int(support[label]),
                precision=_share(true[given], units[given]) if given.any() else None,
                recall=_share(given[true], units[true]),
                f1=Estimate(float(f1[label]), *(percentile_interval(tallies.f1[:, label]) or ())),
                average_precision=Estimate(average, *(percentile_interval(ranked[:, label]) or ())),
            )
        )
    return tuple(rows)
