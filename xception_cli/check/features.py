"""compute_features: what the network makes of a folder's images, upright and rotated; cached."""

import numpy as np
from numpy.typing import NDArray

from xception_cli.check.scan import VERSION
from xception_cli.check.store import open_store
from xception_cli.check.survey import Survey
from xception_cli.console import say
from xception_cli.data.dataset import KeyedBatches, PictureDataset, default_workers
from xception_cli.data.loading import PictureInputs
from xception_cli.data.transforms import Preprocessing, Transform
from xception_cli.model.features import compute_pooled
from xception_cli.model.layers import last_layer
from xception_cli.model.network import Segment, build_network, fold_batch_norm
from xception_cli.model.weights import PretrainedWeights, load_pretrained
from xception_cli.runtime import Runtime, decide_runtime

Features = NDArray[np.float32]


def compute_features(survey: Survey, seen: list[int], weights: str) -> tuple[Features, Features]:
    """Compute the features of images as they are, and rotated by 90, 180 or 270 degrees.

    They are kept in the cache, by content: a second check is quick.

    Args:
        survey: Of the folder.
        seen: The images, as indices into the folder's.
        weights: Of the network: `imagenet` or a file.

    Returns:
        `(images, 2048)` of the upright images, and of the rotated ones.

    Raises:
        WeightsError: The weights cannot be obtained.
        MachineError: The disk of the cache is full.
    """
    pretrained, preprocessing = load_pretrained(weights), Preprocessing()
    runtime, network = decide_runtime(), None
    views = {  # by what is added to the name in the cache
        "": preprocessing.evaluation_transform(),
        " (rotated)": preprocessing.rotated_transform(),
    }
    digests = [survey.looks[i].digest for i in seen]
    found: list[Features] = []
    with open_store(survey.folder.root, VERSION) as store:
        for name, transform in views.items():
            kind = f"{pretrained.digest} {runtime.precision}{name}"
            kept = store.features(kind, digests)
            missing = [at for at, row in enumerate(kept) if row is None]
            if missing:
                network = network or _backbone(pretrained, runtime)
                images = _inputs(survey, [seen[at] for at in missing], transform, runtime)
                computed = last_layer(compute_pooled(network, images, f"computing features{name}"))
                rows = [row.tobytes() for row in computed.astype(np.float16)]
                store.keep_features(kind, zip((digests[at] for at in missing), rows, strict=True))
                kept = store.features(kind, digests)
            halves = [np.frombuffer(row or b"", np.float16) for row in kept]
            found.append(np.stack(halves).astype(np.float32))
    return found[0], found[1]


def _backbone(pretrained: PretrainedWeights, runtime: Runtime) -> Segment:
    say(f"device    {runtime.describe()}")
    network = build_network(2)
    network.load_state_dict({**network.state_dict(), **pretrained.backbone})
    folded = fold_batch_norm(runtime.place(network).eval(), runtime.dtype)
    return Segment(folded, "conv1", "conv4").eval()


def _inputs(
    survey: Survey, which: list[int], transform: Transform, runtime: Runtime
) -> PictureInputs:
    preprocessing = Preprocessing()
    dataset = PictureDataset(
        survey.folder.root,
        [survey.folder.images[i].path for i in which],
        [0] * len(which),
        transform,
        least_side=preprocessing.least_side,
    )
    return PictureInputs(
        dataset,
        KeyedBatches(len(which), runtime.inference_batch, shuffle=False),
        preprocessing=preprocessing,
        runtime=runtime,
        workers=default_workers(runtime),
    )
