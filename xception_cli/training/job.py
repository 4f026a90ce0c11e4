"""Job: what a training run works with, made for a new run or for one that goes on."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from xception_cli.check.page import issues_csv
from xception_cli.check.report import CheckReport
from xception_cli.check.run import report_on
from xception_cli.check.survey import Survey
from xception_cli.config import TrainConfig, read_toml, resolve_resumed, to_toml
from xception_cli.console import say, screen, show
from xception_cli.data.assign import make_split
from xception_cli.data.fixes import CONFLICTING, LEAK
from xception_cli.data.folder import DataFolder
from xception_cli.data.images import inspect_all
from xception_cli.data.loading import (
    KeyedBatches,
    PictureDataset,
    PictureInputs,
    default_workers,
)
from xception_cli.data.split import (
    Split,
    match_split,
    read_split,
    write_split,
)
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.evaluation.metrics import TOP
from xception_cli.files import write_durably
from xception_cli.model.bundle import save_model
from xception_cli.model.features import BLOCK
from xception_cli.model.network import build_seeded_network
from xception_cli.model.weights import PretrainedWeights, load_pretrained
from xception_cli.rundir import RunDir, choose_run_path, make_run, write_json
from xception_cli.runtime import Runtime, versions
from xception_cli.training.budget import Budget
from xception_cli.training.plan import Images, class_weights, make_plan


@dataclass(frozen=True)
class Job:
    """Everything a phase of the run needs to know.

    Made by `draft_job`, and put on disk by `start_job`; or by `reopen_job`, from there, without
    the report of the data check.
    """

    config: TrainConfig
    run: RunDir
    runtime: Runtime
    folder: DataFolder
    split: Split
    pretrained: PretrainedWeights | None
    network: torch.nn.Module
    preprocessing: Preprocessing
    reasons: tuple[str, ...] = ()
    report: CheckReport | None = None
    budget: Budget | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The data folder."""
        return self.folder.root

    @property
    def images(self) -> Images:
        """How many there are in each split."""
        return Images(*(len(self.split.of(name)) for name in ("train", "val", "test")))

    @property
    def workers(self) -> int:
        """Processes that decode images."""
        if self.config.workers is None:
            return default_workers(self.runtime.device)
        return self.config.workers

    @property
    def top_k(self) -> int:
        """The k of top-k accuracy; 1, where the usual one could not be wrong."""
        return TOP if len(self.split.classes) > TOP else 1

    def labels(self, split: str) -> torch.Tensor:
        """Return the labels `(images,)` of a split, int64."""
        return torch.tensor([image.label for image in self.split.of(split)])

    def pictures(
        self, split: str, *, augmented: bool = False, shuffle: bool = False
    ) -> PictureInputs:
        """Return the pictures of a split as inputs of the network."""
        config = self.config
        transform = self.preprocessing.evaluation_transform()
        if augmented:
            transform = self.preprocessing.training_transform(
                augment=config.augment, flip=config.flip
            )
        images = self.split.of(split)
        dataset = PictureDataset(
            self.root,
            [image.path for image in images],
            [image.label for image in images],
            transform,
            least_side=self.preprocessing.least_side,
            seed=config.seed,
        )
        in_order = KeyedBatches(len(images), BLOCK, seed=config.seed, shuffle=False)
        return PictureInputs(
            dataset,
            self.shuffled(split) if shuffle else in_order,
            preprocessing=self.preprocessing,
            runtime=self.runtime,
            workers=self.workers,
        )

    def shuffled(self, split: str) -> KeyedBatches:
        """Return the batches that training draws from a split."""
        labels, weights = self.labels(split), None
        if self.config.balance == "sampler" and self.class_weights is not None:
            weights = self.class_weights[labels]
        return KeyedBatches(
            len(labels),
            self.config.batch_size,
            seed=self.config.seed,
            shuffle=True,
            weights=weights,
        )

    @property
    def class_weights(self) -> torch.Tensor | None:
        """The weight of each class, `(classes,)`; None where all weigh the same."""
        if self.config.balance not in {"loss", "sampler"}:
            return None
        return torch.tensor(class_weights(self.split.counts("train")))

    @property
    def epochs(self) -> int:
        """How many there are to be, as far as is known."""
        return self.config.epochs if self.budget is None else self.budget.epochs

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what a phase takes."""
        began = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def save_model(self, state: Mapping[str, torch.Tensor], trained: Mapping[str, Any]) -> None:
        """Write the run's model file.

        Args:
            state: The whole network's.
            trained: How it came about, for the provenance.

        Raises:
            ArtifactError: A weight is not finite; the file before stays.
        """
        save_model(
            self.run.model,
            state,
            classes=self.split.classes,
            preprocessing=self.preprocessing,
            provenance={
                "versions": versions(),
                "weights": _weights_info(self.pretrained),
                "data_fingerprint": self.split.fingerprint,
                "seed": self.config.seed,
                "unfreeze": self.config.unfreeze,
                "precision": self.runtime.precision,
                **trained,
            },
        )


def draft_job(config: TrainConfig, survey: Survey, runtime: Runtime, output: Path | None) -> Job:
    """Draft a new run: split the data, decide the plan, get the weights; write nothing.

    Args:
        config: The settings.
        survey: Of the data folder, from `survey_for_training`.
        runtime: Where to compute.
        output: The run folder; None means `runs/<data folder name>`.

    Raises:
        XceptionError: See `errors.py`.
    """
    folder = survey.folder
    run = RunDir(choose_run_path(folder.root, output))
    split = make_split(
        folder,
        [look.inspection for look in survey.looks],
        seed=config.seed,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        alike=survey.groups,
        group_by=config.group_by,
        split_file=None if config.split_file is None else Path(config.split_file),
        fixes=survey.fixes,
        strict=config.strict,
    )
    plan = make_plan(config, runtime, split.counts("train"), len(split.of("val")))
    pretrained = None if config.weights == "none" else load_pretrained(config.weights)
    config = plan.config.replace(data=str(folder.root.absolute()), **_absolute(vars(config)))
    job = _job(config, run, runtime, folder, split, pretrained, plan.reasons)
    return replace(job, report=report_on(survey))


def start_job(job: Job, output: Path | None, origins: Mapping[str, str]) -> Job:
    """Make the run folder of a drafted job, and say what will be done.

    Args:
        job: From `draft_job`.
        output: As it was given there.
        origins: Where each setting that is not a default came from, for the screen.

    Raises:
        UsageError: `output` holds something by now.
        MachineError: The folder cannot be made or written.
    """
    run = make_run(job.root, output)
    screen.log_to(run.log)
    describe_job(job, origins)
    write_split(job.split, run.split)
    if job.report is not None:
        write_durably(run.issues, issues_csv(job.report))
    write_durably(run.config, to_toml(job.config).encode())
    write_json(run.info, _run_info(job))
    return replace(job, run=run)


def resumed_config(run: RunDir, flags: Mapping[str, Any]) -> TrainConfig:
    """Return the settings that a run goes on with.

    Args:
        run: The run.
        flags: Settings given on the command line; `None` was not given.

    Raises:
        UsageError: A flag contradicts the run; shows the difference.
    """
    saved = TrainConfig(**read_toml(run.config))
    if flags.get("data") is not None:
        flags = {**flags, "data": str(Path(flags["data"]).absolute())}
    flags = {**flags, **_absolute(flags)}
    if flags.get("classes") is not None and saved.classes is None:
        saved = saved.replace(classes=flags["classes"])
    # `auto` asks for nothing in particular
    flags = {name: value for name, value in flags.items() if value != "auto"}
    config = resolve_resumed(saved, flags)
    if saved.budget is not None and config.epochs != saved.epochs:
        raise UsageError(
            f"epochs is {config.epochs}, but the run has a budget of {saved.budget}, which decides "
            "how many there are",
            hint="leave --epochs out, or start a new run",
        )
    if config.epochs < saved.epochs:
        raise UsageError(
            f"epochs is {config.epochs}, but the run was started with {saved.epochs}",
            hint="a larger --epochs extends a run; a smaller one needs a new run",
        )
    return config


def reopen_job(config: TrainConfig, folder: DataFolder, runtime: Runtime, run: RunDir) -> Job:
    """Go on with a run, if the data is the same as when it was started.

    Raises:
        ArtifactError: Images, classes or weights are not the same; lists the differences.
    """
    info = run.read_info()
    paths = [folder.root / image.path for image in folder.images]
    saved = read_split(run.split, info["classes"])
    split = match_split(saved, folder, inspect_all(paths, decoded=False))
    pretrained = None if config.weights == "none" else load_pretrained(config.weights)
    if pretrained is not None and pretrained.digest != info["weights"]["digest"]:
        raise ArtifactError(
            f"{show(config.weights)} holds other weights than the run was started with: "
            f"{pretrained.digest[:16]}…, then {show(info['weights']['digest'])[:16]}…",
            hint="put the file back, or start a new run without --resume",
        )
    screen.log_to(run.log)
    say(f"going on with {show(run.path)}")
    for partial in run.path.glob("*.partial"):  # of a process that was killed while it wrote
        partial.unlink(missing_ok=True)
    write_json(run.info, info | {"process": os.getpid()})
    run.result.unlink(missing_ok=True)
    write_durably(run.config, to_toml(config).encode())
    job = _job(config, run, runtime, folder, split, pretrained)
    if "timed" not in info:
        return job
    budget = Budget(run, info["timed"])
    return replace(job, config=config.replace(views=budget.views), budget=budget)


def _absolute(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that name files, so that they are found from any folder."""
    files = {name: settings.get(name) for name in ("weights", "split_file", "fixes")}
    return {
        name: value if value in {"imagenet", "none"} else str(Path(value).absolute())
        for name, value in files.items()
        if value is not None
    }


def _job(
    config: TrainConfig,
    run: RunDir,
    runtime: Runtime,
    folder: DataFolder,
    split: Split,
    pretrained: PretrainedWeights | None,
    reasons: tuple[str, ...] = (),
) -> Job:
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
        preprocessing=Preprocessing.for_size(config.image_size),
        reasons=reasons,
    )


def describe_job(job: Job, origins: Mapping[str, str]) -> None:
    """Say what will be done, and why.

    Args:
        job: From `draft_job`.
        origins: Where each setting that is not a default came from.
    """
    split, folder = job.split, job.folder
    counts = ", ".join(f"{n} {name}" for name, n in job.images._asdict().items() if n)
    names = ", ".join(show(name) for name in split.classes[:20])
    more = f" and {len(split.classes) - 20} more" if len(split.classes) > 20 else ""
    say(f"data      {show(folder.root)}: {len(split.classes)} classes, {counts} images")
    say(f"classes   {names}{more}")
    if folder.ignored:
        say(f"          {folder.describe_ignored()}")
    source = "random, as --weights none asks" if job.pretrained is None else job.pretrained.source
    say(f"weights   {show(source)}")
    say(f"device    {job.runtime.describe()}")
    for name, origin in origins.items():
        if name not in {"data", "classes"}:
            say(f"setting   {name} = {show(getattr(job.config, name))} ({show(origin)})")
    for reason in job.reasons:
        say(f"plan      {reason}")
    for warning in (*_check_warnings(job.report), *split.warnings):
        say(f"warning   {warning}")


def _check_warnings(report: CheckReport | None) -> list[str]:
    """Return what the data check warns of, but for what the split says in its own words."""
    told = {CONFLICTING, LEAK, "missing in split"}
    problems = [] if report is None else report.of("warning")
    return [problem.summary for problem in problems if problem.name not in told]


def _run_info(job: Job) -> dict[str, Any]:
    return {
        "started": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "process": os.getpid(),
        "command": " ".join(show(part) for part in ["xception", *sys.argv[1:]]),
        "versions": versions(),
        "git_commit": _git_commit(),
        "device": str(job.runtime.device),
        "precision": job.runtime.precision,
        "threads": torch.get_num_threads(),
        "data": job.config.data,
        "data_fingerprint": job.split.fingerprint,
        "classes": list(job.split.classes),
        "images": {name: len(job.split.of(name)) for name in ("train", "val", "test", "out")},
        "weights": _weights_info(job.pretrained),
    }


def _weights_info(pretrained: PretrainedWeights | None) -> dict[str, Any]:
    if pretrained is None:
        return {"source": "none", "digest": None}
    return {"source": show(pretrained.source), "digest": pretrained.digest}


def _git_commit() -> str | None:
    """Return the commit of the user's own repository, if the run is started in one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
