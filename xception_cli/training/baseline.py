"""The frozen features and the linear probe on them: where fine-tuning starts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xception_cli.check.deep import find_suspects, suspects_problem
from xception_cli.check.report import SUSPECT
from xception_cli.console import say, show
from xception_cli.data.loading import Inputs, PictureInputs
from xception_cli.evaluation.candidates import add_candidate
from xception_cli.evaluation.intervals import (
    Estimate,
    count_units,
    evidence,
    proportion_interval,
)
from xception_cli.model.features import FeatureInputs, compute_pooled, compute_store
from xception_cli.model.network import FIRST_TRAINED, Segment, cut, fold_batch_norm
from xception_cli.model.probe import Probe, fit_probe
from xception_cli.report.check_page import add_issues
from xception_cli.rundir import remove_tree
from xception_cli.training.engines import create_evaluator
from xception_cli.training.job import Job
from xception_cli.training.learner import History, Scores, validate


@dataclass(frozen=True)
class Training:
    """What the trained part is fed with, and the baseline it starts from.

    Attributes:
        train: Inputs of training; None where only the head is fitted.
        val: Inputs of validation.
        probe: The baseline; None from random weights, as for the following.
        probe_scores: Of the probe, on val.
        pooled_train: Features that the probe was fitted on, `(pictures, 2048)`.
    """

    train: FeatureInputs | PictureInputs | None
    val: FeatureInputs | PictureInputs | None
    probe: Probe | None
    probe_scores: Scores | None
    pooled_train: np.ndarray[Any, Any] | None = None


def compute_baseline(job: Job, history: History) -> Training:
    """Compute the frozen layers' outputs, fit the linear probe, and put its head on the network.

    The probe's model is the first best one: fine-tuning replaces it only if it is better on val.

    Args:
        job: The run.
        history: Of a resumed run, or empty; takes the probe's score.
    """
    if job.pretrained is None:  # features of random weights are useless
        return Training(*_every_epoch(job), None, None)
    # Behind this, what is frozen is only ever computed: batch norm is folded in a copy of it.
    network = fold_batch_norm(job.network, job.runtime.dtype)
    prefix, _ = cut(network, job.config.unfreeze)
    pooled: dict[str, np.ndarray[Any, Any]] = {}
    train_inputs: FeatureInputs | PictureInputs | None = None
    val_inputs: FeatureInputs | PictureInputs | None = None
    with job.phase("features"):
        if prefix is None or job.config.unfreeze == "head":
            backbone = Segment(network, "conv1", "conv4").eval()
            for name in ("train", "val"):
                what = f"computing features ({name})"
                pooled[name] = compute_pooled(backbone, job.pictures(name), what)
        else:
            train_inputs, val_inputs, pooled = _store_features(job, network, prefix)
    if prefix is None:
        train_inputs, val_inputs = _every_epoch(job)
        if history.best_epoch < 0:  # a new run: its first epoch is the next one
            train_inputs.begin(0)  # workers decode while the probe is fitted
    with job.phase("probe"):
        probe, scores = _fit_baseline(job, pooled, is_new=history.best_epoch < 0)
    if history.best_epoch < 0:
        history.offer(0, scores, job.config.monitor)
        job.save_model(job.network.state_dict(), {"trained": "probe", "epoch": 0})
    return Training(train_inputs, val_inputs, probe, scores, pooled["train"])


def _every_epoch(job: Job) -> tuple[PictureInputs, PictureInputs]:
    """Return train and val for a training of all layers, which reads the images in each epoch."""
    if job.leads:
        remove_tree(job.run.decoded)  # of a run that was killed, perhaps half written
    job.runtime.processes.wait()
    train = job.pictures("train", augmented=True, shuffle=True, epochs=True)
    return train, job.pictures("val", epochs=True)


def _store_features(
    job: Job, network: torch.nn.Module, prefix: Segment
) -> tuple[FeatureInputs, FeatureInputs, dict[str, np.ndarray[Any, Any]]]:
    config = job.config
    rest = Segment(network, FIRST_TRAINED[config.unfreeze], "conv4").eval()
    val_store, pooled_val = compute_store(
        job.run.features, "val", prefix, rest, job.pictures("val")
    )
    began = time.monotonic()

    def another_view(done: int, computed: int) -> bool:
        if job.budget is None or computed == 0:
            return True
        seconds = (time.monotonic() - began) / computed * job.images.train
        return job.budget.another_view(done, seconds)

    store, pooled_train = compute_store(
        job.run.features,
        "train",
        prefix,
        rest,
        job.pictures("train"),
        job.pictures("train", augmented=True),
        config.views,
        another_view,
    )
    shuffled = job.shuffled("train")
    return (
        FeatureInputs(store, job.labels("train"), shuffled, job.runtime),
        FeatureInputs(val_store, job.labels("val"), job.in_order("val"), job.runtime),
        {"train": pooled_train, "val": pooled_val},
    )


def _fit_baseline(
    job: Job, pooled: Mapping[str, np.ndarray[Any, Any]], *, is_new: bool
) -> tuple[Probe, Scores]:
    probe = job.runtime.processes.once(
        lambda: fit_probe(
            pooled["train"],
            job.labels("train").numpy(),
            job.units("train"),
            class_count=len(job.split.classes),
            seed=job.config.seed,
            class_weights=None if job.class_weights is None else job.class_weights.numpy(),
        )
    )
    head = job.network.get_submodule("last_linear")
    head.load_state_dict({"weight": probe.weight, "bias": probe.bias})
    evaluator = create_evaluator(
        Segment(job.network, "head", "head"), runtime=job.runtime, top_k=job.top_k
    )
    features = job.runtime.to_device(torch.from_numpy(pooled["val"]))
    labels = job.labels("val")
    batch = Inputs(features, job.runtime.to_device(labels), torch.arange(len(labels)))
    scores = validate(evaluator, [batch], job.split.counts("val"), job.top_k)
    say(f"probe     val: accuracy {scores.accuracy:.1%}")
    if probe.folds:
        say(f"          train, {describe_cross_validation(probe, job.split.classes)}")
    else:
        say("          train: too few groups to cross-validate")
    if job.leads:
        if is_new:
            answers = evaluator.state.metrics["answers"]
            add_candidate(job.run.candidates, 0, answers.predicted, answers.losses)
        _report_suspects(job, probe, pooled["val"])
    return probe, scores


def describe_cross_validation(probe: Probe, classes: Sequence[str]) -> str:
    """Describe the share of left-out training images that the probe classified correctly.

    Args:
        probe: With folds.
        classes: Names; those that are a single group, and so cannot be tested, are listed.
    """
    hits, units = probe.hits, probe.units[probe.tested]
    counted = evidence(int(hits.sum()), len(hits), count_units(units))
    accuracy = Estimate(hits.mean(), *proportion_interval(hits, units))
    missing = sorted(set(probe.labels.tolist()) - set(probe.labels[probe.tested].tolist()))
    names = ", ".join(show(classes[label]) for label in missing)
    untested = f"; not tested, because a single group: {names}" if missing else ""
    return (
        f"by {probe.folds}-fold cross-validation: accuracy {accuracy.value:.1%} "
        f"({accuracy.interval}, {counted}){untested}"
    )


def _report_suspects(job: Job, probe: Probe, val: np.ndarray[Any, Any]) -> None:
    """Find suspect labels of train and val, and add them to issues.csv.

    The probe that judges an image was not fitted to it: train is judged fold by fold.
    """
    if not probe.folds:
        return
    images = [*job.split.of("train"), *job.split.of("val")]
    labels = [image.label for image in images]
    judged = torch.log_softmax(probe.logits(val), dim=1).numpy()
    suspects = find_suspects(
        np.array(labels),
        np.concatenate([probe.held_out, judged]),
        np.array([image.unit for image in images], np.str_),
    )
    paths = [image.path for image in images]
    problems = suspects_problem(suspects, paths, labels, job.split.classes)
    add_issues(job.run.issues, SUSPECT, problems)
    for problem in problems:
        first = problem.findings[0]
        say(f"labels    {problem.summary}: {show(first.path)} {show(first.detail)}")
        say(f"          listed in {show(job.run.issues)}: edit it, then train with --fixes")
