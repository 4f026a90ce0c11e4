"""Seal: a digest that a file holds of itself, so that a flipped bit is noticed.

safetensors has no checksum. The digest is SHA-256 over the header without it, and over all numbers;
it is an entry of the metadata, which other readers ignore. In a JSON object it is one more entry.
"""

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from xception_cli.console import say, show
from xception_cli.errors import ArtifactError

DIGEST = "digest"  # the entry of the metadata
_METADATA = "__metadata__"
_ALIGNMENT = 8  # of the header's end, as safetensors writes it
_CHUNK = 2**20


def seal(content: bytes) -> bytes:
    """Add its digest to the content of a safetensors file; equal contents stay equal."""
    file = BytesIO(content)
    header = _read_header(file)
    metadata = header.setdefault(_METADATA, {})
    metadata.pop(DIGEST, None)
    metadata[DIGEST] = _digest(header, file.read)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    data = memoryview(content)[8 + int.from_bytes(content[:8], "little") :]
    return b"".join([len(text).to_bytes(8, "little"), text, data])


def check_seal(file: IO[bytes], path: Path, *, hint: str) -> None:
    """Compare a valid safetensors file with its digest; files of other programs have none.

    Args:
        file: The content, from its start.
        path: For the message.
        hint: What to do if it is damaged.

    Raises:
        ArtifactError: The file is not what was written.
    """
    header = _read_header(file)
    sealed: str | None = header.get(_METADATA, {}).pop(DIGEST, None)
    if sealed is not None and sealed != _digest(header, file.read):
        raise ArtifactError(
            f"{show(path)} is damaged: it is not what was written (its SHA-256 differs)", hint=hint
        )


def note_unsealed(metadata: Mapping[str, str], path: Path) -> None:
    """Report that a model file of an earlier version has no digest."""
    if DIGEST not in metadata:
        say(
            f"note      {show(path)} was written by an earlier version and has no digest: damage "
            "to it can go unnoticed; a new training or export adds one"
        )


def seal_entries(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add its digest to a JSON object."""
    return {**content, DIGEST: _entries_digest(content)}


def check_entries(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a JSON object without its digest; earlier versions wrote none.

    Raises:
        ArtifactError: It is not what was written.
    """
    entries = dict(content)
    if DIGEST in entries and entries.pop(DIGEST) != _entries_digest(entries):
        raise ArtifactError(f"{show(path)} is damaged: it is not what was written")
    return entries


def _entries_digest(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_header(file: IO[bytes]) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header


def _digest(header: dict[str, Any], read: Callable[[int], bytes]) -> str:
    digest = sha256(json.dumps(header, sort_keys=True).encode())
    while chunk := read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
