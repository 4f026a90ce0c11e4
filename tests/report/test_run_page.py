"""report.html: one safe page that says how good the model is and what to do next."""

import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import draw_photos
from runs import call, quick_settings, train_run

from xception_cli.check.report import CONFLICTING, SUSPECT
from xception_cli.files import file_digest
from xception_cli.report.charts import confusion_order, draw_curves, draw_matrix
from xception_cli.report.pictures import draw_issues
from xception_cli.rundir import RunDir, read_json, write_json

HOSTILE = "a<script>alert(1)&\"'"
GUARANTEED = "On new images like these, at least 90% are (85% confidence)."
NO_THRESHOLD = "No threshold guarantees 90% precision (85% confidence)"


def assert_headings_in_order(page: "_Page") -> None:
    """The levels go down one by one: a screen reader's outline has no holes."""
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, random_weights: Path) -> RunDir:
    """A small run, one of whose classes has a hostile name."""
    folder = tmp_path_factory.mktemp("run")
    photos = draw_photos(folder / "photos")
    (photos / "red").rename(photos / HOSTILE)
    shutil.copy(photos / "blue" / "0.jpg", photos / "blue" / "copy.jpg")
    shutil.copy(photos / "blue" / "1.jpg", photos / "green" / "wrong.jpg")
    settings = quick_settings(photos, random_weights) | {"epochs": 2, "views": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return RunDir(folder / train_run(settings).run.path)


class _Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_loads_nothing_runs_nothing_and_describes_its_pictures(run: RunDir):
    text = run.report.read_text(encoding="utf-8")
    page = _Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "link", "object", "embed", "form", "a"}
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    policy = page.of("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'; img-src data:")
    assert page.of("img")
    for image in page.of("img"):
        assert image["src"].startswith("data:image/")
        assert image["alt"]
    assert all(drawing["role"] == "img" for drawing in page.of("svg"))
    assert len(re.findall(r"<svg[^>]*(?: aria-label=|>\n<title>)", text)) == len(page.of("svg"))
    assert "url(http" not in text
    assert "@import" not in text
    assert "&lt;script&gt;" in text
    assert_headings_in_order(page)
    labelled = {label["for"] for label in page.of("label")}
    assert labelled == {given["id"] for given in page.of("input")} == {"order0", "order1"}
    assert all(cell.get("scope") in {"row", "col"} for cell in page.of("th"))
    regions = [a for _, a in page.tags if a.get("class") == "scroll"]
    assert regions
    assert all(region["tabindex"] == "0" and region["aria-label"] for region in regions)
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert run.report.stat().st_size < 2_000_000


def test_the_first_lines_say_how_good_how_sure_and_what_next(run: RunDir):
    text = re.sub(r"<style>.*?</style>", "", run.report.read_text(encoding="utf-8"), flags=re.S)
    start = re.sub(r"<[^>]+>", " ", text)[:2500]
    assert re.search(
        r"\d+\.\d% +is the accuracy to expect on new images like these "
        r"\(95% CI \d+\.\d-\d+\.\d%, from \d+ validation images(?: in \d+ groups)?, "
        r"corrected for selecting the best of \d+ models on them\)\.",
        start,
    )
    assert "always predicting the largest class" in start
    assert "expect a little less" not in start
    assert "What to do next" in start
    assert "xception check" in start


def test_the_page_holds_all_that_a_run_is_judged_by(run: RunDir):
    text = run.report.read_text(encoding="utf-8")
    titles = [re.sub("<.*?>", "", title) for title in re.findall(r"<h2>(.*?)</h2>", text)]
    assert titles == [
        "What to do next", "Training", "Confusion matrix", "Class by class",
        "The most confident mistakes", "Correct, but least confident",
        "Suspected wrong labels and copies", "What the network sees", "Confidence", "The data",
        "The network",
        "Settings, versions, hashes",
    ]  # fmt: skip
    groups = re.findall(r"<h3>(.*?)</h3>", text)
    assert groups[-2:] == [
        "The same picture in two classes: 1",
        "The same picture twice in a class: 1",
    ]
    assert "identical to blue/0.jpg</b><br>blue/copy.jpg" in text
    assert "identical to green/wrong.jpg</b><br>blue/1.jpg" in text
    assert "Frozen: entry flow, middle flow. Trained: exit flow, head." in text
    assert "Exit flow, trained" in text
    assert file_digest(run.model) in text
    assert run.read_info()["data_fingerprint"] in text
    assert run.read_info()["weights"]["digest"] in text
    assert "xception train --config run/config.toml</code> repeats the run" in text


def drawn_again(run: RunDir, folder: Path, **changes: Any) -> str:
    """Draw the page of a copy of the run, whose result says something else."""
    copy = RunDir(Path(shutil.copytree(run.path, folder / "again")))
    write_json(copy.result, read_json(copy.result) | changes)
    assert call("report", str(copy.path), "--device", "cpu") == 0
    return copy.report.read_text(encoding="utf-8")


def test_the_page_names_the_classes_that_more_images_would_help(run: RunDir, tmp_path: Path):
    parts = {"half": 0.5, "whole": 0.75, "verdict": "more"}
    gains = [{"name": name, **parts} for name in (HOSTILE, "blue", "green", "a fourth one")]
    text = drawn_again(run, tmp_path / "with", gains=gains)
    assert (
        "More images of these classes are likely to help: a&lt;script&gt;alert(1)&amp;&quot;&#x27; "
        "(50% to 75%), blue (50% to 75%), green (50% to 75%)."
    ) in text
    assert "a fourth one" not in text
    assert "likely to help" not in drawn_again(run, tmp_path / "without", gains=[])  # the control


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({"confidence": 0.8}, GUARANTEED, NO_THRESHOLD),
        ({"confidence": None}, NO_THRESHOLD, GUARANTEED),
    ],
    ids=["with a threshold", "without one"],
)
def test_the_page_reports_what_is_guaranteed_of_the_answers_and_how_surely(
    run: RunDir, tmp_path: Path, changes: dict[str, Any], said: str, unsaid: str
):
    found = read_json(run.result)["calibration"]
    found |= {"target_precision": 0.9, "precision_confidence": 0.85} | changes
    text = drawn_again(run, tmp_path, calibration=found)
    assert said in text
    assert unsaid not in text


def test_the_page_of_an_earlier_version_guarantees_nothing(run: RunDir, tmp_path: Path):
    found = read_json(run.result)["calibration"]
    del found["precision_confidence"]
    text = drawn_again(run, tmp_path, calibration=found)
    assert GUARANTEED.partition("90%")[0] not in text
    assert NO_THRESHOLD.partition("90%")[0] not in text


def doubt(number: int, problem: str = SUSPECT, detail: str = "looks like a (98%), not b (1%)"):
    return {"path": f"b/{number}.jpg", "problem": problem, "detail": detail}


def test_of_many_doubts_the_worst_are_shown_and_the_others_counted(photos: Path):
    rows = [doubt(number) for number in range(30)]
    pairs = [(f"b/{n}.jpg", f"a/{n}.jpg") for n in range(20)]
    for one, other in pairs:  # told from both sides
        rows.append(doubt(0, CONFLICTING, f"nearly identical to {other}") | {"path": one})
        rows.append(doubt(0, CONFLICTING, f"nearly identical to {one}") | {"path": other})
    rows.append(doubt(1, "blurred", "sharpness 0.1"))
    drawn = draw_issues(rows, photos)
    assert drawn.count("<figure>") == 12 + 8
    assert re.findall(r"<h3>(.*?)</h3>", drawn) == [
        "Suspect labels: 30", "The same picture in two classes: 20",
    ]  # fmt: skip
    assert re.findall(r"and .* more", drawn) == ["and 18 more", "and 12 more"]
    assert "blurred" not in drawn
    assert drawn.count("no picture") == 12 + 2 * 8
    assert draw_issues([doubt(1, "blurred")], photos) == ""
    assert "&lt;b&gt;" in draw_issues([doubt(1, detail="<b>")], photos)


@pytest.mark.parametrize("content", [None, b"a;b\n1;2\n", b"path,action\nblue/0.jpg,exclude\n"])
def test_issues_that_somebody_edited_or_took_away_leave_the_page_whole(
    run: RunDir, content: bytes | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(run.path.parent)
    before, page = run.issues.read_bytes(), run.report.read_bytes()
    try:
        run.issues.unlink()
        if content:
            run.issues.write_bytes(content)
        assert call("report", "run", "--device", "cpu") == 0
        readable = content is not None and b"path" in content
        said = b"There are none." if readable else b"issues.csv of this run cannot be read."
        assert said in run.report.read_bytes()
    finally:
        run.issues.write_bytes(before)
    assert call("report", "run", "--device", "cpu") == 0
    assert run.report.read_bytes() == page


def test_the_command_draws_the_same_page_again_with_gaps_for_missing_photos(
    run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(run.path.parent)
    before = run.report.read_bytes()
    assert call("report", "run", "--device", "cpu") == 0
    assert capsys.readouterr().out == "run/report.html\n"
    assert run.report.read_bytes() == before
    assert call("report", "run", "--data", "nowhere", "--device", "cpu") == 0
    assert b"no picture" in run.report.read_bytes()
    assert call("report", "run", "--device", "cpu") == 0
    assert run.report.read_bytes() == before


def test_classes_that_are_taken_for_each_other_stand_together():
    confusion = np.diag([9] * 6)
    confusion[0, 4] = confusion[4, 0] = 5
    order = confusion_order(confusion)
    assert sorted(order) == list(range(6))
    assert abs(order.index(0) - order.index(4)) == 1
    assert confusion_order(np.array([[1, 0], [0, 0]])) == [0, 1]


def test_the_matrix_tells_each_count_and_shows_hostile_names_literally():
    drawn = draw_matrix(np.array([[3, 1], [0, 0]]), ["<b>", "c\x1b"], [0, 1], "a title")
    assert re.findall(r"<title>(.*?)</title>", drawn) == [
        "&lt;b&gt;: 3 recognised (75.0%)", "&lt;b&gt;: 1 taken for c\\x1b (25.0%)",
    ]  # fmt: skip
    assert "<b>" not in drawn


def test_10_000_images_confused_among_1000_classes_take_under_3_mb_a_matrix():
    generator = np.random.default_rng(0)
    confusion = np.zeros((1000, 1000), dtype=np.int64)
    np.add.at(confusion, tuple(generator.integers(0, 1000, (2, 10_000))), 1)
    names = [f"a class of number {number}" for number in range(1000)]
    assert len(draw_matrix(confusion, names, list(range(1000)), "a title")) < 3_000_000


def test_the_curves_are_the_same_for_the_same_rows_only():
    rows = [
        {"epoch": e, "train_loss": 1 / e, "val_loss": 1.1 / e, "accuracy": 0.5, "lr": 1e-4}
        for e in (1, 2)
    ]
    assert draw_curves(rows, 1) == draw_curves(rows, 1)
    assert draw_curves(rows, 1) != draw_curves(rows[:1], 1)
    assert "#010203" not in draw_curves(rows, 0)
