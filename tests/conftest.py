"""Fixtures: drawn images, a small trained run, and the ImageNet weights."""

import os
from pathlib import Path
from typing import Any

from images import draw_photos
from runs import quick_settings

# Before numpy and torch are loaded, for this process and its children: at 71 px a second thread
# gains nothing, and threads of two processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Each test computes its own features, and leaves none in the user's cache; cache tests enable it.
os.environ["XCEPTION_FEATURES_GB"] = "0"

import pytest


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
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a randomly initialised backbone, on which training is quick."""
    from safetensors.torch import save_file

    from xception_cli.model.network import build_seeded_network

    state = build_seeded_network(2, seed=1).state_dict()
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file({name: t for name, t in state.items() if not name.startswith("last_linear")}, path)
    return path


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
