"""A model for sharing contains no data of single training images."""

from typing import Any

import pytest
from runs import call, train_run

from xception_cli.evaluation.eval_report import read_report
from xception_cli.model.bundle import load_model
from xception_cli.runtime import decide_runtime


@pytest.mark.slow
@pytest.mark.usefixtures("judged_by_few")
def test_a_model_without_features_cannot_answer_unknown_and_reports_why(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_run(settings | {"unfreeze": "head", "share_features": False}).run
    assert "unknown   the model has no features of training images" in capsys.readouterr().err
    bundle = load_model(run.model, decide_runtime(device="cpu", precision="fp32"))
    assert bundle.about.unknown is None
    assert b"levels" not in run.model.read_bytes()[:1_000_000]
    assert read_report(run, "val").answered is None
    assert "precision (90% confidence)" not in run.report.read_text()
    photo = "photos/red/0.jpg"
    assert call("predict", photo, "--run", "run", "--unknown", "auto") == 2
    said = capsys.readouterr().err
    assert (
        "no features of training images (--no-share-features), without which --unknown auto" in said
    )
    assert "hint: --unknown 0.8" in said
    assert call("predict", photo, "--run", "run", "--unknown", "0.5") == 0
    assert call("export", "run", "--output", "m.onnx", "--no-share-features") == 0
    assert call("predict", photo, "--model", "m.onnx", "--unknown", "auto") == 2
    assert "no features of training images (--no-share-features)" in capsys.readouterr().err
