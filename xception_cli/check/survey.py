"""Survey: facts about a data folder that need no training. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xception_cli.config import TrainConfig
from xception_cli.console import enumerated, listing, say, show
from xception_cli.data.fixes import FIXES_HINT, Fix, read_fixes
from xception_cli.data.folder import DataFolder
from xception_cli.data.photo import Photo
from xception_cli.data.sides import SPLIT_HINT
from xception_cli.data.source import read_data
from xception_cli.data.trainable import check_trainable, unread_problem
from xception_cli.errors import DataError
from xception_cli.files import require_readable, utf8
from xception_cli.numerals import count_of

if TYPE_CHECKING:  # a folder that cannot be used is reported before NumPy and SciPy load
    from xception_cli.check.duplicates import Group
    from xception_cli.check.scan import Look
    from xception_cli.check.store import Store

_SHOWN = 20  # classes, and bad files, listed on the screen


@dataclass(frozen=True)
class Survey:
    """A data folder, scanned.

    Attributes:
        folder: Its classes and files, inspected.
        looks: The scan of each image.
        groups: Groups of identical and nearly identical images, as indices.
        fixes: Fixes of an edited issues.csv, by path.
    """

    folder: DataFolder
    looks: "tuple[Look, ...]"
    groups: "list[Group]"
    fixes: Mapping[str, Fix] = field(default_factory=dict)

    @property
    def grey_bits(self) -> int:
        """See `Preprocessing`."""
        from xception_cli.check.scan import bits_of

        return bits_of(self.looks)

    def in_units(self) -> tuple[list[Photo], list[str]]:
        """Return the images with their units, and warnings; see `assign_units`."""
        from xception_cli.data.units import assign_units

        return assign_units(self.folder.images, self.groups, self.folder.group_by)


def survey_folder(folder: DataFolder) -> Survey:
    """Scan every image of a folder, or only those that changed since the last scan.

    Args:
        folder: The data folder. Nothing is written to it; results are cached.

    Raises:
        MachineError: A helper process of the scan was killed.
    """
    from xception_cli.check.store import use_store

    return use_store(folder.root, partial(survey_with, folder))


def survey_with(folder: DataFolder, store: "Store", grey_bits: int | None = None) -> Survey:
    """Scan a folder with its store; see `scan_folder`."""
    from xception_cli.check.duplicates import find_groups
    from xception_cli.check.scan import scan_folder

    looks = scan_folder(folder, store, grey_bits=grey_bits)
    inspected = folder.inspected(look.inspection for look in looks)
    return Survey(inspected, looks, find_groups(folder, looks, store))


def survey_data(config: TrainConfig) -> Survey:
    """Scan the data of a training and check that it is usable, before anything slow starts.

    Classes and counts are printed before the scan: they need no image to be opened.

    Raises:
        UsageError: There is no such folder, it has another number of classes than expected, the
            fixes cannot be applied, the split file cannot be read, or no path matches.
        DataError: The folder cannot be used for training, or images cannot be decoded.
        MachineError: A helper process of the scan was killed.
    """
    _require_files(config)
    root = None if config.root is None else Path(config.root)
    folder = replace(read_data(Path(config.data), root), group_by=config.group_by)
    if not config.skip_bad and (problem := unread_problem(folder)):
        raise DataError(problem, hint="or train on the others with --skip-bad")
    check_trainable(folder, config.classes)
    wanted = {} if config.fixes is None else read_fixes(Path(config.fixes), folder)
    if config.split_file is not None:
        from xception_cli.data.sides import follow_file

        follow_file(list(folder.images), folder, Path(config.split_file))
    if config.group_by is not None:
        from xception_cli.data.units import name_groups

        name_groups(folder.images, range(len(folder.images)), config.group_by)
    counted = f"{count_of(len(folder.classes), 'class')}, {count_of(len(folder.images), 'image')}"
    say(f"data      {show(folder.place)}: {counted}")
    say(f"classes   {enumerated(folder.classes, _SHOWN)}")
    for note in folder.notes():
        say(f"          {note}")

    from xception_cli.data.opening import turns

    turns.max_pixels = config.max_pixels
    survey = replace(survey_folder(folder), fixes=wanted)
    if not config.skip_bad:
        _refuse_bad(survey, config.fixes)
    return survey


def _require_files(config: TrainConfig) -> None:
    """Check that the files that settings name can be read, before a large folder is listed.

    Raises:
        UsageError: One cannot.
    """
    if config.weights not in {"imagenet", "none"}:
        takes = "--weights takes imagenet, none or a file, not an address"
        require_readable(config.weights, "--weights", takes)
    if config.fixes is not None:
        require_readable(config.fixes, "--fixes", FIXES_HINT)
    if config.split_file is not None:
        require_readable(config.split_file, "--split-file", SPLIT_HINT)


def _refuse_bad(survey: Survey, fixes: str | None) -> None:
    excluded = {path for path, fix in survey.fixes.items() if fix.action == "exclude"}
    bad = [
        f"{show(image.path)}: {look.problem}"
        for image, look in zip(survey.folder.images, survey.looks, strict=True)
        if look.problem and utf8(image.path) not in excluded
    ]
    if not bad:
        return
    where = show(survey.folder.place)
    by_row = "with --fixes findings/issues.csv after xception check DIR --output findings"
    if fixes is not None:
        by_row = f"with the action exclude in {show(fixes)}"
    raise DataError(
        listing(
            f"{len(bad):,} of {count_of(len(survey.looks), 'image')} in {where} cannot be used:",
            bad,
            _SHOWN,
        ),
        hint=f"fix or remove them, or leave them out of this run with --skip-bad, or {by_row}",
    )
