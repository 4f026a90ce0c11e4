"""Files: durable writes, the cache folder, digests, and names that are not UTF-8."""

import contextlib
import errno
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from stat import S_ISREG
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from xception_cli.console import show
from xception_cli.errors import MachineError, UsageError
from xception_cli.regular import NEW, open_regular, write_all

# Errors of a path to nothing; EINVAL is that of Windows for a name with `*` or `?`.
_NOWHERE = {"ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "EINVAL"}
TRIES = 3  # of a call that may fail temporarily

LONGEST_NAME = 255  # bytes of a file name, on every common file system
_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")
_TRANSIENT = {"EIO", "ESTALE", "EDQUOT", "EAGAIN"}  # errors of network file systems


def write_durably(path: Path, content: bytes | Callable[[], Iterable[bytes]]) -> None:
    """Write a whole file so that a crash at any moment leaves the old one or the new one.

    Temporary file in the same folder, fsync, rename, fsync of the folder. The mode follows the
    umask.

    Args:
        path: The file.
        content: Its bytes; or a function that returns them in parts, which are never all in memory.

    Raises:
        MachineError: The disk is full or read-only, or the folder is gone; no partial file is left.
    """
    for attempt in range(1, TRIES + 1):
        partial = partial_path(path, os.urandom(4).hex())
        try:
            _write_and_sync(partial, content)
            partial.replace(path)
            _sync_folder(path.parent)
        except BaseException as error:
            if not isinstance(error, FileExistsError):  # it belongs to another process
                with contextlib.suppress(OSError):
                    partial.unlink()
            if not isinstance(error, OSError):  # a signal: remove the partial file
                raise
            if is_transient(error) and attempt < TRIES:
                time.sleep(attempt)
                continue
            size = f" ({len(content):,} bytes)" if isinstance(content, bytes) else ""
            raise MachineError(
                f"cannot write {show(path)}{size}: {error.strerror}",
                hint=f"make the folder {show(path.parent)} first, or choose another one"
                if isinstance(error, (FileNotFoundError, NotADirectoryError))
                else "free some space or choose another folder; what was saved before is intact",
            ) from error
        return


def write_cached(path: Path, content: bytes) -> None:
    """Write a file of a cache. It is renamed when it is whole, but a crash may damage it: no fsync.

    Raises:
        OSError: It cannot be written; no partial file is left.
    """
    partial = partial_path(path, os.urandom(4).hex())
    try:
        with os.fdopen(open_regular(partial, NEW), "wb") as file:
            file.write(content)
        partial.replace(path)
    except BaseException:  # remove the partial file after a signal too
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises:
        MachineError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot make the folder {show(path)}: {error.strerror}") from error


def partial_path(path: Path, mark: str) -> Path:
    """Return the name of the file that is written before it becomes `path`, cut to a valid length.

    Args:
        path: In the same folder.
        mark: Makes the name unique; a random one cannot be guessed and created by others.
    """
    end = f".{mark}.partial"
    return path.with_name(cut_name(path.name, LONGEST_NAME - len(end)) + end)


def cut_name(name: str, most: int) -> str:
    """Cut a file name to a number of bytes, without splitting a character."""
    while len(os.fsencode(name)) > most:
        name = name[:-1]
    return name


def _write_and_sync(path: Path, content: bytes | Callable[[], Iterable[bytes]]) -> None:
    descriptor = open_regular(path, NEW)
    try:
        for part in [content] if isinstance(content, bytes) else content():
            write_all(descriptor, part)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and its rename is durable enough
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_transient(error: OSError) -> bool:
    """Return whether the same call may succeed a moment later."""
    return errno_name(error) in _TRANSIENT


def errno_name(error: OSError) -> str:
    """Return the name of an OSError's number, such as `ENOSPC`; empty if it has none."""
    return errno.errorcode.get(error.errno or 0, "")


def check_new_file(
    path: Path, suffixes: Sequence[str], doing: str, *, option: str = "--output"
) -> None:
    """Check that an option's file can be created, before its content is computed.

    Args:
        path: The file.
        suffixes: Accepted suffixes, the usual one first.
        doing: The action, for the message: `cannot <doing> PATH`.
        option: The option that names the file.

    Raises:
        UsageError: The file exists, its folder does not, or its suffix is not accepted.
        MachineError: The folder cannot be written.
    """
    if path.suffix.lower() not in suffixes:
        usual = path.with_name(f"{path.stem or path.name}{suffixes[0]}")
        raise UsageError(
            f"cannot {doing} {show(path)}: it must end in {' or '.join(suffixes)}",
            hint=f"{option} {show(usual)}",
        )
    if os.path.lexists(path):
        raise UsageError(
            f"{show(path)} already exists", hint=f"remove it, or choose another {option}"
        )
    if not path.parent.is_dir():
        raise UsageError(
            f"the folder {show(path.parent)} does not exist",
            hint=f"create it, or another {option}",
        )
    require_writable(path.parent, f"cannot {doing} {show(path)}", option)


def require_writable(folder: Path, failed: str, option: str = "--output") -> None:
    """Check that a file can be written in a folder, by writing one that is gone when closed.

    The permissions are not enough: root has them on any file system, and a network disk may not
    know, or be full.

    Args:
        folder: The folder; if it does not exist, the nearest one above it that does.
        failed: Begins the message.
        option: The option that names the folder.

    Raises:
        MachineError: It cannot, for the system's reason.
    """
    place = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    try:
        with TemporaryFile(dir=place, buffering=0) as file:
            file.write(bytes(4096))
            os.fsync(file.fileno())
    except OSError as error:
        raise MachineError(
            f"{failed}: {show(place)} is not writable: {why(error)}",
            hint=f"choose another {option}",
        ) from error


def require_readable(given: str, option: str, hint: str) -> None:
    """Check that a file that an option names can be read, before anything slow starts.

    Args:
        given: The file, as typed.
        option: The option.
        hint: What it takes.

    Raises:
        UsageError: It cannot, for the system's reason.
    """
    path = Path(given)
    try:
        if not path.is_fifo():  # which can be read only once
            path.open("rb").close()
    except OSError as error:
        raise UsageError(f"cannot read {option} {show(given)}: {why(error)}", hint=hint) from error


def is_file(path: Path) -> bool:
    """Return whether a path is a file; Path.is_file hides errors from Python 3.14 on.

    Raises:
        OSError: It cannot be found out, such as for a folder above it that cannot be searched.
    """
    try:
        return S_ISREG(path.stat().st_mode)
    except OSError as error:
        if errno.errorcode.get(error.errno or 0) in _NOWHERE:
            return False
        raise
    except ValueError:  # a null character
        return False


def cache_folder() -> Path:
    """Return the user's cache folder, whose content can be recreated; it may not exist.

    Raises:
        MachineError: HOME is not set.
    """
    if chosen := os.environ.get("XCEPTION_CACHE"):
        return Path(chosen)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if Path(shared).is_absolute():  # the XDG specification: ignore a relative one
        return Path(shared) / "xception"
    if home := os.environ.get("HOME" if os.name != "nt" else "USERPROFILE"):
        return Path(home) / ".cache" / "xception"
    raise MachineError("HOME is not set", hint="set XCEPTION_CACHE to a folder that can be written")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_SUM = 4  # bytes of a checksum


def with_sum(content: bytes, *named: object) -> bytes:
    """Append a checksum of some bytes and of the names that they are stored under."""
    return content + zlib.crc32(content, zlib.crc32(repr(named).encode())).to_bytes(_SUM, "big")


def without_sum(summed: object, *named: object) -> bytes | None:
    """Return the bytes that were given to `with_sum`; None if they or their names are damaged."""
    if not isinstance(summed, bytes) or with_sum(summed[:-_SUM], *named) != summed:
        return None
    return summed[:-_SUM]


def utf8(text: str) -> str:
    r"""Write the bytes of a file name that are not UTF-8 as `\xNN`, so that it can be stored."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def from_utf8(text: str) -> str:
    r"""Return the file name that `utf8` encoded; a name may also contain `\xNN` literally."""
    return _BYTE.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), text)


def listed_name(root: Path, name: str) -> str:
    """Return the path in a folder of a file that is listed in UTF-8: as written, or as encoded."""
    return name if os.path.lexists(root / name) else from_utf8(name)


def why_and_where(error: OSError) -> str:
    """Return why a call of the system failed, and for which file."""
    named = "" if error.filename is None else f": {show(error.filename)}"
    return f"{why(error)}{named}"


def why(error: OSError | ValueError | RecursionError) -> str:
    """Return why a file cannot be read, without Python's error numbers and words."""
    if isinstance(error, RecursionError):
        return "too many brackets"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start:,} is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno:,}, column {error.colno:,} is not valid JSON"
    if "Exceeds the limit" in str(error):  # of `sys.set_int_max_str_digits`
        return "a number has too many digits"
    return show(getattr(error, "strerror", None) or error)


if not TYPE_CHECKING:  # else a type checker would accept any name

    def __getattr__(name: str) -> Any:
        """Return what moved to `csv_files`, a layer above, after 0.2: scripts import it here."""
        if name in {"to_csv", "from_csv"}:
            return getattr(import_module("xception_cli.csv_files"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
