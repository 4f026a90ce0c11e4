"""The frozen features and the linear probe on them: the baseline, and the start of fine-tuning.

The probe sees several layers and all views of an image. A second one, on the last layer alone,
becomes `last_linear`: the head that fine-tuning starts with, and that a plain Xception needs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from xception_cli.check.labels import judge_labels
from xception_cli.check.report import SUSPECT
from xception_cli.console import quoted, say, show
from xception_cli.data.inputs import ImageInputs, Inputs
from xception_cli.errors import UsageError
from xception_cli.evaluation.candidates import start_candidates
from xception_cli.evaluation.correction import describe_error, paired_gain
from xception_cli.evaluation.cross_validated import cross_validation, describe_cross_validation
from xception_cli.model.cached_outcomes import PROBE
from xception_cli.model.feature_cache import KeptView
from xception_cli.model.feature_inputs import FeatureInputs
from xception_cli.model.feature_store import FeatureStore
from xception_cli.model.features import compute_pooled, compute_store
from xception_cli.model.folding import for_inference
from xception_cli.model.layers import classify_views, fill_heads, last_layer, scale_layers
from xception_cli.model.network import FIRST_TRAINED, Segment, backbone_of, cut
from xception_cli.model.probe import Probe, fit_probe, limit_views
from xception_cli.numerals import percentage
from xception_cli.records import Scores
from xception_cli.report.check_page import add_issues
from xception_cli.rundir import remove_tree
from xception_cli.training.costs import FIRST_VIEWS, has_mirrored
from xception_cli.training.engines import create_evaluator
from xception_cli.training.history import History
from xception_cli.training.job import Job
from xception_cli.training.learner import validate

Array = np.ndarray[Any, Any]

_LEAST_GAIN = 0.005  # in log loss: predicting the mirror image too takes twice the time


class TuningInputs(NamedTuple):
    """What fine-tuning reads: images, or stored activations of the frozen layers."""

    train: FeatureInputs | ImageInputs
    val: FeatureInputs | ImageInputs


@dataclass(frozen=True)
class Baseline:
    """The linear probe, and the inputs of the fine-tuning that starts from it.

    Attributes:
        inputs: Of fine-tuning; None if only the head is fitted.
        probe: The baseline, on all `LAYERS`; None for random weights, like the next two.
        plain: The probe on the last layer alone.
        probe_scores: Validation scores of the probe.
        pooled: Features of the frozen network by split, `(views, images, POOLED)`.
        mirror: Whether the model classifies the mirror image too.
    """

    inputs: TuningInputs | None
    probe: Probe | None = None
    plain: Probe | None = None
    probe_scores: Scores | None = None
    pooled: Mapping[str, Array] = field(default_factory=dict)
    mirror: bool = False

    def skipped(self, ceiling: float) -> str | None:
        """Return why fine-tuning is skipped; None if it is not, or was never planned.

        Args:
            ceiling: Cross-validated macro recall of the probe, above which there is little to gain.
        """
        if self.inputs is None or self.probe is None:
            return None
        if not _is_above(self.probe, ceiling):
            return None
        return (
            "fine-tuning skipped: the linear probe's cross-validated macro recall is "
            f"{percentage(self.probe.macro_recall)}, above --ceiling {ceiling:g}"
        )


def _is_above(probe: Probe, ceiling: float) -> bool:
    return probe.folds > 0 and probe.macro_recall > ceiling


def compute_baseline(job: Job, history: History) -> Baseline:
    """Compute the frozen layers' outputs, fit the linear probe, and put its head on the network.

    Args:
        job: The run; in a new one, the probe's model is written.
        history: Of a resumed run, or empty.
    """
    if job.pretrained is None:  # features of random weights are useless
        return Baseline(TuningInputs(*_every_epoch(job)), mirror=job.config.tta == "mirror")
    # A copy with batch norm folded in: frozen layers only run inference from here on.
    network = for_inference(job.network, job.runtime)
    prefix, _ = cut(network, job.config.unfreeze)
    is_new = history.best_epoch == 0
    pooled: dict[str, Array] = {}
    inputs: TuningInputs | None = None
    fits: dict[int, tuple[Probe, Probe]] = {}

    def fit(train: Array) -> tuple[Probe, Probe]:  # once for each number of views that it uses
        used = len(limit_views(train))
        if used not in fits:
            fits[used] = _fit_probes(job, train)
        return fits[used]

    with job.phase("features"):
        if prefix is None or job.config.unfreeze == "head":
            backbone = backbone_of(network)
            for split in ("train", "val"):
                kept = job.kept_views(split)
                pooled[split] = pool_views(backbone, split, job.views(split), kept)
        else:
            inputs, pooled = _store_features(job, network, prefix, fit)
    if prefix is None:
        train, val = _every_epoch(job)
        inputs = TuningInputs(train, val)
        if is_new:  # its first epoch is the next one
            train.begin(0)  # workers decode while the probe is fitted
    with job.phase("probe"):
        probe, plain = job.runtime.processes.once(lambda: fit(pooled["train"]))
        mirror = _averages_mirror(job, probe, views=len(pooled["train"]))
        job = job.averaging_mirror(mirror)
        scores = _judge_probes(job, probe, plain, pooled["val"])
    if is_new:
        job.save_model(job.network.state_dict(), {"trained": PROBE, "epoch": 0})
    pooled = pooled if job.leads else {}  # the leader alone fits heads in the end
    return Baseline(inputs, probe, plain, scores, pooled, mirror)


def pool_views(
    backbone: Segment, split: str, views: Sequence[ImageInputs], kept: Sequence[KeptView | None]
) -> Array:
    """Compute the pooled features of a split from its images, `(views, images, POOLED)`.

    Args:
        backbone: From `conv1` to `conv4`, in eval mode.
        split: Its name.
        views: From `Job.views`.
        kept: The views in the cache; None for a network that no other run has.
    """
    pooled = []
    for view, (inputs, known) in enumerate(zip(views, kept, strict=True)):
        inputs.batches.epoch = view
        what = f"computing features ({split}, view {view + 1} of {len(kept)})"
        pooled.append(compute_pooled(backbone, inputs, what, known))
    return np.stack(pooled)


def _every_epoch(job: Job) -> tuple[ImageInputs, ImageInputs]:
    """Return train and val for a training of all layers, which reads the images in each epoch."""
    if job.leads:
        remove_tree(job.run.decoded)  # left by a run that was killed, perhaps half written
    job.runtime.processes.wait()
    train = job.image_inputs("train", "random", shuffle=True, epochs=True)
    return train, job.image_inputs("val", epochs=True)


def _store_features(
    job: Job,
    network: torch.nn.Module,
    prefix: Segment,
    fit: Callable[[Array], tuple[Probe, Probe]],
) -> tuple[TuningInputs, dict[str, Array]]:
    """Store what fine-tuning reads, with no more views than it needs.

    If the probe on the first views is above the ceiling, fine-tuning is skipped, and so are the
    random views: they are for fine-tuning, and hardly improve the probe.

    Args:
        job: The run.
        network: With batch norm folded in.
        prefix: Its frozen part.
        fit: Fits the probes to features of train, in the leader.
    """
    config, images = job.config, job.images
    rest = backbone_of(network, FIRST_TRAINED[config.unfreeze])
    began = time.monotonic()

    def another_of_train(pooled: Array, computed: int) -> bool:
        nonlocal began
        if len(pooled) == FIRST_VIEWS and config.ceiling < 1:
            paused = time.monotonic()
            probe = job.runtime.processes.once(lambda: fit(pooled)[0])
            began += time.monotonic() - paused  # another view takes no fit
            if _is_above(probe, config.ceiling):
                return False
        if job.budget is None or computed == 0:
            return True
        of_val = min(job.view_counts["val"], max(len(pooled) + 1, FIRST_VIEWS))  # after train
        more = images.train + images.val * of_val
        seconds = (time.monotonic() - began) / computed * more
        return job.budget.another_view(len(pooled), seconds)

    def store(split: str, another: Callable[[Array, int], bool]) -> tuple[FeatureStore, Array]:
        views, kept = job.views(split), job.kept_views(split)
        return compute_store(job.run.features, split, prefix, rest, views, another, kept)

    train, pooled = store("train", another_of_train)
    # Both first views at least: the model may classify the mirror image too.
    needed = max(len(pooled), FIRST_VIEWS)
    val, pooled_val = store("val", lambda computed, _: len(computed) < needed)
    inputs = TuningInputs(
        FeatureInputs(train, job.labels("train"), job.shuffled("train"), job.runtime),
        FeatureInputs(val, job.labels("val"), job.in_order("val"), job.runtime),
    )
    return inputs, {"train": pooled, "val": pooled_val}


def _averages_mirror(job: Job, probe: Probe, *, views: int) -> bool:
    """Decide by cross-validation on train whether the mirror image is classified too.

    Val is not used for it, and so measures the resulting model without bias.
    """
    tested, known = probe.tested, views > 1 and has_mirrored(job.config)
    if job.config.tta != "auto" or not known or not tested.any():
        return job.config.tta == "mirror"
    labels = probe.labels[tested]
    rows = np.stack([probe.held_out[tested], probe.averaged[tested]])
    gain, error = paired_gain(-rows[:, np.arange(len(labels)), labels], probe.units[tested])
    helps = gain > max(error, _LEAST_GAIN)
    say(
        f"tta       {'mirror' if helps else 'none'}: the mirror image changes the linear probe's "
        f"cross-validated log loss by {-gain:+.3f}, {describe_error(error)}"
    )
    return helps


def _judge_probes(job: Job, probe: Probe, plain: Probe, val: Array) -> Scores:
    """Put the heads of the probes on the network, and measure them on val."""
    fill_heads(job.network, plain.head, probe.head)
    features = job.runtime.to_device(torch.from_numpy(val))
    with torch.inference_mode():
        logits = classify_views(job.network, features, mirror=job.preprocessing.mirror)
    evaluator = create_evaluator(torch.nn.Identity(), runtime=job.runtime, top_k=job.top_k)
    labels = job.labels("val")
    batch = Inputs(logits, job.runtime.to_device(labels), torch.arange(len(labels)))
    scores = validate(evaluator, [batch], job.split.counts("val"), job.top_k)
    say(f"probe     val: accuracy {percentage(scores.accuracy)}")
    found = cross_validation(probe, job.split.classes)
    if found.folds:
        say(f"          train, {describe_cross_validation(found)}")
    else:
        say("          train: too few independent images to cross-validate")
    if job.leads:
        answers = evaluator.state.metrics["answers"]
        start_candidates(job.run.candidates, answers.predicted, answers.losses)
        _report_suspects(job, probe, val[0])
    return scores


def _fit_probes(job: Job, train: Array) -> tuple[Probe, Probe]:
    """Fit the probe on all layers and views, and the one for `last_linear`."""
    labels, units = job.labels("train").numpy(), job.units("train")
    weights = None if job.class_weights is None else job.class_weights.numpy()
    fit = partial(
        fit_probe,
        labels=labels,
        units=units,
        class_count=len(job.split.classes),
        seed=job.config.seed,
        class_weights=weights,
    )
    return fit(scale_layers(limit_views(train))), fit(last_layer(train[0]))


def _report_suspects(job: Job, probe: Probe, val: Array) -> None:
    """Find suspect labels of train and val, and add them to issues.csv.

    The probe that judges an image was not fitted to it: train is judged fold by fold.
    """
    if not probe.folds:
        return
    images = [*job.split.of("train"), *job.split.of("val")]
    labels = [image.label for image in images]
    judged = torch.log_softmax(probe.logits(scale_layers(val)), dim=1).numpy()
    problems = judge_labels(
        np.array(labels),
        np.concatenate([probe.held_out, judged]),
        np.array([image.unit for image in images], np.str_),
        [image.path for image in images],
        job.split.classes,
    )
    try:
        add_issues(job.run.issues, SUSPECT, problems)
    except UsageError as error:  # edited since the run began: keep it, and train
        say(f"warning   {error.message}; suspect labels are not added")
        return
    for problem in problems:
        say(f"labels    {problem.summary}")
        for first in problem.findings[:1]:
            say(f"          for example {show(first.path)}: {show(first.detail)}")
            issues = job.run.issues
            say(
                f"          listed in {show(issues)}: edit it, then train with "
                f"--fixes {quoted(issues)}"
            )
