"""compute_features: features of a folder's images, upright and rotated; cached."""

import numpy as np
from numpy.typing import NDArray

from xception_cli.check.survey import Survey
from xception_cli.console import say
from xception_cli.data.dataset import ImageDataset, KeyedBatches
from xception_cli.data.inputs import ImageInputs
from xception_cli.data.transforms import Preprocessing, Transform
from xception_cli.data.workers import default_workers
from xception_cli.model.feature_cache import kept_view, open_feature_cache
from xception_cli.model.features import compute_pooled
from xception_cli.model.folding import for_inference
from xception_cli.model.layers import last_layer
from xception_cli.model.network import backbone_of, build_network
from xception_cli.model.weights import load_pretrained
from xception_cli.runtime import decide_runtime

Features = NDArray[np.float32]


def compute_features(survey: Survey, seen: list[int], weights: str) -> tuple[Features, Features]:
    """Compute the features of images, upright and rotated by 90, 180 or 270 degrees.

    They are cached by content, which speeds up a second check and a training.

    Args:
        survey: The scanned folder.
        seen: Indices of the images.
        weights: Weights of the network: `imagenet` or a file.

    Returns:
        `(images, 2048)` of the upright images, and the same of the rotated ones.

    Raises:
        WeightsError: The weights cannot be obtained.
        DataError: An image changed after the survey.
    """
    cache, pretrained = open_feature_cache(), load_pretrained(weights)
    preprocessing = Preprocessing(grey_bits=survey.grey_bits)
    runtime, network = decide_runtime(), build_network(2)
    network.load_state_dict({**network.state_dict(), **pretrained.backbone})
    folded = for_inference(runtime.place(network).eval(), runtime)
    backbone = backbone_of(folded)
    digests = [survey.looks[i].digest for i in seen]

    def features_of(view: str, transform: Transform) -> Features:
        dataset = ImageDataset(
            survey.folder.root,
            [survey.folder.images[i].path for i in seen],
            [0] * len(seen),
            transform,
            least_side=preprocessing.least_side,
            grey_bits=preprocessing.grey_bits,
            digests=digests,
        )
        inputs = ImageInputs(
            dataset,
            KeyedBatches(len(seen), runtime.inference_batch, shuffle=False),
            preprocessing=preprocessing,
            runtime=runtime,
            workers=default_workers(runtime),
        )
        kept = kept_view(
            cache,
            weights=pretrained.digest,
            runtime=runtime,
            preprocessing=preprocessing,
            view=view,
            digests=digests,
        )
        pooled = compute_pooled(backbone, inputs, f"computing features ({view})", kept)
        features: Features = last_layer(pooled)
        return features

    say(f"device    {runtime.describe()}")
    upright = features_of("centre", preprocessing.evaluation_transform())
    return upright, features_of("rotated", preprocessing.rotated_transform())
