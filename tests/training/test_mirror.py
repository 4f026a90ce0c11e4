"""Whether a trained model also classifies the mirror image, and how it is then measured."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import Crash, call, copy_run, crash, train_once, train_run
from torch.nn import functional

from xception_cli.config import TrainConfig
from xception_cli.data.recorded import read_split
from xception_cli.errors import UsageError
from xception_cli.evaluation.candidates import read_candidates
from xception_cli.evaluation.scoring import compute_outcomes
from xception_cli.files import file_digest
from xception_cli.model.bundle import load_model
from xception_cli.model.probe import fit_probe
from xception_cli.rundir import RunDir, read_json
from xception_cli.runtime import decide_runtime
from xception_cli.training import baseline, settle
from xception_cli.training import run as training


def mirrors(run: RunDir) -> bool:
    return load_model(run.model, decide_runtime(device="cpu")).preprocessing.mirror


class FakeJob:
    """The parts of a job that the decision uses."""

    def __init__(self, **settings: Any) -> None:
        self.config = TrainConfig(data="photos", **settings)


def drawn_probe(noise: float, *, same: bool = False) -> Any:
    """Fit a probe to two views of 200 images: the class plus independent noise in each."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    views = np.stack([labels[:, None] * 2.0 + rng.normal(0, noise, (200, 2)) for _ in range(2)])
    if same:
        views[1] = views[0]
    units = labels.astype(str).astype(object) + np.arange(200).astype(str)
    return fit_probe(views.astype(np.float32), labels, units.astype(np.str_), class_count=2, seed=0)


def test_the_mirror_image_is_averaged_in_if_cross_validation_improves():
    noisy = drawn_probe(2.0)  # two noisy views are better than one
    assert baseline._averages_mirror(FakeJob(), noisy, views=2)
    same = drawn_probe(2.0, same=True)
    np.testing.assert_allclose(same.averaged, same.held_out, atol=1e-5)
    assert not baseline._averages_mirror(FakeJob(), same, views=2)


def test_the_mirror_image_is_not_averaged_in_if_it_is_missing_or_disabled():
    noisy = drawn_probe(2.0)
    assert not baseline._averages_mirror(FakeJob(tta="none"), noisy, views=2)
    assert not baseline._averages_mirror(FakeJob(flip=False), noisy, views=2)
    assert not baseline._averages_mirror(FakeJob(), noisy, views=1)
    assert baseline._averages_mirror(FakeJob(tta="mirror"), noisy, views=1)
    with pytest.raises(UsageError, match="without flip the mirror image may be of another class"):
        TrainConfig(data="photos", tta="mirror", flip=False)


def test_a_single_view_is_not_averaged():
    rng = np.random.default_rng(0)
    labels, units = np.arange(30) % 2, np.arange(30).astype(str)
    probe = fit_probe(
        rng.normal(0, 1, (30, 4)).astype(np.float32), labels, units, class_count=2, seed=0
    )
    np.testing.assert_array_equal(probe.averaged, probe.held_out)


@pytest.fixture(scope="module")
def averaging(shared: Path, random_weights: Path) -> Path:
    """A folder with a run of the probe that averages, measured before a refit; and its photos."""
    settings = {"refit": False, "tta": "mirror", "unfreeze": "head"}
    return train_once(shared / "averaging", settings, random_weights)


def test_validation_measures_the_model_that_averages(averaging: Path, tmp_path: Path):
    run = copy_run(averaging, tmp_path)
    assert mirrors(run)
    found = {"val": json.loads((run.evaluation("val") / "metrics.json").read_text())["log_loss"]}
    for tta in ("mirror", "none"):
        assert call("eval", "run", "--split", "val", "--tta", tta, "--device", "cpu") == 0
        metrics = json.loads((run.evaluation(f"val-tta-{tta}") / "metrics.json").read_text())
        found[tta] = metrics["log_loss"]
    shutil.copy(run.model, "copy.safetensors")  # another model is another evaluation
    assert (
        call("eval", "run", "--split", "val", "--tta", "none", "--model", "copy.safetensors") == 0
    )
    assert (run.evaluation("val-copy.safetensors-tta-none") / "metrics.json").is_file()
    assert found["mirror"] == pytest.approx(found["val"], rel=0.02)
    assert found["none"] != pytest.approx(found["val"], rel=0.02)


def losses_of(run: RunDir, photos: Path, tta: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses on val that the model was selected by, and those of its file."""
    images = read_split(run.split, ("blue", "green", "red")).of("val")
    labels = torch.tensor([image.label for image in images])
    *_, losses = read_candidates(run.candidates, len(images)).losses
    loaded = load_model(run.model, decide_runtime(device="cpu")).with_tta(tta)
    said = compute_outcomes(loaded, photos, images, workers=0)
    logits = torch.from_numpy(np.stack([outcome.logits for outcome in said]))
    return losses, functional.cross_entropy(logits, labels, reduction="none").numpy()


def test_the_probe_is_measured_as_the_model_that_averages(averaging: Path):
    run, photos = RunDir(averaging / "run"), averaging / "photos"
    for tta, equal in (("mirror", True), ("none", False)):
        assert np.allclose(*losses_of(run, photos, tta), rtol=0.02, atol=3e-7) == equal


@pytest.mark.parametrize(
    "given",
    [
        {"unfreeze": "head", "views": 1},
        {"unfreeze": "head", "augment": "rotate90"},  # the second view of train is a rotation
        pytest.param({"unfreeze": "exit", "views": 1}, marks=pytest.mark.slow),
        pytest.param({"unfreeze": "all", "epochs": 1}, marks=pytest.mark.slow),
        {"unfreeze": "auto", "epochs": 1, "weights": "none"},  # an epoch is kept as it is
    ],
    ids=str,
)
def test_the_model_is_selected_with_the_mirror_image_whatever_the_views_of_train_are(
    settings: dict[str, Any], photos: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
):
    monkeypatch.setattr(settle, "select_candidate", lambda *_, **__: 1)
    run = train_run(settings | {"refit": False, "tta": "mirror"} | given).run
    pairs = (losses_of(run, photos, tta) for tta in ("mirror", "none"))
    far = [np.abs(selected - of_file).mean() for selected, of_file in pairs]
    assert far[0] < 0.3 * far[1]
    assert call("eval", "run", "--split", "val", "--tta", "mirror", "--device", "cpu") == 0
    found = [read_json(run.evaluation(name) / "metrics.json") for name in ("val", "val-tta-mirror")]
    assert found[0]["log_loss"] == pytest.approx(found[1]["log_loss"], rel=0.02)
    if found[0]["corrected"]:
        assert found[0]["corrected"]["accuracy"] <= found[1]["accuracy"] + 1e-9


@pytest.mark.slow
def test_a_run_that_is_killed_after_the_decision_ends_with_the_same_bytes(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    chosen = settings | {"tta": "mirror"}
    whole = train_run(chosen, "whole").run
    with monkeypatch.context() as patch:
        patch.setattr(training, "settle", lambda *_, **__: crash())
        with pytest.raises(Crash):
            train_run(chosen, "killed")
    resumed = train_run(chosen, "killed", resume=True).run
    assert mirrors(resumed)
    assert file_digest(resumed.model) == file_digest(whole.model)
    assert not mirrors(train_run(settings | {"tta": "none", "unfreeze": "head"}, "without").run)


@pytest.mark.slow
@pytest.mark.usefixtures("judged_by_few")
def test_predict_accepts_the_option_and_an_exported_file_does_not(
    averaging: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    copy_run(averaging, tmp_path)
    image = str(sorted(Path("photos").rglob("*.*"))[0])
    answers = []
    for tta in ([], ["--tta", "mirror"], ["--tta", "none"]):
        assert call("predict", image, "--run", "run", "--json", "--device", "cpu", *tta) == 0
        answers.append(json.loads(capsys.readouterr().out)["probabilities"])
    assert answers[0] == answers[1] != answers[2]
    assert call("export", "run", "--output", "m.onnx") == 0
    capsys.readouterr()
    assert call("predict", image, "--model", "m.onnx", "--json") == 0
    exported = json.loads(capsys.readouterr().out)["probabilities"]
    np.testing.assert_allclose(exported, answers[0], atol=1e-3)
    assert call("predict", image, "--model", "m.onnx", "--tta", "none") == 2
    assert "the test-time augmentation of an ONNX file is fixed" in capsys.readouterr().err
