"""Fixtures: drawn pictures, a small trained run, and the ImageNet weights."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before numpy and torch are loaded, for this process and those it starts: at 71 px a second thread
# gains nothing, and threads of two processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image

SMALL = 71  # the smallest image_size: real Xception, a tenth of a second per batch


def draw(path: Path, colour: tuple[int, int, int], seed: int, size: int = 96) -> None:
    """Draw a noisy patch of one colour."""
    noise = np.random.default_rng(seed).normal(0, 30, (size, size, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let no file grow over `size` bytes, as on a full disk.

    The limit is the whole process's: pytest's own report, where it goes to a file, breaks on it
    unless it is lifted within the test.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Clock:
    """A clock that stands still until it is told to move; called, it says the time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}


def draw_photos(root: Path) -> Path:
    """Draw three classes of eight pictures each, easy to tell by colour."""
    for c, (name, colour) in enumerate(COLOURS.items()):
        for i in range(8):
            draw(root / name / f"{i}.jpg", colour, seed=100 * c + i)
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of eight pictures each, easy to tell by colour."""
    return draw_photos(tmp_path / "photos")


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
    """Keep what is known of drawn folders out of the user's cache; the weights stay in it."""
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
        # .ci/run sets this: there, weights that cannot be had are a failure
        if os.environ.get("XCEPTION_REQUIRE_WEIGHTS"):
            raise
        pytest.skip(f"the ImageNet weights cannot be obtained: {error}")


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a randomly drawn backbone: what is trained on it is soon trained."""
    from safetensors.torch import save_file

    from xception_cli.model.network import build_seeded_network

    state = build_seeded_network(2, seed=1).state_dict()
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_file({name: t for name, t in state.items() if not name.startswith("last_linear")}, path)
    return path


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write a failure down at once, where tests/gpu/run asks for it: its time may be up soon."""
    place = os.environ.get("XCEPTION_TEST_FAILURES")
    if place and report.failed:
        with Path(place).open("a") as file:
            file.write(f"{report.nodeid}\n{report.longreprtext}\n\n")


def quick_settings(photos: Path, weights: Path) -> dict[str, Any]:
    """Return settings of a training that takes seconds: 2 epochs of 3 iterations at 71 px."""
    return {
        "data": str(photos),
        "weights": str(weights),
        "unfreeze": "exit",
        "image_size": SMALL,
        "val_fraction": 0.3,
        "epochs": 2,
        "batch_size": 5,
        "views": 2,
        "workers": 0,
        "device": "cpu",
        "precision": "fp32",
    }


@pytest.fixture
def settings(photos: Path, random_weights: Path) -> dict[str, Any]:
    """Quick settings on pictures of the test's own."""
    return quick_settings(photos, random_weights)


def call(*arguments: str) -> int:
    """Run the command line in this process and return its exit code."""
    from xception_cli.cli import main

    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def train_run(settings: dict[str, Any], run: str = "run", resume: bool = False) -> Any:
    """Run `run_training` on settings, in the folder `run`."""
    from xception_cli.rundir import RunDir
    from xception_cli.settings import resolve
    from xception_cli.training.run import run_training

    resolved = resolve(settings, None)
    if resume:
        return run_training(resolved, resume=RunDir(Path(run)), flags=settings)
    return run_training(resolved, output=Path(run))
