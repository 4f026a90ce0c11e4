"""export_run: a run's model as one ONNX file, let out only if it says the same."""

import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from xception_cli import __version__
from xception_cli.console import say
from xception_cli.errors import ArtifactError
from xception_cli.export.gate import Parity, compare, require_parity
from xception_cli.export.graph import build_onnx
from xception_cli.export.pictures import judge_pictures
from xception_cli.export.snippet import inference_snippet
from xception_cli.files import check_new_file, file_digest, write_durably
from xception_cli.model.bundle import load_model
from xception_cli.model.onnx_file import CROPPED, WHOLE, classifier_from
from xception_cli.rundir import RunDir, read_json, write_json
from xception_cli.runtime import Runtime

INPUTS = (WHOLE, CROPPED)
REPORT = "export_report.json"


@dataclass(frozen=True)
class ExportResult:
    """An export.

    Attributes:
        parity: How the file compares with PyTorch.
        snippet: A program that uses it.
        report: Where the figures are.
    """

    parity: Parity
    snippet: str
    report: Path


def check_export_output(output: Path) -> None:
    """See that an export can be written there, before anything is computed.

    Raises:
        UsageError: The file exists, its folder does not, or it does not end in .onnx.
        ArtifactError: The report beside it is damaged.
    """
    check_new_file(output, (".onnx",), "export to")
    _read_reports(output.with_name(REPORT))


def export_run(run: RunDir, output: Path, *, cropped: bool) -> ExportResult:
    """Export a run's model, compare it with PyTorch, and write it with a report beside it.

    Args:
        run: The run.
        output: A new .onnx file.
        cropped: The file takes pictures that are resized and cut already.

    Raises:
        UsageError: See `check_export_output`; or the run has no model.
        ArtifactError: The model is damaged, or the export does not say what PyTorch says.
        MachineError: The disk is full or read-only.
    """
    check_export_output(output)
    bundle = load_model(run.model, Runtime(torch.device("cpu"), "fp32"))
    content = build_onnx(bundle, cropped=cropped).SerializeToString()
    exported = classifier_from(content, output)
    pictures = judge_pictures(run, bundle.classes)
    parity = compare(bundle, exported, pictures)
    say(f"parity    {parity.headline()}")
    if parity.decoded_smaller:
        say(
            f"          xception predict --run decodes {parity.decoded_smaller} of them smaller: "
            f"within {parity.decoded_smaller_difference:.1e} of what it says"
        )
    require_parity(parity)
    write_durably(output, content)
    report = output.with_name(REPORT)
    entry = {
        "input": CROPPED if cropped else WHOLE,
        "model": file_digest(run.model),
        "parity": parity.to_dict(),
        "versions": _versions(),
    }
    write_json(report, _read_reports(report) | {output.name: entry})
    snippet = inference_snippet(output, bundle.preprocessing, cropped=cropped)
    return ExportResult(parity, snippet, report)


def _versions() -> dict[str, str]:
    others = {name: metadata.version(name) for name in ("onnx", "onnxruntime", "torch", "pillow")}
    return {"xception": __version__} | others


def _read_reports(path: Path) -> dict[str, Any]:
    """Read the entries of all files in a folder, by name."""
    if not os.path.lexists(path):
        return {}
    try:
        return read_json(path)
    except ArtifactError as error:
        raise ArtifactError(error.message, hint="remove it, or choose another --output") from error
