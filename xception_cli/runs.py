"""Runs: choosing the folder of a new run, and finding a run."""

import glob
import os
from contextlib import suppress
from pathlib import Path

from xception_cli.console import quoted, show
from xception_cli.errors import ArtifactError, MachineError, UsageError
from xception_cli.files import require_writable
from xception_cli.rundir import INFO, LOCK, RunDir
from xception_cli.suggestions import nearest

RUNS = Path("runs")


def choose_run_path(data: Path, output: Path | None) -> Path:
    """Choose the folder of a new run, and check that it can be created.

    Args:
        data: The data folder or table; without `output`, the run is named after it.
        output: The requested folder.

    Raises:
        UsageError: `output` is not empty, or is inside the data folder.
        MachineError: The folder cannot be written.
    """
    path = RUNS if output is None else output
    try:
        if path.resolve().is_relative_to(data.resolve()):
            beside = run_path_beside(data) if output is None else None
            raise UsageError(
                f"the run folder {show(path)} would be inside the data folder {show(data)}",
                hint=f"--output {quoted(beside)}"
                if beside
                else "choose a folder outside of it with --output",
            )
        if output is not None:
            if os.path.lexists(output) and not (output.is_dir() and _is_free(RunDir(output))):
                is_run = RunDir(output).is_run
                resume = f"xception train --resume {quoted(output)}, or " if is_run else ""
                raise UsageError(
                    f"{show(output)} already exists and is not empty",
                    hint=f"{resume}another --output",
                )
        else:
            path = _free_path(RUNS, data)
    except OSError as error:  # a folder above it cannot be searched
        raise _cannot_make(path, str(error.strerror)) from error
    require_writable(path, f"cannot create the run folder {show(path)}")
    return path


def run_path_beside(data: Path) -> Path | None:
    """Return a new run folder outside of a data folder that the current one is in, else None."""
    around = folder_around(data)
    return None if around is None else _free_path(around / RUNS, data)


def folder_around(data: Path) -> Path | None:
    """Return the folder around a data folder that the current one is in, else None."""
    real = data.resolve()
    if real == real.parent or not Path.cwd().resolve().is_relative_to(real):
        return None
    return Path(os.path.relpath(real.parent))


def _free_path(runs: Path, data: Path) -> Path:
    name = name_after(data)
    path = runs / name
    number = 1
    while os.path.lexists(path):  # a broken link takes a name, too
        number += 1
        path = runs / f"{name}-{number}"
    return path


def name_after(data: Path) -> str:
    """Return the name for what is made of a folder, or of a table of images: without its suffix."""
    real = data.resolve()
    is_table = os.path.isfile(real)  # noqa: PTH113 - one that cannot be read is reported later
    return (real.stem if is_table else real.name) or "data"


def _is_free(run: RunDir) -> bool:
    """Return whether a folder is empty, or has only what a run killed at its start leaves."""
    return {path.name for path in run.path.iterdir()} <= {LOCK} or run.is_stillborn


def _cannot_make(path: Path, reason: str) -> MachineError:
    return MachineError(
        f"cannot create the run folder {show(path)}: {reason}",
        hint="choose another folder with --output",
    )


def make_run(data: Path, output: Path | None) -> RunDir:
    """Create the folder of a new run.

    Raises:
        UsageError: `output` is not empty.
        MachineError: The folder cannot be created.
    """
    while True:
        path = choose_run_path(data, output)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(exist_ok=output is not None)
        except FileExistsError:
            continue  # another process took the name in the meantime
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
        if run.is_stillborn:
            raise UsageError(
                f"{show(path)} was killed before its first step: there is nothing to resume",
                hint=f"start it again: xception train DIR --output {quoted(path)}",
            )
        if run.fault is not None:
            near = nearest(path.name, [other.path.name for other in runs_next_to(path)])
            raise UsageError(
                run.fault,
                hint=f"did you mean {quoted(path.with_name(near))}?"
                if near
                else "give a folder that xception train created, such as runs/food",
            )
    else:
        run = _latest(finished=finished)
    refuse_links(run)
    return run


def _latest(*, finished: bool) -> RunDir:
    every = runs_in(RUNS)
    candidates = [run for run in every if run.is_finished or not finished]
    if candidates:
        return max(candidates, key=_started)
    if every:
        newest = max(every, key=_started)
        refuse_links(newest)
        name, state = show(newest.path), newest.state
        resume = f"xception train --resume {quoted(newest.path)}"
        raise UsageError(
            f"there is no finished run in {show(RUNS.absolute())}: {name} is {state}",
            hint="wait for it" if state == "running" else resume,
        )
    raise UsageError(
        f"there is no {'finished run' if finished else 'run'} in {show(RUNS.absolute())}",
        hint="xception train DIR makes one; or name a run folder",
    )


def refuse_links(run: RunDir) -> None:
    """Check that a run folder has only regular files, before one is read or written.

    The folder may come from anyone, and a link could redirect what is written into the run.

    Raises:
        ArtifactError: It has a link, a pipe or a device; or it cannot be read.
    """
    folders = [os.fspath(run.path)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        raise _foreign_entry(run, entry)
        except FileNotFoundError:
            continue  # the training that writes the run has just removed it
        except OSError as error:
            where = show(error.filename or run.path)
            raise ArtifactError(f"cannot read {where}: {error.strerror}") from error


def _foreign_entry(run: RunDir, entry: "os.DirEntry[str]") -> ArtifactError:
    if not entry.is_symlink():
        return ArtifactError(
            f"{show(entry.path)} is not a regular file; a run folder must have regular files only",
            hint=f"rm {quoted(entry.path)}",
        )
    target = Path(entry.path).readlink()
    return ArtifactError(
        f"{show(entry.path)} is a link to {show(target)}; a run folder must have no links",
        hint=f"if you made the link yourself: cp -rL {quoted(run.path)} COPY, then use COPY",
    )


def find_unfinished(data: Path) -> RunDir | None:
    """Return the latest run in `runs/` that was started on a data folder and has not ended.

    Returns:
        None if there is none, or if it is still being trained.
    """
    name = name_after(data)
    runs = [RunDir(path) for path in RUNS.glob(f"{glob.escape(name)}*")]
    started = [run for run in runs if not run.is_finished and _is_of(run, data)]
    if not started:
        return None
    latest = max(started, key=_started)
    return None if latest.is_training else latest


def _is_of(run: RunDir, data: Path) -> bool:
    try:
        refuse_links(run)
    except ArtifactError:
        return False
    return data_of(run) == data.absolute()


def data_of(run: RunDir) -> Path | None:
    """Return the data folder or table that a run records; None if it does not, or is damaged."""
    try:
        data = run.read_info().data
    except ArtifactError:
        return None
    return Path(data) if data else None


def runs_next_to(path: Path) -> list[RunDir]:
    """List the runs in the folder of a path that may be that of another run, mistyped."""
    with suppress(OSError, ValueError):
        return runs_in(path.parent) if path.name else []
    return []


def runs_in(folder: Path) -> list[RunDir]:
    """List the runs in a folder, in no order."""
    return [RunDir(info.parent) for info in folder.glob(f"*/{INFO}")]


def _started(run: RunDir) -> str:
    try:
        return run.read_info().started
    except ArtifactError:  # damaged; it must not hide the others
        return ""
