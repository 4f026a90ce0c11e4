"""Sides: the split that an image had before, in a split file or in an earlier run."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xception_cli.console import enumerated, listing, show
from xception_cli.data.folder import DataFolder
from xception_cli.data.layout import SPLITS
from xception_cli.data.names import split_of
from xception_cli.data.photo import Photo
from xception_cli.data.rows import named_image, read_edited
from xception_cli.errors import DataError, UsageError
from xception_cli.files import utf8

if TYPE_CHECKING:  # predict compares the images of a run, and does not need scikit-learn
    from xception_cli.data.units import Unit

RECORDED = (*SPLITS, "out")  # values of `split` in split.csv
_LISTED = 10  # files listed in a message
SPLIT_HINT = "a split file has the columns path and split, as the split.csv of a run"


def follow_file(images: list[Photo], folder: DataFolder, path: Path) -> list[Photo]:
    """Assign images to splits as a split.csv does.

    Raises:
        UsageError: The file cannot be read.
        DataError: It does not match the images; lists them.
    """
    recorded = _read_assignment(path, {utf8(image.path) for image in images})
    faults, followed = [], []
    for image in images:
        row = recorded.pop(utf8(image.path), None)
        if row is None:
            faults.append(f"not in it: {show(image.path)}")
        elif row["digest"] and image.digest and row["digest"] != image.digest:
            faults.append(f"changed since: {show(image.path)}")
        elif image.split != "out":
            image = replace(image, split=row["split"], reason=f"as in {path.name}")
        followed.append(image)
    faults += [
        f"missing now: {show(name)}" for name, row in recorded.items() if row["split"] != "out"
    ]
    if faults:
        sentence = f"{show(path)} does not match the images in {show(folder.place)}:"
        raise DataError(
            listing(sentence, faults, _LISTED),
            hint="add or correct its rows (split is train, val, test or out; paths are relative to "
            f"{show(folder.root)}), or leave out --split-file",
        )
    return followed


def _read_assignment(path: Path, known: AbstractSet[str]) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    columns = ("path", "split", "digest")
    for number, row in read_edited(path, "the split file", columns, columns[:2], SPLIT_HINT):
        name, written = named_image(row["path"], known), row["split"].strip()
        split = "out" if written.lower() == "out" else split_of(written)  # as in a table
        if not name or split not in RECORDED:
            expected = f"split is {show(repr(written))}, expected {', '.join(RECORDED)}"
            raise UsageError(
                f"{show(path)}, line {number}: {expected if name else 'the path is missing'}",
                hint=SPLIT_HINT,
            )
        if name in rows and rows[name]["split"] != split:
            raise UsageError(
                f"{show(path)} lists {show(name)} twice: as {rows[name]['split']} in line "
                f"{rows[name]['line']}, as {split} in line {number}",
                hint="delete one of the two lines",
            )
        rows[name] = {"split": split, "digest": row["digest"].strip(), "line": str(number)}
    return rows


# An earlier run


def keep_sides(
    images: list[Photo], units: Sequence["Unit"], earlier: Sequence[Photo]
) -> "list[Unit]":
    """Keep the images of an earlier run in their splits, and return the units of new images.

    A new image of a known unit joins its split; if that has two splits, the image is left out.

    Args:
        images: Their splits and reasons are set.
        units: Units of the images whose split is to be sampled.
        earlier: Images of the earlier run, recognised by content.
    """
    side = {image.digest: image.split for image in earlier if image.split in SPLITS}
    new = []
    for unit in units:
        sides = {side[images[i].digest] for i in unit.members if images[i].digest in side}
        if not sides:
            new.append(unit)
            continue
        for i in unit.members:
            split, reason = side.get(images[i].digest), "as in the earlier run"
            if split is None and len(sides) > 1:
                split, reason = "out", f"of {unit.about}, which the earlier run has in two splits"
            elif split is None:
                split, reason = next(iter(sides)), f"{reason}, {unit.about}"
            images[i] = replace(images[i], split=split, reason=reason)
    return new


def describe_changes(
    images: Sequence[Photo],
    classes: Sequence[str],
    earlier: Sequence[Photo],
    earlier_classes: Sequence[str],
) -> str:
    """Return a summary of changes since an earlier run: `391 images known, 51 new, 3 gone`.

    Args:
        images: Images of the new run.
        classes: Classes of the new run.
        earlier: Images of the earlier run, recognised by content.
        earlier_classes: Classes of the earlier run.
    """
    before = {image.digest: earlier_classes[image.label] for image in earlier if image.digest}
    now = {image.digest: classes[image.label] for image in images if image.digest}
    known = before.keys() & now.keys()
    counts = {
        "images known": len(known),
        "with another class": sum(before[digest] != now[digest] for digest in known),
        "new": len(now.keys() - known),
        "gone": len(before.keys() - known),
    }
    said = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n or what == "images known")
    added = [name for name in classes if name not in set(earlier_classes)]
    removed = [name for name in earlier_classes if name not in set(classes)]
    for what, names in (("new", added), ("removed", removed)):
        if names:
            said += f"; {what} class{'es' * (len(names) > 1)}: {enumerated(names)}"
    return said
