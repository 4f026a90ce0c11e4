"""Checks with the pretrained network: suspect labels, and whether more images would help.

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

from xception_cli.check.features import compute_features
from xception_cli.check.orientation import orientation_problem
from xception_cli.check.report import SUSPECT, ClassGain, Curve, Finding, Point, Problem
from xception_cli.check.survey import Survey
from xception_cli.console import show
from xception_cli.data.units import assign_units, number_units
from xception_cli.errors import DataError
from xception_cli.evaluation.intervals import proportion_interval
from xception_cli.model.probe import cross_validate, fit_probe, units_of_classes
from xception_cli.numerals import count_of

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Units = NDArray[np.str_]
Hits = NDArray[np.bool_]
_SEED = 0


def look_deeper(
    survey: Survey, *, weights: str, with_curve: bool, group_by: str | None = None
) -> tuple[list[Problem], Curve | None]:
    """Fit linear probes to the pooled features of a folder's images, upright and rotated.

    Args:
        survey: The scanned folder.
        weights: Weights of the network: `imagenet` or a file.
        with_curve: Also measure the learning curve.
        group_by: A regular expression that names the group of an image, see `assign_units`.

    Returns:
        Suspect labels and whether to rotate the images, and the learning curve if it was requested.

    Raises:
        UsageError: No path matches `group_by`.
        DataError: Fewer than two classes have two images or more.
        XceptionError: The weights cannot be obtained, see `load_pretrained`.
    """
    seen = [i for i, look in enumerate(survey.looks) if look.original]
    every, _ = assign_units(survey.photos(), survey.groups, group_by)
    images = [every[i] for i in seen]
    units = np.array([image.unit for image in images], np.str_)
    labels = np.array([image.label for image in images], np.int64)
    classes = survey.folder.classes
    if int((units_of_classes(labels, units, len(classes)) > 1).sum()) < 2:
        raise DataError(
            "labels cannot be compared: fewer than two classes have two different images or more",
            hint="leave --deep and --curve out",
        )
    features, rotated = compute_features(survey, seen, weights)
    probe = fit_probe(features, labels, units, class_count=len(classes), seed=_SEED)
    suspects = find_suspects(labels, probe.held_out, units)
    curve = None
    if with_curve:
        curve = learning_curve(
            features, labels, units, classes, strength=probe.strength, seed=_SEED
        )
    oriented = orientation_problem(
        features,
        rotated,
        labels,
        units,
        class_count=len(classes),
        strength=probe.strength,
        seed=_SEED,
    )
    paths = [image.path for image in images]
    problems = suspects_problem(suspects, paths, labels.tolist(), classes)
    return [*problems, *oriented], curve


# Suspect labels

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


# Whether more images help

FRACTIONS = (0.12, 0.25, 0.5, 1.0)

_GAIN = 0.03  # least gain in recall by the last doubling that makes more images worthwhile
_ENOUGH = 0.97  # recall above which more images are not needed
LARGEST_SAMPLE = 5_000  # images sampled after a training, to take seconds rather than minutes
_IMAGES = 2  # least number of images that a class must gain: one may be chance


def learning_curve(
    features: NDArray[np.float32],
    labels: Labels,
    units: Units,
    classes: Sequence[str],
    *,
    strength: float,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
) -> Curve:
    """Measure how the probe's accuracy grows with the number of images, by cross-validation.

    Args:
        features: `(n, 2048)`, pooled.
        labels: `(n,)`, class indices.
        units: `(n,)`, the unit of each image.
        classes: Class names.
        strength: Inverse regularisation that is best for all images.
        seed: Seed of the folds and fractions.
        fractions: Fractions of the images, ascending; classes are compared at the last two.
    """
    points, right = [], []
    for fraction in fractions:
        (held_out,) = cross_validate(
            features,
            labels,
            units,
            class_count=len(classes),
            seed=seed,
            strength=strength,
            fraction=fraction,
        )
        tested = ~np.isnan(held_out[:, 0])  # the same for each fraction
        right.append((held_out.argmax(axis=1) == labels)[tested])
        if tested.any():
            seen = round(0.8 * fraction * len(right[-1]))
            ends = proportion_interval(right[-1], units[tested])
            points.append(Point(fraction, seen, float(right[-1].mean()), *ends))
    half, whole = right[-2:]
    gains = _gains(half, whole, labels[tested], units[tested], classes)
    known = {gain.name for gain in gains}
    present = [classes[label] for label in np.unique(labels)]
    return Curve(tuple(points), tuple(gains), tuple(n for n in present if n not in known))


def _gains(
    half: Hits, whole: Hits, labels: Labels, units: Units, classes: Sequence[str]
) -> list[ClassGain]:
    gains = []
    for label, name in enumerate(classes):
        chosen = labels == label
        if chosen.any():
            gains.append(_gain(name, half[chosen], whole[chosen], units[chosen]))
    return gains


def _gain(name: str, half: Hits, whole: Hits, units: Units) -> ClassGain:
    """Judge a class by its correct images, with half of the training images and with all."""
    images, gained = len(units), int(whole.sum()) - int(half.sum())
    changes = np.bincount(number_units(units), whole.astype(np.int64) - half)  # per unit
    # Some of many classes gain by chance: require two standard errors, paired, by unit.
    is_clear = changes.sum() > 2 * np.sqrt((changes**2).sum())
    verdict = "unclear"
    if gained >= max(_IMAGES, _GAIN * images) and is_clear:
        verdict = "more"
    elif whole.sum() >= _ENOUGH * images or abs(gained) < _GAIN * images / 2:
        verdict = "enough"
    return ClassGain(name, int(half.sum()) / images, int(whole.sum()) / images, verdict)


def classes_to_add(
    features: NDArray[np.float32],
    labels: Labels,
    units: Units,
    classes: Sequence[str],
    *,
    strength: float,
    seed: int,
) -> list[ClassGain]:
    """Return the classes that would gain from more images, the largest gain first.

    A random sample is used if there are many images. For the arguments, see `learning_curve`.
    """
    some = np.random.default_rng(seed).permutation(len(labels))[:LARGEST_SAMPLE]
    sample = features[some], labels[some], units[some], classes
    curve = learning_curve(*sample, strength=strength, seed=seed, fractions=FRACTIONS[-2:])
    gains = [gain for gain in curve.classes if gain.verdict == "more"]
    return sorted(gains, key=lambda gain: gain.half - gain.whole)
