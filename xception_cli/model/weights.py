"""Where pretrained weights come from: sources, verification and the cache.

The numbers are pinned, not the source: weights are accepted if their bytes parse without running
code and the digest of the backbone's tensors is `PINNED_DIGEST`.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from xception_cli.console import say, show
from xception_cli.errors import ArtifactError, MachineError, UsageError, WeightsError
from xception_cli.files import cache_folder, write_durably
from xception_cli.model.network import build_network
from xception_cli.model.published import SOURCES
from xception_cli.model.tensors import (
    HEAD,
    check_file,
    check_tensors,
    read_safetensors,
    tensor_digest,
    to_backbone,
)
from xception_cli.model.torch_files import load_torch

PINNED_DIGEST = "b202e9242c0034f356bc13442acbe7c60b91fba1a0f6d80f944bb181114533b7"


@dataclass(frozen=True)
class PretrainedWeights:
    """The tensors of Xception without its head, float32, by pretrainedmodels' names.

    `source` describes for people where they came from; `digest` identifies them.
    """

    backbone: dict[str, torch.Tensor]
    source: str
    digest: str

    @property
    def is_pinned(self) -> bool:
        """Whether these are the published ImageNet weights."""
        return self.digest == PINNED_DIGEST


def load_pretrained(weights: str) -> PretrainedWeights:
    """Load backbone weights.

    Args:
        weights: `imagenet` (the cache, then the public sources in order) or a file: safetensors,
            or a torch state dict.

    Raises:
        UsageError: The file does not exist.
        ArtifactError: The file is not an Xception, or could run code.
        MachineError: The cache cannot be written.
        WeightsError: The ImageNet weights could not be obtained from any source.
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
    """Download the ImageNet weights into the cache, unless they are there; return the file.

    Raises:
        MachineError: The cache cannot be written.
        WeightsError: They could not be obtained from any source.
    """
    if _load_cached() is None:
        _obtain()
    return _cache_file()


def is_cached() -> bool:
    """Return whether the ImageNet weights are in the cache; `verify` checks their numbers."""
    return os.access(_cache_file(), os.R_OK)


def verify() -> Path:
    """Check the cached ImageNet weights, number by number; return the file.

    Raises:
        ArtifactError: The file is damaged.
        WeightsError: Nothing is cached.
    """
    path = _cache_file()
    if not is_cached():
        raise WeightsError(
            f"the ImageNet weights are not in the cache ({show(path)})",
            hint="xception weights fetch",
        )
    _read_cache(path)
    return path


def licence_of(source: str | None, digest: str | None) -> str:
    """Return the licence of the weights that a training started from, as far as it is known.

    Args:
        source: Of run.json.
        digest: Of run.json; identifies the ImageNet weights, whatever the source.
    """
    if digest is None:
        return "none is needed, training started from random weights"
    if digest != PINNED_DIGEST:
        return "not known, these are not the published ImageNet weights"
    named = [each for each in SOURCES if (source or "").startswith(f"{each.name} (")]
    return (named or SOURCES)[0].licence


# The cache


def cache_dir() -> Path:
    """Return the folder of downloaded weights, created if necessary.

    Raises:
        MachineError: It cannot be created or written.
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
    """Return the folder of downloaded weights, which need not exist.

    Raises:
        MachineError: HOME is not set.
    """
    try:
        return cache_folder()
    except MachineError as error:  # only the data check works without a cache
        raise _cache_error(None, error.message) from error


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
    if not is_cached():
        return None
    try:
        return _read_cache(path)
    except UsageError:
        return None  # another process has just moved it
    except ArtifactError as error:
        bad = path.with_suffix(".safetensors.bad")
        say(f"the cached weights are damaged, moved to {show(bad)}: {error.message}")
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
            hint="xception weights fetch downloads them again",
        )
    return PretrainedWeights(backbone, metadata.get("source", "cache"), digest)


def _obtain() -> PretrainedWeights:
    """Try the sources in order and keep the first valid result."""
    path = cache_dir() / _cache_file().name  # before any download
    failures = []
    for source in SOURCES:
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
        say(f"verified and stored in {show(path)}")
        return PretrainedWeights(backbone, origin, digest)
    raise WeightsError(
        "the ImageNet weights could not be obtained:\n"
        + "\n".join(f"  {line}" for line in failures),
        hint="with a network connection, type: xception weights fetch; or type that on another "
        "machine, copy the file that it prints, and give it with --weights FILE",
    )


# Files


def _load_file(path: Path) -> PretrainedWeights:
    if path.suffix == ".safetensors":
        state: Any = read_safetensors(path)[0]
    else:
        check_file(path)
        state = load_torch(path.read_bytes(), show(path))
    backbone = check_tensors(to_backbone(state, show(path)), _backbone_shapes(), show(path))
    # Its name alone: the model file and the pages record it, and the rest of the path is private.
    pretrained = PretrainedWeights(backbone, path.name, tensor_digest(backbone))
    if not pretrained.is_pinned:
        digest = pretrained.digest[:16]
        say(f"weights   {show(path)} holds weights other than the published ones: {digest}…")
    return pretrained


@functools.cache
def _backbone_shapes() -> dict[str, torch.Size]:
    # The meta device draws no random numbers, so the global random state is unchanged.
    with torch.device("meta"):
        state = build_network(1).state_dict()
    return {
        name: tensor.shape
        for name, tensor in state.items()
        if name not in HEAD and not name.endswith("num_batches_tracked")
    }
