"""run_training as a whole: its files, its reproducibility, that it learns, and its failures."""

import dataclasses
import json
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pretrainedmodels
import pytest
import torch
from images import draw, draw_photos
from runs import Crash, call, crash, quick_settings, train_run
from safetensors.torch import load_file

from xception_cli.config import TrainConfig
from xception_cli.errors import ArtifactError, DataError, DivergedError, UsageError
from xception_cli.evaluation.evaluate import run_evaluation
from xception_cli.model.bundle import load_model
from xception_cli.model.network import FIRST_TRAINED, STEPS, Segment
from xception_cli.rundir import RunDir, read_json
from xception_cli.runtime import decide_runtime
from xception_cli.settings import resolve
from xception_cli.toml_files import read_toml
from xception_cli.training import baseline
from xception_cli.training.run import run_training


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def contents(run: RunDir) -> dict[str, bytes]:
    return {name: (run.path / name).read_bytes() for name in files_below(run.path)}


EVALUATION = {
    "metrics.json", "per_class.csv", "confusion.csv", "predictions.csv", "coverage.csv",
    "confusion.png", "calibration.png",
}  # fmt: skip


def test_a_run_writes_exactly_these_files(tuned: RunDir) -> None:
    state = sorted(path.name for path in tuned.checkpoints.iterdir())
    iterations = 2 * -(-read_json(tuned.info)["images"]["train"] // 5)
    assert state == [f"state-{iterations:08d}.json", f"state-{iterations:08d}.pt"]
    assert files_below(tuned.path) == {
        "candidates.safetensors",
        "config.toml",
        "run.json",
        "split.csv",
        "issues.csv",
        "metrics.jsonl",
        "train.log",
        "model.safetensors",
        "report.html",
        "MODEL_CARD.md",
        "result.json",
        *(f"checkpoints/{name}" for name in state),
        *(f"eval/val/{name}" for name in EVALUATION),
    }
    assert files_below(Path("photos")) == files_below(draw_photos(Path("drawn")))
    rows = [json.loads(line) for line in tuned.metrics.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[0].keys() == {
        "epoch", "lr", "train_loss", "val_loss", "accuracy", "macro_recall", "recall",

    }  # fmt: skip


@pytest.mark.slow
def test_the_papers_optimizer_and_step_schedule_train_too(settings: dict[str, Any]) -> None:
    paper = {"optimizer": "sgd", "schedule": "step", "epochs": 3, "warmup": 0.0, "lr": 1e-3}
    run = train_run(settings | paper).run
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [row["lr"] for row in rows] == pytest.approx([1e-3, 1e-3, 0.94e-3])
    state = torch.load(next(run.checkpoints.glob("*.pt")), weights_only=True)
    slots = {name for of in state["optimizer"]["state"].values() for name in of}
    assert slots == {"momentum_buffer"}  # AdamW would have two averages


def test_a_run_that_stops_at_the_probe_has_no_training_state(probed: RunDir) -> None:
    assert files_below(probed.path) == {
        "candidates.safetensors",
        "config.toml",
        "run.json",
        "split.csv",
        "issues.csv",
        "train.log",
        "model.safetensors",
        "report.html",
        "MODEL_CARD.md",
        "result.json",
        *(f"eval/val/{name}" for name in EVALUATION),
    }
    assert read_json(probed.result)["kept"] == "the linear probe"


@pytest.mark.parametrize("unfreeze", ["head", "exit", pytest.param("all", marks=pytest.mark.slow)])
def test_the_kept_model_is_calibrated_and_its_file_evaluates_to_the_same_bytes(
    request: pytest.FixtureRequest, unfreeze: str
) -> None:
    if unfreeze == "all":
        changes = {"unfreeze": "all", "epochs": 1}
        run = train_run(request.getfixturevalue("settings") | changes).run
    else:
        run = request.getfixturevalue({"head": "probed", "exit": "tuned"}[unfreeze])
    calibration = read_json(run.result)["calibration"]
    bundle = load_model(run.model, decide_runtime(device="cpu", precision="fp32"))
    assert bundle.about.temperature == calibration["temperature"] != 1.0
    rule = bundle.about.unknown
    assert rule is not None
    assert rule.thresholds.distance == calibration["distance"]
    assert len(rule.reference.levels) == read_json(run.info)["images"]["train"]
    report = read_json(run.evaluation("val") / "metrics.json")
    assert report["answered"] == round(calibration["coverage"] * report["images"])
    before = {path: path.read_bytes() for path in run.evaluation("val").iterdir()}
    run_evaluation(run, bundle, data=None, split="val", ignore_extra_classes=False, workers=0)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_the_config_of_a_run_repeats_it_byte_for_byte_with_any_workers(
    settings: dict[str, Any], tuned_once: Path
) -> None:
    first = RunDir(tuned_once / "run")
    again = resolve({"workers": 2}, first.config)
    second = run_training(again, output=Path("second")).run
    assert second.metrics.read_bytes() == first.metrics.read_bytes()
    assert second.model.read_bytes() == first.model.read_bytes()
    other = train_run(settings | {"seed": 1}, "other").run
    assert other.metrics.read_bytes() != first.metrics.read_bytes()


@pytest.fixture
def norms(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.nn.Module]]:
    """The batch norms of each network that has computed features in a training."""
    found: list[list[torch.nn.Module]] = []

    def watched(compute: Any) -> Any:
        def look(*given: Any, **named: Any) -> Any:
            for part in given:
                if isinstance(part, Segment):
                    found.append([m for m in part.modules() if isinstance(m, torch.nn.BatchNorm2d)])
            return compute(*given, **named)

        return look

    for name in ("compute_store", "compute_pooled"):
        monkeypatch.setattr(baseline, name, watched(getattr(baseline, name)))
    return found


@pytest.mark.parametrize(
    "unfreeze", ["exit", pytest.param("middle", marks=pytest.mark.slow), "all"]
)
def test_fine_tuning_changes_only_the_trained_part_and_what_is_frozen_is_computed_folded(
    settings: dict[str, Any], random_weights: Path, norms: list[Any], unfreeze: str
) -> None:
    # Without a moving average, so that one epoch changes every layer.
    settings |= {"unfreeze": unfreeze, "epochs": 1, "monitor": "accuracy", "ema": 0.0, "views": 1}
    run = train_run(settings).run
    assert norms == [[]] * 4  # train and val, before fine-tuning and after it
    assert_not_folded(run)
    before = load_file(random_weights)
    state = torch.load(next(run.checkpoints.glob("*.pt")), weights_only=True)["trained"]
    modules = [
        name
        for step in STEPS[STEPS.index(FIRST_TRAINED[unfreeze]) : -1]
        for name in (step, step.replace("conv", "bn"))
    ]
    assert {name.split(".")[0] for name in state} == {*modules, "last_linear"}
    for name, tensor in state.items():
        if name.startswith("last_linear") or name.endswith("num_batches_tracked"):
            continue
        statistics = name.endswith(("running_mean", "running_var"))
        assert torch.equal(tensor, before[name]) == statistics, name
    model = load_file(run.model)
    trained = {*modules, "last_linear", "layers_head"}
    frozen = [name for name in model if name.split(".")[0] not in trained]
    assert all(torch.equal(model[name], before[name]) for name in frozen)


def assert_not_folded(run: RunDir) -> None:
    plain = pretrainedmodels.xception(pretrained=None).state_dict()
    names = {name for name in plain if not name.endswith("num_batches_tracked")}
    head = {"layers_head.weight", "layers_head.bias"}
    assert set(load_file(run.model)) - set(plain) == head
    assert names <= set(load_file(run.model))


def test_the_probe_is_fitted_to_features_of_a_folded_network_but_the_model_is_not_folded(
    settings: dict[str, Any], norms: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xception_cli.training.run.settle", lambda *_: crash())  # all is computed
    with pytest.raises(Crash):
        train_run(settings | {"unfreeze": "head", "views": 1})
    assert norms == [[]] * 2
    assert_not_folded(RunDir(Path("run")))


def test_the_expected_space_is_that_of_temporary_files_and_left_out_without_any(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xception_cli.training.run.compute_baseline", lambda *_: crash())
    said = {}
    for unfreeze in ("head", "exit"):
        with pytest.raises(Crash):
            train_run(settings | {"unfreeze": unfreeze}, unfreeze)
        log = RunDir(Path(unfreeze)).log.read_text(encoding="utf-8")
        (said[unfreeze],) = re.findall(r" {11}(memory .*)", log)
    assert re.fullmatch(r"memory [\d.]+ GB", said["head"])
    assert re.fullmatch(r"memory [\d.]+ GB, temporary files \d+ MB", said["exit"])


@pytest.mark.slow
def test_training_from_random_weights_trains_batch_norm_and_learns(
    settings: dict[str, Any],
) -> None:
    result = train_run(
        settings
        | {"weights": "none", "unfreeze": "auto", "epochs": 6, "lr": 1e-3, "augment": "none"}
    )
    rows = [json.loads(line) for line in result.run.metrics.read_text().splitlines()]
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert result.probe is None
    assert "random, as --weights none asks" in result.run.log.read_text()
    state = torch.load(next(result.run.checkpoints.glob("*.pt")), weights_only=True)["trained"]
    assert state["bn4.running_mean"].abs().max() > 0


def test_bad_images_are_left_out_and_large_ones_decoded_at_a_reduced_size_everywhere(
    settings: dict[str, Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xception_cli.data import dataset

    (photos / "red" / "1.jpg").write_bytes(b"")
    draw(photos / "red" / "0.jpg", (200, 50, 40), seed=1, size=800)
    large = (photos / "red" / "0.jpg").read_bytes()
    sizes, decode = [], dataset.decode

    def measured(content: bytes, **options: Any) -> Any:
        image = decode(content, **options)
        if content == large:
            sizes.append(image.size)
        return image

    monkeypatch.setattr(dataset, "decode", measured)
    changes = {"skip_bad": True, "unfreeze": "head", "test_fraction": 0.2}
    run = train_run(settings | changes).run
    assert set(sizes) == {(200, 200)}  # at least 158, twice the resize of 79
    assert "red/1.jpg,red,out,empty file,," in run.split.read_text().splitlines()
    assert files_below(run.evaluation("test")) == EVALUATION


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # warnings of torch's compiler
@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler"
)
def test_a_compiled_training_step_trains_like_the_plain_one(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= {"dropout": 0.0, "views": 1}
    plain = train_run(settings, "plain").run
    calls, compile_ = [], torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda *given: calls.append(1) or compile_(*given)
    )
    compiled = train_run(settings | {"compile": True}, "compiled").run
    assert calls == [1]
    expected, found = (
        [json.loads(line) for line in run.metrics.read_text().splitlines()]
        for run in (plain, compiled)
    )
    for one, other in zip(expected, found, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
        assert other["val_loss"] == pytest.approx(one["val_loss"], rel=1e-3)
    other = train_run(settings | {"seed": 1}, "other").run  # the control
    loss = json.loads(other.metrics.read_text().splitlines()[0])["train_loss"]
    assert loss != pytest.approx(expected[0]["train_loss"], rel=1e-3)
    assert set(load_file(compiled.model)) == set(load_file(plain.model))
    assert train_run({}, "compiled", resume=True).run.is_finished


def test_a_diverging_run_names_the_iteration_and_leaves_only_finite_files(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(DivergedError, match=r"iteration \d+, learning rate .*\.jpg") as caught:
        train_run(settings | {"lr": 1e30, "head_lr": 1e30, "clip": 0.0, "warmup": 0.0})
    assert caught.value.exit_code == 6
    run = Path("run")
    assert not (run / "result.json").exists()
    assert all(tensor.isfinite().all() for tensor in load_file(run / "model.safetensors").values())


def test_a_missing_folder_leaves_no_run(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        train_run(settings | {"data": "nowhere"})
    assert not Path("run").exists()


def test_an_image_that_vanishes_stops_the_run_and_is_named(
    settings: dict[str, Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xception_cli.training import preparation

    def load_and_lose(weights: str) -> Any:
        (photos / "red" / "3.jpg").unlink()
        return loaded(weights)

    loaded = preparation.load_pretrained
    monkeypatch.setattr(preparation, "load_pretrained", load_and_lose)
    with pytest.raises(DataError, match=r"red/3\.jpg: file not found"):
        train_run(settings)


def test_a_second_run_never_overwrites_the_first(probed: RunDir, random_weights: Path) -> None:
    before = contents(probed)
    with pytest.raises(UsageError, match="already exists and is not empty"):
        train_run(quick_settings(Path("photos"), random_weights))
    assert contents(probed) == before


def test_resuming_a_finished_run_changes_nothing(
    tuned: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(tuned)
    result = train_run({}, resume=True)
    assert "already finished (2 epochs)" in capsys.readouterr().err
    assert result.run.path == Path("run")
    after = contents(tuned)
    assert {n for n in before if before[n] != after.get(n)} <= {"train.log"}
    assert before.keys() == after.keys()


@pytest.mark.parametrize("flags", [{}, {"epochs": 9}], ids=["as-before", "more-epochs"])
def test_a_finished_linear_probe_has_no_epochs_to_extend(
    probed: RunDir, flags: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(probed)
    result = train_run(flags, resume=True)
    said = capsys.readouterr().err
    assert "run is already finished: without fine-tuning, it has no epochs to extend" in said
    assert result.run.path == Path("run")
    after = contents(probed)
    assert {n for n in before if before[n] != after.get(n)} <= {"train.log"}
    assert before.keys() == after.keys()


@pytest.mark.slow
def test_a_larger_number_of_epochs_extends_a_finished_run(tuned: RunDir) -> None:
    run = tuned
    first = run.metrics.read_text()
    train_run({"epochs": 3}, resume=True)
    extended = run.metrics.read_text()
    assert extended.startswith(first)
    assert len(extended.splitlines()) == 3
    assert read_json(run.result)["epochs"] == 3
    with pytest.raises(UsageError, match="epochs is 2, but the run was started with 3"):
        train_run({"epochs": 2}, resume=True)


def test_a_run_that_stopped_early_can_be_extended(settings: dict[str, Any]) -> None:
    # Learning rates near 0: no epoch is better than the first.
    settings |= {"patience": 1, "epochs": 4, "lr": 0.0, "head_lr": 0.0, "ema": 0.0, "views": 1}
    settings["monitor"] = "accuracy"  # with `last` there is no early stopping
    result = train_run(settings)
    run, first = result.run, result.run.metrics.read_text()
    assert len(result.history) == len(first.splitlines()) < 4
    assert read_json(run.result)["stopped_early"]
    run.metrics.write_text("".join(first.splitlines(keepends=True)[:-1]))
    assert call("report", "run", "--device", "cpu") == 4  # a row is lost
    run.metrics.write_text(first)
    assert call("report", "run", "--device", "cpu") == 0
    train_run({"epochs": 5}, resume=True)
    assert len(run.metrics.read_text().splitlines()) > len(first.splitlines())


def test_a_run_inside_the_data_folder_is_refused(
    settings: dict[str, Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    with pytest.raises(UsageError, match="would be inside the data folder"):
        run_training(resolve(settings | {"data": "."}, None))
    assert {path.name for path in photos.iterdir()} == {"blue", "green", "red"}


def test_a_test_image_that_vanishes_is_an_error(
    settings: dict[str, Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xception_cli.training import run as story

    settle = story.settle

    def lose_and_settle(job: Any, *more: Any) -> Any:
        (photos / job.split.of("test")[0].path).unlink()
        return settle(job, *more)

    monkeypatch.setattr(story, "settle", lose_and_settle)
    with pytest.raises(DataError, match="1 test image can no longer be read"):
        train_run(settings | {"unfreeze": "head", "test_fraction": 0.2})
    assert not Path("run/result.json").exists()


def test_a_resume_with_other_settings_is_refused_with_the_difference(probed: RunDir) -> None:
    with pytest.raises(UsageError, match="batch_size: the run has 5, now 64") as caught:
        train_run({"batch_size": 64}, resume=True)
    assert caught.value.exit_code == 2


def test_a_resume_with_other_data_is_refused_with_the_difference(probed: RunDir) -> None:
    probed.result.unlink()
    draw(Path("photos/red/new.jpg"), (1, 2, 3), seed=1)
    Path("photos/blue/1.jpg").unlink()
    with pytest.raises(ArtifactError) as caught:
        train_run({}, resume=True)
    assert "removed: blue/1.jpg\n  added: red/new.jpg" in caught.value.message
    assert caught.value.exit_code == 4


def test_a_resume_without_its_data_folder_suggests_a_new_run_with_its_split(
    probed: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    probed.result.unlink()
    Path("photos").rename("moved")
    with pytest.raises(UsageError, match="no longer exists") as caught:
        train_run({}, resume=True)
    command, options = str(caught.value.hint).rpartition("train DIR ")[1:]
    assert command
    Path("photos").symlink_to("gone")
    with pytest.raises(UsageError, match="no longer exists"):
        train_run({}, resume=True)
    assert call("train", "moved", *options.split(), "--plan") == 0
    assert "beginning with run: 24 images known" in capsys.readouterr().err


def test_a_wrong_class_count_is_an_error_that_lists_the_names(
    settings: dict[str, Any],
) -> None:
    with pytest.raises(UsageError, match=r"expected 4 classes, found 3 .*: blue, green, red"):
        train_run(settings | {"classes": 4})


@pytest.mark.slow
def test_the_result_names_the_classes_that_more_images_would_help(
    settings: dict[str, Any], tmp_path: Path, probed_once: Path
) -> None:
    # Each class has nine colours between those of the other classes: a colour that is missing in
    # half of the images is not recognised.
    for number, (red, green, blue) in enumerate(product(range(3), repeat=3)):
        for i in range(3):
            path = tmp_path / "colours" / "abc"[(red + green + blue) % 3] / f"{number}-{i}.jpg"
            draw(path, (30 + 90 * red, 30 + 90 * green, 30 + 90 * blue), seed=100 * number + i)
    settings |= {"unfreeze": "head", "val_fraction": 0.1, "seed": 1}
    run = train_run(settings | {"data": str(tmp_path / "colours")}, "many").run
    gains = read_json(run.result)["gains"]
    assert gains
    assert all(gain["name"] in {"a", "b", "c"} and gain["verdict"] == "more" for gain in gains)
    assert all(gain["whole"] > gain["half"] + 0.1 for gain in gains)
    # The page leaves out classes that the model recognises already, as all do here.
    assert "likely to help" not in run.report.read_text(encoding="utf-8")
    easy = RunDir(probed_once / "run")  # the control
    assert read_json(easy.result)["gains"] == []
    assert "likely to help" not in easy.report.read_text(encoding="utf-8")


def test_run_json_records_everything_that_the_result_depends_on(probed: RunDir) -> None:
    info = probed.read_info()
    assert info.command == "xception train --data x"
    assert info.classes == ["blue", "green", "red"]
    assert info.device == "cpu"
    assert info.precision == "fp32"
    assert len(info.weights["digest"]) == 64
    assert len(info.data_fingerprint) == 64
    assert sum(info.images.values()) == 24
    config = read_toml(probed.config)
    assert config["batch_size"] == 5
    assert config["unfreeze"] == "head"
    every = {field.name for field in dataclasses.fields(TrainConfig)}
    unset = {"classes", "root", "budget", "split_file", "from_", "group_by", "fixes"}
    assert set(config) == every - unset
    assert "monitor" in info.undecided
    assert "unfreeze" not in info.undecided  # it was given
    assert info.timed is None
