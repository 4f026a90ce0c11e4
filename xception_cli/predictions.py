"""PredictionFile: predictions in a .csv or .jsonl file, written row by row and resumable.

Rows are written to the partial file (`partial.py`), which is renamed to NAME at the end. If the
command is stopped, NAME becomes a hard link to it, so that the rows so far are found there.
"""

import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from xception_cli.columns import Columns, read_csv, read_lines
from xception_cli.console import say, show
from xception_cli.csv_files import to_csv
from xception_cli.data.lists import PathList
from xception_cli.errors import UsageError
from xception_cli.files import check_new_file, utf8
from xception_cli.numerals import count_of, percentage
from xception_cli.partial import PartialFile, open_partial, other_partials, partial_of

if TYPE_CHECKING:  # no torch: an unwritable file is reported before it loads
    from xception_cli.inference import Prediction

SUFFIXES = (".csv", ".jsonl")
_USUAL = 0.15  # share of images unlike the training images that is not reported
_SHOWN = 20  # classes in one line


class Tally:
    """Counts of answers.

    Args:
        labels: Labels of the images from a table, in order; empty without a table.

    Attributes:
        labels: See above.
        answers: Number of images by answer: a class, `unknown`, or None for an error.
        first_failure: Path of the first image that could not be read, and the reason.
        agreed: Number of answers that equal the label.
        unlike: Number of images unlike the training images, of the `compared` ones: those of rows
            that an earlier command wrote are not.
    """

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.labels = [utf8(label) for label in labels]
        self.answers: Counter[str | None] = Counter()
        self.first_failure: str | None = None
        self.agreed = self.unlike = self.compared = 0

    @property
    def done(self) -> int:
        """Number of images counted."""
        return self.answers.total()

    @property
    def failed(self) -> int:
        """Number of images that could not be read."""
        return self.answers[None]

    def describe(self) -> list[str]:
        """Describe how often each class was predicted, and how often that equals the label."""
        named = [(n, name) for name, n in self.answers.items() if name is not None]
        named.sort(key=lambda pair: (-pair[0], pair[1]))
        counts = ", ".join(f"{show(name)} {n:,}" for n, name in named[:_SHOWN])
        more = f" and {len(named) - _SHOWN:,} more" if len(named) > _SHOWN else ""
        lines = [f"classes   {counts}{more}"] if named else []
        if self.labels and named:
            answered = self.done - self.failed
            images = count_of(answered, "image")
            share = f"{percentage(self.agreed / answered)} ({self.agreed:,} of {images})"
            lines += [
                f"labels    predicted as in the table: {share}",
                "          including images that the model was trained on, if there are any: "
                "xception eval --data leaves them out",
            ]
        return lines

    def unlike_line(self) -> str | None:
        """Warn if more images are unlike the training images than is usual; None if not.

        Few of the images like val's are, but the limit is estimated from val, which may be small. A
        single image is reported by itself.
        """
        count, share = self.compared, _USUAL
        least = share * count + 3 * math.sqrt(share * (1 - share) * count)
        if self.unlike < min(count, least) or not self.unlike:
            return None
        if count == 1:
            return (
                "this image is unlike the training images; its answer means little: --unknown auto "
                "refuses it"
            )
        return (
            f"{self.unlike:,} of {count_of(count, 'image')} are unlike the training images; their "
            "answers mean little: --unknown auto refuses them"
        )

    def add(
        self, answer: str | None, *, unlike: bool | None = None, failure: str | None = None
    ) -> None:
        """Count the answer for the next image.

        Args:
            answer: See `answers`.
            unlike: Whether it is unlike the training images; None if that was not computed.
            failure: Its path and error, if there is no answer.
        """
        if answer is None and self.first_failure is None:
            self.first_failure = failure
        if answer is not None and unlike is not None:
            self.compared += 1
            self.unlike += unlike
        if self.labels and answer is not None:
            self.agreed += self.labels[self.done] == utf8(answer)
        self.answers[None if answer is None else utf8(answer)] += 1


class PredictionFile:
    """An open partial file; see `open_predictions`.

    Attributes:
        path: Path of the partial file.
        tally: Counts of its rows.
    """

    def __init__(
        self, file: PartialFile, images: Sequence[Path] | PathList, tally: Tally, *, as_csv: bool
    ) -> None:
        self.path = file.path
        self.tally = tally
        self._file, self._images, self._as_csv = file, images, as_csv
        self._columns: Columns | None = None  # until `begin`

    @property
    def done(self) -> int:
        """Number of rows."""
        return self.tally.done

    def begin(self, count: int, classes: Sequence[str] = (), *, with_unknown: bool) -> None:
        """Read the existing rows, and truncate the file after the last complete one.

        Args:
            count: Number of classes in each row.
            classes: See `Columns`.
            with_unknown: Whether a CSV has a column with the reason of each `unknown`.

        Raises:
            MachineError: The disk is full.
        """
        self._columns = columns = Columns(
            count, classes, with_unknown=with_unknown, with_label=bool(self.tally.labels)
        )
        size = 0
        with self._file.read() as file:
            rows = read_csv(file, columns) if self._as_csv else read_lines(file)
            for image, (end, path, answer, error) in zip(self._images, rows, strict=False):
                if path != utf8(str(image)):
                    break
                size = end
                self.tally.add(answer, failure=f"{path}: {error}")
        self._file.resume(size, self.done, len(self._images))
        if size == 0 and self._as_csv:
            self._file.append(to_csv(columns.header, []), images=0)

    def add(self, prediction: "Prediction") -> None:
        """Append the row of the next image.

        Raises:
            MachineError: The disk is full; earlier rows are kept.
        """
        if self._as_csv and self._columns is not None:
            content = to_csv(self._columns.row(prediction), [])  # a row by itself
        else:
            content = f"{json.dumps(prediction.to_dict(), allow_nan=False)}\n".encode()
        self._file.append(content)
        failure = f"{utf8(str(prediction.path))}: {prediction.error}"
        self.tally.add(prediction.answer, unlike=prediction.unlike, failure=failure)

    def finish(self, path: Path) -> None:
        """Rename the complete file to its final path.

        Raises:
            UsageError: Another file was created there in the meantime.
            MachineError: The disk is full.
        """
        if os.path.lexists(path):
            raise UsageError(
                f"{show(path)} was created by another program in the meantime",
                hint=f"the predictions are in {show(self.path)}",
            )
        self._file.rename(path)

    def stop(self, path: Path) -> None:
        """Close the file; if it has rows, keep them as the output so far."""
        has_begun, has_rows = self._columns is not None, self.done > 0
        with suppress(OSError):
            has_rows = has_rows or (not has_begun and self.path.stat().st_size > 0)
        self._file.close()
        if has_rows:
            try:
                os.link(self.path, path)
            except OSError:  # another file is there, or the file system has no hard links
                path = self.path
            rows = count_of(len(self._images), "row")
            count = f"{self.done:,} of {rows}" if has_begun else "unchanged"
            say(f"kept      {show(path)}: {count}; the same command resumes there")
        else:
            with suppress(OSError):
                self.path.unlink()


@contextmanager
def open_predictions(
    path: Path,
    images: Sequence[Path] | PathList,
    options: Iterable[object],
    tally: Tally | None = None,
) -> Iterator[PredictionFile]:
    """Open the partial file of predictions, new or left by the same command when it stopped.

    Args:
        path: A new .csv or .jsonl file, created when all images have a row.
        images: The images, in the order of the rows.
        options: What else the rows depend on: the model's digest and all options.
        tally: Counts the rows; its labels, if any, become a column.

    Raises:
        UsageError: See `files.check_new_file`.
        MachineError: The folder cannot be written.
        RunBusyError: The same command is running.
    """
    tally = tally or Tally()
    partial = partial_of(path, images, (*options, tally.labels))
    if _is_same_file(path, partial):
        path.unlink()  # the rows stay in the partial file
    if any(_is_same_file(path, other) for other in other_partials(path, partial)):
        raise UsageError(
            f"{show(path)} has the rows of a stopped command with another model, other images "
            "or other options",
            hint=f"run that command again, remove {show(path)}, or choose another --output",
        )
    check_new_file(path, SUFFIXES, "write predictions to")
    as_csv = path.suffix.lower() == ".csv"
    with open_partial(partial) as opened:
        file = PredictionFile(opened, images, tally, as_csv=as_csv)
        try:
            yield file
            file.finish(path)
        except BaseException:
            file.stop(path)
            raise


def _is_same_file(path: Path, partial: Path) -> bool:
    """Return whether an output is a link to the partial file, left by a stopped command."""
    try:
        status = partial.lstat()
        return os.path.samestat(path.lstat(), status) and stat.S_ISREG(status.st_mode)
    except OSError:
        return False
