"""predict --output: rows are written as they are computed, and a stopped command is continued."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from images import COLOURS, SMALL, draw_photos
from runs import call, files_no_larger_than

from xception_cli import inference
from xception_cli.cli import main
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import MachineError, RunBusyError, UsageError
from xception_cli.inference import Prediction
from xception_cli.model.about import About
from xception_cli.model.bundle import save_model
from xception_cli.model.network import build_seeded_network
from xception_cli.predictions import PredictionFile, Tally, open_predictions

_SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl"])


def predictions(count: int) -> list[Prediction]:
    """Rows with line breaks, formulas, odd bytes and errors."""
    names = ["a,b", "=1+1", 'say "x"', "two\nlines", "-bad\udcff", "\r", "ü"]
    return [
        Prediction(Path(f"{names[at % 7]}{at}.jpg"), (), (), "truncated\nfile")
        if at % 5 == 3
        else Prediction(Path(f"{names[at % 7]}{at}.jpg"), ("x\ny", "z"), (0.75, 0.25))
        for at in range(count)
    ]


class Stop(BaseException):
    """Stands for a signal."""


def write(rows: list[Prediction], path: Path, stop_after: int | None = None) -> PredictionFile:
    """Write the remaining rows, and stop after a total number."""
    with open_predictions(path, [row.path for row in rows], ("model", 5)) as file:
        file.begin(2, with_unknown=False)
        for row in rows[file.done :]:
            if file.done == stop_after:
                raise Stop
            file.add(row)
    return file


def partials(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.partial"))


@_SUFFIXES
def test_the_final_file_is_the_same_after_any_number_of_stops(tmp_path, suffix, capsys):
    rows = predictions(40)
    whole = tmp_path / f"whole{suffix}"
    file = write(rows, whole)
    assert (file.done, file.tally.failed) == (40, 8)
    output = tmp_path / f"out{suffix}"
    for stop_after in (0, 1, 4, 4, 29, 40):
        with pytest.raises(Stop):
            write([*rows, rows[0]][:41], output, stop_after)
        if stop_after:
            (partial,) = partials(tmp_path)
            said = f"kept      {output}: {stop_after} of 41 rows; the same command resumes there"
            assert said in capsys.readouterr().err.replace("\n", "")
            assert whole.read_bytes().startswith(output.read_bytes())
            assert output.samefile(partial)
        else:
            assert partials(tmp_path) == []  # nothing to continue
            assert not output.exists()
    partial.unlink()
    output.unlink()
    with pytest.raises(Stop):
        write(rows, output, 17)
    file = write(rows, output)
    assert (file.done, file.tally.failed) == (40, 8)
    assert output.read_bytes() == whole.read_bytes()
    assert partials(tmp_path) == []


def test_a_stop_before_the_model_is_loaded_keeps_earlier_rows(tmp_path):
    rows, output = predictions(6), tmp_path / "out.csv"
    with pytest.raises(Stop):
        write(rows, output, 4)
    before = output.read_bytes()

    def stop_at_once() -> None:
        with open_predictions(output, [row.path for row in rows], ("model", 5)):
            raise Stop

    with pytest.raises(Stop):
        stop_at_once()
    assert output.read_bytes() == before
    assert write(rows, output).done == 6


def test_neither_a_finished_output_nor_that_of_another_command_is_replaced(tmp_path):
    rows, output = predictions(6), tmp_path / "out.csv"
    with pytest.raises(Stop):
        write(rows, output, 4)
    with pytest.raises(UsageError, match="the rows of a stopped command with another model"):
        write(rows[1:], output)
    write(rows, output)
    before = output.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        write(rows, output)
    assert output.read_bytes() == before


def test_all_classes_have_a_column_each_and_the_file_is_continued_by_them(tmp_path):
    path, classes = tmp_path / "all.csv", ("cat", "=dog")
    rows = [
        Prediction(Path("a.jpg"), ("=dog", "cat"), (0.75, 0.25)),
        Prediction(Path("b.jpg"), (), (), "truncated"),
        Prediction(Path("c.jpg"), ("cat", "=dog"), (0.625, 0.375), unknown="low confidence"),
    ]
    for stop_after in (2, None):
        with suppress(Stop), open_predictions(path, [row.path for row in rows], ("all",)) as file:
            file.begin(2, classes, with_unknown=True)
            for row in rows[file.done :]:
                if file.done == stop_after:
                    raise Stop
                file.add(row)
    assert path.read_text() == (
        "path,predicted,confidence,unknown,error,p:cat,p:=dog\n"
        "a.jpg,'=dog,0.75,,,0.25,0.75\n"
        "b.jpg,,,,truncated,,\n"
        "c.jpg,cat,0.625,low confidence,,0.625,0.375\n"
    )
    assert file.tally.answers == Counter({"=dog": 1, None: 1, "unknown": 1})


@pytest.mark.parametrize(
    ("unlike", "count", "warned"),
    [(170, 200, True), (10, 200, False), (24, 200, False), (1, 1, True), (0, 1, False),
     (1, 4, False), (4, 4, True), (2, 10, False)],
)  # fmt: skip
def test_images_unlike_the_training_images_are_reported_if_they_are_many(unlike, count, warned):
    tally = Tally()
    for at in range(count):
        tally.add("cat", unlike=at < unlike)
    tally.add(None, unlike=False)  # an image that cannot be read
    tally.add("cat")  # a row of an earlier command
    sentence = (
        f"{unlike} of {count} images are unlike the training images; their answers mean little: "
        "--unknown auto refuses them"
    )
    if count == 1:
        sentence = (
            "this image is unlike the training images; its answer means little: --unknown auto "
            "refuses it"
        )
    assert tally.unlike_line() == (sentence if warned else None)


@_SUFFIXES
def test_a_file_cut_or_damaged_anywhere_loses_and_repeats_no_row(tmp_path, suffix):
    rows = predictions(12)
    whole, output = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    write(rows, whole)
    with pytest.raises(Stop):
        write(rows, output, 11)
    (partial,) = partials(tmp_path)
    content = partial.read_bytes()
    spoiled = [content[:cut] for cut in range(0, len(content), 7)]
    spoiled += [content[:cut] + bytes(90) for cut in range(0, len(content), 31)]  # a torn page
    spoiled += [content + b"more", content + content, b"\xff\xfe" + content]
    for changed in spoiled:
        partial.write_bytes(changed)
        write(rows, output)  # has a second name, or does not exist
        assert output.read_bytes() == whole.read_bytes()
        output.unlink()


@_SUFFIXES
def test_a_file_is_continued_only_with_the_same_images_model_and_options(tmp_path, suffix, capsys):
    rows = predictions(6)
    images = [tmp_path / f"{at}.jpg" for at in range(6)]
    for image in images:
        image.write_bytes(b"image")
    output = tmp_path / f"out{suffix}"

    def begun(paths: list[Path], *options: object) -> int:
        done = 0

        def begin() -> None:
            nonlocal done
            with open_predictions(output, paths, options) as file:
                file.begin(2, with_unknown=False)
                done = file.done
                for row, path in list(zip(rows, paths, strict=True))[file.done : 4]:
                    file.add(Prediction(path, row.classes, row.probabilities, row.error))
                raise Stop

        with pytest.raises(Stop):
            begin()
        output.unlink()  # the rows are also in the partial file
        return done

    assert begun(images, "model", 5) == 0
    assert begun(images, "model", 5) == 4  # the control
    capsys.readouterr()
    assert begun(images, "another model", 5) == 0
    assert "belongs to another model, other images or other options" in capsys.readouterr().err
    assert begun(images, "model", 3) == 0
    assert begun(images[::-1], "model", 5) == 0
    images[0].write_bytes(b"changed since")
    assert begun(images, "model", 5) == 0


def test_a_full_disk_keeps_the_rows_that_were_written(tmp_path):
    rows = predictions(400)
    with (
        files_no_larger_than(2000),
        pytest.raises(MachineError, match=r"cannot write .*File too large") as caught,
    ):
        write(rows, tmp_path / "out.jsonl")
    assert "the same command resumes after" in caught.value.hint
    write(rows, tmp_path / "whole.jsonl")
    file = write(rows, tmp_path / "out.jsonl")
    assert file.done == 400
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_planted_link_is_not_written_through(tmp_path):
    rows = predictions(3)
    with pytest.raises(Stop):
        write(rows, tmp_path / "out.csv", 2)
    (partial,) = partials(tmp_path)
    (tmp_path / "out.csv").unlink()
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for plant in (partial.symlink_to, lambda target: os.link(target, partial)):
        partial.unlink()
        plant(precious)
        with pytest.raises(MachineError, match=r"it (is a link|has a second name)"):
            write(rows, tmp_path / "out.csv")
        assert precious.read_text() == "precious"


@pytest.mark.parametrize("has_flock", [True, False])
def test_two_commands_do_not_write_the_same_rows(tmp_path, monkeypatch, has_flock):
    if not has_flock:
        import filelock  # noqa: F401 (chooses its kind of lock once, with fcntl)

        monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    rows = predictions(3)
    with open_predictions(tmp_path / "out.csv", [row.path for row in rows], ("model", 5)) as file:
        file.begin(2, with_unknown=False)
        with pytest.raises(RunBusyError, match="the same command is writing"):
            write(rows, tmp_path / "out.csv")


def test_a_file_created_in_the_meantime_is_not_replaced(tmp_path):
    rows = predictions(2)
    output = tmp_path / "out.csv"

    def write_meanwhile() -> None:
        with open_predictions(output, [row.path for row in rows], ()) as file:
            file.begin(2, with_unknown=False)
            for row in rows:
                file.add(row)
            output.write_text("precious")

    with pytest.raises(UsageError, match="was created by another program in the meantime"):
        write_meanwhile()
    assert output.read_text() == "precious"
    assert len(partials(tmp_path)) == 1


def test_rows_are_kept_where_the_file_is_closed_before_it_cannot_be_renamed(tmp_path, monkeypatch):
    rows = predictions(2)

    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(13, "Access is denied")  # a virus scanner has opened it

    with monkeypatch.context() as windows:
        windows.setattr("xception_cli.partial.os.name", "nt")
        windows.setattr(type(tmp_path), "replace", refuse)
        with pytest.raises(MachineError, match=r"cannot write .*: Access is denied"):
            write(rows, tmp_path / "out.csv")
    assert write(rows, tmp_path / "out.csv").done == 2


@pytest.mark.slow  # three starts of torch, and heat maps
def test_a_command_that_is_interrupted_is_continued_to_the_same_file(tmp_path):
    model = tmp_path / "m.safetensors"
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL), temperature=0.05)
    save_model(model, build_seeded_network(3, 0).state_dict(), about)
    photos = draw_photos(tmp_path / "photos")
    for number in range(40):
        shutil.copy(photos / "red" / f"{number % 8}.jpg", photos / "red" / f"more{number}.jpg")
    (photos / "red" / "3.jpg").write_bytes(b"no image")
    command = [sys.executable, "-m", "xception_cli", "predict", str(photos), "--model", str(model)]
    command += ["--workers", "0", "--explain", "why", "--output"]
    whole = subprocess.run([*command[:-2], "other", "--output", "whole.csv"], check=False)
    assert whole.returncode == 3
    process = subprocess.Popen([*command, "out.csv"], stderr=subprocess.PIPE, text=True)
    while not (found := partials(tmp_path)) or found[0].stat().st_size < 1000:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 64 rows; the same command resumes there" in said
    done = subprocess.run([*command, "out.csv"], check=False, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 3
    assert "resuming  after" in done.stderr
    assert "1 of 64 images could not be read" in done.stderr
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    names = sorted(path.name for path in Path("other").iterdir())
    assert len(names) == 63
    assert sorted(path.name for path in Path("why").iterdir()) == names


def test_a_list_is_predicted_in_pieces_and_continued_with_every_row_once(
    tmp_path, monkeypatch, capsys
):
    model = tmp_path / "m.safetensors"
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL), temperature=0.05)
    save_model(model, build_seeded_network(3, 0).state_dict(), about)
    photos = draw_photos(tmp_path / "photos")
    (photos / "red" / "3.jpg").write_bytes(b"no image")
    names = [f"photos/{name}/{n}.jpg" for n in (5, 3) for name in ("red", "blue", "green")]
    Path("list").write_text("\n".join([*names, names[0]]))
    monkeypatch.setattr(inference, "_PART", 3)
    command = ["predict", "--model", str(model), "--workers", "0", "--device", "cpu"]
    assert call(*command, *names, names[0], "--top", "1", "--output", "whole.csv") == 3
    capsys.readouterr()
    add, rows = PredictionFile.add, []

    def stop_later(file: PredictionFile, row: Prediction) -> None:
        if len(rows) == 4:
            raise Stop
        rows.append(row)
        add(file, row)

    given = [*command, "--from", "list", "--sort-into", "sorted", "--output", "out.csv"]
    with monkeypatch.context() as patched:
        patched.setattr(PredictionFile, "add", stop_later)
        with pytest.raises(Stop):
            main(given)
    with partials(tmp_path)[0].open("ab") as file:
        file.write(b"photos/gre")  # a row cut by a kill
    assert call(*given, "--max-pixels", "2000000") == 2  # a row of it may have another error
    assert "of a stopped command with another model, other images or" in capsys.readouterr().err
    assert call(*given) == 3
    said = capsys.readouterr().err
    assert "resuming  after 4 of 7 images" in said
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    read = csv.DictReader(Path("out.csv").read_text().splitlines())
    classes = [row["class_1"] for row in read if row["class_1"]]
    counted = sorted(Counter(classes).items(), key=lambda pair: (-pair[1], pair[0]))
    assert f"classes   {', '.join(f'{name} {n}' for name, n in counted)}\n" in said
    linked = sorted(Path("sorted").glob("*/*.jpg"))
    assert len(linked) == 5  # the repeated image once, without the broken one
    assert all(path.stat().st_nlink == 2 for path in linked)


def test_predictions_of_a_table_include_its_labels(tmp_path, capsys):
    model = tmp_path / "m.safetensors"
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL), temperature=0.05)
    save_model(model, build_seeded_network(3, 0).state_dict(), about)
    draw_photos(tmp_path / "photos")
    command = ["predict", "--model", str(model), "--workers", "0", "--device", "cpu"]
    assert call(*command, "photos/red/1.jpg", "--json") == 0
    best = json.loads(capsys.readouterr().out)["classes"][0]
    Path("t.csv").write_text(f"file,label\nred/1.jpg,{best}\nred/2.jpg,=another\n")
    assert call(*command, "t.csv", "--root", "photos", "--output", "out.csv") == 0
    assert (
        "labels    predicted as in the table: 50.0% (1 of 2 images)\n"
        "          including images that the model was trained on, if there are any: "
        "xception eval --data leaves them out\n"
    ) in capsys.readouterr().err
    rows = [line.split(",")[:3] for line in Path("out.csv").read_text().splitlines()]
    assert rows == [
        ["path", "error", "label"], ["photos/red/1.jpg", "", best],
        ["photos/red/2.jpg", "", "'=another"],
    ]  # fmt: skip
    assert call(*command, "t.csv", "--root", "photos", "--json") == 0
    assert [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()] == [
        best, "=another"
    ]  # fmt: skip
    assert call("predict", "https://x.org//a.jpg", "--model", str(model)) == 2
    assert "error: https://x.org//a.jpg is a URL, not a file" in capsys.readouterr().err


def test_the_first_image_that_could_not_be_read_is_named_and_the_file_that_has_the_others(
    tmp_path, capsys
):
    model = tmp_path / "m.safetensors"
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL), temperature=0.05)
    save_model(model, build_seeded_network(3, 0).state_dict(), about)
    photos = draw_photos(tmp_path / "photos")
    (photos / "blue" / "1.jpg").write_bytes(b"")
    command = ["predict", str(photos), "--model", str(model), "--device", "cpu", "--output"]
    failed = f"error: {{}} of 24 images could not be read:\n  {photos}/blue/1.jpg: empty file\n"
    assert call(*command, "one.csv") == 3
    assert capsys.readouterr().err.endswith(failed.format(1))
    (photos / "red" / "1.jpg").write_bytes(b"no image")
    for suffix, kind in ((".csv", "column"), (".jsonl", "key")):
        assert call(*command, f"two{suffix}") == 3
        rest = f"  and 1 more: see the {kind} error in two{suffix}\n"
        assert capsys.readouterr().err.endswith(failed.format(2) + rest)


@_SUFFIXES
def test_a_resumed_file_knows_the_first_image_that_could_not_be_read(tmp_path, suffix):
    rows, output = predictions(10), tmp_path / f"out{suffix}"
    for count in (3, 4, 9):  # the fourth could not be read
        with pytest.raises(Stop):
            write(rows, output, count)
    file = write(rows, output)
    assert (file.tally.failed, file.tally.first_failure) == (2, "two\nlines3.jpg: truncated\nfile")


def test_an_output_that_cannot_be_written_is_reported_before_the_model_is_loaded(tmp_path, capsys):
    (tmp_path / "no.safetensors").write_bytes(b"no model")
    draw_photos(tmp_path / "photos")
    Path("there.csv").touch()
    for output in ("there.csv", "no/out.csv", "out.xlsx"):
        assert call("predict", "photos", "--model", "no.safetensors", "--output", output) == 2
    assert call("predict", "photos", "--model", "no.safetensors", "--output", "out.csv") == 4
    capsys.readouterr()
    assert partials(tmp_path) == []
