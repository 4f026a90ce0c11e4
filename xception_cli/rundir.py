"""RunDir: a run folder, its files by name, its lock."""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from xception_cli.console import quoted, show
from xception_cli.entries import read_entries
from xception_cli.errors import ArtifactError, MachineError, RunBusyError, UsageError
from xception_cli.files import file_digest, is_file, why, write_durably
from xception_cli.numerals import count_of
from xception_cli.records import EpochMetrics, RunInfo, RunResult
from xception_cli.regular import read_regular
from xception_cli.texts import LARGEST_TEXT, read_lines

# File names that are also used outside of a run, or for any of its evaluations.
ISSUES = "issues.csv"
METRICS = "metrics.json"
PREDICTIONS = "predictions.csv"
INFO = "run.json"
LOCK = ".lock"
_NO_FLOCK = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}  # errors of file systems without locks
_HINT = "restore the file from a copy, or start a new run"
T = TypeVar("T")


class _Inside:
    """A file or a folder of a run, by its name; not read or checked."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, run: "RunDir", _: type) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunDir:
    """A run folder. Creating the object does not access the disk."""

    path: Path

    config = _Inside("config.toml")  # all resolved settings
    info = _Inside(INFO)  # command, versions, device, weights, data fingerprint
    split = _Inside("split.csv")  # the split of each image, and why
    issues = _Inside(ISSUES)  # problems found by the data check, to be edited for `--fixes`
    fixes = _Inside("fixes.csv")  # a copy of what `--fixes` named, for runs that begin with this
    metrics = _Inside("metrics.jsonl")  # one JSON object per epoch
    candidates = _Inside("candidates.safetensors")  # each candidate model's predictions on val
    log = _Inside("train.log")  # a copy of stderr
    model = _Inside("model.safetensors")  # the best model so far, self-contained
    report = _Inside("report.html")  # one self-contained page
    card = _Inside("MODEL_CARD.md")  # the model on one page, to pass on with its file
    result = _Inside("result.json")  # written last: it marks a finished run
    checkpoints = _Inside("checkpoints")  # training state for resume
    features = _Inside("features")  # activations of the frozen part, while the run needs them
    decoded = _Inside("decoded")  # decoded images, while the run trains
    tensorboard = _Inside("tensorboard")  # only with `--tensorboard`

    @classmethod
    def of_model(cls, model: Path) -> "RunDir | None":
        """Return the run in whose folder a model file lies; None for a file elsewhere."""
        run = cls(model.parent)
        return run if model.name == run.model.name and run.is_run else None

    def evaluation(self, name: str) -> Path:
        """Return the folder of one evaluation's files."""
        return self.path / "eval" / name

    @property
    def is_run(self) -> bool:
        """Whether this is a run folder, not that of another tool with a run.json, such as Sacred.

        False for a path that cannot be one.
        """
        files = (self.info, self.config)
        return all(os.path.isfile(file) for file in files)  # noqa: PTH113 - Path's raises on odd names

    @property
    def fault(self) -> str | None:
        """Why this is not a run; None if it is one."""
        if is_file(self.info):
            return None
        if not os.path.lexists(self.path):
            return f"the run folder {show(self.path)} does not exist"
        return f"{show(self.path)} is not a run folder (it has no {INFO})"

    @property
    def is_finished(self) -> bool:
        """Whether the run finished."""
        return self.result.is_file()

    @property
    def is_stillborn(self) -> bool:
        """Whether a process was killed before it wrote run.json, so that nothing here is useful."""
        # The log is written first: without it, the other files are the user's.
        if self.info.exists() or not self.log.is_file():
            return False
        first = (self.log, self.config, self.split, self.issues, self.fixes)
        early = {path.name for path in first} | {LOCK}
        names = {path.name for path in self.path.iterdir() if path.suffix != ".partial"}
        return names <= early

    @property
    def is_training(self) -> bool:
        """Whether a training is writing this run now."""
        if not (self.path / LOCK).is_file():
            return False
        try:
            with self.lock():
                return False
        except RunBusyError:
            return True
        except MachineError:  # not ours to lock
            return False

    @property
    def state(self) -> str:
        """`finished`, `running` or `unfinished`."""
        if self.is_finished:
            return "finished"
        return "running" if self.is_training else "unfinished"

    def remove_partial(self) -> None:
        """Remove files that a killed process left half written."""
        for partial in self.path.rglob("*.partial"):
            partial.unlink(missing_ok=True)

    def read_info(self) -> RunInfo:
        """Read run.json.

        Raises:
            ArtifactError: It is missing or damaged.
        """
        info = _read_typed(RunInfo, self.info)
        if info.timed is not None and not info.timed["decisions"]:
            raise ArtifactError(
                f"{show(self.info)} is damaged: timed.decisions is empty", hint=_HINT
            )
        return info

    def read_result(self) -> RunResult:
        """Read result.json.

        Raises:
            UsageError: The run is not finished.
            ArtifactError: It is damaged.
        """
        state = self.state
        if state != "finished":
            resume = f"xception train --resume {quoted(self.path)}"
            raise UsageError(
                f"{show(self.path)} is {state}: it has no results yet",
                hint="wait for it" if state == "running" else resume,
            )
        return _read_typed(RunResult, self.result)

    def check_fixes(self) -> None:
        """Check that fixes.csv is as it was; runs of earlier versions have no digest of it.

        Raises:
            ArtifactError: It has changed, or run.json is damaged.
        """
        recorded = self.read_info().fixes_digest
        if recorded and self.fixes.is_file() and file_digest(self.fixes) != recorded:
            raise ArtifactError(
                f"{show(self.fixes)} has changed since the run began",
                hint="restore the file from a copy; or give the fixes with --fixes FILE",
            )

    def read_metrics(self) -> list[EpochMetrics]:
        """Read metrics.jsonl, a row for each epoch; a run without fine-tuning has none.

        Raises:
            ArtifactError: It is damaged; or it has lost rows of a finished run.
        """
        rows: list[EpochMetrics] = []
        try:
            for line in read_lines(self.metrics, follow=False) if self.metrics.is_file() else ():
                rows.append((row := json.loads(line)) | read_entries(EpochMetrics, row))
        except (OSError, ValueError, RecursionError) as error:
            raise ArtifactError(
                f"{show(self.metrics)} is damaged in line {len(rows) + 1}: {why(error)}",
                hint=_HINT,
            ) from error
        result = self.read_result() if self.is_finished else None
        if result is not None and result.has_tuned:
            least = result.trained_epochs or (1 if result.stopped_early else result.epochs)
            if len(rows) < least:
                raise ArtifactError(
                    f"{show(self.metrics)} has {count_of(len(rows), 'row')}, expected at least "
                    f"{least}, one for each epoch",
                    hint=_HINT,
                )
        return rows

    def update_info(self, changes: Mapping[str, Any]) -> None:
        """Change some entries of run.json; the others are kept."""
        write_json(self.info, read_json(self.info) | dict(changes))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Prevent other processes from writing this run; the kernel releases the lock if we die.

        The lock file is removed at the end; one left behind by a killed process locks nothing.

        Raises:
            RunBusyError: Another process holds the lock; names the process.
        """
        from filelock import FileLock, Timeout  # takes 30 ms; only training needs it

        # Other users of the folder must be able to open it. No soft lock where flock is missing:
        # it would outlive a killed process.
        lock = FileLock(self.path / LOCK, mode=0o666, fallback_to_soft=False)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise RunBusyError(
                f"another training is writing {show(self.path)}{self._owner()}",
                hint="wait for it, or choose another --output",
            ) from error
        except OSError as error:
            if error.errno not in _NO_FLOCK:  # an unlocked run is better than none
                # filelock opens no link.
                reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
                raise MachineError(
                    f"cannot lock {show(self.path / LOCK)}: {reason}",
                    hint="choose another place with --output",
                ) from error
        try:
            yield
        finally:
            # Before the release, because later the file could be another process's. filelock does
            # not accept a lock on a deleted file, which is what a waiting process gets.
            with suppress(OSError):
                (self.path / LOCK).unlink()  # if Windows refuses, filelock removes it
            lock.release()

    def _owner(self) -> str:
        try:
            info = self.read_info()
        except ArtifactError:
            return ""
        return f" (process {info.process}, started {info.started})"


def read_json(path: Path, most: int = LARGEST_TEXT) -> dict[str, Any]:
    """Read a JSON object from a file of a run, which may be untrusted: not a link or a pipe.

    Args:
        path: The file.
        most: Maximum size in bytes.

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    try:
        content = json.loads(read_regular(path, most, follow=False).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"cannot read {show(path)}: {why(error)}", hint=_HINT) from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{show(path)} does not hold a JSON object", hint=_HINT)
    return content


def _read_typed(cls: type[T], path: Path) -> T:
    """Read a JSON object as a dataclass; unknown entries are ignored.

    Raises:
        ArtifactError: The file is missing or damaged, or an entry is missing or of another type.
    """
    content = read_json(path)
    try:
        return read_entries(cls, content)
    except ValueError as error:
        raise ArtifactError(f"{show(path)} is damaged: {error}", hint=_HINT) from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object durably, indented; text that is not UTF-8 stays escaped.

    Raises:
        MachineError: The disk is full, read-only or gone.
    """
    write_durably(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def remove_tree(path: Path) -> None:
    """Remove a folder of a run; it need not exist."""
    shutil.rmtree(path, ignore_errors=True)
