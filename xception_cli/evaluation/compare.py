"""Two runs on the same images: who is right where, and whether the difference could be chance."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

from rich.table import Table
from scipy.stats import binomtest, norm

from xception_cli.console import new_table, quoted, show
from xception_cli.errors import UsageError
from xception_cli.evaluation.intervals import Interval, wilson_interval
from xception_cli.evaluation.scored import Scored, read_scored
from xception_cli.rundir import RunDir

_SHOWN = 20  # images whose answer changed that are listed on the screen


@dataclass(frozen=True)
class ClassChange:
    """How one class fared in both runs.

    Attributes:
        name: The class.
        n: Its images that both runs scored.
        first: How many of them the first run recognised.
        second: The second run.
    """

    name: str
    n: int
    first: int
    second: int


@dataclass(frozen=True)
class ImageChange:
    """An image that the runs answer differently.

    Attributes:
        path: As the second run has it.
        true: Its class.
        first: What the first run says.
        second: What the second run says.
        change: `gained` or `lost` by the second run; `other` where both are wrong.
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
        name: The evaluation, `val` for instance.
        images: Matched ones.
        unmatched: Images that only one of them scored.
        first_correct: How many the first run has right.
        second_correct: How many the second run has right.
        gained: Right in the second run only.
        lost: Right in the first run only.
        difference: Of the accuracies, second minus first, in -1..1.
        difference_low: Lower end of its 95 % interval (Bonett and Price 2012).
        difference_high: Upper end.
        p_value: Of McNemar's exact test (1947): how often chance alone makes so uneven a change.
        classes: One for each class, in order.
        changed: Every image whose answer is another one.
    """

    first: str
    second: str
    name: str
    images: int
    unmatched: int
    first_correct: int
    second_correct: int
    gained: int
    lost: int
    difference: float
    difference_low: float
    difference_high: float
    p_value: float
    classes: tuple[ClassChange, ...]
    changed: tuple[ImageChange, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return asdict(self)


def choose_evaluation(runs: Sequence[RunDir], name: str | None) -> str:
    """Return the evaluation that all runs have: the one named, else test, else val.

    Raises:
        UsageError: A run has not been evaluated so.
    """
    for candidate in [name] if name else ["test", "val"]:
        lacking = [run for run in runs if not run.evaluation(candidate).is_dir()]
        if not lacking:
            return candidate
    split = f" --split {candidate}" if candidate in {"test", "val"} else " --data DIR"
    raise UsageError(
        f"{show(lacking[0].path)} has no evaluation called {show(candidate)}",
        hint=f"xception eval {quoted(lacking[0].path)}{split}",
    )


def compare_runs(first: RunDir, second: RunDir, name: str) -> Comparison:
    """Compare two runs on the images that both scored.

    Args:
        first: The run to compare with.
        second: The run to compare.
        name: The evaluation, a folder of `eval/` in both.

    Raises:
        UsageError: They know other classes, or scored no image in common.
        ArtifactError: A file of an evaluation is damaged, or of an earlier version.
    """
    one, other = read_scored(first, name), read_scored(second, name)
    if set(one.classes) != set(other.classes):
        odd = sorted(set(one.classes) ^ set(other.classes))
        raise UsageError(
            f"{show(first.path)} and {show(second.path)} know other classes, "
            f"{show(odd[0])} for instance: their accuracies are of different questions",
            hint="compare runs that were trained on the same class folders",
        )
    before, after = _answers(one), _answers(other)
    if not before.keys() & after.keys():
        raise UsageError(
            f"{show(first.path)} and {show(second.path)} have no image of {show(name)} in common",
            hint="evaluate both on one folder (xception eval RUN --data DIR), then: xception "
            f"compare {quoted(first.path)} {quoted(second.path)} --on NAME",
        )
    return _compare(first, second, name, other.classes, before, after)


def _answers(scored: Scored) -> dict[tuple[str, str], tuple[str, str]]:
    """Return `(path, predicted)` by `(digest, true class)`; of copies the first."""
    answers: dict[tuple[str, str], tuple[str, str]] = {}
    for photo, guess in zip(scored.photos, scored.guesses, strict=True):
        if photo.digest:
            key = (photo.digest, scored.classes[photo.label])
            answers.setdefault(key, (photo.path, scored.classes[guess]))
    return answers


def _compare(
    first: RunDir,
    second: RunDir,
    name: str,
    classes: Sequence[str],
    before: Mapping[tuple[str, str], tuple[str, str]],
    after: Mapping[tuple[str, str], tuple[str, str]],
) -> Comparison:
    changed = []
    common = [key for key in after if key in before]
    right = {label: [0, 0, 0] for label in classes}  # images, first right, second right
    for key in common:
        true, old, (path, new) = key[1], before[key][1], after[key]
        for place, counts in enumerate((True, old == true, new == true)):
            right[true][place] += counts
        if old != new:
            change = "gained" if new == true else "lost" if old == true else "other"
            changed.append(ImageChange(path, true, old, new, change))
    gained, lost = (sum(i.change == change for i in changed) for change in ("gained", "lost"))
    low, high = _difference_interval(gained, lost, len(common))
    return Comparison(
        first=str(first.path),
        second=str(second.path),
        name=name,
        images=len(common),
        unmatched=len(before) + len(after) - 2 * len(common),
        first_correct=sum(counts[1] for counts in right.values()),
        second_correct=sum(counts[2] for counts in right.values()),
        gained=gained,
        lost=lost,
        difference=(gained - lost) / len(common),
        difference_low=low,
        difference_high=high,
        p_value=float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        classes=tuple(ClassChange(label, *counts) for label, counts in right.items()),
        changed=tuple(changed),
    )


def _difference_interval(gained: int, lost: int, images: int) -> Interval:
    """Return the 95 % interval of Bonett and Price (2012) for paired proportions."""
    up, down = (gained + 1) / (images + 2), (lost + 1) / (images + 2)
    half = float(norm.ppf(0.975)) * sqrt((up + down - (up - down) ** 2) / (images + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Make the tables of the runs, of the classes that changed, and of the images that did."""
    runs = new_table("run", ">right", ">accuracy", ">95 % interval")
    for run, correct in (
        (comparison.first, comparison.first_correct),
        (comparison.second, comparison.second_correct),
    ):
        low, high = wilson_interval(correct, comparison.images)
        part = 100 * correct / comparison.images
        interval = f"{100 * low:.1f} to {100 * high:.1f} %"
        runs.add_row(show(run), f"{correct} of {comparison.images}", f"{part:.1f} %", interval)
    tables = [runs]
    different = [row for row in comparison.classes if row.first != row.second]
    if different:
        classes = new_table("class", ">n", ">right, first", ">second", ">change")
        for row in sorted(different, key=lambda row: row.second - row.first):
            change = f"{row.second - row.first:+d}"
            classes.add_row(show(row.name), str(row.n), str(row.first), str(row.second), change)
        tables.append(classes)
    if comparison.changed:
        order = ("lost", "gained", "other")
        images = new_table("image", "true", "first", "second", "change")
        ranked = sorted(comparison.changed, key=lambda image: order.index(image.change))
        for image in ranked[:_SHOWN]:
            said = (image.path, image.true, image.first, image.second)
            images.add_row(*(show(text) for text in said), image.change)
        tables.append(images)
    return tables


def verdict(comparison: Comparison) -> str:
    """Say in one line what the difference is, and whether it could be chance."""
    low, high = 100 * comparison.difference_low, 100 * comparison.difference_high
    chance = "hardly chance" if comparison.p_value < 0.05 else "could be chance"
    return (
        f"{100 * comparison.difference:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}), "
        f"{comparison.gained} gained, {comparison.lost} lost; McNemar p = "
        f"{comparison.p_value:.2g}: {chance}"
    )
