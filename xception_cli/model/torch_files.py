"""Untrusted torch files: read without running code, in no more memory than their size implies."""

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import torch

from xception_cli.console import show
from xception_cli.errors import ArtifactError, is_out_of_memory

CONVERT = (
    "if you trust it, load it in a sandbox, save its state dict with safetensors, and use that file"
)
_ZIP_START = b"PK\x03\x04"  # as torch (2.14) recognizes its own archives
_SIZED = b"\nbytearray\n"  # the one class that torch's reader fills with as many zeros as asked for


def load_torch(content: bytes, what: str) -> Any:
    """Read a torch file.

    Raises:
        ArtifactError: It is damaged, or needs more than tensors and plain containers.
    """
    file = _copy_archive(content, what)
    holds_more = f"{what} is not a plain state dict: it is damaged, or holds more than tensors"
    if _SIZED in content:
        raise ArtifactError(holds_more, hint=CONVERT)
    try:
        with warnings.catch_warnings(action="ignore"):  # about files that are refused later
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(holds_more, hint=CONVERT) from error
    except Exception as error:  # a forged file can fail anywhere in torch's reader
        if is_out_of_memory(error, len(content)):  # the machine's fault, not the file's
            raise MemoryError from error
        raise ArtifactError(
            f"{what} is not a file that torch can read safely", hint=CONVERT
        ) from error


def _copy_archive(content: bytes, what: str) -> IO[bytes]:
    """Copy an archive member by member; refuse compressed ones, which torch does not write.

    Torch's reader inflates compressed members to any size. In a copy, it cannot see another table
    of contents than Python's reader, which adds up the sizes.
    """
    if not content.startswith(_ZIP_START):
        return io.BytesIO(content)
    copied = io.BytesIO()
    try:
        with (
            warnings.catch_warnings(action="error", category=UserWarning),
            zipfile.ZipFile(io.BytesIO(content)) as archive,
        ):
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > len(content) or any(m.compress_type != zipfile.ZIP_STORED for m in members):
                raise ArtifactError(
                    f"{what} unpacks to {size:,} bytes from {len(content):,}; torch writes no such "
                    "files",
                    hint=CONVERT,
                )
            with zipfile.ZipFile(copied, "w", zipfile.ZIP_STORED) as copy:
                for member in members:
                    copy.writestr(member.filename, archive.read(member))
    # Python's reader raises these on damage, encryption and unknown versions; it warns of two
    # members of one name or place.
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, UserWarning) as error:
        if is_out_of_memory(error, len(content)):
            raise MemoryError from error
        raise ArtifactError(f"{what} is a damaged archive: {show(error)}", hint=CONVERT) from error
    copied.seek(0)
    return copied


def named_bytes(state: Any) -> int:
    """Return the bytes that the dense tensors in nested plain data take if none shares memory.

    A view can repeat a few numbers, and a file can ask for tensors that it does not contain.

    Args:
        state: From `load_torch`; it may contain itself.
    """
    seen: set[int] = set()
    left, size = [state], 0
    while left:
        value = left.pop()
        if isinstance(value, torch.Tensor):
            size += value.numel() * value.element_size()
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            left += value.values() if isinstance(value, Mapping) else value
    return size
