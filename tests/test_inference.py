"""Predictions: one per image, in input order, for any image."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from images import COLOURS, SMALL, draw, put
from networks import lively_network
from runs import python

from xception_cli import inference
from xception_cli.answers import Answer, answer_all, decide_unknown
from xception_cli.commands.inputs import find_images
from xception_cli.csv_files import from_csv
from xception_cli.data.images import read_image
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import UsageError
from xception_cli.inference import Prediction, classify, predict_images
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, save_model
from xception_cli.model.network import build_seeded_network
from xception_cli.model.unknown import UNLIKE, Thresholds, UnknownRule, remember
from xception_cli.predictions import open_predictions
from xception_cli.runtime import Runtime


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    """An untrained Xception with three classes and an image size of 71 pixels."""
    runtime = Runtime(torch.device("cpu"), "fp32")
    network = runtime.place(build_seeded_network(3, 0)).eval()
    # Sharpened, because an untrained network gives nearly the same answer for any two images.
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL), temperature=0.05)
    return ModelBundle(network, about, runtime)


def probabilities_of(predictions: list[Prediction], classes: tuple[str, ...]) -> list[list[float]]:
    """Put each prediction's probabilities in the model's order."""
    found = [dict(zip(p.classes, p.probabilities, strict=True)) for p in predictions]
    return [[by_name[name] for name in classes] for by_name in found]


def test_predictions_are_the_models_probabilities(bundle, photos):
    paths = find_images([str(photos)])[::2]
    predictions = list(predict_images(bundle, paths, workers=0))
    transform = bundle.preprocessing.evaluation_transform()
    expected = bundle.probabilities(torch.stack([transform(read_image(p)) for p in paths]))
    found = torch.tensor(probabilities_of(predictions, bundle.classes))
    assert [p.path for p in predictions] == paths
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found - expected.roll(1, 0)).abs().max() > 1e-4  # other images, other numbers
    for p in predictions:
        assert list(p.probabilities) == sorted(p.probabilities, reverse=True)
        assert sum(p.probabilities) == pytest.approx(1, abs=1e-5)


def test_a_large_jpeg_is_decoded_at_a_reduced_size_like_in_training(bundle, tmp_path):
    lively = replace(bundle, network=lively_network())
    draw(tmp_path / "large.jpg", COLOURS["red"], seed=1, size=800)
    (prediction,) = predict_images(lively, [tmp_path / "large.jpg"], workers=0)
    found = torch.tensor(probabilities_of([prediction], bundle.classes))
    transform = bundle.preprocessing.evaluation_transform()
    by_size = {}
    for least_side in (bundle.preprocessing.least_side, None):
        image = read_image(tmp_path / "large.jpg", least_side=least_side)
        by_size[image.size] = lively.probabilities(transform(image)[None])
    assert list(by_size) == [(200, 200), (800, 800)]  # at least 158, twice the resize of 79
    torch.testing.assert_close(found, by_size[200, 200], atol=1e-6, rtol=0)
    assert (found - by_size[800, 800]).abs().max() > 1e-4  # the control


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 1), (0, 4), (2, 3)])
def test_workers_and_batch_size_change_no_number(bundle, photos, monkeypatch, workers, batch_size):
    paths = find_images([str(photos)])[::-4]
    paths[3] = photos / "missing.jpg"
    reference = list(predict_images(bundle, paths, workers=0))
    monkeypatch.setattr(Runtime, "inference_batch", batch_size)
    predictions = list(predict_images(bundle, paths, workers=workers))
    assert [(p.path, p.error) for p in predictions] == [(p.path, p.error) for p in reference]
    for found, expected in zip(predictions, reference, strict=True):
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)


def test_files_that_are_not_images_give_error_rows_in_order(bundle, photos, monkeypatch):
    monkeypatch.setattr(Runtime, "inference_batch", 2)
    good = photos / "blue" / "0.jpg"
    cut = photos / "cut.jpg"
    cut.write_bytes(good.read_bytes()[:500])
    (photos / "empty.jpg").touch()
    (photos / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    os.mkfifo(photos / "fifo.jpg")
    (photos / "link.jpg").symlink_to("nowhere")
    names = ["cut.jpg", "empty.jpg", "blue/0.jpg", "page.jpg", "fifo.jpg", "link.jpg", "gone.jpg"]
    found = find_images([str(photos / name) for name in names])
    predictions = list(predict_images(bundle, found, workers=0))
    assert [(p.path.relative_to(photos).as_posix(), p.error) for p in predictions] == [
        ("cut.jpg", "truncated"),
        ("empty.jpg", "empty file"),
        ("blue/0.jpg", None),
        ("page.jpg", "not an image (looks like HTML)"),
        ("fifo.jpg", "not a regular file"),
        ("link.jpg", "broken link"),
        ("gone.jpg", "file not found"),
    ]
    assert [len(p.classes) for p in predictions] == [0, 0, 3, 0, 0, 0, 0]


def test_top_returns_the_best_classes_and_at_most_all(bundle, photos):
    path = photos / "red" / "0.jpg"
    (every,) = predict_images(bundle, [path], top=99, workers=0)
    (two,) = predict_images(bundle, [path], top=2, workers=2)
    assert len(every.classes) == 3
    assert (two.classes, two.probabilities) == (every.classes[:2], every.probabilities[:2])


def test_predictions_are_streamed_and_later_images_are_not_read_early(bundle, photos, monkeypatch):
    monkeypatch.setattr(Runtime, "inference_batch", 2)
    paths = find_images([str(photos)])[:6]
    predictions = predict_images(bundle, paths, workers=0)
    next(predictions)
    paths[-1].unlink()
    assert [p.error for p in predictions] == [None] * 4 + ["file not found"]


def test_an_empty_list_of_paths_gives_no_prediction(bundle):
    assert list(predict_images(bundle, [], workers=2)) == []


def test_files_folders_and_patterns_keep_their_order(photos):
    (photos / "blue" / "notes.txt").touch()
    (photos / ".hidden").mkdir()
    (photos / ".hidden" / "1.jpg").touch()
    (photos / "blue" / "deep").mkdir()
    draw(photos / "blue" / "deep" / "1.PNG", (0, 0, 0), 1)
    found = find_images([
        f"{photos}/red/[01].jpg",
        f"{photos}/blue",
        f"{photos}/green/3.jpg",
        f"{photos}/blue/notes.txt",
        f"{photos}/green/nothing.jpg",
        f"{photos}/**/7.jpg",
    ])  # fmt: skip
    assert [p.relative_to(photos).as_posix() for p in found] == [
        "red/0.jpg", "red/1.jpg",
        *(f"blue/{i}.jpg" for i in range(8)), "blue/deep/1.PNG",
        "green/3.jpg",
        "blue/notes.txt",  # named explicitly: its row has the reason
        "green/nothing.jpg",
        "blue/7.jpg", "green/7.jpg", "red/7.jpg",
    ]  # fmt: skip


def test_a_pattern_matches_like_the_shell_and_each_image_once(photos):
    assert find_images([f"{photos}/*"]) == find_images([str(photos)])
    assert find_images([f"{photos}/**"]) == find_images([str(photos)])
    assert len(find_images([str(photos)])) == 24


def test_other_files_next_to_the_images_are_counted_once_and_reported(photos, capsys, without_heif):
    for name in ("a.heic", "red/b.HEIC", "red/notes", "blue/c.txt"):
        (photos / name).write_bytes(b"hello")
    for given in (str(photos), f"{photos}/**", f"{photos}/*"):
        assert len(find_images([given])) == 24
        note = capsys.readouterr().err
        assert note.startswith("note      4 files ignored: 2 .heic, 1 ")
        assert note.endswith("; to read 2 HEIC: pip install 'xception-cli[heif]'\n")
    with pytest.raises(UsageError) as caught:
        find_images([f"{photos}/*.heic"])
    assert caught.value.message == (
        f"no image matches {str(photos / '*.heic')!r} "
        "(1 file ignored: 1 .heic; to read 1 HEIC: pip install 'xception-cli[heif]')"
    )
    assert caught.value.hint.endswith("; for HEIC: pip install 'xception-cli[heif]'")


def test_heic_photos_without_a_suffix_are_counted_as_such(photos, capsys, without_heif):
    for name in ("IMG_1", "IMG_2.jpg_1"):
        (photos / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (photos / "notes").write_bytes(b"hello")
    for given in (str(photos), f"{photos}/*"):
        find_images([given])
        note = capsys.readouterr().err
        assert note.startswith("note      3 files ignored: 2 .heic, 1 no suffix; to read 2 HEIC: ")


def test_a_file_that_has_a_patterns_name_wins_over_the_pattern(photos):
    literal = photos / "[1].jpg"
    literal.write_bytes((photos / "red" / "1.jpg").read_bytes())
    (photos / "1.jpg").write_bytes(literal.read_bytes())
    assert find_images([str(literal)]) == [literal]
    literal.unlink()
    assert find_images([str(literal)]) == [photos / "1.jpg"]


def test_a_link_to_a_parent_folder_is_not_followed_forever(photos):
    (photos / "blue" / "again").symlink_to(photos)
    assert len(find_images([str(photos)])) == 24


@pytest.mark.parametrize("pattern", ["*.jpg", "empty", "empty/**", "only_text/*", ""])
def test_an_argument_that_matches_no_image_is_named(pattern, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "only_text").mkdir()
    (tmp_path / "only_text" / "a.txt").touch()
    with pytest.raises(UsageError) as caught:
        find_images([pattern])
    assert caught.value.exit_code == 2
    ignored = " (1 file ignored: 1 .txt)" if pattern == "only_text/*" else ""
    assert caught.value.message == f"no image matches {pattern!r}{ignored}"


def write_predictions(predictions, path: Path, *, with_unknown: bool = False) -> None:
    found = list(predictions)
    with open_predictions(path, [prediction.path for prediction in found], ()) as file:
        file.begin(2, with_unknown=with_unknown)
        for prediction in found:
            file.add(prediction)


PREDICTIONS = [
    Prediction(Path("a,b.jpg"), ("x", "=1+1"), (0.75, 0.25)),
    Prediction(Path("-bad\udcff.jpg"), (), (), "truncated"),
]


def test_csv_has_a_row_per_image_and_no_formula():
    write_predictions(iter(PREDICTIONS), Path("out.csv"))
    assert Path("out.csv").read_text(encoding="utf-8") == (
        "path,error,class_1,probability_1,class_2,probability_2\n"
        '"a,b.jpg",,x,0.75,\'=1+1,0.25\n'
        "'-bad\\xff.jpg,truncated,,,,\n"
    )
    header = ["path", "error", "class_1", "probability_1", "class_2", "probability_2"]
    assert next(from_csv(Path("out.csv"), header))[4] == "=1+1"


def test_json_lines_have_the_exact_names_in_valid_utf8():
    write_predictions(iter(PREDICTIONS), Path("out.jsonl"))
    lines = Path("out.jsonl").read_bytes().decode("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "path": "a,b.jpg",
            "classes": ["x", "=1+1"],
            "probabilities": [0.75, 0.25],
            "error": None,
        },
        {"path": "-bad\\xff.jpg", "classes": [], "probabilities": [], "error": "truncated"},
    ]


def test_the_images_of_a_batch_are_answered_together_and_as_soon_as_it_is_computed(
    bundle, photos, monkeypatch
):
    put(photos / "red" / "1.jpg", b"broken")
    paths = find_images([str(photos)])
    alone = [next(predict_images(bundle, [path], workers=0)) for path in paths]
    asked = []

    def record(*given: object) -> list[Answer]:
        asked.append(len(given[1]))
        return answer_all(*given)

    monkeypatch.setattr(inference, "answer_all", record)
    monkeypatch.setattr(Runtime, "inference_batch", 10)
    predictions = predict_images(bundle, paths, workers=0)
    found = [next(predictions) for _ in range(10)]
    assert asked == [10]
    found += predictions
    assert asked == [10, 9, 4]
    assert [p.error for p in found].count(None) == 23
    for one, other in zip(found, alone, strict=True):
        assert (one.path, one.error, one.unknown) == (other.path, other.error, other.unknown)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_workers_are_started_once_for_10_000_images(bundle, monkeypatch):
    started = []

    def refuse(_: object, __: Path, paths: list[str], **___: object) -> Iterator[str]:
        started.append(len(paths))
        yield from ["not an image"] * len(paths)

    monkeypatch.setattr(inference, "classify", refuse)
    images = (Path(f"{number}.jpg") for number in range(10_000))
    assert sum(1 for _ in predict_images(bundle, images, workers=2)) == 10_000
    assert started == [10_000]


def test_answers_below_a_probability_are_rejected_and_auto_needs_thresholds(bundle, photos):
    (sure,) = predict_images(bundle, [photos / "red" / "0.jpg"], workers=0)
    best = sure.probabilities[0]
    for wanted, reason in ((best - 0.01, None), (best + 0.01, "low confidence")):
        rule = decide_unknown(bundle, str(wanted))
        (found,) = predict_images(bundle, [sure.path], unknown=rule, workers=0)
        assert found == replace(sure, unknown=reason)
    assert found.to_dict()["unknown"] == "low confidence"
    assert decide_unknown(bundle, "off") is None
    with pytest.raises(UsageError, match="no thresholds"):
        decide_unknown(bundle, "auto")
    for wanted in ("1.5", "nan", "often"):
        with pytest.raises(UsageError, match="expected off, auto or 0 to 1"):
            decide_unknown(bundle, wanted)


def test_a_calibration_fitted_later_applies_to_outcomes_computed_before(bundle, photos):
    names = ["red/0.jpg", "green/0.jpg", "blue/0.jpg"]
    outcomes = list(classify(bundle, photos, names, workers=0))
    assert {outcome.distance for outcome in outcomes} == {None}
    with pytest.raises(ValueError, match="nothing to measure a distance from"):
        bundle.distances(outcomes)
    reference = remember(np.stack([outcomes[0].features]), np.zeros(1))
    rule = UnknownRule(Thresholds(0.9, None, 1e-4), reference)  # its reference is the first image
    later = replace(bundle, about=replace(bundle.about, temperature=5.0, unknown=rule))
    found = answer_all(later, outcomes, later.thresholds)
    assert [one.refusal for one in found] == [None, UNLIKE, UNLIKE]
    paths = [photos / name for name in names]
    predictions = list(predict_images(later, paths, unknown=later.thresholds, workers=0))
    assert [p.unknown for p in predictions] == [None, UNLIKE, UNLIKE]
    noted = predict_images(later, paths, unknown=None, workers=0)
    assert [(p.unknown, p.unlike) for p in noted] == [(None, False), (None, True), (None, True)]
    expected = probabilities_of(predictions, bundle.classes)
    assert [one.probabilities.tolist() for one in found] == expected
    (other,) = answer_all(bundle, outcomes[:1], None)
    assert other.probabilities.tolist() != expected[0]  # the control


def test_the_csv_has_the_reason_of_unknown_if_requested():
    refused = Prediction(Path("c.jpg"), ("x",), (0.4,), unknown="low confidence")
    write_predictions(iter([*PREDICTIONS, refused]), Path("out.csv"), with_unknown=True)
    assert Path("out.csv").read_text(encoding="utf-8").splitlines() == [
        "path,error,unknown,class_1,probability_1,class_2,probability_2",
        '"a,b.jpg",,,x,0.75,\'=1+1,0.25',
        "'-bad\\xff.jpg,truncated,,,,,",
        "c.jpg,,low confidence,x,0.4,,",
    ]


def test_an_invalid_output_is_refused_before_any_image_is_read():
    Path("there.csv").write_text("precious")
    Path("dangling.csv").symlink_to("elsewhere.csv")
    for name in ("there.csv", "dangling.csv", "out.xlsx", "out", "no/folder.csv"):
        with pytest.raises(UsageError) as caught:
            write_predictions([], Path(name))
        assert caught.value.hint
    assert Path("there.csv").read_text() == "precious"
    assert sorted(p.name for p in Path().iterdir()) == ["dangling.csv", "there.csv"]


def test_neither_predict_nor_its_neighbours_load_what_only_training_and_reports_need(
    bundle, photos
):
    save_model(Path("m.safetensors"), bundle.network.state_dict(), bundle.about)
    photo = str(photos / "red" / "0.jpg")
    commands = [["predict", photo, "--model", "m.safetensors"], ["weights", "list"], ["summary"]]
    code = (
        "import sys\nfrom xception_cli.cli import main\n"
        f"for command in {commands}:\n"
        "    try:\n        main(command)\n"
        "    except SystemExit as ended:\n        print(ended.code, 'sympy' in sys.modules)\n"
        "heavy = ('h5py', 'matplotlib', 'pretrainedmodels', 'sklearn', 'torch', 'torchvision')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = python("-c", code)
    _, after_predict, *lines = done.stdout.splitlines()
    assert after_predict == "0 False"  # torch (2.14) imports SymPy for shapes without numbers
    assert [line.split()[0] for line in lines if line.startswith("0 ")] == ["0", "0"]
    assert lines[-1] == "['torch']"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_whose_name_is_not_utf8_is_predicted(bundle, photos, monkeypatch):
    monkeypatch.setattr(Runtime, "inference_batch", 4)
    strange = photos / "blue" / "\udcff.jpg"
    (photos / "blue" / "0.jpg").rename(strange)
    paths = find_images([str(photos / "blue")])
    assert strange in paths
    predictions = list(predict_images(bundle, paths, workers=2))
    assert [p.error for p in predictions] == [None] * 8
    assert json.dumps([p.to_dict() for p in predictions], ensure_ascii=False).encode()
