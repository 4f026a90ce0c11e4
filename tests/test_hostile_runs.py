"""An untrusted run folder: nothing in it redirects a write or shows a file from elsewhere."""

import os
import shutil
from pathlib import Path

import pytest
from images import draw_photos
from runs import call, files_no_larger_than

from xception_cli.csv_files import from_csv
from xception_cli.data.images import ImageError, leads_out, read_listed
from xception_cli.errors import MachineError
from xception_cli.files import write_durably
from xception_cli.regular import NEW, open_regular, read_regular
from xception_cli.rundir import RunDir


@pytest.fixture
def run(probed) -> RunDir:
    """A finished run, `run`, next to its `photos`."""
    return probed


_WRITERS = [
    ["train", "--resume", "run", "--epochs", "9"],
    ["eval", "run"],
    ["predict", "photo.jpg", "--run", "run"],
    ["report", "run"],
    ["compare", "run", "run"],
    ["export", "run", "--output", "x.onnx"],
    ["summary", "run"],
]


_LINKS = ["train.log", "metrics.jsonl", "eval", "eval/val/metrics.json"]


@pytest.mark.parametrize(
    ("command", "name"),
    [*((command, _LINKS[0]) for command in _WRITERS), *((_WRITERS[0], name) for name in _LINKS)],
)
def test_no_command_accepts_a_run_that_contains_a_link(run, tmp_path, capsys, command, name):
    precious = tmp_path / "precious"
    kept = run.path / name
    if kept.exists():
        shutil.move(kept, precious)
    else:  # a run of the probe alone has no epochs
        precious.write_text("precious")
    kept.symlink_to(precious)
    before = _bytes_of(precious)
    assert call(*command) == 4
    shown = capsys.readouterr().err
    assert f"error: run/{name} is a link to {precious}; a run folder must have no links" in shown
    assert "hint: if you made the link yourself: cp -rL run COPY" in shown
    assert _bytes_of(precious) == before


def _bytes_of(path: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in (path, *path.rglob("*")) if p.is_file()}


def test_a_pipe_in_a_run_does_not_block(run, capsys):
    run.log.unlink()
    os.mkfifo(run.log)
    assert call("eval", "run") == 4
    assert "run/train.log is not a regular file" in capsys.readouterr().err


def test_a_link_to_a_run_is_accepted(run, capsys):
    Path("latest").symlink_to(run.path)
    assert call("eval", "latest", "--json") == 0
    capsys.readouterr()


def test_lists_of_images_cannot_name_files_outside_of_the_data(run, tmp_path, capsys):
    secret = tmp_path / "secret.jpg"
    shutil.copy(next((tmp_path / "run").parent.glob("run/eval/val/*.png")), secret)
    rows = run.split.read_text().splitlines()
    for name in (str(secret), "../run/secret.jpg"):
        first = rows[1].split(",")
        run.split.write_text("\n".join([rows[0], ",".join([name, *first[1:]]), *rows[2:]]) + "\n")
        assert call("eval", "run") == 4
        assert f"names a file outside of the data: {name}" in capsys.readouterr().err


def test_the_report_shows_no_image_outside_of_the_data(run, tmp_path):
    secret = tmp_path / "secret.jpg"
    shutil.copy(tmp_path / "photos" / "red" / "0.jpg", secret)
    header = "path,problem,detail,action,label\n"
    shown = []
    for name in ("red/0.jpg", str(secret), "../secret.jpg"):
        run.issues.write_text(f"{header}{name},suspect label,looks like blue,,\n")
        assert call("report", "run") == 0
        shown.append(run.report.read_text().count("data:image/jpeg"))
    assert shown[0] == shown[1] + 1 == shown[2] + 1  # the control: an image of the data is shown


@pytest.mark.parametrize(
    ("name", "out"),
    [("a/b.jpg", False), ("a/..b/c.jpg", False), ("..", True), ("a/../../b", True), ("/a", True)],
)
def test_a_name_that_leads_out_of_its_folder_is_detected(tmp_path, name, out):
    assert leads_out(name) is out
    reason = "outside of the data folder" if out else "file not found"
    with pytest.raises(ImageError, match=reason):
        read_listed(tmp_path, name)


# --- one way to open a file ----------------------------------------------------------------------


def test_a_file_is_created_only_if_it_does_not_exist(tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    for planted in (tmp_path / "link", tmp_path / "dangling", tmp_path / "there"):
        if planted.name == "there":
            planted.write_text("there")
        else:
            planted.symlink_to(target if planted.name == "link" else tmp_path / "nowhere")
        with pytest.raises(FileExistsError):
            open_regular(planted, NEW)
    assert target.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_is_written_in_place_only_if_it_has_no_other_name(tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "link").symlink_to(target)
    os.link(target, tmp_path / "second")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {
        "link": "it is a link",
        "second": "it has a second name",
        "pipe": "it is not a regular file",
    }.items():
        with pytest.raises(OSError, match=reason):
            open_regular(tmp_path / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    assert target.read_text() == "precious"


def test_a_path_from_the_user_may_be_a_link_but_not_a_pipe_or_endless(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "link.csv").symlink_to("table.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    assert list(from_csv(tmp_path / "link.csv", ["a", "b"])) == [["1", "2"]]
    for name in (tmp_path / "pipe.csv", Path("/dev/zero")):
        with pytest.raises(OSError, match="it is not a regular file"):
            read_regular(name, 100)
    with pytest.raises(OSError, match="it is over 3 bytes"):
        read_regular(tmp_path / "table.csv", 3)


def test_the_name_of_the_temporary_file_cannot_be_predicted(tmp_path):
    target, output = tmp_path / "target", tmp_path / "out.csv"
    target.write_text("precious")
    # The name used by earlier versions, which contained the process number.
    (tmp_path / f"out.csv.{os.getpid()}.partial").symlink_to(target)
    write_durably(output, b"new")
    assert output.read_bytes() == b"new"
    assert target.read_text() == "precious"


def test_the_longest_file_name_can_be_written(tmp_path):
    for name in ("x" * 255, "ü" * 127, "x" * 251 + ".csv"):
        write_durably(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"
        assert not list(tmp_path.glob("*.partial"))


def test_a_full_disk_leaves_no_partial_file(tmp_path):
    with files_no_larger_than(1000), pytest.raises(MachineError):
        write_durably(tmp_path / "a", b"x" * 2000)
    assert list(tmp_path.iterdir()) == []


# --- reports and unfinished runs -----------------------------------------------------------------


def test_a_report_is_not_replaced_by_one_without_images(run, tmp_path, capsys):
    before = run.report.read_bytes()
    draw_photos(tmp_path / "other")
    for path in (tmp_path / "other").rglob("*.jpg"):
        path.write_bytes(path.read_bytes() + b"\n")  # the same names, other images
    (tmp_path / "empty").mkdir()
    for wrong in ("other", "empty", "nowhere", str(run.info)):
        assert call("report", "run", "--data", wrong) == 2
        shown = capsys.readouterr().err
        assert "holds none of the run's images" in shown
        assert "--data DIR" in shown
        assert run.report.read_bytes() == before
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "photos", moved)
    (moved / "red" / "1.jpg").unlink()
    assert call("report", "run", "--data", "moved") == 0
    assert "lacks some of the run's images: they leave gaps" in capsys.readouterr().err
    assert run.report.read_text().count("data:image/jpeg") > 5


def test_a_report_whose_images_are_missing_is_kept_and_a_missing_report_is_written(
    run, tmp_path, capsys
):
    run.update_info({"data": str(tmp_path / "gone")})
    text = run.config.read_text().splitlines()
    text = [f'data = "{tmp_path}/gone"' if line.startswith("data = ") else line for line in text]
    run.config.write_text("\n".join(text) + "\n")
    before = run.report.read_bytes()
    assert call("report", "run") == 2
    assert "no longer exists" in capsys.readouterr().err
    assert run.report.read_bytes() == before
    run.report.unlink()
    assert call("report", "run") == 0
    assert b"data:image/jpeg" not in run.report.read_bytes()


def test_the_report_of_an_unfinished_run_names_the_command_that_resumes_it(run, capsys):
    run.result.unlink()
    assert call("report", str(run.path)) == 2
    said = capsys.readouterr().err
    assert f"error: {run.path} is unfinished: it has no results yet\n" in said
    assert f"hint: xception train --resume {run.path}\n" in said
    with run.lock():  # it is being trained
        assert call("report", str(run.path)) == 2
    assert f"{run.path} is running: it has no results yet\nhint: wait for it\n" in (
        capsys.readouterr().err
    )


def test_a_command_that_uses_the_model_of_an_unfinished_run_warns_that_it_may_change(run, capsys):
    image = next((run.path.parent / "photos" / "red").iterdir())
    commands = [
        ["eval", str(run.path)],
        ["predict", str(run.path), str(image)],
        ["embed", str(run.path), str(image), "--output", "x.npz"],
    ]
    sentence = "its model may still change"
    assert call(*commands[0]) == 0
    assert sentence not in capsys.readouterr().err  # the control: it is finished
    run.result.unlink()
    for command in commands:
        assert call(*command, "--device", "cpu", "--workers", "0") == 0
        assert f"note      {run.path} is unfinished: {sentence}\n" in capsys.readouterr().err
    with run.lock():  # it is being trained
        assert call(*commands[1]) == 0
    assert f"note      {run.path} is running: {sentence}\n" in capsys.readouterr().err


def test_a_new_training_names_the_unfinished_run_of_its_data(run, tmp_path, capsys):
    photos = tmp_path / "photos"
    Path("runs").mkdir()
    shutil.copytree(run.path, "runs/photos")
    flags = ["--data", str(photos), "--epochs", "1", "--classes", "9"]  # refused after the note
    assert call("train", *flags) == 2
    assert "unfinished" not in capsys.readouterr().err  # the control: it is finished
    RunDir(Path("runs/photos")).result.unlink()
    assert call("train", *flags) == 2
    said = capsys.readouterr().err
    assert "runs/photos is unfinished; this starts a new run\n" in said
    assert "to resume it instead: xception train --resume runs/photos\n" in said
    with RunDir(Path("runs/photos")).lock():  # it is being trained
        assert call("train", *flags) == 2
        assert call("runs") == 0
        assert call("predict", str(photos)) == 2
    shown = capsys.readouterr()
    assert "unfinished" not in shown.err + shown.out
    assert "running" in shown.out
    assert "runs/photos is running\nhint: wait for it\n" in shown.err
    assert call("runs") == 0
    assert "unfinished" in capsys.readouterr().out
    RunDir(Path("runs/photos")).update_info({"data": "/elsewhere"})
    assert call("train", *flags) == 2
    assert "unfinished" not in capsys.readouterr().err
    assert call("predict", str(photos)) == 2
    said = capsys.readouterr().err
    assert "there is no finished run in" in said
    assert "runs/photos is unfinished\nhint: xception train --resume runs/photos\n" in said
