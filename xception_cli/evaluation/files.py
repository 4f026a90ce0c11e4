"""The files of an evaluation: metrics.json, CSV files and plots."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from xception_cli.csv_files import to_csv
from xception_cli.evaluation.confidence import coverage_intervals
from xception_cli.evaluation.eval_report import ClassMetrics, EvalReport
from xception_cli.evaluation.intervals import Array, spread
from xception_cli.evaluation.plots import draw_calibration, draw_confusion
from xception_cli.evaluation.scored import Scored, predictions_csv
from xception_cli.files import make_folder, utf8, write_durably
from xception_cli.rundir import METRICS, PREDICTIONS, write_json


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


def coverage_csv(confidences: Array, right: Array, units: Array) -> bytes:
    """List the coverage and precision of each confidence threshold of `predict --unknown`.

    Args:
        confidences: `(images,)`, calibrated probability of the most probable class.
        right: `(images,)`, whether it is correct.
        units: `(images,)`.
    """
    header = ("threshold", "coverage", "precision", "precision_low", "precision_high")
    curve = coverage_intervals(confidences, right, spread(right, units))
    return to_csv(header, np.stack(curve, axis=1).tolist())
