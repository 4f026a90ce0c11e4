"""Which labels are likely wrong, according to probes that were not fitted to these images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from xception_cli.check.report import Finding, Problem, count_of
from xception_cli.console import show
from xception_cli.data.fixes import SUSPECT
from xception_cli.data.folds import number_units

Floats = NDArray[np.floating[Any]]

# Images are listed from this chance of a wrong label on. tests/benchmarks/labels.py swaps 5% of the
# labels: at 0.2, only 73% of TrashNet's swaps are found; at 0.05, just a third of the images that
# are listed there are swaps.
_LEAST_CHANCE = 0.1
# Factors that the log-probabilities are tried with: probes are regularised, so most of them are
# underconfident. Steps larger than 9% list more hard images.
_SHARPNESS = 2 ** np.arange(-1, 3.01, 1 / 8)


@dataclass(frozen=True)
class Suspect:
    """An image with a suspect label.

    Attributes:
        index: Of the image.
        suggested: The class that it looks like.
        probability: Of that class, in 0..1.
        own: Probability of the class that its label names.
    """

    index: int
    suggested: int
    probability: float
    own: float


def find_suspects(
    labels: NDArray[np.int64],
    log_probabilities: Floats,
    units: NDArray[np.str_] | None = None,
) -> list[Suspect]:
    """Find labels that are likely wrong, not just images that are hard to classify.

    The label of a hard image is improbable, too, but only as often as calibrated probabilities
    predict. So the labels are modelled as drawn from the probabilities at a fitted temperature,
    except for a fitted share of wrong ones, which may be any other class (symmetric label noise,
    Patrini et al. 2017). Without an excess of improbable labels, that share is 0 and no image is
    listed.

    Args:
        labels: `(n,)`.
        log_probabilities: `(n, classes)`, of models that did not see the image; images with a row
            of nan are left out, and so are those whose label has -inf: the model did not know that
            class.
        units: `(n,)`, what each image belongs to: a unit counts once; None: each image does.

    Returns:
        The suspects, the most suspect first.
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


def _chances_of_wrong(
    labels: NDArray[np.int64], log_probabilities: Floats, weights: Floats
) -> Floats:
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
        wrong: `(n,)`, the same if it is wrong.
        weights: `(n,)`, how much each counts.

    Returns:
        The loss, and the probability of each label being wrong, `(n,)`.
    """

    def loss(share: float) -> float:
        return -float((weights * np.log((1 - share) * correct + share * wrong)).sum())

    # The loss is convex. With most labels wrong there would be nothing to compare them with.
    found = minimize_scalar(loss, bounds=(0, 0.5), method="bounded", options={"xatol": 1e-7})
    share = found.x
    return found.fun, share * wrong / ((1 - share) * correct + share * wrong)


def suspects_problem(
    suspects: Sequence[Suspect], paths: Sequence[str], labels: Sequence[int], classes: Sequence[str]
) -> list[Problem]:
    """Report likely wrong labels; no action is suggested, because a person has to decide.

    Args:
        suspects: From `find_suspects`.
        paths: Of all images that were checked.
        labels: Theirs.
        classes: Names.
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
