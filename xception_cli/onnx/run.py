"""export_run: a run's model as an ONNX or OpenVINO file, written only if it passes the gate."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from xception_cli import __version__
from xception_cli.console import say, screen
from xception_cli.data.images import decode
from xception_cli.files import file_digest, write_durably
from xception_cli.model.about import REFIT
from xception_cli.model.bundle import load_model
from xception_cli.onnx import OPENVINO, REPORT, read_reports
from xception_cli.onnx.classifier import CPU, OnnxClassifier
from xception_cli.onnx.file import CROPPED, WHOLE, classifier_from, seal_onnx
from xception_cli.onnx.graph import build_onnx
from xception_cli.onnx.images import LEAST, JudgeImage, judge_images, own_images
from xception_cli.onnx.judge import (
    Agreement,
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
    form: str,
    quantized: bool,
    share_features: bool,
) -> ExportResult:
    """Export a run's model, compare it with PyTorch, and write it and a report.

    Args:
        run: The run.
        output: From `check_export_output`: a new .onnx file; for `openvino` an .xml file, whose
            weights go to a .bin file.
        cropped: Whether the file takes images that are already resized and cropped.
        form: `onnx` or `openvino`.
        quantized: Whether to quantize the network to int8 (`onnx` only) and measure the effect.
        share_features: Whether to keep the features of training images, if the model has them.

    Raises:
        UsageError: The run has no model.
        ArtifactError: The model is damaged, the export does not match PyTorch, or the quantized
            file does not match the float one.
        MachineError: The disk is full or read-only.
    """
    bundle = load_model(run.model, CPU)
    if not share_features:
        bundle = replace(bundle, about=bundle.about.without_features())
    model = build_onnx(bundle, cropped=cropped)
    content = seal_onnx(model)
    exported = classifier_from(content, output)
    runtimes, files = {"onnxruntime": exported}, {output: content}
    if form == OPENVINO:
        runtimes["openvino"], files = convert(exported, content, output)
    elif (other := in_openvino(exported, content)) is not None:
        runtimes["openvino"] = other
    judges = judge_images(run, bundle.classes)
    parities = {name: compare(bundle, found, judges) for name, found in runtimes.items()}
    _require_parities(parities, bundle.runtime.precision)
    entry: dict[str, Any] = {
        "input": CROPPED if cropped else WHOLE,
        "model": file_digest(run.model),
        "parity": parities["onnxruntime"].to_dict(),
        "versions": _versions(parities),
    }
    if "openvino" in parities:
        entry["openvino"] = parities["openvino"].to_dict()
    if quantized:
        content, agreement = _quantize(run, model, exported, output)
        files, entry["int8"] = {output: content}, agreement.to_dict()
    report = output.with_name(REPORT)
    _write(files, report, {output.name: entry})
    snippet = inference_snippet(output, bundle.preprocessing, cropped=cropped, form=form)
    return ExportResult(snippet, report)


def _require_parities(parities: Mapping[str, Parity], precision: str) -> None:
    """Print the comparisons with PyTorch, and refuse a file that does not match it.

    Args:
        parities: The comparisons, by runtime.
        precision: In which this machine computes the run itself.
    """
    for runtime, parity in parities.items():
        say(f"parity    {runtime}: {parity.headline()}")
        require_parity(runtime, parity)
    parity = parities["onnxruntime"]
    if parity.decoded_smaller:
        say(
            f"          with the run, xception predict decodes {parity.decoded_smaller} of them at "
            "a reduced size: its probabilities differ by up to "
            f"{parity.decoded_smaller_difference:.2g}"
        )
    if precision != "fp32":
        say(
            f"note      the file computes in fp32; on this machine, xception predict computes the "
            f"run in {precision}, and its probabilities differ more"
        )


def _quantize(
    run: RunDir, model: onnx.ModelProto, exported: OnnxClassifier, output: Path
) -> tuple[bytes, Agreement]:
    """Quantize an export, calibrated on training images; refuse it if val shows another model."""
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
    require_agreement(agreement)
    return content, agreement


def calibration_pixels(
    exported: OnnxClassifier, images: Sequence[JudgeImage]
) -> Iterator[NDArray[np.uint8]]:
    """Read the inputs of a file, one image at a time.

    Yields:
        `(1, height, width, 3)`, uint8.
    """
    with screen.bar("calibrating int8", len(images)) as bar:
        for image in images:
            decoded = decode(image.content, grey_bits=exported.preprocessing.grey_bits)
            pixels = exported.transform()(decoded)
            yield pixels.numpy().transpose(1, 2, 0)[None]
            bar.advance(1)


def _write(files: Mapping[Path, bytes], report: Path, entry: dict[str, Any]) -> None:
    """Write the files of an export and their entry of the report; if one fails, keep none."""
    made: list[Path] = []
    try:
        for path, content in files.items():
            write_durably(path, content)
            made.append(path)
        write_json(report, read_reports(report) | entry)
    except BaseException:  # so that the same command can be typed again
        for path in made:
            path.unlink(missing_ok=True)
        raise


def _versions(runtimes: Iterable[str]) -> dict[str, str]:
    names = ("onnx", "torch", "pillow", *runtimes)
    return {"xception": __version__} | {name: metadata.version(name) for name in names}
