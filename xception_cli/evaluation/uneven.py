"""What accuracy hides: classes that were not measured, and classes of uneven sizes."""

from collections.abc import Iterable

from xception_cli.console import enumerated, show
from xception_cli.evaluation.eval_report import OTHER_CLASS, EvalReport
from xception_cli.numerals import count_of

UNEVEN = 3  # ratio of class sizes above which accuracy is mostly that of the largest classes
_WEAK = 0.5  # recall below which a class is named


def is_uneven(counts: Iterable[int]) -> bool:
    """Return whether some class has over three times the images of another.

    Args:
        counts: Images of each class; classes without any do not count.
    """
    some = [count for count in counts if count]
    return len(some) > 1 and max(some) > UNEVEN * min(some)


def unmeasured_line(report: EvalReport) -> str | None:
    """Name the classes that no image measured; None without any."""
    missing = [row.name for row in report.per_class if not row.n]
    if not missing:
        return None
    have, are = ("has", "is") if len(missing) == 1 else ("have", "are")
    classes = f"{len(missing):,} of {count_of(len(report.per_class), 'class')}"
    lost = report.failures or any(found.reason != OTHER_CLASS for found in report.left_out)
    left = " left" if lost else ""  # these may have been of the class
    where = f"{have} no images{left} in {show(report.name)}"
    return f"{classes} {where}, and {are} not measured: {enumerated(missing)}"


def uneven_line(report: EvalReport) -> str | None:
    """Describe a result by class; None if the measured classes are not uneven."""
    if not is_uneven(row.n for row in report.per_class):
        return None
    where = f"uneven in {show(report.name)}"  # by chance, or in all images
    line = f"classes are {where}: macro recall {report.macro_recall.in_percent()}"
    known = [(row.recall.value, row) for row in report.per_class if row.recall is not None]
    weak = sorted((pair for pair in known if pair[0] < _WEAK), key=lambda pair: pair[0])
    named = [f"{row.name} ({round(recall * row.n):,} of {row.n:,})" for recall, row in weak]
    return f"{line}; lowest recall: {enumerated(named)}" if named else line
