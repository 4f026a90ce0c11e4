"""OnnxClassifier: an exported file as a model that classifies images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from xception_cli.console import show
from xception_cli.data.transforms import Preprocessing, Transform, to_pixels
from xception_cli.errors import ArtifactError, is_out_of_memory
from xception_cli.model.about import About
from xception_cli.model.bundle import Outcome
from xception_cli.model.unknown import Thresholds
from xception_cli.onnx.sizes import GraphSizes
from xception_cli.runtime import Runtime

CPU = Runtime(torch.device("cpu"), "fp32")  # what exported files are for, and compared in
# The ports of the graph.
INPUT, OUTPUT = "image", "probabilities"
DISTANCE = "distance"  # to the nearest training images, if the model was calibrated

_HINT = "get the file again, or export the run again: xception export RUN --output FILE"


@dataclass(frozen=True)
class OnnxClassifier:
    """An exported file that is ready to classify images.

    Attributes:
        session: Session of onnxruntime.
        about: Facts stored in addition to the graph.
        cropped: Whether it takes resized and cropped images; otherwise it resizes itself.
        thresholds: Thresholds for `unknown`.
        sizes: Shapes of its graph.
        path: Its path, for messages.
        runtime: The CPU.
    """

    session: onnxruntime.InferenceSession
    about: About
    cropped: bool
    sizes: GraphSizes
    path: Path
    thresholds: Thresholds | None = None
    runtime: Runtime = CPU

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.about.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing that the file does, or expects."""
        return self.about.preprocessing

    @property
    def side(self) -> int | None:
        """None if the file resizes: it takes whole images."""
        return self.preprocessing.image_size if self.cropped else None

    @property
    def least_side(self) -> int | None:
        """None if the file resizes: users of the file decode images at full size."""
        return self.preprocessing.least_side if self.cropped else None

    def transform(self) -> Transform:
        """Return the preprocessing of an image outside of the file."""
        if self.cropped:
            return self.preprocessing.evaluation_transform()
        return to_pixels

    def outcomes(self, pixels: torch.Tensor) -> list[Outcome]:
        """Compute the outcome of each image of a batch.

        The logits are calibrated: the logarithms of the probabilities.

        Args:
            pixels: See `probabilities`.
        """
        names = [OUTPUT] if self.thresholds is None else [OUTPUT, DISTANCE]
        probabilities, *measured = self._run(names, pixels)
        logits = torch.from_numpy(probabilities).log().numpy()
        distances = measured[0].tolist() if measured else [None] * len(logits)
        return [
            Outcome(row, distance=distance) for row, distance in zip(logits, distances, strict=True)
        ]

    def distances(self, outcomes: Sequence[Outcome]) -> list[float]:
        """Return the distance of images from the training images, as the file measured it.

        Raises:
            ValueError: It was never calibrated, or an outcome is of another kind of model.
        """
        known = [outcome.distance for outcome in outcomes if outcome.distance is not None]
        if len(known) < len(outcomes):
            raise ValueError("no distance was measured")
        return known

    def calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the probabilities for the logits of `outcomes`."""
        return torch.softmax(logits, dim=1)

    def probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute probabilities.

        Args:
            pixels: `(batch, 3, height, width)`, uint8, from `transform`.

        Returns:
            `(batch, classes)`, float32.
        """
        return torch.from_numpy(self._run([OUTPUT], pixels)[0])

    def _run(self, names: Sequence[str], pixels: torch.Tensor) -> list[NDArray[np.float32]]:
        """Run the graph.

        Raises:
            ArtifactError: It needs too much memory, fails, or its output is not of a classifier.
        """
        images = np.ascontiguousarray(pixels.numpy().transpose(0, 2, 3, 1))
        try:
            self.sizes.check(*images.shape[:3])
            found: list[NDArray[np.float32]] = self.session.run(names, {INPUT: images})
        except Exception as error:  # onnxruntime raises its own types
            raise cannot_run(self.path, error) from error
        probabilities, *measured = found
        is_sound = (
            probabilities.shape == (len(images), len(self.classes))
            and probabilities.min() >= 0
            and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)
            and all(distance.shape == (len(images),) for distance in measured)
            and all(np.isfinite(distance).all() for distance in measured)
        )
        if not is_sound:
            raise ArtifactError(f"{show(self.path)} returns no probabilities", hint=_HINT)
        return found


def cannot_run(path: Path, error: Exception) -> ArtifactError | MemoryError:
    """Return the error to raise if onnxruntime or OpenVINO fails."""
    if is_out_of_memory(error):
        return MemoryError()
    return ArtifactError(f"{show(path)} cannot be run: {show(error)}", hint=_HINT)
