"""train --tensorboard: the figures of metrics.jsonl, and no other change."""

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Engine
from runs import call, files_no_larger_than, quick_settings
from tensorboardX.proto.event_pb2 import Event

from xception_cli.errors import MachineError
from xception_cli.rundir import RunDir
from xception_cli.settings import resolve
from xception_cli.training.run import run_training
from xception_cli.training.tensorboard import attach_tensorboard


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, random_weights: Path) -> dict[str, Any]:
    from images import draw_photos

    photos = draw_photos(tmp_path_factory.mktemp("data") / "photos")
    return quick_settings(photos, random_weights) | {"views": 1, "patience": 0}


def logged(folder: Path) -> list[tuple[str, int, float]]:
    """Read all event files: each record is its length, a checksum, an event, a checksum."""
    found = []
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            at += 12 + length + 4
    return sorted(found)


def expected(run: RunDir) -> list[tuple[str, int, Any]]:
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return sorted(
        (name, row["epoch"], pytest.approx(row[name], rel=1e-6))
        for row in rows
        for name in ("lr", "train_loss", "val_loss", "accuracy", "macro_recall")
    )


@pytest.mark.slow
def test_the_log_has_the_figures_of_each_epoch_and_changes_no_other_file(given: dict[str, Any]):
    plain = run_training(resolve(given, None), output=Path("plain")).run
    run = run_training(resolve(given, None), output=Path("logged"), tensorboard=True).run
    assert len(logged(run.tensorboard)) == 10
    assert logged(run.tensorboard) == expected(run)
    assert {path.name for path in run.path.iterdir()} == {
        *(path.name for path in plain.path.iterdir()), "tensorboard",
    }  # fmt: skip
    for one, other in ((run.metrics, plain.metrics), (run.model, plain.model)):
        assert one.read_bytes() == other.read_bytes()
    run_training(
        resolve({}, None), resume=run, flags={"epochs": 3}
    )  # a run that is logged stays so
    assert len(logged(run.tensorboard)) == 15
    assert logged(run.tensorboard) == expected(run)


@pytest.mark.parametrize("is_full", [False, True])
def test_a_full_disk_ends_the_log_and_not_the_training(tmp_path, capsys, is_full):
    """The writer's thread has a queue of ten: if an error ended it, the twelfth would wait."""
    logger = attach_tensorboard(Engine(lambda *_: None), tmp_path, lambda: 0.1)
    with files_no_larger_than(200 if is_full else 100_000):
        for epoch in range(30):
            logger.writer.add_scalar("accuracy", 0.5, epoch)
        logger.close()
    shown = capsys.readouterr().err
    if is_full:
        (path,) = tmp_path.iterdir()
        reason = f"cannot write {path}: File too large"
        assert shown == f"warning   TensorBoard shows no further epochs: {reason}\n"
    else:
        assert (len(logged(tmp_path)), shown) == (30, "")


def test_a_missing_package_is_reported_before_the_photos_are_scanned(
    given: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    from xception_cli.training import tensorboard

    def find_spec(name: str) -> Any:
        return None if name.startswith("tensorboard") else importlib.util.find_spec(name)

    monkeypatch.setattr(tensorboard, "find_spec", find_spec)
    assert call("train", "--data", given["data"], "--output", "run", "--tensorboard") == 5
    error = capsys.readouterr().err
    assert error.splitlines() == [
        "error: --tensorboard needs a package that is not installed: tensorboardX",
        "hint: pip install 'xception-cli[tensorboard]'",
    ]
    with pytest.raises(MachineError, match="tensorboardX"):
        run_training(resolve(given, None), output=Path("run"), tensorboard=True)
    assert not Path("run").exists()
