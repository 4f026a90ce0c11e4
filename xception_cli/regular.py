"""Regular files: the only place that opens files from an untrusted source.

A run folder, a model file, a table or files in a shared folder may belong to another user. A link
must not redirect a write, and opening a pipe or a device must not block.
"""

import errno
import os
import stat
from pathlib import Path

_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY  # a file that does not exist yet


def open_regular(path: Path, flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """Open a regular file, like `os.open`; it is created with the mode of the umask.

    Args:
        path: The file.
        flags: `NEW`, or flags of `os`.
        follow: Follow a link, for files that the user named.

    Returns:
        A descriptor.

    Raises:
        OSError: It is a link, a pipe or a device, or the system refuses; for a write in place, also
            if it has a second name (a hard link).
    """
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
        if not hasattr(os, "O_NOFOLLOW") and path.is_symlink():  # Windows
            raise OSError(errno.ELOOP, "it is a link")
    try:
        descriptor = os.open(path, flags | _FLAGS, 0o666)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EMLINK} and not follow:
            raise OSError(errno.ELOOP, "it is a link") from error
        if error.errno == errno.ENXIO:  # a pipe without a reader
            raise OSError(errno.ENXIO, "it is not a regular file") from error
        raise
    status = os.fstat(descriptor)
    reason = None
    if not stat.S_ISREG(status.st_mode):
        reason = "it is not a regular file"
    elif flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink > 1:
        reason = "it has a second name (a hard link)"
    if reason is not None:
        os.close(descriptor)
        raise OSError(errno.EINVAL, reason)
    return descriptor


def write_all(descriptor: int, content: bytes) -> None:
    """Write all bytes of a content; the system may write fewer than it is given.

    Raises:
        OSError: The system refuses.
    """
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def read_regular(path: Path, most: int, *, follow: bool = True) -> bytes:
    """Read a whole regular file.

    Args:
        path: The file.
        most: Maximum size in bytes.
        follow: See `open_regular`.

    Raises:
        OSError: See `open_regular`; or the file is larger.
    """
    with os.fdopen(open_regular(path, follow=follow), "rb") as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it is over {most:,} bytes")
        return file.read()  # with a size, Python would reserve as much memory
