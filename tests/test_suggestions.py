"""Suggestions for what is mistyped or named as in other tools; and numbers as they are printed."""

import typing
from typing import Any

import pytest
import typer
from runs import call

from xception_cli.cli import app
from xception_cli.errors import UsageError
from xception_cli.suggestions import nearest
from xception_cli.synonyms import OPTIONS as SYNONYMS
from xception_cli.synonyms import VALUES
from xception_cli.toml_files import check_names

# A mistyped option or one of another tool, and what is suggested; "" for nothing.
OPTIONS = {
    "train": {
        "--epoch": "--epochs", "--ephocs": "--epochs", "--Batch_Size": "--batch-size",
        "--learning-rate": "--lr", "--lr-rate": "--lr", "-b": "--batch-size",
        "--out-dir": "--output", "--gpu": "--device", "--num-workers": "--workers",
        "--imgsz": "--image-size", "--pretrained": "--weights", "--val-split": "--val-fraction",
        "--gradient-accumulation-steps": "--accumulate", "--lr-scheduler": "--schedule",
        "--learnign-rate": "--lr", "--data-path": "--data", "--no-flips": "--no-flip",
        "--lrf": "", "--min-lr": "", "--drop-path": "", "--class-names": "", "--momentum": "",
        "--export": "", "--plots": "", "--model-path": "", "--threads": "", "-d": "",
    },
    "eval": {"--data-dir": "--data", "--subset": "--split", "--device-id": "--device"},
    "predict": {"--weights": "--model", "--top-k": "--top", "--conf": "--unknown", "--csv": ""},
    "report": {"--batch": "", "--json": "", "--imgsz": ""},
    "summary": {"--imgsz": "--image-size"},
    "embed": {"--k": "--neighbours", "--neighbors": "--neighbours"},
    "export": {"--int8": "--quantize", "--opset": "", "--model": ""},
}  # fmt: skip


def test_a_suggested_option_is_right_or_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    for command, options in OPTIONS.items():
        lists = f"xception {command} --help lists the options"
        for option, meant in options.items():
            assert call(command, option, "3") == 2
            hint = f"did you mean {meant}?" if meant else lists
            assert capsys.readouterr().err.splitlines()[-1] == f"hint: {hint}", option
    assert call("predict", "--source", "a.jpg") == 2
    assert "hint: xception predict [RUN] IMAGE" in capsys.readouterr().err
    assert call("predict", "source=a.jpg") == 2
    assert capsys.readouterr().err.endswith("hint: xception predict a.jpg\n")


def test_a_suggested_value_or_setting_is_right_or_there_is_none() -> None:
    devices, precisions = ("auto", "cpu", "cuda", "mps"), ("auto", "fp32", "bf16", "fp16")
    words = {"gup": "cuda", "0": "cuda", "CPU": "cpu", "xpu": None, "tpu": None, "1": None}
    assert {word: nearest(word, devices, VALUES) for word in words} == words
    words = {"half": "fp16", "full": "fp32", "fp61": "fp16", "fp8": None}
    assert {word: nearest(word, precisions, VALUES) for word in words} == words
    words = {"valid": "val", "tets": "test", "train": None}
    assert {word: nearest(word, ("val", "test"), VALUES) for word in words} == words
    for name, meant in {
        "learning_rate": "lr",
        "batchsize": "batch_size",
        "num_workers": "workers",
    }.items():
        with pytest.raises(UsageError) as caught:
            check_names({name: 1}, "c.toml")
        assert caught.value.hint == f"did you mean {meant}?"


def test_every_name_of_another_tool_leads_to_an_option_that_exists() -> None:
    left, known = [typing.cast("Any", typer.main.get_command(app))], {""}
    for command in left:
        known |= {flag.removeprefix("--") for option in command.params for flag in option.opts}
        left += getattr(command, "commands", {}).values()
    assert {ours for meant in SYNONYMS.values() for ours in meant} <= known


def test_a_number_is_accepted_as_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train nowhere", "check nowhere", "predict nowhere"):
        for number in (["--max-pixels", "89,478,485"], ["--max-pixels=89,478,485"]):
            assert call(*command.split(), *number) == 2
            assert "--max-pixels" not in capsys.readouterr().err
        assert call(*command.split(), "--max-pixels", "89,47") == 2
        assert "--max-pixels is '89,47', expected a whole number" in capsys.readouterr().err
    assert call("train", "nowhere", "--max-pixels", "10,000") == 2
    assert "is 10,000, expected from 1,000,000 to 2,000,000,000" in capsys.readouterr().err
    for decimal in ("0,001", "1,500"):  # it may be meant as 1.5
        assert call("train", "nowhere", "--lr", decimal) == 2
        assert f"--lr is '{decimal}', expected a number" in capsys.readouterr().err
    assert call("train", "nowhere", "--epochs", "0,012") == 2
    assert "--epochs is '0,012', expected a whole number" in capsys.readouterr().err
    assert call("check", "nowhere", "--group-by", "1,000(") == 2  # text is not changed
    assert "1,000(" in capsys.readouterr().err
