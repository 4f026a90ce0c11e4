"""The survey of a data folder before training, and a person's fixes."""

import os
import re
from pathlib import Path

import pytest
from images import draw
from runs import Crash, crash, python, quick_settings, train_run

from xception_cli.check.survey import survey_data
from xception_cli.config import TrainConfig
from xception_cli.data.fixes import ISSUES_HEADER, Fix, read_fixes
from xception_cli.data.folder import read_folder
from xception_cli.data.recorded import read_split
from xception_cli.data.split import make_split
from xception_cli.errors import ArtifactError, DataError, UsageError
from xception_cli.settings import resolve


def spoil(root: Path, count: int) -> list[str]:
    """Put some bad files among drawn images; return them in order."""
    names = [f"bad{i:02}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        (root / "red" / name).write_bytes(b"" if i % 2 else b"<html>")
    return names


REASONS = ["not an image (looks like HTML)", "empty file"]


@pytest.mark.parametrize("count", [1, 20, 21, 25])
def test_every_bad_image_is_listed_at_once_and_a_long_list_is_cut(photos, count):
    lines = [f"red/{n}: {REASONS[i % 2]}" for i, n in enumerate(spoil(photos, count))]
    if count > 20:
        lines[20:] = [f"and {count - 20} more"]
    with pytest.raises(DataError) as caught:
        survey_data(TrainConfig(data=str(photos)))
    assert caught.value.message.splitlines() == [
        f"{count} of {24 + count} images in {photos} cannot be used:",
        *(f"  {line}" for line in lines),
    ]
    assert caught.value.hint == (
        "fix or remove them, or leave them out of this run with --skip-bad, or with --fixes "
        "findings/issues.csv after xception check DIR --output findings"
    )


@pytest.mark.parametrize("name", ["weights", "fixes", "split_file"])
def test_a_missing_file_of_a_setting_is_reported_before_the_data_is_listed(
    photos, monkeypatch, name
):
    listed = []
    monkeypatch.setattr("xception_cli.check.survey.read_data", lambda *given: listed.append(given))
    option = f"--{name.replace('_', '-')}"
    for given, why in (("gone.csv", "No such file or directory"), ("photos", "Is a directory")):
        with pytest.raises(UsageError) as caught:
            survey_data(TrainConfig(data=str(photos), **{name: given}))
        assert caught.value.message == f"cannot read {option} {given}: {why}"
        assert caught.value.hint
    assert not listed


@pytest.mark.parametrize("name", ["fixes", "split_file"])
def test_a_missing_and_a_damaged_file_of_a_setting_have_the_same_hint(photos, name):
    Path("bad.csv").write_text("x\n1\n")
    hints = set()
    for given in ("gone.csv", "bad.csv"):
        with pytest.raises(UsageError, match=given) as caught:
            survey_data(TrainConfig(data=str(photos), **{name: given}))
        hints.add(caught.value.hint)
    assert len(hints) == 1


def test_with_skip_bad_the_bad_images_are_left_out_of_a_real_folder(photos):
    names = spoil(photos, 4)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in photos.rglob("*")}
    survey = survey_data(TrainConfig(data=str(photos), skip_bad=True))
    made = make_split(survey.folder, seed=0, val_fraction=0.3, test_fraction=0)
    assert [(i.path, i.reason) for i in made.of("out")] == [
        (f"red/{name}", REASONS[i % 2]) for i, name in enumerate(names)
    ]
    assert len(made.of("train")) + len(made.of("val")) == 24
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in photos.rglob("*")} == before


def test_a_good_folder_passes(photos):
    survey = survey_data(TrainConfig(data=str(photos)))
    assert [look.problem for look in survey.looks] == [None] * 24


# --- fixes ---------------------------------------------------------------------------------------

HEADER = "path,problem,detail,action,label\n"


def survey_with(photos: Path, fixes: str, **changes: object):
    Path("issues.csv").write_text(fixes, encoding="utf-8")
    return survey_data(TrainConfig(data=str(photos), fixes="issues.csv", **changes))


def test_a_row_that_ends_early_is_refused(photos):
    Path("issues.csv").write_text("problem,action,path\nblurred,exclude\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 2: the path is missing, with the action exclude"):
        survey_data(TrainConfig(data=str(photos), fixes="issues.csv"))


def test_rows_without_an_action_are_ignored(photos):
    survey = survey_with(photos, HEADER + "red/0.jpg,blurred,soft,,\nexclude,small class,,,\n")
    assert survey.fixes == {}


def test_rows_with_another_label_but_no_action_are_counted_with_how_to_relabel(photos, capsys):
    rows = ("red/0.jpg,,,,blue\n", "red/1.jpg,,,,gren\n", "red/2.jpg,,,,red\n", "red/3.jpg,,,,\n")
    decided = "red/4.jpg,,,relabel,blue\n"
    assert set(survey_with(photos, HEADER + "".join(rows) + decided).fixes) == {"red/4.jpg"}
    assert (
        "note      issues.csv: ignored 2 rows with a label but no action; to change a label, write "
        "relabel in the column action\n"
    ) in capsys.readouterr().err
    survey_with(photos, HEADER + "".join(rows[2:]) + decided)
    assert "ignored" not in capsys.readouterr().err


def test_excluded_images_may_be_broken_and_others_are_still_refused(photos):
    spoil(photos, 2)
    with pytest.raises(DataError, match=r"^1 of 26 images") as caught:
        survey_with(photos, HEADER + "red/bad00.jpg,broken,empty,exclude,\n")
    assert caught.value.hint.endswith("--skip-bad, or with the action exclude in issues.csv")
    rows = "red/bad00.jpg,broken,empty,exclude,\nred/bad01.jpg,broken,empty,exclude,\n"
    survey = survey_with(photos, HEADER + rows)
    assert set(survey.fixes) == {"red/bad00.jpg", "red/bad01.jpg"}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpath,action,label\r\nred/0.jpg,Relabel,blue\r\n",
        "path;problem;action;label;mine\nred/0.jpg;x;relabel;blue;checked\n",
        "label\taction\tpath\nblue\trelabel\tred/0.jpg\n\n",
    ],
    ids=["byte order mark", "semicolons and a column", "tabs in another order"],
)
def test_a_file_saved_by_a_spreadsheet_is_read(photos, text):
    (fix,) = survey_with(photos, text).fixes.items()
    assert (fix[0], fix[1].action, fix[1].label) == ("red/0.jpg", "relabel", "blue")


def test_the_page_on_data_shows_rows_for_images_that_are_not_listed(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = re.findall(r"`(mug/\S+,,,\w+,\w*)`", page)
    for name in ("mug", "plate"):
        draw(tmp_path / "photos" / name / "IMG_0012.jpg", (9, 9, 9), seed=1)
        draw(tmp_path / "photos" / name / "IMG_0013.jpg", (9, 9, 9), seed=2)
    folder = read_folder(tmp_path / "photos")
    Path("issues.csv").write_text("\n".join([",".join(ISSUES_HEADER), *rows]), encoding="utf-8")
    assert read_fixes(Path("issues.csv"), folder) == {
        "mug/IMG_0012.jpg": Fix("relabel", "", "plate"),
        "mug/IMG_0013.jpg": Fix("exclude", ""),
    }


def test_fixes_saved_by_a_european_excel_are_read(photos):
    (photos / "red" / "0.jpg").rename(photos / "red" / "Käfer.jpg")
    rows = "path;action;label\r\nred/Käfer.jpg;relabel;blue\r\n"
    Path("issues.csv").write_bytes(rows.encode("cp1252"))
    assert set(survey_data(TrainConfig(data=str(photos), fixes="issues.csv")).fixes) == {
        "red/Käfer.jpg"
    }


def test_a_workbook_is_not_read_as_fixes_and_the_error_explains_how_to_save_it(photos, capsys):
    Path("issues.xlsx").write_bytes(b"PK\x03\x04\x14\x00\x08\x08\x08\x00\xe9")
    with pytest.raises(UsageError, match=r"not UTF-8; .*in Excel: File > Save as > CSV UTF-8"):
        survey_data(TrainConfig(data=str(photos), fixes="issues.xlsx"))
    assert "Windows-1252" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("\nred/9.jpg,,,exclude,\n", "line 3: there is no image red/9.jpg in the data folder"),
        ("red/0.jpg,,,exclud,\n", "line 2: action is 'exclud', expected exclude or relabel; did "
         "you mean exclude?"),
        ("red/0.jpg,,,relabel,\n", "line 2: label is '', which is no class of the folder"),
        ("red/0.jpg,,,relabel,gren\n", "line 2: label is 'gren', which is no class of the folder; "
         "did you mean green?"),
        ("red/0.jpg,,,exclude,\nred/0.jpg,,,relabel,blue\n",
         "line 3: red/0.jpg has the action relabel to blue, but exclude in line 2: empty one of "
         "the two"),
        ("red/0.jpg,,,relabel,green\nred/0.jpg,,,,\nred/0.jpg,,,relabel,blue\n",
         "line 4: red/0.jpg has the action relabel to blue, but relabel to green in line 2: empty "
         "one of the two"),
        ("red/0.jpg,Exclude\n", "line 2: 'Exclude' is in the column problem, not in action"),
        ("red/0.jpg,blurred,relabel\n",
         "line 2: 'relabel' is in the column detail, not in action"),
        ("red/0.jpg,blurred,,,exclude\n",
         "line 2: 'exclude' is in the column label, not in action"),
        ("red/0.jpg;;;exclude;\n",
         "line 2: 'red/0.jpg;;;exclude;' is one cell: the first line has another separator"),
        (",,,exclude,\n", "line 2: the path is missing, with the action exclude"),
    ],
)  # fmt: skip
def test_an_invalid_row_is_refused_with_its_line(photos, rows, expected):
    with pytest.raises(UsageError) as caught:
        survey_with(photos, HEADER + rows)
    assert caught.value.message.splitlines()[1:] == [f"  {expected}"]
    assert caught.value.hint == "correct these rows, or empty the cell `action` to ignore a row"


def test_an_image_may_have_several_rows_with_the_same_action(photos):
    rows = "red/0.jpg,leak,,exclude,\nred/0.jpg,duplicate,,,\nred/0.jpg,duplicate,,Exclude,red\n"
    assert survey_with(photos, HEADER + rows).fixes["red/0.jpg"].action == "exclude"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "it is empty"), ("a,b\n1,2\n", "has no column path or action, but: a, b")],
)
def test_a_file_that_is_not_a_table_of_issues_is_refused(photos, text, expected):
    with pytest.raises(UsageError, match=expected):
        survey_with(photos, text)


def test_fixes_without_an_action_change_nothing_which_a_note_reports(photos, capsys):
    assert survey_with(photos, HEADER + "red/0.jpg,blurred,,,\n").fixes == {}
    note = "note      no row of issues.csv has an action: it changes nothing\n"
    assert note in capsys.readouterr().err
    assert survey_with(photos, HEADER + "red/0.jpg,blurred,,exclude,\n").fixes
    assert "has an action" not in capsys.readouterr().err


def test_an_action_may_be_the_name_of_a_class(photos):
    (photos / "red").rename(photos / "exclude")
    fixes = survey_with(photos, HEADER + "blue/0.jpg,,,,exclude\nblue/1.jpg,,,relabel,exclude\n")
    assert {path: fix.label for path, fix in fixes.fixes.items()} == {"blue/1.jpg": "exclude"}


def test_fixes_end_up_in_the_split_with_their_reason_and_no_file_is_touched(
    photos, random_weights, monkeypatch
):
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in photos.rglob("*")}
    rows = "red/0.jpg,blurred,soft,exclude,\nred/1.jpg,suspect label,,relabel,blue\n"
    Path("issues.csv").write_text(HEADER + rows)
    settings = quick_settings(photos, random_weights) | {"unfreeze": "head"}
    with monkeypatch.context() as patch:  # the split is written before
        patch.setattr("xception_cli.training.run.compute_baseline", lambda *_, **__: crash())
        with pytest.raises(Crash):
            train_run(settings | {"fixes": "issues.csv"})
    split = read_split(Path("run/split.csv"), ["blue", "green", "red"])
    images = {image.path: image for image in split.images}
    assert (images["red/0.jpg"].split, images["red/0.jpg"].reason) == ("out", "excluded: blurred")
    assert images["red/1.jpg"].label == 0
    assert images["red/1.jpg"].reason.endswith("; relabelled from red")
    Path("issues.csv").unlink()  # a resume needs its decisions, not the file
    assert train_run({}, resume=True).run.is_finished
    assert read_split(Path("run/split.csv"), ["blue", "green", "red"]) == split
    assert Path("run/fixes.csv").read_text() == HEADER + rows  # a run that begins with it, too
    train_run({"from_": "run", "data": str(photos)}, "next")
    Path("run/fixes.csv").write_text(HEADER + rows.splitlines()[0])  # a fix is lost
    with pytest.raises(ArtifactError, match=r"run/fixes\.csv has changed since") as caught:
        train_run({"from_": "run", "data": str(photos)}, "third")
    assert caught.value.hint.endswith("--fixes FILE")
    assert resolve({"from_": "run", "fixes": "run/fixes.csv"}, None).config.fixes
    again = {i.path: i for i in read_split(Path("next/split.csv"), ["blue", "green", "red"]).images}
    assert (again["red/0.jpg"].split, again["red/1.jpg"].label) == ("out", 0)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in photos.rglob("*")} == before


def test_findings_of_a_run_that_were_broken_by_an_edit_are_kept_and_do_not_stop_it(
    photos, random_weights, monkeypatch, capsys
):
    settings = quick_settings(photos, random_weights) | {"unfreeze": "head"}
    with monkeypatch.context() as patch:
        patch.setattr("xception_cli.training.run.compute_baseline", lambda *_, **__: crash())
        with pytest.raises(Crash):
            train_run(settings)
    broken = HEADER + '"red/0.jpg,blurred,,exclude,\n'
    Path("run/issues.csv").write_text(broken)
    assert train_run({}, resume=True).run.is_finished
    assert Path("run/issues.csv").read_text() == broken
    assert (
        "warning   cannot read the findings run/issues.csv: not a CSV file: line 2 has a quote "
        '(") in the wrong place; suspect labels are not added\n' in capsys.readouterr().err
    )


def test_a_split_file_and_a_pattern_that_do_not_fit_are_refused_before_the_scan(photos, capsys):
    Path("mine.csv").write_text("path,split\nred/0.jpg,train\n")
    with pytest.raises(DataError, match=r"mine\.csv does not match the images"):
        survey_data(TrainConfig(data=str(photos), split_file="mine.csv"))
    with pytest.raises(UsageError, match="no path matches --group-by"):
        survey_data(TrainConfig(data=str(photos), group_by="(lilac)"))
    assert capsys.readouterr().err == ""
    assert survey_data(TrainConfig(data=str(photos), group_by="(red)")).looks  # the control


def test_every_broken_file_is_listed_before_torch_is_loaded(photos):
    spoil(photos, 3)
    script = (
        "import sys\nfrom xception_cli.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print('torch' in sys.modules)"
    )
    done = python(
        *("-c", script, "train", "--data", str(photos)),
        env={**os.environ, "XCEPTION_CACHE": str(Path("cache").absolute())},
    )
    assert (done.returncode, done.stdout) == (3, "False\n")
    assert "3 of 27 images" in done.stderr
    assert not Path("runs").exists()
