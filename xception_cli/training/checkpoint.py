"""Training state: written durably, committed by a manifest, verified, rotated.

Order of a save: state file, then its manifest (the commit marker), and only then are older states
removed. The manifest also stores what validation changes (see `note`), so that an epoch's state,
hundreds of megabytes, is written once. Ignite's `Checkpoint` (0.5.5) removes before it writes,
forgets its files on resume, and calls a failing save handler twice, so it is not used.
"""

import io
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch

from xception_cli.console import say, show
from xception_cli.entries import read_entries
from xception_cli.errors import SMALLER_STEPS, ArtifactError, DivergedError, MachineError
from xception_cli.files import write_durably
from xception_cli.model.seal import check_entries, seal_entries
from xception_cli.model.tensors import LARGEST_FILE
from xception_cli.model.torch_files import load_torch, named_bytes
from xception_cli.regular import read_regular
from xception_cli.rundir import read_json, write_json

SCHEMA = 2
_LARGEST = 5 * LARGEST_FILE  # weights, their average, AdamW's two moments, and some spare
_KEEP = 2
NEW_RUN = "start a new run; the model file of this one may still be usable"  # a hint
_NAME = re.compile(r"state-(\d{8})\.pt")


class Notes(TypedDict):
    """What a manifest holds in addition to the state's checksum; see `StateStore.note`."""

    iteration: int
    phase: Literal["train", "eval_pending"]
    history: dict[str, Any]
    max_epochs: int


class _NewerSchemaError(ArtifactError):
    """A state that a newer version wrote."""


class StateStore:
    """The saved training states of a run.

    Args:
        folder: Their folder; created at the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._damaged: set[Path] = set()  # states that `load` found damaged

    def save(self, state: Mapping[str, Any], *, iteration: int, notes: Mapping[str, Any]) -> None:
        """Write a state durably, then remove older ones.

        Args:
            state: Plain data and dense tensors only, so that it loads without running code.
            iteration: Completed iterations.
            notes: See `note`.

        Raises:
            DivergedError: A tensor is not finite; nothing is written.
            MachineError: The disk is full or gone; earlier states are intact.
        """
        bad = _first_not_finite(state)
        if bad:
            raise DivergedError(
                f"{bad} is not finite at iteration {iteration:,}; nothing was saved",
                hint=SMALLER_STEPS,
            )
        buffer = io.BytesIO()  # first into memory: torch hides the errno of a full disk
        torch.save({"schema": SCHEMA, **state}, buffer)
        content = buffer.getvalue()
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise MachineError(
                f"cannot make the folder {show(self.folder)}: {error.strerror}"
            ) from error
        # A state of the same iteration is replaced. Its manifest stays until then: a full disk must
        # not cost the existing state.
        path = self._path(iteration)
        write_durably(path, content)
        self._damaged.discard(path)
        manifest = {
            "schema": SCHEMA,
            "iteration": iteration,
            **notes,
            "bytes": len(content),
            "sha256": sha256(content).hexdigest(),
        }
        write_json(path.with_suffix(".json"), seal_entries(manifest))
        self.keep(_KEEP)

    def note(self, iteration: int, notes: Mapping[str, Any]) -> None:
        """Update the notes of a saved state; its tensors stay unchanged.

        Args:
            iteration: Of the state.
            notes: JSON data: `phase` (`train`, or `eval_pending` if the epoch's validation is
                still to do), `history` and `max_epochs`.

        Raises:
            MachineError: The disk is full or gone; the state is unchanged.
        """
        manifest = self._path(iteration).with_suffix(".json")
        content = check_entries(read_json(manifest), manifest)
        write_json(manifest, seal_entries(content | dict(notes)))

    def _path(self, iteration: int) -> Path:
        return self.folder / f"state-{iteration:08d}.pt"

    def keep(self, count: int) -> None:
        """Remove all but the newest committed states, and what is damaged or was not committed."""
        if not self.folder.is_dir():
            return
        kept = {path.name for path in self._committed()[:count]}
        for path in self.folder.glob("state-*"):
            if path.with_suffix(".pt").name not in kept and path.suffix in {".json", ".partial"}:
                path.unlink(missing_ok=True)  # manifests before states
        for path in self.folder.glob("state-*.pt"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def _committed(self) -> list[Path]:
        """Return the states that have a manifest and are not known as damaged, the newest first."""
        if not self.folder.is_dir():
            return []
        named = sorted(p for p in self.folder.iterdir() if _NAME.fullmatch(p.name))
        return [
            path
            for path in reversed(named)
            if path.with_suffix(".json").is_file() and path not in self._damaged
        ]

    def newest_notes(self) -> dict[str, Any]:
        """Read the notes of the newest state, unchecked; empty if none was ever committed.

        Raises:
            ArtifactError: They are damaged.
        """
        committed = self._committed()
        return read_json(committed[0].with_suffix(".json")) if committed else {}

    def load(self) -> dict[str, Any] | None:
        """Read the newest intact state; None if none was ever committed.

        Damaged ones are removed at the next save: training continues from before them.

        Raises:
            ArtifactError: No saved state is intact, or a newer version wrote them.
        """
        committed = self._committed()
        for path in committed:
            try:
                return self._read(path)
            except _NewerSchemaError:
                raise
            except ArtifactError as error:
                say(f"warning   {error.message}; looking for an older state")
                self._damaged.add(path)
        if committed:
            raise ArtifactError(
                f"no training state in {show(self.folder)} is intact",
                hint=NEW_RUN,
            )
        return None

    def _read(self, path: Path) -> dict[str, Any]:
        manifest = read_json(path.with_suffix(".json"))
        schema = manifest.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise _NewerSchemaError(
                f"{show(path)} has format {schema}, this version reads {SCHEMA}",
                hint="upgrade xception",
            )
        try:
            content = read_regular(path, _LARGEST, follow=False)
        except OSError as error:
            raise ArtifactError(f"{show(path)} cannot be read: {error.strerror}") from error
        # torch.load verifies no checksum: a flipped bit would load as another number.
        if sha256(content).hexdigest() != manifest.get("sha256"):
            raise ArtifactError(f"{show(path)} is damaged (its SHA-256 differs)")
        manifest = check_entries(manifest, path.with_suffix(".json"))
        # A run folder may come from anyone, checksums included: no code in a state is run.
        state = load_torch(content, show(path))
        if not isinstance(state, dict) or named_bytes(state) > len(content):
            raise ArtifactError(f"{show(path)} is not a training state of this program")
        # In version 1 the notes were in the state itself.
        state |= {name: manifest[name] for name in Notes.__annotations__ if name in manifest}
        try:
            read_entries(Notes, state)
        except ValueError as error:
            raise ArtifactError(f"{show(path)} is damaged: {error}") from error
        return state


def _first_not_finite(state: Any, name: str = "the training state") -> str | None:
    """Name the first float tensor with a nan or an infinity in it, in nested plain data."""
    if isinstance(state, torch.Tensor):
        return name if state.is_floating_point() and not state.isfinite().all() else None
    items: Any = ()
    if isinstance(state, Mapping):
        items = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    return next(
        (bad for key, value in items if (bad := _first_not_finite(value, f"{name}: {key}"))), None
    )
