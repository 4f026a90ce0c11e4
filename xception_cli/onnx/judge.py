"""The gate: a file must answer as PyTorch does, and int8 nearly as float32, or it is refused."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image

from xception_cli.console import screen
from xception_cli.data.images import decode, read_bytes
from xception_cli.errors import ArtifactError
from xception_cli.evaluation.intervals import Estimate, wilson_interval
from xception_cli.inference import answer
from xception_cli.model.bundle import Classifier, ModelBundle
from xception_cli.runtime import Runtime


@dataclass(frozen=True)
class JudgePicture:
    """A picture to compare two models on.

    Attributes:
        kind: `train`, `val`, `drawn` or `large`.
        source: The bytes of its file, or where they are: many together may not fit into memory.
        label: Index of its class, where it is known.
    """

    kind: str
    source: bytes | Path
    label: int | None = None

    @property
    def content(self) -> bytes:
        """The bytes of its file."""
        return read_bytes(self.source) if isinstance(self.source, Path) else self.source


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
        equal = round(self.top1_agreement * self.images)
        return (
            f"{self.images} pictures ({_list(self.kinds)}): best class equal on {equal}, "
            f"probabilities within {self.largest_difference:.1e} (limit {self.limit:g})"
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
    bits = bundle.preprocessing.grey_bits
    limit = LIMIT_WHOLE if exported.side is None else LIMIT_CROPPED
    differences, smaller, equal, contradictions = [], [], 0, 0
    with screen.bar("comparing", len(pictures)) as bar:
        for picture in pictures:
            whole = decode(picture.content, grey_bits=bits)
            (expected, far), (found, found_far) = _ask(reference, whole), _ask(exported, whole)
            differences.append(float(max(abs(found - expected).max(), abs(found_far - far))))
            same = bool(found.argmax() == expected.argmax())
            second, best = sorted(expected)[-2:]
            equal += same
            contradictions += not same and best - second >= limit
            less = decode(picture.content, least_side=bundle.least_side, grey_bits=bits)
            if less.size != whole.size:
                smaller.append(float(abs(found - _ask(reference, less)[0]).max()))
            bar.advance(1)
    return Parity(
        images=len(pictures),
        kinds=_kinds(pictures),
        top1_agreement=equal / len(pictures),
        contradictions=contradictions,
        largest_difference=max(differences),
        limit=limit,
        decoded_smaller=len(smaller),
        decoded_smaller_difference=max(smaller, default=0.0),
    )


def require_parity(runtime: str, parity: Parity) -> None:
    """Let a file out.

    Args:
        runtime: That ran it.
        parity: How it compares.

    Raises:
        ArtifactError: It does not say the same as PyTorch.
    """
    if not parity.passed:
        raise ArtifactError(
            f"in {runtime} the exported file does not say what PyTorch says, and was not written: "
            f"{parity.headline()}; {parity.contradictions} clear answers differ",
            hint=f"upgrade {runtime}, or --input cropped; xception env shows the versions",
        )


def _ask(classifier: Classifier, picture: Image.Image) -> tuple[NDArray[Any], float]:
    """Return the probabilities, and the distance of `unknown`, 0 without a rule for it."""
    (outcome,) = classifier.outcomes(classifier.transform()(picture)[None])
    distance = 0.0 if classifier.thresholds is None else classifier.distances([outcome])[0]
    return answer(classifier, outcome, None).probabilities, distance


LEAST_AGREEMENT = 0.9  # a file that names more than a tenth otherwise is another model


@dataclass(frozen=True)
class Agreement:
    """How a quantised file compares with the float one, on the same pictures.

    Attributes:
        calibrated_on: Pictures that it was quantised by, by where they are from: `train`, `drawn`.
        images: Pictures that both were shown.
        kinds: Of them, by where they are from: `val`, `drawn`.
        agreeing: With the same best class.
        labelled: Whose class is known.
        correct_float: Of these, recognised by the float file.
        correct_int8: Recognised by the quantised one.
        milliseconds_float: Median time of a picture, in onnxruntime on this machine.
        milliseconds_int8: Of the quantised file.
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
        """Whether it is the same model still."""
        return self.agreeing >= LEAST_AGREEMENT * self.images

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, each part with its 95 % interval."""
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
        """Say in a line how often both say the same."""
        return (
            f"{self.images} pictures ({_list(self.kinds)}): best class as in float32 on "
            f"{_describe(self.agreeing, self.images)}"
        )

    def lines(self) -> list[str]:
        """Say all of it, a line for each thing."""
        said = [f"calibrated on {_list(self.calibrated_on)} pictures", self.headline()]
        if self.labelled:
            said.append(
                f"accuracy {_describe(self.correct_int8, self.labelled)}; in float32 "
                f"{_describe(self.correct_float, self.labelled)}"
            )
        before, after = self.milliseconds_float, self.milliseconds_int8
        return [
            *said,
            f"{before / after:.2f} times as fast here: {after:.0f} ms per picture instead of "
            f"{before:.0f}, by the median",
        ]

    def warning(self) -> str | None:
        """Say that accuracy falls, if it does."""
        lost = self.correct_float - self.correct_int8
        if lost <= 0:
            return None
        return (
            f"int8 COSTS ACCURACY: {lost} fewer of {self.labelled} val images are recognised; "
            "ship the float file if that is too many"
        )


def measure_agreement(
    exported: Classifier,
    quantized: Classifier,
    pictures: Sequence[JudgePicture],
    *,
    calibrated_on: Sequence[JudgePicture],
) -> Agreement:
    """Show pictures to both files, in turn.

    Args:
        exported: The float file.
        quantized: The one that was made of it.
        pictures: With their labels, as far as they are known.
        calibrated_on: What it was quantised by.
    """
    equal, labelled = 0, 0
    correct: list[int] = [0, 0]
    seconds: tuple[list[float], list[float]] = ([], [])
    with screen.bar("comparing int8", len(pictures)) as bar:
        for picture in pictures:
            image = decode(picture.content, grey_bits=exported.about.preprocessing.grey_bits)
            pixels = exported.transform()(image)[None]
            best = []
            for which, classifier in enumerate((exported, quantized)):
                began = time.perf_counter()
                best.append(int(classifier.probabilities(pixels).argmax()))
                seconds[which].append(time.perf_counter() - began)
                correct[which] += best[-1] == picture.label
            equal += best[0] == best[1]
            labelled += picture.label is not None
            bar.advance(1)
    return Agreement(
        calibrated_on=_kinds(calibrated_on),
        images=len(pictures),
        kinds=_kinds(pictures),
        agreeing=equal,
        labelled=labelled,
        correct_float=correct[0],
        correct_int8=correct[1],
        milliseconds_float=1000 * median(seconds[0]),
        milliseconds_int8=1000 * median(seconds[1]),
    )


def require_agreement(agreement: Agreement) -> None:
    """Let a quantised file out.

    Raises:
        ArtifactError: It is another model.
    """
    if not agreement.passed:
        raise ArtifactError(
            f"the int8 file is not the same model any more, and was not written: "
            f"{agreement.headline()}, fewer than {LEAST_AGREEMENT:.0%}",
            hint="leave --quantize out: the float file says what PyTorch says",
        )


def _kinds(pictures: Sequence[JudgePicture]) -> dict[str, int]:
    return dict(Counter(picture.kind for picture in pictures))


def _list(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _proportion(part: int, of: int) -> Estimate:
    return Estimate(part / of, *wilson_interval(part, of))


def _describe(part: int, of: int) -> str:
    found = _proportion(part, of)
    return f"{found.value:.1%} ({found.interval}, {part} of {of})"
