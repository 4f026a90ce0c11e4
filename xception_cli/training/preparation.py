"""How the job of a run is made: drafted and started, reopened, or received from the leader."""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from xception_cli.check.run import report_on
from xception_cli.check.survey import Survey, survey_data
from xception_cli.config import TrainConfig
from xception_cli.console import quoted, say, screen, show
from xception_cli.data.folder import DataFolder
from xception_cli.data.inspection import inspect_all
from xception_cli.data.opening import turns
from xception_cli.data.recorded import match_split, read_recorded, write_split
from xception_cli.data.sides import describe_changes
from xception_cli.data.source import read_data
from xception_cli.data.split import Split, make_split
from xception_cli.data.trainable import check_trainable
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import ArtifactError, MachineError, UsageError
from xception_cli.files import write_durably
from xception_cli.model.network import build_seeded_network
from xception_cli.model.weights import PretrainedWeights, load_pretrained
from xception_cli.numerals import count_of
from xception_cli.regular import read_regular
from xception_cli.report.check_page import issues_csv
from xception_cli.rundir import RunDir, write_json
from xception_cli.runs import choose_run_path
from xception_cli.runtime import Runtime
from xception_cli.settings import ResolvedConfig, read_config, resolve_resumed
from xception_cli.toml_files import to_toml
from xception_cli.training.announce import describe_draft, describe_runtime, in_all, say_reasons
from xception_cli.training.budget import Budget
from xception_cli.training.checkpoint import StateStore
from xception_cli.training.costs import Costs
from xception_cli.training.distributed import check_processes
from xception_cli.training.estimate import forecast, measure_draft, start_clock
from xception_cli.training.job import Draft, Job
from xception_cli.training.plan import make_plan
from xception_cli.training.provenance import recorded, run_info

_LARGEST_LOG = 1 << 26  # bytes of metrics.jsonl


def decide_job(
    settings: ResolvedConfig,
    survey: Survey | None,
    runtime: Runtime,
    output: Path | None,
    began: float,
    *,
    planned: bool = False,
) -> tuple[Draft, Costs]:
    """Draft a new run and measure it; each decision is reported as soon as it is made.

    Args:
        settings: Of the run.
        survey: See `draft_job`, like the next two.
        runtime: Where to compute.
        output: The run folder.
        began: When the run began, by `time.monotonic`.
        planned: Whether this is `--plan`: there will be no run folder.

    Returns:
        The draft, and what its parts cost.

    Raises:
        XceptionError: See `errors.py`.
    """
    describe_runtime(runtime)
    drafted = draft_job(settings.config, survey, runtime, output)
    describe_draft(drafted, settings.origins, planned=planned)
    draft, costs = measure_draft(drafted, _given(settings), began)
    said = drafted.reasons if settings.config.budget is None else ()
    say_reasons(reason for reason in draft.reasons if reason not in said)
    return draft, costs


def _given(settings: ResolvedConfig) -> set[str]:
    """Return the names of the settings that a time budget must keep: all given, except `auto`."""
    return {name for name in settings.origins if getattr(settings.config, name) != "auto"}


def draft_job(
    config: TrainConfig, survey: Survey | None, runtime: Runtime, output: Path | None
) -> Draft:
    """Draft a new run: split the data, make the plan, load the weights; write nothing.

    Args:
        config: The settings.
        survey: Of the data folder, if it was made already.
        runtime: Where to compute.
        output: The run folder; None means `runs/<data folder name>`.

    Raises:
        XceptionError: See `errors.py`.
    """
    if survey is None:
        survey = survey_data(config)
    folder = survey.folder
    run = RunDir(choose_run_path(folder.place, output))
    before = Split((), ()) if config.from_ is None else _read_split(RunDir(Path(config.from_)))
    split = make_split(
        folder,
        seed=config.seed,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        alike=survey.groups,
        split_file=None if config.split_file is None else Path(config.split_file),
        earlier=before.images,
        fixes=survey.fixes,
        strict=config.strict,
    )
    plan = make_plan(config, runtime, split.counts("train"), len(split.of("val")))
    reasons = plan.reasons
    if config.from_ is not None:
        changes = describe_changes(split.images, split.classes, before.images, before.classes)
        reasons = (f"beginning with {show(config.from_)}: {changes}", *reasons)
    pretrained = _pretrained(config)
    check_processes(plan.config, runtime, split)
    decided = plan.config.replace(data=str(folder.place.absolute()), **_absolute(vars(config)))
    preprocessing = _preprocessing(decided, survey.grey_bits)
    job = _job(decided, run, runtime, folder, split, pretrained, preprocessing)
    return Draft(job, reasons, report_on(survey), config)


def _read_split(run: RunDir) -> Split:
    return read_recorded(run, run.read_info().classes)


def start_job(draft: Draft, costs: Costs, run: RunDir, began: float) -> Job:
    """Write a draft into its run folder, and report what it is expected to take.

    Args:
        draft: From `estimate.measure_draft`, like `costs`.
        costs: Of the parts of the training.
        run: The folder, just made.
        began: When the run began, by `time.monotonic`.

    Raises:
        MachineError: The folder cannot be written.
    """
    job = replace(draft.job, run=run)
    run.remove_partial()
    screen.log_to(run.log)
    write_split(job.split, run.split)
    write_durably(run.issues, issues_csv(draft.report))
    if job.config.fixes is not None:
        write_durably(run.fixes, Path(job.config.fixes).read_bytes())
    write_durably(run.config, to_toml(job.config).encode())
    write_json(run.info, {**run_info(job), "undecided": list(draft.undecided)})
    expected = forecast(draft, costs, time.monotonic() - began)
    rows = expected.rows()
    memory, disk = rows.pop("memory"), rows.pop("disk")
    say(f"expected  {in_all(rows.pop('in all'), rows)}")
    say(f"          memory {memory}{f', temporary files {disk}' if expected.disk else ''}")
    return start_clock(job, costs, began)


def resumed_config(run: RunDir, flags: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a resumed run.

    Args:
        run: The run.
        flags: Settings given on the command line; `None` means not given.

    Raises:
        UsageError: A flag contradicts the run; the error shows the difference.
        ArtifactError: config.toml is damaged or was edited; the error shows the difference.
    """
    saved = read_config(run)
    if flags.get("data") is not None:
        flags = {**flags, "data": str(Path(flags["data"]).absolute())}
    flags = {**flags, **_absolute(flags)}
    if flags.get("classes") is not None and saved.classes is None:
        saved = saved.replace(classes=flags["classes"])
    # `auto` agrees with any setting.
    flags = {name: value for name, value in flags.items() if value != "auto"}
    config = resolve_resumed(saved, flags)
    if saved.budget is not None and config.epochs != saved.epochs:
        raise UsageError(
            f"epochs is {config.epochs}, but the run's budget of {saved.budget} decides the number "
            "of epochs",
            hint="leave --epochs out, or start a new run",
        )
    if config.epochs < saved.epochs:
        raise UsageError(
            f"epochs is {config.epochs}, but the run was started with {saved.epochs}",
            hint="a larger --epochs extends a run; a smaller one needs a new run",
        )
    return config


def reopen_job(config: TrainConfig, runtime: Runtime, run: RunDir) -> Job:
    """Reopen the job of a run, if its data is unchanged.

    Raises:
        UsageError: The data no longer exists, or the number of processes is another one.
        ArtifactError: Images, classes or weights have changed; the error lists the differences.
    """
    done = f": {_epochs_done(run)} of {count_of(config.epochs, 'epoch')} done"
    say(f"resuming  {show(run.path)}{done if config.unfreeze != 'head' else ''}")
    describe_runtime(runtime)
    info, root = run.read_info(), None if config.root is None else Path(config.root)
    if not Path(config.data).exists():  # also if it is a link to a folder that was moved
        raise UsageError(
            f"the data of the run, {show(config.data)}, no longer exists",
            hint="move it back; or start a new run with the same settings and split: "
            f"xception train DIR --from {quoted(run.path)}",
        )
    folder = read_data(Path(config.data), root, info.classes)  # names that are refused today
    check_trainable(folder, config.classes)
    before, now = info.processes, runtime.processes.count
    if before != now:
        raise UsageError(
            f"the run was started with {count_of(before, 'process')}, not with {now}",
            hint=f"torchrun --nproc-per-node {before}" if before > 1 else "leave torchrun out",
        )
    saved = read_recorded(run, info.classes)
    inspections = inspect_all([folder.root / image.path for image in folder.images])
    split = match_split(saved, folder.inspected(inspections))
    check_processes(config, runtime, split)
    pretrained = _pretrained(config)
    if pretrained is not None and pretrained.digest != info.weights["digest"]:
        raise ArtifactError(
            f"{show(config.weights)} is not the file that the run was started with: its digest is "
            f"{pretrained.digest[:16]}…, not {show(info.weights['digest'])[:16]}…",
            hint="restore the file, or start a new run without --resume",
        )
    screen.log_to(run.log)
    run.remove_partial()
    run.update_info({"process": os.getpid(), **recorded(config, split)})
    run.result.unlink(missing_ok=True)
    write_durably(run.config, to_toml(config).encode())
    preprocessing = _preprocessing(config, info.grey_bits)
    job = _job(config, run, runtime, folder, split, pretrained, preprocessing)
    job = replace(job, resumed=True)
    if info.timed is None:
        return job
    budget = Budget(run, info.timed)
    return replace(job, config=config.replace(views=budget.views), budget=budget)


def _epochs_done(run: RunDir) -> int:
    """Count the epochs up to the newest state; 0 if it is damaged, which is reported later."""
    try:
        logged = StateStore(run.checkpoints).newest_notes()["history"]["metrics_bytes"]
        return read_regular(run.metrics, _LARGEST_LOG)[:logged].count(b"\n")
    except (ArtifactError, OSError, LookupError, TypeError):
        return 0


def share_job(job: Job | None, runtime: Runtime) -> Job:
    """Rebuild the leader's job in each process.

    Args:
        job: In the leader, started or reopened; None in the others.
        runtime: Of this process.

    Raises:
        XceptionError: See `errors.py`.
    """

    def decided() -> tuple[TrainConfig, RunDir, DataFolder, Split, Preprocessing]:
        if job is None:
            raise TypeError("the leader has no job")
        return job.config, job.run, job.folder, job.split, job.preprocessing

    config, run, folder, split, preprocessing = runtime.processes.once(decided)
    if job is not None:
        return job
    if runtime.precision != config.precision:
        raise MachineError(
            f"this process would compute in {runtime.precision}, the first one in "
            f"{config.precision}",
            hint="--precision fp32, or machines of one kind",
        )
    pretrained = _pretrained(config)
    return _job(config, run, runtime, folder, split, pretrained, preprocessing)


def _absolute(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that are paths, made absolute, to be found from any folder."""
    files = {
        name: settings.get(name) for name in ("weights", "root", "split_file", "fixes", "from_")
    }
    return {
        name: value if value in {"imagenet", "none"} else str(Path(value).absolute())
        for name, value in files.items()
        if value is not None
    }


def _pretrained(config: TrainConfig) -> PretrainedWeights | None:
    return None if config.weights == "none" else load_pretrained(config.weights)


def _job(
    config: TrainConfig,
    run: RunDir,
    runtime: Runtime,
    folder: DataFolder,
    split: Split,
    pretrained: PretrainedWeights | None,
    preprocessing: Preprocessing,
) -> Job:
    turns.max_pixels = config.max_pixels
    network = build_seeded_network(len(split.classes), config.seed)
    if pretrained is not None:
        network.load_state_dict({**network.state_dict(), **pretrained.backbone})
    return Job(
        config=config,
        run=run,
        runtime=runtime,
        folder=folder,
        split=split,
        pretrained=pretrained,
        network=runtime.place(network).eval(),
        preprocessing=preprocessing,
    )


def _preprocessing(config: TrainConfig, grey_bits: int) -> Preprocessing:
    made = Preprocessing.for_size(config.image_size)
    return replace(made, grey_bits=grey_bits, max_pixels=config.max_pixels)
