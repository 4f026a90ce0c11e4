"""Uneven classes: what accuracy hides if some classes have many more images than others."""

from collections.abc import Iterable

from xception_cli.console import enumerated
from xception_cli.evaluation.eval_report import EvalReport

UNEVEN = 3  # ratio of class sizes above which accuracy is mostly that of the largest classes
_WEAK = 0.5  # recall below which a class is named


def is_uneven(counts: Iterable[int]) -> bool:
    """Return whether some class has over three times the images of another.

    Args:
        counts: Images of each class; classes without any do not count.
    """
    some = [count for count in counts if count]
    return len(some) > 1 and max(some) > UNEVEN * min(some)


def uneven_line(report: EvalReport) -> str | None:
    """Describe a result by class; None if the measured classes are not uneven."""
    if not is_uneven(row.n for row in report.per_class):
        return None
    macro = report.macro_recall
    line = f"classes are uneven: macro recall {macro.value:.1%} ({macro.interval})"
    known = [(row.recall.value, row) for row in report.per_class if row.recall is not None]
    weak = sorted((pair for pair in known if pair[0] < _WEAK), key=lambda pair: pair[0])
    named = [f"{row.name} ({round(recall * row.n)} of {row.n})" for recall, row in weak]
    return f"{line}; lowest recall: {enumerated(named)}" if named else line
