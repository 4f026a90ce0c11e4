"""Store: results of a scan, cached by path, size and time of change."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeVar

import PIL

from xception_cli.console import say, show
from xception_cli.data.images import DECODER
from xception_cli.errors import MachineError
from xception_cli.files import cache_folder, why_and_where, with_sum, without_sum

VERSION = f"{DECODER}, Pillow {PIL.__version__}"  # results of another version are dropped
_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS looks
    (path BLOB PRIMARY KEY, size INTEGER, changed INTEGER, look TEXT, cells BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (path BLOB PRIMARY KEY, grey BLOB);
"""
_EVERY = 500  # files per transaction
_PATIENCE = 60  # seconds to wait for another process; a transaction takes far less
_UNUSED = 180 * 24 * 3600  # seconds after which the results of a folder are removed

T = TypeVar("T")

# Errors that do not mean damage: locked, not writable, disk full, out of memory.
_NOT_DAMAGE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_INTERRUPT,
}


class Row(NamedTuple):
    """The scan result of one file.

    Attributes:
        size: Size in bytes.
        changed: Time of the last change, of its content or of the file, in nanoseconds.
        look: The result, as JSON.
        cells: Its mean colours.
    """

    size: int
    changed: int
    look: str
    cells: bytes


class Store:
    """The rows of one data folder, in an SQLite file of the user's cache.

    Several processes may use it at once: rows are collected, and written in one short transaction.
    Each row has a checksum, because SQLite detects only structural damage. Thumbnails stay on disk
    until they are requested.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._unsaved: list[tuple[bytes, Row, bytes | None]] = []
        database.executescript(_TABLES)
        if self.recall("version") != VERSION:
            with database:
                for table in ("looks", "pictures", "facts"):
                    database.execute(f"DELETE FROM {table}")
            self.remember("version", VERSION)

    def rows(self) -> dict[str, Row]:
        """Return the rows by path, without damaged ones."""
        found = self._database.execute("SELECT path, size, changed, look, cells FROM looks")
        rows = {}
        for path, size, changed, look, sealed in found:
            cells = without_sum(sealed, path, size, changed, look)
            if cells is not None:
                rows[os.fsdecode(path)] = Row(size, changed, look, cells)
        return rows

    def keep(self, path: str, row: Row, grey: bytes | None) -> None:
        """Keep the result of a file."""
        self._unsaved.append((os.fsencode(path), row, grey))
        if len(self._unsaved) >= _EVERY:
            self.save()

    def forget(self, paths: Iterable[str]) -> None:
        """Remove files that no longer exist."""
        keys = [(os.fsencode(path),) for path in paths]
        with self._database:
            for table in ("looks", "pictures"):
                self._database.executemany(f"DELETE FROM {table} WHERE path = ?", keys)

    def greys(self, paths: Iterable[str]) -> list[bytes]:
        """Return the thumbnails of some files; empty where there is none.

        Raises:
            sqlite3.DatabaseError: A row is damaged.
        """
        query = "SELECT grey FROM pictures WHERE path = ?"
        greys = []
        for path in map(os.fsencode, paths):
            row = self._database.execute(query, (path,)).fetchone()
            grey = b"" if row is None else without_sum(row[0], path)
            if grey is None:
                raise sqlite3.DatabaseError("a row is damaged")
            greys.append(grey)
        return greys

    def remember(self, name: str, value: str) -> None:
        """Keep a fact about the whole folder."""
        with self._database:
            sealed = with_sum(value.encode(), name)
            self._database.execute("REPLACE INTO facts VALUES (?, ?)", (name, sealed))

    def recall(self, name: str) -> str | None:
        """Return a fact that `remember` kept; None if there is none."""
        found = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        value = None if found is None else without_sum(found[0], name)
        return None if value is None else value.decode()

    def save(self) -> None:
        """Write to disk what was kept so far."""
        looks = [
            (path, row.size, row.changed, row.look, with_sum(row.cells, path, *row[:3]))
            for path, row, _ in self._unsaved
        ]
        pictures = [(path, with_sum(grey, path)) for path, _, grey in self._unsaved if grey]
        with self._database:
            self._database.executemany("REPLACE INTO looks VALUES (?, ?, ?, ?, ?)", looks)
            self._database.executemany("REPLACE INTO pictures VALUES (?, ?)", pictures)
        self._unsaved.clear()

    def take_over(self, other: "Store") -> None:
        """Replace all rows by those of another store."""
        other._database.backup(self._database)

    def close(self) -> None:
        """Close the connection; what is not saved is lost."""
        self._database.close()


def use_store(root: Path, use: Callable[[Store], T]) -> T:
    """Call a function with the store of a data folder, and return its result.

    If the file turns out to be damaged, it is recreated; if it can no longer be written, the store
    continues in memory, with a note. In each case the function is called again: a new scan finds
    whatever the store lacks.
    """
    for _ in range(2):
        try:
            with open_store(root) as store:
                return use(store)
        except sqlite3.Error as error:
            reason = error.with_traceback(None)  # which would keep the helpers of the scan
        if not _is_damage(reason):
            break
        with contextlib.suppress(OSError):
            _remove(store_path(root))
    return _use_in_memory(root, use, reason)


@contextlib.contextmanager
def open_store(root: Path) -> Iterator[Store]:
    """Open the store of a data folder; in memory, with a note, where no file can be written.

    A damaged file is recreated, if opening it shows the damage.

    Raises:
        sqlite3.Error: The disk is full, or damage was found later.
    """
    with _closing(_open(root)) as store:
        yield store


@contextlib.contextmanager
def _closing(store: Store) -> Iterator[Store]:
    try:
        yield store
        store.save()
    finally:
        with contextlib.suppress(sqlite3.Error):
            store.save()  # an interrupted scan resumes from here
        store.close()


def _open(root: Path) -> Store:
    try:
        path = store_path(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with contextlib.suppress(OSError):  # not writable
                os.utime(path)  # SQLite changes it only when something is written
        else:
            _remove_unused(path.parent)
        try:
            return _connect(path)
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise
            return _renew(path)
    except (OSError, sqlite3.Error, MachineError) as error:
        return _open_in_memory(error)


def _open_in_memory(reason: Exception) -> Store:
    known = why_and_where(reason) if isinstance(reason, OSError) else show(reason)
    say(f"note      scan results are not kept: {known}")
    return _connect(":memory:")


def _use_in_memory(root: Path, use: Callable[[Store], T], reason: sqlite3.Error) -> T:
    """Call a function with what the file holds; if that is damaged, with an empty store."""
    with contextlib.suppress(sqlite3.Error), _closing(_open_in_memory(reason)) as store:
        with (
            contextlib.suppress(sqlite3.Error, MachineError),
            contextlib.closing(_connect(store_path(root))) as file,
        ):
            store.take_over(file)  # not to scan again what was kept before
        return use(store)
    with _closing(_connect(":memory:")) as store:
        return use(store)


def _renew(path: Path) -> Store:
    """Recreate a damaged file, unless another process has just done so."""
    from filelock import FileLock  # takes 30 ms and is rarely needed

    with FileLock(path.with_suffix(".lock"), mode=0o666, fallback_to_soft=False):
        try:
            return _connect(path)
        except sqlite3.Error:
            _remove(path)
            return _connect(path)


def _remove_unused(folder: Path) -> None:
    """Remove the files of data folders that were not checked for half a year."""
    for path in folder.glob("*.sqlite"):
        with contextlib.suppress(OSError):  # already removed by another process, or not removable
            if time.time() - path.stat().st_mtime > _UNUSED:
                _remove(path)


def _remove(path: Path) -> None:
    # With its journal, which SQLite would replay into the new file.
    for name in (
        path,
        *(path.with_name(f"{path.name}-{end}") for end in ("journal", "wal", "shm")),
    ):
        with contextlib.suppress(FileNotFoundError):
            name.unlink()


def _is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error means that the file is damaged, or not one of our databases."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # ours, see `_connect` and `Store.greys`
        return type(error) is sqlite3.DatabaseError
    return code & 0xFF not in _NOT_DAMAGE  # the primary code of an extended one


def _connect(path: Path | str) -> Store:
    # IMMEDIATE: a transaction that begins by reading would not wait for another process.
    database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level="IMMEDIATE")
    try:
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        _check_pages(database)
        return Store(database)
    except BaseException:
        database.close()
        raise


def _check_pages(database: sqlite3.Connection) -> None:
    (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def store_path(root: Path) -> Path:
    """Return the file that stores the scan results of a data folder.

    Raises:
        MachineError: HOME is not set.
    """
    name = sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return cache_folder() / "scans" / f"{name}.sqlite"
