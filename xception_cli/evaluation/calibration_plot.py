"""The picture of a calibration: reliability diagram, and precision over coverage; and its CSV."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from xception_cli.evaluation.calibration import Array, coverage_curve, reliability
from xception_cli.evaluation.intervals import design_effect, scaled_interval
from xception_cli.files import to_csv

_BLUE, _ORANGE, _GREY = "#2b6cb0", "#c05621", "0.6"


def coverage_csv(probabilities: Array, labels: Array, units: Array) -> bytes:
    """List what each threshold of confidence leaves: `predict --unknown THRESHOLD`.

    Args:
        probabilities: `(images, classes)`, calibrated.
        labels: `(images,)`.
        units: `(images,)`, what each image belongs to.
    """
    header = ("threshold", "coverage", "precision", "precision_low", "precision_high")
    rows, effect = [], _effect(probabilities, labels, units)
    curve = _coverage(probabilities, labels)
    for threshold, coverage, precision in zip(*curve, strict=True):
        ends = scaled_interval(precision, round(coverage * len(labels)), effect)
        rows.append((float(threshold), float(coverage), float(precision), *ends))
    return to_csv(header, rows)


def _effect(probabilities: Array, labels: Array, units: Array) -> float:
    return design_effect(probabilities.argmax(axis=1) == labels, units)


def _coverage(probabilities: Array, labels: Array) -> tuple[Array, Array, Array]:
    right = probabilities.argmax(axis=1) == labels
    return coverage_curve(probabilities.max(axis=1), right)


def draw_calibration(probabilities: Array, labels: Array, units: Array) -> bytes:
    """Draw both diagrams as one PNG; equal numbers give equal bytes.

    Args:
        probabilities: `(images, classes)`, calibrated.
        labels: `(images,)`.
        units: `(images,)`, what each image belongs to.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    effect = _effect(probabilities, labels, units)
    _draw_reliability(left, probabilities, labels, effect)
    _draw_coverage(right, probabilities, labels, effect)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("0.7")
        axes.tick_params(color="0.7")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _draw_reliability(axes: Axes, probabilities: Array, labels: Array, effect: float) -> None:
    bins = reliability(probabilities, labels)
    said = [entry.confidence for entry in bins]
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
    axes.annotate("perfectly calibrated", (0.03, 0.07), rotation=42, color="0.45", fontsize=8)
    for entry in bins:
        low, high = scaled_interval(entry.accuracy, entry.images, effect)
        axes.plot([entry.confidence] * 2, [low, high], color=_BLUE, alpha=0.4, linewidth=2)
    sizes: Sequence[float] = [12 + 100 * entry.images / len(labels) for entry in bins]
    axes.scatter(said, [entry.accuracy for entry in bins], s=sizes, color=_BLUE, zorder=3)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.03))
    axes.set_xlabel("confidence: probability of the best class")
    axes.set_ylabel("accuracy, 95% CI")
    axes.set_title("Reliability diagram", fontsize=11, loc="left")


def _draw_coverage(axes: Axes, probabilities: Array, labels: Array, effect: float) -> None:
    _, coverage, precision = _coverage(probabilities, labels)
    ends = [
        scaled_interval(p, round(c * len(labels)), effect)
        for c, p in zip(coverage, precision, strict=True)
    ]
    low, high = np.array(ends).T
    axes.fill_between(coverage, low, high, color=_ORANGE, alpha=0.15, linewidth=0)
    axes.plot(coverage, precision, color=_ORANGE, linewidth=1.8)
    floor = max(0.0, min(0.9, float(precision.min()) - 0.1))
    axes.set(xlim=(0, 1.02), ylim=(floor, 1 + 0.03 * (1 - floor)))
    axes.set_xlabel("share of images answered, most confident first")
    axes.set_ylabel("precision of the answers")
    axes.set_title("Precision over coverage", fontsize=11, loc="left")
