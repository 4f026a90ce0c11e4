"""The content and layout of the report's charts; templates/charts.html.j2 makes SVG of it.

Not matplotlib's SVG, which has its own colours and text that shrinks with the chart. A unit is
about a pixel on a phone, where a chart is as wide as the page; elsewhere three are in a row.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from xception_cli.evaluation.confidence import coverage_intervals, reliability
from xception_cli.evaluation.intervals import Array, Spread, scaled_interval, spread
from xception_cli.numerals import count_of, percentage

_DOTTED, _DRAWN = 40, 200  # most points drawn as dots; most points of a curve
_TICKS, _EPOCHS = 5, 8  # most steps between numbers on an axis

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """The numbers along one side of a chart; its ends are ticks, and tick labels are exact."""

    ticks: tuple[float, ...]
    label: Callable[[float], str]
    exact: Callable[[float], str] = "{:.4g}".format  # any number on it

    @property
    def ends(self) -> Point:
        """Lowest and highest number."""
        return self.ticks[0], self.ticks[-1]


def number_axis(low: float, high: float, *, in_percent: bool = False, whole: bool = False) -> Axis:
    """Choose round numbers from one at or below `low` to one at or above `high`.

    Args:
        low: The lowest number that is drawn.
        high: The highest number that is drawn.
        in_percent: Label 0.5 as 50%, and end at 100%.
        whole: Use integers, from `low` to `high` exactly.
    """
    size = max(abs(low), abs(high)) or 1.0
    if high - low < 1e-9 * size and not whole:
        low, high = low - 0.05 * size, high + 0.05 * size
    raw = max(high - low, 1e-9) / _EPOCHS if whole else (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= raw * (1 - 1e-9))
    if whole:
        step = max(1.0, step)
        ticks = [low, *np.arange(math.floor(low / step) + 1, high / step) * step, high]
        # The last epoch is more important than a round number close to it.
        ticks = [tick for tick in ticks if tick in (low, high) or high - tick >= step / 2]
        return Axis(tuple(sorted(set(map(float, ticks)))), lambda tick: f"{tick:g}")
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(step * at, 12 - math.floor(math.log10(step))) for at in range(first, last + 1)]
    if in_percent:
        ticks = [tick for tick in ticks if 0 <= tick <= 1]
        return Axis(tuple(ticks), lambda tick: f"{round(100 * tick, 10):g}%", percentage)
    return Axis(tuple(ticks), lambda tick: _label(tick, step, ticks[-1]))


def _label(tick: float, step: float, last: float) -> str:
    """Format a tick with as many digits as its neighbours; 1.5e-4 for small numbers."""
    if 0 < last < 0.01:
        power = math.floor(math.log10(last))
        return f"{tick / 10**power:g}e{power}" if tick else "0"
    return f"{tick:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


class Line(NamedTuple):
    """A line through points, or the outline of an area; `style` is its CSS class."""

    style: str
    points: Sequence[Point]


class Dot(NamedTuple):
    """A point that shows its figures on hover."""

    style: str
    x: float
    y: float
    figures: str
    radius: int = 3


@dataclass(frozen=True)
class Chart:
    """A chart, and the position of each number in SVG units.

    Attributes:
        title: Title, which names the vertical axis, too.
        along: Label of the horizontal axis.
        x: The horizontal axis.
        y: The vertical axis.
        lines: Lines, from back to front.
        dots: Points, in front of the lines.
        keys: Names of the lines, with their CSS classes; empty if there is only one.
    """

    title: str
    along: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    dots: Sequence[Dot] = ()
    keys: Sequence[tuple[str, str]] = ()
    width: int = 340
    height: int = 220
    left: int = 48  # margins
    right: int = 12
    top: int = 10
    bottom: int = 40

    def across(self, number: float) -> str:
        """Return the horizontal position of a number."""
        low, high = self.x.ends
        share = (number - low) / (high - low) if high > low else 0.5
        return _round(self.left + share * (self.width - self.left - self.right))

    def up(self, number: float) -> str:
        """Return the vertical position of a number."""
        low, high = self.y.ends
        share = min(1.0, max(0.0, (number - low) / (high - low)))
        return _round(self.top + (1 - share) * (self.height - self.top - self.bottom))

    def path(self, points: Iterable[Point]) -> Markup:
        """Return the positions of points, `x,y` each."""
        return Markup(" ".join(f"{self.across(x)},{self.up(y)}" for x, y in points))


def _round(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def draw_curves(rows: Sequence[Mapping[str, Any]], best: int) -> list[Chart]:
    """Draw loss, accuracy and learning rate by epoch.

    Args:
        rows: Rows of metrics.jsonl; at least one.
        best: The epoch that was kept; 0 or less if none.
    """
    losses = {"train_loss": ("training", "wrong"), "val_loss": ("validation", "right")}
    both = [row[name] for row in rows for name in losses]
    accuracies, rates = ([row[name] for row in rows] for name in ("accuracy", "lr"))
    shares = number_axis(min(accuracies), max(accuracies), in_percent=True)
    accuracy, rate = {"accuracy": ("", "right")}, {"lr": ("", "right")}
    return [
        _curves(rows, best, "Loss", losses, number_axis(min(both), max(both))),
        _curves(rows, best, "Accuracy on validation images", accuracy, shares),
        _curves(rows, best, "Learning rate", rate, number_axis(0, max(rates))),
    ]


def _curves(
    rows: Sequence[Mapping[str, Any]],
    best: int,
    title: str,
    names: Mapping[str, tuple[str, str]],
    axis: Axis,
) -> Chart:
    epochs = [row["epoch"] for row in rows]
    lines = [Line("mark", [(best, end) for end in axis.ends])] if best > 0 else []
    dots = []
    for name, (key, style) in names.items():
        lines.append(Line(style, [(row["epoch"], row[name]) for row in rows]))
        for row in rows if len(rows) <= _DOTTED else ():
            figures = " ".join(filter(None, (f"epoch {row['epoch']}:", key, axis.exact(row[name]))))
            dots.append(Dot(style, row["epoch"], row[name], figures))
    keys = [key for key in names.values() if key[0]]
    across = number_axis(epochs[0], epochs[-1], whole=True)
    return Chart(title, "epoch", across, axis, lines, dots, keys)


def draw_calibration(confidences: Array, right: Array, units: Array) -> list[Chart]:
    """Draw the reliability diagram, and precision against coverage.

    Args:
        confidences: `(images,)`, calibrated probability of the most probable class.
        right: `(images,)`, whether it is correct.
        units: `(images,)`, the unit of each image.
    """
    drawn = (confidences, right, spread(right, units))
    return [_draw_reliability(*drawn), _draw_coverage(*drawn)]


def _draw_reliability(confidences: Array, hits: Array, width: Spread) -> Chart:
    lines, dots = [Line("mark", [(0, 0), (1, 1)])], []
    for entry in reliability(confidences, hits):
        said, right = entry.confidence, entry.accuracy
        low, high = scaled_interval(right, entry.images, *width)
        figures = (
            f"confidence {said:.0%}: accuracy {right:.0%} "
            f"(95% CI {100 * low:.0f}-{100 * high:.0f}%, {count_of(entry.images, 'image')})"
        )
        lines.append(Line("right range", [(said, low), (said, high)]))
        radius = 3 + round(4 * math.sqrt(entry.images / len(hits)))
        dots.append(Dot("right", said, right, figures, radius))
    shares = number_axis(0, 1, in_percent=True)
    keys = [("accuracy, 95% CI", "right"), ("perfectly calibrated", "mark")]
    along = "confidence: probability of the predicted class"
    return Chart("Reliability diagram", along, shares, shares, lines, dots, keys)


def _draw_coverage(confidences: Array, hits: Array, width: Spread) -> Chart:
    found = coverage_intervals(confidences, hits, width)
    chosen = np.unique(np.linspace(0, len(found.coverage) - 1, _DRAWN).round().astype(int))
    shares = found.coverage[chosen].tolist()
    curve, low, high = (
        list(zip(shares, heights[chosen].tolist(), strict=True))
        for heights in (found.precision, found.low, found.high)
    )
    # The interval of all answers, that of the accuracy, is in sight.
    floor = max(0.0, min(0.9, float(found.precision.min()) - 0.1, float(found.low[-1])))
    return Chart(
        "Precision over coverage",
        "share of images answered, most confident first",
        number_axis(0, 1, in_percent=True),
        number_axis(floor, 1, in_percent=True),
        [Line("wrong band", [*low, *reversed(high)]), Line("wrong", curve)],
        keys=[("precision of the answers, 95% CI", "wrong")],
    )
