"""The cache of the data check: damage and other processes never block a folder."""

import os
import random
import sqlite3
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
from images import photo, put, two_classes
from runs import call

from xception_cli.check.store import Row, Store, open_store, store_path, use_store


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XCEPTION_CACHE", str(tmp_path / "cache"))
    two_classes(tmp_path / "data", 6)
    assert call("check", "data") == 0
    return store_path(tmp_path / "data")


def _damaged(content: bytes, way: str, seed: int) -> bytes:
    draw, page = random.Random(seed), 4096
    at = page * draw.randrange(len(content) // page)
    match way:
        case "zeros":
            return content[:at] + bytes(page) + content[at + page :]
        case "noise":
            return content[:at] + draw.randbytes(page) + content[at + page :]
        case "cut":
            return content[: draw.randrange(1, len(content))]
        case "other":
            return b"no database"
        case "flips":
            changed = bytearray(content)
            for _ in range(50):
                changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
            return bytes(changed)
    raise ValueError(way)


@pytest.mark.parametrize("way", ["zeros", "noise", "cut", "other", "flips"])
def test_the_check_finds_the_same_with_a_damaged_cache(cache, capsys, way):
    capsys.readouterr()
    assert call("check", "data") == 0
    right, sound = capsys.readouterr().out, cache.read_bytes()
    for seed in range(8):
        cache.write_bytes(_damaged(sound, way, seed))
        assert call("check", "data") == 0
        shown = capsys.readouterr()
        assert shown.out == right
        assert "Traceback" not in shown.err


def test_the_journal_of_a_damaged_cache_is_not_replayed(cache):
    journal = cache.with_name(f"{cache.name}-journal")
    cache.write_bytes(b"no database")
    journal.write_bytes(os.urandom(5000))
    assert call("check", "data") == 0
    assert not journal.exists()


def test_results_that_were_not_used_for_half_a_year_are_removed_when_others_are_added(
    cache, tmp_path
):
    days = {"used": 1, "late": 179, "gone": 181}
    for name, count in days.items():
        old = cache.with_name(f"{name}.sqlite")
        old.write_bytes(cache.read_bytes())
        os.utime(old, (time.time() - count * 24 * 3600,) * 2)
    os.utime(cache, (0, 0))
    assert call("check", "data") == 0  # known already: nothing is added, and it is used again
    assert (cache.parent / "gone.sqlite").exists()
    two_classes(tmp_path / "new", 6)
    assert call("check", "new") == 0
    names = {path.name for path in cache.parent.iterdir()}
    assert names == {cache.name, store_path(tmp_path / "new").name, "used.sqlite", "late.sqlite"}


def test_a_row_under_another_name_is_ignored(cache, tmp_path):
    database = sqlite3.connect(cache)
    with database:
        (first, cells), (second, _) = database.execute("SELECT path, cells FROM looks LIMIT 2")
        database.execute("UPDATE looks SET cells = ? WHERE path = ?", (cells, second))
    database.close()
    with open_store(tmp_path / "data") as store:
        known = store.rows()
    assert os.fsdecode(first) in known
    assert os.fsdecode(second) not in known


def test_a_damaged_thumbnail_is_made_again_from_its_image(cache, tmp_path, capsys):
    put(tmp_path / "data" / "cat" / "small.png", photo(0).resize((100, 75)))
    assert call("check", "data") == 0
    right = capsys.readouterr().out.partition("near-cop")
    assert right[1]
    database = sqlite3.connect(cache)
    with database:
        database.execute("UPDATE pictures SET grey = zeroblob(1028)")
        database.execute("DELETE FROM facts WHERE name = 'near pairs'")
    database.close()
    assert call("check", "data") == 0
    shown = capsys.readouterr()
    assert shown.out.partition("near-cop") == right
    assert shown.err.count("note") == 0
    with open_store(tmp_path / "data") as store:
        assert len(store.rows()) == 13
        assert all(store.greys(["cat/0.jpg", "cat/small.png"]))


def test_a_disk_that_fills_up_costs_neither_the_check_nor_what_was_scanned(cache, tmp_path, capsys):
    """Once with SQLite's own limit; the rows that are on the disk are not scanned again."""
    rows = []

    def use(store: Store) -> str:
        if not rows:
            store._database.execute("PRAGMA max_page_count = 1")  # no more than there are
        rows.append(len(store.rows()))
        for number in range(1000):
            store.keep(f"new/{number}.jpg", Row(1, 2, "[]", b""), bytes(1024))
        return "done"

    assert use_store(tmp_path / "data", use) == "done"
    assert rows == [12, 12]
    shown = capsys.readouterr().err
    assert "note      scan results are not kept: database or disk is full\n" in shown
    with open_store(tmp_path / "data") as store:
        assert len(store.rows()) == 12


def test_a_store_that_is_damaged_again_and_again_is_kept_in_memory(tmp_path, capsys):
    """As SQLite reports a disk quota: an input/output error, which may also be damage."""
    places = []

    def use(store: Store) -> int:
        places.append(store._database.execute("PRAGMA database_list").fetchone()[2])
        if places[-1]:
            raise sqlite3.DatabaseError("disk I/O error")
        return 1

    assert use_store(tmp_path, use) == 1
    assert places == [str(store_path(tmp_path).resolve())] * 2 + [""]
    assert capsys.readouterr().err == "note      scan results are not kept: disk I/O error\n"


def test_a_damaged_row_in_a_cache_that_cannot_be_changed_is_made_again_in_memory(
    cache, tmp_path, capsys, monkeypatch
):
    """As in a cache of another user: the copy of it in memory is damaged, too."""
    put(tmp_path / "data" / "cat" / "small.png", photo(0).resize((100, 75)))
    assert call("check", "data") == 0
    right = capsys.readouterr().out
    database = sqlite3.connect(cache)
    with database:
        database.execute("UPDATE pictures SET grey = zeroblob(1028)")
        database.execute("DELETE FROM facts WHERE name = 'near pairs'")
    database.close()
    monkeypatch.setattr("xception_cli.check.store._remove", lambda _: None)
    assert call("check", "data") == 0
    shown = capsys.readouterr()
    assert shown.out == right
    assert "note      scan results are not kept: a row is damaged\n" in shown.err


def test_what_a_failed_use_of_a_cache_holds_is_released_before_the_next(tmp_path):
    """As the helper processes of a scan."""
    held, left = [], []

    class Helper:
        pass

    def use(store: Store) -> None:
        left.append(sum(helper() is not None for helper in held))
        helper = Helper()
        held.append(weakref.ref(helper))
        if len(held) < 4:
            raise sqlite3.DatabaseError("a row is damaged")

    use_store(tmp_path, use)
    assert left == [0, 0, 0, 0]


def test_nothing_is_locked_while_files_are_scanned(cache, tmp_path):
    """One process is in the middle of its scan while another writes and ends."""
    with open_store(tmp_path / "data") as first:
        first.keep("cat/new.jpg", Row(1, 2, "[]", b""), b"grey")  # not saved yet
        with open_store(tmp_path / "data") as second:
            second.keep("cat/other.jpg", Row(1, 2, "[]", b""), b"grey")
            began = time.monotonic()
            second.save()
            second.remember("a fact", "b")
            assert time.monotonic() - began < 5
        assert first.recall("a fact") == "b"
    with open_store(tmp_path / "data") as third:
        assert {"cat/new.jpg", "cat/other.jpg"} <= set(third.rows())


def test_processes_can_scan_one_new_folder_at_once(tmp_path):
    two_classes(tmp_path / "data")
    for number in range(120):
        put(tmp_path / "data" / "cat" / f"more{number}.jpg", photo(number, 40, 30))
    environment = os.environ | {"XCEPTION_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "xception_cli", "check", "data"]
    for damaged in (False, True):
        if damaged:
            (path,) = (tmp_path / "cache" / "scans").glob("*.sqlite")
            path.write_bytes(b"no database")
        running = [
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        ended = [process.communicate(timeout=120) for process in running]
        assert [process.returncode for process in running] == [0, 0], ended
        assert len({out for out, _ in ended}) == 1


def test_results_before_a_signal_are_kept(tmp_path):
    class Stopped(BaseException):
        pass

    two_classes(tmp_path)

    def stop_in_the_middle() -> None:
        with open_store(tmp_path) as store:
            store.keep("cat/0.jpg", Row(1, 2, "[]", b""), None)
            raise Stopped

    with pytest.raises(Stopped):
        stop_in_the_middle()
    with open_store(tmp_path) as store:
        assert set(store.rows()) == {"cat/0.jpg"}


def test_a_store_of_another_version_is_emptied(monkeypatch):
    database = sqlite3.connect(":memory:")
    store = Store(database)
    store.keep("a", Row(1, 2, "[]", b""), None)
    store.save()
    assert Store(database).rows() != {}
    monkeypatch.setattr("xception_cli.check.store.VERSION", "2")
    assert Store(database).rows() == {}
    database.close()
