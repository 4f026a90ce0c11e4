"""The matrix of kills: after any number of SIGKILLs anywhere, resuming gives the same bytes.

`XCEPTION_KILLS=100` kills more often, in all ways to train; docs/faults.md has the results.
"""

import os
import random
import shutil
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from images import draw_photos
from kills import (
    Ended,
    content,
    fill_the_disk_at,
    kill_and_resume,
    run_command,
    skip_a_batch,
)
from runs import quick_settings

from xception_cli.training.checkpoint import StateStore

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("XCEPTION_KILLS", "4"))
SEED = int(os.environ.get("XCEPTION_SEED", "0"))
WAYS = [
    {"unfreeze": "exit", "workers": 2},
    {"unfreeze": "all", "workers": 2},
    {"unfreeze": "exit", "workers": 0},
    {"unfreeze": "head", "workers": 0},
    {"unfreeze": "exit", "workers": 0, "budget": "1h"},
    {"unfreeze": "head", "workers": 2},
    {"unfreeze": "all", "workers": 0},
]
FEW = 4
AT_ONCE = 2 if KILLS <= FEW else 6  # kills of one run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kills")
    draw_photos(place / "photos")
    return place


@pytest.fixture(scope="module")
def unbroken(place: Path, random_weights: Path) -> tuple[Ended, dict[str, str]]:
    """The first way to train, without interruption."""
    return _undisturbed(place, random_weights, "unbroken", **WAYS[0])


def _command(place: Path, weights: Path, **changes: object) -> list[str]:
    settings = quick_settings(place / "photos", weights)
    settings |= {"ema": 0.9, "dropout": 0.3, "test_fraction": 0.15, "batch_size": 4}
    # A state of all layers is written a few times, one of the exit flow after each batch.
    settings |= {"save_every_minutes": 0.01 if changes.get("unfreeze") == "all" else 0.0, **changes}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    return ["train", *flags, "--output=run"]


def _undisturbed(
    place: Path, weights: Path, name: str, **changes: object
) -> tuple[Ended, dict[str, str]]:
    folder = place / name
    folder.mkdir()
    ended = run_command(folder, _command(place, weights, **changes))
    assert ended.code == 0, (folder / "said").read_text()
    found = content(folder / "run")
    shutil.rmtree(folder)
    return ended, found


def test_a_run_that_is_killed_anywhere_and_repeatedly_ends_with_the_same_bytes(
    place: Path, random_weights: Path, unbroken: tuple[Ended, dict[str, str]]
) -> None:
    draw, killed, wrong = random.Random(SEED), Counter[str](), []
    records = {0: unbroken}
    runs = 0
    while killed.total() < KILLS:
        number = 0 if KILLS <= FEW else runs % len(WAYS)
        way = WAYS[number]
        if number not in records:
            records[number] = _undisturbed(place, random_weights, f"way-{number}", **way)
        record, expected = records[number]
        folder = place / f"run-{runs}"
        folder.mkdir()
        command = _command(place, random_weights, **way)
        ended = kill_and_resume(folder, command, record, draw, AT_ONCE)
        found = content(folder / "run") if ended.code == 0 else {}
        differ = sorted(n for n in found.keys() | expected if found.get(n) != expected.get(n))
        print(runs, way, ended.places, ended.code, differ or "equal", flush=True)
        if ended.code or differ or "Traceback" in ended.said:
            wrong.append((way, ended.places, ended.code, differ, ended.said[-2000:]))
        else:
            shutil.rmtree(folder)
        killed.update(ended.places)
        runs += 1
    print(f"{killed.total()} kills of {runs} runs, {runs - len(wrong)} equal:", dict(killed))
    assert not wrong


# The files of a run in the order of writing; only the last ones by default.
WRITTEN = [
    "split.csv", "issues.csv", "config.toml", "run.json", "val.json", "train.json",
    "candidates.safetensors", "model.safetensors", "state-", "metrics.json", "per_class.csv",
    "predictions.csv", "confusion.png", "report.html", "MODEL_CARD.md",
    "result.json",
]  # fmt: skip


def test_a_full_disk_loses_nothing_and_the_resumed_run_ends_with_the_same_bytes(
    place: Path, random_weights: Path, unbroken: tuple[Ended, dict[str, str]]
) -> None:
    folder = place / "full"
    folder.mkdir()
    start = _command(place, random_weights, **WAYS[0])
    names = WRITTEN if KILLS > FEW else ["state-", "result.json"]
    for name in names:
        has_begun = (folder / "run" / "run.json").exists()
        command = ["train", "--resume", "run"] if has_begun else start
        ended = run_command(folder, command, prepare=partial(fill_the_disk_at, name))
        said = (folder / "said").read_text()
        print(name, ended.code, said.splitlines()[-2:], flush=True)
        assert ended.code == 5
        assert "No space left on device" in said
        assert "hint: " in said.splitlines()[-1]
        assert "Traceback" not in said
        assert not list(folder.rglob(f"{name}*.partial"))
    assert run_command(folder, ["train", "--resume", "run"]).code == 0
    assert content(folder / "run") == unbroken[1]


def test_the_comparison_detects_another_seed(
    place: Path, random_weights: Path, unbroken: tuple[Ended, dict[str, str]]
) -> None:
    _, other = _undisturbed(place, random_weights, "seed", **WAYS[0], seed=1)
    for name in ("model.safetensors", "metrics.jsonl", "eval/val/predictions.csv", "split.csv"):
        assert other[name] != unbroken[1][name]


def test_the_comparison_detects_a_wrong_resume(
    place: Path, random_weights: Path, unbroken: tuple[Ended, dict[str, str]]
) -> None:
    folder, changed = place / "skipped", place / "changed"
    folder.mkdir()
    command = _command(place, random_weights, **WAYS[0])
    killed = run_command(folder, command, place="validation", delay=0.0)
    assert (killed.code, killed.place) == (-signal.SIGKILL, "validation")
    shutil.copytree(folder, changed)
    _change_the_state(StateStore(changed / "run" / "checkpoints"))
    for where, prepare in ((folder, skip_a_batch), (changed, None)):
        assert run_command(where, ["train", "--resume", "run"], prepare=prepare).code == 0
        found = content(where / "run")
        assert found["metrics.jsonl"] != unbroken[1]["metrics.jsonl"]
        assert found["split.csv"] == unbroken[1]["split.csv"]


def _change_the_state(states: StateStore) -> None:
    """Change one weight, and sign the state again."""
    state = states.load()
    assert state is not None
    notes = {name: state.pop(name) for name in ("phase", "history", "max_epochs")}
    iteration = state.pop("iteration")
    state.pop("schema")
    weight = next(t for t in state["trained"].values() if isinstance(t, torch.Tensor) and t.dim())
    weight.view(-1)[0] += 0.01
    states.save(state, iteration=iteration, notes=notes)
