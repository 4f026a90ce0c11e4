"""run_check: the data check as a whole."""

from collections.abc import Iterable
from dataclasses import replace

from xception_cli.check.duplicates import find_duplicates
from xception_cli.check.pictures import find_broken, find_odd
from xception_cli.check.report import SEVERITIES, UNGROUPED, CheckReport, Problem
from xception_cli.check.series import series_problem
from xception_cli.check.shape import check_shape
from xception_cli.check.shortcuts import find_shortcuts
from xception_cli.check.survey import Survey, survey_folder
from xception_cli.data.folder import DataFolder
from xception_cli.data.units import REPLACED


def run_check(
    folder: DataFolder,
    *,
    deep: bool = False,
    curve: bool = False,
    weights: str = "imagenet",
) -> CheckReport:
    """Check a data folder for every known problem, in one pass.

    Nothing is written to the folder; results are kept in the user's cache.

    Args:
        folder: The data folder.
        deep: Use the pretrained network to find suspect labels and to suggest rotations.
        curve: Also measure whether more images would help; implies `deep`.
        weights: Weights of that network: `imagenet` or a file.

    Raises:
        UsageError: No path matches `folder.group_by`.
        DataError: There are too few images to compare labels.
        MachineError: A helper process of the scan was killed.
        WeightsError: The weights cannot be obtained.
    """
    survey = survey_folder(folder)
    report = report_on(survey)
    if not (deep or curve):
        return report
    from xception_cli.check.deep import look_deeper  # torch, only if needed

    problems, measured = look_deeper(survey, weights=weights, with_curve=curve)
    return _with_more(replace(report, curve=measured), problems)


def _with_more(report: CheckReport, problems: Iterable[Problem]) -> CheckReport:
    """Return a report with additional problems, in order."""
    every = (*report.problems, *problems)
    ordered = sorted(every, key=lambda problem: SEVERITIES.index(problem.severity))
    return replace(report, problems=tuple(ordered))


def report_on(survey: Survey) -> CheckReport:
    """Report the problems of a scanned folder."""
    folder, looks = survey.folder, survey.looks
    photos, warnings = survey.in_units()
    ungrouped = [sentence for sentence in warnings if sentence != REPLACED]  # that is no fault
    units = [photo.unit for photo in photos]
    is_grouped = folder.group_by is not None or any(photo.group for photo in photos)
    problems = [
        *check_shape(folder, looks, units),
        *(Problem(UNGROUPED, "warning", sentence) for sentence in ungrouped),
        *find_broken(folder, looks),
        *find_duplicates(folder, looks, survey.groups),
        *([] if is_grouped else series_problem(folder, looks, survey.groups)),
        *find_shortcuts(folder, looks, units),
        *find_odd(folder, looks),
    ]
    report = CheckReport(
        data=str(folder.place),
        root=folder.root,
        classes=folder.classes,
        counts={
            split or "all": tuple(folder.counts(split)) for split in folder.given_splits or (None,)
        },
        problems=(),
    )
    return _with_more(report, problems)
