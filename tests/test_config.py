"""Every setting's range, the TOML file, and the precedence of default, file and flag."""

import dataclasses
import math
import os
import tomllib
import typing

import numpy as np
import pytest

from xception_cli.config import TrainConfig, flag, setting_type
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import UsageError
from xception_cli.notation import parse_duration
from xception_cli.settings import ResolvedConfig, resolve, resolve_resumed
from xception_cli.toml_files import read_toml, to_toml

SETTINGS = dataclasses.fields(TrainConfig)
NUMBERS = [s for s in SETTINGS if setting_type(s) in {int, float}]
FLOATS = [s for s in SETTINGS if setting_type(s) is float]
CHOICES = [s for s in SETTINGS if typing.get_args(setting_type(s))]
BOUNDED = [s for s in NUMBERS if s.metadata["at_most"] is not None]


def by_name(settings):
    return pytest.mark.parametrize("setting", settings, ids=lambda setting: setting.name)


def refusal(**values) -> UsageError:
    with pytest.raises(UsageError) as caught:
        TrainConfig(**values)
    return caught.value


def beside(setting, value, direction):
    """Return the next number of the setting's type."""
    if setting_type(setting) is int:
        return int(value) + direction
    return math.nextafter(value, direction * math.inf)


def test_the_range_tests_cover_all_settings():
    assert len(SETTINGS) == len(NUMBERS) + len(CHOICES) + 15
    assert {s.name for s in SETTINGS} - {s.name for s in NUMBERS + CHOICES} == {
        "data", "root", "split_file", "from_", "group_by", "fixes", "strict", "skip_bad", "flip",
        "weights", "budget", "deterministic", "compile", "refit", "share_features",
    }  # fmt: skip


@by_name(NUMBERS)
def test_a_number_below_its_range_is_refused_by_name_and_the_minimum_is_accepted(setting):
    least = setting.metadata["at_least"]
    message = refusal(**{setting.name: beside(setting, least, -1)}).message
    assert message.startswith(f"{setting.name} is ")
    value = setting_type(setting)(least)
    assert getattr(TrainConfig(**{setting.name: value}), setting.name) == value


@by_name(BOUNDED)
def test_a_number_above_its_range_is_refused_by_name_and_the_maximum_is_accepted(setting):
    most = setting.metadata["at_most"]
    low = setting.metadata["at_least"]
    message = refusal(**{setting.name: beside(setting, most, 1)}).message
    assert message.startswith(f"{setting.name} is ")
    assert message.endswith(f", expected from {low:,.10g} to {most:,.10g}")
    value = setting_type(setting)(most)
    room = {"val_fraction": 0.01} if setting.name == "test_fraction" else {}
    assert getattr(TrainConfig(**{setting.name: value, **room}), setting.name) == value


@by_name(FLOATS)
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 10**400], ids=lambda v: str(v)[:5]
)
def test_a_number_that_is_not_finite_is_refused_by_name(setting, value):
    assert refusal(**{setting.name: value}).message.startswith(f"{setting.name} is ")


@by_name(SETTINGS)
def test_a_value_of_another_type_is_refused_by_name(setting):
    wrong = [[], {}, b"x", object()]
    wrong += ["1"] if setting in NUMBERS or setting_type(setting) is bool else [1]
    if setting_type(setting) is not bool:
        wrong.append(True)
    if setting_type(setting) is int:
        wrong.append(1.0)
    if setting.default is not None:
        wrong.append(None)
    for value in wrong:
        assert refusal(**{setting.name: value}).message.startswith(f"{setting.name} is ")


@by_name(CHOICES)
def test_a_mistyped_choice_is_refused_with_the_nearest_and_the_list(setting):
    choices = typing.get_args(setting_type(setting))
    for choice in choices:
        assert getattr(TrainConfig(**{setting.name: choice}), setting.name) == choice
        error = refusal(**{setting.name: choice + "x"})
        listed = [name for name in choices if name != "gpu"]  # cuda's other name
        expected = " or ".join(listed) if len(listed) == 2 else f"one of {', '.join(listed)}"
        assert error.message == f"{setting.name} is '{choice}x', expected {expected}"
        meant = {"gpu": "cuda"}.get(choice, choice)
        assert error.hint == f"did you mean {meant}?"
    assert refusal(**{setting.name: "%%%"}).hint is None


def test_an_integer_given_for_a_float_becomes_one():
    lr = TrainConfig(lr=1).lr
    assert (lr, type(lr)) == (1.0, float)


def test_numbers_of_numpy_become_numbers_of_python():
    config = TrainConfig(lr=np.float32(0.5), epochs=np.int64(3), workers=np.uint8(2))
    assert (config.lr, config.epochs, config.workers) == (0.5, 3, 2)
    assert [type(n) for n in (config.lr, config.epochs, config.workers)] == [float, int, int]
    with pytest.raises(UsageError, match=r"epochs is 1\.5, expected a whole number"):
        TrainConfig(epochs=np.float64(1.5))
    with pytest.raises(UsageError, match="epochs is a bool"):
        TrainConfig(epochs=np.bool_(True))


def test_val_and_test_must_leave_images_for_training():
    TrainConfig(val_fraction=0.5, test_fraction=0.45)
    assert refusal(val_fraction=0.5, test_fraction=0.46).message == (
        "val_fraction 0.5 and test_fraction 0.46 leave under 5% of the images for training"
    )


def test_a_batch_cannot_be_computed_in_more_pieces_than_it_has_images():
    TrainConfig(batch_size=4, accumulate=4)
    assert refusal(batch_size=4, accumulate=5).message == "accumulate 5 is more than batch_size 4"


def test_every_accepted_image_size_gives_a_readable_model_file():
    (size,) = (s for s in SETTINGS if s.name == "image_size")
    for number in (size.metadata["at_least"], 299, size.metadata["at_most"]):
        made = Preprocessing.for_size(number)
        assert Preprocessing.from_dict(made.to_dict()) == made


def test_a_name_that_toml_cannot_represent_is_refused_before_anything_is_written():
    error = refusal(data=os.fsdecode(b"caf\xe9"))
    assert error.message == r"data is caf\xe9, which is not UTF-8: config.toml cannot store it"


def test_a_config_cannot_be_changed_and_a_changed_copy_is_checked():
    config = TrainConfig(lr=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 0.2
    assert config.replace(epochs=3) == TrainConfig(lr=0.1, epochs=3)
    with pytest.raises(UsageError, match="epochs is 0"):
        config.replace(epochs=0)


# --- durations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1.5h", 5400),
        ("0.5s", 0.5),
        (".5m", 30),
        ("2h30m", 9000),
        ("1h30m15s", 5415),
        ("2h15s", 7215),
        ("0h1m", 60),
        (" 10M ", 600),
        ("1H5S", 3605),
    ],
)
def test_a_duration_is_read_in_hours_minutes_and_seconds(text, seconds):
    assert parse_duration(text) == seconds
    assert TrainConfig(budget=text).budget == text


@pytest.mark.parametrize(
    "text",
    ["", " ", "0s", "0h0m0s", "10", "m", "s", ".m", "-5m", "+5m", "5m2h", "5s5s", "10 m", "1,5h",
     "1.2.3m", "1e3s", "nanm", "infh", "10min", "5d", "5ms", "auto", "m10", "9" * 400 + "h"],
)  # fmt: skip
def test_an_invalid_or_zero_duration_is_refused_by_name(text):
    expected = "expected a time such as 90s, 10m, 2h or 1h30m"
    message = refusal(budget=text).message
    assert message.startswith(f"budget is '{text[:50]}")
    assert message.endswith(expected)
    with pytest.raises(UsageError, match=expected):
        parse_duration(text)


def test_a_refused_budget_is_shown_safely():
    assert refusal(budget="\x1b[2Jm").message.startswith(r"budget is '\x1b[2Jm', expected a time")


# --- TOML --------------------------------------------------------------------------------------

TEXTS = [
    "plain", "", 'with "quotes"', "it's", r"C:\back\slash", "two\nlines", "tab\tand\rreturn",
    "\x01\x1f\x7f", "crème 日本 😀", "\x85\u2028\ufeff", '"""', "# no comment", r"\u0041",
    " spaces ",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_any_text_survives_a_round_trip_through_toml(tmp_path, text):
    config = TrainConfig(data=text, weights=text)
    (tmp_path / "c.toml").write_bytes(to_toml(config).encode())
    assert TrainConfig(**read_toml(tmp_path / "c.toml")) == config


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"classes": 12, "workers": 0, "skip_bad": True, "flip": False, "deterministic": True},
        {"budget": "1h30m", "compile": True, "cache_gb": 0.5},
        {"lr": 1e-5, "head_lr": 1e16, "weight_decay": 0.1 + 0.2, "clip": 5e-324, "seed": 2**62},
        {setting.name: typing.get_args(setting_type(setting))[-1] for setting in CHOICES},
    ],
    ids=["defaults", "numbers and switches", "time and disk", "extreme floats", "choices"],
)
def test_a_config_survives_a_round_trip_through_toml(tmp_path, values):
    config = TrainConfig(**values)
    (tmp_path / "c.toml").write_text(to_toml(config), encoding="utf-8")
    assert TrainConfig(**read_toml(tmp_path / "c.toml")) == config
    for name in values:
        assert name in tomllib.loads(to_toml(config))


def test_a_toml_file_names_every_setting_in_order():
    lines = to_toml(TrainConfig()).splitlines()
    assert lines[0] == "# xception train --config THIS_FILE repeats the run."
    assert [line.removeprefix("# ").split()[0] for line in lines[1:]] == [s.name for s in SETTINGS]
    assert [line for line in lines[1:] if line.startswith("#")] == [
        "# classes is not set",
        "# root is not set",
        "# split_file is not set",
        "# from_ is not set",
        "# group_by is not set",
        "# fixes is not set",
        "# budget is not set",
        "# workers is not set",
    ]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("epoch = 3", "has an unknown setting epoch", "did you mean epochs?"),
        ("batch-size = 3", "has an unknown setting batch-size", "did you mean batch_size?"),
        ("zzz = 3", "has an unknown setting zzz", "xception train --help lists the settings"),
        ("[Training]\nepochs = 3", "has an unknown setting Training", None),
        ('"\\u001b[2J" = 1', r"has an unknown setting \x1b[2J", None),
        ("epochs: 3", "is not valid TOML: ", None),
        (".".join("a" * 1002) + " = 1", "is not a file of settings: a line has over 1,000", None),
        ("epochs = 3\nepochs = 4", "is not valid TOML: ", None),
    ],
)
def test_a_toml_file_with_a_mistake_is_refused_with_a_suggestion(tmp_path, text, message, hint):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_toml(tmp_path / "c.toml")
    assert caught.value.message.startswith(f"{tmp_path / 'c.toml'} {message}")
    if hint:
        assert caught.value.hint == hint


@pytest.mark.parametrize(
    "content",
    [None, b"caf\xe9", b"epochs = 3\n" * 20_000],
    ids=["missing", "not UTF-8", "over 200,000 bytes"],
)
def test_a_config_file_that_cannot_be_read_is_refused(tmp_path, content):
    if content:
        (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot read the config .*c\.toml: "):
        read_toml(tmp_path / "c.toml")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_file_saved_by_other_editors_is_read(tmp_path, encoding):
    (tmp_path / "c.toml").write_text('data = "crème"\nepochs = 3\n', encoding=encoding)
    assert read_toml(tmp_path / "c.toml") == {"data": "crème", "epochs": 3}


@pytest.mark.parametrize(
    "content",
    ["epochs = " + "9" * 5000, "epochs = " + "[" * 3000, "epochs = 0x" + "f" * 5000,
     f"unfreeze = {2**70}", "lr = [0x" + "f" * 5000 + "]", "seed = 9223372036854775808",
     'data = "a\\u0000b"', "group_by = 'a{99999999999}(b)'",
     "group_by = '" + "(" * 2000 + ")" * 2000 + "'", "monitor = [[1], {a = 1}]"],
    ids=lambda content: content[:24],
)  # fmt: skip
def test_values_beyond_pythons_limits_are_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "c.toml").write_text(content)
    with pytest.raises(UsageError, match=rf"{content.split()[0]} is|too many") as caught:
        TrainConfig(**read_toml(tmp_path / "c.toml"))
    assert len(caught.value.message) < 500


# --- precedence --------------------------------------------------------------------------------


def test_flags_override_the_file_which_overrides_defaults_and_each_has_its_origin(tmp_path):
    (tmp_path / "my.toml").write_text("epochs = 3\nbatch_size = 8\nflip = false\nlr = 1")
    flags = {"batch_size": 16, "data": "food", "lr": None, "workers": None, "skip_bad": False}
    assert resolve(flags, tmp_path / "my.toml") == ResolvedConfig(
        TrainConfig(epochs=3, batch_size=16, flip=False, lr=1.0, data="food"),
        {
            "epochs": "my.toml",
            "batch_size": "--batch-size",
            "flip": "my.toml",
            "lr": "my.toml",
            "data": "--data",
            "skip_bad": "--skip-bad",
        },
    )


def test_settings_that_a_config_of_a_run_has_lost_are_noted(tmp_path, capsys):
    path = tmp_path / "config.toml"
    whole = to_toml(TrainConfig(epochs=3, log_every=7))
    for text, note in (
        (whole, ""),
        ("epochs = 3", ""),  # written by hand
        ("\n".join(whole.splitlines()[:-3]), "3 settings (compile, save_every_minutes, "
         "log_every)"),
        ("\n".join(whole.splitlines()[:-2]), "2 settings (save_every_minutes, log_every)"),
        ("", f"{len(SETTINGS)} settings (data, classes, root, ...)"),
    ):  # fmt: skip
        path.write_text(text)
        resolve({}, path)
        said = f"note      {path} lacks {note}: their defaults are used\n" if note else ""
        assert capsys.readouterr().err == said


def test_without_a_file_and_flags_everything_is_default():
    assert resolve({"epochs": None}, None) == ResolvedConfig(TrainConfig(), {})


def test_a_value_in_a_file_is_checked_like_a_flag(tmp_path):
    (tmp_path / "c.toml").write_text("epochs = 0")
    with pytest.raises(UsageError, match="epochs is 0, expected at least 1"):
        resolve({}, tmp_path / "c.toml")
    assert resolve({"epochs": 2}, tmp_path / "c.toml").config.epochs == 2


def test_a_flag_is_the_settings_name_with_dashes():
    assert flag("val_fraction") == "--val-fraction"


def test_a_resumed_run_accepts_settings_that_may_change_and_keeps_the_rest():
    saved = TrainConfig(data="food", epochs=3, lr=0.1)
    resumable = {"epochs": 9, "workers": 2, "device": "cpu", "log_every": 1, "max_pixels": 10**8}
    resumable |= {"save_every_minutes": 1.0, "target_precision": 0.9, "share_features": False}
    assert {s.name for s in SETTINGS if s.metadata["resumable"]} == set(resumable)
    flags = {**resumable, "lr": 0.1, "seed": None}
    assert resolve_resumed(saved, flags) == saved.replace(**resumable)


def test_a_resumed_run_refuses_other_settings_and_lists_each_difference():
    saved = TrainConfig(data="food", lr=0.1)
    with pytest.raises(UsageError) as caught:
        resolve_resumed(saved, {"lr": 0.2, "data": "fo\x1bod", "epochs": 50, "classes": 3})
    assert caught.value.message == (
        "a run can be resumed only with the settings it was started with:\n"
        "  data: the run has food, now fo\\x1bod\n"
        "  classes: the run has None, now 3\n"
        "  lr: the run has 0.1, now 0.2"
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("patient(", "which is not a regular expression"),
        ("patient[0-9]+", "which has no group in parentheses"),
    ],
)
def test_an_invalid_pattern_of_groups_is_refused(pattern, expected):
    error = refusal(group_by=pattern)
    assert error.message.startswith(f"group_by is {pattern!r}, {expected}")
