"""Table: the images of a data set in the rows of a file, with classes, splits and groups."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from xception_cli.console import listing, quoted, say, show
from xception_cli.csv_files import read_users_table
from xception_cli.data.folder import DataFolder
from xception_cli.data.formats import TABLES
from xception_cli.data.header import (
    COLUMNS,
    find_columns,
    has_columns,
    refuse_one_hot,
    refuse_unnamed_split,
    report_columns,
    warn_of_unnamed_split,
)
from xception_cli.data.layout import SPLITS
from xception_cli.data.misplaced import (
    Stems,
    find_images,
    folder_below,
    foreign_folder,
    likely_root,
)
from xception_cli.data.names import split_of
from xception_cli.data.photo import Photo
from xception_cli.data.rows import TOO_LONG, slashed, spellings, too_long
from xception_cli.errors import DataError, UsageError
from xception_cli.files import why
from xception_cli.notation import is_url
from xception_cli.numerals import count_of
from xception_cli.parquet import SUFFIX as PARQUET
from xception_cli.parquet import read_parquet
from xception_cli.rundir import RunDir

_LISTED = 10  # rows named in a message


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        line: Its line in the file.
        path: Relative to the folder that `read_rows` returns.
        label: The class; empty if the table has none.
        split: `train`, `val` or `test`; None if the table has none.
        group: The group, whose images stay in one split; empty if the table has none.
    """

    line: int
    path: str
    label: str
    split: str | None
    group: str


@dataclass(frozen=True)
class _Fault:
    """Why a row cannot be used, and the kind of that fault."""

    line: int
    kind: str
    detail: str


def is_table(path: Path) -> bool:
    """Return whether a path names a table, and not a folder or an image."""
    return path.suffix.lower() in TABLES and not os.path.isdir(path)  # noqa: PTH112 - odd names


def list_table(table: Path, root: Path | None) -> DataFolder:
    """List the classes and images of a table; see `read_rows`."""
    place, rows = read_rows(table, root)
    classes = tuple(sorted({row.label for row in rows}))
    index = {name: label for label, name in enumerate(classes)}
    order = {split: at for at, split in enumerate((None, *SPLITS))}
    images = [Photo(r.path, index[r.label], r.split, group=r.group) for r in rows]
    images.sort(key=lambda image: (order[image.split], image.label, image.path))
    found = {image.split for image in images}
    given = tuple(split for split in SPLITS if split in found)
    return DataFolder(place, classes, tuple(images), given_splits=given, table=table)


def read_rows(
    table: Path, root: Path | None = None, *, labelled: bool = True
) -> tuple[Path, list[Row]]:
    r"""Read a table of images, as spreadsheets and programs save it, and check every row.

    Columns are recognised by common names and reported. Rows whose split is `out`, as in the
    split.csv of a run, are ignored; identical rows of an image count once. Bytes of a name that are
    not UTF-8 may be written `\xNN`, and folders may be separated by `\`.

    Args:
        table: The file.
        root: The folder that its paths are relative to; None for the table's own.
        labelled: Whether it must have classes.

    Returns:
        The folder that the paths are relative to, and the rows in order. The folder is `root`; if
        absolute paths or `..` lead out of it, the common folder of all images, so that no path
        leads out of it. For a table in a run folder, paths must not lead out of `root`.

    Raises:
        UsageError: The file cannot be read.
        DataError: Columns or rows cannot be used; the message lists the lines.
    """
    found, lines = _read_lines(table, labelled=labelled)
    base = os.path.abspath(table.parent if root is None else root)  # noqa: PTH100 - links stay
    rows, faults = _resolve(found, lines, base, labelled=labelled)
    if faults:
        raise _unusable(table, root, len(lines), faults, [row.path for row in rows])
    kept = _without_repeated(table, rows)
    if not kept:
        raise DataError(f"{show(table)} lists no image", hint=f"its columns are {COLUMNS}")
    inside = base.rstrip(os.sep) + os.sep
    outside = [row for row in kept if not row.path.startswith(inside)]
    if outside and RunDir(table.parent).is_run:  # a run may come from anyone
        named = [f"line {row.line}: {show(row.path)}" for row in outside]
        raise DataError(
            listing(f"{show(table)} of a run names files outside of {show(base)}:", named, _LISTED),
            hint="give the folder of the run's images with --root DIR; or, if you trust the table, "
            "copy it out of the run",
        )
    if not outside:
        place = table.parent if root is None else root
    else:
        place = Path(os.path.commonpath([os.path.dirname(row.path) for row in kept]))  # noqa: PTH120
        inside = str(place).rstrip(os.sep) + os.sep
    return place, [row._replace(path=row.path[len(inside) :]) for row in kept]


def _read_lines(
    table: Path, *, labelled: bool
) -> tuple[dict[str, int], list[tuple[int, list[str]]]]:
    """Return the index of each column, and the cells of each line that is not empty."""
    required = ("path", "label") if labelled else ("path",)

    def fits(names: list[str]) -> bool:
        return has_columns(names, required)

    try:
        is_parquet = table.suffix.lower() == PARQUET
        names, every = read_parquet(table) if is_parquet else read_users_table(table, fits)
        lines = [(line, cells) for line, cells in every if any(cell.strip() for cell in cells)]
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the table {show(table)}: {why(error)}") from error
    if labelled:
        refuse_one_hot(table, names, lines)
    found = find_columns(table, names, required)
    if longer := too_long(lines, len(names)):
        raise DataError(
            listing(f"{show(table)} has {count_of(len(names), 'column')}, but:", longer, _LISTED),
            hint=TOO_LONG,
        )
    lines = [(line, [*cells, *[""] * (len(names) - len(cells))]) for line, cells in lines]
    for kind in ("split", "group"):  # an empty column is ignored
        if kind in found and not any(cells[found[kind]].strip() for _, cells in lines):
            del found[kind]
    if labelled and "split" not in found:
        refuse_unnamed_split(table, names, lines, {*found.values()})
        warn_of_unnamed_split(table, (cells[found["path"]] for _, cells in lines))
    report_columns(table, names, found)
    return found, lines


def _resolve(
    found: dict[str, int], lines: Iterable[tuple[int, list[str]]], base: str, *, labelled: bool
) -> tuple[list[Row], list[_Fault]]:
    """Return the rows with absolute paths, and the faults of those that cannot be used."""
    rows: list[Row] = []
    faults: list[_Fault] = []
    known: Stems = {}
    for line, cells in lines:
        cell = {kind: cells[at].strip() for kind, at in found.items()}
        if cell.get("split", "").lower() == "out":
            continue
        split = split_of(cell["split"]) if "split" in found else None
        path, fault = _find(cells[found["path"]], base, known)
        if fault is None and labelled and not cell["label"]:
            fault = "without a class", "the class is empty"
        if fault is None and "split" in found and split not in SPLITS:
            shown = show(repr(cell["split"]))
            fault = "without a split", f"the split is {shown}, expected train, val or test"
        if fault is not None:
            faults.append(_Fault(line, *fault))
        rows.append(Row(line, path, cell.get("label", ""), split, cell.get("group", "")))
    return rows, faults


def _find(text: str, base: str, known: Stems) -> tuple[str, tuple[str, str] | None]:
    """Return the absolute path of an image, or the fault of its cell."""
    if not text.strip():
        return "", ("without a path", "the path is empty")
    if is_url(text.strip()):
        return text, ("with a URL", f"{show(text.strip())} is a URL: download the image first")
    for written in spellings(text):
        path = os.path.normpath(os.path.join(base, written))  # noqa: PTH118 - a tenth of Path's time
        found = find_images(path, known)
        if len(found) == 1:
            return found[0], None
        if found:
            names = " or ".join(show(os.path.basename(file)) for file in found)  # noqa: PTH119
            return text, ("with several images", f"{show(text)} could be {names}")
    what = "is a folder" if os.path.isdir(path) else "does not exist"  # noqa: PTH112
    return text, ("whose image is missing", f"{show(text)} {what}")


def _unusable(
    table: Path, root: Path | None, rows: int, faults: Sequence[_Fault], texts: Sequence[str]
) -> DataError:
    """Return the error that counts the faults of rows by kind, and lists the first ones."""
    kinds = Counter(fault.kind for fault in faults)
    counted = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    sentence = (
        f"{len(faults):,} of {count_of(rows, 'row')} in {show(table)} cannot be used ({counted}):"
    )
    lines = [f"line {fault.line}: {fault.detail}" for fault in faults]
    hint = "correct or delete these rows"
    if missing := kinds["whose image is missing"]:
        paths = [slashed(text) for text in texts]
        if missing == len(texts) and (folder := foreign_folder(paths)):
            hint = _shortened(table, folder, texts)
            return DataError(listing(sentence, lines, _LISTED), hint=hint)
        relative = [path for path in paths if path and not os.path.isabs(path)]  # noqa: PTH117
        where = likely_root(table, relative)
        known = quoted(where) if where is not None and where != root else "DIR"
        found = None
        if known == "DIR":
            bare = [path for path in relative if "/" not in path]
            found = folder_below(table.parent if root is None else root, bare)
        example = f" ({show(found[0])} is in {show(found[1])}/)" if found else ""
        hint = f"correct the paths{example}, or give the folder that they are relative to with "
        hint += f"--root {known}"
    return DataError(listing(sentence, lines, _LISTED), hint=hint)


def _shortened(table: Path, folder: str, paths: Sequence[str]) -> str:
    """Return the hint for absolute paths in one folder, which is not here."""
    where = likely_root(table, [slashed(path)[len(folder) :] for path in paths], table.parent)
    written = paths[0].strip()[: len(folder)]
    hint = f"remove {show(written)} from each path, for example with Replace in a text editor"
    if where != table.parent:
        hint += f", and give the folder of the images with --root {quoted(where or 'DIR')}"
    return hint


def _without_repeated(table: Path, rows: Sequence[Row]) -> list[Row]:
    """Return each image once.

    Raises:
        DataError: Two rows of one image differ; the message names both lines.
    """
    first: dict[str, Row] = {}
    differing, repeated = [], 0
    for row in rows:
        before = first.setdefault(row.path, row)
        if before is row:
            continue
        repeated += 1
        for kind, one, two in zip(("class", "split", "group"), before[2:], row[2:], strict=True):
            if one != two:
                differing.append(
                    f"lines {before.line} and {row.line}: {show(Path(row.path).name)}, {kind} "
                    f"{show(one)} and {show(two)}"
                )
    if differing:
        raise DataError(
            listing(f"{show(table)} lists images twice, and differently:", differing, _LISTED),
            hint="delete the wrong line of each pair",
        )
    if repeated:
        rows_are = "rows repeat" if repeated > 1 else "row repeats"
        say(f"note      {repeated:,} {rows_are} an image with the same class: it counts once")
    return list(first.values())
