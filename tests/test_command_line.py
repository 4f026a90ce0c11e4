"""What is typed: help, mistakes of every kind, completion, and the hints that errors give."""

import json
import os
import re
import shlex
import signal
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from documented import check_documented
from folders import as_ordinary_user, open_folder
from runs import call, python

from xception_cli.cli import app, main
from xception_cli.commands.flags import PANELS
from xception_cli.commands.help import render_help
from xception_cli.data.formats import TABLES
from xception_cli.errors import UsageError
from xception_cli.recipes import EFFORTS, find_effort, list_recipes
from xception_cli.settings import EFFORT, resolve
from xception_cli.toml_files import read_toml

ROOT = Path(__file__).parent.parent


def commands() -> Iterator[tuple[str, Any]]:
    left = [("xception", typing.cast("Any", typer.main.get_command(app)))]
    while left:
        words, command = left.pop(0)
        left += [(f"{words} {n}", inner) for n, inner in getattr(command, "commands", {}).items()]
        yield words, command


# Mistakes

LISTS = "xception train --help lists the options"
MISTAKES = {
    "trian": ("xception has no command trian", "did you mean xception train?"),
    "evaluate": ("xception has no command evaluate", "did you mean xception eval?"),
    "resume": ("xception has no command resume", "did you mean xception train --resume?"),
    "version": ("xception has no command version", "did you mean xception --version?"),
    "weights fetsh": (
        "xception weights has no command fetsh",
        "did you mean xception weights fetch?",
    ),
    "./photos": ("./photos is not a command", "xception train ./photos"),
    "nowhere/a.jpg": (
        "nowhere/a.jpg is neither a command nor a file",
        "xception --help lists the commands",
    ),
    "-q": ("xception needs a command", "xception --help lists the commands"),
    "train photos more": (
        "xception train does not take more",
        "xception train [DIR] [OPTIONS]; for example, xception train ./food --classes 12",
    ),
    "train photos --data others": (
        "two data folders are given: photos and others",
        "leave --data out; to train on both, put their images into one folder",
    ),
    "train data=photos epochs=3": (
        "data=photos is not an option: options start with two dashes",
        "xception train --data photos --epochs 3",
    ),
    "train photos imgsz=299": (
        "imgsz=299 is not an option: options start with two dashes",
        "xception train photos --image-size 299",
    ),
    "train photos -epochs 3": (
        "-epochs is not an option: options start with two dashes",
        "xception train photos --epochs 3",
    ),
    "train photos --epoch 3 --batchsize 8": (
        "xception train has no options --epoch, --batchsize",
        "did you mean --epochs, --batch-size?",
    ),
    "train photos --epoch 3": ("xception train has no option --epoch", "did you mean --epochs?"),
    "train photos --learning-rate 1": (
        "xception train has no option --learning-rate",
        "did you mean --lr?",
    ),
    "train photos -z": ("xception train has no option -z", LISTS),
    "eval --batch-size 3": (
        "xception eval has no option --batch-size",
        "xception train has it; xception eval --help lists the options",
    ),
    "train photos --lr": (
        "--lr needs a value: peak learning rate of the backbone",
        "xception train --lr X",
    ),
    "train photos --plan=3": ("--plan takes no value", LISTS),
    "train photos --classes twelve": ("--classes is 'twelve', expected a whole number", None),
    "train photos --epochs 3.5": ("--epochs is '3.5', expected a whole number", None),
    "train photos --lr nan": ("--lr is nan, expected at least 0", None),
    "train photos --device gup": (
        "--device is 'gup', expected one of auto, cpu, cuda, mps",
        "did you mean cuda?",
    ),
    "train photos --effort fast": (
        "--effort is 'fast', expected one of quick, standard, best",
        "did you mean quick?",
    ),
    "train photos --effort best --config quick": (
        "--effort best cannot be combined with --config quick: an effort is a recipe, too",
        "leave one out; xception configs show best prints its settings",
    ),
    "train photos --config c.toml": (
        "image_size is 70, expected from 71 to 2,048 (c.toml)",
        None,
    ),
    "predict a.jpg --top none": (
        "--top is 'none', expected a whole number from 1, or all",
        "--top 3 prints the three most probable classes, --top all every class",
    ),
    "predict a.jpg --json -o p.csv": (
        "--json is for stdout, and the predictions go to p.csv",
        "leave --json out; --output FILE.jsonl writes JSON",
    ),
    "eval --max-pixels 1": (
        "--max-pixels is '1', expected a whole number from 1,000,000 to 2,000,000,000",
        "xception eval --help lists the options",
    ),
    "eval a --run b": ("two runs are given: a and b", "leave --run out"),
    "eval --split test1": ("--split is 'test1', expected val or test", "did you mean test?"),
    "check": (
        "DIR|TABLE is missing: folder of images, or a table (.csv, .tsv or .parquet)",
        "xception check ./food --output findings",
    ),
    "export": (
        "--output is missing: new .onnx file",
        "xception export runs/food --output food.onnx",
    ),
    "compare a": (
        "only one run is given, a",
        "xception compare a RUN; xception runs lists runs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", MISTAKES)
@pytest.mark.usefixtures("photos")
def test_a_mistake_is_answered_with_what_was_received_and_what_to_type(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.toml").write_text("image_size = 70")
    message, hint = MISTAKES[line]
    assert call(*shlex.split(line)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")


@pytest.mark.parametrize(
    ("line", "corrected"),
    [
        ("check mine/leaves 2026", "check 'mine/leaves 2026'"),
        ("check mine/leaves 2026 new --output x", "check 'mine/leaves 2026 new' --output x"),
        ("train --epochs 3 mine/leaves 2026", "train --epochs 3 'mine/leaves 2026'"),
    ],
)
def test_a_path_that_the_shell_has_split_at_its_spaces_is_answered_with_quotes(
    line: str, corrected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("leaves 2026", "leaves 2026 new"):
        Path("mine", name).mkdir(parents=True)
    assert call(*line.split()) == 2
    message, hint = capsys.readouterr().err.splitlines()
    assert message.startswith(f"error: xception {line.split()[0]} does not take 2026")
    assert hint == f"hint: put quotes around a name with spaces: xception {corrected}"
    Path("mine/leaves 2026").rmdir()
    assert call("check", "mine/leaves", "2026") == 2
    assert "quotes" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said", "corrected"),
    [
        ("train --data my leaves", "two data folders are given", "train --data 'my leaves'"),
        ("predict {run} a b.jpg --top 2", "there is no image a", "predict {run} 'a b.jpg' --top 2"),
        ("predict a b.jpg --run {run}", "there is no image a", "predict 'a b.jpg' --run {run}"),
        ("predict {run} my leaves", "there is no image my", "predict {run} 'my leaves'"),
    ],
)
def test_a_split_path_is_answered_with_quotes_wherever_it_is_given(
    probed_once: Path, line: str, said: str, corrected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my leaves").mkdir()
    Path("a b.jpg").touch()
    run = probed_once / "run"
    assert call(*line.format(run=run).split()) == 2
    message, hint = capsys.readouterr().err.splitlines()
    assert said in message
    assert (
        hint == f"hint: put quotes around a name with spaces: xception {corrected.format(run=run)}"
    )
    Path("my leaves").rename("leaves")
    Path("a b.jpg").unlink()
    assert call(*line.format(run=run).split()) == 2
    assert "quotes" not in capsys.readouterr().err


FAILURES = {
    "check nowhere --json": 2, "train nowhere --plan --json": 2, "train photos --json": 2,
    "eval --json": 2, "predict --json": 2, "predict a.jpg --json": 2, "runs --json": 2,
    "compare a b --json": 2, "summary nowhere --json": 2, "summary --size 3 --explain --json": 2,
    "weights list --json": 5, "weights verify --json": 5, "cache ls --json": 5,
    "configs ls --json extra": 2, "env --json extra": 2,
}  # fmt: skip


def test_a_command_that_fails_prints_no_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XCEPTION_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    Path("photos").mkdir()
    for line, code in FAILURES.items():
        assert call(*line.split()) == code, line
        shown = capsys.readouterr()
        assert shown.out == "", line
        assert "error: " in shown.err, line
    takes = [words for words, one in commands() if any(o.name == "as_json" for o in one.params)]
    assert [
        name for name in takes if not any(f"xception {f}".startswith(name) for f in FAILURES)
    ] == []


def test_words_that_look_like_mistakes_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data=photos").mkdir()  # a folder of that name
    for line in (
        "train data=photos",
        "train --group-by data=photos nowhere",
        "sample --classes 2 --images 2 -- -odd",
    ):
        call(*shlex.split(line))
        assert "two dashes" not in capsys.readouterr().err
    assert Path("-odd").is_dir()


def test_a_file_that_is_missing_is_named_without_pythons_number_and_with_debug_after_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        Path("nowhere").read_text()

    monkeypatch.setattr("xception_cli.environment.read_environment", fail)
    assert call("env") == 5
    assert capsys.readouterr().err == (
        "error: No such file or directory: nowhere\n"
        "hint: run the same command with --debug to see where\n"
    )
    assert call("--debug", "env") == 5
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert shown.endswith("\nerror: No such file or directory: nowhere\n")


def _signalled_while_imported(number: signal.Signals) -> "subprocess.CompletedProcess[str]":
    code = (
        "import os, runpy, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == 'xception_cli.cli': os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv[1:] = ['--version']\n"
        "runpy.run_module('xception_cli', run_name='__main__')"
    )
    # A shell's background job ignores SIGINT; so would the command.
    return python("-c", code, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))


def test_a_folder_that_may_not_be_read_is_no_mistyped_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open_folder() as folder:
        (folder / "closed").mkdir()
        (folder / "closed").chmod(0)
        for words, given in ((["runs"], ""), (["eval", "--data"], "--data ")):
            with as_ordinary_user():
                assert call(*words, f"{folder}/closed") == 2
            assert capsys.readouterr().err == (
                f"error: cannot read {given}{folder}/closed: Permission denied\n"
                f"hint: ls -ld {folder}/closed shows who may read it\n"
            )


def test_ctrl_c_while_modules_are_imported_prints_no_traceback() -> None:
    done = _signalled_while_imported(signal.SIGINT)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_a_request_to_save_ends_no_command_that_has_nothing_to_save() -> None:
    done = _signalled_while_imported(signal.SIGUSR1)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("xception ")


def test_an_interrupted_command_was_stopped_which_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "xception_cli.environment.read_environment", lambda: signal.raise_signal(signal.SIGINT)
    )
    assert call("env", "--quiet") == 130
    assert capsys.readouterr().err == "stopped by SIGINT (Ctrl-C)\n"


def test_a_command_that_is_interrupted_while_it_reports_an_error_prints_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xception_cli.cli.fail", lambda *_: signal.raise_signal(signal.SIGINT))
    assert call("predict", "absent.jpg", "--quiet") == 130
    assert capsys.readouterr().err == "stopped by SIGINT (Ctrl-C)\n"


# Help


@pytest.mark.parametrize("width", [80, 120])
def test_every_help_fits_the_terminal_and_has_an_example_that_can_be_typed(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for words, command in commands():
        asked = "-h" if width == 80 else "--help"
        assert call(*words.split()[1:], asked) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"Usage: {words}")
        assert max(map(len, shown.splitlines())) <= width, words
        assert re.search(r"<\w+>|Path", shown) is None, words
        if not hasattr(command, "commands"):
            assert "Example: xception " in shown
            assert can_be_typed(command.epilog) == [], words
        summary = " ".join((command.help or "").split("\n\n")[0].split())
        assert summary.endswith(".")
        assert summary in " ".join(shown.split())
        tables = [one.help for one in command.params if "TABLE" in (one.metavar or "")]
        assert all(suffix in text for text in tables for suffix in TABLES), words


def test_the_help_of_train_is_by_subject_with_what_is_used_every_day_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("train", "--help") == 0
    shown = capsys.readouterr().out
    titles = re.findall(r"^(\w[\w ]+):$", shown, re.MULTILINE)
    assert titles == [*PANELS, "General"]
    assert re.findall(r"^  (?:-o, )?(\S+) ", shown, re.MULTILINE)[:2] == ["DIR", "--classes"]
    assert "  --[no-]flip  " in shown
    assert "(71 to 2,048; default 299)" in " ".join(shown.split())


def test_a_terminal_shows_boxes_and_colour_unless_it_wants_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    command = typer.main.get_command(app)
    context = command.make_context("xception", ["--quiet", "env"])
    coloured = render_help(command, context)
    assert "╭─ Data and training ─" in re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert "\x1b[1;36mtrain\x1b[0m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;36m" not in render_help(command, context)
    monkeypatch.setenv("TERM", "dumb")
    assert "╭" not in render_help(command, context)


# Hints and the commands that end with what comes next


def can_be_typed(line: str) -> list[str]:
    """Return what a line has that no command takes: `xception train DIR --epoch 3`."""
    known = dict(commands())
    wrong = []
    for text in re.findall(r"xception [a-z]+[^,;:`(]*", line):
        words = text.replace('"', " ").split()
        name = " ".join(words[:3]) if " ".join(words[:3]) in known else " ".join(words[:2])
        if name not in known:
            wrong.append(text)
            continue
        flags = {n for o in known[name].params for n in (*o.opts, *o.secondary_opts)}
        wrong += [w for w in words if re.match(r"--[a-z]", w) and w not in {*flags, "--help"}]
    return wrong


def test_every_command_that_the_program_suggests_exists_with_its_options() -> None:
    wrong = {}
    for path in sorted(ROOT.glob("xception_cli/**/*.py")):
        text = re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))  # joined strings
        for line in re.findall(r"(?:hint=|next: |HINT = )[^\n]*", text):
            typed = re.sub(r"\{.*?\}", " X ", line.split('")')[0])
            found = [w for w in can_be_typed(typed) if not w.startswith("xception X")]
            if found:
                wrong[f"{path.name}: {typed}"] = found
    assert wrong == {}
    assert can_be_typed("xception train DIR --epoch 3; xception evil") == [
        "--epoch",
        "xception evil",
    ]


# Completion


def completed(line: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    words = line.split(" ")
    os.environ |= {
        "_XCEPTION_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    try:
        with pytest.raises(SystemExit):
            main([])
    finally:
        for name in ("_XCEPTION_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
            del os.environ[name]
    return capsys.readouterr().out.split()


def test_a_shell_completes_commands_options_values_runs_and_recipes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for run in ("food", "food-2"):
        Path("runs", run).mkdir(parents=True)
        for name in ("run.json", "config.toml"):
            Path("runs", run, name).touch()
    Path("runs/other").mkdir()
    expected = {
        "xception tra": ["train"],
        "xception train --eff": ["--effort"],
        "xception train --effort ": list(EFFORTS),
        "xception train --unfreeze e": ["exit"],
        "xception train --device ": ["auto", "cpu", "cuda", "mps"],
        "xception train --config ": list(list_recipes()),
        "xception train ./fo": [],  # files: the shell's own
        "xception eval ": ["runs/food", "runs/food-2"],
        "xception predict runs/food-": ["runs/food-2"],
        "xception eval --split ": ["val", "test"],
        "xception export --quantize i": ["int8"],
        "xception configs show b": ["best"],
        "xception cache clear s": ["scans"],
    }
    assert {line: completed(line, capsys) for line in expected} == expected


# Effort


def test_an_effort_is_its_recipe_and_flags_win_over_it() -> None:
    recipes = {name: read_toml(find_effort(name)) for name in EFFORTS}
    assert {setting for recipe in recipes.values() for setting in recipe} == set(EFFORT)
    best = resolve({"data": "food", "epochs": 3}, find_effort("best"), effort="best")
    assert (best.config.views, best.config.epochs) == (6, 3)
    assert best.origins == {"views": "--effort best", "epochs": "--epochs", "data": "--data"}
    with pytest.raises(UsageError, match="effort is 'quik'"):
        find_effort("quik")


def test_an_effort_replaces_that_of_an_earlier_run() -> None:
    from runs import write_info

    from xception_cli.rundir import RunDir

    run = RunDir(Path("best"))
    run.path.mkdir()
    write_info(run, settings={"data": "food", "epochs": 24, "lr": 0.1})
    given = {"from_": "best"}
    assert resolve(given, None).config.epochs == 24
    standard = resolve(given, find_effort("standard"), effort="standard").config
    assert (standard.epochs, standard.lr) == (12, 0.1)


def test_a_plan_with_an_effort_compares_all_three(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    given = {name: settings[name] for name in ("weights", "image_size", "val_fraction", "device")}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    assert call("train", settings["data"], "--plan", "--effort", "quick", *flags) == 0
    shown = capsys.readouterr()
    header, *rows = (line.split() for line in shown.out.splitlines())
    assert header == ["effort", *EFFORTS]
    phases = ["preparation", "features", "probe", "evaluation", "calibration", "refit", "report"]
    assert [row[0] for row in rows] == [*phases, "in", "memory", "disk"]
    assert shown.err.count("setting   unfreeze = head (--effort quick)") == 1
    assert not Path("runs").exists()

    small = ["--plan", "--json", "--effort", "quick", "--cache-gb", "0"]  # for the head alone
    assert call("train", settings["data"], *small, *flags) == 0
    found = json.loads(capsys.readouterr().out)
    check_documented("train --plan", found)
    assert found["effort"] == "quick"
    assert [plan["effort"] for plan in found["plans"]] == list(EFFORTS)
    assert [plan["settings"]["unfreeze"] for plan in found["plans"][:2]] == ["head"] * 2


def test_a_name_that_the_locale_cannot_encode_is_an_error_that_names_the_locale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def encode(*_: object, **__: object) -> None:
        "Müsli".encode("ascii")  # as Python does for a folder of that class

    monkeypatch.setattr("xception_cli.cli.app", encode)
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    assert call("predict") == 5
    assert capsys.readouterr().err == (
        "error: the file name Müsli has letters that this locale's encoding, ascii, lacks\n"
        "hint: unset PYTHONUTF8 and set LC_ALL=C.UTF-8; then run the command again\n"
    )
    monkeypatch.undo()
    monkeypatch.setattr("xception_cli.cli.app", encode)
    with pytest.raises(UnicodeEncodeError):  # the control: any other is a bug
        main(["predict"])
