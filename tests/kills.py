"""Trainings in separate processes, which are killed at random moments and resumed.

Each is forked from a server that has loaded torch, so that starting takes little time. It reports
the place that it is in, so that a kill can be aimed at short places.
"""

import errno
import importlib
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from xception_cli.files import file_digest

TRAINING = "xception_cli.training"
# The functions that are places, named as in the module that calls them.
PLACES = {
    "scan and split": (f"{TRAINING}.preparation", "draft_job"),
    "start of the run": (f"{TRAINING}.run", "start_job"),
    "reopening": (f"{TRAINING}.run", "reopen_job"),
    "features": (f"{TRAINING}.baseline", "compute_store"),
    "features, pooled": (f"{TRAINING}.baseline", "pool_views"),
    "probe": (f"{TRAINING}.baseline", "_fit_probes"),
    "training": (f"{TRAINING}.run", "_fine_tune"),
    "validation": (f"{TRAINING}.handlers", "validate"),
    "selection": (f"{TRAINING}.run", "settle"),
    "final evaluation": (f"{TRAINING}.run", "judge_together"),
    "calibration": (f"{TRAINING}.finish", "_calibrate"),
    "refit": (f"{TRAINING}.finish", "refit"),
    "report": (f"{TRAINING}.finish", "write_report"),
    "write": ("xception_cli.files", "_write_and_sync"),  # with the name of the file
}
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["xception_cli.training.run", "xception_cli.commands.train", "kills"]
)


def _report_place(events: Connection, place: str, function: Callable[..., Any]) -> Any:
    @wraps(function)
    def reporting(*given: Any, **more: Any) -> Any:
        name = place
        if place == "write":
            name = f"write of {given[0].name.split('.')[0].split('-')[0]}"
        events.send((name, True))
        try:
            return function(*given, **more)
        finally:
            events.send((name, False))

    return reporting


def _command(
    folder: str, arguments: list[str], events: Connection, prepare: Callable[[], None] | None
) -> None:
    from xception_cli.cli import main

    os.chdir(folder)
    log = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for place, (name, attribute) in PLACES.items():
        module = importlib.import_module(name)
        setattr(module, attribute, _report_place(events, place, getattr(module, attribute)))
    if prepare is not None:
        prepare()
    main(arguments)


@dataclass
class Ended:
    """The end of a process.

    Attributes:
        code: Its exit code; `-SIGKILL` if it was killed.
        place: The innermost place at that time.
        lasted: Seconds in each place, in order.
        seconds: Seconds in total.
    """

    code: int
    place: str
    lasted: list[tuple[str, float]]
    seconds: float


@contextmanager
def started(
    folder: Path, arguments: list[str], prepare: Callable[[], None] | None
) -> Iterator[tuple[Any, Connection]]:
    events, theirs = _SERVER.Pipe(duplex=False)
    process = _SERVER.Process(target=_command, args=(str(folder), arguments, theirs, prepare))
    process.start()
    theirs.close()
    try:
        yield process, events
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        events.close()


def run_command(
    folder: Path,
    arguments: list[str],
    *,
    place: str | None = None,
    occurrence: int = 0,
    delay: float | None = None,
    prepare: Callable[[], None] | None = None,
) -> Ended:
    """Run a command of `xception`, and kill it.

    Args:
        folder: Working folder.
        arguments: Arguments of the command.
        place: Place of the kill; None means from the start.
        occurrence: Number of earlier visits to that place.
        delay: Seconds after that; None never kills.
        prepare: Called in the process, before the command.
    """
    began = time.monotonic()
    lasted: list[tuple[str, float]] = []
    inside: list[tuple[str, float]] = []
    with started(folder, arguments, prepare) as (process, events):
        due = time.monotonic() + (delay or 0) if place is None and delay is not None else None
        while True:
            wait = None if due is None else max(0.0, due - time.monotonic())
            if not events.poll(wait):
                process.kill()
                due = None
                continue
            try:
                name, begins = events.recv()
            except EOFError:
                break
            if begins:
                inside.append((name, time.monotonic()))
                if name == place and delay is not None:
                    if occurrence == 0:
                        due = time.monotonic() + delay
                    occurrence -= 1
            else:
                before, since = inside.pop()
                lasted.append((before, time.monotonic() - since))
        process.join()
    at = inside[-1][0] if inside else "between"
    return Ended(process.exitcode or 0, at, lasted, time.monotonic() - began)


def content(run: Path) -> dict[str, str]:
    """Digest every file of a run, without clocks and process numbers."""
    found = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        name = path.relative_to(run).as_posix()
        if name in {"run.json", "result.json"}:
            entries = json.loads(path.read_text())
            for clock in ("started", "process", "command", "timed", "seconds"):
                entries.pop(clock, None)
            found[name] = json.dumps(entries)
        elif name not in {"train.log", "report.html", "MODEL_CARD.md"}:  # they contain times
            found[name] = file_digest(path)
        else:
            found[name] = "there"
    return found


@dataclass
class Killed:
    """The effect of a sequence of kills on one run: the places, and the final run."""

    places: list[str]
    code: int
    said: str


def kill_and_resume(
    folder: Path, arguments: list[str], record: Ended, draw: random.Random, kills: int
) -> Killed:
    """Start a run, kill it and its resumed processes at random places, and let it finish.

    Args:
        folder: The run is its folder `run`.
        arguments: Arguments of the command that starts it.
        record: Record of the same run, undisturbed: the duration of each place.
        draw: The random numbers.
        kills: Number of kills; fewer if it ends before.
    """
    places: list[str] = []
    before = None
    while True:
        resumed = (folder / "run" / "run.json").exists()
        command = ["train", "--resume", "run"] if resumed else arguments
        aim: dict[str, Any] = {}
        if len(places) < kills:
            aim = _aim(record, draw, before if resumed else None)
        ended = run_command(folder, command, **aim)
        if ended.code != -signal.SIGKILL:
            return Killed(places, ended.code, (folder / "said").read_text())
        before = ended.place
        places.append(before + (" (resumed)" if resumed else ""))


def _aim(record: Ended, draw: random.Random, before: str | None) -> dict[str, Any]:
    """Choose a moment: anywhere in the run, or in a place however short it is.

    Args:
        record: Record of the undisturbed run.
        draw: The random numbers.
        before: Place where a resumed run was killed before; earlier places may not come again.
    """
    if draw.random() < 0.4:
        return {"delay": draw.uniform(0, record.seconds * (1 if before is None else 0.5))}
    names = [name for name, _ in record.lasted]
    left = names[names.index(before) :] if before in names else names
    place = draw.choice(sorted(set(left)))
    spans = [seconds for name, seconds in record.lasted if name == place]
    occurrence = draw.randrange(len(spans)) if before is None else 0
    return {
        "place": place,
        "occurrence": occurrence,
        "delay": draw.uniform(0, spans[occurrence]),
    }


def skip_a_batch() -> None:
    """Resume wrongly, for a control: the first batch is skipped, and comes last."""
    from xception_cli.data.dataset import KeyedBatches

    iterate = KeyedBatches.__iter__

    def late(batches: KeyedBatches) -> Any:
        keys = list(iterate(batches))
        yield from keys[1:] + keys[:1] if batches.shuffle else keys

    KeyedBatches.__iter__ = late  # type: ignore[method-assign]


def fill_the_disk_at(name: str) -> None:
    """Make writing of files of a name fail, as on a full disk."""
    from xception_cli import files

    write = files._write_and_sync

    def full(path: Path, content: bytes | Callable[[], Iterable[bytes]]) -> None:
        if path.name.startswith(name):
            data = content if isinstance(content, bytes) else b"".join(content())
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    files._write_and_sync = full
