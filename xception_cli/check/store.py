"""Store: what a scan found, kept in the cache by path, size and time of change."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from xception_cli.console import say, show
from xception_cli.errors import MachineError
from xception_cli.files import cache_folder

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS looks
    (path BLOB PRIMARY KEY, size INTEGER, changed INTEGER, look TEXT, cells BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (path BLOB PRIMARY KEY, grey BLOB);
CREATE TABLE IF NOT EXISTS features
    (kind TEXT, digest TEXT, row BLOB, PRIMARY KEY (kind, digest)) WITHOUT ROWID;
"""
_EVERY = 500  # files after which what was seen is safe on disk


class Row(NamedTuple):
    """One file as it was seen.

    Attributes:
        size: In bytes.
        changed: Time of its last change, in nanoseconds.
        look: What was found, as JSON.
        cells: Its mean colours.
    """

    size: int
    changed: int
    look: str
    cells: bytes


class Store:
    """The rows of one data folder, in an SQLite file of the user's cache.

    Small grey pictures stay on disk until they are asked for.

    Args:
        database: An open connection.
        version: Of what is kept; rows of another version are dropped.
    """

    def __init__(self, database: sqlite3.Connection, version: str) -> None:
        self._database = database
        self._unsaved = 0
        database.executescript(_TABLES)
        if self.recall("version") != version:
            for table in ("looks", "pictures", "facts", "features"):
                database.execute(f"DELETE FROM {table}")
            self.remember("version", version)

    def rows(self) -> dict[str, Row]:
        """Return what was seen earlier, by path."""
        found = self._database.execute("SELECT path, size, changed, look, cells FROM looks")
        return {os.fsdecode(path): Row(*row) for path, *row in found}

    def keep(self, path: str, row: Row, grey: bytes | None) -> None:
        """Keep what was seen of a file."""
        key = os.fsencode(path)
        self._database.execute("REPLACE INTO looks VALUES (?, ?, ?, ?, ?)", (key, *row))
        if grey is not None:
            self._database.execute("REPLACE INTO pictures VALUES (?, ?)", (key, grey))
        self._unsaved += 1
        if self._unsaved >= _EVERY:
            self.save()

    def forget(self, paths: Iterable[str]) -> None:
        """Drop files that are gone."""
        keys = [(os.fsencode(path),) for path in paths]
        for table in ("looks", "pictures"):
            self._database.executemany(f"DELETE FROM {table} WHERE path = ?", keys)
        self.save()

    def greys(self, paths: Iterable[str]) -> list[bytes]:
        """Return the small grey pictures of some files; empty where there is none."""
        query = "SELECT grey FROM pictures WHERE path = ?"
        found = (self._database.execute(query, (os.fsencode(path),)).fetchone() for path in paths)
        return [row[0] if row else b"" for row in found]

    def features(self, kind: str, digests: Iterable[str]) -> list[bytes | None]:
        """Return what a network made of some contents; None where it is not known.

        Args:
            kind: Which network, and in which precision.
            digests: Of the contents.
        """
        query = "SELECT row FROM features WHERE kind = ? AND digest = ?"
        found = (self._database.execute(query, (kind, digest)).fetchone() for digest in digests)
        return [row[0] if row else None for row in found]

    def keep_features(self, kind: str, rows: Iterable[tuple[str, bytes]]) -> None:
        """Keep what a network made of some contents, by digest."""
        given = ((kind, digest, row) for digest, row in rows)
        self._database.executemany("REPLACE INTO features VALUES (?, ?, ?)", given)
        self.save()

    def remember(self, name: str, value: str) -> None:
        """Keep one more thing that was found out about the folder."""
        self._database.execute("REPLACE INTO facts VALUES (?, ?)", (name, value))
        self.save()

    def recall(self, name: str) -> str | None:
        """Return it again; None if it was never found out."""
        found = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def save(self) -> None:
        """Make sure that what was kept so far survives."""
        self._database.commit()
        self._unsaved = 0


@contextlib.contextmanager
def open_store(root: Path, version: str) -> Iterator[Store]:
    """Open what is known of a data folder; in memory, with a word, where no file can be kept.

    Args:
        root: The data folder.
        version: Of what is kept.

    Raises:
        MachineError: The file cannot be written any more: the disk is full.
    """
    database, store = _open(root, version)
    try:
        yield store
        store.save()
    except sqlite3.Error as error:
        raise MachineError(
            f"cannot write the cache of the data check: {show(error)}",
            hint="free some space, or set XCEPTION_CACHE to another folder",
        ) from error
    finally:
        with contextlib.suppress(sqlite3.Error):
            database.commit()  # what a Ctrl-C has interrupted goes on from here
        database.close()


def _open(root: Path, version: str) -> tuple[sqlite3.Connection, Store]:
    try:
        path = store_path(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _connect(path, version)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, or not writable
                raise
            path.unlink()  # damaged: it holds nothing that a new scan does not find again
            return _connect(path, version)
    except (OSError, sqlite3.Error, MachineError) as error:
        say(f"note      the next scan will not be quicker: {show(error)}")
        return _connect(":memory:", version)


def _connect(path: Path | str, version: str) -> tuple[sqlite3.Connection, Store]:
    database = sqlite3.connect(path, timeout=10)
    try:
        return database, Store(database, version)
    except BaseException:
        database.close()
        raise


def store_path(root: Path) -> Path:
    """Return the file that keeps what is known of a data folder.

    Raises:
        MachineError: HOME is not set.
    """
    name = sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return cache_folder() / "scans" / f"{name}.sqlite"
