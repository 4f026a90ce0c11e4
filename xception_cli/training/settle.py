"""Which model is kept: the linear probe, or the fine-tuned network; then its heads see all images.

Both are judged by a head on several layers that was fitted to their own features of train. What is
measured on val is the model as it was selected. After that, the same network gets heads that are
fitted to train and val together: `--no-refit` leaves that out.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from xception_cli.console import say
from xception_cli.evaluation.candidates import (
    FINAL,
    paired_gain,
    read_candidates,
    select_candidate,
    write_candidates,
)
from xception_cli.model.bundle import REFIT, ModelBundle, load_model, save_model
from xception_cli.model.feature_inputs import FeatureInputs
from xception_cli.model.features import compute_pooled
from xception_cli.model.folding import for_inference
from xception_cli.model.layers import classify_views, fill_heads, last_layer, scale_layers
from xception_cli.model.network import FIRST_TRAINED, Segment, build_network
from xception_cli.model.probe import fit_head, limit_views
from xception_cli.training.baseline import PROBE, Array, Training, pool_views
from xception_cli.training.job import Job
from xception_cli.training.learner import History


@dataclass(frozen=True)
class Settled:
    """The model that is kept.

    Attributes:
        epoch: Its last one; 0 is the linear probe.
        train: What it computes of train, `(views, images, POOLED)`.
        val: The same of val.
    """

    epoch: int
    train: Array
    val: Array


def settle(job: Job, training: Training, history: History) -> Settled | None:
    """Select the model, and write its file; the other candidate is in `Candidates`.

    A run that is killed after this selects the same model again when it is resumed: what it is made
    of is still in the file.

    Args:
        job: Of the process that leads, alone.
        training: What it was fed with.
        history: Of fine-tuning.

    Returns:
        None from random weights, where the best epoch is kept as it is.
    """
    if training.probe is None:
        return None
    if history.best_epoch == 0 or training.train is None:
        return Settled(0, training.pooled["train"], training.pooled["val"])
    bundle = load_model(job.run.model, job.runtime)
    if bundle.about.provenance.get("trained") == PROBE:  # it was selected before the run was killed
        return _keep_probe(job, training)
    with job.phase("selection"):
        tuned = _tuned(job, training, history.best_epoch, bundle)
        return _select(job, training, bundle, tuned)


def _tuned(job: Job, training: Training, epoch: int, bundle: ModelBundle) -> Settled:
    """Compute what the fine-tuned network makes of the images, and give it heads."""
    network = for_inference(bundle.network, job.runtime)
    first = FIRST_TRAINED[job.config.unfreeze]
    pooled = {}
    for name, inputs in (("train", training.train), ("val", training.val)):
        if not isinstance(inputs, FeatureInputs):
            backbone = Segment(network, "conv1", "conv4").eval()
            pooled[name] = pool_views(job, backbone, name, [None])
            continue
        rest = Segment(network, first, "conv4").eval()
        what = f"features of the new network ({name})"
        views = [
            FeatureInputs(inputs.store, inputs.labels, job.in_order(name), job.runtime, view)
            for view in range(inputs.store.views)
        ]
        pooled[name] = np.stack([compute_pooled(rest, seen, what) for seen in views])
    return Settled(epoch, pooled["train"], pooled["val"])


def _select(job: Job, training: Training, bundle: ModelBundle, tuned: Settled) -> Settled:
    labels, units = job.labels("val"), job.units("val")
    fit_heads(job, training, bundle.network, tuned.train, job.labels("train").numpy())
    with torch.inference_mode():
        views = job.runtime.to_device(torch.from_numpy(tuned.val))
        mirror = job.preprocessing.mirror
        logits = classify_views(bundle.network, views, mirror=mirror).cpu()
    predicted = logits.argmax(dim=1).numpy()
    losses = functional.cross_entropy(logits, labels, reduction="none").numpy()
    every = read_candidates(job.run.candidates, job.images.val)
    if job.config.monitor == "last":  # the other epochs were never candidates
        every = every.only([0])
    every = every.with_epoch(FINAL, predicted, losses)
    write_candidates(every, job.run.candidates)
    both = every.only([0, FINAL])
    gain, error = paired_gain(both.losses, units)
    say(
        f"selection val log loss: linear probe {both.losses[0].mean():.3f}, fine-tuned "
        f"{losses.mean():.3f}; difference {-gain:+.3f}, standard error {error:.3f}"
    )
    if select_candidate(both, labels.numpy(), units, monitor=job.config.monitor) == 0:
        return _keep_probe(job, training)
    accuracy = float((predicted == labels.numpy()).mean())
    provenance = {**bundle.about.provenance, "val_accuracy": accuracy}
    about = replace(bundle.about, provenance=provenance)
    save_model(job.run.model, bundle.network.state_dict(), about)
    return tuned


def _keep_probe(job: Job, training: Training) -> Settled:
    """Write the model of the linear probe, whatever the file holds now."""
    if training.probe is None or training.plain is None or job.pretrained is None:
        raise ValueError("there is no probe to keep")
    network = build_network(len(job.split.classes))
    network.load_state_dict({**network.state_dict(), **job.pretrained.backbone})
    heads = [(probe.weight, probe.bias) for probe in (training.plain, training.probe)]
    fill_heads(network, heads[0], heads[1])
    job.save_model(network.state_dict(), {"trained": PROBE, "epoch": 0})
    return Settled(0, training.pooled["train"], training.pooled["val"])


def fit_heads(
    job: Job, training: Training, network: nn.Module, pooled: Array, labels: Array
) -> None:
    """Fit both heads of a network to what it computes of images, as strongly as the probe's.

    Args:
        job: The run.
        training: Has the probes, whose strengths were cross-validated.
        network: Takes the heads.
        pooled: `(views, images, POOLED)`.
        labels: `(images,)`.
    """
    if training.probe is None or training.plain is None:
        raise ValueError("there is no probe whose strength was cross-validated")
    fit = partial(
        fit_head,
        labels=labels,
        class_count=len(job.split.classes),
        class_weights=None if job.class_weights is None else job.class_weights.numpy(),
    )
    last = fit(last_layer(pooled[0]), strength=training.plain.strength)
    layered = fit(scale_layers(limit_views(pooled)), strength=training.probe.strength)
    fill_heads(network, last, layered)


def refit(job: Job, training: Training, settled: Settled, bundle: ModelBundle) -> ModelBundle:
    """Fit the heads of the selected model to train and val together, and write its file.

    The network before the heads stays as it is, and so do its features: thresholds on the distance
    from the training images hold exactly, and the temperature was fitted to heads that saw the
    images of train alone.

    Args:
        job: The run.
        training: See `fit_heads`.
        settled: From `settle`.
        bundle: The calibrated model.
    """
    views = min(len(settled.train), len(settled.val))
    pooled = np.concatenate([settled.train[:views], settled.val[:views]], axis=1)
    labels = torch.cat([job.labels("train"), job.labels("val")]).numpy()
    with job.phase("refit"):
        fit_heads(job, training, bundle.network, pooled, labels)
        job.runtime.place(bundle.network)
    provenance = {**bundle.about.provenance, REFIT: len(labels)}
    about = replace(bundle.about, provenance=provenance)
    save_model(job.run.model, bundle.network.state_dict(), about)
    return ModelBundle(bundle.network, about, bundle.runtime)
