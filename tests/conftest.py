"""Fixtures: drawn images, a small trained run, and the ImageNet weights."""

import fcntl
import gc
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

# Before numpy and torch are loaded, for this process and its children: at 71 px a second thread
# gains nothing, and threads of two processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each test computes its own features, and leaves none in the user's cache; cache tests enable it.
os.environ["XCEPTION_FEATURES_GB"] = "0"

import pytest
from images import draw_photos
from runs import copy_run, quick_settings, train_once

from xception_cli.rundir import RunDir
from xception_cli.runtime import release_freed_memory

# Commands leave SIGHUP ignored under nohup; the tests are the same with and without it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of eight images each, easy to separate by colour."""
    return draw_photos(tmp_path / "photos")


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if pillow-heif were not installed."""
    monkeypatch.setattr("xception_cli.data.formats.reads_heif", lambda: False)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture(autouse=True)
def _scans_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep results for drawn folders out of the user's cache; the weights stay in it."""
    from xception_cli.check import store

    own = tmp_path_factory.getbasetemp() / "scans"
    find = store.store_path

    def store_path(root: Path) -> Path:
        return find(root) if "XCEPTION_CACHE" in os.environ else own / find(root).name

    monkeypatch.setattr(store, "store_path", store_path)


@pytest.fixture(autouse=True, scope="module")
def _memory_returned() -> Iterator[None]:
    """Return freed memory to the system: glibc keeps it, and a worker would grow to 11 GB."""
    yield
    gc.collect()
    release_freed_memory()


@pytest.fixture(scope="session")
def imagenet():
    """Load the ImageNet weights from the user's cache, fetching them once; else skip."""
    from xception_cli.errors import WeightsError
    from xception_cli.model.weights import load_pretrained

    try:
        return load_pretrained("imagenet")
    except WeightsError as error:
        # set by .ci/run, where missing weights are a failure
        if os.environ.get("XCEPTION_REQUIRE_WEIGHTS"):
            raise
        pytest.skip(f"the ImageNet weights cannot be obtained: {error}")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session, the same in all workers of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    path = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="session")
def random_weights(shared: Path) -> Path:
    """A weights file of a randomly initialised backbone, on which training is quick.

    One path for all workers: a model file records it, and tests compare model files byte by byte.
    """
    from safetensors.torch import save_file

    from xception_cli.model.network import build_seeded_network

    path = shared / "random.safetensors"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            state = build_seeded_network(2, seed=1).state_dict()
            head = ("last_linear.weight", "last_linear.bias")
            save_file({name: t for name, t in state.items() if name not in head}, path)
    return path


@pytest.fixture(scope="session")
def probed_once(shared: Path, random_weights: Path) -> Path:
    """A folder with `photos` and `run`, which stopped at the linear probe; not to be changed."""
    return train_once(shared / "probed", {"unfreeze": "head"}, random_weights)


@pytest.fixture(scope="session")
def tuned_once(shared: Path, random_weights: Path) -> Path:
    """The same with two epochs of fine-tuning, which did not beat the probe."""
    return train_once(shared / "tuned", {}, random_weights)


@pytest.fixture
def probed(probed_once: Path, tmp_path: Path) -> RunDir:
    """A copy of `probed_once` for the test alone."""
    return copy_run(probed_once, tmp_path)


@pytest.fixture
def tuned(tuned_once: Path, tmp_path: Path) -> RunDir:
    """A copy of `tuned_once` for the test alone."""
    return copy_run(tuned_once, tmp_path)


@pytest.fixture
def judged_by_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare an export on 6 images instead of 68, four of which have 12 megapixels."""
    from xception_cli.onnx import run

    monkeypatch.setattr(run, "judge_images", partial(run.judge_images, least=6, large=0))
    monkeypatch.setattr(run, "LEAST", 6)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write a failure at once, if tests/gpu/run asks for it: its time may run out."""
    place = os.environ.get("XCEPTION_TEST_FAILURES")
    if place and report.failed:
        with Path(place).open("a") as file:
            file.write(f"{report.nodeid}\n{report.longreprtext}\n\n")


@pytest.fixture
def settings(photos: Path, random_weights: Path) -> dict[str, Any]:
    """Quick settings on images of the test's own."""
    return quick_settings(photos, random_weights)
