"""Which candidate validation selects, and the correction of its accuracy for that selection.

The network at the end of fine-tuning replaces the linear probe only if its log loss is lower by
more than the standard error.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.sparse import csr_array

from xception_cli.data.units import number_units
from xception_cli.evaluation.candidates import FINAL, Candidates, read_candidates
from xception_cli.evaluation.eval_report import Corrected, EvalReport
from xception_cli.evaluation.intervals import Array, Estimate, proportion_interval
from xception_cli.evaluation.notes import VAL_NOTE, join_notes
from xception_cli.evaluation.resampling import RESAMPLES, unit_weights
from xception_cli.evaluation.scored import Scored
from xception_cli.rundir import RunDir
from xception_cli.settings import read_settings

Selector = Callable[[Array], Array]  # a candidate in each resample of `(resamples, images)`


def correct_report(run: RunDir, report: EvalReport, scored: Scored) -> EvalReport:
    """Correct a report on the run's val for having selected the run's model.

    Returns:
        The corrected report; one with a note if the run's version recorded no candidates.

    Raises:
        ArtifactError: The run's file of candidates is damaged.
    """
    every = read_candidates(run.candidates, len(scored.photos))
    monitor = read_settings(run).get("monitor", "accuracy")
    if not every.are_complete(monitor):
        return replace(report, note=join_notes(report.note, VAL_NOTE))
    kept = [at for at, photo in enumerate(scored.photos) if photo.problem is None]
    some = replace(every, predicted=every.predicted[:, kept], losses=every.losses[:, kept])
    sound = scored.sound()
    found = correct_for_selection(some, sound.labels, sound.units, monitor=monitor)
    note = VAL_NOTE if found is None and len(every.epochs) > 1 else None  # a single unit
    return replace(report, corrected=found, note=join_notes(report.note, note))


def correct_for_selection(
    candidates: Candidates, labels: Array, units: Array, *, monitor: str
) -> Corrected | None:
    """Correct the accuracy of the best candidate for having been selected on the same images.

    The bootstrap bias correction of Tsamardinos, Greasidou and Borboudakis (2018), over units: in
    each resample the best candidate is selected again, and evaluated on the units that the resample
    lacks. The mean is the corrected accuracy. Its interval is Wilson's for the actual number of
    images: the middle 95% of the resamples, each evaluated on a third of the images, would be far
    too wide (tests/evaluation/test_simulations.py).

    Args:
        candidates: One or more.
        labels: `(images,)`, true classes.
        units: `(images,)`.
        monitor: What selected the epoch: `accuracy` or `macro_recall`, with ties broken by the
            lower loss; or `last`.

    Returns:
        None if there was no choice, or if no resample lacks a unit.
    """
    count = len(candidates.epochs)
    if count < 2:
        return None
    hits = _hits(candidates, labels, monitor)
    select = _selector(candidates, labels, units, monitor)
    totals, measured = 0.0, 0
    for weights in unit_weights(units, RESAMPLES):
        best = select(weights)
        left_out = weights == 0
        images = left_out.sum(axis=1)
        right = (left_out * hits[:, best].T).sum(axis=1)
        known = images > 0
        totals += float((right[known] / images[known]).sum())
        measured += int(known.sum())
    if not measured:
        return None
    chosen = _select_once(select, len(labels))
    share = min(totals / measured, float(hits[:, chosen].mean()))  # selection only inflates it
    ends = proportion_interval(hits[:, chosen], units, share=share)
    return Corrected(count, Estimate(share, *ends))


def _hits(candidates: Candidates, labels: Array, monitor: str) -> Array:
    """Return whether each candidate is correct on each image, `(images, candidates)`, float.

    The final head is known for the selected epoch alone. For the other epochs, it is assumed to
    change the result on each image by as much.
    """
    hits: Array = (candidates.predicted == labels).T.astype(np.float64)
    if monitor == "last" or not candidates.have_epochs:
        return hits
    best = 1 + _select_once(_best_epoch(candidates, labels, monitor), len(labels))
    hits[:, 1:-1] += hits[:, -1:] - hits[:, best : best + 1]
    return hits


def select_candidate(candidates: Candidates, labels: Array, units: Array, *, monitor: str) -> int:
    """Return the index of the candidate that is kept.

    Args:
        candidates: See `correct_for_selection`, like the next two.
        labels: `(images,)`.
        units: `(images,)`.
        monitor: With `last`, the first of two is kept unless the log loss of the second is lower by
            more than its standard error.
    """
    return _select_once(_selector(candidates, labels, units, monitor), len(labels))


def _select_once(select: Selector, images: int) -> int:
    """Select a candidate on all images, each with the same weight."""
    return int(select(np.ones((1, images)))[0])


def _selector(candidates: Candidates, labels: Array, units: Array, monitor: str) -> Selector:
    """Return the function that selects a candidate."""
    if monitor == "last":
        losses = candidates.losses.T.astype(np.float64)
        return partial(_select_last, losses=losses, error=paired_gain(losses.T, units)[1])
    if not candidates.have_epochs:
        return _by_metric(candidates, labels, monitor)
    epoch = _best_epoch(candidates, labels, monitor)
    final = _by_metric(candidates.only([0, FINAL]), labels, monitor)
    return lambda weights: np.where(final(weights) == 1, 1 + epoch(weights), 0)


def _best_epoch(candidates: Candidates, labels: Array, monitor: str) -> Selector:
    """Return the function that selects an epoch, counted from 0."""
    return _by_metric(candidates.only(candidates.epochs[1:-1]), labels, monitor)


def _by_metric(candidates: Candidates, labels: Array, monitor: str) -> Selector:
    return partial(
        _select,
        hits=(candidates.predicted == labels).T.astype(np.float64),
        losses=candidates.losses.T.astype(np.float64),
        labels=labels if monitor == "macro_recall" else None,
    )


def paired_gain(losses: Array, units: Array) -> tuple[float, float]:
    """Return by how much the second of two models has a lower loss, and the standard error.

    Args:
        losses: Of both models on each image, `(2, images)`.
        units: `(images,)`; units are independent, images are not.

    Returns:
        The mean difference; and its standard error, infinite for a single unit.
    """
    gains = (losses[0] - losses[1]).astype(np.float64)
    sums = np.bincount(number_units(units), gains - gains.mean())
    if len(sums) < 2:
        return float(gains.mean()), float("inf")
    error = np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(gains)
    return float(gains.mean()), float(error)


def describe_error(error: float) -> str:
    """Describe the standard error of `paired_gain`."""
    if np.isinf(error):
        return "its standard error cannot be estimated from one group"
    return f"standard error {error:.3f}"


def _select_last(weights: Array, losses: Array, error: float) -> Array:
    """Return 1 in each resample where the second candidate is selected, else 0.

    Args:
        weights: `(resamples, images)`.
        losses: `(images, 2)`.
        error: Standard error of the difference.
    """
    gains = (weights @ (losses[:, 0] - losses[:, 1])) / weights.sum(axis=1)
    chosen: Array = (gains > error).astype(np.int64)
    return chosen


def _select(weights: Array, hits: Array, losses: Array, labels: Array | None) -> Array:
    """Return the best candidate in each resample, by a metric and then by the lower loss.

    Args:
        weights: `(resamples, images)`.
        hits: `(images, candidates)`.
        losses: `(images, candidates)`.
        labels: `(images,)`, if macro recall selects; None if accuracy does.
    """
    if labels is None:
        scores = weights @ hits
    else:
        _, numbers = np.unique(labels, return_inverse=True)
        images = _by_class(weights, np.ones(len(labels)), numbers)
        present = images > 0
        parts = (_by_class(weights, row, numbers) / np.maximum(images, 1) for row in hits.T)
        scores = np.stack([part.sum(axis=1) / present.sum(axis=1) for part in parts], axis=1)
    best = scores >= scores.max(axis=1, keepdims=True) - 1e-9
    chosen: Array = np.where(best, weights @ losses, np.inf).argmin(axis=1)
    return chosen


def _by_class(weights: Array, values: Array, numbers: Array) -> Array:
    """Sum the weighted values of each class, `(resamples, classes)`."""
    places = (np.arange(len(numbers)), numbers)
    return np.asarray(weights @ csr_array((values, places)))
