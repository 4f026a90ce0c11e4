"""The command line for a user: start-up, errors, data on stdout."""

import gc
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documented import check_documented
from runs import call, python

from xception_cli.errors import NO_THREADS
from xception_cli.imports import importing
from xception_cli.inference import Prediction
from xception_cli.rundir import RunDir, remove_tree


def run(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return python("-m", "xception_cli", *arguments, timeout=timeout)


def test_help_loads_neither_torch_nor_numpy() -> None:
    heavy = ["torch", "torchvision", "ignite", "numpy", "PIL", "sklearn", "matplotlib"]
    heavy += ["h5py", "jinja2"]
    code = f"import sys, xception_cli.cli; print([m for m in {heavy} if m in sys.modules])"
    done = python("-c", code, check=True)
    assert done.stdout == "[]\n"


def test_the_matplotlib_backend_of_a_notebook_does_not_stop_a_command() -> None:
    # `!xception train` inherits it, perhaps into an environment that lacks its package.
    code = (
        "from xception_cli.cli import main\n"
        "try:\n    main(['--version'])\n"
        "finally:\n    from xception_cli.evaluation import files"
    )
    environment = os.environ | {"MPLBACKEND": "a backend of a notebook"}
    done = python("-c", code, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the current folder")
@pytest.mark.parametrize(
    "command",
    ["eval", "train {}/photos --weights none", "runs", "predict {}/1.jpg", "env", "sample food"],
)
def test_a_command_in_a_folder_that_was_removed_reports_that(
    tmp_path, monkeypatch, capsys, command
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir("gone")
    (tmp_path / "gone").rmdir()
    assert call(*command.format(tmp_path).split()) == 5
    said = capsys.readouterr().err
    assert said == "error: the current folder no longer exists\nhint: cd to another folder\n"


def test_errors_that_need_no_torch_are_reported_before_it_or_numpy_is_loaded(photos: Path) -> None:
    Path("photo.jpg").touch()
    Path("m.safetensors").touch()
    Path("run").mkdir()
    Path("run/run.json").touch()
    known = ["photo.jpg", "--model", "m.safetensors"]
    commands = [
        ["predict", "gone.jpg", "--model", "m.safetensors"],
        ["predict", "photo.jpg", "--model", "gone.safetensors"],
        ["predict", *known, "--unknown", "80"], ["predict", *known, "--tta", "x"],
        ["predict", *known, "--device", "x"], ["predict", *known, "--output", "x.xlsx"],
        ["predict", *known, "--output", "gone/x.csv"], ["predict", *known, "--explain", "photos"],
        ["predict", *known, "--sort-into", "photo.jpg"], ["serve", "--model", "gone.safetensors"],
        ["rank", "gone.jpg", "--model", "m.safetensors"],
        ["embed", "gone.jpg", "--model", "m.safetensors", "--output", "x.npz"],
        ["train", "nowhere"], ["train", "nowhere", "--plan", "--budget", "10m"],
        ["train", "photos", "--classes", "9"], ["train", "photos", "--output", "photos"],
        ["train", "photos", "--weights", "none", "--unfreeze", "exit"],
        ["check", "nowhere"], ["check", "photos", "--output", "photo.jpg"],
        ["compare", "a", "b"], ["report", "nowhere"], ["eval", "nowhere"],
        ["eval", "run", "--data", "nowhere"], ["eval", "run", "--model", "gone.onnx"],
        ["export", "run", "--output", "x.txt"], ["export", "run", "--output", "gone/x.onnx"],
        ["export", "run", "--output", "x.onnx"],
    ]  # fmt: skip
    code = (
        "import sys\nsys.modules['onnx'] = None  # as if it were not installed\n"
        "from xception_cli.cli import main\nheavy = ('torch', 'numpy', 'PIL', 'scipy')\n"
        f"for command in {commands}:\n    try:\n        main(command)\n    except SystemExit as "
        "ended:\n        print(ended.code, [name for name in heavy if name in sys.modules])"
    )
    done = python("-c", code)
    expected = ["2 []"] * (len(commands) - 1) + ["5 []", ""]
    assert done.stdout.split("\n") == expected, done.stderr
    assert (
        "error: the data folder nowhere does not exist\n"
        "hint: check the path; xception sample DIR creates a data set to try\n"
    ) in done.stderr


def test_the_garbage_collector_pauses_only_during_imports() -> None:
    frozen = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen
    gc.unfreeze()


_NO_THREADS = """
import os, resource, threading
from xception_cli.errors import MachineError, is_out_of_threads
from xception_cli.imports import importing

if os.geteuid() == 0:  # for whom there is no limit
    os.setresuid(65534, 65534, 0)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    with importing():
        print("OpenBLAS would raise SIGINT here")
except MachineError as error:
    print(error.message, error.exit_code)
for start in (threading.Thread(target=print).start, os.fork):
    try:
        start()
    except (RuntimeError, OSError) as error:
        print(is_out_of_threads(error))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) == 1,
    reason="on one core, OpenBLAS starts no thread; elsewhere, the limit does not count threads",
)
def test_a_limit_on_threads_and_processes_is_reported_and_is_no_ctrl_c() -> None:
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = python("-c", _NO_THREADS, check=True, env=env)
    assert done.stdout.splitlines() == [f"{NO_THREADS} 5", "True", "True"]


_MANY_CORES = """
import os, resource
from xception_cli.imports import importing

os.sched_getaffinity = lambda _: range(64)
for megabytes in 900, 500:
    resource.setrlimit(resource.RLIMIT_AS, (megabytes * 1_000_000,) * 2)
    try:
        with importing():
            print("imported")
    except MemoryError:
        print("out of memory")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_the_check_of_threads_takes_no_address_space() -> None:
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = python("-c", _MANY_CORES, check=True, env=env)
    assert done.stdout.splitlines() == ["imported", "out of memory"]


_STOP_AT_TORCH = """
import gc, sys
from importlib.abc import MetaPathFinder
from xception_cli.cli import main

class StopAtTorch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            sys.exit("it collects" if gc.isenabled() else "it does not collect")

sys.meta_path.insert(0, StopAtTorch())
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "command",
    [
        "train photos", "train photos --plan", "eval run", "export run -o x.onnx",
        "predict run photos", "rank run photos -o x.csv", "embed run photos -o x.npz", "serve run",
    ],
)  # fmt: skip
def test_a_command_imports_torch_without_the_garbage_collector(photos: Path, command: str) -> None:
    Path("run").mkdir()
    Path("run/run.json").touch()
    Path("run/model.safetensors").touch()
    done = python("-c", _STOP_AT_TORCH, *command.split())
    assert done.stderr.splitlines()[-1] == "it does not collect"


_EMPTY = """
import typer
app = typer.Typer()
@app.command()
def one(): ...
@app.command()
def two(): ...
app()
"""


def test_help_is_hardly_slower_than_that_of_an_empty_program() -> None:
    def seconds(*arguments: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, *arguments, "--help"], check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - sum(before[2:4])

    # A ratio of CPU times within one run, which depends little on other programs.
    pairs = [(seconds("-m", "xception_cli"), seconds("-c", _EMPTY)) for _ in range(5)]
    ours, empty = (min(times) for times in zip(*pairs, strict=True))
    assert ours < 1.7 * empty  # NumPy alone would make it more than twice


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train"], 2, "error: the folder with your images is missing\nhint: xception train DIR; "),
        (["train", "--data", "photos", "--classes", "4"], 2, "expected 4 classes, found 3"),
        (["train", "photos", "--image-size", "70"], 2, "--image-size is 70, expected from 71 to"),
        (["train", "--data", "photos", "--unfreeze", "exot"], 2, "did you mean exit?"),
        (["train", "--data", "photos", "--epoch", "3"], 2, "--epochs"),
        (["train", "--resume", "nowhere"], 2, "the run folder nowhere does not exist"),
        (["train", "--resume"], 2, "there is no run in"),
        (["train", "--resume", "--output", "x"], 2, "--output cannot be combined with --resume"),
        (["train", "--resume", "--plan"], 2, "--plan cannot be combined with --resume"),
        (["train", "--plan"], 2, "the folder with your images is missing"),
        (["train", "--data", "photos", "--budget", "soon"], 2, "expected a time such as 90s, 10m"),
        (["train", "--data", "photos", "--cache-gb", "-1"], 2, "--cache-gb is -1.0, expected at"),
        (["trian"], 2, "train"),
        (["eval"], 2, "there is no finished run in"),
        (["eval", "--split", "train"], 2, "--split is 'train', expected val or test"),
        (["eval", "--data", "nowhere"], 2, "the data folder nowhere does not exist"),
        (["predict", "a.jpg"], 2, "there is no finished run in"),
        (["predict", "a.jpg", "--model", "no.safetensors"], 2, "there is no model file"),
        (["predict", "a.jpg", "--model", "photos"], 2, "or leave --model out for the latest run"),
        (["export", "--output", "x.onnx", "--quantize", "int4"], 2, "expected none or int8"),
        (["sample", "photos"], 2, "photos"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("photos")
def test_a_mistake_is_reported_in_a_sentence_with_its_exit_code(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
    assert "Traceback" not in shown.err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--debug", "train", "--data", "nowhere") == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_the_version_is_data() -> None:
    done = run("--version")
    assert re.fullmatch(r"xception \d+\.\d+\.\d+\n", done.stdout)
    assert done.stderr == ""


def test_env_prints_versions_and_devices(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("env") == 0
    shown = capsys.readouterr().out
    names = [line.split()[0] for line in shown.splitlines()]
    assert names[:3] == ["xception", "python", "torch"]
    assert "cpu" in names
    assert "precisions fp32" in shown or "precisions bf16" in shown
    assert call("env", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    check_documented("env", found)
    assert found["devices"][0]["device"] == "cpu"


def test_train_eval_and_predict_work_in_turn_with_data_only_on_stdout(
    settings: dict[str, Any], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = settings.pop("data")  # both without an option: the folder, and the run of predict
    assert call("train", folder, *as_flags(settings), "--classes", "3") == 0
    trained = capsys.readouterr()
    assert trained.out == "runs/photos\n"
    assert trained.err.splitlines()[-1] == "next: xception eval runs/photos"
    log = Path("runs/photos/train.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in log] == trained.err.splitlines()[:-1]
    assert "\x1b" not in trained.err

    assert call("eval", "--json") == 0
    evaluated = capsys.readouterr()
    report = json.loads(evaluated.out)
    check_documented("eval", report)
    assert report["name"] == "val"
    assert "11 of 11 images), corrected for selection\n" in evaluated.err
    assert "uncorrected: " not in evaluated.err  # 100.0%, too
    assert json.loads(RunDir(Path("runs/photos")).evaluation("val").joinpath(
        "metrics.json"
    ).read_text())["accuracy"] == report["accuracy"]  # fmt: skip

    (photos / "red" / "broken.jpg").write_bytes(b"no image")
    shown = ["photos/red/1.jpg", "photos/red/broken.jpg"]
    assert call("predict", "runs/photos", *shown, "--json", "-q") == 3
    predicted = capsys.readouterr()
    first, second = (json.loads(line) for line in predicted.out.splitlines())
    for prediction in (first, second):
        check_documented("predict", prediction)
    assert first["path"] == "photos/red/1.jpg"
    assert sorted(first["classes"]) == ["blue", "green", "red"]
    assert second["error"].startswith("not an image")
    assert predicted.err == "error: 1 of 2 images could not be read\n"

    assert call("eval", "--data", "photos") == 3
    assert "red/broken.jpg: not an image" in capsys.readouterr().err


AFTER = ["evaluation", "calibration", "refit", "report"]
TIME = r"(about )?(\d+ s|\d+ min|\d+ h \d+ min)"


def as_flags(settings: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]


@pytest.mark.parametrize(
    ("changes", "phases", "reason", "where", "shorter"),
    [
        (
            {"unfreeze": "auto"},
            ["features", "probe", *AFTER],
            "stopping at the linear probe (--unfreeze head): with under 15 training images per",
            ["--output=run"],
            "",
        ),
        (
            {"weights": "none", "unfreeze": "all"},
            ["fine-tuning", "evaluation", "report"],
            "selecting the model by accuracy on val: ",
            [],
            "; fine-tuning may stop early",
        ),
        (
            {"budget": "2h", "monitor": "last", "ceiling": 0.99},
            ["features", "probe", "fine-tuning", "selection", *AFTER],
            "--budget 2h: training the exit flow on 2 views for 2 epochs, about ",
            ["--output=run"],
            "; fine-tuning may be skipped (--ceiling)",
        ),
    ],
    ids=["head", "random weights", "a budget"],
)
def test_a_plan_is_a_table_on_stdout_with_reasons_on_stderr_and_no_training(
    settings: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    phases: list[str],
    reason: str,
    where: list[str],
    shorter: str,
) -> None:
    before = sorted(Path.cwd().rglob("*"))
    assert call("train", "--plan", *as_flags(settings | changes), *where) == 0
    shown = capsys.readouterr()
    rows = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in shown.out.splitlines()]
    assert [name for name, _ in rows] == ["preparation", *phases, "in all", "memory", "disk"]
    assert all(re.fullmatch(TIME, value) for _, value in rows[:-2])
    assert all(re.fullmatch(r"\d+\.\d GB|\d+ MB", value) for _, value in rows[-2:])
    assert len({len(line) for line in shown.out.splitlines()}) == 1  # aligned columns
    said = shown.err.splitlines()
    assert any(line.startswith("plan      ") and reason in line for line in said)
    tags = list(dict.fromkeys(line.split()[0] for line in said))
    assert tags[:3] == ["data", "classes", "device"]  # as soon as they are known
    assert "split" in tags
    assert said[-1] == f"next: the same command without --plan{shorter}"
    assert sorted(Path.cwd().rglob("*")) == before


def test_a_plan_as_json_has_the_documented_keys(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    given = as_flags(settings | {"weights": "none", "unfreeze": "all"})
    assert call("train", "--plan", *given, "--json", "--quiet") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    found = json.loads(shown.out)
    check_documented("train --plan", found)
    (plan,) = found["plans"]
    assert list(plan["seconds"]) == ["preparation", "fine-tuning", "evaluation", "report"]
    assert plan["images"] == {"train": 13, "val": 11, "test": 0, "classes": 3}
    reason = "selecting the model by accuracy on val: "
    assert any(reason in text for text in plan["reasons"])


def test_a_plan_is_refused_if_the_training_would_be(
    settings: dict[str, Any], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").mkdir()
    Path("taken/file").touch()
    refused = [
        (["--output=taken"], "taken already exists and is not empty"),
        (["--output=taken", "--budget=2h"], "taken already exists and is not empty"),
        (["--classes=4"], "expected 4 classes, found 3"),
        (["--cache-gb=0"], "over --cache-gb 0"),
        (["--cache-gb=0", "--json"], "over --cache-gb 0"),
    ]
    for more, message in refused:
        assert call("train", "--plan", *as_flags(settings), *more) == 2
        shown = capsys.readouterr()
        assert message in shown.err
        assert shown.out == ""
    (photos / "red" / "1.jpg").write_bytes(b"")
    assert call("train", "--plan", *as_flags(settings)) == 3
    assert "red/1.jpg: empty file" in capsys.readouterr().err


def test_a_model_file_alone_is_enough_to_predict(
    probed: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    probed.model.rename("m.safetensors")
    remove_tree(probed.path)
    assert call("predict", "photos/red/1.jpg", "--model", "m.safetensors", "--top", "1") == 0
    assert re.fullmatch(r"photos/red/1\.jpg: \w+ \d+\.\d%\n", capsys.readouterr().out)


@pytest.mark.slow
def test_a_closed_pipe_ends_predict_quietly(probed_once: Path) -> None:
    model, photos = probed_once / "run" / "model.safetensors", probed_once / "photos"
    command = f"{sys.executable} -m xception_cli predict --json --model {model} {photos}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "141\n"
    assert "Traceback" not in done.stderr


def test_a_closed_or_full_stream_ends_a_command_with_a_sentence() -> None:
    command = f"{sys.executable} -m xception_cli"
    script = "; ".join(
        f"{command} {rest}; echo $?"
        for rest in (
            "configs ls >&-",  # the shell closes it: Python has no sys.stdout
            "configs show best >/dev/full",
            "predict --from - <&- 2>&-",
            "--help >&- 2>&-",
            "--help | true; echo ${PIPESTATUS[0]}; true",
        )
    )
    done = subprocess.run(
        ["bash", "-c", script], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["5", "5", "2", "5", "141", "0"]
    sentence = "error: the output cannot be written to stdout: "
    errors = [line for line in done.stderr.splitlines() if not line.startswith("hint: ")]
    assert errors == [f"{sentence}bad file descriptor", f"{sentence}no space left on device"]


def test_hostile_names_are_printed_literally(capsys: pytest.CaptureFixture[str]) -> None:
    from xception_cli.commands.predict import _prediction_line

    line = _prediction_line(Prediction(Path("\x1b[2J[red].jpg"), ("=a\n:smile:",), (1.0,)))
    assert line == r"\x1b[2J[red].jpg: =a\x0a:smile: 100.0%"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_stdout_that_is_not_utf8_escapes_missing_characters(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(said, encoding=encoding))
    assert call("summary", "--explain") == 0
    sys.stdout.flush()
    assert b"\\u" in said.getvalue() or b"\\x" in said.getvalue()
    said.getvalue().decode(encoding)
