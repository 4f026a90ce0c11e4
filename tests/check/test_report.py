"""`xception check` for a user: the terminal, JSON, issues.csv, the page, exit codes."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from folders import names_in, snapshot
from images import encoded, exif, photo, put, two_classes
from pages import Page, faults_of
from PIL import Image
from runs import call, files_no_larger_than, python

from xception_cli.check.report import CheckReport, Finding, Problem
from xception_cli.check.run import run_check
from xception_cli.check.text import report_text
from xception_cli.csv_files import from_csv
from xception_cli.data.fixes import ISSUES_HEADER
from xception_cli.data.folder import read_folder
from xception_cli.numerals import count_of
from xception_cli.report.check_page import issues_csv, page_html

ISSUES = Path("out/issues.csv")
HOSTILE = os.fsdecode(b"\x1b[2J<script>caf\xe9\n\"'[/]=.jpg")


def clean(root: Path) -> Path:
    return two_classes(root, 12)


@pytest.fixture
def messy(tmp_path: Path, without_heif: None) -> Path:
    """A set with nearly all kinds of problems."""
    root = tmp_path / "food"
    for number in range(48):
        split = "val" if number % 4 == 3 else "train"
        put(root / split / ("apple", "pear")[number % 2] / f"{number:02}.jpg", photo(number))
    for number in range(0, 12, 2):
        put(root / "val" / "apple" / f"v{number}.jpg", photo(200 + number))
        put(root / "train" / "apple" / f"empty{number}.jpg", b"")
    put(root / "train" / "pear" / HOSTILE, encoded(photo(99))[:-2])
    shutil.copy(root / "train" / "apple" / "00.jpg", root / "train" / "pear" / "wrong.jpg")
    put(root / "val" / "pear" / "leak.png", photo(1).resize((80, 60)))
    put(root / "train" / "pear" / "turned.jpg", encoded(photo(77), exif=exif(6)))
    put(root / "train" / "pear" / "notes.txt", b"hello")
    put(root / "train" / "pear" / "iphone.heic", b"hello")
    return root


def reported(root: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    code = call("check", str(root), *options)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


# --- the terminal ---------------------------------------------------------------------------------


def test_a_clean_folder_is_reported_in_two_lines(tmp_path, capsys):
    clean(tmp_path / "pets")
    assert reported(Path("pets"), capsys) == (
        0,
        "data      pets: 24 images, 2 classes, 12 in each class\n"
        "result    nothing would stop training, and there is no warning\n",
        "next: xception train pets --classes 2\n",
    )


def test_all_problems_are_reported_at_once_grouped_and_counted_with_examples(messy, capsys):
    code, out, err = reported(Path("food"), capsys)
    assert code == 3
    assert out == MESSY
    assert err == "next: xception check food --output food-check\n"
    assert max(map(len, out.splitlines())) <= 80


MESSY = r"""data      food: 64 images, 2 classes, 45 in train, 19 in val, 28 (pear) to 36
          (apple) in each class
stops     7 files cannot be decoded: 6 empty file, 1 truncated
          train/apple/empty0.jpg: empty file
          train/pear/\x1b[2J<script>caf\xe9\x0a"'[/]=.jpg: truncated
          train/apple/empty10.jpg: empty file
          train/apple/empty2.jpg: empty file
          train/apple/empty4.jpg: empty file
          and 2 more
warning   1 image is in more than one class
          train/apple/00.jpg: identical to train/pear/wrong.jpg
warning   1 image is in more than one split: metrics measured there will be too
          optimistic
          train/pear/01.jpg: nearly identical to val/pear/leak.png
note      2 files ignored: 1 .heic, 1 .txt; to read 1 HEIC: pip install
          'xception-cli[heif]'
note      1 image rotated by EXIF (shown upright)
          train/pear/turned.jpg: orientation 6
result    1 problem would stop training, and 2 warnings
"""


def test_the_lines_of_a_hint_are_below_the_problem() -> None:
    problem = Problem("folder", "stops", "only one class", hint="make folders:\n  a/1.jpg\nor so")
    report = CheckReport("data", Path("data"), ("a",), {"all": (1,)}, (problem,))
    assert report_text(report).plain.splitlines()[1:5] == [
        "stops     only one class",
        "          make folders:",
        "            a/1.jpg",
        "          or so",
    ]


def test_the_report_fits_a_terminal_of_80_columns_unless_a_path_is_longer():
    words = "a word " * 60
    long = "x" * 100 + ".jpg"
    findings = (Finding("a.jpg", "short"), Finding(long, "d" * 60), Finding("b.jpg", "d" * 70))
    report = CheckReport(
        "data", Path("data"), ("a", "b"), {"all": (1, 2)}, (Problem("p", "stops", words, findings),)
    )
    lines = report_text(report).plain.splitlines()
    assert [line for line in lines if len(line) > 80] == [
        f"          {long}:",
        "            " + "d" * 70,
    ]
    assert [line for line in lines if line.startswith(" " * 12)] == [
        "            " + "d" * 60, "            " + "d" * 70,
    ]  # fmt: skip


def test_a_hostile_name_does_not_reach_the_terminal(messy, capsys):
    for options in ((), ("--json",), ("--output", "out")):
        _, out, err = reported(messy, capsys, *options)
        assert not re.search(r"[^\n\x20-\x7e]", out + err)
    put(messy / "train" / "apple" / "0[/] :smile: [bold]x.jpg", b"")
    shown = reported(messy, capsys)[1]
    assert "\n          train/apple/0[/] :smile: [bold]x.jpg: empty file\n" in shown


def test_the_next_command_is_printed(tmp_path, capsys):
    def following(*options: str) -> str:
        return reported(Path("a b"), capsys, *options)[2].splitlines()[-1]

    clean(tmp_path / "a b")
    assert following() == "next: xception train 'a b' --classes 2"
    grouped = ("--group-by", r"(\d+)\.jpg", "--max-pixels", "1000000")
    again = r" --group-by '(\d+)\.jpg' --max-pixels 1000000"
    assert following(*grouped) == f"next: xception train 'a b' --classes 2{again}"
    put(tmp_path / "a b" / "cat" / "empty.jpg", b"")
    assert following(*grouped) == f"next: xception check 'a b'{again} --output 'a b-check'"
    assert following() == "next: xception check 'a b' --output 'a b-check'"
    assert following("--output", "1 b") == (
        "next: xception train 'a b' --classes 2 --fixes '1 b/issues.csv'"
    )
    (tmp_path / "a b" / "cow").mkdir()
    assert following("--output", "2") == "next: xception check 'a b'"
    (tmp_path / "a b" / "cat" / "empty.jpg").unlink()
    assert following() == "next: xception check 'a b'"  # a page would show no more


def test_the_suggested_output_is_never_inside_the_data(tmp_path, capsys, monkeypatch):
    clean(tmp_path / "pets")
    put(tmp_path / "pets" / "cat" / "empty.jpg", b"")
    monkeypatch.chdir(tmp_path / "pets")
    suggested = "xception check . --output ../pets-check"
    assert reported(Path(), capsys)[2] == f"next: {suggested}\n"
    assert call(*suggested.split()[1:]) == 3
    assert names_in(tmp_path / "pets-check") == ["check.html", "issues.csv"]
    (tmp_path / "pets" / "cat" / "empty.jpg").unlink()
    trains = reported(Path(), capsys)[2].splitlines()[-1]
    assert trains == "next: xception train . --classes 2 --output ../runs/pets"


def test_counts_use_singular_and_plural():
    words = [count_of(n, what) for n in (1, 2) for what in ("image", "class", "copy")]
    assert words == ["1 image", "1 class", "1 copy", "2 images", "2 classes", "2 copies"]
    assert count_of(12000, "file") == "12,000 files"


# --- exit codes -----------------------------------------------------------------------------------


def test_warnings_end_with_3_only_when_asked_for(tmp_path, capsys):
    clean(tmp_path / "pets")
    assert reported(tmp_path / "pets", capsys, "--strict")[0] == 0
    put(tmp_path / "pets" / "cat" / "turned.jpg", encoded(photo(77), exif=exif(6)))
    assert reported(tmp_path / "pets", capsys, "--strict")[0] == 0  # a note is not a warning
    shutil.copy(tmp_path / "pets" / "cat" / "1.jpg", tmp_path / "pets" / "dog" / "x.jpg")
    assert reported(tmp_path / "pets", capsys)[0] == 0
    assert reported(tmp_path / "pets", capsys, "--strict")[0] == 3


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda root: None, 2, "the data folder data does not exist"),
        (lambda root: put(root, b""), 2, "data is neither a folder nor a table"),
        (lambda root: root.mkdir(), 3, "found no class folders in data"),
        (lambda root: put(root / "1.jpg", photo(1)), 3,
         "found 1 image but no class folders in data"),
    ],
    ids=["missing", "a file", "empty", "flat"],
)  # fmt: skip
def test_what_cannot_be_checked_is_an_error_with_its_exit_code(
    tmp_path, capsys, make, code, message
):
    make(tmp_path / "data")
    found, out, err = reported(Path("data"), capsys)
    assert (found, out) == (code, "")
    assert err.startswith(f"error: {message}\nhint: ")


def test_a_folder_of_one_class_and_an_empty_folder_are_checked_too(tmp_path, capsys):
    put(tmp_path / "data" / "cat" / "empty.jpg", b"")
    code, out, _ = reported(Path("data"), capsys)
    assert code == 3
    assert out == (
        "data      data: 1 image, 1 class, 1 in each class\n"
        "stops     found only one class in data: cat; need at least 2\n"
        "          make one folder per class, with its images inside:\n"
        "            food/apple/1.jpg\n"
        "            food/pear/1.jpg\n"
        "          or the same inside food/train and food/val; xception sample DIR\n"
        "          creates an example\n"
        "stops     1 file cannot be decoded: 1 empty file\n"
        "          cat/empty.jpg: empty file\n"
        "warning   fewer than 10 images of cat (1): too few to trust\n"
        "warning   no image is left for validation of cat: nothing is measured there\n"
        "result    2 problems would stop training, and 2 warnings\n"
    )
    (tmp_path / "none" / "cat").mkdir(parents=True)
    assert reported(Path("none"), capsys, "--output", "out")[0] == 3


# --- JSON -----------------------------------------------------------------------------------------


def test_a_folder_without_a_usable_image_is_checked_with_a_pattern_too(tmp_path, capsys):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{name}\n"
        (tmp_path / name / "patient1_0.jpg").write_text(pointer)
    assert call("check", str(tmp_path), "--group-by", r"patient(\d+)") == 3
    assert "a Git LFS pointer: run git lfs pull" in capsys.readouterr().out


def test_json_is_one_line_that_holds_the_whole_report(messy, capsys):
    code, out, err = reported(messy, capsys, "--json")
    assert code == 3
    assert out.count("\n") == 1
    assert err.startswith("next: ")
    report = json.loads(out)
    assert report == run_check(read_folder(messy)).to_dict()
    assert list(report) == ["data", "images", "classes", "problems"]
    assert report["images"] == 64
    assert report["classes"] == {
        "train": {"apple": 30, "pear": 15}, "val": {"apple": 6, "pear": 13},
    }  # fmt: skip
    problems = {problem["name"]: problem for problem in report["problems"]}
    assert problems["conflicting labels"] == {
        "name": "conflicting labels",
        "severity": "warning",
        "summary": "1 image is in more than one class",
        "findings": [
            {"path": "train/apple/00.jpg", "detail": "identical to train/pear/wrong.jpg",
             "action": "", "label": "", "others": ["train/pear/wrong.jpg"]},
            {"path": "train/pear/wrong.jpg", "detail": "identical to train/apple/00.jpg",
             "action": "", "label": "", "others": ["train/apple/00.jpg"]},
        ],
    }  # fmt: skip
    (hostile,) = [f for f in problems["broken"]["findings"] if "script" in f["path"]]
    assert hostile["path"] == "train/pear/\x1b[2J<script>caf\\xe9\n\"'[/]=.jpg"


# --- files ----------------------------------------------------------------------------------------


def test_the_output_is_a_table_and_a_page(messy, capsys):
    before = snapshot(messy)
    code, _, err = reported(messy, capsys, "--output", "some/where")
    assert code == 3
    assert err == (
        "page      some/where/check.html: open it in a browser\n"
        "issues    some/where/issues.csv: review the column action, then train with it\n"
        f"next: xception train {messy} --classes 2 --fixes some/where/issues.csv\n"
    )
    assert names_in(Path("some/where")) == ["check.html", "issues.csv"]
    assert snapshot(messy) == before


def test_issues_csv_has_one_row_for_each_finding_the_worst_first(messy):
    report = run_check(read_folder(messy))
    content = issues_csv(report)
    put(Path("issues.csv"), content)
    rows = list(from_csv(Path("issues.csv"), ISSUES_HEADER))
    assert rows == [[f"train/apple/empty{n}.jpg", "broken", "empty file", "exclude", ""]
        for n in (0, 10, 2, 4, 6, 8)] + [
        ["train/pear/\x1b[2J<script>caf\\xe9\n\"'[/]=.jpg", "broken", "truncated", "exclude", ""],
        ["train/apple/00.jpg", "conflicting labels", "identical to train/pear/wrong.jpg", "",
         ""],
        ["train/pear/wrong.jpg", "conflicting labels", "identical to train/apple/00.jpg", "",
         ""],
        ["train/pear/01.jpg", "leak", "nearly identical to val/pear/leak.png", "exclude", ""],
        ["train/pear/turned.jpg", "EXIF-rotated", "orientation 6", "", ""],
    ]  # fmt: skip
    assert content.startswith(b"path,problem,detail,action,label\n")


def test_a_name_that_a_spreadsheet_would_evaluate_is_written_as_text(tmp_path):
    put(clean(tmp_path) / "cat" / "x.jpg", b"")
    report = CheckReport("d", Path("d"), ("=a",), {"all": (1,)}, (
        Problem("p", "note", "s", (Finding("=1+1.jpg", "-x", "", "@y"),)),
    ))  # fmt: skip
    assert issues_csv(report) == b"path,problem,detail,action,label\n'=1+1.jpg,p,'-x,,'@y\n"


def test_an_edited_table_is_not_overwritten_and_nothing_is_scanned(messy, capsys):
    put(Path("out/issues.csv"), b"edited")
    code, out, err = reported(messy, capsys, "--output", "out")
    assert (code, out) == (2, "")
    assert err == (
        "error: out/issues.csv already exists, and may have been edited\n"
        "hint: choose another --output, or remove it\n"
    )
    assert Path("out/issues.csv").read_bytes() == b"edited"


def test_a_full_disk_is_reported_before_anything_is_scanned(messy, capsys):
    with files_no_larger_than(0):
        code = call("check", str(messy), "--output", "out/a")
    assert code == 5
    assert capsys.readouterr().err == (
        f"error: cannot write out/a/issues.csv: {Path.cwd()} is not writable: File too large\n"
        "hint: choose another --output\n"
    )
    assert not Path("out").exists()


def test_a_check_whose_output_did_not_fit_can_be_typed_again(messy, capsys):
    with files_no_larger_than(2000):
        assert call("check", str(messy), "--output", "out") == 5
    assert "cannot write out/check.html" in capsys.readouterr().err
    assert list(Path("out").iterdir()) == []
    assert call("check", str(messy), "--output", "out") == 3


@pytest.mark.parametrize("output", ["food", "food/out", "link/out", "food/../food/x"])
def test_nothing_is_written_into_the_data_folder(messy, capsys, output):
    Path("link").symlink_to("food")
    before = snapshot(messy)
    code, out, err = reported(messy, capsys, "--output", output)
    assert (code, out) == (2, "")
    assert err.startswith(
        f"error: --output {output} is inside the data folder, where nothing is ever"
    )
    assert snapshot(messy) == before


def test_an_output_that_cannot_be_created_is_a_machine_error(messy, capsys):
    put(Path("file"), b"")
    code, _, err = reported(messy, capsys, "--output", "file/out")
    assert code == 5
    assert err == (
        f"error: cannot write file/out/issues.csv: {Path('file').absolute()} is not writable: Not "
        "a directory\nhint: choose another --output\n"
    )


# --- the page -------------------------------------------------------------------------------------


ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "section", "table",
    "tr", "th", "td", "span", "div", "figure", "figcaption", "b", "br", "img", "a", "code",
    "li", "ol", "thead",
}  # fmt: skip


def test_the_page_shows_everything_without_scripts_or_external_resources(messy):
    text = page_html(run_check(read_folder(messy)), ISSUES)
    page = Page(text)
    assert faults_of(text) == []
    assert {tag for tag, _ in page.elements} <= ELEMENTS
    attributes = {name for _, each in page.elements for name in each}
    assert attributes <= {
        "lang", "charset", "http-equiv", "content", "name", "class", "style", "scope", "src",
        "alt", "width", "height", "href",
    }  # fmt: skip
    assert page.of("meta")[1] == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    }
    assert {"name": "color-scheme", "content": "light dark"} in page.of("meta")
    assert all(img["src"].startswith("data:image/jpeg;base64,") for img in page.of("img"))
    # conflicting labels 2, leak 2, turned 1; the broken ones have no image
    assert [img["alt"] for img in page.of("img")] == [
        "train/apple/00.jpg", "train/pear/wrong.jpg", "train/pear/01.jpg", "val/pear/leak.png",
        "train/pear/turned.jpg",
    ]  # fmt: skip
    assert page.texts.count("no image") == 7
    assert r"train/pear/\x1b[2J<script>caf\xe9\x0a" + "\"'[/]=.jpg" in page.text
    assert "2 files ignored: 1 .heic, 1 .txt; to read 1 HEIC: pip install" in page.text


def test_the_page_leads_to_action_and_suggests_nothing_for_conflicting_labels(tmp_path):
    root = clean(tmp_path / "my pets")
    shutil.copy(root / "cat" / "1.jpg", root / "dog" / "x.jpg")
    shutil.copy(root / "cat" / "2.jpg", root / "cat" / "y.jpg")
    report = run_check(read_folder(root))
    page = Page(page_html(report, Path("o ut/issues.csv")))
    assert (
        "What to do next Review the images below. Record decisions in the column action of "
        "issues.csv: exclude leaves an image out, relabel gives it the class in the column label, "
        "an empty cell keeps it. exclude is filled in for 1 image. 2 rows are for a person to "
        "decide. Train with these decisions. "
        f"xception train '{root}' --classes 2 --fixes 'o ut/issues.csv' warning " in page.text
    )
    assert page.of("a") == [{"href": "issues.csv"}]
    assert page.text.count("suggested action: exclude") == 1
    (root / "dog" / "x.jpg").unlink()
    (root / "cat" / "y.jpg").unlink()
    sound = Page(page_html(run_check(read_folder(root)), ISSUES))
    assert "24 images, 2 classes. Nothing would stop training" in sound.text
    assert f"nothing to decide. xception train '{root}' --classes 2 Images by class" in sound.text
    (root / "cow").mkdir()
    page = Page(page_html(run_check(read_folder(root)), ISSUES))
    assert (
        f"cow; add images, or remove the folder. Check again. xception check '{root}' stops "
        in page.text
    )
    assert "xception train" not in page.text


def test_the_page_explains_what_to_do_about_sub_folders(tmp_path):
    root = tmp_path / "pets"
    for seed in range(8):
        put(root / ("cat", "dog")[seed % 2] / f"2026-06-1{seed // 4}" / f"{seed}.jpg", photo(seed))
    page = Page(page_html(run_check(read_folder(root)), ISSUES))
    assert "sub-folders of the same names" in page.text
    assert "If the sub-folders are the classes, check the folder that holds them" in page.text


def test_the_images_on_the_page_are_small_and_upright(messy):
    page = Page(page_html(run_check(read_folder(messy)), ISSUES))
    for img in page.of("img"):
        image = Image.open(io.BytesIO(base64.b64decode(img["src"].partition(",")[2])))
        assert (str(image.width), str(image.height)) == (img["width"], img["height"])
        assert max(image.size) <= 192
        assert (image.width < image.height) == img["alt"].endswith("turned.jpg")


def test_hostile_class_names_and_folders_are_text_on_the_page(tmp_path):
    root = tmp_path / "<b>"
    for name in ('"><img src=x onerror=alert(1)>', "&amp;", "\x1b]0;t\x07"):
        try:
            put(root / name / "1.jpg", photo(len(name)))
        except OSError:
            put(root / name.replace("/", "") / "1.jpg", photo(len(name)))
    page = Page(page_html(run_check(read_folder(root)), ISSUES))
    assert '"><img src=x onerror=alert(1)>' in page.texts
    assert "&amp;" in page.texts
    assert r"\x1b]0;t\x07" in page.texts
    assert page.of("img") == []


def test_a_page_of_many_findings_shows_some_and_counts_the_others(tmp_path):
    clean(tmp_path / "pets")
    for number in range(60):
        put(tmp_path / "pets" / "cat" / f"empty{number}.jpg", b"")
    text = page_html(run_check(read_folder(tmp_path / "pets")), ISSUES)
    assert text.count("<figure>") == 48
    assert "and 12 more, in issues.csv" in Page(text).text


def test_the_page_is_complete_when_an_image_is_missing(tmp_path):
    root = clean(tmp_path / "pets")
    shutil.copy(root / "cat" / "1.jpg", root / "dog" / "x.jpg")
    report = run_check(read_folder(root))
    (root / "cat" / "1.jpg").unlink()
    page = Page(page_html(report, ISSUES))
    assert page.texts.count("no image") == 1
    assert len(page.of("img")) == 1


# --- weight ---------------------------------------------------------------------------------------


def test_a_check_loads_neither_torch_nor_matplotlib(messy):
    code = (
        "import sys\nfrom xception_cli.cli import main\n"
        f"try:\n    main(['check', {str(messy)!r}, '--output', 'out'])\n"
        "finally:\n    print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    done = python("-c", code)
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_closed_pipe_ends_the_check_quietly(tmp_path):
    clean(tmp_path / "pets")
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m xception_cli check pets --json | true; "
         "echo ${PIPESTATUS[0]}"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "141\n"
    assert "Traceback" not in done.stderr
