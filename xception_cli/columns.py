"""Columns: the columns of the CSV file that `predict --output` writes; and reading its rows."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from xception_cli.csv_files import from_cell, to_csv
from xception_cli.files import utf8

if TYPE_CHECKING:  # no torch
    from xception_cli.inference import Prediction


class Columns:
    """The header of a CSV file of predictions, and its rows.

    Args:
        count: Number of classes in each row.
        classes: For `--top all`: every class, in the order of the model, in a column `p:CLASS` each
            as in predictions.csv of `eval`. Empty: the most probable ones, in `class_1` and so on.
        with_unknown: Whether there is a column with the reason of each `unknown`.
        with_label: Whether there is a column with the label of a table.

    Attributes:
        header: The names of the columns.
    """

    def __init__(
        self, count: int, classes: Sequence[str], *, with_unknown: bool, with_label: bool
    ) -> None:
        self._classes = list(map(utf8, classes))
        unknown, label = ["unknown"] * with_unknown, ["label"] * with_label
        if classes:
            self.header = ["path", "predicted", "confidence", *unknown, "error", *label]
            self.header += [f"p:{name}" for name in self._classes]
        else:
            self.header = ["path", "error", *unknown, *label]
            for rank in range(1, count + 1):
                self.header += [f"class_{rank}", f"probability_{rank}"]

    def row(self, prediction: "Prediction") -> list[object]:
        """Return the cells of an image; those of a missing answer are None."""
        cells: dict[str, object] = {
            "path": str(prediction.path),
            "error": prediction.error,
            "unknown": prediction.unknown,
            "label": prediction.label,
        }
        pairs = list(zip(prediction.classes, prediction.probabilities, strict=True))
        if self._classes and pairs:
            cells |= {"predicted": pairs[0][0], "confidence": pairs[0][1]}
            cells |= {f"p:{utf8(name)}": value for name, value in pairs}
        for rank, (name, value) in enumerate(pairs, start=1):
            cells |= {f"class_{rank}": name, f"probability_{rank}": value}
        return [cells.get(name) for name in self.header]

    def answer(self, cells: Mapping[str, str]) -> str | None:
        """Return the answer in a row that was read: a class or `unknown`; None for an error."""
        if cells["error"]:
            return None
        if cells.get("unknown"):
            return "unknown"
        return cells["predicted"] if self._classes else cells.get("class_1", "")


Read = tuple[int, str, str | None, str | None]  # end, path, answer and error of a row


def read_csv(file: IO[bytes], columns: Columns) -> Iterator[Read]:
    """Yield the same as `read_lines` from a CSV, where a row may span several lines."""
    at, is_whole = 0, True

    def lines() -> Iterator[str]:
        nonlocal at, is_whole
        for line in file:
            at += len(line)
            is_whole = line.endswith(b"\n")
            yield line.decode("utf-8")

    start = len(to_csv(columns.header, []))
    with suppress(csv.Error, UnicodeDecodeError):
        for row in csv.reader(lines(), strict=True):
            if not is_whole or len(row) != len(columns.header):
                return
            if at > start:
                cells = dict(zip(columns.header, map(from_cell, row), strict=True))
                yield at, cells["path"], columns.answer(cells), cells["error"] or None


def read_lines(file: IO[bytes]) -> Iterator[Read]:
    """Yield each complete row: of answer and error, one is None."""
    at = 0
    for line in file:
        at += len(line)
        try:
            row = json.loads(line)
            answer = "unknown" if row.get("unknown") else "".join(row["classes"][:1])
            error = row["error"]
            found = at, row["path"], None if error is not None else answer, error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if not line.endswith(b"\n"):
            return
        yield found
