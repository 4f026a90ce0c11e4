"""Folders that tests create and inspect, also with the rights of an ordinary user."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from xception_cli.data.folder import DataFolder, read_folder
from xception_cli.data.trainable import check_trainable
from xception_cli.errors import DataError, UsageError


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that any user can access; pytest's own are closed to other users."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    try:
        yield path
    finally:
        path.chmod(0o777)
        for folder, names, _ in os.walk(path):  # top down: opened before it is entered
            for name in names:
                Path(folder, name).chmod(0o777)
        shutil.rmtree(path)


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Become a user with ordinary permissions; the saved user id allows the return."""
    if os.geteuid() != 0:
        yield
        return
    if not hasattr(os, "setresuid"):
        pytest.skip("root here cannot lay its rights down and take them up again")
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make(root: Path, *names: str) -> Path:
    """Create a tree; a name that ends with `/` is a folder. Files are not images."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def listing(folder: DataFolder) -> list[tuple[str, str, str | None]]:
    return [(image.path, folder.classes[image.label], image.split) for image in folder.images]


def two_classes(root: Path, *names: str) -> Path:
    return make(root, "cat/1.jpg", "dog/1.jpg", *names)


def refusal(root: Path, expected_classes: int | None = None) -> DataError | UsageError:
    with pytest.raises((DataError, UsageError)) as caught:
        check_trainable(read_folder(root), expected_classes)
    return caught.value


# --- the user's folder is not changed ------------------------------------------------------------


def snapshot(root: Path) -> list[tuple[str, int, int]]:
    paths = [root, *sorted(root.rglob("*"))]
    return [(str(p), p.stat().st_mtime_ns, p.stat().st_mode) for p in paths]
