"""What an evaluation said of each image, read back from its predictions.csv."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xception_cli.console import quoted, show
from xception_cli.errors import ArtifactError
from xception_cli.evaluation.report import PREDICTIONS
from xception_cli.files import from_csv
from xception_cli.rundir import RunDir, read_json


@dataclass(frozen=True)
class Scored:
    """The images that were scored, in their order.

    Attributes:
        classes: Names, in the order of the model's outputs.
        paths: Relative to the data folder.
        digests: Of their content.
        labels: `(images,)`, true classes.
        probabilities: `(images, classes)`.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    digests: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def guesses(self) -> NDArray[np.int64]:
        """The most probable class of each, `(images,)`."""
        guesses: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return guesses


def read_scored(run: RunDir, name: str) -> Scored:
    """Read an evaluation of a run.

    Args:
        run: The run.
        name: Of the evaluation, `val` for instance.

    Raises:
        ArtifactError: A file of it is missing, damaged, or of an earlier version.
    """
    folder = run.evaluation(name)
    try:
        classes = tuple(row["name"] for row in read_json(folder / "metrics.json")["per_class"])
        header = [*PREDICTIONS, *(f"p:{label}" for label in classes)]
        rows = [
            dict(zip(header, row, strict=True))
            for row in from_csv(folder / "predictions.csv", header)
        ]
        rows = [row for row in rows if not row["error"]]
        index = {label: place for place, label in enumerate(classes)}
        return Scored(
            classes,
            tuple(row["path"] for row in rows),
            tuple(row["digest"] for row in rows),
            np.array([index[row["true"]] for row in rows], dtype=np.int64),
            np.array([_numbers(row, header) for row in rows]).reshape(len(rows), len(classes)),
        )
    except (ArtifactError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"cannot use the evaluation {show(folder)}: {show(error)}",
            hint=f"xception eval {quoted(run.path)} makes it again",
        ) from error


def _numbers(row: dict[str, Any], header: list[str]) -> list[float]:
    return [float(row[name]) for name in header[len(PREDICTIONS) :]]
