"""export_run: a run's model as an ONNX or OpenVINO file, written only if it passes the gate."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from PIL import Image

from xception_cli import __version__
from xception_cli.console import say, screen, show
from xception_cli.data.folder import images_below
from xception_cli.data.images import decode
from xception_cli.errors import DataError, UsageError
from xception_cli.evaluation.selection import select_own
from xception_cli.files import file_digest, write_durably
from xception_cli.model.about import REFIT
from xception_cli.model.bundle import load_model
from xception_cli.model.unshared import without_features
from xception_cli.onnx import ONNX, OPENVINO, REPORT, check_export_output, read_reports
from xception_cli.onnx.file import CROPPED, WHOLE, OnnxClassifier, classifier_from, seal_onnx
from xception_cli.onnx.graph import build_onnx
from xception_cli.onnx.judge import (
    Agreement,
    JudgeImage,
    Parity,
    compare,
    measure_agreement,
    require_agreement,
    require_parity,
)
from xception_cli.onnx.openvino import convert, in_openvino
from xception_cli.onnx.program import inference_snippet
from xception_cli.onnx.quantize import quantize_onnx
from xception_cli.rundir import RunDir, write_json
from xception_cli.runtime import Runtime
from xception_cli.sample import draw_sample

LEAST = 64  # least number of images that an export is compared on
LARGE = 4  # number of these that are also enlarged to the size of a camera's
_LARGE_SIZE = (4000, 3000)  # 12 megapixels
_GRAIN = 12.0  # of 255; without it, an enlarged image has nothing that aliases

CALIBRATION = 32  # training images that an int8 file is calibrated on
MOST = 500  # most val images that an int8 file is compared on


@dataclass(frozen=True)
class ExportResult:
    """An export.

    Attributes:
        snippet: A program that runs it.
        report: The report file: a comparison with PyTorch, and of an int8 file with the float one.
    """

    snippet: str
    report: Path


def export_run(
    run: RunDir,
    output: Path,
    *,
    cropped: bool,
    form: str = ONNX,
    quantized: bool = False,
    share_features: bool = True,
) -> ExportResult:
    """Export a run's model, compare it with PyTorch, and write it and a report.

    Args:
        run: The run.
        output: A new .onnx file; for `openvino` an .xml file, whose weights go to a .bin file.
        cropped: Whether the file takes images that are already resized and cropped.
        form: `onnx` or `openvino`.
        quantized: Whether to quantize the network to int8 (`onnx` only) and measure the effect.
        share_features: Whether to keep the features of training images, if the model has them.

    Raises:
        UsageError: See `check_export_output`; or the run has no model.
        ArtifactError: The model is damaged, the export does not match PyTorch, or the quantized
            file does not match the float one.
        MachineError: The disk is full or read-only.
    """
    check_export_output(output, form)
    bundle = load_model(run.model, Runtime(torch.device("cpu"), "fp32"))
    if not share_features:
        bundle = replace(bundle, about=without_features(bundle.about))
    model = build_onnx(bundle, cropped=cropped)
    content = seal_onnx(model)
    exported = classifier_from(content, output)
    judges = judge_images(run, bundle.classes)
    parities = {"onnxruntime": compare(bundle, exported, judges)}
    files = {output: content}
    if form == OPENVINO:
        other, files = convert(exported, content, output)
        parities["openvino"] = compare(bundle, other, judges)
    elif (found := in_openvino(exported, content)) is not None:
        parities["openvino"] = compare(bundle, found, judges)
    for runtime, parity in parities.items():
        say(f"parity    {runtime}: {parity.headline()}")
        require_parity(runtime, parity)
    _show_reduced(parities["onnxruntime"])
    if (own := bundle.runtime.precision) != "fp32":
        say(
            f"note      the file computes in fp32; on this machine, xception predict computes the "
            f"run in {own}, and its probabilities differ more"
        )
    agreement = None
    if quantized:
        content, agreement = _quantize(run, model, exported, output)
        require_agreement(agreement)
        files = {output: content}
    report = output.with_name(REPORT)
    entry: dict[str, Any] = {
        "input": CROPPED if cropped else WHOLE,
        "model": file_digest(run.model),
        "parity": parities["onnxruntime"].to_dict(),
        "versions": _versions(parities),
    }
    if "openvino" in parities:
        entry["openvino"] = parities["openvino"].to_dict()
    if agreement is not None:
        entry["int8"] = agreement.to_dict()
    made: list[Path] = []
    try:
        for path, written in files.items():
            write_durably(path, written)
            made.append(path)
        write_json(report, read_reports(report) | {output.name: entry})
    except BaseException:  # so that the same command can be typed again
        for path in made:
            path.unlink(missing_ok=True)
        raise
    snippet = inference_snippet(output, bundle.preprocessing, cropped=cropped, form=form)
    return ExportResult(snippet, report)


def _quantize(
    run: RunDir, model: onnx.ModelProto, exported: OnnxClassifier, output: Path
) -> tuple[bytes, Agreement]:
    """Quantize an export, calibrated on training images, and compare it on val."""
    images = own_images(run, exported.classes, "train", least=CALIBRATION, most=CALIBRATION)
    content = seal_onnx(quantize_onnx(model, calibration_pixels(exported, images)))
    judges = own_images(run, exported.classes, "val", least=LEAST, most=MOST)
    quantized = classifier_from(content, output)
    agreement = measure_agreement(exported, quantized, judges, calibrated_on=images)
    for number, line in enumerate(agreement.lines()):
        say(f"{'' if number else 'int8':10}{line}")
    if REFIT in exported.about.provenance:
        say("note      the head was also fitted to val: int8 may cost more accuracy on new images")
    if warning := agreement.warning():
        say(f"warning   {warning}", style="bold red")
    return content, agreement


def calibration_pixels(
    exported: OnnxClassifier, images: Sequence[JudgeImage]
) -> Iterator[NDArray[np.uint8]]:
    """Read the inputs of a file, one image at a time.

    Args:
        exported: The float file.
        images: Images of the run's train split.

    Yields:
        `(1, height, width, 3)`, uint8.
    """
    with screen.bar("calibrating int8", len(images)) as bar:
        for image in images:
            decoded = decode(image.content, grey_bits=exported.preprocessing.grey_bits)
            pixels = exported.transform()(decoded)
            yield pixels.numpy().transpose(1, 2, 0)[None]
            bar.advance(1)


def judge_images(
    run: RunDir, classes: Sequence[str], *, least: int = LEAST, large: int = LARGE
) -> list[JudgeImage]:
    """Return the images that an export is compared on.

    Args:
        run: The run, of whose val images an even selection is taken.
        classes: Classes of its model.
        least: Least number of images, not counting the large ones; drawn images fill up.
        large: Number of images that are also enlarged to 12 megapixels.
    """
    chosen = own_images(run, classes, "val", least=least, most=least)
    spread = chosen[:: max(1, len(chosen) // large)][:large] if large else []
    return chosen + [
        JudgeImage("large", _enlarge(image.content, seed)) for seed, image in enumerate(spread)
    ]


def own_images(
    run: RunDir, classes: Sequence[str], split: str, *, least: int, most: int
) -> list[JudgeImage]:
    """Return an even selection of a split's images, and drawn images if there are too few.

    Args:
        run: The run.
        classes: Classes of its model.
        split: `train` or `val`.
        least: Least number of images; drawn images fill up.
        most: Most images of the split.
    """
    own = _spread(run, classes, split, most)
    return own + [JudgeImage("drawn", content) for content in _draw(least - len(own))]


def _spread(run: RunDir, classes: Sequence[str], split: str, most: int) -> list[JudgeImage]:
    try:
        selection = select_own(run, classes, split)
    except (DataError, UsageError) as error:
        say(f"note      using drawn images instead of {split}: {show(error.message)}")
        return []
    sound = [image for image in selection.images if image.problem is None]
    indices = np.linspace(0, len(sound) - 1, min(most, len(sound))).round().astype(int)
    chosen = [sound[index] for index in indices]
    return [JudgeImage(split, selection.root / image.path, image.label) for image in chosen]


def _draw(count: int) -> Iterator[bytes]:
    if count < 1:
        return
    with TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn"
        draw_sample(drawn, classes=12, images=max(2, -(-count // 12)))
        for path in images_below(drawn)[:count]:
            yield path.read_bytes()


def _enlarge(content: bytes, seed: int) -> bytes:
    """Enlarge an image to a JPEG of 12 megapixels, with noise as fine as its pixels."""
    image = decode(content, grey_bits=None)
    size = _LARGE_SIZE if image.width >= image.height else _LARGE_SIZE[::-1]
    large = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(seed).standard_normal(large.shape[:2], np.float32)
    grainy = np.clip(large + _GRAIN * grain[..., None], 0, 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(grainy).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _show_reduced(parity: Parity) -> None:
    if parity.decoded_smaller:
        say(
            f"          with the run, xception predict decodes {parity.decoded_smaller} of them at "
            "a reduced size: its probabilities differ by up to "
            f"{parity.decoded_smaller_difference:.2g}"
        )


def _versions(runtimes: Iterable[str]) -> dict[str, str]:
    names = ("onnx", "torch", "pillow", *runtimes)
    return {"xception": __version__} | {name: metadata.version(name) for name in names}
