"""Header: which columns of a table hold the paths, labels, splits and groups of images."""

from collections.abc import Collection, Container, Iterable, Sequence
from pathlib import Path, PurePath
from string import ascii_uppercase

from xception_cli.console import enumerated, say, show
from xception_cli.data.formats import suffixes
from xception_cli.data.names import WORDS, split_of, words_of
from xception_cli.data.rows import column_name, slashed
from xception_cli.errors import DataError
from xception_cli.parquet import SUFFIX as PARQUET

# Names of each column: our own name first, which has precedence. docs/data.md lists them.
NAMES_OF = {
    "path": (
        *("path", "filename", "file", "file_name", "filepath", "file_path", "image", "image_path"),
        *("image_file", "image_name", "img", "img_path"),
    ),
    "label": (
        *("label", "labels", "class", "class_name", "classname", "class_label", "category"),
        *("category_name", "target", "label_name"),
    ),
    "split": ("split", "set", "subset", "partition"),
    "group": ("group", "groups", "group_id", "unit", "patient_id", "subject_id"),
}
_IF_NO_OTHER = {"path": ("image_id", "id"), "label": ("choice",)}  # Kaggle's, Label Studio's
COLUMNS = "path and label; split (train, val, test) and group are optional"
_FLAGS = [{"true", "false"}, {"yes", "no"}, {"0", "1"}]  # values of a column such as `is_valid`
_MOST_SPLITS = 6  # values of a column that holds the split; others may be paths with `train`
_LISTED = 10  # columns named in a message


def has_columns(names: Sequence[str], required: Collection[str]) -> bool:
    """Return whether a line could name these columns of a table."""
    return all(_candidates(names, kind) for kind in required)


def find_columns(table: Path, names: Sequence[str], required: Collection[str]) -> dict[str, int]:
    """Return the index of each column that is there, in the order of `NAMES_OF`.

    Raises:
        DataError: One of them is missing, or a column could be one of several.
    """
    missing = [kind for kind in required if not _candidates(names, kind)]
    if len(missing) > 1 and not _is_row(names):
        raise DataError(
            f"{show(table)} has no columns {' and '.join(missing)} (found: {_listed(names)})",
            hint=f"{_place(table)}rename the column with the image files to path, and the one with "
            "the classes to label; optional: group (the images of one object, patient or video) "
            "and split (train, val, test)",
        )
    found: dict[str, int] = {}
    for kind in NAMES_OF:
        at = _candidates(names, kind)
        if len(at) == 1:
            found[kind] = at[0]
        elif at or kind in required:
            raise _unclear(table, names, kind, at)
    return found


def _candidates(names: Sequence[str], kind: str) -> list[int]:
    """Return the indices of the possible columns: of our own name, else others, in their order."""
    plain = [column_name(name) for name in names]
    for names_of_kind in ((kind,), NAMES_OF[kind], _IF_NO_OTHER.get(kind, ())):
        if found := [at for at, name in enumerate(plain) if name in names_of_kind]:
            return found
    return []


def _unclear(table: Path, names: Sequence[str], kind: str, at: Sequence[int]) -> DataError:
    """Return the error for a column that is missing or could be one of several."""
    listed = _listed(names)
    if at:
        several = " and ".join(show(names[i]) for i in at)
        return DataError(
            f"{show(table)}: {several} could each be the column {kind} (found: {listed})",
            hint=f"rename the right one to {kind}",
        )
    hint = "write path,label above its first line, which must name the columns"
    if not _is_row(names):
        content = {"path": "image files", "label": "classes"}[kind]
        hint = (
            f"{_place(table)}rename the column with the {content} to {kind}; the columns are "
            f"{COLUMNS}; other names of {kind}: {', '.join(NAMES_OF[kind][1:])}"
        )
    return DataError(f"{show(table)} has no column {kind} (found: {listed})", hint=hint)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"{', '.join(show(name) for name in names[:_LISTED]) or 'none'}{more}"


def _place(table: Path) -> str:
    return "" if table.suffix.lower() == PARQUET else "in its first line, "


def _is_row(names: Sequence[str]) -> bool:
    """Return whether the first line of a table names an image instead of the columns."""
    return any(PurePath(name).suffix.lower() in suffixes() for name in names)


def refuse_one_hot(
    table: Path, names: Sequence[str], lines: Sequence[tuple[int, list[str]]]
) -> None:
    """Refuse a table that has a column of zeros and ones for each class, instead of a label.

    Raises:
        DataError: It has; the hint is the formula that returns the class of a row.
    """
    if _candidates(names, "label"):
        return
    flags = [
        at
        for at in range(len(names))
        if {"1"} <= {_digit(cells, at) for _, cells in lines} <= {"0", "1"}
    ]
    ones = [sum(_digit(cells, at) == "1" for at in flags) for _, cells in lines]
    if len(flags) < 2 or {*ones} != {1}:
        return
    first, last = flags[0], flags[-1]
    formula = ""
    if last - first < len(flags) and last < len(ascii_uppercase):  # next to each other
        one, end = ascii_uppercase[first], ascii_uppercase[last]
        formula = f"; in Excel: =INDEX({one}$1:{end}$1, MATCH(1, {one}2:{end}2, 0))"
    raise DataError(
        f"{show(table)} has no column label, but one for each class: "
        f"{enumerated([names[at] for at in flags])}",
        hint=f"add a column called label, with the class of each image{formula}",
    )


def _digit(cells: Sequence[str], at: int) -> str:
    return cells[at].strip().removesuffix(".0") if at < len(cells) else ""


def refuse_unnamed_split(
    table: Path, names: Sequence[str], lines: Sequence[tuple[int, list[str]]], used: Container[int]
) -> None:
    """Refuse a column that holds the split under another name, instead of sampling a new split.

    Raises:
        DataError: The cells of a column are Training and PublicTest, or it is a flag `is_valid`.
    """
    for at, name in enumerate(names):
        values = {cells[at].strip() for _, cells in lines} - {""}
        if at in used or len(values) > _MOST_SPLITS:
            continue
        named = {
            tuple(WORDS[word] for word in words_of(value) if word in WORDS) for value in values
        }
        is_split = len(named) > 1 and ("train",) in named and all(len(one) == 1 for one in named)
        prefix, _, word = column_name(name).partition("is_")
        is_flag = not prefix and word in WORDS and {v.lower() for v in values} in _FLAGS
        if is_split or is_flag:
            raise DataError(
                f"{show(table)}: the column {show(name)} ({show(', '.join(sorted(values)))}) looks "
                "like the split, but is not called split",
                hint="write train, val and test into a column called split"
                if is_flag
                else "rename it to split; or delete it, and validation images are sampled",
            )


def warn_of_unnamed_split(table: Path, paths: Iterable[str]) -> None:
    """Warn of a table without a split whose images are in folders called Training and Testing."""
    folders = {slashed(path).rpartition("/")[0] for path in paths}
    named = {next(filter(split_of, reversed(folder.split("/"))), "") for folder in folders}
    splits = {split_of(name) for name in named}
    if "train" in splits and len(splits) > 1 and None not in splits:
        places = enumerated(sorted(named))
        say(
            f"warning   {show(table)} has no column split, and images in {places}: all are treated "
            "as one set; a column split (train, val, test) keeps them apart"
        )


def report_columns(table: Path, names: Sequence[str], found: dict[str, int]) -> None:
    """Print which columns are used, under which names."""
    used = ", ".join(
        kind if column_name(names[at]) == kind else f"{kind} from {show(names[at])}"
        for kind, at in found.items()
    )
    say(f"table     {show(table)}: {used}")
