"""Source: the data set that a user gives, a folder or a table; anything else is refused."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from xception_cli.console import quoted, show
from xception_cli.data.folder import DataFolder, read_folder
from xception_cli.data.formats import TABLES, WORKBOOKS
from xception_cli.data.header import COLUMNS
from xception_cli.data.table import is_table, list_table
from xception_cli.errors import UsageError
from xception_cli.files import is_file
from xception_cli.notation import is_url
from xception_cli.rundir import RunDir
from xception_cli.runs import data_of
from xception_cli.texts import SAVE_IN_EXCEL

_TABLES = f"{', '.join(TABLES[:-1])} or {TABLES[-1]}"
_UNPACK = {
    ".zip": "unzip {file} -d {folder}",
    **dict.fromkeys(
        (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"),
        "mkdir {folder} && tar -xf {file} -C {folder}",
    ),
    ".7z": "7z x {file} -o{folder}",
}


def read_data(data: Path, root: Path | None = None, classes: Sequence[str] = ()) -> DataFolder:
    """List the classes and images of a folder or of a table.

    Args:
        data: The folder or the table; see `read_folder` and `read_rows`.
        root: The folder that the paths of a table are relative to; None for the table's own.
        classes: Of a folder whose classes are known, as recorded in a run; see `recognise`.

    Raises:
        UsageError: There is no such folder or table.
        DataError: It cannot be used; the message lists the problems.
    """
    check_data(data, root)
    return list_table(data, root) if is_table(data) else read_folder(data, classes)


def check_data(data: Path, root: Path | None) -> None:
    """Check that a path is a folder or a table, without reading it.

    Raises:
        UsageError: See `read_data`; for an archive, the hint is the command that unpacks it, and
            for a run the folder that it was trained on.
    """
    refuse_packed(data)
    refuse_run(data)
    if root is not None:
        if not is_table(data):
            raise UsageError(
                f"--root is for the paths in a table, and {show(data)} is not one",
                hint="leave --root out",
            )
        if not os.path.isdir(root):  # noqa: PTH112 - Path's raises on odd names
            raise UsageError(f"the folder --root {show(root)} does not exist")
    if is_table(data) and not is_file(data):
        raise UsageError(f"the table {show(data)} does not exist", hint="check the path")
    if not is_table(data) and os.path.isfile(data):  # noqa: PTH113
        raise UsageError(
            f"{show(data)} is neither a folder nor a table",
            hint=f"give a folder of images, or a {_TABLES} file with the columns {COLUMNS}",
        )


def refuse_run(folder: Path, hint: str | None = None) -> None:
    """Refuse a run folder, whose images are charts.

    Args:
        folder: The folder that was given as images.
        hint: What to give instead; None: the folder that the run was trained on.

    Raises:
        UsageError: It is a run.
    """
    run = RunDir(folder)
    if run.is_run:
        what = f"{show(folder)} is a run, not a folder of images"
        raise UsageError(what, hint=hint or _instead_of(run))


def _instead_of(run: RunDir) -> str:
    data = data_of(run)
    hint = "give the folder with its images"
    if data is not None and os.path.exists(data):  # noqa: PTH110 - Path's raises on odd names
        hint += f": {quoted(data)}"
    if run.state == "unfinished":
        hint += f"; to resume the run: xception train --resume {quoted(run.path)}"
    return hint


def refuse_packed(data: Path) -> None:
    """Refuse URLs, archives and tables in another format, with a command for each as the hint.

    Raises:
        UsageError: It is one of these.
    """
    text = re.sub("^([A-Za-z][A-Za-z0-9+.-]+:)/", r"\1//", str(data))  # Path turned `//` into `/`
    if is_url(text) and not os.path.lexists(data):
        raise UsageError(f"{show(text)} is a URL, not a folder", hint="download the images first")
    if not os.path.isfile(data):  # noqa: PTH113
        return
    name = data.name.lower()
    for suffix, command in _UNPACK.items():
        if name.endswith(suffix):
            folder = data.with_name(data.name[: -len(suffix)] or "data")
            raise UsageError(
                f"{show(data)} is an archive: unpack it first",
                hint=command.format(file=quoted(data), folder=quoted(folder)),
            )
    if data.suffix.lower() in WORKBOOKS:
        how = "in LibreOffice, File > Save as > Text CSV"
        if data.suffix.lower() != ".ods":
            how = f"in Excel, {SAVE_IN_EXCEL}"
        raise UsageError(f"{show(data)} is not a {_TABLES} file", hint=how)
