"""RunDir: the names of a run's files; making, locking and finding runs."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from xception_cli.console import quoted, show
from xception_cli.errors import ArtifactError, MachineError, RunBusyError, UsageError
from xception_cli.files import write_durably

RUNS = Path("runs")
# File names that are needed outside of a run, too, or for any of its evaluations.
ISSUES = "issues.csv"
METRICS = "metrics.json"
PREDICTIONS = "predictions.csv"
_INFO = "run.json"
_LOCK = ".lock"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What run.json holds: how a run was started. Entries with a default came with later versions.

    Attributes:
        started: When, in UTC; ISO 8601, so that later is greater.
        process: Which process writes the run, or wrote it last.
        command: The command line.
        versions: Of what computes, by package.
        git_commit: Of the user's own repository, if there is one.
        device: Where it was computed, as for the following.
        precision: Of the network's arithmetic.
        threads: Of torch.
        processes: That train together.
        data: The data folder, an absolute path.
        data_fingerprint: SHA-256 over the images.
        classes: Names, in the order of the outputs.
        images: Their number by split.
        weights: `source` and `digest` of those that training started from.
        timed: The record of a time budget.
    """

    started: str
    process: int
    command: str
    versions: dict[str, str]
    git_commit: str | None
    device: str
    precision: str
    threads: int
    data_fingerprint: str
    classes: list[str]
    images: dict[str, int]
    weights: dict[str, str | None]
    data: str | None = None
    processes: int = 1
    tf32: bool = False
    timed: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What result.json holds: how a run ended.

    Attributes:
        kept: `the linear probe`, or `fine-tuned, epoch N`.
        epochs: Of training.
        seconds: Spent per phase.
        stopped_early: Patience ran out.
        probe: Validation scores of the linear probe; None from random weights.
        evaluation: Accuracy to expect on images like those of each split.
        calibration: What calibration found; None where it was not done.
        gains: Classes that more images are likely to help.
    """

    kept: str
    epochs: int
    seconds: dict[str, float]
    stopped_early: bool = False
    probe: dict[str, Any] | None = None
    evaluation: dict[str, float]
    calibration: dict[str, Any] | None = None
    gains: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class RunDir:
    """A run folder. Making the object touches nothing."""

    path: Path

    @property
    def config(self) -> Path:
        """Every setting, resolved."""
        return self.path / "config.toml"

    @property
    def info(self) -> Path:
        """Command, versions, device, weights, data fingerprint."""
        return self.path / _INFO

    @property
    def split(self) -> Path:
        """Which image is in which split, and why."""
        return self.path / "split.csv"

    @property
    def issues(self) -> Path:
        """What the data check found, to be edited and given to `--fixes`."""
        return self.path / ISSUES

    @property
    def metrics(self) -> Path:
        """One JSON object per epoch."""
        return self.path / "metrics.jsonl"

    @property
    def candidates(self) -> Path:
        """What each candidate model answered on val."""
        return self.path / "candidates.safetensors"

    @property
    def log(self) -> Path:
        """What stderr showed."""
        return self.path / "train.log"

    @property
    def model(self) -> Path:
        """The best model so far, self-contained."""
        return self.path / "model.safetensors"

    @property
    def report(self) -> Path:
        """One page with everything, to look at."""
        return self.path / "report.html"

    @property
    def result(self) -> Path:
        """Written last: the run ended by itself."""
        return self.path / "result.json"

    @property
    def checkpoints(self) -> Path:
        """Training state for resume."""
        return self.path / "checkpoints"

    @property
    def features(self) -> Path:
        """What the frozen part computed; there only while the run needs it."""
        return self.path / "features"

    @property
    def decoded(self) -> Path:
        """Images as every epoch takes them; there only while the run trains."""
        return self.path / "decoded"

    @property
    def tensorboard(self) -> Path:
        """The live view's log; there only if `--tensorboard` asked for it."""
        return self.path / "tensorboard"

    def evaluation(self, name: str) -> Path:
        """Folder of one evaluation's files."""
        return self.path / "eval" / name

    @property
    def is_finished(self) -> bool:
        """Whether the run ended by itself."""
        return self.result.is_file()

    def read_info(self) -> RunInfo:
        """Read run.json.

        Raises:
            ArtifactError: It is missing or damaged.
        """
        return _typed(RunInfo, self.info)

    def read_result(self) -> RunResult:
        """Read result.json.

        Raises:
            ArtifactError: It is missing or damaged.
        """
        return _typed(RunResult, self.result)

    def update_info(self, changes: Mapping[str, Any]) -> None:
        """Change some entries of run.json; the others stay."""
        write_json(self.info, read_json(self.info) | dict(changes))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other process from writing this run; the kernel lets go if we die.

        The lock file is removed at the end; one that a killed process leaves behind locks nothing.

        Raises:
            RunBusyError: Another process has it; names the process.
        """
        from filelock import FileLock, Timeout  # 30 ms that no other command needs

        # Other users of the folder must be able to open it. No soft lock where flock is missing:
        # that would outlive a killed process.
        lock = FileLock(self.path / _LOCK, mode=0o666, fallback_to_soft=False)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise RunBusyError(
                f"another training is writing {show(self.path)}{self._owner()}",
                hint="wait for it, or give this one another --output",
            ) from error
        except OSError:
            pass  # a file system without flock: better an unlocked run than none
        try:
            yield
        finally:
            # Before the release: after it, the file could be another's. filelock does not accept a
            # lock on a file without a name, which is what a process that waits for this one gets.
            with suppress(OSError):
                (self.path / _LOCK).unlink()  # where Windows refuses, filelock removes it
            lock.release()

    def _owner(self) -> str:
        try:
            info = self.read_info()
            return f" (process {info.process}, started {info.started})"
        except ArtifactError:
            return ""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a run.

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {show(path)}: {show(error)}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{show(path)} does not hold a JSON object")
    return content


def _typed(kind: type[T], path: Path) -> T:
    """Read a JSON object as a dataclass: what is missing, or of another type, is refused."""
    content, hints = read_json(path), get_type_hints(kind)
    found = {}
    for entry in fields(kind):  # type: ignore[arg-type]
        if entry.name not in content:
            if entry.default is MISSING and entry.default_factory is MISSING:
                raise ArtifactError(f"{show(path)} is damaged: it lacks {entry.name}")
            continue
        value, hint = content[entry.name], hints[entry.name]
        types = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if not isinstance(value, tuple(get_origin(type_) or type_ for type_ in types)):
            raise ArtifactError(
                f"{show(path)} is damaged: {entry.name} is {show(repr(value))}, expected "
                f"{show(getattr(hint, '__name__', str(hint)))}"
            )
        found[entry.name] = value
    return kind(**found)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object durably, indented for people; text that is not UTF-8 stays escaped.

    Raises:
        MachineError: The disk is full, read-only or gone.
    """
    write_durably(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def choose_run_path(data: Path, output: Path | None) -> Path:
    """Decide where a new run goes, and see that it can be made there.

    Args:
        data: The data folder; without `output` its name names the run.
        output: The folder asked for.

    Raises:
        UsageError: `output` already holds something, or the run would lie inside the data.
        MachineError: The folder cannot be written.
    """
    path = RUNS if output is None else output
    try:
        if path.resolve().is_relative_to(data.resolve()):
            raise UsageError(
                f"the run folder {show(path)} would lie inside the data folder {show(data)}",
                hint="choose a place outside with --output",
            )
        if output is not None:
            if os.path.lexists(output) and not (output.is_dir() and _is_empty(output)):
                raise UsageError(
                    f"{show(output)} already exists and is not empty",
                    hint=f"xception train --resume {quoted(output)}, or another --output",
                )
        else:
            name = data.resolve().name or "data"
            path = RUNS / name
            number = 1
            while os.path.lexists(path):  # a link to nothing takes a name too
                number += 1
                path = RUNS / f"{name}-{number}"
        ancestor = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
        writable = ancestor.is_dir() and os.access(ancestor, os.W_OK | os.X_OK)
    except OSError as error:  # a folder above it cannot be searched
        raise _cannot_make(path, str(error.strerror)) from error
    if not writable:
        raise _cannot_make(path, f"{show(ancestor)} is not writable")
    return path


def _is_empty(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= {_LOCK}  # of a process that was killed


def _cannot_make(path: Path, reason: str) -> MachineError:
    return MachineError(
        f"cannot make the run folder {show(path)}: {reason}",
        hint="choose another place with --output",
    )


def make_run(data: Path, output: Path | None) -> RunDir:
    """Make the folder of a new run.

    Raises:
        UsageError: `output` already holds something.
        MachineError: The folder cannot be made.
    """
    while True:
        path = choose_run_path(data, output)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(exist_ok=output is not None)
        except FileExistsError:
            continue  # another process took the name between the look and the making
        except OSError as error:
            raise _cannot_make(path, str(error.strerror)) from error
        return RunDir(path)


def find_run(path: Path | None, *, finished: bool = True) -> RunDir:
    """Return the run at `path`, or the one in `runs/` that was started last.

    Args:
        path: A run folder; None for the latest.
        finished: Among the latest, consider only runs that ended by themselves.

    Raises:
        UsageError: There is no such run.
    """
    if path is not None:
        run = RunDir(path)
        if not run.info.is_file():
            raise UsageError(
                f"{show(path)} is not a run folder (it has no run.json)",
                hint="give the folder that xception train made, runs/food for instance",
            )
        return run
    candidates = [run for run in runs_in(RUNS) if run.is_finished or not finished]
    if not candidates:
        what = "finished run" if finished else "run"
        raise UsageError(
            f"there is no {what} in {show(RUNS.absolute())}",
            hint="xception train --data DIR makes one; or name a run folder",
        )
    return max(candidates, key=_started)


def runs_in(folder: Path) -> list[RunDir]:
    """List the runs in a folder, in no order."""
    return [RunDir(info.parent) for info in folder.glob(f"*/{_INFO}")]


def _started(run: RunDir) -> str:
    try:
        return run.read_info().started
    except ArtifactError:  # damaged; it must not hide the others
        return ""


def remove_tree(path: Path) -> None:
    """Remove a folder of ours; one that is gone already is fine."""
    shutil.rmtree(path, ignore_errors=True)
