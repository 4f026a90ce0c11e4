"""Memory in the scan: a lack of it does not mean damage; large images are decoded in turn."""

import errno
import io
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from images import encoded, exif, photo, put, two_classes
from PIL import Image, ImageCms
from profiles import rgb_profile
from runs import call, python

from xception_cli import errors
from xception_cli.check.scan import look_at
from xception_cli.data.formats import claimed_size
from xception_cli.data.images import decode, examine
from xception_cli.data.opening import BYTES_PER_PIXEL, ImageError, turns
from xception_cli.errors import MachineError

_CHECK = [sys.executable, "-m", "xception_cli", "check", "data"]


def _limited(bytes_: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (bytes_, bytes_))


@pytest.mark.parametrize(
    "kind",
    [
        "PNG",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("TIFF", "GIF", "BMP", "WEBP", "AVIF")
        ),
    ],
)
def test_an_image_is_not_reported_as_damaged_when_memory_is_too_small(tmp_path, kind):
    two_classes(tmp_path / "data")
    large = Image.new("RGB" if kind != "GIF" else "P", (7000, 7000), 7)
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    path = put(tmp_path / "data" / "cat" / f"large.{kind.lower()}", encoded(large, kind, **options))
    environment = os.environ | {"XCEPTION_CACHE": str(tmp_path / "cache")}
    # The interpreter and its libraries use 200 to 300 MB of address space; the image over 200 MB.
    little = subprocess.run(
        _CHECK,
        env=environment | {"OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: _limited(430_000_000),
        capture_output=True,
        text=True,
        check=False,
    )
    assert little.returncode == 5, little
    assert f"{path.relative_to(tmp_path)}: there is too little memory to " in little.stderr
    assert "Traceback" not in little.stderr
    assert look_at(path)[0].problem is None  # the control: with enough memory


@pytest.mark.parametrize(
    ("kind", "options"),
    [("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": exif(6)}), ("AVIF", {})],
)
def test_an_image_that_is_decoded_when_it_is_opened_is_not_damaged_for_lack_of_memory(
    kind, options, monkeypatch
):
    content = encoded(photo(1, 90, 70), kind, **options)
    assert claimed_size(content) == (90, 70)
    cut = content[: len(content) // 2]
    with pytest.raises(ImageError):
        decode(cut)
    needed = BYTES_PER_PIXEL * 90 * 70
    monkeypatch.setattr(errors.mmap, "mmap", lambda _, size: _reserve(size, most=needed - 1))
    with pytest.raises(MachineError, match="too little memory to decode an image of 90 x 70"):
        decode(cut)  # too little memory and damage cannot be told apart
    decode(content)


def test_a_colour_profile_is_not_damaged_for_lack_of_memory(monkeypatch):
    content = encoded(photo(1, 90, 70), "PNG", icc_profile=rgb_profile("Adobe RGB"))

    def failing(*_: object) -> None:
        raise ImageCms.PyCMSError("cannot build transform")

    with monkeypatch.context() as patch:
        patch.setattr(ImageCms, "buildTransform", failing)
        patch.setattr(errors.mmap, "mmap", lambda _, size: _reserve(size, most=1_000_000))
        with pytest.raises(MachineError, match="too little memory"):
            examine(content)
    assert examine(content)[1].profile_problem == ""


def _reserve(size: int, most: int) -> io.BytesIO:
    if size > most:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")
    return io.BytesIO()


@pytest.mark.parametrize(
    ("mode", "most"), [("I;16", 450), ("RGBA", 500), ("P", 400), ("1", 400), ("RGB", 500)]
)
def test_decoding_takes_little_more_than_the_pixels(tmp_path, mode, most):
    """36 megapixels: 144 MB as RGB in Pillow, plus the pixels of the file."""
    options = {"transparency": 0} if mode == "P" else {}
    path = put(tmp_path / "large.png", encoded(Image.new(mode, (6000, 6000)), "PNG", **options))
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from xception_cli.check.scan import look_at\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(); found, _ = look_at(Path(sys.argv[1]))\n"
        "print(found.problem, peak() - before)"
    )
    done = python("-c", script, path, check=True)
    problem, megabytes = done.stdout.split()
    assert problem == "None"
    assert int(megabytes) < most


@pytest.mark.parametrize(("side", "together"), [(4100, 1), (400, 3)])
def test_large_images_are_decoded_one_after_another_and_small_ones_at_once(side, together):
    content = encoded(Image.new("1", (side, side)), "PNG")
    now, most, lock = 0, 0, threading.Lock()

    def take() -> None:
        nonlocal now, most
        with turns.take(content):
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.3)
            with lock:
                now -= 1

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == together


@pytest.mark.parametrize(
    ("least_side", "options", "waits"),
    [(None, {}, True), (256, {}, False), (256, {"progressive": True, "subsampling": 0}, True)],
)
def test_a_jpeg_waits_for_its_turn_if_decoding_it_needs_much_memory(
    least_side, options, waits, monkeypatch
):
    lock = threading.Lock()
    monkeypatch.setattr(turns, "lock", lock)
    content = encoded(Image.new("RGB", (6000, 6000)), "JPEG", **options)
    with turns.take(content, least_side=least_side):
        assert lock.locked() == waits


def test_waiting_for_a_turn_of_a_killed_process_has_a_limit(monkeypatch):
    monkeypatch.setattr("xception_cli.data.opening._PATIENCE", 0.2)
    monkeypatch.setattr(turns, "lock", threading.Lock())
    turns.lock.acquire()
    with turns.take(encoded(Image.new("1", (4100, 4100)), "PNG")):
        pass
    assert turns.lock.locked()  # the lock still belongs to the other process


def test_a_damaged_image_is_still_reported_as_damaged(tmp_path, capsys):
    two_classes(tmp_path / "data")
    put(tmp_path / "data" / "cat" / "cut.png", encoded(photo(1), "PNG")[:900])
    assert call("check", "data") == 3
    assert "1 file cannot be decoded" in capsys.readouterr().out
    assert Path("data/cat/cut.png").exists()
