"""Fixtures of the data check."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XCEPTION_CACHE", str(path))
    monkeypatch.setenv("XCEPTION_FEATURES_GB", "1")
    return path
