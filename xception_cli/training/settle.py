"""Which model is kept: the linear probe or the fine-tuned network; then its heads see all images.

Each is evaluated with a head on several layers, fitted to its own features of train. Val measures
the model as selected. After that, its heads are refitted to train and val together, unless
`--no-refit` is given.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from xception_cli.console import say
from xception_cli.data.inputs import ImageInputs
from xception_cli.evaluation.candidates import FINAL, read_candidates, write_candidates
from xception_cli.evaluation.correction import describe_error, paired_gain, select_candidate
from xception_cli.model.about import REFIT
from xception_cli.model.bundle import ModelBundle, load_model, save_model
from xception_cli.model.cached_outcomes import PROBE
from xception_cli.model.feature_inputs import FeatureInputs
from xception_cli.model.features import compute_pooled
from xception_cli.model.folding import for_inference
from xception_cli.model.layers import classify_views, fill_heads, last_layer, scale_layers
from xception_cli.model.network import FIRST_TRAINED, backbone_of, build_network
from xception_cli.model.probe import fit_head, limit_views
from xception_cli.numerals import percentage
from xception_cli.runtime import Runtime
from xception_cli.training.baseline import Array, Baseline, TuningInputs, pool_views
from xception_cli.training.history import History
from xception_cli.training.job import Job


@dataclass(frozen=True)
class Settled:
    """The model that is kept.

    Attributes:
        epoch: Its last epoch; 0 is the linear probe.
        train: Its features of train, `(views, images, POOLED)`.
        val: Its features of val: of all views, or of those that an answer averages.
    """

    epoch: int
    train: Array
    val: Array


def settle(job: Job, baseline: Baseline, history: History) -> Settled | None:
    """Select the model and write its file; the answers of the other one are in `Candidates`.

    A run that is killed after this selects the same model again when it is resumed, from what is in
    the file.

    Args:
        job: Of the leader, alone.
        baseline: The probe, and the inputs of fine-tuning.
        history: Of fine-tuning.

    Returns:
        The model; None for random weights, whose best epoch is kept unchanged.
    """
    if baseline.probe is None:
        return None
    inputs = baseline.inputs
    if history.best_epoch == 0 or inputs is None:
        return Settled(0, baseline.pooled["train"], baseline.pooled["val"])
    bundle = load_model(job.run.model, job.runtime)
    if bundle.about.provenance.get("trained") == PROBE:  # it was selected before the run was killed
        return _keep_probe(job, baseline)
    with job.phase("selection"):
        return _select(job, baseline, inputs, bundle, history.best_epoch)


def _pool(
    job: Job, name: str, inputs: FeatureInputs | ImageInputs, network: nn.Module, views: slice
) -> Array:
    """Compute the fine-tuned network's features of a split, `(views, images, POOLED)`.

    Args:
        job: The run.
        name: Of the split.
        inputs: What fine-tuning read of it.
        network: Folded.
        views: Which views; with all layers trained, there are only those that an answer averages.
    """
    if not isinstance(inputs, FeatureInputs):
        images = job.views(name)
        backbone = backbone_of(network)
        return pool_views(backbone, name, images, [None] * len(images))
    rest = backbone_of(network, FIRST_TRAINED[job.config.unfreeze])
    what, order = f"features of the fine-tuned network ({name})", job.in_order(name)
    seen = [
        FeatureInputs(inputs.store, inputs.labels, order, job.runtime, view)
        for view in range(inputs.store.views)[views]
    ]
    return np.stack([compute_pooled(rest, view, what) for view in seen])


@torch.inference_mode()
def classify_kept(
    network: nn.Module, pooled: Array, runtime: Runtime, *, mirror: bool
) -> torch.Tensor:
    """Compute logits from features, in the batches that images would be in.

    Args:
        network: With its heads.
        pooled: `(views, images, POOLED)`, the evaluation crop first, then its mirror image.
        runtime: Where to compute.
        mirror: Average over these two.

    Returns:
        `(images, classes)`, on the CPU.
    """
    batches = torch.from_numpy(pooled[: 1 + mirror]).split(runtime.inference_batch, dim=1)
    moved = (runtime.to_device(batch) for batch in batches)
    return torch.cat([classify_views(network, batch, mirror=mirror).cpu() for batch in moved])


def _select(
    job: Job, baseline: Baseline, inputs: TuningInputs, bundle: ModelBundle, epoch: int
) -> Settled:
    """Compare the fine-tuned network, with heads for its own features, with the probe."""
    labels, units, mirror = job.labels("val"), job.units("val"), job.preprocessing.mirror
    folded = for_inference(bundle.network, job.runtime)
    train = _pool(job, "train", inputs.train, folded, slice(None))
    val = _pool(job, "val", inputs.val, folded, slice(1 + mirror))
    _fit_heads(job, baseline, bundle.network, train, job.labels("train").numpy())
    logits = classify_kept(bundle.network, val, job.runtime, mirror=mirror)
    predicted = logits.argmax(dim=1).numpy()
    losses = functional.cross_entropy(logits, labels, reduction="none").numpy()
    every = read_candidates(job.run.candidates, job.images.val)
    if job.config.monitor == "last":  # the other epochs were never candidates
        every = every.only([0])
    every = every.with_epoch(FINAL, predicted, losses)
    write_candidates(every, job.run.candidates)
    both = every.only([0, FINAL])
    gain, error = paired_gain(both.losses, units)
    accuracy = float((predicted == labels.numpy()).mean())
    say(
        f"head      fitted anew to the fine-tuned features{', mirror image averaged' * mirror}: "
        f"val log loss {losses.mean():.3f}, accuracy {percentage(accuracy)}"
    )
    say(
        f"selection val log loss: linear probe {both.losses[0].mean():.3f}, fine-tuned "
        f"{losses.mean():.3f}; difference {-gain:+.3f}, {describe_error(error)}"
    )
    if select_candidate(both, labels.numpy(), units, monitor=job.config.monitor) == 0:
        return _keep_probe(job, baseline)
    provenance = {**bundle.about.provenance, "val_accuracy": accuracy}
    about = replace(bundle.about, provenance=provenance)
    save_model(job.run.model, bundle.network.state_dict(), about)
    stored = inputs.val.store.views if isinstance(inputs.val, FeatureInputs) else 0
    if job.config.refit and len(val) < stored:  # the heads are fitted to all of them
        others = _pool(job, "val", inputs.val, folded, slice(len(val), None))
        val = np.concatenate([val, others])
    return Settled(epoch, train, val)


def _keep_probe(job: Job, baseline: Baseline) -> Settled:
    """Write the model of the linear probe, whatever the file holds now."""
    if baseline.probe is None or baseline.plain is None or job.pretrained is None:
        raise ValueError("there is no probe to keep")
    network = build_network(len(job.split.classes))
    network.load_state_dict({**network.state_dict(), **job.pretrained.backbone})
    fill_heads(network, baseline.plain.head, baseline.probe.head)
    job.save_model(network.state_dict(), {"trained": PROBE, "epoch": 0})
    return Settled(0, baseline.pooled["train"], baseline.pooled["val"])


def _fit_heads(
    job: Job, baseline: Baseline, network: nn.Module, pooled: Array, labels: Array
) -> None:
    """Fit both heads of a network to its features, with the probes' regularization strengths.

    Args:
        job: The run.
        baseline: Has the probes, whose strengths were cross-validated.
        network: Receives the heads.
        pooled: `(views, images, POOLED)`.
        labels: `(images,)`.
    """
    if baseline.probe is None or baseline.plain is None:
        raise ValueError("there is no probe whose strength was cross-validated")
    fit = partial(
        fit_head,
        labels=labels,
        class_count=len(job.split.classes),
        class_weights=None if job.class_weights is None else job.class_weights.numpy(),
    )
    last = fit(last_layer(pooled[0]), strength=baseline.plain.strength)
    layered = fit(scale_layers(limit_views(pooled)), strength=baseline.probe.strength)
    fill_heads(network, last, layered)


def refit(job: Job, baseline: Baseline, settled: Settled, bundle: ModelBundle) -> ModelBundle:
    """Fit the heads of the selected model to train and val together, and write its file.

    The network below the heads is unchanged, and so are its features: thresholds on the distance
    from the training images hold exactly. The temperature was fitted to heads that saw only train.
    """
    views = min(len(settled.train), len(settled.val))
    pooled = np.concatenate([settled.train[:views], settled.val[:views]], axis=1)
    labels = torch.cat([job.labels("train"), job.labels("val")]).numpy()
    with job.phase("refit"):
        _fit_heads(job, baseline, bundle.network, pooled, labels)
        job.runtime.place(bundle.network)
    provenance = {**bundle.about.provenance, REFIT: len(labels)}
    about = replace(bundle.about, provenance=provenance)
    save_model(job.run.model, bundle.network.state_dict(), about)
    return ModelBundle(bundle.network, about, bundle.runtime)
