"""What a new training prints before it starts: the device, the images and the decisions."""

from collections.abc import Iterable, Mapping

from xception_cli.check.report import CONFLICTING, DEEP, LEAK, MISSING, SERIES, CheckReport
from xception_cli.check.series import find_series, straddling
from xception_cli.console import say, show
from xception_cli.data.folder import DataFolder
from xception_cli.data.split import Split
from xception_cli.runtime import Runtime
from xception_cli.training.job import Draft


def describe_runtime(runtime: Runtime) -> None:
    """Report the device of a new training."""
    say(f"device    {runtime.describe()}")
    if idle := runtime.idle_gpus():
        say(
            f"          {idle} more here; to use them: torchrun --nproc-per-node {idle + 1} "
            "-m xception_cli train"
        )


def describe_draft(draft: Draft, origins: Mapping[str, str]) -> None:
    """Report the decisions of a draft, as far as they need no measurement.

    Args:
        draft: From `draft_job`.
        origins: Where each setting that is not a default came from.
    """
    job, split, folder = draft.job, draft.job.split, draft.job.folder
    sizes = {name: len(split.of(name)) for name in ("train", "val", "test")}
    say(f"split     {', '.join(f'{n} {name}' for name, n in sizes.items() if n)} images")
    source = "random, as --weights none asks" if job.pretrained is None else job.pretrained.source
    say(f"weights   {show(source)}")
    for name, origin in origins.items():
        if name not in {"data", "classes", "from_"}:
            say(f"setting   {name} = {show(getattr(job.config, name))} ({show(origin)})")
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
        say(f"note      data check: {kinds}; listed in issues.csv of the run")
    for warning in (*_check_warnings(draft.report, folder, split), *split.warnings):
        say(f"warning   {warning}")


def say_reasons(reasons: Iterable[str]) -> None:
    """Report decisions with their reasons."""
    for reason in reasons:
        say(f"plan      {reason}")


def _check_warnings(report: CheckReport, folder: DataFolder, split: Split) -> list[str]:
    """Return the data check's warnings, except those that the split reports or has prevented."""
    told = {CONFLICTING, DEEP, LEAK, MISSING}
    problems = report.of("warning")
    if any(problem.name == SERIES for problem in problems):
        series = find_series(folder, [i.unit if i.split != "out" else "" for i in split.images])
        if series is None or not straddling(series, split.images):
            told.add(SERIES)
    return [problem.summary for problem in problems if problem.name not in told]
