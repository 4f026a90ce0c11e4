"""The plots of an evaluation: its confusion matrix, and its calibration and coverage."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib import colormaps, rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from xception_cli.console import show
from xception_cli.evaluation.confidence import coverage_intervals, reliability
from xception_cli.evaluation.eval_report import EvalReport
from xception_cli.evaluation.intervals import Array, Spread, scaled_interval, spread
from xception_cli.numerals import count_of, percentage

_NUMBERED = 20  # classes up to which the cells of the image show their counts
_LABELLED = 120  # class names that fit along an axis
_FEW = 8  # classes, whose names may be longer
_LONGEST_LABEL, _LONGEST_OF_FEW = 24, 40  # characters
_LEGEND = "blue correct, orange confused; darker: a larger share of the true class"


# A matplotlibrc in the current folder would change the images, or need LaTeX for them.
@rc_context(rcParamsDefault)
def draw_confusion(report: EvalReport) -> bytes:
    """Draw the confusion matrix as a PNG; equal reports give equal bytes.

    Blue is correct and orange is confused, two hues that remain distinct for colour-blind readers;
    darker is a larger share of the true class. Grey is a class without images.
    """
    counts = np.array(report.confusion)
    count = len(counts)
    side = max(2.4, 0.5 * count) if count <= _NUMBERED else min(18.0, 6 + 0.12 * count)
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(_colours(counts), interpolation="nearest")
    if count <= _NUMBERED:
        _write_counts(axes, counts)
    _name_axes(axes, [row.name for row in report.per_class], side)
    accuracy = report.accuracy.in_percent(report.evidence)
    if report.corrected is not None:
        accuracy = f"{percentage(report.accuracy.value)}, not corrected for selection"
    lines = [
        f"{show(report.name)}: {report.correct:,} of {count_of(report.images, 'image')} correct",
        f"accuracy {accuracy}",
        _LEGEND if counts.any(axis=1).all() else f"{_LEGEND}; grey: no images",
    ]
    # Annotations, for which the tight bounding box below makes room at any number of classes.
    for at, line in enumerate(reversed(lines)):
        axes.annotate(
            _drawable(line),
            (0, 1),
            (0, 6 + 16 * at),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=10 if at else 8,
            fontweight="bold" if at == 2 else "normal",
            color="black" if at else "0.4",
            parse_math=False,
        )
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _colours(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Colour the cells by their share of the true class: `(classes, classes, 4)`, RGBA."""
    totals = counts.sum(axis=1, keepdims=True)
    # The root makes a few confusions among many images visible.
    depth = np.sqrt(counts / np.maximum(totals, 1))
    colours = np.where(
        np.eye(len(counts), dtype=bool)[..., None],
        colormaps["Blues"](0.85 * depth),
        colormaps["Oranges"](np.where(counts > 0, 0.15 + 0.6 * depth, 0)),
    )
    colours[counts == 0] = 1.0
    colours[totals[:, 0] == 0] = (0.92, 0.92, 0.92, 1.0)
    return np.round(255 * colours).astype(np.uint8)


def _write_counts(axes: Axes, counts: NDArray[np.int64]) -> None:
    totals = counts.sum(axis=1)
    for (row, column), n in np.ndenumerate(counts):
        if n:
            dark = row == column and n > 0.35 * totals[row]
            axes.text(
                column, row, str(n), ha="center", va="center", color="white" if dark else "black"
            )


def _name_axes(axes: Axes, names: Sequence[str], side: float) -> None:
    step = -(-len(names) // _LABELLED)
    ticks = list(range(0, len(names), step))
    longest = _LONGEST_OF_FEW if len(names) <= _FEW else _LONGEST_LABEL
    labels = [_drawable(show(names[tick], longest)) for tick in ticks]
    size = min(10.0, 0.75 * 72 * side / len(ticks))
    axes.set_xticks(ticks, labels, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(ticks, labels, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(length=0)
    axes.spines[:].set_color("0.7")
    # Grid lines between all classes, or every ten, to find the names of a cell.
    between = np.arange(0, len(names), 1 if len(names) <= _NUMBERED else 10) - 0.5
    axes.set_xticks(between, minor=True)
    axes.set_yticks(between, minor=True)
    axes.grid(which="minor", color="0.85", linewidth=0.5)
    axes.tick_params(which="minor", length=0)


def _drawable(text: str) -> str:
    """Replace characters that the font lacks by boxes; matplotlib would warn of each one."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(char if char == "\n" or ord(char) in known else "□" for char in text)


_BLUE, _ORANGE, _GREY = "#2b6cb0", "#c05621", "0.6"


@rc_context(rcParamsDefault)
def draw_calibration(confidences: Array, right: Array, units: Array) -> bytes:
    """Draw both diagrams as one PNG; equal numbers give equal bytes. See `coverage_csv`."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    both, width = figure.subplots(1, 2), spread(right, units)
    _draw_reliability(both[0], confidences, right, width)
    _draw_coverage(both[1], confidences, right, width)
    for axes in both:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("0.7")
        axes.tick_params(color="0.7")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _draw_reliability(axes: Axes, confidences: Array, right: Array, width: Spread) -> None:
    bins = reliability(confidences, right)
    said = [entry.confidence for entry in bins]
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
    axes.annotate("perfectly calibrated", (0.03, 0.07), rotation=42, color="0.45", fontsize=8)
    for entry in bins:
        low, high = scaled_interval(entry.accuracy, entry.images, *width)
        axes.plot([entry.confidence] * 2, [low, high], color=_BLUE, alpha=0.4, linewidth=2)
    sizes: Sequence[float] = [12 + 100 * entry.images / len(right) for entry in bins]
    axes.scatter(said, [entry.accuracy for entry in bins], s=sizes, color=_BLUE, zorder=3)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.03))
    axes.set_xlabel("confidence: probability of the predicted class")
    axes.set_ylabel("accuracy, 95% CI")
    axes.set_title("Reliability diagram", fontsize=11, loc="left")


def _draw_coverage(axes: Axes, confidences: Array, right: Array, width: Spread) -> None:
    curve = coverage_intervals(confidences, right, width)
    axes.fill_between(curve.coverage, curve.low, curve.high, color=_ORANGE, alpha=0.15, linewidth=0)
    axes.plot(curve.coverage, curve.precision, color=_ORANGE, linewidth=1.8)
    # The interval of all answers, that of the accuracy, is in sight.
    floor = max(0.0, min(0.9, float(curve.precision.min()) - 0.1, float(curve.low[-1])))
    axes.set(xlim=(0, 1.02), ylim=(floor, 1 + 0.03 * (1 - floor)))
    axes.set_xlabel("share of images answered, most confident first")
    axes.set_ylabel("precision of the answers")
    axes.set_title("Precision over coverage", fontsize=11, loc="left")
