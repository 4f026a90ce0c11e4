"""Exported files: their metadata and digest, and the checks before one is used.

What a file stores in addition to its graph is in its metadata, each entry as JSON.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError, Message
from onnx import numpy_helper

from xception_cli.console import show
from xception_cli.data.opening import turns
from xception_cli.errors import ArtifactError, UsageError, is_out_of_memory
from xception_cli.files import is_file
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, format_of
from xception_cli.model.seal import DIGEST, note_unsealed
from xception_cli.model.unknown import Thresholds
from xception_cli.onnx.classifier import DISTANCE, INPUT, OUTPUT, OnnxClassifier, cannot_run
from xception_cli.onnx.sizes import GraphSizes

WHOLE, CROPPED = "whole", "cropped"  # images of any size, or of image_size

_MAX_BYTES = 500_000_000  # Xception is 92 MB
_AGAIN = "copy the file again, or write it again: xception export RUN --output FILE"
# The operators of an export. All others are refused: no loops, no branches, nothing that expands
# a little data to much, nothing that needs a plug-in.
_OPERATORS = frozenset(
    {"Transpose", "Cast", "Div", "Sub", "Conv", "Relu", "MaxPool", "Add", "ReduceMean", "Gemm"}
    | {"Concat", "Softmax", "Shape", "ReduceMin", "Mul", "Round", "Slice"}
    | {"LpNormalization", "TopK"}  # the distance for `unknown`
    | {"Abs", "Clip", "Gather", "MatMul", "Max", "Range", "ReduceSum"}  # the resize
    | {"Resize"}  # in exports of earlier versions
    | {"QuantizeLinear", "DequantizeLinear"}
)


def to_metadata(bundle: ModelBundle, *, cropped: bool) -> dict[str, str]:
    """Return the metadata of a file, each entry as JSON."""
    about = replace(bundle.about, unknown=None)  # the reference features are in the graph
    entries = about.to_dict(format_of(bundle.network)) | {"input": CROPPED if cropped else WHOLE}
    if rule := bundle.about.unknown:
        entries["unknown"] = rule.thresholds.to_dict() | {"holds": rule.reference.description}
    return {name: json.dumps(value) for name, value in entries.items()}


def seal_onnx(model: onnx.ModelProto) -> bytes:
    """Return the content of a file: the model, and as its last entry the digest of the rest.

    Concatenated Protobuf messages are merged.
    """
    content: bytes = model.SerializeToString()
    return content + _digest_entry(content)


def _digest_entry(content: bytes) -> bytes:
    entry = onnx.StringStringEntryProto(key=DIGEST, value=json.dumps(sha256(content).hexdigest()))
    return bytes(onnx.ModelProto(metadata_props=[entry]).SerializeToString())


_ENTRY_BYTES = len(_digest_entry(b""))


def load_onnx(path: Path) -> OnnxClassifier:
    """Read an exported file.

    Raises:
        UsageError: There is no such file.
        ArtifactError: See `classifier_from`.
    """
    if not is_file(path):
        raise UsageError(f"there is no file {show(path)}", hint="xception export makes one")
    if path.stat().st_size > _MAX_BYTES:
        raise ArtifactError(f"{show(path)} is over {_MAX_BYTES:,} bytes")
    return classifier_from(path.read_bytes(), path)


def classifier_from(content: bytes, path: Path) -> OnnxClassifier:
    """Create a classifier from a file's content.

    Raises:
        ArtifactError: It is damaged or not from `xception export`, refers to other files, or has
            unknown operators or weights that are not finite.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        if is_out_of_memory(error, len(content)):  # protobuf does not say so
            raise MemoryError from error
        raise ArtifactError(f"{show(path)} is not a valid ONNX file", hint=_AGAIN) from error
    if _has_broken_text(model):
        raise ArtifactError(
            f"{show(path)} is not a valid ONNX file: it has text that is not UTF-8", hint=_AGAIN
        )
    if DIGEST in (metadata := {entry.key: entry.value for entry in model.metadata_props}):
        before = content[:-_ENTRY_BYTES]
        if content != before + _digest_entry(before):
            raise ArtifactError(
                f"{show(path)} is damaged: it is not what was written (its SHA-256 differs)",
                hint=_AGAIN,
            )
    note_unsealed(metadata, path)
    _refuse_foreign_parts(model, path)
    about, cropped, thresholds = _read_about(model, path)
    side = about.preprocessing.image_size
    try:
        sizes = GraphSizes(model, INPUT, side)
        sizes.check(1, side, side)  # a session evaluates constants when it is created
        session = onnxruntime.InferenceSession(
            content, _session_options(), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises its own types
        raise cannot_run(path, error) from error
    _check_ports(session, about, thresholds, path)
    turns.allow(about.preprocessing.max_pixels)
    return OnnxClassifier(session, about, cropped, sizes, path, thresholds)


def _session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as exceptions
    # Spinning threads would take the cores from torch, which alternates with it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _refuse_foreign_parts(model: onnx.ModelProto, path: Path) -> None:
    """Check that the file is self-contained and has only the parts of an export."""
    for tensor in _tensors(model):
        # CVE-2022-25882 and later ones: a tensor may refer to any file of this machine.
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ArtifactError(
                f"{show(path)} refers to another file for {show(tensor.name)}, which is not read",
                hint="xception export writes one self-contained file",
            )
    operators = {(node.domain, node.op_type) for node in model.graph.node}
    foreign = sorted(f"{d}.{o}" if d else o for d, o in operators if d or o not in _OPERATORS)
    if foreign or model.functions:
        raise ArtifactError(
            f"{show(path)} is not a file of xception export: it has the operators "
            f"{show(', '.join(foreign) or 'of its own')}"
        )
    if model.graph.sparse_initializer:  # a few bytes can mean any number of zeros
        raise ArtifactError(f"{show(path)} is not a file of xception export: it has sparse weights")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and not _is_finite(tensor):
            raise ArtifactError(
                f"{show(path)} has weights that are not finite: {show(tensor.name)}"
            )


def _is_finite(tensor: onnx.TensorProto) -> bool:
    try:
        return bool(np.isfinite(numpy_helper.to_array(tensor)).all())
    except (ValueError, TypeError):  # the data does not match the shape
        return False


def _tensors(message: Message) -> Iterator[Any]:
    """Yield all tensors, in any place: subgraphs, attributes, sparse halves, functions."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                yield from _tensors(part)


def _has_broken_text(message: Message) -> bool:
    """Return whether a string is bytes, which protobuf returns for invalid UTF-8."""
    for descriptor, value in message.ListFields():
        parts = [value] if isinstance(value, Message | str | bytes | int | float) else value
        if descriptor.message_type is not None and any(map(_has_broken_text, parts)):
            return True
        if descriptor.type == descriptor.TYPE_STRING and bytes in map(type, parts):
            return True
    return False


def _read_about(model: onnx.ModelProto, path: Path) -> tuple[About, bool, Thresholds | None]:
    try:
        entries = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
        cropped = {WHOLE: False, CROPPED: True}[entries["input"]]
        entries["schema"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{show(path)} is an ONNX file that xception export did not write"
        ) from error
    rule = entries.pop("unknown", None)  # without the reference features of a model file
    try:
        thresholds = None if rule is None else Thresholds.from_dict(rule)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"{show(path)} has damaged metadata: {show(error)}") from error
    return About.from_dict(entries, path), cropped, thresholds


def _check_ports(
    session: onnxruntime.InferenceSession, about: About, thresholds: Thresholds | None, path: Path
) -> None:
    ins = [(port.name, port.type, len(port.shape)) for port in session.get_inputs()]
    outs = [(port.name, port.type, port.shape[1:]) for port in session.get_outputs()]
    wanted = [(OUTPUT, "tensor(float)", [len(about.classes)])]
    if thresholds is not None:
        wanted.append((DISTANCE, "tensor(float)", []))
    if ins != [(INPUT, "tensor(uint8)", 4)] or outs != wanted:
        raise ArtifactError(
            f"{show(path)} is not a file of xception export: it takes {show(ins)} and returns "
            f"{show(outs)}, for {len(about.classes)} classes"
        )
