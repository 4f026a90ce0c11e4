"""The scan: what it finds in every file, and what is kept of the results."""

import errno
import io
import multiprocessing
import os
import shutil
import signal
import sqlite3
import struct
import time
import unicodedata
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from folders import as_ordinary_user, open_folder, snapshot
from images import encoded, exif, photo, put, two_classes
from PIL import Image, ImageFilter

from xception_cli.check import pool, scan, store
from xception_cli.check.pictures import find_broken, find_odd
from xception_cli.check.scan import Look, look_at, look_at_all, scan_folder
from xception_cli.check.store import open_store, store_path
from xception_cli.data.folder import DataFolder, read_folder
from xception_cli.data.formats import FORMATS, SUFFIXES_OF, readable_formats, suffixes, what_else
from xception_cli.data.inspection import Inspection, content_digest, inspect
from xception_cli.errors import MachineError
from xception_cli.model.weights import cache_path


def looks_of(root: Path) -> dict[str, Look]:
    folder = read_folder(root)
    with open_store(root) as opened:
        found = scan_folder(folder, opened)
    return {image.path: look for image, look in zip(folder.images, found, strict=True)}


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were really scanned."""
    names: list[str] = []
    real = scan.look_at

    def noting(path: Path, *scale: object) -> object:
        names.append(path.name)
        return real(path, *scale)

    monkeypatch.setattr(scan, "look_at", noting)
    return names


def problems(root: Path) -> dict[str, list[tuple[str, str]]]:
    """The problems of broken or unusual files, with files and details."""
    folder = read_folder(root)
    with open_store(root) as opened:
        found = scan_folder(folder, opened)
    return {
        problem.name: [(finding.path, finding.detail) for finding in problem.findings]
        for problem in (*find_broken(folder, found), *find_odd(folder, found))
    }


# --- broken --------------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG with 20 million letters in a compressed text chunk of 20 kB."""
    content = encoded(photo(0, 8, 8), "PNG")
    data = b"zTXt" + b"Comment\0\0" + zlib.compress(b"a" * 20_000_000, 9)
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    at = content.index(b"IDAT") - 4
    return content[:at] + chunk + content[at:]


def test_every_broken_file_is_listed_in_one_pass_each_with_its_reason(tmp_path):
    two_classes(tmp_path)
    jpeg, png = encoded(photo(0)), encoded(photo(0), "PNG")
    for name, content in {
        "bomb.png": bomb(),
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.png": png[: len(png) // 2],
        "empty.jpg": b"",
        "long.png": encoded(Image.new("RGB", (3000, 1)), "PNG"),
        "noend.jpg": jpeg[:-2],
        "page.jpg": b"<html>404</html>",
        "text.jpg": b"no image",
    }.items():
        put(tmp_path / "cat" / name, content)
    os.mkfifo(tmp_path / "dog" / "fifo.jpg")
    (tmp_path / "dog" / "gone.jpg").symlink_to("nowhere.jpg")
    assert problems(tmp_path) == {
        "unreadable": [
            ("dog/fifo.jpg", "not a regular file"),
            ("dog/gone.jpg", "broken link"),
        ],
        "broken": [
            ("cat/bomb.png", "damaged (Decompressed data too large for "
                             "PngImagePlugin.MAX_TEXT_CHUNK)"),
            ("cat/cut.jpg", "truncated"),
            ("cat/cut.png", "truncated"),
            ("cat/empty.jpg", "empty file"),
            ("cat/long.png", "3000 x 1 is longer than 20 to 1"),
            ("cat/noend.jpg", "truncated"),
            ("cat/page.jpg", "not an image (looks like HTML)"),
            ("cat/text.jpg", what_else(b"hello")),
        ],
    }  # fmt: skip


def test_the_sentence_counts_the_reasons_and_suggests_to_exclude(tmp_path):
    two_classes(tmp_path)
    for number in range(3):
        put(tmp_path / "cat" / f"empty{number}.jpg", b"")
        put(
            tmp_path / "cat" / f"flat{number}.png", encoded(Image.new("L", (30 + number, 1)), "PNG")
        )
    put(tmp_path / "cat" / "cut.jpg", encoded(photo(0))[:-2])
    folder = read_folder(tmp_path)
    with open_store(tmp_path) as opened:
        (problem,) = find_broken(folder, scan_folder(folder, opened))
    assert problem.severity == "stops"
    assert problem.summary == (
        "7 files cannot be decoded: 3 empty file, 3 of absurd size or shape, 1 truncated"
    )
    assert {finding.action for finding in problem.findings} == {"exclude"}


def test_a_file_that_vanishes_between_listing_and_scan_is_reported(tmp_path):
    folder = read_folder(two_classes(tmp_path))
    (tmp_path / "cat" / "1.jpg").unlink()
    with open_store(tmp_path) as opened:
        found = scan_folder(folder, opened)
    assert [look.problem for look in found] == [None, "file not found", None, None, None, None]


def test_an_unreadable_file_is_distinguished_from_a_broken_one(cache):
    cache.parent.chmod(0o755)
    cache.chmod(0o777)
    with open_folder() as root:
        two_classes(root)
        (root / "cat" / "0.jpg").chmod(0)
        with as_ordinary_user():
            assert problems(root) == {"unreadable": [("cat/0.jpg", "permission denied")]}


def test_a_disk_error_is_reported_and_not_kept(tmp_path, monkeypatch):
    two_classes(tmp_path)
    real = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "1.jpg":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        assert problems(tmp_path) == {
            "unreadable": [("cat/1.jpg", "input/output error"), ("dog/1.jpg", "input/output error")]
        }
    assert problems(tmp_path) == {}


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE, errno.ENFILE])
def test_an_image_is_not_called_bad_where_the_system_is_out_of_memory_or_files(
    tmp_path, monkeypatch, number
):
    two_classes(tmp_path)

    def failing(path: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        with pytest.raises(MachineError, match=rf"/\d.jpg: {os.strerror(number).lower()}$"):
            problems(tmp_path)
    assert problems(tmp_path) == {}


def test_corrupt_bytes_inside_a_jpeg_are_not_detected_by_decoding(tmp_path):
    content = bytearray(encoded(photo(3, 640, 480), quality=95))
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(b & 0x7F for b in content[middle : middle + 200])
    path = put(two_classes(tmp_path) / "cat" / "odd.jpg", bytes(content))
    assert look_at(path)[0].problem is None
    assert problems(tmp_path) == {}  # README: only checksums would detect this


def test_a_header_claiming_182_megapixels_uses_no_memory(tmp_path):
    header = struct.pack(">IIBBBBB", 13500, 13500, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    content += struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
    path = put(two_classes(tmp_path) / "cat" / "bomb.png", content)
    look, seen = look_at(path)
    assert look.problem is not None
    assert "over 89,478,485 pixels" in look.problem
    assert seen is None


def deep() -> bytes:
    return encoded(
        Image.fromarray(np.asarray(photo(1).convert("L")).astype(np.uint16) * 256), "PNG"
    )


def without_adobe_marker(jpeg: bytes) -> bytes:
    at = jpeg.index(b"\xff\xee")
    (length,) = struct.unpack(">H", jpeg[at + 2 : at + 4])
    return jpeg[:at] + jpeg[at + 2 + length :]


def fog(low: int, high: int) -> Image.Image:
    """An image with two brightnesses of each colour."""
    pixels = np.asarray(photo(9))
    return Image.fromarray(np.where(pixels > np.median(pixels), high, low).astype(np.uint8))


def frames(kind: str, **options: object) -> bytes:
    return encoded(photo(1), kind, save_all=True, append_images=[photo(2)], **options)


CMYK = encoded(photo(1).convert("CMYK"), "JPEG")
ODD = {
    "a.png": (encoded(fog(128, 129), "PNG"), "near-uniform", "grey varies by 0.5 of 255"),
    "b.jpg": (encoded(fog(0, 50)), "very dark", "mean brightness 25 of 255"),
    "c.jpg": (encoded(fog(235, 255)), "very bright", "mean brightness 244 of 255"),
    "d.jpg": (encoded(photo(1).filter(ImageFilter.GaussianBlur(4)), quality=95), "blurred",
              "sharpness 0.06, here usually 0.24"),
    "e.png": (encoded(photo(1, 31, 40), "PNG"), "tiny", "31 x 40 pixels"),
    "f.jpg": (encoded(photo(1), "PNG"), "suffix", "is PNG"),
    "g.jpg": (encoded(photo(1), exif=exif(6)), "EXIF-rotated", "orientation 6"),
    "h.jpg": (encoded(photo(1).convert("L")), "grey", "stored as L"),
    "i.png": (encoded(photo(1).convert("RGBA"), "PNG"), "transparent", "stored as RGBA"),
    "j.png": (deep(), "16 bits", "stored as I;16, largest value 57,088"),
    "k.jpg": (CMYK, "CMYK", "CMYK"),
    "l.jpg": (without_adobe_marker(CMYK), "CMYK",
              "CMYK without an Adobe marker: colours may be inverted"),
    "m.gif": (frames("GIF"), "animated", "GIF with several"),
    "n.webp": (frames("WEBP"), "animated", "WEBP with several"),
    "o.png": (frames("PNG"), "animated", "PNG with several"),
    "p.tif": (frames("TIFF"), "animated", "TIFF with several"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_unusual_image_is_noted_with_its_property(tmp_path, name):
    content, problem, detail = ODD[name]
    two_classes(tmp_path, 10)
    put(tmp_path / "cat" / name, content)
    found = problems(tmp_path)
    assert found.pop(problem) == [(f"cat/{name}", detail)]
    # Implied properties: 16 bits are grey here, and WEBP has no other way.
    assert set(found) <= {"grey"}


def test_ordinary_photos_are_not_noted(tmp_path):
    two_classes(tmp_path, 10)
    for name in ("A.JPG", "b.JpEg", "c.jfif", "d.jpe"):
        put(tmp_path / "cat" / name, encoded(photo(50)))
    put(tmp_path / "cat" / "e.png", encoded(photo(51), "PNG"))
    put(tmp_path / "cat" / "f.jpg", encoded(photo(52)) + b"garbage after the end")
    assert problems(tmp_path) == {}


def test_a_phones_jpeg_with_several_images_is_ordinary(tmp_path):
    two_classes(tmp_path)
    content = frames("MPO")
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    put(tmp_path / "cat" / "phone.jpg", content)
    assert problems(tmp_path) == {}


def test_soft_images_are_not_noted_as_blurred_if_all_are_soft(tmp_path):
    for number in range(12):
        soft = photo(number).filter(ImageFilter.GaussianBlur(4))
        put(tmp_path / ("cat", "dog")[number % 2] / f"{number}.jpg", soft)
    assert problems(tmp_path) == {}


def test_an_image_of_fifty_megapixels_is_huge_and_the_largest_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr("xception_cli.check.pictures._HUGE", 160 * 120)
    two_classes(tmp_path)
    put(tmp_path / "cat" / "large.jpg", photo(7, 200, 150))
    put(tmp_path / "cat" / "larger.jpg", photo(8, 240, 180))
    assert problems(tmp_path) == {
        "huge": [("cat/larger.jpg", "240 x 180 pixels"), ("cat/large.jpg", "200 x 150 pixels")]
    }


def test_a_rotated_image_is_described_upright(tmp_path):
    path = put(tmp_path / "x.jpg", encoded(photo(1), exif=exif(6)))
    original = look_at(path)[0].original
    assert (original.width, original.height, original.orientation) == (120, 160, 6)


def test_a_broken_exif_block_has_no_orientation(tmp_path):
    path = put(tmp_path / "x.jpg", encoded(photo(1), exif=b"Exif\0\0garbage garbage"))
    look = look_at(path)[0]
    assert look.problem is None
    assert look.original.orientation == 1


def test_every_format_that_is_read_has_its_suffixes():
    assert set(SUFFIXES_OF) == {*FORMATS, "HEIF"}
    assert set.union(*(SUFFIXES_OF[name] for name in readable_formats())) == suffixes()


# --- what training needs -------------------------------------------------------------------------


def test_a_look_finds_the_digest_of_an_inspection_and_the_problem_of_full_decoding(tmp_path):
    two_classes(tmp_path)
    put(tmp_path / "cat" / "cut.jpg", encoded(photo(1))[:900])
    put(tmp_path / "cat" / "empty.jpg", b"")
    content = encoded(photo(2))
    put(tmp_path / "cat" / "almost.jpg", content[:-1])
    put(tmp_path / "cat" / "whole.jpg", content)
    found = looks_of(tmp_path)
    assert {path: look.digest for path, look in found.items()} == {
        path: inspect(tmp_path / path).digest for path in found
    }
    assert {path: look.problem for path, look in found.items() if look.problem} == {
        "cat/almost.jpg": "truncated",
        "cat/cut.jpg": "truncated",
        "cat/empty.jpg": "empty file",
    }
    assert found["cat/whole.jpg"].inspection == Inspection(content_digest(content))


# --- kept between runs ---------------------------------------------------------------------------


def test_a_second_scan_finds_the_same_without_reading_files(tmp_path, looked):
    two_classes(tmp_path)
    put(tmp_path / "cat" / "cut.jpg", encoded(photo(1))[:900])
    first = looks_of(tmp_path)
    assert len(looked) == 7
    looked.clear()
    assert looks_of(tmp_path) == first
    assert looked == ["cut.jpg"]  # a failure may be the machine's: it is not kept


def test_changed_and_new_files_are_scanned_and_removed_ones_are_forgotten(tmp_path, looked):
    two_classes(tmp_path)
    looks_of(tmp_path)
    looked.clear()
    put(tmp_path / "cat" / "0.jpg", photo(100))
    put(tmp_path / "cat" / "new.jpg", photo(101))
    os.utime(tmp_path / "dog" / "1.jpg", (1, 1))
    (tmp_path / "dog" / "2.jpg").unlink()
    found = looks_of(tmp_path)
    assert sorted(looked) == ["0.jpg", "1.jpg", "new.jpg"]
    assert found["cat/0.jpg"].digest == inspect(tmp_path / "cat" / "0.jpg").digest
    with open_store(tmp_path) as opened:
        assert sorted(opened.rows()) == sorted(found)


def test_a_file_that_changes_during_the_scan_is_scanned_again(tmp_path, monkeypatch):
    two_classes(tmp_path)
    real = scan.look_at

    def changing(path: Path, *scale: object) -> object:
        found = real(path, *scale)
        if path.parent.name == "cat":
            put(path, photo(500 + int(path.stem)))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(scan, "look_at", changing)
        looks_of(tmp_path)
    assert {path: look.digest for path, look in looks_of(tmp_path).items()} == {
        path: inspect(tmp_path / path).digest for path in looks_of(tmp_path)
    }


def test_another_file_of_the_same_size_and_modification_time_is_scanned(tmp_path):
    """As when two images from an archive are swapped because their labels were wrong."""
    one, two = (
        put(two_classes(tmp_path) / label / "x.bmp", photo(seed))
        for seed, label in enumerate(("cat", "dog"))
    )
    for path in (one, two):
        os.utime(path, (1, 1))
    before = looks_of(tmp_path)
    one.rename(tmp_path / "third")
    two.rename(one)
    (tmp_path / "third").rename(two)
    after = looks_of(tmp_path)
    assert after["cat/x.bmp"].digest == before["dog/x.bmp"].digest
    assert after["dog/x.bmp"].digest == before["cat/x.bmp"].digest


def test_another_version_scans_again(tmp_path, looked, monkeypatch):
    folder = read_folder(two_classes(tmp_path))
    for version, count in (("1", 6), ("1", 0), ("2", 6)):
        monkeypatch.setattr(store, "VERSION", version)
        looked.clear()
        with open_store(tmp_path) as opened:
            scan_folder(folder, opened)
        assert len(looked) == count


def test_two_folders_do_not_share_results_but_two_names_of_one_folder_do(tmp_path, looked):
    two_classes(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "link").symlink_to("a")
    looks_of(tmp_path / "a")
    looked.clear()
    looks_of(tmp_path / "link")
    assert looked == []
    looks_of(tmp_path / "b")
    assert len(looked) == 6


def test_an_interrupted_scan_resumes(tmp_path, monkeypatch, looked):
    two_classes(tmp_path, 20)
    real = scan.look_at

    def stopping(path: Path, *scale: object) -> object:
        if path.name == "5.jpg":
            raise KeyboardInterrupt
        return real(path, *scale)

    with monkeypatch.context() as patch:
        patch.setattr(scan, "look_at", stopping)
        with pytest.raises(KeyboardInterrupt):
            looks_of(tmp_path)
    looked.clear()
    assert len(looks_of(tmp_path)) == 40
    assert len(looked) == 25  # by name, 15 come before cat/5.jpg


def test_a_damaged_cache_is_rebuilt(tmp_path, looked, capsys):
    two_classes(tmp_path)
    first = looks_of(tmp_path)
    store_path(tmp_path).write_bytes(b"no database at all, " * 1000)
    looked.clear()
    assert looks_of(tmp_path) == first
    assert len(looked) == 6
    looked.clear()
    assert looks_of(tmp_path) == first
    assert looked == []
    assert capsys.readouterr().err == ""


def test_the_file_of_a_damaged_row_is_scanned_again(tmp_path, looked):
    first = looks_of(two_classes(tmp_path))
    database = sqlite3.connect(store_path(tmp_path))
    database.execute("UPDATE looks SET look = '[\"a\", null, [1]]' WHERE path = ?", (b"cat/0.jpg",))
    database.execute("UPDATE looks SET look = 'no json' WHERE path = ?", (b"cat/1.jpg",))
    database.commit()
    database.close()
    looked.clear()
    assert looks_of(tmp_path) == first
    assert sorted(looked) == ["0.jpg", "1.jpg"]


def test_the_scan_works_without_a_cache_folder_and_prints_a_note(tmp_path, monkeypatch, capsys):
    two_classes(tmp_path / "data")
    first = looks_of(tmp_path / "data")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XCEPTION_CACHE", str(tmp_path / "file"))
    assert looks_of(tmp_path / "data") == first
    monkeypatch.delenv("XCEPTION_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    assert looks_of(tmp_path / "data") == first
    assert capsys.readouterr().err == (
        f"note      scan results are not kept: Not a directory: {tmp_path}/file/scans\n"
        "note      scan results are not kept: HOME is not set\n"
    )


def test_a_cache_that_another_scan_is_writing_does_not_stop_this_one(tmp_path, monkeypatch, capsys):
    two_classes(tmp_path)
    first = looks_of(tmp_path)
    connect = sqlite3.connect
    monkeypatch.setattr(
        store.sqlite3, "connect", lambda path, **how: connect(path, **how | {"timeout": 0})
    )
    other = connect(store_path(tmp_path))
    other.execute("BEGIN EXCLUSIVE")
    assert looks_of(tmp_path) == first
    other.close()
    assert capsys.readouterr().err == ("note      scan results are not kept: database is locked\n")


def test_the_cache_is_in_the_cache_folder_of_the_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("XCEPTION_CACHE", "/a/b")
    assert store_path(tmp_path).parent == cache_path() / "scans"


def test_a_read_only_folder_is_scanned_and_nothing_in_it_is_touched(cache):
    cache.parent.chmod(0o755)
    cache.chmod(0o777)
    with open_folder() as root:
        two_classes(root)
        for folder in (root / "cat", root / "dog", root):
            folder.chmod(0o555)
        before = snapshot(root)
        with as_ordinary_user():
            assert len(looks_of(root)) == 6
        assert snapshot(root) == before


def test_names_that_are_not_utf_8_are_kept_and_found_again(tmp_path, looked):
    name = os.fsdecode(b"caf\xe9\n,\"'.jpg")
    put(two_classes(tmp_path) / "cat" / name, photo(9))
    first = looks_of(tmp_path)
    assert first[f"cat/{name}"].problem is None
    looked.clear()
    assert looks_of(tmp_path) == first
    assert looked == []


def test_a_name_in_two_unicode_forms_is_two_files(tmp_path):
    names = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    for number, name in enumerate(names):
        put(two_classes(tmp_path) / "cat" / name, photo(60 + number))
    if len(list((tmp_path / "cat").glob("*é.jpg")) + list((tmp_path / "cat").glob(names[1]))) < 2:
        pytest.skip("this file system takes the two names for one")
    found = looks_of(tmp_path)
    assert found[f"cat/{names[0]}"].digest != found[f"cat/{names[1]}"].digest


# --- scale ---------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Sixty files, some of them not images."""
    return [
        put(tmp_path / f"{number}.png", photo(number, 40, 30) if number % 7 else b"no image")
        for number in range(60)
    ]


def test_several_processes_return_the_same_results_in_order(files, monkeypatch):
    monkeypatch.setattr(pool, "usable_cores", lambda: 3)
    found, helpers = [], set()
    for seen in look_at_all(files, alone=0):
        found.append(seen)
        helpers |= {process.pid for process in multiprocessing.active_children()}
    assert len(helpers) == 3
    assert found == [look_at(path) for path in files]
    assert multiprocessing.active_children() == []


def test_a_few_files_are_scanned_without_helper_processes(files):
    for _ in look_at_all(files, alone=60):
        assert multiprocessing.active_children() == []


def test_only_a_few_files_are_ahead_of_the_awaited_one(files, monkeypatch):
    monkeypatch.setattr(pool, "usable_cores", lambda: 1)
    many = iter(files * 20)
    found = look_at_all(many, alone=0)
    assert [look.problem is None for look, _ in islice(found, 20)] == [i % 7 > 0 for i in range(20)]
    assert len(list(many)) > 1000
    found.close()


def test_a_killed_process_is_a_machine_error_and_results_are_kept(tmp_path, monkeypatch, files):
    for number, path in enumerate(files):
        put(tmp_path / "photos" / ("cat", "dog")[number % 2] / path.name, path.read_bytes())

    def look_and_kill(paths: Iterator[Path], **_: object) -> Iterator[object]:
        for number, seen in enumerate(look_at_all(paths, alone=0)):
            yield seen
            if number == 20:
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(pool, "usable_cores", lambda: 1)
        patch.setattr(scan, "look_at_all", look_and_kill)
        with pytest.raises(MachineError, match=r"^a process that scans images was killed"):
            looks_of(tmp_path / "photos")
    with open_store(tmp_path / "photos") as opened:
        assert len(opened.rows()) >= 20


def test_a_second_scan_of_a_thousand_files_takes_little_time(tmp_path, monkeypatch):
    content = encoded(photo(1, 32, 32))
    (tmp_path / "cat").mkdir()
    for number in range(1000):
        (tmp_path / "cat" / f"{number}.jpg").write_bytes(content)
    folder: DataFolder = read_folder(tmp_path)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        with open_store(tmp_path) as opened:
            scan_folder(folder, opened)
        seconds.append(time.perf_counter() - started)
    assert seconds[1] < seconds[0] / 3  # a ratio within one run
