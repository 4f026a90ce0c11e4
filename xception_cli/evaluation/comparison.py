"""Comparison: two runs on the same images, where they differ, and whether it could be chance."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet
from scipy.stats import norm

from xception_cli.console import show
from xception_cli.data.units import number_units
from xception_cli.errors import UsageError
from xception_cli.evaluation.common_evaluation import different_splits, read_comparable
from xception_cli.evaluation.intervals import (
    Estimate,
    Interval,
    count_units,
    design_effect,
    proportion_interval,
)
from xception_cli.evaluation.scored import Scored, read_scored
from xception_cli.evaluation.selection import HELD_OUT
from xception_cli.rundir import RunDir


@dataclass(frozen=True)
class ClassChange:
    """The correct answers of both runs for one class.

    Attributes:
        name: The class.
        n: Number of its images that both runs scored.
        first: Correct answers of the first run.
        second: Correct answers of the second run.
    """

    name: str
    n: int
    first: int
    second: int


@dataclass(frozen=True)
class ImageChange:
    """An image that the runs answer differently.

    Attributes:
        path: Its path in the second run.
        true: Its class.
        first: The first run's answer.
        second: The second run's answer.
        change: `gained` or `lost` by the second run; `other` if both are wrong.
    """

    path: str
    true: str
    first: str
    second: str
    change: str


@dataclass(frozen=True)
class Comparison:
    """Two runs on the images that both scored, matched by content.

    Attributes:
        first: The run that is compared with.
        second: The run that is compared.
        name: The evaluation, such as `val`.
        images: Number of matched images.
        groups: Number of their units, with the units of both runs joined.
        unmatched: Number of images that only one of them scored.
        first_correct: Correct answers of the first run.
        first_interval: The 95% interval of its accuracy.
        second_correct: Correct answers of the second run.
        second_interval: The 95% interval of its accuracy.
        gained: Correct in the second run only.
        lost: Correct in the first run only.
        difference: Of the accuracies, second minus first, in -1..1.
        difference_low: Lower end of its 95% interval (Bonett and Price 2012, of effective images).
        difference_high: Upper end.
        p_value: Of the exact sign-flip permutation test over units. If each image is a unit, this
            is McNemar's exact test (1947).
        p_corrected: The same, corrected for the number of compared runs (Holm 1979).
        classes: One for each class of both, in order.
        changed: Every image with different answers.
        only_first: Classes of the first run only: their images do not count, but it may answer
            with one of them.
        only_second: Classes of the second run only.
    """

    first: str
    second: str
    name: str
    images: int
    groups: int
    unmatched: int
    first_correct: int
    first_interval: Interval
    second_correct: int
    second_interval: Interval
    gained: int
    lost: int
    difference: float
    difference_low: float
    difference_high: float
    p_value: float
    p_corrected: float
    classes: tuple[ClassChange, ...]
    changed: tuple[ImageChange, ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()

    @property
    def accuracies(self) -> tuple[Estimate, Estimate]:
        """The accuracy of the first and of the second run."""
        return (
            Estimate(self.first_correct / self.images, *self.first_interval),
            Estimate(self.second_correct / self.images, *self.second_interval),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return asdict(self)


def compare_runs(first: RunDir, second: RunDir, name: str) -> Comparison:
    """Compare two runs on the images that both scored, of the classes in common.

    Each answers among all of its own classes, as in use.

    Args:
        first: The run to compare with.
        second: The run to compare.
        name: The evaluation, a folder of `eval/` in the first; see `read_comparable`.

    Raises:
        UsageError: They have no such evaluation, no class or no scored image in common.
        ArtifactError: A file of an evaluation is damaged, or from an earlier version.
    """
    one = read_scored(first, name)
    other = read_comparable(second, name, first, one)
    common = [name for name in other.classes if name in one.classes]
    if not common:
        raise UsageError(
            f"{show(first.path)} and {show(second.path)} have no class in common, and cannot be "
            "compared",
            hint="compare runs that share class folders",
        )
    before, after = (_answers(scored, set(common)) for scored in (one, other))
    if not before.keys() & after.keys():
        reason, train, evaluate = different_splits(first, second)
        raise UsageError(
            f"{show(first.path)} and {show(second.path)} have no image of {show(name)} in common"
            f"{f': {reason}' * (name in HELD_OUT)}",
            hint=f"evaluate both on one folder: {evaluate}"
            + f"; or give them one split: {train}" * (name in HELD_OUT and bool(train)),
        )
    return replace(
        _compare(first, second, name, common, before, after),
        only_first=tuple(name for name in one.classes if name not in common),
        only_second=tuple(name for name in other.classes if name not in common),
    )


class _Answer(NamedTuple):
    path: str
    predicted: str
    unit: str


_Answers = Mapping[tuple[str, str], _Answer]


def _answers(scored: Scored, known: AbstractSet[str]) -> _Answers:
    """Return the answers by `(digest, true class)`, for known classes and the first of copies."""
    answers: dict[tuple[str, str], _Answer] = {}
    for photo, guess in zip(scored.photos, scored.guesses, strict=True):
        if photo.digest and scored.classes[photo.label] in known:
            key = (photo.digest, scored.classes[photo.label])
            answers.setdefault(key, _Answer(photo.path, scored.classes[guess], photo.unit))
    return answers


def _compare(
    first: RunDir,
    second: RunDir,
    name: str,
    classes: Sequence[str],
    before: _Answers,
    after: _Answers,
) -> Comparison:
    common = [key for key in after if key in before]
    hits = [
        np.array([answers[key].predicted == key[1] for key in common])
        for answers in (before, after)
    ]
    units = _joined_units([before[key].unit for key in common], [after[key].unit for key in common])
    signs = hits[1].astype(np.int64) - hits[0]
    gained, lost = (int((signs == change).sum()) for change in (1, -1))
    effect = max(design_effect(signs == change, units) for change in (1, -1))
    low, high = _difference_interval(gained / effect, lost / effect, len(common) / effect)
    p_value = sign_flip(np.bincount(units, signs).astype(np.int64))
    return Comparison(
        first=str(first.path),
        second=str(second.path),
        name=name,
        images=len(common),
        groups=count_units(units),
        unmatched=len(before) + len(after) - 2 * len(common),
        first_correct=int(hits[0].sum()),
        first_interval=proportion_interval(hits[0], units),
        second_correct=int(hits[1].sum()),
        second_interval=proportion_interval(hits[1], units),
        gained=gained,
        lost=lost,
        difference=(gained - lost) / len(common),
        difference_low=low,
        difference_high=high,
        p_value=p_value,
        p_corrected=p_value,
        classes=tuple(_class_changes(classes, common, before, after)),
        changed=tuple(_image_changes(common, before, after)),
    )


def _class_changes(
    classes: Sequence[str], common: Sequence[tuple[str, str]], before: _Answers, after: _Answers
) -> Iterator[ClassChange]:
    images = Counter(true for _, true in common)
    first, second = (
        Counter(key[1] for key in common if answers[key].predicted == key[1])
        for answers in (before, after)
    )
    for name in classes:
        yield ClassChange(name, images[name], first[name], second[name])


def _image_changes(
    common: Iterable[tuple[str, str]], before: _Answers, after: _Answers
) -> Iterator[ImageChange]:
    for key in common:
        true, old, (path, new, _) = key[1], before[key].predicted, after[key]
        if old != new:
            change = "gained" if new == true else "lost" if old == true else "other"
            yield ImageChange(path, true, old, new, change)


def _joined_units(first: Sequence[str], second: Sequence[str]) -> NDArray[np.int64]:
    """Number the units that result from joining those of both runs."""
    joined = DisjointSet(range(len(first)))
    seen: dict[tuple[int, str], int] = {}
    for at, names in enumerate(zip(first, second, strict=True)):
        for key in enumerate(names):
            joined.merge(at, seen.setdefault(key, at))
    return number_units(np.array([joined[at] for at in range(len(first))]))


def sign_flip(differences: NDArray[np.int64]) -> float:
    """Return the exact two-sided p-value of a sign-flip permutation test.

    If two models are equally good, each unit's difference could as well have the other sign. All
    combinations of signs are counted, by convolution.

    Args:
        differences: `(units,)`, images gained minus images lost in each.
    """
    sizes = np.abs(differences[differences != 0])
    reach = int(sizes.sum())
    chances = np.zeros(2 * reach + 1)  # of each sum, from -reach
    chances[reach] = 1.0
    for size in sizes:
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    observed = abs(int(differences.sum()))
    sums = np.abs(np.arange(-reach, reach + 1))
    return min(1.0, float(chances[sums >= observed].sum()))


def correct_comparisons(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p-values of comparisons that are made together (Holm 1979)."""
    order = sorted(range(len(comparisons)), key=lambda at: comparisons[at].p_value)
    corrected, largest = list(comparisons), 0.0
    for rank, at in enumerate(order):
        scaled = (len(order) - rank) * comparisons[at].p_value
        largest = max(largest, min(1.0, scaled))
        corrected[at] = replace(comparisons[at], p_corrected=largest)
    return corrected


def _difference_interval(gained: float, lost: float, images: float) -> Interval:
    """Return the 95% interval of Bonett and Price (2012) for paired proportions."""
    up, down = (gained + 1) / (images + 2), (lost + 1) / (images + 2)
    half = float(norm.ppf(0.975)) * sqrt((up + down - (up - down) ** 2) / (images + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)
