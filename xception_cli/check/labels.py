"""Suspect labels: images whose class a linear probe finds improbable.

The model of label noise is ours: in simulated sets without wrong labels, confident learning
(Northcutt et al. 2021, cleanlab) lists 5% of the images, this model 0.1%
(tests/benchmarks/labels.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from xception_cli.check.report import SUSPECT, UNJUDGED, Finding, Problem
from xception_cli.check.shape import FEW
from xception_cli.console import NAMED, enumerated, show
from xception_cli.data.units import number_units
from xception_cli.model.probe import units_of_classes
from xception_cli.numerals import count_of

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Units = NDArray[np.str_]

# Minimum probability of a wrong label to list an image. Measured in tests/benchmarks/labels.py with
# 5% of the labels swapped: at 0.2, only 73% of TrashNet's swaps are found; at 0.05, only a third of
# the listed images are swaps.
_LEAST_CHANCE = 0.1
# Scaling factors of the log-probabilities. Probes are regularised, so most of them are
# underconfident. Steps larger than 9% list more hard images.
_SHARPNESS = 2 ** np.arange(-1, 3.01, 1 / 8)


@dataclass(frozen=True)
class Suspect:
    """An image with a suspect label.

    Attributes:
        index: Index of the image.
        suggested: Index of the most likely class.
        probability: Probability of that class, in 0..1.
        own: Probability of the class that it is labelled with.
    """

    index: int
    suggested: int
    probability: float
    own: float


def judge_labels(
    labels: Labels,
    log_probabilities: Floats,
    units: Units,
    paths: Sequence[str],
    classes: Sequence[str],
) -> list[Problem]:
    """Report suspect labels, and the classes whose labels cannot be judged.

    The probe that judges an image of a class has seen the class's other images. If those are few,
    it finds all of them improbable, which shows nothing about the labels. From ten images on, more
    images change that little (tests/benchmarks/rare_labels.py).

    Args:
        labels: See `find_suspects`, like the next two.
        log_probabilities: `(n, classes)`.
        units: `(n,)`.
        paths: `(n,)`, paths of the images.
        classes: Class names.
    """
    counts = units_of_classes(labels, units, len(classes))
    few = (counts > 0) & (counts < FEW)
    judged = np.where(few[labels][:, None], np.nan, log_probabilities)
    suspects = find_suspects(labels, judged, units)
    problems = suspects_problem(suspects, paths, labels.tolist(), classes)
    unjudged = np.flatnonzero(few).tolist()
    if unjudged:
        listed = enumerated([f"{classes[at]} ({counts[at]})" for at in unjudged])
        sentence = f"{listed}: labels cannot be judged, with fewer than {FEW} different images"
        named = tuple(classes[at] for at in unjudged) if len(unjudged) > NAMED + 1 else ()
        problems.append(Problem(UNJUDGED, "note", sentence, classes=named))
    return problems


def find_suspects(
    labels: Labels,
    log_probabilities: Floats,
    units: Units | None = None,
) -> list[Suspect]:
    """Find labels that are likely wrong, as opposed to images that are hard to classify.

    The label of a hard image is improbable, too, but only as often as calibrated probabilities
    predict. So labels are modelled as samples of the probabilities at a fitted temperature, except
    for a fitted share of wrong ones, which may be any other class (symmetric label noise, Patrini
    et al. 2017). Without an excess of improbable labels, that share is 0 and no image is listed.

    Args:
        labels: `(n,)`, class indices.
        log_probabilities: `(n, classes)`, from models that were not fitted to the image. Rows of
            nan are skipped, and so are images whose label has -inf: the model did not have that
            class.
        units: `(n,)`, the unit of each image, which counts once; None: each image is a unit.

    Returns:
        The suspects, the most likely wrong first.
    """
    own = log_probabilities[np.arange(len(labels)), labels]
    known = np.flatnonzero(np.isfinite(own))
    if len(np.unique(labels[known])) < 2:
        return []
    numbers = known if units is None else number_units(units[known])
    weights = 1 / np.bincount(numbers)[numbers]
    chances = _chances_of_wrong(labels[known], log_probabilities[known].astype(np.float64), weights)
    suspects = []
    for at in np.argsort(-chances, kind="stable"):
        index = int(known[at])
        probabilities = np.exp(log_probabilities[index])
        best = int(probabilities.argmax())
        if chances[at] >= _LEAST_CHANCE and best != labels[index]:
            suspect = Suspect(index, best, float(probabilities[best]), float(np.exp(own[index])))
            suspects.append(suspect)
    return suspects


def _chances_of_wrong(labels: Labels, log_probabilities: Floats, weights: Floats) -> Floats:
    """Return each label's probability of being wrong, `(n,)`, at the best temperature."""
    rows, others = np.arange(len(labels)), len(np.unique(labels)) - 1
    fits = []
    for sharpness in _SHARPNESS:
        correct = softmax(sharpness * log_probabilities, axis=1)[rows, labels]
        fits.append(_fit_share(correct, (1 - correct) / others, weights))
    return min(fits, key=lambda fit: fit[0])[1]


def _fit_share(correct: Floats, wrong: Floats, weights: Floats) -> tuple[float, Floats]:
    """Fit the share of wrong labels by maximum likelihood.

    Args:
        correct: `(n,)`, the probability of each label if it is correct.
        wrong: `(n,)`, its probability if it is wrong.
        weights: `(n,)`, the weight of each label.

    Returns:
        The loss, and the probability of each label being wrong, `(n,)`.
    """

    def loss(share: float) -> float:
        return -float((weights * np.log((1 - share) * correct + share * wrong)).sum())

    # The loss is convex. If most labels could be wrong, no class would be identifiable.
    found = minimize_scalar(loss, bounds=(0, 0.5), method="bounded", options={"xatol": 1e-7})
    share = found.x
    return found.fun, share * wrong / ((1 - share) * correct + share * wrong)


def suspects_problem(
    suspects: Sequence[Suspect], paths: Sequence[str], labels: Sequence[int], classes: Sequence[str]
) -> list[Problem]:
    """Report likely wrong labels; no action is suggested, because a person has to decide.

    Args:
        suspects: From `find_suspects`.
        paths: Paths of all images that were checked.
        labels: Class indices of these images.
        classes: Class names.
    """
    findings = tuple(
        Finding(
            paths[suspect.index],
            f"looks like {show(classes[suspect.suggested])} ({suspect.probability:.0%}), not "
            f"{show(classes[labels[suspect.index]])} ({suspect.own:.0%})",
            label=classes[suspect.suggested],
        )
        for suspect in suspects
    )
    if not findings:
        return []
    count = count_of(len(findings), "suspect label")
    summary = f"{count} (hard images with correct labels are listed too)"
    return [Problem(SUSPECT, "note", summary, findings)]
