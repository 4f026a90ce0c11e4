"""Tests on a GPU: the same as on a CPU, and what only a GPU can get wrong.

On a machine without one they run on the CPU, as far as that is possible, so that the next change
that breaks them is noticed at once.
"""

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from images import COLOURS, SMALL, draw
from networks import lively_network
from runs import Crash, call, crash, outcome, quick_settings, train_run
from safetensors.torch import save_file

from xception_cli.data.dataset import ImageDataset, KeyedBatches
from xception_cli.data.inputs import ImageInputs, Inputs
from xception_cli.data.transforms import Preprocessing
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, load_model
from xception_cli.rundir import RunDir
from xception_cli.runtime import decide_runtime
from xception_cli.training import handlers

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REHEARSED = DEVICE == "cpu"

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
on_a_gpu_only = pytest.mark.skipif(REHEARSED, reason="there is no such thing on a CPU")

# Compared with a CPU, whose sums are in another order. TF32, which keeps 10 bits of each factor, is
# further off, and bf16 further still.
FP32_TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def lively_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose activations keep their scale from layer to layer; otherwise fp16 underflows."""
    state = lively_network().state_dict()
    path = tmp_path_factory.mktemp("weights") / "lively.safetensors"
    kept = {name: t for name, t in state.items() if not name.startswith("last_linear")}
    save_file({name: t.contiguous() for name, t in kept.items()}, path)
    return path


@pytest.fixture
def settings(photos: Path, lively_weights: Path) -> dict[str, Any]:
    """Settings of a short training of all layers on the GPU."""
    quick = quick_settings(photos, lively_weights)
    return quick | {"device": DEVICE, "unfreeze": "auto", "precision": "auto", "epochs": 3}


def rows(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def info(run: str) -> dict[str, Any]:
    return json.loads(Path(run, "run.json").read_text())


def pixels(count: int = 6, size: int = SMALL) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    return (255 * smooth).to(torch.uint8)


def bundle_on(device: str, precision: str) -> ModelBundle:
    runtime = decide_runtime(device=device, precision=precision)
    about = About(("a", "b", "c"), Preprocessing.for_size(SMALL))
    return ModelBundle(runtime.place(lively_network()), about, runtime)


# The same as on a CPU


def test_logits_of_a_gpu_are_those_of_a_cpu_in_float32_and_nearly_so_in_bf16():
    reference = bundle_on("cpu", "fp32").outputs(pixels())[0]
    spread = float(reference.std())
    found = bundle_on(DEVICE, "fp32").outputs(pixels())[0]
    assert float((found - reference).abs().max()) < FP32_TOLERANCE * spread
    rounded = bundle_on(DEVICE, "bf16").outputs(pixels())[0]
    error = float((rounded - reference).abs().max())
    assert FP32_TOLERANCE * spread < error < 0.2 * spread  # the control: bf16 does differ


@on_a_gpu_only
def test_float32_is_not_tf32():
    bundle = bundle_on(DEVICE, "fp32")
    exact = bundle.outputs(pixels())[0]
    torch.backends.cudnn.allow_tf32 = True
    try:
        rounded = bundle.outputs(pixels())[0]
    finally:
        torch.backends.cudnn.allow_tf32 = False
    assert float((rounded - exact).abs().max()) > FP32_TOLERANCE * float(exact.std())
    assert bundle.outputs(pixels())[0].equal(exact)


def test_gpu_is_another_name_for_cuda(settings):
    if REHEARSED:
        pytest.skip("there is none")
    assert decide_runtime(device="gpu").device.type == "cuda"
    train_run(settings | {"device": "gpu", "unfreeze": "head"})
    assert info("run")["device"] == "cuda"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_images_that_workers_decode_reach_the_gpu_unchanged_while_it_is_busy(photos):
    """The workers' memory is used again only after the GPU has copied it."""
    paths = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.jpg"))
    preprocessing = Preprocessing.for_size(SMALL)
    transform = preprocessing.training_transform(augment="light", flip=True)

    def epochs(device: str, workers: int) -> Iterator[list[Inputs]]:
        inputs = ImageInputs(
            ImageDataset(photos, paths, list(range(len(paths))), transform),
            KeyedBatches(len(paths), 2, shuffle=True),
            preprocessing=preprocessing,
            runtime=decide_runtime(device=device),
            workers=workers,
        )
        for inputs.batches.epoch in range(3):
            batches = []
            for batch in inputs:
                batches.append(batch)
                if device == "cuda":
                    torch.cuda._sleep(10_000_000)  # some milliseconds, before the next copy
            yield batches

    for found, wanted in zip(epochs(DEVICE, 2), epochs("cpu", 0), strict=True):
        for a, b in zip(found, wanted, strict=True):
            assert a.labels.tolist() == b.labels.tolist() == b.indices.tolist()
            assert torch.allclose(a.values.cpu()[: len(b.labels)], b.values, atol=1e-5)


# Training


def test_training_all_layers_is_the_default_and_learns_and_writes_the_usual_files(settings, photos):
    settings |= {"epochs": 6, "patience": 0} | ({"unfreeze": "all"} if REHEARSED else {})
    result = train_run(settings)
    assert result.run.is_finished
    assert 'unfreeze = "all"' in Path("run/config.toml").read_text()
    losses = [row["train_loss"] for row in rows("run")]
    assert losses[-1] < 0.8 * losses[0]
    left = {str(path.relative_to("run")) for path in Path("run").rglob("*") if path.is_file()}
    (state,) = Path("run/checkpoints").glob("*.pt")
    assert left == {
        *("config.toml", "run.json", "split.csv", "issues.csv", "metrics.jsonl", "train.log"),
        *("model.safetensors", "report.html", "MODEL_CARD.md", "result.json"),
        "candidates.safetensors",
        *(f"eval/val/{name}" for name in ("metrics.json", "per_class.csv", "confusion.csv")),
        *(f"eval/val/{name}" for name in ("predictions.csv", "coverage.csv")),
        *("eval/val/confusion.png", "eval/val/calibration.png"),
        *(f"checkpoints/{state.stem}.{suffix}" for suffix in ("pt", "json")),
    }


@pytest.mark.parametrize("unfreeze", ["head", "exit", "middle", "all"])
def test_each_part_is_trained_and_the_kept_model_gives_the_same_answers_on_a_cpu(
    settings, unfreeze
):
    train_run(settings | {"unfreeze": unfreeze, "precision": "fp32"})
    reference = load_model(Path("run/model.safetensors"), decide_runtime(device="cpu"))
    found = load_model(Path("run/model.safetensors"), decide_runtime(device=DEVICE))
    assert found.runtime.device.type == DEVICE
    a, b = reference.outputs(pixels())[0], found.outputs(pixels())[0]
    assert float((a - b).abs().max()) < 1e-3 * float(a.abs().max())


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_every_precision_trains(settings, precision):
    if REHEARSED and precision == "fp16":
        pytest.skip("CPUs do not train in fp16")
    # GradScaler searches for its scale in fp16: it skips the first few steps.
    train_run(settings | {"unfreeze": "all", "precision": precision, "epochs": 6, "patience": 0})
    assert info("run")["precision"] == precision
    losses = [row["train_loss"] for row in rows("run")]
    assert losses[-1] < losses[0]


def at_iteration(monkeypatch: pytest.MonkeyPatch, iteration: int, act: Callable[[], None]) -> None:
    reseed = handlers.attach_reseeding

    def patched(trainer: Engine, *args: Any) -> None:
        reseed(trainer, *args)
        trainer.add_event_handler(Events.ITERATION_STARTED(once=iteration), lambda _: act())

    monkeypatch.setattr(handlers, "attach_reseeding", patched)


@pytest.mark.parametrize("unfreeze", ["exit", "all"])
def test_deterministic_runs_are_byte_equal_even_if_interrupted_inside_an_epoch(
    settings, monkeypatch, unfreeze
):
    settings |= {"unfreeze": unfreeze, "deterministic": True, "save_every_minutes": 0.0}
    try:
        train_run(settings, "one")
        train_run(settings, "two")
        assert outcome("one") == outcome("two")
        with monkeypatch.context() as patch:
            at_iteration(patch, 5, crash)
            with pytest.raises(Crash):
                train_run(settings, "broken")
        train_run({}, "broken", resume=True)
        assert outcome("broken") == outcome("one")
        train_run(settings | {"seed": 1}, "other")
        assert outcome("other") != outcome("one")  # the control
    finally:
        torch.use_deterministic_algorithms(mode=False)


def test_a_run_of_a_gpu_is_resumed_on_a_cpu(settings, monkeypatch):
    settings |= {"unfreeze": "exit", "precision": "fp32", "save_every_minutes": 0.0}
    with monkeypatch.context() as patch:
        at_iteration(patch, 5, crash)
        with pytest.raises(Crash):
            train_run(settings)
    assert train_run({"device": "cpu"}, resume=True).run.is_finished


@on_a_gpu_only
def test_a_training_step_does_not_wait_for_the_gpu(settings, monkeypatch):
    """Between two checks of the loss nothing may read a result; torch raises if one does."""

    def watch(trainer: Engine) -> None:
        def between(engine: Engine, number: int) -> bool:  # not at an epoch's end, when it is read
            return number % 10 in range(2, 9) and number % (engine.state.epoch_length or 1) > 0

        trainer.add_event_handler(
            Events.ITERATION_STARTED(event_filter=between),
            lambda _: torch.cuda.set_sync_debug_mode("error"),
        )

    def unwatch(trainer: Engine) -> None:
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda _: torch.cuda.set_sync_debug_mode("default")
        )

    progress, reseed = handlers.attach_progress, handlers.attach_reseeding

    def first(trainer: Engine, *args: Any) -> None:
        watch(trainer)
        reseed(trainer, *args)

    def last(trainer: Engine, *args: Any, **more: Any) -> None:
        progress(trainer, *args, **more)
        unwatch(trainer)

    monkeypatch.setattr(handlers, "attach_reseeding", first)
    monkeypatch.setattr(handlers, "attach_progress", last)
    try:
        for unfreeze in ("all", "exit"):
            train_run(settings | {"unfreeze": unfreeze, "batch_size": 2, "epochs": 4}, unfreeze)
        handlers_of = handlers.attach_ema

        def reading(trainer: Engine, *args: Any) -> None:
            handlers_of(trainer, *args)
            trainer.add_event_handler(
                Events.ITERATION_COMPLETED, lambda engine: float(engine.state.output.loss)
            )

        monkeypatch.setattr(handlers, "attach_ema", reading)  # the control
        with pytest.raises(RuntimeError, match="synchroniz"):
            train_run(settings | {"unfreeze": "all", "batch_size": 2, "epochs": 4}, "reading")
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Time and memory


def test_a_budget_is_planned_with_the_speed_of_the_gpu(settings):
    for setting in ("epochs", "unfreeze", "views"):
        del settings[setting]
    train_run(settings | {"budget": "90s"})
    config = Path("run/config.toml").read_text()
    # On a CPU, so few images train the head alone.
    assert f'unfreeze = "{"head" if REHEARSED else "all"}"' in config
    assert "epochs = 12" in config


@on_a_gpu_only
def test_a_batch_that_does_not_fit_is_computed_in_two_pieces(settings, photos, capsys):
    for number, (name, colour) in enumerate(COLOURS.items()):
        for index in range(8, 40):
            draw(photos / name / f"{index}.jpg", colour, seed=100 * number + index)
    settings |= {"unfreeze": "all", "image_size": 299, "batch_size": 64, "epochs": 1}
    total = torch.cuda.mem_get_info()[1]
    train_run(settings, "whole")
    assert "accumulate = 1\n" in Path("whole/config.toml").read_text()
    peak = torch.cuda.max_memory_allocated()
    gc.collect()  # the engines of the first run are in reference cycles
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(0.75 * peak / total)
        train_run(settings, "pieces")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "accumulate = 2\n" in Path("pieces/config.toml").read_text()
    assert "in 2 pieces (--accumulate 2)" in capsys.readouterr().err
    assert abs(rows("whole")[0]["train_loss"] - rows("pieces")[0]["train_loss"]) < 0.05


# The commands


def test_a_model_trained_on_a_gpu_is_evaluated_used_exported_and_compared(settings, capsys):
    # Without the refit: after it, eval prints an earlier measurement.
    train_run(settings | {"precision": "fp32", "unfreeze": "exit", "refit": False})
    assert call("eval", "run", "--device", DEVICE, "--json") == 0
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    assert call("eval", "run", "--device", "cpu", "--json") == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == accuracy
    assert call("predict", "photos/red/0.jpg", "--run", "run", "--device", DEVICE, "--json") == 0
    assert json.loads(capsys.readouterr().out)["error"] is None
    assert call("export", "run", "--output", "run.onnx") == 0  # after comparison with PyTorch
    assert Path("run.onnx").stat().st_size > 80e6


def test_torchrun_with_one_process_trains_like_a_plain_run(settings):
    """Over NCCL on a GPU: the loss, gradients and metrics use it."""
    settings |= {"precision": "fp32", "unfreeze": "all", "dropout": 0.0}
    train_run(settings, "plain")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    line += ["-m", "xception_cli", "train", *flags, "--output=joined"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    for plain, joined in zip(rows("plain"), rows("joined"), strict=True):
        assert abs(plain["train_loss"] - joined["train_loss"]) < 1e-2
    assert RunDir(Path("joined")).is_finished
