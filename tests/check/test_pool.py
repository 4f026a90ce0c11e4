"""The helper processes of a scan: none outlives the command, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from images import encoded, photo, put

_WAIT = 60  # seconds; an idle machine takes one


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A folder whose scan takes ten seconds, so that a busy machine does not miss it."""
    folder = tmp_path_factory.mktemp("many")
    content = [encoded(photo(seed, 1600, 1200)) for seed in range(2)]
    for number in range(1200):
        label = ("cat", "dog")[number % 2]
        # Different contents, because equal ones are decoded once.
        put(folder / label / f"{number}.jpg", content[number % 2] + b"%d" % number)
    return folder


def _session(session: int) -> dict[int, str]:
    """The processes of a session that are not zombies, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_text()
        except OSError:
            continue
    return found


def _kill(
    command: str, number: int, folder: Path, cache: Path, *, helpers: int, after: float
) -> str:
    """Kill a command when it has as many helpers, wait until all are gone, return its stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "xception_cli", command, str(folder)],
        env=os.environ | {"XCEPTION_CACHE": str(cache)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        # A shell's background job ignores SIGINT, and nohup ignores SIGHUP; so would the command.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL) if number != 9 else None,
    )
    end = time.monotonic() + _WAIT
    while sum("forkserver" in line for line in _session(process.pid).values()) < helpers:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(after)
    if number == signal.SIGHUP:
        os.killpg(process.pid, number)  # like a terminal that is closed
    else:
        os.kill(process.pid, number)  # the command alone, like `kill PID` and `docker stop`
    _, said = process.communicate(timeout=_WAIT)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    while left := _session(process.pid):
        assert time.monotonic() < end, left
        time.sleep(0.1)
    return said


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("check", signal.SIGKILL),
        ("check", signal.SIGTERM),
        ("check", signal.SIGHUP),
        ("check", signal.SIGINT),
        ("train", signal.SIGKILL),
    ],
    ids=str,
)
def test_the_helpers_of_a_scan_end_with_the_command(many, tmp_path, command, number):
    said = _kill(command, number, many, tmp_path / "cache", helpers=2, after=0.3)
    assert "Traceback" not in said
    if number != signal.SIGKILL:
        assert f"stopped by {signal.Signals(number).name}" in said


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_a_command_that_is_stopped_while_its_helpers_start_prints_no_traceback(many, tmp_path):
    for after in (0.0, 0.05, 0.1):
        said = _kill("check", signal.SIGTERM, many, tmp_path / f"{after}", helpers=1, after=after)
        assert "Traceback" not in said
        assert said.rstrip().endswith("stopped by SIGTERM")
