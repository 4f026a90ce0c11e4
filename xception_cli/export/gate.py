"""The gate: an exported file must say what PyTorch says, or it is not let out.

Both see the same pixels, decoded at full size. PyTorch's side is the model in float32 behind the
evaluation transform; the file's side is onnxruntime, behind what the file does itself.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image

from xception_cli.console import screen
from xception_cli.data.images import decode
from xception_cli.errors import ArtifactError
from xception_cli.export.pictures import JudgePicture
from xception_cli.model.bundle import Classifier, ModelBundle
from xception_cli.runtime import Runtime

# Largest difference of a probability, and of the two best where the best may differ.
LIMIT_CROPPED = 1e-3
LIMIT_WHOLE = 2e-2  # its resize is a port of Pillow's, with other rounding


@dataclass(frozen=True)
class Parity:
    """How a file compares with PyTorch.

    Attributes:
        images: Pictures that both were shown.
        kinds: Of them, by where they are from: `val`, `drawn`, `large`.
        top1_agreement: Part of them with the same best class.
        contradictions: Pictures with another best class, where PyTorch's two best differ by the
            limit or more.
        largest_difference: Of a probability, or of the distance of `unknown`.
        limit: For it.
        decoded_smaller: Pictures that `xception predict --run` decodes at a part of their size.
        decoded_smaller_difference: Largest difference of a probability to what it says of these.
    """

    images: int
    kinds: dict[str, int]
    top1_agreement: float
    contradictions: int
    largest_difference: float
    limit: float
    decoded_smaller: int
    decoded_smaller_difference: float

    @property
    def passed(self) -> bool:
        """Whether the file says the same as PyTorch."""
        # `not >` would let nan through
        return self.contradictions == 0 and self.largest_difference <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def headline(self) -> str:
        """Say it in a line."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        equal = round(self.top1_agreement * self.images)
        return (
            f"{self.images} pictures ({kinds}): best class equal on {equal}, probabilities within "
            f"{self.largest_difference:.1e} (limit {self.limit:g})"
        )


def compare(bundle: ModelBundle, exported: Classifier, pictures: Sequence[JudgePicture]) -> Parity:
    """Compare a file with PyTorch in float32 on the CPU.

    Args:
        bundle: The model.
        exported: The file.
        pictures: To show to both.
    """
    runtime = Runtime(torch.device("cpu"), "fp32")
    reference = replace(bundle, network=runtime.place(bundle.network), runtime=runtime)
    limit = LIMIT_WHOLE if exported.side is None else LIMIT_CROPPED
    differences, smaller, equal, contradictions = [], [], 0, 0
    with screen.bar("comparing", len(pictures)) as bar:
        for picture in pictures:
            whole = decode(picture.content)
            (expected, far), (found, found_far) = _ask(reference, whole), _ask(exported, whole)
            differences.append(float(max(abs(found - expected).max(), abs(found_far - far))))
            same = bool(found.argmax() == expected.argmax())
            second, best = sorted(expected)[-2:]
            equal += same
            contradictions += not same and best - second >= limit
            less = decode(picture.content, least_side=bundle.least_side)
            if less.size != whole.size:
                smaller.append(float(abs(found - _ask(reference, less)[0]).max()))
            bar.advance(1)
    return Parity(
        images=len(pictures),
        kinds=dict(Counter(picture.kind for picture in pictures)),
        top1_agreement=equal / len(pictures),
        contradictions=contradictions,
        largest_difference=max(differences),
        limit=limit,
        decoded_smaller=len(smaller),
        decoded_smaller_difference=max(smaller, default=0.0),
    )


def require_parity(parity: Parity) -> None:
    """Let a file out.

    Raises:
        ArtifactError: It does not say the same as PyTorch.
    """
    if not parity.passed:
        raise ArtifactError(
            f"the exported file does not say what PyTorch says, and was not written: "
            f"{parity.headline()}; {parity.contradictions} clear answers differ",
            hint="upgrade onnxruntime, or --input cropped; xception env shows the versions",
        )


def _ask(classifier: Classifier, picture: Image.Image) -> tuple[NDArray[Any], float]:
    """Return the probabilities, and the distance of `unknown`, 0 without a rule for it."""
    logits, features = classifier.outputs(classifier.transform()(picture)[None])
    rule = classifier.unknown
    distance = 0.0 if rule is None else rule.measure(features[0].numpy())
    return classifier.calibrated(logits)[0].numpy(), distance
