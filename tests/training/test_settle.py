"""The selection of the model, and the final fit to all images."""

import gc
import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import draw_photos
from runs import Crash, call, copy_run, crash, quick_settings, train_once, train_run
from safetensors.torch import load_file

from xception_cli.answers import answer_all
from xception_cli.evaluation.candidates import FINAL, read_candidates
from xception_cli.evaluation.scored import read_scored
from xception_cli.evaluation.scoring import compute_outcomes
from xception_cli.files import file_digest
from xception_cli.model.bundle import load_model
from xception_cli.model.features import compute_pooled, compute_store
from xception_cli.model.folding import fold_batch_norm
from xception_cli.model.layers import scale_layers
from xception_cli.model.network import Segment
from xception_cli.model.probe import Probe, fit_head
from xception_cli.rundir import RunDir, read_json
from xception_cli.runtime import decide_runtime
from xception_cli.training import baseline, finish, judge, settle
from xception_cli.training import run as run_module

HEADS = ("last_linear", "layers_head")


@pytest.fixture
def take_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the fine-tuned network for any losses: drawn photos are easy for the probe."""
    monkeypatch.setattr(settle, "select_candidate", lambda *_, **__: 1)


@pytest.fixture(scope="module")
def measured(shared: Path, random_weights: Path) -> RunDir:
    """A run that stopped at the probe, without the refit; not to be changed."""
    settings = {"unfreeze": "head", "refit": False}
    return RunDir(train_once(shared / "measured", settings, random_weights) / "run")


def without_heads(path: Path) -> dict[str, torch.Tensor]:
    return {n: t for n, t in load_file(path).items() if not n.startswith(HEADS)}


def evaluation(run: RunDir) -> dict[str, str]:
    return {path.name: file_digest(path) for path in run.evaluation("val").iterdir()}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_workers_that_read_images_for_the_probe_end_where_nothing_else_is_trained(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, judge = [], run_module.judge_val

    def record(*given: Any) -> Any:
        gc.collect()
        alive.extend(multiprocessing.active_children())
        return judge(*given)

    monkeypatch.setattr(run_module, "judge_val", record)
    before = multiprocessing.active_children()
    train_run(settings | {"unfreeze": "head", "workers": 1})
    assert set(alive) <= set(before)


def test_the_probe_is_kept_with_the_pretrained_network(
    tuned_once: Path, probed_once: Path, random_weights: Path
) -> None:
    run, alone = (RunDir(folder / "run") for folder in (tuned_once, probed_once))
    assert read_json(run.result)["kept"] == "the linear probe"  # its loss is near 0 here
    backbone = without_heads(run.model)
    pretrained = load_file(random_weights)
    assert all(torch.equal(tensor, pretrained[name]) for name, tensor in backbone.items())
    assert "kept      the linear probe: fine-tuning did not beat it on val" in run.log.read_text()
    state = torch.load(next(run.checkpoints.glob("*.pt")), weights_only=True)["trained"]
    name = "block12.rep.1.pointwise.weight"
    assert not torch.equal(state[name], pretrained[name])  # it was trained, and is not kept
    # The same as without fine-tuning.
    ours, theirs = load_file(run.model), load_file(alone.model)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-3, rtol=1e-3)


def test_a_single_validation_group_shows_no_error_and_keeps_the_probe(
    settings: dict[str, Any],
) -> None:
    for path in sorted(Path("photos").glob("*/*.jpg")):
        split = "val" if path.stem in "67" else "train"
        moved = Path("split", split, path.parent.name, path.name)
        moved.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, moved)
    run = train_run(settings | {"data": "split", "group_by": "^(val)/"}).run
    log = run.log.read_text()
    assert ", its standard error cannot be estimated from one group\n" in log
    assert "kept      the linear probe: one val group cannot show that fine-tuning beats it" in log
    shown = run.report.read_text(encoding="utf-8")
    assert "The validation images are one group, which cannot show that fine-tuning beats" in shown
    assert "Fine-tuning did not beat" not in shown


@pytest.mark.usefixtures("take_tuned")
def test_the_fine_tuned_network_is_kept_with_heads_for_its_own_features(
    settings: dict[str, Any], random_weights: Path, measured: RunDir
) -> None:
    result = train_run(settings | {"refit": False})
    assert result.kept == "fine-tuned, epoch 2"
    model, pretrained = load_file(result.run.model), load_file(random_weights)
    assert not torch.equal(model["conv4.pointwise.weight"], pretrained["conv4.pointwise.weight"])
    assert torch.equal(
        model["block11.rep.1.conv1.weight"], pretrained["block11.rep.1.conv1.weight"]
    )
    assert not torch.allclose(
        model["layers_head.weight"], load_file(measured.model)["layers_head.weight"]
    )
    kept = read_candidates(result.run.candidates, read_json(result.run.info)["images"]["val"])
    assert kept.epochs.tolist() == [0, FINAL]
    assert kept.losses[1].mean() == pytest.approx(
        -np.log(_true_probabilities(result.run)).mean(), abs=0.05
    )  # the scores of the selection are those of the file, except for the temperature


def _true_probabilities(run: RunDir) -> np.ndarray:
    import csv

    with (run.evaluation("val") / "predictions.csv").open() as file:
        return np.array([float(row[f"p:{row['true']}"]) for row in csv.DictReader(file)])


@pytest.mark.slow
@pytest.mark.usefixtures("take_tuned")
def test_in_bf16_val_measured_by_features_agrees_with_the_answers_of_the_model_file(
    settings: dict[str, Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    together = judge.judge_together
    monkeypatch.setattr(
        judge, "judge_together", lambda job, split: asked.append(split) or together(job, split)
    )
    run = train_run(settings | {"refit": False, "precision": "bf16", "tta": "mirror"}).run
    assert "val" not in asked
    measured = read_scored(run, "val")
    bundle = load_model(run.model, decide_runtime(device="cpu"))
    outcomes = compute_outcomes(bundle, photos, measured.photos, workers=0)
    answers = np.stack([answer.probabilities for answer in answer_all(bundle, outcomes, None)])
    np.testing.assert_allclose(answers, measured.probabilities, rtol=1e-3, atol=1e-6)


# The refit


@pytest.mark.parametrize("unfreeze", ["head", pytest.param("exit", marks=pytest.mark.slow)])
def test_the_refit_changes_the_heads_and_no_measurement(
    request: pytest.FixtureRequest, unfreeze: str
) -> None:
    once = {"head": "probed_once", "exit": "tuned_once"}[unfreeze]
    shipped = RunDir(request.getfixturevalue(once) / "run")
    if unfreeze == "head":
        measured = request.getfixturevalue("measured")
    else:
        settings = request.getfixturevalue("settings")
        measured = train_run(settings | {"refit": False}, "measured").run
    assert evaluation(shipped) == evaluation(measured)
    before, after = without_heads(measured.model), without_heads(shipped.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    for head in HEADS:
        first, second = (load_file(r.model)[f"{head}.weight"] for r in (measured, shipped))
        assert not torch.allclose(first, second)
    models = [load_model(run.model, decide_runtime(device="cpu")) for run in (measured, shipped)]
    assert models[0].about.temperature == models[1].about.temperature
    assert models[0].thresholds == models[1].thresholds
    images = read_json(shipped.info)["images"]
    assert models[1].about.provenance["refit_images"] == images["train"] + images["val"]
    assert "refit_images" not in models[0].about.provenance
    assert [read_json(run.result)["refit"] for run in (measured, shipped)] == [False, True]


def test_the_refitted_head_is_fitted_to_train_and_val(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Any] = []
    strengths: list[float] = []
    real = settle.refit

    def watched(job: Any, training: Any, *given: Any) -> Any:
        jobs.append(job)
        strengths.append(training.probe.strength)
        return real(job, training, *given)

    monkeypatch.setattr(finish, "refit", watched)
    run = train_run(settings | {"unfreeze": "head", "views": 1}).run
    (job,), (strength,) = jobs, strengths
    bundle = load_model(run.model, job.runtime)
    backbone = Segment(fold_batch_norm(bundle.network), "conv1", "conv4").eval()
    parts = [compute_pooled(backbone, job.image_inputs(name), name) for name in ("train", "val")]
    labels = torch.cat([job.labels("train"), job.labels("val")]).numpy()
    weight, bias = fit_head(
        scale_layers(np.concatenate(parts)), labels, strength=strength, class_count=3
    )
    torch.testing.assert_close(bundle.network.layers_head.weight, weight, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(bundle.network.layers_head.bias, bias, atol=1e-3, rtol=1e-2)
    of_train, _ = fit_head(
        scale_layers(parts[0]), job.labels("train").numpy(), strength=strength, class_count=3
    )
    assert (bundle.network.layers_head.weight - of_train).abs().max() > 0.01


def test_eval_on_val_reports_the_measurement_before_the_refit(
    probed: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    run = probed
    before = evaluation(run)
    assert call("eval", "run", "--split", "val", "--json") == 0
    said = capsys.readouterr()
    assert "measured with the head before its refit, which includes these images" in said.err
    assert (
        json.loads(said.out)["accuracy"]
        == read_json(run.evaluation("val") / "metrics.json")["accuracy"]
    )
    shutil.rmtree("photos")  # with --data, val would count as training images
    assert call("eval", "run") == 0
    assert evaluation(run) == before


def test_images_of_val_are_not_new_to_a_refitted_model(
    probed: RunDir, measured: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("photos", "elsewhere")
    shutil.copytree(measured.path, "plain")
    assert call("eval", "plain", "--data", "elsewhere") == 0
    assert "also selected the model" in capsys.readouterr().err
    assert call("eval", "run", "--data", "elsewhere") == 3
    assert "the model was trained on every image in elsewhere" in capsys.readouterr().err


# Interruptions, and skipped fine-tuning


def train_and_kill(settings: dict[str, Any], at: str) -> None:
    """Train `run` until a function of the module `finish` is called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, at, lambda *_, **__: crash())
        with pytest.raises(Crash):
            train_run(settings)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, random_weights: Path) -> Path:
    """A folder with `photos` and a `run` that keeps the probe and lacks only its last files."""
    folder = tmp_path_factory.mktemp("killed")
    settings = quick_settings(draw_photos(folder / "photos"), random_weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_and_kill(settings, "write_report")
    return folder


def assert_same(resumed: RunDir, whole: RunDir) -> None:
    assert file_digest(resumed.model) == file_digest(whole.model)
    assert file_digest(resumed.candidates) == file_digest(whole.candidates)
    assert evaluation(resumed) == evaluation(whole)


def test_a_run_killed_before_its_report_ends_the_same_when_resumed(
    killed: Path, tuned_once: Path, tmp_path: Path
) -> None:
    copy_run(killed, tmp_path)
    assert_same(train_run({}, resume=True).run, RunDir(tuned_once / "run"))


@pytest.mark.slow
@pytest.mark.usefixtures("take_tuned")
def test_a_run_killed_after_the_selection_ends_the_same_when_resumed(
    settings: dict[str, Any],
) -> None:
    whole = train_run(settings, "whole")
    assert whole.kept == "fine-tuned, epoch 2"
    for at in ("calibrate", "write_report"):
        train_and_kill(settings, at)
        resumed = train_run(settings, resume=True).run
        assert_same(resumed, whole.run)
        resumed.path.rename(f"killed at {at}")


@pytest.mark.slow
def test_a_run_killed_in_the_refit_ends_the_same_when_resumed(
    settings: dict[str, Any], tuned_once: Path
) -> None:
    train_and_kill(settings, "refit")
    assert_same(train_run(settings, resume=True).run, RunDir(tuned_once / "run"))


@pytest.mark.slow
def test_fine_tuning_is_not_started_if_the_probe_is_at_its_ceiling(
    settings: dict[str, Any], tuned_once: Path
) -> None:
    result = train_run(settings | {"ceiling": 0.9})
    reason = (
        "fine-tuning skipped: the linear probe's cross-validated macro recall is 100.0%, "
        "above --ceiling 0.9"
    )
    assert reason in result.run.log.read_text()
    assert read_json(result.run.result)["skipped"] == reason
    assert "macro recall is 100.0%, above --ceiling 0.9." in result.run.report.read_text()
    assert not result.run.metrics.exists()
    assert result.history == []
    assert "fine-tuning" not in result.seconds
    assert result.kept == "the linear probe"
    assert call("report", "run", "--device", "cpu") == 0
    assert read_json(RunDir(tuned_once / "run").result)["skipped"] is None


@pytest.mark.slow
def test_above_the_ceiling_no_view_is_computed_that_only_fine_tuning_needs(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    views = []

    def compute(*given: Any) -> Any:
        store, pooled = compute_store(*given)
        views.append((given[1], store.views))
        return store, pooled

    monkeypatch.setattr(baseline, "compute_store", compute)
    many = train_run(settings | {"views": 4, "ceiling": 0.9}, "many")
    assert views == [("train", 2), ("val", 2)]
    assert many.run.read_result().views == 2
    few = train_run(settings | {"views": 2, "ceiling": 0.9}, "few")
    for name in ("model.safetensors", "eval/val/predictions.csv"):
        assert (many.run.path / name).read_bytes() == (few.run.path / name).read_bytes()
    views.clear()
    train_run(settings | {"views": 4, "ceiling": 1.0, "epochs": 1}, "tuned")
    assert views == [("train", 4), ("val", 4)]


@pytest.mark.slow
def test_a_metric_that_selects_the_epoch_makes_each_epoch_a_candidate(
    settings: dict[str, Any],
) -> None:
    run = train_run(settings | {"monitor": "accuracy"}).run
    kept = read_candidates(run.candidates, read_json(run.info)["images"]["val"])
    assert kept.epochs.tolist() == [0, 1, 2, FINAL]
    assert read_json(run.evaluation("val") / "metrics.json")["corrected"]["candidates"] == 4


@pytest.mark.slow
def test_extending_a_refitted_run_equals_a_longer_run_from_the_start(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings |= {"schedule": "step", "warmup": 0.0}  # a cosine would be stretched
    for chosen in (0, 1):
        monkeypatch.setattr(settle, "select_candidate", lambda *_, chosen=chosen, **__: chosen)
        whole = train_run(settings | {"epochs": 3}, f"whole-{chosen}").run
        train_run(settings, f"extended-{chosen}")
        extended = train_run(settings | {"epochs": 3}, f"extended-{chosen}", resume=True).run
        assert file_digest(extended.model) == file_digest(whole.model)
        assert file_digest(extended.candidates) == file_digest(whole.candidates)


def test_a_run_that_ends_before_its_result_is_recorded_as_fitted_to_val(
    killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_run(killed, tmp_path)
    assert call("eval", "run", "--split", "val") == 0
    assert "measured with the head before its refit" in capsys.readouterr().err
    shutil.rmtree("run/eval/val")
    assert call("eval", "run", "--split", "val") == 4
    assert "the model has been fitted to val since" in capsys.readouterr().err


@pytest.mark.slow
def test_an_exported_refitted_model_is_not_corrected_for_images_that_it_was_fitted_to(
    probed: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("export", "run", "--output", "model.onnx") == 0
    parity = json.loads(Path("export_report.json").read_text())["model.onnx"]["parity"]
    assert (parity["images"], parity["kinds"]["large"]) == (68, 4)
    capsys.readouterr()
    assert call("eval", "run", "--model", "model.onnx", "--split", "val", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert "corrected" not in report or report["corrected"] is None
    assert "the model was also fitted to these images" in report["note"]


def test_a_probe_that_never_finds_a_rare_class_is_not_at_its_ceiling() -> None:
    labels = np.array([0] * 500 + [1] * 5)
    held_out = np.log(np.tile(np.float32([0.99, 0.01]), (505, 1)))
    probe = Probe(
        torch.zeros(2, 4), torch.zeros(2), 1.0, labels, labels.astype(str), held_out, held_out, 5
    )
    assert probe.hits.mean() > 0.99
    assert probe.macro_recall == 0.5
