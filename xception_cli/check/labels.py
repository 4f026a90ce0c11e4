"""Which labels are likely wrong, by what probes say of images that they were not fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xception_cli.check.report import Finding, Problem, count_of
from xception_cli.console import show
from xception_cli.data.fixes import DOUBTFUL

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Suspect:
    """An image whose label is in doubt.

    Attributes:
        index: Of the image.
        suggested: The class that it looks like.
        probability: Of that class, in 0..1.
        own: Of the class that its label says.
    """

    index: int
    suggested: int
    probability: float
    own: float


def rank_labels(labels: NDArray[np.int64], log_probabilities: Floats) -> NDArray[np.int64]:
    """Order images by how much their labels are in doubt, the most doubtful first.

    Args:
        labels: `(n,)`.
        log_probabilities: `(n, classes)`, of models that did not see the image; rows of nan are
            images that nothing is known of, and are left out.

    Returns:
        Indices, by the margin of the label's probability over the best other one's.
    """
    known = np.flatnonzero(~np.isnan(log_probabilities[:, 0]))
    probabilities = np.exp(log_probabilities[known])
    rows = np.arange(len(known))
    own = probabilities[rows, labels[known]].copy()
    probabilities[rows, labels[known]] = -1
    return np.asarray(known[np.argsort(own - probabilities.max(axis=1), kind="stable")])


def find_suspects(labels: NDArray[np.int64], log_probabilities: Floats) -> list[Suspect]:
    """Find likely wrong labels by confident learning (Northcutt, Jiang and Chuang 2021).

    An image counts as one of class k where its probability of k is at least the mean of that among
    the images labelled k: so each class has its own idea of what is sure. Images that count as
    another class than their label says are suspects.

    Args:
        labels: `(n,)`.
        log_probabilities: See `rank_labels`.

    Returns:
        The suspects, the most doubtful label first.
    """
    probabilities = np.exp(log_probabilities)
    known = ~np.isnan(probabilities[:, 0])
    sure = np.full(probabilities.shape[1], np.inf)
    for label in np.unique(labels[known]):
        sure[label] = probabilities[known & (labels == label), label].mean()
    suspects = []
    for index in rank_labels(labels, log_probabilities).tolist():
        counted = np.where(probabilities[index] >= sure, probabilities[index], -1)
        best, own = int(counted.argmax()), float(probabilities[index, labels[index]])
        if counted[best] > max(own, 0) and best != labels[index]:
            suspects.append(Suspect(index, best, float(counted[best]), own))
    return suspects


def suspects_problem(
    suspects: Sequence[Suspect], paths: Sequence[str], labels: Sequence[int], classes: Sequence[str]
) -> list[Problem]:
    """Tell of likely wrong labels; a person has to look, so no action is suggested.

    Args:
        suspects: From `find_suspects`.
        paths: Of all images that were asked about.
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
    summary = f"{count_of(len(findings), 'label')} in doubt: pictures that look like another class"
    return [Problem(DOUBTFUL, "note", summary, findings)]
