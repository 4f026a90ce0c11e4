"""Fixes: a person's decisions about single images, in the rows of an edited issues.csv."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from xception_cli.console import listing, say, show
from xception_cli.data.folder import DataFolder
from xception_cli.data.photo import Photo
from xception_cli.data.rows import named_image, read_edited
from xception_cli.errors import UsageError
from xception_cli.files import utf8
from xception_cli.numerals import count_of
from xception_cli.suggestions import did_you_mean

ACTIONS = ("exclude", "relabel")
# Of issues.csv. Defined here and not in check/: check writes the file, this module reads it.
ISSUES_HEADER = ("path", "problem", "detail", "action", "label")

_LISTED = 10  # faults reported at once
_SEPARATOR = re.compile(r"[,;|\t]")
FIXES_HINT = (
    f"xception check DIR --output FOLDER writes issues.csv, with {', '.join(ISSUES_HEADER)}; save "
    "it as CSV, UTF-8"
)


@dataclass(frozen=True)
class Fix:
    """What to do with one image.

    Attributes:
        action: One of `ACTIONS`.
        problem: The reason, as in issues.csv.
        label: The class to relabel to; empty to exclude.
    """

    action: str
    problem: str
    label: str = ""

    @property
    def wanted(self) -> str:
        """The action with its class, for people."""
        return f"{show(self.action)} to {show(self.label)}" if self.label else show(self.action)


NO_FIXES: Mapping[str, Fix] = MappingProxyType({})


def read_fixes(path: Path, folder: DataFolder) -> dict[str, Fix]:
    r"""Read the rows of issues.csv that have an action; the others are only information.

    Those that have another label but no action are counted in a note: `check` suggests labels, but
    a person may also have changed one.

    Args:
        path: The file; needs the columns `path` and `action`, and `label` to relabel.
        folder: The data folder of the file.

    Returns:
        Fixes by path as written in the file, where bytes that are not UTF-8 are `\xNN`.

    Raises:
        UsageError: The file cannot be read, or rows cannot be applied; lists them.
    """
    known = {utf8(image.path): utf8(folder.classes[image.label]) for image in folder.images}
    classes = {utf8(name) for name in folder.classes}
    fixes: dict[str, Fix] = {}
    lines: dict[str, int] = {}
    faults, undecided = [], 0
    for number, row in _read_rows(path, "the fixes"):
        action, label = row["action"].strip().lower(), row["label"]
        image = named_image(row["path"], known)
        if action:
            label = label if label in classes else label.strip()
            fix = Fix(action, row["problem"], label if action == "relabel" else "")
            fault = _fault(image, fix, known, classes)
            earlier = fixes.get(image, fix)
            if not fault and earlier.wanted != fix.wanted:
                fault = (
                    f"{show(image)} has the action {fix.wanted}, but {earlier.wanted} in line "
                    f"{lines[image]}: empty one of the two"
                )
            if not fault:
                fixes[image], lines[image] = fix, number
        else:
            undecided += label not in {"", known.get(image)}
            fault = _misplaced(row, known, classes)
        if fault:
            faults.append(f"line {number}: {fault}")
    if faults:
        raise UsageError(
            listing(f"{show(path)} has rows that cannot be applied:", faults, _LISTED),
            hint="correct these rows, or empty the cell `action` to ignore a row",
        )
    if not fixes:
        say(f"note      no row of {show(path)} has an action: it changes nothing")
    if undecided:
        ignored = f"ignored {count_of(undecided, 'row')} with a label but no action"
        how = "to change a label, write relabel in the column action"
        say(f"note      {show(path)}: {ignored}; {how}")
    return fixes


def read_issues(path: Path) -> list[dict[str, str]]:
    """Read all rows of issues.csv, as dictionaries by column; see `read_edited`.

    Args:
        path: The file; needs the columns `path` and `action`.

    Raises:
        UsageError: It cannot be read.
    """
    return [row for _, row in _read_rows(path, "the findings")]


def _read_rows(path: Path, what: str) -> list[tuple[int, dict[str, str]]]:
    return read_edited(path, what, ISSUES_HEADER, ("path", "action"), FIXES_HINT)


def _misplaced(row: Mapping[str, str], known: Mapping[str, str], classes: set[str]) -> str | None:
    """Return the fault of a row without an action that has one in another column."""
    _, *others = _SEPARATOR.split(row["path"].lower())
    if {cell.strip() for cell in others}.intersection(ACTIONS) and row["path"] not in known:
        return f"{show(repr(row['path']))} is one cell: the first line has another separator"
    for column in ("problem", "detail", "label"):
        if row[column].strip().lower() in ACTIONS and row[column] not in classes:
            return f"{show(repr(row[column]))} is in the column {column}, not in action"
    return None


def _fault(path: str, fix: Fix, known: Mapping[str, str], classes: set[str]) -> str | None:
    """Return what is wrong with a row; None if nothing is."""
    if not path.strip():
        return f"the path is missing, with the action {fix.wanted}"
    if path not in known:
        return f"there is no image {show(path)} in the data folder"
    if fix.action not in ACTIONS:
        guess = _guess(fix.action, ACTIONS)
        return f"action is {show(repr(fix.action))}, expected exclude or relabel{guess}"
    if fix.action == "relabel" and fix.label not in classes:
        guess = _guess(fix.label, sorted(classes))
        return f"label is {show(repr(fix.label))}, which is no class of the folder{guess}"
    return None


def _guess(written: str, known: Sequence[str]) -> str:
    hint = did_you_mean(written, known)
    return f"; {hint}" if hint else ""


def class_after(
    path: str, label: int, classes: tuple[str, ...], fixes: Mapping[str, Fix]
) -> tuple[int, Fix | None]:
    """Return an image's label after the fixes, and the fix for this image."""
    fix = fixes.get(utf8(path))
    if fix is None or fix.action != "relabel":
        return label, fix
    return [utf8(name) for name in classes].index(fix.label), fix


def note_relabelled(images: Sequence[Photo], folder: DataFolder) -> list[Photo]:
    """Add the original class to the reason of relabelled images."""
    return [
        image
        if image.label == file.label or image.split == "out"
        else replace(image, reason=f"{image.reason}{_relabelled_from(folder.classes[file.label])}")
        for image, file in zip(images, folder.images, strict=True)
    ]


def was_relabelled(image: Photo, name: str) -> bool:
    """Return whether `note_relabelled` noted this original class, also as read from a file."""
    return utf8(image.reason).endswith(utf8(_relabelled_from(name)))


def _relabelled_from(name: str) -> str:
    return f"; relabelled from {name}"
