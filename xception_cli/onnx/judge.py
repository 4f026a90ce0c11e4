"""The gate: a file must match PyTorch, and int8 nearly match float32, or it is refused."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from xception_cli.answers import answer_all
from xception_cli.console import screen
from xception_cli.data.images import decode
from xception_cli.errors import ArtifactError
from xception_cli.evaluation.intervals import Estimate, wilson_interval
from xception_cli.model.bundle import Classifier, ModelBundle
from xception_cli.numerals import count_of, percentage
from xception_cli.onnx.classifier import CPU
from xception_cli.onnx.images import JudgeImage

# Largest difference of a probability. Another top class counts only if the two best differ by more.
LIMIT_CROPPED = 1e-3
LIMIT_WHOLE = 2e-2  # its resize is a port of Pillow's that rounds differently


@dataclass(frozen=True)
class Parity:
    """The comparison of a file with PyTorch.

    Attributes:
        images: Number of images compared.
        kinds: Number of images by origin: `val`, `drawn`, `large`.
        top1_agreement: Fraction of images with the same top class.
        contradictions: Number of images with another top class, where PyTorch's two best differ by
            the limit or more.
        largest_difference: Largest difference of a probability, or of the distance for `unknown`.
        limit: Limit of that difference.
        decoded_smaller: Number of images that `xception predict --run` decodes at a reduced size.
        decoded_smaller_difference: Largest difference of a probability between the two for these.
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
        """Whether the file matches PyTorch."""
        # `not >` would accept nan.
        return self.contradictions == 0 and self.largest_difference <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def headline(self) -> str:
        """Return a summary in one line."""
        equal = round(self.top1_agreement * self.images)
        return (
            f"{count_of(self.images, 'image')} ({_list(self.kinds)}): same class on {equal:,}, "
            f"probabilities within {self.largest_difference:.1e} of PyTorch's in fp32 "
            f"(limit {self.limit:g})"
        )


def compare(bundle: ModelBundle, exported: Classifier, images: Sequence[JudgeImage]) -> Parity:
    """Compare a file with PyTorch in float32 on the CPU."""
    reference = replace(bundle, network=CPU.place(bundle.network), runtime=CPU)
    bits = bundle.preprocessing.grey_bits
    limit = LIMIT_WHOLE if exported.side is None else LIMIT_CROPPED
    differences, smaller, equal, contradictions = [], [], 0, 0
    with screen.bar("comparing", len(images)) as bar:
        for image in images:
            whole = decode(image.content, grey_bits=bits)
            (expected, far), (found, found_far) = _ask(reference, whole), _ask(exported, whole)
            differences.append(float(max(abs(found - expected).max(), abs(found_far - far))))
            same = bool(found.argmax() == expected.argmax())
            second, best = sorted(expected)[-2:]
            equal += same
            contradictions += not same and bool(best - second >= limit)
            less = decode(image.content, least_side=bundle.least_side, grey_bits=bits)
            if less.size != whole.size:
                smaller.append(float(abs(found - _ask(reference, less)[0]).max()))
            bar.advance(1)
    return Parity(
        images=len(images),
        kinds=_kinds(images),
        top1_agreement=equal / len(images),
        contradictions=contradictions,
        largest_difference=max(differences),
        limit=limit,
        decoded_smaller=len(smaller),
        decoded_smaller_difference=max(smaller, default=0.0),
    )


def require_parity(runtime: str, parity: Parity) -> None:
    """Refuse a file that does not match PyTorch.

    Raises:
        ArtifactError: It does not match PyTorch.
    """
    if not parity.passed:
        raise ArtifactError(
            f"in {runtime} the exported file does not match PyTorch and was not written: "
            f"{parity.headline()}; {parity.contradictions} clear answers differ",
            hint=f"upgrade {runtime}, or use --input cropped; xception env shows the versions",
        )


def _ask(classifier: Classifier, image: Image.Image) -> tuple[NDArray[Any], float]:
    """Return the probabilities, and the distance for `unknown`, 0 if not calibrated."""
    (outcome,) = classifier.outcomes(classifier.transform()(image)[None])
    distance = 0.0 if classifier.thresholds is None else classifier.distances([outcome])[0]
    (answer,) = answer_all(classifier, [outcome], None)
    return answer.probabilities, distance


LEAST_AGREEMENT = 0.9  # a file that classifies more than a tenth differently is another model


@dataclass(frozen=True)
class Agreement:
    """The comparison of a quantized file with the float file, on the same images.

    Attributes:
        calibrated_on: Number of images used for quantizing, by origin: `train`, `drawn`.
        images: Number of images compared.
        kinds: Number of images by origin: `val`, `drawn`.
        agreeing: Number of images with the same top class.
        labelled: Number of images with a known class.
        correct_float: Number of these classified correctly by the float file.
        correct_int8: Number of these classified correctly by the quantized file.
        milliseconds_float: Median time per image of the float file, in onnxruntime on this machine.
        milliseconds_int8: Median time per image of the quantized file.
    """

    calibrated_on: dict[str, int]
    images: int
    kinds: dict[str, int]
    agreeing: int
    labelled: int
    correct_float: int
    correct_int8: int
    milliseconds_float: float
    milliseconds_int8: float

    @property
    def passed(self) -> bool:
        """Whether it is still the same model."""
        return self.agreeing >= LEAST_AGREEMENT * self.images

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, each proportion with its 95% interval."""
        accuracies = {}
        for name, correct in (("float", self.correct_float), ("int8", self.correct_int8)):
            known = bool(self.labelled)
            accuracies[name] = asdict(_proportion(correct, self.labelled)) if known else None
        return {
            "calibrated_on": self.calibrated_on,
            "images": self.images,
            "kinds": self.kinds,
            "top1_agreement": asdict(_proportion(self.agreeing, self.images)),
            "accuracy": accuracies,
            "milliseconds": {"float": self.milliseconds_float, "int8": self.milliseconds_int8},
        }

    def headline(self) -> str:
        """Return in one line how often both agree."""
        return (
            f"{count_of(self.images, 'image')} ({_list(self.kinds)}): same class as in float32 on "
            f"{_describe(self.agreeing, self.images)}"
        )

    def lines(self) -> list[str]:
        """Return all results, one per line."""
        said = [f"calibrated on {_list(self.calibrated_on)} images", self.headline()]
        if self.labelled:
            said.append(
                f"accuracy {_describe(self.correct_int8, self.labelled)}; in float32 "
                f"{_describe(self.correct_float, self.labelled)}"
            )
        before, after = self.milliseconds_float, self.milliseconds_int8
        return [
            *said,
            f"{before / after:.2f} times as fast here: {after:.0f} ms per image instead of "
            f"{before:.0f}, by the median",
        ]

    def warning(self) -> str | None:
        """Return a warning if accuracy falls."""
        lost = self.correct_float - self.correct_int8
        if lost <= 0:
            return None
        return (
            f"int8 COSTS ACCURACY: {lost} fewer of {self.labelled} val images are classified "
            "correctly; use the float file if that is too many"
        )


def measure_agreement(
    exported: Classifier,
    quantized: Classifier,
    images: Sequence[JudgeImage],
    *,
    calibrated_on: Sequence[JudgeImage],
) -> Agreement:
    """Run both files on images, in turn."""
    equal, labelled = 0, 0
    correct: list[int] = [0, 0]
    seconds: tuple[list[float], list[float]] = ([], [])
    with screen.bar("comparing int8", len(images)) as bar:
        for image in images:
            decoded = decode(image.content, grey_bits=exported.about.preprocessing.grey_bits)
            pixels = exported.transform()(decoded)[None]
            best = []
            for which, classifier in enumerate((exported, quantized)):
                began = time.perf_counter()
                best.append(int(classifier.probabilities(pixels).argmax()))
                seconds[which].append(time.perf_counter() - began)
                correct[which] += best[-1] == image.label
            equal += best[0] == best[1]
            labelled += image.label is not None
            bar.advance(1)
    return Agreement(
        calibrated_on=_kinds(calibrated_on),
        images=len(images),
        kinds=_kinds(images),
        agreeing=equal,
        labelled=labelled,
        correct_float=correct[0],
        correct_int8=correct[1],
        milliseconds_float=1000 * median(seconds[0]),
        milliseconds_int8=1000 * median(seconds[1]),
    )


def require_agreement(agreement: Agreement) -> None:
    """Refuse a quantized file that is another model.

    Raises:
        ArtifactError: It agrees too rarely.
    """
    if not agreement.passed:
        raise ArtifactError(
            f"the int8 file differs too much from the float file and was not written: "
            f"{agreement.headline()}, less than {LEAST_AGREEMENT:.0%}",
            hint="export without --quantize: the float file matches PyTorch",
        )


def _kinds(images: Sequence[JudgeImage]) -> dict[str, int]:
    return dict(Counter(image.kind for image in images))


def _list(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _proportion(part: int, of: int) -> Estimate:
    return Estimate(part / of, *wilson_interval(part, of))


def _describe(part: int, of: int) -> str:
    found = _proportion(part, of)
    return f"{percentage(found.value)} ({found.interval}, {part} of {of})"
