"""Advice on a run: what to do next, and the classes that its model cannot be used for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from xception_cli.check.report import (
    CONFLICTING,
    DUPLICATE,
    LEAK,
    NEAR,
    OLD_NEAR,
    SUSPECTS,
)
from xception_cli.check.shape import FEW
from xception_cli.console import NAMED, enumerated, quoted, show
from xception_cli.data.split import Split
from xception_cli.evaluation.eval_report import EvalReport
from xception_cli.numerals import count_of, percentage
from xception_cli.records import RunResult
from xception_cli.report.facts import Facts

SMALL = 200  # units of an evaluation; with fewer, the probe's cross-validation is shown too
FEW_MEASURED = 100  # independent images of an evaluation; with fewer, its interval is wide
_GAINS = 3  # classes to recommend more images for
_RECOGNISED = 0.97  # recall of a class that needs no more images
# Shown with their images.
_SHOWN = {*SUSPECTS, CONFLICTING, LEAK, DUPLICATE, NEAR, OLD_NEAR}


def next_steps(facts: Facts, place: str) -> dict[str, Any]:
    """Prepare the next steps of a report; empty ones are not shown.

    Args:
        facts: About the run.
        place: Its data, as typed in a command.
    """
    run, report, result, split = facts.run, facts.report, facts.result, facts.split
    issues = facts.issues or []
    pair = report.confused[0] if report.confused else None
    trained = dict(zip(split.classes, split.counts("train"), strict=True))
    weakest = _weakest_class(report, result, trained)
    return {
        "confused": pair and {"of": round(pair.n / pair.part), **pair.to_dict()},
        "weakest": weakest,
        "suspects": sum(row.get("problem") in SUSPECTS for row in issues),
        "labels": len(split.images),
        "few": report.groups < FEW_MEASURED,
        "fraction": _fraction(facts),
        "gains": _classes_to_add(report, result, weakest["name"] if weakest else None),
        "others": _other_findings(issues),
        "fixes": quoted(run.issues),
        "fix": f"xception train {place} --fixes {quoted(run.issues)}",
        "check": f"xception check {place} --output {quoted(f'{run.path.name}-check')}",
        "measure": f"xception eval {quoted(run.path)} --data DIR",
        "predict": f"xception predict {quoted(run.path)} IMAGE.jpg",
    }


def is_small(report: EvalReport, split: Split) -> bool:
    """Return whether an evaluation needs a second opinion: few images, or a class that has few."""
    return report.groups < SMALL or min(split.counts("train")) < FEW


def _fraction(facts: Facts) -> str | None:
    """Return the option that holds out more images; None for a given split."""
    name = facts.report.name
    if facts.config.split_file is not None or any(i.is_given for i in facts.split.of(name)):
        return None
    return f"--{name}-fraction"


def _weakest_class(
    report: EvalReport, result: RunResult, trained: Mapping[str, int]
) -> dict[str, Any] | None:
    """Describe the class of lowest recall and how to improve it; None if none is clearly low."""
    known = [(row.recall, row) for row in report.per_class if row.recall is not None]
    recall, row = min(known, key=lambda pair: pair[0].value)
    if recall.high is None or recall.high >= report.accuracy.value:
        return None
    pair = next((pair for pair in report.confused if pair.true == row.name), None)
    if trained[row.name] < FEW:
        how = f"it has {count_of(trained[row.name], 'training image')}: add more"
    elif any(gain["name"] == row.name for gain in result.gains):
        how = "more images of it are likely to help"
    elif pair is not None:
        how = (
            f"{pair.n:,} of its {count_of(row.n, 'image')} are predicted as "
            f"{show(pair.predicted)}: check the labels of both, then add images"
        )
    else:
        how = "add images"
    tied = sum(other.value == recall.value for other, _ in known) - 1
    return {
        "name": row.name,
        "like": f", like {count_of(tied, 'other class')}" if tied else "",
        "recall": percentage(recall.value),
        "interval": recall.interval,
        "how": how,
    }


def _classes_to_add(
    report: EvalReport, result: RunResult, weakest: str | None
) -> list[dict[str, str]]:
    """Return classes that more images are likely to help, with recalls of the linear probe.

    Classes that the model recognises already, and the weakest one, are left out.
    """
    done = {weakest} | {
        row.name for row in report.per_class if row.recall and row.recall.value > _RECOGNISED
    }
    gains = [gain for gain in result.gains if gain["name"] not in done]
    return [
        {"name": gain["name"], "half": f"{gain['half']:.0%}", "whole": f"{gain['whole']:.0%}"}
        for gain in gains[:_GAINS]
    ]


def _other_findings(issues: Sequence[Mapping[str, str]]) -> dict[str, Any] | None:
    """Count the rows of issues.csv that the page does not show; None without any."""
    found = Counter(
        row.get("problem", "") for row in issues if row.get("problem", "") not in _SHOWN
    )
    if not found:
        return None
    kinds = enumerated([f"{name} {count:,}" for name, count in found.most_common()])
    return {"count": found.total(), "kinds": kinds}


def unusable_classes(report: EvalReport, counts: Mapping[str, Sequence[int]]) -> list[str]:
    """Describe the classes that the model cannot be trusted for: few images, or none recognised.

    Args:
        report: The evaluation.
        counts: Images of each class in train, and in the other splits.
    """
    held_out = {"val": "validation", "test": "test"}[report.name]
    lines = []
    for row in report.per_class:
        missed = row.recall is not None and row.recall.value == 0
        if sum(counts[row.name]) >= FEW and not missed:
            continue
        images = (
            count_of(counts[row.name][0], "training image"),
            count_of(row.n, f"{held_out} image"),
        )
        none = ", none classified correctly" if missed else ""
        lines.append(f"{show(row.name)}: {', '.join(images)}{none}")
    more = f"and {len(lines) - NAMED} more classes, see the table"
    return [*lines[:NAMED], more] if len(lines) > NAMED + 1 else lines
