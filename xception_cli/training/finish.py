"""The end of a training: calibrate the kept model, evaluate it and report the results."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xception_cli.check.curve import classes_to_add
from xception_cli.check.report import ClassGain
from xception_cli.console import quoted, say, show
from xception_cli.errors import DataError
from xception_cli.evaluation.calibration import (
    Calibration,
    calibrate,
    calibration_line,
    unknown_line,
)
from xception_cli.evaluation.candidates import read_candidates
from xception_cli.evaluation.comparison_text import compare_with_earlier
from xception_cli.evaluation.correction import correct_report
from xception_cli.evaluation.cross_validated import cross_validation
from xception_cli.evaluation.described import say_result
from xception_cli.evaluation.eval_report import EvalReport
from xception_cli.evaluation.files import write_evaluation
from xception_cli.evaluation.notes import has_no_error
from xception_cli.evaluation.scoring import report_outcomes
from xception_cli.evaluation.selection import shown_folder
from xception_cli.model.about import NO_FEATURES, REFIT
from xception_cli.model.bundle import ModelBundle, Outcome, save_model
from xception_cli.model.features import compute_pooled
from xception_cli.model.folding import for_inference
from xception_cli.model.layers import last_layer, scale_layers
from xception_cli.model.network import backbone_of
from xception_cli.model.probe import limit_views
from xception_cli.numerals import count_of, duration, percentage
from xception_cli.records import KEPT_PROBE, RunResult
from xception_cli.report.advice import is_small
from xception_cli.report.run_page import write_report
from xception_cli.rundir import RunDir, remove_tree, write_json
from xception_cli.training.announce import in_all
from xception_cli.training.baseline import Baseline
from xception_cli.training.history import History
from xception_cli.training.job import Job
from xception_cli.training.judge import Judged
from xception_cli.training.result import TrainResult
from xception_cli.training.settle import Settled, refit

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measured:
    """The selected model, measured on val.

    Attributes:
        bundle: The model that ships, calibrated.
        epoch: Its last epoch; 0 is the linear probe.
        report: Evaluation on val of the model as selected.
        calibration: Its calibration.
    """

    bundle: ModelBundle
    epoch: int
    report: EvalReport
    calibration: Calibration


def measure(
    job: Job, baseline: Baseline, history: History, settled: Settled | None, judged: Judged
) -> Measured:
    """Calibrate the selected model on val and evaluate it; then refit its heads to all images.

    Args:
        job: The run.
        baseline: The probe, and the inputs of fine-tuning.
        history: Of fine-tuning.
        settled: The selected model; None for random weights.
        judged: From `judge_val`.

    Raises:
        DataError: An image can no longer be read.
        MachineError: The disk is full.
    """
    said = _all_read(job, "val", judged)
    with job.phase("calibration"):
        bundle, calibration = _calibrate(job, settled, judged.bundle, said)
    report = _evaluate(job, "val", bundle, said)
    if settled is None:
        return Measured(bundle, history.best_epoch, report, calibration)
    if job.config.refit:
        bundle = refit(job, baseline, settled, bundle)
    return Measured(bundle, settled.epoch, report, calibration)


def finish(
    job: Job, baseline: Baseline, history: History, measured: Measured, judged: Judged
) -> TrainResult:
    """Evaluate the model that ships on test, and end the run.

    Raises:
        DataError: An image can no longer be read.
        MachineError: The disk is full.
    """
    reports = {"val": measured.report}
    if job.split.of("test"):
        said = _all_read(job, "test", judged)
        reports["test"] = _evaluate(job, "test", measured.bundle, said)
    compared = _compare_with_earlier(job)
    kept = f"fine-tuned, epoch {measured.epoch}" if measured.epoch else KEPT_PROBE
    _say_result(job, baseline, history, measured, kept, reports)
    for number, sentence in enumerate(compared):
        say(f"{'' if number else 'earlier':10}{sentence}")
    remove_tree(job.run.features)
    remove_tree(job.run.decoded)
    result = RunResult(
        kept=kept,
        epochs=job.epochs,
        trained_epochs=len(job.run.read_metrics()),
        stopped_early=history.stopped_early,
        probe=baseline.probe_scores,
        cross_validation=cross_validation(baseline.probe, job.split.classes),
        evaluation={name: report.expected.value for name, report in reports.items()},
        calibration=measured.calibration.to_dict(),
        gains=[asdict(gain) for gain in _gains(job, baseline)],
        skipped=baseline.skipped(job.config.ceiling),
        refit=REFIT in measured.bundle.about.provenance,
        views=len(limit_views(baseline.pooled["train"])) if baseline.probe is not None else None,
        compared=compared,
        seconds=_rounded(job.seconds),
    )
    with job.phase("report"):
        write_report(job.run, measured.bundle, job.root, result)
    result = replace(result, seconds=_rounded(job.seconds))
    phases = {name: duration(seconds) for name, seconds in job.seconds.items()}
    since = " since it was resumed" * job.resumed
    say(f"time      {in_all(duration(sum(job.seconds.values())) + since, phases)}")
    say(f"report    {show(job.run.report)}: open it in a browser")
    written = asdict(result)
    if not compared:  # without --from, the file has no such entry
        del written["compared"]
    write_json(job.run.result, written)
    return TrainResult(job.run, kept, baseline.probe_scores, reports, job.seconds)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in seconds.items()}


def _evaluate(job: Job, split: str, bundle: ModelBundle, outcomes: Sequence[Outcome]) -> EvalReport:
    images, data = job.split.of(split), shown_folder(job.folder.place)
    report, scored = report_outcomes(bundle, images, outcomes, name=split, data=data)
    if split == "val":
        report = correct_report(job.run, report, scored)
    write_evaluation(job.run.evaluation(split), report, scored)
    return report


def _compare_with_earlier(job: Job) -> list[str]:
    if job.config.from_ is None:
        return []
    return compare_with_earlier(RunDir(Path(job.config.from_)), job.run)


def _all_read(job: Job, split: str, judged: Judged) -> list[Outcome]:
    """Return the outcomes of a split, all of whose images must have one."""
    pairs = list(zip(job.split.of(split), judged.outcomes, strict=True))
    failed = [pair for pair in pairs if isinstance(pair[1], str)]
    if failed:
        raise DataError(
            f"{count_of(len(failed), f'{split} image')} can no longer be read, "
            f"for example {show(failed[0][0].path)}: {failed[0][1]}",
            hint=f"restore them, then: xception train --resume {quoted(job.run.path)}",
        )
    return [outcome for _, outcome in pairs if isinstance(outcome, Outcome)]


def _calibrate(
    job: Job, settled: Settled | None, bundle: ModelBundle, said: Sequence[Outcome]
) -> tuple[ModelBundle, Calibration]:
    """Fit temperature and thresholds on val, and write them into the model file."""
    calibration = calibrate(
        logits=np.stack([outcome.logits for outcome in said]),
        labels=job.labels("val").numpy(),
        units=job.units("val"),
        features=np.stack([o.features for o in said if o.features is not None]),  # all have them
        train_features=_train_features(job, settled, bundle),
        train_labels=job.labels("train").numpy(),
        target_precision=job.config.target_precision,
        candidates=max(1, len(read_candidates(job.run.candidates, job.images.val).epochs)),
        seed=job.config.seed,
    )
    about = replace(bundle.about, temperature=calibration.temperature, unknown=calibration.unknown)
    if not job.config.share_features:
        about = about.without_features()
    save_model(job.run.model, bundle.network.state_dict(), about)
    return replace(bundle, about=about), calibration


def _train_features(job: Job, settled: Settled | None, bundle: ModelBundle) -> Array:
    """Return the kept model's last-layer features of train, `(images, 2048)`."""
    if settled is not None:
        return last_layer(settled.train[0])
    network = for_inference(bundle.network, job.runtime)
    backbone = backbone_of(network)
    what = "features of the kept model"
    return last_layer(compute_pooled(backbone, job.image_inputs("train"), what))


def _gains(job: Job, baseline: Baseline) -> list[ClassGain]:
    """Return the classes that more images are likely to help, judged by the linear probe."""
    if baseline.probe is None or not baseline.probe.folds:
        return []
    with job.phase("calibration"):
        return classes_to_add(
            scale_layers(baseline.pooled["train"][0]),
            job.labels("train").numpy(),
            job.units("train"),
            job.split.classes,
            strength=baseline.probe.strength,
            seed=job.config.seed,
        )


def _say_result(
    job: Job,
    baseline: Baseline,
    history: History,
    measured: Measured,
    kept: str,
    reports: Mapping[str, EvalReport],
) -> None:
    if history.stopped_early:
        say(f"stopped   early: no improvement for {count_of(job.config.patience, 'epoch')}")
    if history.best_epoch > 0 and measured.epoch == 0:
        why = "fine-tuning did not beat it on val"
        if has_no_error(job.config.monitor, job.split):
            why = "one val group cannot show that fine-tuning beats it"
        kept = f"{kept}: {why}"
    say(f"kept      {kept}", style="bold")
    if baseline.probe_scores is not None and measured.epoch > 0:
        accuracy = percentage(baseline.probe_scores.accuracy)
        say(f"          the linear probe, val: accuracy {accuracy}")
    for report in reports.values():
        say_result(report)
        if (
            report.name == "val"
            and baseline.probe
            and baseline.probe.folds
            and is_small(report, job.split)
        ):
            say("          small validation set: see also the probe's cross-validation above")
        if report.name == "val":
            say(f"          calibration: {calibration_line(measured.calibration)}")
        if report.note:
            say(f"note      {report.note}")
    if job.config.share_features:
        say(f"unknown   {unknown_line(measured.calibration)}")
    else:
        say(f"unknown   {NO_FEATURES}")
    if REFIT in measured.bundle.about.provenance:
        say("refit     the head was refitted to train and val, after val was measured")
