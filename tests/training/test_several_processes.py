"""Several processes, as started by torchrun: they train and stop like a single one."""

import csv
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from images import draw_photos
from networks import CPU
from runs import call, outcome, quick_settings, train_run

from xception_cli.config import TrainConfig
from xception_cli.data.dataset import KeyedBatches
from xception_cli.data.photo import Photo
from xception_cli.data.split import Split
from xception_cli.errors import MachineError, UsageError
from xception_cli.model.bundle import load_model
from xception_cli.processes import ALONE, Processes
from xception_cli.runtime import Runtime, decide_runtime
from xception_cli.training.distributed import check_processes
from xception_cli.training.judge import _turn

# Dropout is random in each process.
CHANGES = {"dropout": 0.0, "batch_size": 6, "balance": "loss", "views": 1}

_DRIVER = """
import os, sys
from ignite.engine import Events
from xception_cli.cli import main
from xception_cli.training import checkpoint, handlers

rank, iteration, number = map(int, sys.argv[1:4])
reseed = handlers.attach_reseeding
def reseed_and_signal(trainer, *args):
    reseed(trainer, *args)
    if os.environ["RANK"] == str(rank):
        trainer.add_event_handler(
            Events.ITERATION_STARTED(once=iteration), lambda _: os.kill(os.getpid(), number)
        )
handlers.attach_reseeding = reseed_and_signal
main(sys.argv[4:])
"""


def torchrun(count: int, *program: object) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    line += [f"--nproc-per-node={count}", *map(str, program)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)


def train_together(
    count: int, settings: dict[str, Any], run: str, *program: object
) -> "subprocess.CompletedProcess[str]":
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    program = program or ("-m", "xception_cli")
    return torchrun(count, *program, "train", *flags, f"--output={run}")


def rows(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def difference(run: str, other: str) -> float:
    """Return the largest difference of the losses of two runs."""
    pairs = zip(rows(run), rows(other), strict=True)
    return max(abs(a[name] - b[name]) for a, b in pairs for name in ("train_loss", "val_loss"))


def files(run: str) -> set[str]:
    return {str(p.relative_to(run)) for p in Path(run).rglob("*") if p.is_file()}


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | CHANGES


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, random_weights: Path) -> Path:
    """A run of one process, whose settings and photos the others share."""
    folder = tmp_path_factory.mktemp("alone")
    photos = draw_photos(folder / "photos")
    for number in range(4):  # so that the classes have different weights
        (photos / "red" / f"{number}.jpg").unlink()
    settings = quick_settings(photos, random_weights) | CHANGES
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_run(settings)
    return folder / "run"


@pytest.fixture(scope="module")
def together(alone: Path, random_weights: Path) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """The same with two processes, and their output."""
    settings = quick_settings(alone.parent / "photos", random_weights) | CHANGES
    run = alone.parent / "together"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(alone.parent)
        return run, train_together(2, settings, str(run))


@pytest.mark.slow
def test_two_processes_train_like_one(
    alone: Path, together: tuple[Path, "subprocess.CompletedProcess[str]"]
) -> None:
    run, done = together
    assert done.returncode == 0, done.stderr
    assert difference(str(alone), str(run)) < 2e-3
    assert [r["recall"] for r in rows(str(run))] == [r["recall"] for r in rows(str(alone))]
    one, two = (load_model(path / "model.safetensors", CPU) for path in (alone, run))
    values = torch.rand((3, 3, 71, 71), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(two.network(values), one.network(values), atol=5e-3, rtol=0)


@pytest.mark.slow
def test_the_comparison_detects_another_batch_size(settings: dict[str, Any], alone: Path) -> None:
    train_run(settings | {"data": str(alone.parent / "photos"), "batch_size": 5})
    assert difference("run", str(alone)) > 2e-3


def test_only_one_process_prints_and_writes(
    alone: Path, together: tuple[Path, "subprocess.CompletedProcess[str]"]
) -> None:
    run, done = together
    assert done.stdout.count(str(run)) == 1
    before, after = done.stdout.split(str(run))
    assert after == "\n"
    assert not before or "[Gloo]" in before  # which prints to stdout in torch 2.10
    said = [line for line in done.stderr.splitlines() if line.startswith("probe     val")]
    assert len(said) == 1
    assert re.search(r"device    CPU, \d+ threads?, fp32, 2 processes", done.stderr)
    assert files(str(run)) == files(str(alone))
    assert json.loads((run / "run.json").read_text())["processes"] == 2


def test_processes_share_the_final_evaluation_and_each_image_keeps_its_outcome(
    alone: Path, together: tuple[Path, "subprocess.CompletedProcess[str]"]
) -> None:
    files = [run / "eval" / "val" / "predictions.csv" for run in (alone, together[0])]
    one, two = (list(csv.DictReader(file.read_text().splitlines())) for file in files)
    assert len(one) == len(two) > 5
    assert [row["path"] for row in two] == [row["path"] for row in one]
    assert [row["true"] for row in two] == [row["true"] for row in one]
    names = [name for name in one[0] if name.startswith("p:")]
    assert names
    for a, b in zip(one, two, strict=True):
        assert all(abs(float(a[name]) - float(b[name])) < 0.02 for name in names)
    spread = [float(row[names[0]]) for row in one]
    assert max(spread) - min(spread) > 0.05  # the control: another order of images would differ


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("images", [0, 1, 2, 7])
def test_results_of_several_processes_are_merged_in_the_order_of_the_images(count, images):
    every = [f"outcome {number}" for number in range(images)]
    parts = [every[rank::count] for rank in range(count)]
    assert [_turn(parts, number) for number in range(images)] == every


@pytest.mark.slow
@pytest.mark.parametrize("unfreeze", ["all", "head"])
def test_three_processes_train_like_one(settings: dict[str, Any], unfreeze: str) -> None:
    settings |= {"unfreeze": unfreeze, "accumulate": 2}
    train_run(settings, "one")
    done = train_together(3, settings, "three")
    assert done.returncode == 0, done.stderr
    if unfreeze == "all":
        assert difference("one", "three") < 5e-3
    one, three = (load_model(Path(run, "model.safetensors"), CPU) for run in ("one", "three"))
    values = torch.rand((3, 3, 71, 71), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(three.network(values), one.network(values), atol=2e-2, rtol=0)


@pytest.mark.slow
def test_a_signal_to_any_process_stops_all_and_the_run_resumes_to_the_same_bytes(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings |= {"dropout": 0.3}
    whole = train_together(2, settings, "whole")
    assert whole.returncode == 0, whole.stderr
    driver = tmp_path / "driver.py"
    driver.write_text(_DRIVER)
    stopped = train_together(2, settings, "run", driver, 1, 2, int(signal.SIGTERM))
    assert stopped.returncode != 0
    assert stopped.stderr.count("stopped by SIGTERM; the state is saved at iteration 2 ") == 1
    alone = call("train", "--resume=run")
    assert alone == 2  # it was started with 2 processes
    resumed = torchrun(2, "-m", "xception_cli", "train", "--resume=run")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming  after iteration 2 of" in resumed.stderr
    assert outcome("run") == outcome("whole")


@pytest.mark.slow
def test_when_one_process_is_killed_the_others_end_and_the_run_can_be_resumed(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings |= {"save_every_minutes": 0.0}
    driver = tmp_path / "driver.py"
    driver.write_text(_DRIVER)
    killed = train_together(2, settings, "run", driver, 1, 3, int(signal.SIGKILL))
    assert killed.returncode != 0
    assert "error: another process of this training has ended or hangs: " in killed.stderr
    resumed = torchrun(2, "-m", "xception_cli", "train", "--resume=run")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming  after iteration 2 of" in resumed.stderr


_LOST = """
import os, signal, sys
from contextlib import ExitStack
from xception_cli.cli import _signals_raised
from xception_cli.processes import joined_processes
from xception_cli.training.stopping import StopSignals

number, when = int(sys.argv[1]), sys.argv[2]
with _signals_raised():
    try:
        with joined_processes(), ExitStack() as later, StopSignals("again"), ExitStack() as soon:
            (soon if when == "soon" else later).callback(os.kill, os.getpid(), number)
            raise RuntimeError("Connection closed by peer [127.0.0.1]")
    except BaseException as error:
        os.kill(os.getpid(), signal.SIGTERM if number == signal.SIGTERM else 0)
        print(type(error).__name__, error, flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["soon", "later"])
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (
            signal.SIGTERM,
            "MachineError another process of this training has ended or hangs: Connection closed",
        ),
        (signal.SIGINT, {"soon": "StoppedError stopped by SIGINT", "later": "_Signalled 2"}),
    ],
)
def test_the_reason_why_torchrun_ends_a_process_is_reported_unless_the_user_ended_it(
    number: int, said: str | dict[str, str], when: str, tmp_path: Path
) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(_LOST)
    expected = said if isinstance(said, str) else said[when]
    assert torchrun(1, driver, int(number), when).stdout.startswith(expected)


def batches(processes: Processes, size: int, *, shuffle: bool) -> list[list[int]]:
    made = KeyedBatches(29, size, seed=3, shuffle=shuffle, processes=processes)
    assert len(list(made)) == len(made)
    return [[index for _, index in keys] for keys in made]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("size", range(4, 30))
@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_process_gets_its_share_of_every_batch(count: int, size: int, shuffle: bool) -> None:
    parts = [batches(Processes(rank, count), size, shuffle=shuffle) for rank in range(count)]
    assert sorted(i for part in parts for batch in part for i in batch) == list(range(29))
    for together in zip(*parts, strict=True):
        sizes = [len(batch) for batch in together]
        assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1


@pytest.mark.parametrize("size", range(2, 30))
def test_two_processes_train_on_the_batches_of_one(size: int) -> None:
    parts = [batches(Processes(rank, 2), size, shuffle=True) for rank in range(2)]
    together = [sorted(a + b) for a, b in zip(*parts, strict=True)]
    assert together == [sorted(batch) for batch in batches(ALONE, size, shuffle=True)]


def test_other_commands_do_not_run_several_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    assert call("eval") == 2
    assert capsys.readouterr().err == (
        "error: torchrun is for training; it cannot start eval\n"
        "hint: xception eval, without torchrun\n"
    )


SPLIT = Split(
    ("a", "b"),
    tuple(Photo(f"{n}", n % 2, "val" if n < 3 else "train") for n in range(12)),
)


@pytest.mark.parametrize(
    ("settings", "processes", "message"),
    [
        ({"unfreeze": "exit", "budget": "10m"}, Processes(0, 2, 0, 2), "--budget needs one proc"),
        ({"unfreeze": "all", "weights": "none"}, Processes(0, 2, 0, 2), "--weights none trains"),
        ({"unfreeze": "middle"}, Processes(0, 4, 0, 2), "several machines cannot share"),
        ({"unfreeze": "exit"}, Processes(0, 4, 0, 4), "val has 3 images, too few for 4"),
        ({"unfreeze": "all", "batch_size": 2}, Processes(0, 3, 0, 3), "--batch-size has 2"),
    ],
)
def test_settings_that_several_processes_do_not_support_are_refused(
    settings: dict[str, Any], processes: Processes, message: str
) -> None:
    config = TrainConfig(data="x", **settings)
    check_processes(config, CPU, SPLIT)
    with pytest.raises(UsageError, match=message):
        check_processes(config, Runtime(CPU.device, "fp32", processes=processes), SPLIT)


def test_batch_norm_of_a_batch_in_pieces_is_refused_on_gpus_too() -> None:
    two = Runtime(torch.device("cuda"), "bf16", processes=Processes(0, 2, 0, 2))
    config = TrainConfig(data="x", weights="none", unfreeze="all")
    check_processes(config, two, SPLIT)
    with pytest.raises(UsageError, match="processes with --accumulate 2"):
        check_processes(config.replace(accumulate=2), two, SPLIT)


def test_every_process_needs_its_own_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(MachineError, match="4 processes on this machine, which has 2 CUDA devices"):
        decide_runtime(device="cuda", processes=Processes(0, 4, 0, 4))
