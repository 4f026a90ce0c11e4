"""Trainings of a few seconds, the command line in this process, and ways to interrupt them."""

import fcntl
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from images import SMALL, draw_photos

from xception_cli.files import file_digest
from xception_cli.partial import Rows
from xception_cli.rundir import RunDir, write_json


def quick_settings(photos: Path, weights: Path) -> dict[str, Any]:
    """Return settings of a short training: 2 epochs of 3 iterations at 71 px."""
    return {
        "data": str(photos),
        "weights": str(weights),
        "unfreeze": "exit",
        "image_size": SMALL,
        "val_fraction": 0.3,
        "epochs": 2,
        "batch_size": 5,
        "views": 2,
        "ceiling": 1.0,  # on drawn photos the linear probe reaches it
        "workers": 0,
        "device": "cpu",
        "precision": "fp32",
    }


def train_run(settings: dict[str, Any], run: str = "run", resume: bool = False) -> Any:
    """Run `run_training` on settings, in the folder `run`."""
    from xception_cli.settings import resolve
    from xception_cli.training.run import run_training

    resolved = resolve(settings, None)
    if resume:
        return run_training(resolved, resume=RunDir(Path(run)), flags=settings)
    return run_training(resolved, output=Path(run))


def train_once(folder: Path, settings: dict[str, Any], weights: Path) -> Path:
    """Train `run` on `photos` in a folder, unless another test or worker of this session has."""
    done = folder / "done"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            quick = quick_settings(draw_photos(folder / "photos"), weights)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                patch.setattr("sys.argv", ["xception", "train", "--data", "x"])
                train_run(quick | settings)
            done.touch()
    return folder


def copy_run(folder: Path, into: Path) -> RunDir:
    """Copy `run` and `photos` into another folder; the copy is a run on the copied photos."""
    for name in ("run", "photos"):
        shutil.copytree(folder / name, into / name)
    run = RunDir(into / "run")
    for path in (run.config, run.info):
        text = path.read_text(encoding="utf-8")
        assert str(folder / "photos") in text
        text = text.replace(str(folder / "photos"), str(into / "photos"))
        path.write_text(text, encoding="utf-8")
    return run


def call(*arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    from xception_cli.cli import main

    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def python(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with options of `subprocess.run`, and read its output."""
    line = [sys.executable, *arguments]
    return subprocess.run(line, **{"check": False, "capture_output": True, "text": True} | options)


class Clock:
    """A clock that stands still until it is advanced; calling it returns the time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let no file grow over `size` bytes, as on a full disk.

    The limit applies to the whole process: pytest's own report, if written to a file, fails
    unless the limit is lifted within the test.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Crash(BaseException):
    """Stands for a kill: nothing in the package catches it, and nothing is saved after it."""


def crash() -> None:
    raise Crash


def stop_after(patch: pytest.MonkeyPatch, count: int) -> None:
    """Send SIGINT to `embed` or `rank` when it has the results of so many images."""
    add = Rows.add

    def add_or_stop(rows: Rows, *result: Any) -> None:
        if len(rows.found) == count:
            signal.raise_signal(signal.SIGINT)
        add(rows, *result)

    patch.setattr(Rows, "add", add_or_stop)


def outcome(run: str) -> dict[str, str]:
    """Digest the files that must be equal: the metrics, the model, the final state."""
    folder = Path(run)
    named = [folder / "metrics.jsonl", folder / "model.safetensors"]
    return {path.name: file_digest(path) for path in [*named, *folder.glob("checkpoints/*.json")]}


def write_info(run: RunDir, **changes: Any) -> None:
    """Write run.json, and an empty config.toml, without a training; `...` removes an entry."""
    run.config.touch()
    info = {
        "started": "2026-01-01T10:00:00Z",
        "process": 1,
        "command": "xception train",
        "versions": {"torch": "2"},
        "git_commit": None,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "data": "photos",
        "data_fingerprint": "0" * 64,
        "classes": ["cat", "dog"],
        "images": {"train": 2, "val": 1, "test": 0, "out": 0},
        "weights": {"source": "none", "digest": None},
    }
    write_json(run.info, {n: value for n, value in (info | changes).items() if value is not ...})
