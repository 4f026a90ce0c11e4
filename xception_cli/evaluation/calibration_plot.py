"""The picture of a calibration: reliability diagram, and precision over coverage; and its CSV."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from xception_cli.evaluation.calibration import Array, coverage_curve, reliability
from xception_cli.evaluation.intervals import wilson_interval
from xception_cli.files import to_csv

_BLUE, _ORANGE, _GREY = "#2b6cb0", "#c05621", "0.6"


def coverage_csv(probabilities: Array, labels: Array) -> bytes:
    """List what each threshold of confidence leaves: `predict --unknown THRESHOLD`.

    Args:
        probabilities: `(images, classes)`, calibrated.
        labels: `(images,)`.
    """
    header = ("threshold", "coverage", "precision", "precision_low", "precision_high")
    rows = []
    curve = _coverage(probabilities, labels)
    for threshold, coverage, precision in zip(*curve, strict=True):
        answered = round(coverage * len(labels))
        ends = wilson_interval(round(precision * answered), answered)
        rows.append((float(threshold), float(coverage), float(precision), *ends))
    return to_csv(header, rows)


def _coverage(probabilities: Array, labels: Array) -> tuple[Array, Array, Array]:
    right = probabilities.argmax(axis=1) == labels
    return coverage_curve(probabilities.max(axis=1), right)


def draw_calibration(probabilities: Array, labels: Array) -> bytes:
    """Draw both diagrams as one PNG; equal numbers give equal bytes.

    Args:
        probabilities: `(images, classes)`, calibrated.
        labels: `(images,)`.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_reliability(left, probabilities, labels)
    _draw_coverage(right, probabilities, labels)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("0.7")
        axes.tick_params(color="0.7")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _draw_reliability(axes: Axes, probabilities: Array, labels: Array) -> None:
    bins = reliability(probabilities, labels)
    said = [entry.confidence for entry in bins]
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
    axes.annotate("as sure as right", (0.03, 0.07), rotation=42, color="0.45", fontsize=8)
    for entry in bins:
        low, high = wilson_interval(round(entry.accuracy * entry.images), entry.images)
        axes.plot([entry.confidence] * 2, [low, high], color=_BLUE, alpha=0.4, linewidth=2)
    sizes: Sequence[float] = [12 + 100 * entry.images / len(labels) for entry in bins]
    axes.scatter(said, [entry.accuracy for entry in bins], s=sizes, color=_BLUE, zorder=3)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.03))
    axes.set_xlabel("probability of the best class")
    axes.set_ylabel("part that is right, 95 % interval")
    axes.set_title("How sure, and how right", fontsize=11, loc="left")


def _draw_coverage(axes: Axes, probabilities: Array, labels: Array) -> None:
    _, coverage, precision = _coverage(probabilities, labels)
    ends = [
        wilson_interval(round(p * c * len(labels)), round(c * len(labels)))
        for c, p in zip(coverage, precision, strict=True)
    ]
    low, high = np.array(ends).T
    axes.fill_between(coverage, low, high, color=_ORANGE, alpha=0.15, linewidth=0)
    axes.plot(coverage, precision, color=_ORANGE, linewidth=1.8)
    floor = max(0.0, min(0.9, float(precision.min()) - 0.1))
    axes.set(xlim=(0, 1.02), ylim=(floor, 1 + 0.03 * (1 - floor)))
    axes.set_xlabel("part of the images that is answered, the surest first")
    axes.set_ylabel("part of the answers that is right")
    axes.set_title("What refusing unsure answers brings", fontsize=11, loc="left")
