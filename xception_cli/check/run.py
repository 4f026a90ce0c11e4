"""The data check as a whole."""

from xception_cli.check.duplicates import find_duplicates, find_groups
from xception_cli.check.pictures import find_broken, find_odd
from xception_cli.check.report import SEVERITIES, CheckReport
from xception_cli.check.scan import VERSION, scan_folder
from xception_cli.check.shape import check_shape
from xception_cli.check.shortcuts import find_shortcuts
from xception_cli.check.store import open_store
from xception_cli.data.folder import DataFolder


def run_check(folder: DataFolder) -> CheckReport:
    """Look for everything that could be wrong with a data folder, in one pass.

    Nothing is written there; what was seen is kept in the user's cache.

    Args:
        folder: The data folder.

    Raises:
        MachineError: The disk of the cache is full.
    """
    with open_store(folder.root, VERSION) as store:
        looks = scan_folder(folder, store)
        groups = find_groups(folder, looks, store)
    problems = [
        *check_shape(folder, looks),
        *find_broken(folder, looks),
        *find_duplicates(folder, looks, groups),
        *find_shortcuts(folder, looks),
        *find_odd(folder, looks),
    ]
    return CheckReport(
        data=str(folder.root),
        classes=folder.classes,
        counts={
            split or "all": tuple(folder.counts(split)) for split in folder.given_splits or (None,)
        },
        problems=tuple(sorted(problems, key=lambda p: SEVERITIES.index(p.severity))),
    )
