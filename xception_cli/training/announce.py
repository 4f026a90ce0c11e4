"""What a training prints about itself: the device, the images, the decisions and the times."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from xception_cli.check.report import (
    CONFLICTING,
    DEEP,
    LEAK,
    MISSING,
    SERIES,
    TORN,
    UNGROUPED,
    CheckReport,
    without_mirrored,
)
from xception_cli.check.series import find_series, straddling
from xception_cli.config import TrainConfig
from xception_cli.console import listing, quoted, say, show
from xception_cli.data.folder import DataFolder
from xception_cli.data.layout import SPLITS
from xception_cli.data.split import Split
from xception_cli.runtime import Runtime
from xception_cli.training.job import Draft

_LISTED = 3  # images of a warning, as many as `xception check` lists


def describe_runtime(runtime: Runtime) -> None:
    """Report the device of a training."""
    say(f"device    {runtime.describe()}")
    if idle := runtime.idle_gpus():
        say(
            f"          {idle} more here; to use them: torchrun --nproc-per-node {idle + 1} "
            "-m xception_cli train"
        )


def describe_draft(draft: Draft, origins: Mapping[str, str], *, planned: bool) -> None:
    """Report the decisions of a draft, as far as they need no measurement.

    Args:
        draft: From `draft_job`.
        origins: Where each setting that is not a default came from.
        planned: Whether this is `--plan`, which writes no issues.csv.
    """
    job, split, folder = draft.job, draft.job.split, draft.job.folder
    sizes = {name: len(split.of(name)) for name in SPLITS}
    say(f"split     {', '.join(f'{n:,} {name}' for name, n in sizes.items() if n)} images")
    source = "random, as --weights none asks" if job.pretrained is None else job.pretrained.source
    say(f"weights   {show(source)}")
    defaults = vars(TrainConfig())
    for name, origin in origins.items():
        value = getattr(job.config, name)
        if name not in {"data", "classes", "from_"} and value != defaults[name]:
            say(f"setting   {name} = {show(value)} ({show(origin)})")
    if job.config.budget is None:  # a budget may decide otherwise
        say_reasons(draft.reasons)
    for problem in draft.report.problems:
        if problem.name == DEEP:  # the model file records their scale
            say(f"note      {problem.summary}")
    notes = {
        p.name: len(p.findings) for p in draft.report.of("note") if p.findings and p.name != DEEP
    }
    if notes:
        kinds = ", ".join(f"{name} {count:,}" for name, count in notes.items())
        where = "xception check DIR lists them" if planned else f"listed in {show(job.run.issues)}"
        say(f"note      data check: {kinds}; {where}")
    conflicts = _conflicts(draft.report, None if planned else job.run.issues, split)
    for warning in (*_check_warnings(draft.report, folder, split), *split.warnings, *conflicts):
        say(f"warning   {warning}")


def say_reasons(reasons: Iterable[str]) -> None:
    """Report decisions with their reasons."""
    for reason in reasons:
        say(f"plan      {reason}")


def in_all(total: str, phases: Mapping[str, str]) -> str:
    """Format a duration and those of its phases, without the shortest: `2 min 0 s: ...`."""
    return (
        f"{total}: {', '.join(f'{name} {took}' for name, took in phases.items() if took != '0 s')}"
    )


def _check_warnings(report: CheckReport, folder: DataFolder, split: Split) -> list[str]:
    """Return the data check's warnings, except those reported elsewhere or prevented."""
    told = {CONFLICTING, DEEP, LEAK, MISSING, TORN, UNGROUPED}
    problems = report.of("warning")
    if any(problem.name == SERIES for problem in problems):
        series = find_series(folder, [i.unit if i.split != "out" else "" for i in split.images])
        if series is None or not straddling(series, split.images):
            told.add(SERIES)
    return [problem.summary for problem in problems if problem.name not in told]


def _conflicts(report: CheckReport, issues: Path | None, split: Split) -> list[str]:
    """Warn of copies in two classes, unless --fixes has excluded or relabelled one of them.

    Args:
        report: The data check.
        issues: The issues.csv of the run; None if it will not have one.
        split: Its images.
    """
    label_of = {image.path: image.label for image in split.images if image.split != "out"}
    findings = [
        finding
        for problem in report.problems
        if problem.name == CONFLICTING
        for finding in problem.findings
        if len({label_of[path] for path in (finding.path, *finding.others) if path in label_of}) > 1
    ]
    pairs = [f"{show(f.path)}: {show(f.detail)}" for f in without_mirrored(tuple(findings))]
    if not pairs:
        return []
    are = "image is" if len(pairs) == 1 else "images are"
    sentence = f"{len(pairs):,} {are} in more than one class: conflicting labels"
    lists = "the run lists them"
    if issues is None:
        issues = Path("findings/issues.csv")
        lists = f"xception check DIR --output {issues.parent} lists them"
    return [
        f"{listing(sentence, pairs, _LISTED)}\n  {lists} in {show(issues)}: edit it, "
        f"then train with --fixes {quoted(issues)}"
    ]
