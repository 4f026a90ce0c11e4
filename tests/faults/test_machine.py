"""Faults of a machine: signals, jumping clocks, images that change, too little memory."""

import os
import re
import resource
import shutil
import signal
import sys
from pathlib import Path

import pytest
from images import draw_photos
from PIL import Image
from runs import call, python

import xception_cli
from xception_cli.data.dataset import ImageDataset, KeyedBatches
from xception_cli.data.loading import create_loader
from xception_cli.data.pixels import orientation
from xception_cli.errors import MachineError, StoppedError, is_out_of_memory
from xception_cli.rundir import RunDir
from xception_cli.training.stopping import StopSignals


class Interrupting(Image.Image):
    """An image that receives a signal while its EXIF block is read."""

    def getexif(self) -> Image.Exif:
        signal.raise_signal(signal.SIGTERM)
        return Image.Exif()


def test_a_signal_is_not_swallowed_where_all_exceptions_are() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = StopSignals(hint="type this")
    with pytest.raises(StoppedError, match="stopped by SIGTERM; what was saved") as caught, stop:
        orientation(Interrupting())  # which treats any exception as a broken EXIF block
    assert (caught.value.exit_code, caught.value.hint) == (143, "type this")
    assert stop.requested == signal.SIGTERM  # which also stops the training loop
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_callers_own_answer_to_the_signal_of_a_scheduler_stays() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: received.append(number))
    try:
        with StopSignals(hint="type this") as stop:
            signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (received, stop.requested) == ([signal.SIGUSR2], None)


def test_a_signal_silently_ends_a_process_that_was_just_forked(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with StopSignals(hint="type this"):
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143
    assert capfd.readouterr() == ("", "")


def test_no_duration_depends_on_a_clock_that_can_jump() -> None:
    """Durations are measured by `time.monotonic`; the wall clock is only recorded."""
    package = Path(xception_cli.__file__).parent
    wall = re.compile(r"time\.time\(|datetime\.now\(|\.utcnow\(|\.today\(|localtime|gmtime")
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if wall.search(path.read_text())
    }
    # time stamps of train.log, the start of a run, and the last use of features and of scans
    caches = {"model/feature_cache.py", "check/store.py"}
    assert found == {"console.py", "training/provenance.py"} | caches


def test_workers_that_cannot_be_started_are_an_error_with_a_hint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
    dataset = ImageDataset(Path(), ["0.jpg"], [0], str)
    with pytest.raises(MachineError, match="cannot be started: No space left on dev") as caught:
        create_loader(dataset, KeyedBatches(1, 4, shuffle=False), workers=1)
    assert "--workers 0" in str(caught.value.hint)


@pytest.mark.slow  # three resumed trainings
def test_images_that_vanish_or_change_before_a_resume_are_named_and_nothing_is_lost(
    probed: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    run, photos = probed, Path("photos")
    before = run.model.read_bytes()
    run.result.unlink()
    shutil.copytree(photos, "kept")

    def refused() -> str:
        capsys.readouterr()
        assert call("train", "--resume", "run") == 4
        assert run.model.read_bytes() == before
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert "hint: " in said
        return said

    (photos / "red" / "0.jpg").unlink()
    assert "red/0.jpg" in refused()
    shutil.copy("kept/red/1.jpg", photos / "red" / "0.jpg")
    assert "red/0.jpg" in refused()
    shutil.copy("kept/red/0.jpg", photos / "red" / "0.jpg")
    assert call("train", "--resume", "run") == 0
    assert run.model.read_bytes() == before


_READ_WITH_LITTLE_MEMORY = """
import io, re, resource
from pathlib import Path
import onnx, torch
from xception_cli.model.torch_files import load_torch
from xception_cli.onnx.file import classifier_from

buffer = io.BytesIO()
torch.save({"a": [torch.zeros(1000, 1000) for _ in range(30)]}, buffer)
state = buffer.getvalue()
exported = onnx.ModelProto(doc_string="x" * 120_000_000).SerializeToString()
del buffer
taken = int(re.search("VmSize:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) * 1024
for megabytes in 1000, 180, 60:
    limit = taken + megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
    for read, content in (load_torch, state), (classifier_from, exported):
        try:
            read(content, Path("file"))
        except Exception as error:
            print(megabytes, type(error).__name__)
        else:
            print(megabytes, "read")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_file_is_not_called_damaged_where_memory_is_too_small_to_read_it() -> None:
    """Otherwise a resumed training would go back to an older state."""
    done = python("-c", _READ_WITH_LITTLE_MEMORY, check=True)
    assert done.stdout.splitlines() == [
        "1000 read",
        "1000 ArtifactError",  # for its content: it is not an export
        "180 MemoryError",  # torch's allocator
        "180 MemoryError",
        "60 MemoryError",  # Python's reader of archives
        "60 MemoryError",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_memory_that_is_too_small_to_load_torch_is_an_error_in_one_sentence() -> None:
    done = python(
        *("-m", "xception_cli", "env"),
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (430_000_000,) * 2),
    )
    assert done.returncode == 5, done
    assert done.stderr.startswith("error: out of memory")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
@pytest.mark.parametrize("megabytes", [120, 260])
@pytest.mark.parametrize("command", ["sample new", "check d", "train d"])
def test_a_command_neither_hangs_nor_is_interrupted_by_openblas_for_lack_of_memory(
    tmp_path: Path, megabytes: int, command: str
) -> None:
    draw_photos(tmp_path / "d")
    done = python(
        *("-m", "xception_cli", *command.split()),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes * 1_000_000,) * 2),
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 5, done
    assert "error: out of memory" in done.stderr


def test_a_library_on_a_disk_without_execution_is_not_called_too_little_memory() -> None:
    """Where the disk is mounted noexec, the loader's message is the same."""
    error = ImportError("libtorch_cpu.so: failed to map segment from shared object")
    assert not is_out_of_memory(error)


def test_an_operation_that_onednn_lacks_is_not_called_too_little_memory() -> None:
    """It is a bug to report, and closing other programs does not help."""
    failed = "could not create a primitive"
    assert is_out_of_memory(RuntimeError(failed))
    unsupported = f"{failed} descriptor for the convolution forward propagation primitive."
    assert not is_out_of_memory(RuntimeError(unsupported))
