"""What the pretrained network makes of a folder: features of every picture, and what they tell."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xception_cli.check.curve import learning_curve
from xception_cli.check.labels import find_suspects, suspects_problem
from xception_cli.check.report import Curve, Problem
from xception_cli.check.scan import VERSION
from xception_cli.check.store import Store, open_store
from xception_cli.check.survey import Survey
from xception_cli.console import say
from xception_cli.data.loading import (
    KeyedBatches,
    PictureDataset,
    PictureInputs,
    default_workers,
)
from xception_cli.data.transforms import Preprocessing
from xception_cli.data.units import assign_units
from xception_cli.errors import DataError
from xception_cli.model.features import compute_pooled
from xception_cli.model.network import Segment, build_network, fold_batch_norm
from xception_cli.model.probe import Probe, fit_probe, units_of_classes
from xception_cli.model.weights import load_pretrained
from xception_cli.runtime import Runtime, decide_runtime

_SEED = 0


@dataclass(frozen=True)
class Deep:
    """What the features told.

    Attributes:
        problems: Doubtful labels.
        curve: Whether more photos would help; None if nobody asked.
    """

    problems: tuple[Problem, ...]
    curve: Curve | None


def look_deeper(
    survey: Survey, *, weights: str, with_curve: bool, group_by: str | None = None
) -> Deep:
    """Compute the pooled features of a folder's pictures, and ask a linear probe about them.

    The features are kept in the cache, by content: a second look is quick.

    Args:
        survey: Of the folder.
        weights: Of the network: `imagenet` or a file.
        with_curve: Measure the learning curve, too.
        group_by: A regular expression that names the group of an image, see `assign_units`.

    Raises:
        UsageError: No path matches `group_by`.
        DataError: Fewer than two classes have two pictures or more.
        XceptionError: The weights cannot be had, see `load_pretrained`.
    """
    seen = [i for i, look in enumerate(survey.looks) if look.original]
    every, _ = assign_units(survey.photos(), survey.groups, group_by)
    images = [every[i] for i in seen]
    units = np.array([image.unit for image in images], np.str_)
    labels = np.array([image.label for image in images], np.int64)
    classes = survey.folder.classes
    if int((units_of_classes(labels, units, len(classes)) > 1).sum()) < 2:
        raise DataError(
            "labels cannot be compared: fewer than two classes have two different images or more",
            hint="leave --deep and --curve out",
        )
    features = _features(survey, seen, weights)
    probe: Probe = fit_probe(features, labels, units, class_count=len(classes), seed=_SEED)
    suspects = find_suspects(labels, probe.held_out, units)
    curve = None
    if with_curve:
        curve = learning_curve(
            features, labels, units, classes, strength=probe.strength, seed=_SEED
        )
    paths = [image.path for image in images]
    return Deep(tuple(suspects_problem(suspects, paths, labels.tolist(), classes)), curve)


def _features(survey: Survey, seen: list[int], weights: str) -> NDArray[np.float32]:
    """Return `(pictures, 2048)`, from the cache where they are in it."""
    pretrained = load_pretrained(weights)
    runtime = decide_runtime()
    kind = f"{pretrained.digest} {runtime.precision}"
    digests = [survey.looks[i].digest for i in seen]
    with open_store(survey.folder.root, VERSION) as store:
        kept = store.features(kind, digests)
        missing = [at for at, row in enumerate(kept) if row is None]
        if missing:
            say(f"device    {runtime.describe()}")
            network = build_network(2)
            network.load_state_dict({**network.state_dict(), **pretrained.backbone})
            paths = [survey.folder.images[seen[at]].path for at in missing]
            pictures = _pictures(survey, paths, runtime)
            folded = fold_batch_norm(runtime.place(network).eval(), runtime.dtype)
            backbone = Segment(folded, "conv1", "conv4")
            computed = compute_pooled(backbone.eval(), pictures, "computing features")
            _keep(store, kind, [digests[at] for at in missing], computed)
            kept = store.features(kind, digests)
    return np.stack([np.frombuffer(row or b"", np.float16) for row in kept]).astype(np.float32)


def _keep(store: Store, kind: str, digests: list[str], features: NDArray[Any]) -> None:
    rows = [row.tobytes() for row in features.astype(np.float16)]
    store.keep_features(kind, zip(digests, rows, strict=True))


def _pictures(survey: Survey, paths: list[str], runtime: Runtime) -> PictureInputs:
    preprocessing = Preprocessing()
    dataset = PictureDataset(
        survey.folder.root,
        paths,
        [0] * len(paths),
        preprocessing.evaluation_transform(),
        least_side=preprocessing.least_side,
    )
    return PictureInputs(
        dataset,
        KeyedBatches(len(paths), runtime.inference_batch, shuffle=False),
        preprocessing=preprocessing,
        runtime=runtime,
        workers=default_workers(runtime),
    )
