"""metrics.json: read back as measured; missing entries are refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from units import alone

from xception_cli.errors import ArtifactError
from xception_cli.evaluation.eval_report import EvalReport, read_report
from xception_cli.evaluation.metrics import measure
from xception_cli.rundir import RunDir


@pytest.fixture
def report() -> EvalReport:
    labels = np.arange(60) % 3
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 60) / 2 + np.eye(3)[labels] / 2
    answered = probabilities.max(axis=1) > 0.6
    return measure(
        labels, probabilities, alone(labels), ["a", "b", "c\udcff"], name="val", answered=answered
    )


def write(data: dict[str, object]) -> RunDir:
    run = RunDir(Path("run"))
    run.evaluation("val").mkdir(parents=True, exist_ok=True)
    (run.evaluation("val") / "metrics.json").write_text(json.dumps(data))
    return run


def test_a_report_is_read_back_except_for_names_that_are_not_utf8(
    report: EvalReport,
) -> None:
    read = read_report(write(report.to_dict()), "val")
    assert read.to_dict() == report.to_dict()
    assert [row.name for row in read.per_class] == ["a", "b", r"c\xff"]
    assert read.answer_precision == report.answer_precision
    assert re.fullmatch(r"<EvalReport val: accuracy [\d.]+% \(95% CI .*%\), 60 images>", repr(read))
    assert read != read_report(write(report.to_dict() | {"correct": 0}), "val")


def test_a_report_of_an_earlier_version_counts_each_image_as_its_own_group(
    report: EvalReport,
) -> None:
    data = report.to_dict()
    for name in ("groups", "grouped", "left_out", "corrected", "contaminated"):
        del data[name]
    assert read_report(write(data), "val").to_dict() == report.to_dict()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("accuracy", None, "it lacks 'accuracy'"),
        ("images", "many", "invalid literal"),
        ("per_class", [{"name": "a"}], "it lacks 'n'"),
        ("log_loss", [], "float"),
        ("intervals", {"log_loss": [1, 2, 3]}, "is damaged"),
    ],
)
def test_an_incomplete_report_is_refused_with_the_command_that_rewrites_it(
    report: EvalReport, name: str, value: object, reason: str
) -> None:
    data = report.to_dict() | {name: value}
    if value is None:
        del data[name]
    with pytest.raises(ArtifactError, match=reason) as caught:
        read_report(write(data), "val")
    assert caught.value.hint == "xception eval run --split val regenerates it"


def test_a_missing_report_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"run/eval/test/metrics\.json"):
        read_report(RunDir(Path("run")), "test")
