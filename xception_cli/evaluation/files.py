"""An evaluation for people: lines, tables, CSV files, and its confusion matrix as a PNG."""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from rich.table import Table

from xception_cli.console import new_table, say, show
from xception_cli.csv_files import to_csv
from xception_cli.evaluation.calibration import Array, coverage_curve, reliability
from xception_cli.evaluation.eval_report import ClassMetrics, Contaminated, EvalReport
from xception_cli.evaluation.intervals import (
    design_effect,
    evidence,
    scaled_interval,
    scaled_intervals,
    texts,
)
from xception_cli.evaluation.scored import Scored, predictions_csv
from xception_cli.evaluation.uneven import uneven_line, unmeasured_line
from xception_cli.files import make_folder, utf8, write_durably
from xception_cli.numerals import count_of
from xception_cli.rundir import METRICS, PREDICTIONS, write_json

# Metrics over all classes, with their names on the screen.
_SCORES = {
    "accuracy": "accuracy",
    "top_k_accuracy": "top-{k} accuracy",
    "macro_recall": "macro recall (balanced accuracy)",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "cohen_kappa": "Cohen's kappa",
    "matthews": "Matthews correlation",
    "mean_average_precision": "mean average precision",
    "log_loss": "log loss",
    "calibration_error": "expected calibration error",
}
_MANY = 10  # classes; with fewer, top-5 accuracy is close to 1 for any model
_IN_PERCENT = {"accuracy", "top_k_accuracy", "macro_recall"}
_CONFUSED = 3  # most confused pairs that are printed
_NUMBERED = 20  # classes up to which the cells of the image show their counts
_LABELLED = 120  # class names that fit along an axis
_FEW = 8  # classes, whose names may be longer
_LONGEST_LABEL, _LONGEST_OF_FEW = 24, 40  # characters
_LEGEND = "blue correct, orange confused; darker: a larger share of the true class"


def headline(report: EvalReport) -> str:
    """Describe the result in one line, with its uncertainty."""
    expected = report.expected
    counted = "" if uncorrected_line(report) else f", {_counted(report, report)}"
    corrected = "" if report.corrected is None else ", corrected for selection"
    said = f"({expected.interval}{counted}){corrected}"
    return f"{show(report.name)}: accuracy {expected.value:.1%} {said}"


def uncorrected_line(report: EvalReport) -> str | None:
    """Describe the accuracy without the correction for selection; None if it prints the same."""
    accuracy = f"{report.accuracy.value:.1%}"
    if report.corrected is None or accuracy == f"{report.expected.value:.1%}":
        return None
    models = f"the best of {report.corrected.candidates} models"
    return f"uncorrected: {accuracy} ({_counted(report, report)}), {models}"


def say_result(report: EvalReport) -> None:
    """Print the accuracy, and below it what it hides."""
    say(f"result    {headline(report)}", style="bold")
    for line in (
        uncorrected_line(report),
        unmeasured_line(report),
        uneven_line(report),
        contaminated_line(report),
    ):
        if line:
            say(f"          {line}")


def contaminated_line(report: EvalReport) -> str | None:
    """Describe the accuracy including images that the model was trained on; None without any."""
    found = report.contaminated
    if found is None:
        return None
    known, counted = count_of(found.trained_on, "image"), _counted(found, report)
    return (
        f"with the {known} that it was trained on, or near-copies of them: "
        f"accuracy {found.accuracy.value:.1%} ({found.accuracy.interval}, {counted}); that "
        "shows nothing about new images"
    )


def _counted(found: EvalReport | Contaminated, report: EvalReport) -> str:
    return evidence(found.correct, found.images, found.groups, grouped=report.grouped)


def report_table(report: EvalReport) -> Table:
    """Make the table of the classes: support, precision, recall with its interval, f1."""
    table = new_table("class", ">n", ">precision", ">recall", ">95% CI", ">f1")
    for row in report.per_class:
        precision, f1 = texts(row.precision, percent=True)[0], texts(row.f1, percent=False)[0]
        recall = texts(row.recall, percent=True)
        table.add_row(show(row.name), f"{row.n:,}", precision, *recall, f1)
    return table


def scores_table(report: EvalReport) -> Table:
    """Make the table of metrics over all classes, with intervals."""
    title = "over all classes" if report.corrected is None else "uncorrected, over all classes"
    table = new_table(title, ">value", ">95% CI")
    for name, *figures in scores(report):
        table.add_row(name, *figures)
    return table


def scores(report: EvalReport) -> list[tuple[str, str, str]]:
    """Return the metrics over all classes that are shown: name, value and 95% interval."""
    return [
        (title.format(k=report.top_k), *texts(getattr(report, name), percent=name in _IN_PERCENT))
        for name, title in _SCORES.items()
        if name != "top_k_accuracy" or len(report.per_class) >= _MANY
    ]


def answered_line(report: EvalReport) -> str | None:
    """Describe what `predict --unknown auto` would do; None if the model has no rule for it."""
    if report.answered is None:
        return None
    get = "gets" if report.images == 1 else "get"
    images = f"{report.answered:,} of {count_of(report.images, 'image')}"
    first = f"with --unknown auto, {images} {get} an answer"
    if report.answer_precision is None:
        return first
    share = f"{report.answer_precision.value:.1%}"
    second = f"{report.answered_correct:,} of these are correct, {share}"
    if report.name == "val":  # no interval: val chose the thresholds
        return f"{first}; {second}, on the images that calibrated it"
    return f"{first}; {second} ({report.answer_precision.interval})"


def confused_line(report: EvalReport) -> str | None:
    """Name the classes that are confused most often; None if none are."""
    pairs = [
        f"{show(pair.true)} predicted as {show(pair.predicted)} ({pair.n})"
        for pair in report.confused[:_CONFUSED]
    ]
    return f"{', '.join(pairs)}" if pairs else None


def write_evaluation(folder: Path, report: EvalReport, scored: Scored) -> None:
    """Write an evaluation's files, replacing those of an earlier one.

    Args:
        folder: Created if necessary; receives metrics.json, per_class.csv, confusion.csv,
            predictions.csv, coverage.csv, confusion.png and calibration.png.
        report: The results.
        scored: The images and the answers.

    Raises:
        MachineError: The disk is full or read-only.
    """
    make_folder(folder)
    write_durably(folder / "per_class.csv", _per_class_csv(report.per_class))
    write_durably(folder / "confusion.csv", _confusion_csv(report))
    write_durably(folder / PREDICTIONS, partial(predictions_csv, scored))
    write_durably(folder / "confusion.png", draw_confusion(report))
    sound = scored.sound()
    guesses = (sound.confidences, sound.hits, sound.units)
    write_durably(folder / "coverage.csv", coverage_csv(*guesses))
    write_durably(folder / "calibration.png", draw_calibration(*guesses))
    write_json(folder / METRICS, report.to_dict())


def _per_class_csv(rows: Sequence[ClassMetrics]) -> bytes:
    found = [row.to_dict() for row in rows]
    header = ["class", *(name for name in found[0] if name != "name")]
    return to_csv(header, (list(row.values()) for row in found))


def _confusion_csv(report: EvalReport) -> bytes:
    # The prefix keeps a class called `=1+1` from becoming a formula in the header.
    names = [row.name for row in report.per_class]
    header = ["true", *(f"predicted:{utf8(name)}" for name in names)]
    return to_csv(header, ([n, *row] for n, row in zip(names, report.confusion, strict=True)))


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
    accuracy = f"accuracy {report.accuracy.value:.1%}"
    if report.corrected is None:
        accuracy += f" ({report.accuracy.interval}, {_counted(report, report)})"
    else:
        accuracy += ", not corrected for selection"
    first = f"{show(report.name)}: {report.correct:,} of {count_of(report.images, 'image')} correct"
    lines = [
        first,
        accuracy,
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
    labels = [_drawable(_cut(show(names[tick]), longest)) for tick in ticks]
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


def _cut(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _drawable(text: str) -> str:
    """Replace characters that the font lacks by boxes; matplotlib would warn of each one."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(char if char == "\n" or ord(char) in known else "□" for char in text)


_BLUE, _ORANGE, _GREY = "#2b6cb0", "#c05621", "0.6"


def coverage_csv(confidences: Array, right: Array, units: Array) -> bytes:
    """List the coverage and precision of each confidence threshold of `predict --unknown`.

    Args:
        confidences: `(images,)`, calibrated probability of the most probable class.
        right: `(images,)`, whether it is correct.
        units: `(images,)`.
    """
    header = ("threshold", "coverage", "precision", "precision_low", "precision_high")
    curve = _coverage(confidences, right, design_effect(right, units))
    return to_csv(header, np.stack(curve, axis=1).tolist())


def _coverage(confidences: Array, right: Array, effect: float) -> tuple[Array, ...]:
    """Return `coverage_curve`, and the 95% interval of each precision."""
    thresholds, coverage, precision = coverage_curve(confidences, right)
    answered = np.round(coverage * len(right))
    ends = scaled_intervals(precision, answered, effect)
    return thresholds, coverage, precision, *ends


def draw_calibration(confidences: Array, right: Array, units: Array) -> bytes:
    """Draw both diagrams as one PNG; equal numbers give equal bytes. See `coverage_csv`."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    both, effect = figure.subplots(1, 2), design_effect(right, units)
    _draw_reliability(both[0], confidences, right, effect)
    _draw_coverage(both[1], confidences, right, effect)
    for axes in both:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("0.7")
        axes.tick_params(color="0.7")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _draw_reliability(axes: Axes, confidences: Array, right: Array, effect: float) -> None:
    bins = reliability(confidences, right)
    said = [entry.confidence for entry in bins]
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
    axes.annotate("perfectly calibrated", (0.03, 0.07), rotation=42, color="0.45", fontsize=8)
    for entry in bins:
        low, high = scaled_interval(entry.accuracy, entry.images, effect)
        axes.plot([entry.confidence] * 2, [low, high], color=_BLUE, alpha=0.4, linewidth=2)
    sizes: Sequence[float] = [12 + 100 * entry.images / len(right) for entry in bins]
    axes.scatter(said, [entry.accuracy for entry in bins], s=sizes, color=_BLUE, zorder=3)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.03))
    axes.set_xlabel("confidence: probability of the predicted class")
    axes.set_ylabel("accuracy, 95% CI")
    axes.set_title("Reliability diagram", fontsize=11, loc="left")


def _draw_coverage(axes: Axes, confidences: Array, right: Array, effect: float) -> None:
    _, coverage, precision, low, high = _coverage(confidences, right, effect)
    axes.fill_between(coverage, low, high, color=_ORANGE, alpha=0.15, linewidth=0)
    axes.plot(coverage, precision, color=_ORANGE, linewidth=1.8)
    # The interval of all answers, that of the accuracy, is in sight.
    floor = max(0.0, min(0.9, float(precision.min()) - 0.1, float(low[-1])))
    axes.set(xlim=(0, 1.02), ylim=(floor, 1 + 0.03 * (1 - floor)))
    axes.set_xlabel("share of images answered, most confident first")
    axes.set_ylabel("precision of the answers")
    axes.set_title("Precision over coverage", fontsize=11, loc="left")
