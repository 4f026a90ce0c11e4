"""Naming, locking and finding runs."""

import contextlib
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from folders import as_ordinary_user, open_folder
from images import draw_photos, photo, put
from runs import call, files_no_larger_than, write_info

from xception_cli.classifiers import check_classifier
from xception_cli.commands.inputs import find_images
from xception_cli.commands.options import separate_run
from xception_cli.config import TrainConfig
from xception_cli.console import quoted
from xception_cli.data.folder import read_folder
from xception_cli.data.source import check_data
from xception_cli.errors import ArtifactError, MachineError, RunBusyError, UsageError
from xception_cli.rundir import RunDir, read_json, remove_tree, write_json
from xception_cli.runs import choose_run_path, find_run, make_run
from xception_cli.settings import read_config, read_settings, resolve
from xception_cli.toml_files import to_toml


def start_run(name: str, started: str, *, finished: bool = True) -> RunDir:
    run = RunDir(Path("runs") / name)
    run.path.mkdir(parents=True)
    write_info(run, started=started)
    if finished:
        write_json(run.result, {"kept": "the linear probe", "epochs": 1, "seconds": {}})
    return run


def test_the_files_of_a_run_have_these_names_and_naming_them_creates_nothing():
    run = RunDir(Path("runs/food"))
    named = [run.config, run.info, run.split, run.metrics, run.log, run.model, run.result]
    assert [str(path.relative_to(run.path)) for path in named] == [
        "config.toml", "run.json", "split.csv", "metrics.jsonl", "train.log", "model.safetensors",
        "result.json",
    ]  # fmt: skip
    assert (run.checkpoints, run.features) == (
        Path("runs/food/checkpoints"),
        Path("runs/food/features"),
    )
    assert run.evaluation("val") == Path("runs/food/eval/val")
    assert not run.is_finished
    assert not Path("runs").exists()


# --- making ------------------------------------------------------------------------------------


def test_runs_on_one_folder_are_numbered_from_the_second(tmp_path):
    data = tmp_path / "food"
    paths = [make_run(data, None).path for _ in range(3)]
    assert paths == [Path("runs/food"), Path("runs/food-2"), Path("runs/food-3")]
    remove_tree(Path("runs/food-2"))
    assert choose_run_path(data, None) == Path("runs/food-2")
    assert sorted(p.name for p in Path("runs").iterdir()) == ["food", "food-3"]


@pytest.mark.parametrize(
    ("data", "name"), [("food/", "food"), ("../there", "there"), ("food/../../there", "there")]
)
def test_a_run_has_the_name_of_its_data_folder(tmp_path, monkeypatch, data, name):
    (tmp_path / "here" / "food").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert choose_run_path(Path(data), None) == Path("runs") / name


@pytest.mark.parametrize("data", [".", "/", "food/..", "link"])
def test_a_run_inside_its_data_folder_is_refused(tmp_path, data):
    (tmp_path / "food").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="would be inside the data folder"):
        choose_run_path(Path(data), None)


def test_a_training_that_is_started_inside_its_data_folder_is_answered_with_a_free_one_beside_it(
    tmp_path, monkeypatch
):
    (tmp_path / "food" / "apple").mkdir(parents=True)
    (tmp_path / "runs" / "food").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "food" / "apple")
    with pytest.raises(UsageError) as caught:
        choose_run_path(Path(".."), None)
    assert caught.value.hint == "--output ../../runs/food-2"
    beside = Path("../../runs/food-2")
    assert choose_run_path(Path(".."), beside) == beside


def test_the_name_of_a_dangling_link_is_not_used(tmp_path):
    Path("runs").mkdir()
    Path("runs/food").symlink_to("gone")
    assert make_run(tmp_path / "food", None).path == Path("runs/food-2")


def test_the_requested_output_may_be_new_or_empty(tmp_path):
    Path("empty").mkdir()
    assert make_run(tmp_path / "food", Path("empty")).path == Path("empty")
    assert make_run(tmp_path / "food", Path("new/below")).path == Path("new/below")
    assert Path("new/below").is_dir()
    assert not Path("runs").exists()


def a_folder_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "x").touch()


def a_file(path: Path) -> None:
    path.touch()


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("gone")


@pytest.mark.parametrize("make", [a_folder_with_a_file, a_file, a_link_to_nothing])
def test_an_output_that_is_not_empty_is_refused_and_not_changed(tmp_path, make):
    make(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="out already exists and is not empty") as caught:
        make_run(tmp_path / "food", tmp_path / "out")
    assert caught.value.hint == "another --output"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("make", [a_file, a_link_to_nothing])
def test_a_file_named_runs_is_a_machine_error(tmp_path, make):
    make(Path("runs"))
    with pytest.raises(MachineError, match=r"cannot create the run folder runs.food: "):
        make_run(tmp_path / "food", None)


def test_an_unwritable_place_is_a_machine_error_before_anything_is_created():
    with open_folder() as folder:
        (folder / "closed").mkdir(mode=0o555)
        for output in (folder / "closed" / "a" / "b", folder / "closed"):
            with (
                as_ordinary_user(),
                pytest.raises(MachineError, match=r"closed is not writable: P"),
            ):
                make_run(folder / "food", output)
        with as_ordinary_user():
            assert make_run(folder / "food", folder / "open").path.is_dir()


def test_a_full_disk_is_reported_before_the_run_folder_is_created(tmp_path):
    with files_no_larger_than(0), pytest.raises(MachineError) as caught:
        choose_run_path(tmp_path / "food", tmp_path / "out")
    assert caught.value.message == (
        f"cannot create the run folder {tmp_path / 'out'}: {tmp_path} is not writable: File too "
        "large"
    )
    assert choose_run_path(tmp_path / "food", tmp_path / "out") == tmp_path / "out"


def test_an_unsearchable_place_is_a_machine_error():
    with open_folder() as folder:
        (folder / "closed").mkdir(mode=0)
        made = f"cannot create the run folder {folder / 'closed'}"
        for output, message in (
            (folder / "closed", f"{made}: Permission denied"),
            (
                folder / "closed" / "a",
                f"{made}/a: {folder / 'closed'} is not writable: Permission denied",
            ),
        ):
            with as_ordinary_user(), pytest.raises(MachineError) as caught:
                make_run(folder / "food", output)
            assert caught.value.message == message


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(lambda closed: find_run(closed / "run"), id="a run"),
        pytest.param(lambda closed: separate_run([f"{closed}/run"], None, None), id="RUN"),
        pytest.param(
            lambda closed: check_classifier(closed / "m.onnx", device="cpu"), id="a model"
        ),
        pytest.param(lambda closed: check_data(closed / "t.csv", None), id="a table"),
    ],
)
def test_what_is_in_a_folder_that_cannot_be_searched_is_not_called_missing(check):
    with open_folder() as folder:
        for name in ("run/run.json", "m.onnx", "t.csv"):
            (folder / "closed" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "closed" / name).touch()
        (folder / "closed").chmod(0)
        with as_ordinary_user(), pytest.raises(PermissionError, match=f"'{folder}/closed/"):
            check(folder / "closed")
        with as_ordinary_user(), contextlib.suppress(UsageError):
            check(folder / "gone")  # the control


def test_data_that_cannot_be_read_is_no_fault_of_the_run_folder():
    with open_folder() as folder:
        (folder / "closed" / "food").mkdir(parents=True)
        (folder / "closed").chmod(0)
        with contextlib.chdir(folder), as_ordinary_user():
            assert choose_run_path(folder / "closed" / "food", None) == Path("runs/food")


# --- locking -----------------------------------------------------------------------------------

HOLDER = """
import os, sys, time
from pathlib import Path
from xception_cli.rundir import RunDir
with RunDir(Path(sys.argv[1])).lock():
    if not os.fork():
        time.sleep(60)
        os._exit(0)
    print("locked", flush=True)
    sys.stdin.readline()
print("released", flush=True)
time.sleep(60)
"""

CONTENDER = """
import os, sys, time
from pathlib import Path
from xception_cli.errors import RunBusyError
from xception_cli.rundir import RunDir
run, held, busy = RunDir(Path(sys.argv[1])), 0, 0
print("ready", flush=True)
sys.stdin.readline()
ends = time.monotonic() + 1
while time.monotonic() < ends:
    try:
        with run.lock():
            os.close(os.open("alone", os.O_CREAT | os.O_EXCL))
            os.unlink("alone")
            held += 1
    except RunBusyError:
        busy += 1
print(held, busy)
"""


@contextmanager
def holding(folder: Path) -> Iterator[subprocess.Popen]:
    """Lock a run in another process, which has forked a third since; end both."""
    arguments = [sys.executable, "-c", HOLDER, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        arguments, stdin=pipe, stdout=pipe, text=True, start_new_session=True
    ) as holder:
        assert holder.stdout.readline() == "locked\n"
        try:
            yield holder
        finally:
            os.killpg(holder.pid, signal.SIGKILL)


def test_a_second_process_is_refused_with_the_first_named_until_that_is_killed(tmp_path):
    run = RunDir(tmp_path)
    with holding(tmp_path) as holder:
        write_info(run, process=holder.pid, started="2024-01-01T00:00:00Z")
        with pytest.raises(RunBusyError) as caught, run.lock():
            pass
        assert caught.value.exit_code == 8
        assert caught.value.message == (
            f"another training is writing {tmp_path} (process {holder.pid}, "
            "started 2024-01-01T00:00:00Z)"
        )
        run.info.write_text("damaged")
        with pytest.raises(RunBusyError, match=f"is writing {tmp_path}$"), run.lock():
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with run.lock():  # at once, although its forked process is still alive
            pass
    assert {p.name for p in tmp_path.iterdir()} == {"config.toml", "run.json"}  # no lock file


def test_a_lock_is_released_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), RunDir(tmp_path).lock():
            raise KeyError
    with RunDir(tmp_path).lock(), pytest.raises(RunBusyError), RunDir(tmp_path).lock():
        pass


def test_a_process_forked_meanwhile_does_not_keep_the_lock(tmp_path):
    with holding(tmp_path) as holder:
        with pytest.raises(RunBusyError), RunDir(tmp_path).lock():
            pass
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "released\n"
        with RunDir(tmp_path).lock():
            pass


def test_no_two_processes_hold_the_lock_at_once(tmp_path):
    arguments = [sys.executable, "-c", CONTENDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    contenders = [subprocess.Popen(arguments, **pipes) for _ in range(3)]
    assert [contender.stdout.readline() for contender in contenders] == ["ready\n"] * 3
    for contender in contenders:
        contender.stdin.write("\n")
        contender.stdin.flush()
    counts = [contender.communicate()[0].split() for contender in contenders]
    assert [contender.returncode for contender in contenders] == [0, 0, 0]
    held, busy = (sum(map(int, column)) for column in zip(*counts, strict=True))
    assert held > 0
    assert busy > 0  # the control: they competed
    assert not list(tmp_path.glob("*"))


def test_the_lock_of_one_user_blocks_another():
    with (
        open_folder() as folder,
        RunDir(folder).lock(),
        as_ordinary_user(),
        pytest.raises(RunBusyError),
        RunDir(folder).lock(),
    ):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_accepted(tmp_path, monkeypatch, number):
    def missing(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", missing)
    for _ in range(2):
        with RunDir(tmp_path).lock():
            (tmp_path / "run.json").touch()
        assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC, errno.EIO])
def test_another_failure_of_a_lock_stops_the_run_and_removes_no_lock(tmp_path, monkeypatch, number):
    def failing(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / ".lock").touch()
    monkeypatch.setattr("fcntl.flock", failing)
    with pytest.raises(MachineError, match="cannot lock") as caught, RunDir(tmp_path).lock():
        pass
    assert os.strerror(number) in caught.value.message
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_a_lock_file_that_is_a_link_is_refused_and_its_target_unchanged(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(MachineError) as caught, RunDir(tmp_path / "out").lock():
        pass
    assert caught.value.message == f"cannot lock {tmp_path}/out/.lock: it is a link"
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_folder_with_only_the_lock_file_of_a_killed_process_counts_as_empty(tmp_path):
    Path("out").mkdir()
    Path("out/.lock").touch()
    run = make_run(tmp_path / "food", Path("out"))
    with run.lock():
        pass
    assert not list(run.path.iterdir())
    Path("out/.lock").touch()
    Path("out/x").touch()
    with pytest.raises(UsageError, match="already exists and is not empty"):
        make_run(tmp_path / "food", Path("out"))


# --- finding -----------------------------------------------------------------------------------


def test_the_latest_run_is_the_one_started_last_not_by_name_or_file_time():
    new = start_run("a", "2024-03-01T00:00:00Z")
    start_run("b", "2024-01-01T00:00:00Z")
    start_run("c", "2024-02-01T00:00:00Z")
    unfinished = start_run("d", "2024-04-01T00:00:00Z", finished=False)
    Path("runs/no-run").mkdir()
    os.utime(new.info, (0, 0))
    assert find_run(None) == new
    assert find_run(None, finished=False) == unfinished


def test_a_damaged_run_does_not_hide_the_others():
    damaged = start_run("z", "2030-01-01T00:00:00Z")
    damaged.info.write_text('{"started": "2030')
    good = start_run("a", "2024-01-01T00:00:00Z")
    assert find_run(None) == good
    remove_tree(good.path)
    with pytest.raises(ArtifactError, match=r"cannot read runs.z.run\.json: "):
        find_run(None).read_info()


EARLY = ("train.log", "split.csv", "issues.csv", "config.toml")


@pytest.mark.parametrize("count", range(1, len(EARLY) + 1))
def test_a_run_killed_while_its_folder_was_created_can_be_started_again(tmp_path, count):
    for name in (*EARLY[:count], ".lock", f"{EARLY[count - 1]}.77.partial"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text("half")
    assert make_run(tmp_path / "food", tmp_path / "run").path == tmp_path / "run"
    with pytest.raises(UsageError, match="killed before its first step") as caught:
        find_run(tmp_path / "run")
    assert caught.value.hint.endswith(f"xception train DIR --output {tmp_path / 'run'}")


@pytest.mark.parametrize("name", ["train.log", "run.json", "mine.txt"])
def test_a_folder_with_files_of_the_user_or_of_a_run_is_not_used(tmp_path, name):
    names = {*EARLY, name} - ({"train.log"} if name == "train.log" else set())
    (tmp_path / "run").mkdir()
    for each in names:
        (tmp_path / "run" / each).write_text("precious")
    with pytest.raises(UsageError, match="already exists and is not empty"):
        make_run(tmp_path / "food", tmp_path / "run")
    with contextlib.suppress(UsageError):
        assert find_run(tmp_path / "run").path == tmp_path / "run"  # with run.json alone
    assert {path.name for path in (tmp_path / "run").iterdir()} == names


# --- settings ------------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path):
    """A run with a config.toml, and its settings in run.json."""
    run, config = RunDir(tmp_path), TrainConfig(data="photos", classes=2, group_by=r"p(\d+)")
    write_info(run, settings=dataclasses.asdict(config))
    run.config.write_text(to_toml(config))
    return run


def test_a_config_that_lost_any_of_its_lines_is_refused_and_names_them(configured):
    whole = configured.config.read_text().splitlines()
    assert read_config(configured).group_by == r"p(\d+)"  # the control
    refused = 0
    for count in range(len(whole)):
        lost = [line.split(" = ")[0] for line in whole[count:] if not line.startswith("#")]
        configured.config.write_text("\n".join(whole[:count]) + "\n")
        if lost:
            with pytest.raises(ArtifactError, match=f"{lost[0]}: was .*, is missing") as caught:
                read_config(configured)
            assert caught.value.hint == (
                f"restore these values; {configured.info} has them under settings"
            )
            refused += 1
    assert refused > 40


def test_an_edited_setting_is_named_and_one_that_a_resume_may_change_is_accepted(configured):
    text = configured.config.read_text()
    other = text.replace("epochs = 12", "epochs = 20").replace("photos", "now")
    configured.config.write_text(other)
    assert (read_config(configured).epochs, read_config(configured).data) == (20, "now")
    configured.config.write_text(text.replace("lr = 0.0008", "lr = 0.0003"))
    with pytest.raises(
        ArtifactError, match=r"has changed .*\n  lr: was 0\.0008, is 0\.0003$"
    ) as caught:
        read_config(configured)
    assert caught.value.hint.endswith(f"xception train --config {configured.config}")
    assert read_settings(configured)["lr"] == 0.0008  # what the run was started with


def test_a_training_from_a_run_whose_config_was_edited_says_that_the_edit_has_no_effect(
    configured, capsys
):
    resolve({"from_": str(configured.path)}, None)
    assert capsys.readouterr().err == ""  # the control
    text = configured.config.read_text()
    configured.config.write_text(text.replace("lr = 0.0008", "lr = 0.0003"))
    assert resolve({"from_": str(configured.path)}, None).config.lr == 0.0008
    assert capsys.readouterr().err == (
        f"note      {configured.config} has changed since the run began:\n"
        "  lr: was 0.0008, is 0.0003\n"
        f"          --from takes the settings that the run began with, from {configured.info}\n"
    )
    configured.config.write_text("lr = [")
    assert resolve({"from_": str(configured.path)}, None).config.lr == 0.0008
    assert "is not valid TOML" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_has_only_its_config(tmp_path):
    run = RunDir(tmp_path)
    write_info(run)
    run.config.write_text("lr = 0.5\nlog_every = 10\n")
    assert read_config(run).lr == 0.5
    assert read_settings(run) == {"lr": 0.5, "log_every": 10}
    run.config.write_text("lr = 0.5\n")
    for read in (read_config, read_settings):
        with pytest.raises(ArtifactError, match=r"cannot use .*: it has lost its end, log_every"):
            read(run)


def test_a_config_of_a_run_that_is_not_toml_is_damaged(configured):
    configured.config.write_text("lr = [")
    with pytest.raises(ArtifactError, match=r"cannot use .*config\.toml: .* is not valid TOML"):
        read_config(configured)


@pytest.mark.parametrize("finished", [True, False])
def test_a_missing_run_is_reported_with_the_places_searched(tmp_path, finished):
    if finished:
        start_run("going", "2024-01-01T00:00:00Z", finished=False)
    runs = tmp_path / "runs"
    message, hint = f"there is no run in {runs}", "xception train DIR"
    if finished:
        message = f"there is no finished run in {runs}: runs/going is unfinished"
        hint = "xception train --resume runs/going"
    with pytest.raises(UsageError) as caught:
        find_run(None, finished=finished)
    assert caught.value.message == message
    assert caught.value.hint.startswith(hint)


def test_a_run_is_found_by_its_path_and_other_folders_are_refused(tmp_path):
    run = start_run("a", "2024-01-01T00:00:00Z", finished=False)
    assert find_run(run.path) == run
    (tmp_path / "file").touch()
    for name, fault in (
        ("", "{} is not a run folder (it has no run.json)"),
        ("file", "{} is not a run folder (it has no run.json)"),
        ("gone", "the run folder {} does not exist"),
    ):
        for use in (find_run, lambda path: resolve({"from_": str(path)}, None)):
            with pytest.raises(UsageError) as caught:
                use(tmp_path / name)
            assert caught.value.message == fault.format(tmp_path / name)


def test_a_mistyped_run_is_refused_with_the_run_next_to_it(capsys):
    start_run("food", "2024-01-01T00:00:00Z", finished=True)
    with pytest.raises(UsageError) as caught:
        find_run(Path("runs/fod"))
    assert caught.value.hint == "did you mean runs/food?"
    for command in ("predict", "rank --output x.csv", "embed --output x.npz"):
        name, *options = command.split()
        assert call(name, "runs/fod", "photos", *options) == 2
        said = capsys.readouterr().err  # not the latest run
        assert "the run folder runs/fod does not exist" in said
    for image in ("runs/1.jpg", "runs/*", "fod"):  # the control
        call("predict", image, "photos")
        assert "run folder" not in capsys.readouterr().err


def test_a_run_among_the_images_is_refused_instead_of_classifying_its_charts(capsys):
    for name in "ab":
        run = start_run(name, "2024-01-01T00:00:00Z", finished=True)
        run.model.touch()
        (run.path / "chart.png").touch()
    draw_photos(Path("photos"))
    for arguments, named in (
        ("runs/a photos --model runs/b/model.safetensors", "runs/a"),
        ("runs/a runs/b", "runs/b"),
        ("photos runs/a --run runs/b", "runs/a"),
    ):
        for command in ("predict", "rank --output x.csv", "embed --output x.npz"):
            assert call(*command.split(), *arguments.split()) == 2
            assert capsys.readouterr().err.endswith(
                f"error: {named} is a run, not a folder of images\n"
                "hint: give one RUN, before the images; with --model, none\n"
            )


def test_runs_below_a_folder_or_in_a_pattern_are_not_images_which_a_note_reports(capsys):
    for name in "ab":
        run = start_run(name, "2024-01-01T00:00:00Z", finished=True)
        put(run.evaluation("val") / "confusion.png", photo(1))
    put(Path("photos/1.png"), photo(2))
    for given in (".", "**", "*", "**/*.png", "[pr]*/**"):
        assert find_images([given]) == [Path("photos/1.png")]
        assert capsys.readouterr().err == "note      2 run folders ignored\n"
    with pytest.raises(UsageError, match=r"no image matches 'runs' \(2 run folders ignored\)"):
        find_images(["runs"])
    # The control: a folder of a run that is named itself, by its path or in a pattern.
    assert len(find_images(["runs/a/eval", "runs/a/eval/*/*.png"])) == 2
    assert capsys.readouterr().err == ""


def test_a_run_given_as_data_is_answered_with_its_data(capsys, tmp_path):
    run = start_run("food", "2024-01-01T00:00:00Z", finished=True)
    run.evaluation("val").mkdir(parents=True)
    data = draw_photos(tmp_path / "my photos")
    hint = "hint: give the folder with its images"
    resume = "; to resume the run: xception train --resume runs/food"

    def said(*arguments: str) -> str:
        assert call(*arguments) == 2
        error, hint = capsys.readouterr().err.splitlines()
        assert error == "error: runs/food is a run, not a folder of images"
        return hint

    assert said("check", "runs/food") == hint  # whose data is gone
    run.update_info({"data": str(data)})
    for command in ("check", "train", "eval runs/food --data"):
        assert said(*command.split(), "runs/food") == f"{hint}: {quoted(data)}"
    run.result.unlink()
    assert said("train", "runs/food") == f"{hint}: {quoted(data)}{resume}"
    run.info.write_text("{")
    assert said("train", "runs/food") == f"{hint}{resume}"
    assert call("check", str(data)) == 0  # the control


def test_a_folder_given_as_a_model_is_answered_with_the_file_in_it_if_it_has_one(capsys):
    model = start_run("food", "2024-01-01T00:00:00Z", finished=True).model
    otherwise = "give a model file (.safetensors or .onnx), or leave --model out for the latest run"
    for has_model, hint in ((False, otherwise), (True, f"the model in it is --model {model}")):
        if has_model:
            model.touch()
        assert call("predict", "1.jpg", "--model", "runs/food") == 2
        assert capsys.readouterr().err == (
            f"error: --model is runs/food, a folder, expected a file\nhint: {hint}\n"
        )


def test_a_run_next_to_the_class_folders_is_not_a_class(tmp_path):
    draw_photos(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()  # alone, it may be another tool's
    for has_run in (False, True):
        if has_run:
            (tmp_path / "run" / "config.toml").touch()
        found = read_folder(tmp_path)
        assert ("run" in found.classes) is not has_run
    assert found.notes() == ["1 run folder ignored"]


# --- JSON --------------------------------------------------------------------------------------


def test_an_object_survives_a_round_trip_through_json(tmp_path):
    content = {"a": [1, 2.5, None, True], "é\n": {"caf\udce9": "😀"}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    (tmp_path / "a.json").read_bytes().decode("ascii")


def test_a_number_that_json_does_not_have_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read {}: No such file or directory"),
        (b"", "cannot read {}: line 1, column 1 is not valid JSON"),
        (b"{\n", "cannot read {}: line 2, column 1 is not valid JSON"),
        (b"[1]", "{} does not hold a JSON object"),
        (b"null", "{} does not hold a JSON object"),
        (b'{"a": "\xff"}', "cannot read {}: byte 7 is not UTF-8"),
        (b'{"a": 1} x', "cannot read {}: line 1, column 10 is not valid JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "cannot read {}: a number has too many digits"),
        (b'{"a": ' + b"[" * 100_000, "cannot read {}: too many brackets"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else "",
)
def test_a_damaged_json_file_is_refused_in_our_words(tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        RunDir(tmp_path).read_info()
    assert caught.value.message == message.format(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"classes": ...}, "it lacks classes"),
        ({"classes": "cat"}, "classes is 'cat', expected list"),
        ({"git_commit": 7}, "git_commit is 7, expected str or null"),
        ({"images": []}, "images is [], expected dict"),
        ({"timed": "10m"}, "timed is '10m', expected dict or null"),
        ({"grey_bits": 11}, "grey_bits is 11, expected 10 or 12 or 14 or 16"),
        ({"grey_bits": 12.0}, "grey_bits is 12.0, expected 10 or 12 or 14 or 16"),
    ],
)
def test_a_run_json_that_lacks_an_entry_or_has_another_type_is_refused(tmp_path, changes, reason):
    run = RunDir(tmp_path)
    write_info(run, **changes)
    with pytest.raises(ArtifactError) as caught:
        run.read_info()
    assert caught.value.message == f"{tmp_path}/run.json is damaged: {reason}"


def test_entries_of_later_versions_may_be_missing(tmp_path):
    run = RunDir(tmp_path)
    write_info(run, data=...)
    info = run.read_info()
    assert (info.data, info.processes, info.timed) == (None, 1, None)
    write_json(run.result, {"kept": "the linear probe", "epochs": 2, "seconds": {"probe": 1.5}})
    assert (run.read_result().evaluation, run.read_result().gains) == ({}, [])
    write_json(run.result, {"kept": "the linear probe", "seconds": {}})
    with pytest.raises(ArtifactError, match="it lacks epochs"):
        run.read_result()


@pytest.mark.parametrize("kept", [None, 0, 1])
def test_a_finished_run_that_has_lost_rows_of_metrics_jsonl_is_refused(tmp_path, kept):
    run = RunDir(tmp_path)
    scores = {"lr": 0.1, "train_loss": 0.5, "val_loss": 0.5, "accuracy": 0.75}
    rows = [f"{json.dumps({'epoch': epoch} | scores)}\n" for epoch in (1, 2)]
    run.metrics.write_text("".join(rows))
    result = {"kept": "the linear probe", "epochs": 2, "seconds": {"fine-tuning": 0.1}}
    write_json(run.result, result)
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2]
    run.metrics.unlink() if kept is None else run.metrics.write_text("".join(rows[:kept]))
    lost = r"metrics\.jsonl has [01] rows?, expected at least {}, one for"
    with pytest.raises(ArtifactError, match=lost.format(2)):
        run.read_metrics()
    write_json(run.result, result | {"stopped_early": True})
    if kept:  # an earlier version did not record how many epochs it trained
        assert len(run.read_metrics()) == 1
    else:
        with pytest.raises(ArtifactError, match=lost.format(1)):
            run.read_metrics()
    write_json(run.result, result | {"epochs": 9, "stopped_early": True, "trained_epochs": 2})
    with pytest.raises(ArtifactError, match=lost.format(2)):
        run.read_metrics()
    write_json(run.result, result | {"seconds": {"probe": 0.1}})  # fine-tuning was skipped
    assert len(run.read_metrics()) == (kept or 0)
    run.result.unlink()
    assert len(run.read_metrics()) == (kept or 0)


def test_a_tree_is_removed_and_may_be_missing(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    remove_tree(tmp_path / "a")
    remove_tree(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_json_file_is_read_up_to_the_given_size(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    size = path.stat().st_size
    assert read_json(path, size) == {"a": 1}
    with pytest.raises(ArtifactError, match=f"it is over {size - 1} bytes"):
        read_json(path, size - 1)
