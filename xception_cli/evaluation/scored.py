"""Scored: the images of an evaluation and the model's answers; and their file, predictions.csv."""

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xception_cli.console import quoted, show
from xception_cli.csv_files import MOST_ROWS, from_csv, to_csv
from xception_cli.data.layout import SPLITS
from xception_cli.data.photo import Photo
from xception_cli.errors import ArtifactError
from xception_cli.files import utf8, why
from xception_cli.rundir import METRICS, PREDICTIONS, RunDir, read_json
from xception_cli.texts import LARGEST_TEXT, read_lines

# Columns of predictions.csv before the probabilities, which are `p:` and the class.
PREDICTIONS_HEADER = ("path", "digest", "unit", "true", "predicted", "correct", "unknown", "error")
_DIGEST = re.compile(",([0-9a-f]{32}),")  # see `inspection.content_digest`
_CELL = 20  # bytes of a number of the confusion matrix in metrics.json, at most
_OLD_HEADER = tuple(name for name in PREDICTIONS_HEADER if name != "unit")  # of earlier versions


@dataclass(frozen=True)
class Scored:
    """The images of an evaluation, in order, and the model's answers.

    Attributes:
        classes: Names, in the order of the model's outputs.
        photos: The images; `problem` is set if one could not be scored.
        probabilities: `(images, classes)`, float32; nan if an image could not be scored.
        unknown: Why `predict --unknown auto` would refuse an answer; None if it would not.
    """

    classes: tuple[str, ...]
    photos: tuple[Photo, ...]
    probabilities: NDArray[np.float32]
    unknown: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if not len(self.photos) == len(self.probabilities) == len(self.unknown):
            raise ValueError("one row of probabilities for each image is needed")

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """True classes, `(images,)`."""
        return np.array([photo.label for photo in self.photos], np.int64)

    @cached_property
    def units(self) -> NDArray[np.str_]:
        """The unit of each image, `(images,)`."""
        return np.array([photo.unit for photo in self.photos], np.str_)

    @cached_property
    def guesses(self) -> NDArray[np.int64]:
        """The most probable class of each image, `(images,)`."""
        guesses: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return guesses

    @cached_property
    def hits(self) -> NDArray[np.bool_]:
        """Whether the most probable class is the true one, `(images,)`."""
        hits: NDArray[np.bool_] = self.guesses == self.labels
        return hits

    @cached_property
    def confidences(self) -> NDArray[np.float64]:
        """Probability of the most probable class, `(images,)`."""
        confidences: NDArray[np.float64] = self.probabilities.max(axis=1).astype(np.float64)
        return confidences

    @property
    def failures(self) -> list[Photo]:
        """Images that could not be scored."""
        return [photo for photo in self.photos if photo.problem is not None]

    def sound(self) -> "Scored":
        """Return the images that were scored, without the others."""
        kept = [at for at, photo in enumerate(self.photos) if photo.problem is None]
        if len(kept) == len(self.photos):  # not copied
            return self
        return Scored(
            self.classes,
            tuple(self.photos[at] for at in kept),
            self.probabilities[kept],
            tuple(self.unknown[at] for at in kept),
        )


def predictions_csv(scored: Scored) -> Iterator[bytes]:
    """Yield the content of predictions.csv: the header, and one row for each image."""
    yield to_csv([*PREDICTIONS_HEADER, *(f"p:{utf8(name)}" for name in scored.classes)], [])
    # As `to_csv` writes them; with a thousand classes, a call for each number would take minutes.
    numbers = ",%.6g" * len(scored.classes)
    for at, (photo, row) in enumerate(zip(scored.photos, scored.probabilities, strict=True)):
        known = [photo.path, photo.digest, photo.unit, scored.classes[photo.label]]
        if photo.problem is not None:
            yield to_csv([*known, None, None, None, photo.problem, *[None] * len(row)], [])
            continue
        guess = scored.classes[scored.guesses[at]]
        answer = (guess, int(scored.hits[at]), scored.unknown[at], None)
        cells = to_csv([*known, *answer], [])
        yield cells[:-1] + (numbers % tuple(row.tolist())).encode() + cells[-1:]


def read_metrics(run: RunDir, name: str) -> dict[str, Any]:
    """Read metrics.json of an evaluation as plain data.

    Raises:
        ArtifactError: The file is missing, or is no JSON object.
    """
    classes = run.read_info().classes if run.is_run else ()
    most = LARGEST_TEXT + _CELL * len(classes) ** 2
    return read_json(run.evaluation(name) / METRICS, most)


def how_to_repeat(run: RunDir, name: str) -> str:
    """Return the hint for an evaluation whose files cannot be used."""
    try:
        is_past = name == "val" and run.is_finished and run.read_result().refit
    except ArtifactError:
        is_past = False
    if is_past:
        return "restore the file from a copy: the head was fitted to val after it was measured"
    images = f"--split {name}" if name in SPLITS else "--data DIR"
    return f"xception eval {quoted(run.path)} {images} regenerates it"


def read_scored(run: RunDir, name: str) -> Scored:
    """Read the scored images of a run's evaluation.

    The confusion matrix in metrics.json shows whether rows were lost or changed. In a file of an
    earlier version, identical images form a unit.

    Raises:
        ArtifactError: A file of it is missing, damaged, or from an earlier version.
    """
    folder = run.evaluation(name)
    try:
        metrics = read_metrics(run, name)
        classes = tuple(row["name"] for row in metrics["per_class"])
        index = {label: place for place, label in enumerate(classes)}
        probabilities = [f"p:{label}" for label in classes]
        new, old = ([*columns, *probabilities] for columns in (PREDICTIONS_HEADER, _OLD_HEADER))
        most = metrics["images"] + MOST_ROWS  # rows of images that could not be scored come on top
        photos: list[Photo] = []
        unknown: list[str | None] = []
        counts = np.zeros((len(classes), len(classes)), np.int32)
        numbers = array("f")  # with a thousand classes, a row as text takes 15 times the memory
        for row in from_csv(folder / PREDICTIONS, new, old, most=most):
            columns = PREDICTIONS_HEADER if len(row) == len(new) else _OLD_HEADER
            known = dict(zip(columns, row, strict=False))
            if not known["error"]:
                label, guess = (_label(index, known[name]) for name in ("true", "predicted"))
                photos.append(_photo(known, label))
                unknown.append(known["unknown"] or None)
                counts[label, guess] += 1
                numbers.extend(map(_number, row[len(columns) :]))
        _check_counts(counts, metrics["confusion"])
        rows = np.asarray(numbers).reshape(len(photos), len(classes))
        return Scored(classes, tuple(photos), _checked(rows), tuple(unknown))
    except (ArtifactError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"cannot use the evaluation {show(folder)}: {show(error)}",
            hint=how_to_repeat(run, name),
        ) from error


def read_digests(run: RunDir, name: str) -> set[str]:
    """Find the digests of an evaluation's images, without reading their probabilities.

    Raises:
        ArtifactError: Its predictions.csv is missing, or is no text.
    """
    path = run.evaluation(name) / PREDICTIONS
    try:
        return {found[1] for line in read_lines(path) if (found := _DIGEST.search(line))}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {show(path)}: {why(error)}") from error


def _photo(row: dict[str, str], label: int) -> Photo:
    return Photo(row["path"], label, digest=row["digest"], unit=row.get("unit", row["digest"]))


def _label(index: Mapping[str, int], name: str) -> int:
    if name not in index:
        raise ValueError(f"{PREDICTIONS} has the unknown class {show(name)}")
    return index[name]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{PREDICTIONS} has {show(repr(cell))} instead of a probability") from None


def _check_counts(found: NDArray[np.int32], recorded: list[list[int]]) -> None:
    rows = zip(found, recorded, strict=True)  # by rows, as there may be thousands of classes
    if not all(np.array_equal(row, counts) for row, counts in rows):
        raise ValueError(f"{PREDICTIONS} and {METRICS} count different answers")


def _checked(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    if not ((numbers >= 0) & (numbers <= 1)).all():  # nan is neither
        raise ValueError(f"{PREDICTIONS} has impossible probabilities")
    sums = numbers.sum(axis=1, dtype=np.float64)
    if not np.allclose(sums, 1, atol=2e-3):  # an export's may be off by 1e-3
        raise ValueError(f"{PREDICTIONS} has probabilities that do not add up to 1")
    return numbers
