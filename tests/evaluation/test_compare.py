"""Comparing runs: on the same images, with sound statistics; runs that do not match are refused."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from documented import check_documented
from rich.console import Console
from runs import call, write_info
from scipy.stats import binomtest
from units import alone

from xception_cli.data.photo import Photo
from xception_cli.data.recorded import write_split
from xception_cli.data.split import Split
from xception_cli.errors import ArtifactError, UsageError
from xception_cli.evaluation.common_evaluation import choose_evaluation
from xception_cli.evaluation.comparison import (
    _difference_interval,
    compare_runs,
    correct_comparisons,
    sign_flip,
)
from xception_cli.evaluation.comparison_text import compare_with_earlier, verdict
from xception_cli.evaluation.files import write_evaluation
from xception_cli.evaluation.metrics import measure
from xception_cli.evaluation.scored import Scored
from xception_cli.run_figures import RunFigures, list_runs, runs_table
from xception_cli.rundir import RunDir, write_json

CLASSES = ("a", "b", "[red]=c")
NO_UNITS: dict[str, str] = {}


def make_run(
    name: str, answers: dict[str, int], *, on: str = "val", classes=CLASSES, units=NO_UNITS, data=""
) -> RunDir:
    """Create a run whose evaluation has `answers`, by digest; digest `d5` is of class 5 % 3."""
    run = RunDir(Path("runs") / name)
    run.path.mkdir(parents=True, exist_ok=True)
    write_info(run, started=f"2026-01-0{len(name)}T10:00:00Z")
    labels = np.array([int(digest[1:]) % 3 for digest in answers])
    probabilities = np.eye(len(classes))[list(answers.values())] * 0.7 + 0.1
    photos = [
        Photo(f"{name}/{digest}.jpg", label, digest=digest, unit=units.get(digest, digest))
        for digest, label in zip(answers, labels.tolist(), strict=True)
    ]
    photos.append(Photo("broken.jpg", 0, digest="d99", problem="truncated"))
    every = np.vstack([probabilities, np.full(len(classes), np.nan)]).astype(np.float32)
    scored = Scored(classes, tuple(photos), every, (None,) * len(photos))
    report = measure(labels, probabilities, alone(labels), classes, name=on, data=data)
    write_evaluation(run.evaluation(on), report, scored)
    return run


# by digest d0, d1, ...; their classes are 0, 1, 2, 0, 1, 2
FIRST = {"d0": 0, "d1": 1, "d2": 0, "d3": 1, "d4": 0, "d5": 2, "d6": 0}
SECOND = {"d5": 0, "d0": 0, "d1": 1, "d2": 2, "d3": 0, "d4": 2, "d7": 1}


def test_images_are_matched_by_content_and_counted_by_hand():
    found = compare_runs(make_run("one", FIRST), make_run("other", SECOND), "val")
    assert (found.images, found.unmatched) == (6, 2)
    assert (found.first_correct, found.second_correct) == (3, 4)
    assert (found.gained, found.lost) == (2, 1)
    assert found.difference == pytest.approx(1 / 6)
    assert found.p_value == pytest.approx(binomtest(2, 3).pvalue)
    assert [(c.name, c.n, c.first, c.second) for c in found.classes] == [
        ("a", 2, 1, 2), ("b", 2, 1, 1), ("[red]=c", 2, 1, 1),
    ]  # fmt: skip
    changed = [(i.path, i.true, i.first, i.second, i.change) for i in found.changed]
    assert changed == [
        ("other/d5.jpg", "[red]=c", "[red]=c", "a", "lost"),
        ("other/d2.jpg", "[red]=c", "a", "[red]=c", "gained"),
        ("other/d3.jpg", "a", "b", "a", "gained"),
        ("other/d4.jpg", "b", "a", "[red]=c", "other"),
    ]
    back = compare_runs(RunDir(Path("runs/other")), RunDir(Path("runs/one")), "val")
    assert (back.gained, back.lost, back.difference) == (1, 2, -found.difference)
    same = compare_runs(RunDir(Path("runs/one")), RunDir(Path("runs/one")), "val")
    assert (same.difference, same.p_value, same.changed) == (0, 1.0, ())


def test_the_interval_of_the_difference_has_its_nominal_coverage():
    generator = np.random.default_rng(0)
    n, up, down = 200, 0.08, 0.04
    draws = generator.multinomial(n, [up, down, 1 - up - down], 1000)
    ends = [_difference_interval(gained, lost, n) for gained, lost, _ in draws]
    assert 0.93 <= np.mean([low <= up - down <= high for low, high in ends]) <= 0.98
    assert np.mean([low <= up + down <= high for low, high in ends]) < 0.5  # the control


def test_runs_that_cannot_be_compared_are_refused_with_a_hint():
    one = make_run("one", FIRST)
    with pytest.raises(UsageError, match="no image of val in common") as caught:
        compare_runs(one, make_run("other", {"d10": 0, "d11": 1}), "val")
    assert "--data DIR" in caught.value.hint
    with pytest.raises(UsageError, match="have no class in common"):
        compare_runs(one, make_run("third", FIRST, classes=("x", "y", "z")), "val")
    with pytest.raises(UsageError, match="no evaluation called elsewhere") as caught:
        choose_evaluation([one], "elsewhere")
    assert caught.value.hint == "xception eval runs/one --data DIR"
    make_run("other", SECOND, on="elsewhere", data="new")
    for there, folder in ((False, "DIR, with the folder new"), (True, "new")):
        Path("new").mkdir() if there else None
        with pytest.raises(UsageError) as caught:
            choose_evaluation([RunDir(Path("runs/other")), one], "elsewhere")
        assert caught.value.hint == f"xception eval runs/one --data {folder}"
    predictions = one.evaluation("val") / "predictions.csv"
    predictions.write_text("path,true\n")
    with pytest.raises(ArtifactError, match="predictions") as caught:
        compare_runs(one, one, "val")
    assert caught.value.hint == "xception eval runs/one --split val regenerates it"
    figures = {"kept": "the linear probe", "epochs": 1, "seconds": {}, "refit": True}
    write_json(one.result, figures)  # val cannot be measured again
    with pytest.raises(ArtifactError, match="predictions") as caught:
        compare_runs(one, one, "val")
    assert caught.value.hint.startswith("restore the file from a copy: the head was fitted to val")
    predictions = RunDir(Path("runs/other")).evaluation("elsewhere") / "predictions.csv"
    predictions.unlink()
    with pytest.raises(ArtifactError, match="predictions") as caught:
        compare_runs(RunDir(Path("runs/other")), one, "elsewhere")
    assert caught.value.hint == "xception eval runs/other --data DIR regenerates it"


@pytest.mark.parametrize(
    ("column", "written", "reason"),
    [
        (3, "bageh", "predictions.csv has the unknown class bageh"),
        (-1, "0.9y", "predictions.csv has '0.9y' instead of a probability"),
        (-1, "1.5", "predictions.csv has impossible probabilities"),
    ],
)
def test_a_damaged_cell_of_the_predictions_is_named(column, written, reason):
    run = make_run("one", FIRST)
    predictions = run.evaluation("val") / "predictions.csv"
    header, first, *others = predictions.read_text().splitlines()
    cells = first.split(",")
    cells[column] = written
    predictions.write_text("\n".join([header, ",".join(cells), *others, ""]))
    with pytest.raises(ArtifactError) as caught:
        compare_runs(run, run, "val")
    assert caught.value.message == f"cannot use the evaluation runs/one/eval/val: {reason}"


@pytest.mark.parametrize("rows", ["without the last", "none", "the last twice", "another class"])
def test_predictions_that_lost_or_changed_a_row_are_not_compared(rows):
    one, other = make_run("one", FIRST), make_run("other", SECOND)
    predictions = other.evaluation("val") / "predictions.csv"
    lines = predictions.read_text().splitlines(keepends=True)
    assert lines[-2].startswith("other/d7.jpg,d7,d7,b,b,1,")
    predictions.write_text(
        {
            "without the last": "".join(lines[:-2]),
            "none": lines[0],
            "the last twice": "".join([*lines, lines[-2]]),
            "another class": "".join([*lines[:-2], lines[-2].replace(",b,b,", ",a,b,")]),
        }[rows]
    )
    with pytest.raises(ArtifactError, match=r"predictions\.csv and metrics\.json count different"):
        compare_runs(one, other, "val")


def test_runs_of_different_classes_are_compared_on_the_classes_in_common(capsys):
    one = make_run("one", FIRST)
    other = make_run("other", SECOND | {"d8": 2}, classes=("a", "b", "kiwi"))
    found = compare_runs(one, other, "val")
    # d2 and d5 are of [red]=c or of kiwi, which one of the runs does not know.
    assert (found.images, found.first_correct, found.second_correct) == (4, 2, 3)
    assert [c.name for c in found.classes] == ["a", "b"]
    assert (found.only_first, found.only_second) == (("[red]=c",), ("kiwi",))
    assert found.unmatched == 2  # d6 and d7, of classes that both know
    assert [i.second for i in found.changed if i.path == "other/d4.jpg"] == ["kiwi"]
    assert call("compare", "runs/one", "runs/other") == 0
    assert "([red]=c only in runs/one; kiwi only in runs/other)" in capsys.readouterr().err
    sentences = compare_with_earlier(one, other)
    assert sentences[0] == (
        "compared with one on the 4 val images that both held out, of the 2 classes in "
        "common: accuracy 50.0% (95% CI 15.0-85.0%), now 75.0% (95% CI 30.1-95.4%)"
    )
    assert sentences[1] == verdict(found)
    assert len(sentences) == 4
    assert compare_with_earlier(RunDir(Path("somewhere/gone")), other) == [
        "not compared with gone: gone has no evaluation called val"
    ]


def test_folders_of_the_same_name_are_compared_whatever_the_order_of_their_evaluation(capsys):
    others = {"d10": 1, "d11": 2}
    for name, images in (("food", others), ("food-2", FIRST)):
        make_run("one", images, on=name)
    for name, images in (("food", SECOND), ("food-2", others), ("food-market", FIRST)):
        make_run("other", images, on=name)
    make_run("third", SECOND, on="food")
    for on, images, namesake in (("food", 2, "food-2"), ("food-2", 6, "food")):
        assert call("compare", "runs/one", "runs/other", "--on", on, "--json") == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["images"] == images
        note = f"note      {namesake} of runs/other is compared: it has the images of {on}\n"
        assert note in captured.err
    assert call("compare", "runs/one", "runs/third", "--on", "food-2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6
    assert call("compare", "runs/one", "runs/third", "--on", "food", "--json") == 2
    assert "have no image of food in common" in capsys.readouterr().err
    assert call("compare", "runs/third", "runs/one", "--on", "food-2") == 2
    assert "runs/third has no evaluation called food-2" in capsys.readouterr().err


def test_a_folder_whose_name_differs_in_its_number_must_have_most_of_the_images(capsys):
    make_run("one", FIRST, on="2026-01")
    make_run("other", {"d0": 1, "d1": 1, "d2": 2, "d10": 1}, on="2026-02")
    assert call("compare", "runs/one", "runs/other", "--on", "2026-01") == 2
    errors = capsys.readouterr().err
    assert "runs/other has no evaluation called 2026-01" in errors
    assert "is compared" not in errors
    make_run("other", {"d0": 1}, on="2026-01")  # under the name itself, one image is enough
    assert call("compare", "runs/one", "runs/other", "--on", "2026-01/", "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1


def test_the_test_split_is_compared_where_all_runs_have_it():
    one, other = make_run("one", FIRST), make_run("other", SECOND)
    assert choose_evaluation([one, other], None) == "val"
    make_run("one", FIRST, on="test")
    assert choose_evaluation([one, other], None) == "val"
    make_run("other", SECOND, on="test")
    assert choose_evaluation([one, other], None) == "test"


def test_the_command_prints_tables_or_json_and_whether_it_could_be_chance(capsys):
    make_run("one", FIRST)
    make_run("other", SECOND)
    assert call("compare", "runs/one", "runs/other") == 0
    shown = capsys.readouterr()
    assert max(len(line) for line in shown.out.splitlines()) <= 80
    assert "runs/one     3 of 6     50.0%  18.8-81.2%" in shown.out
    assert "other/d5.jpg  [red]=c  [red]=c  a        lost" in shown.out
    assert "2 gained, 1 lost; McNemar p = 1: could be chance" in shown.err
    assert (
        "note      2 images of val scored by one run only\n"
        "          these runs have different splits; to compare them on the same images, train on "
        "one split:\n"
        "          xception train DIR --split-file runs/one/split.csv\n"
        "          or evaluate both on other images:\n"
        "          xception eval runs/one --data DIR && xception eval runs/other --data DIR && "
        "xception compare runs/one runs/other --on NAME\n"
    ) in shown.err
    for name, seed in (("one", 0), ("other", 1)):
        write_info(RunDir(Path("runs") / name), settings={"data": "photos", "seed": seed})
    for where in ("DIR", "photos"):
        assert call("compare", "runs/one", "runs/other") == 0
        shown = capsys.readouterr().err
        assert "different splits (--seed determines the split); to compare" in shown
        assert f"xception train {where} --split-file runs/one/split.csv --seed 1\n" in shown
        Path("photos").mkdir(exist_ok=True)  # until now, it was moved
    assert call("compare", "runs/one", "runs/other", "--json") == 0
    found = compare_runs(RunDir(Path("runs/one")), RunDir(Path("runs/other")), "val")
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(found.to_dict()))
    check_documented("compare", printed)
    assert "+16.7 points" in verdict(found)
    assert call("compare", "runs/one") == 2


def test_for_runs_on_different_images_no_split_file_is_suggested_because_none_would_fit(capsys):
    one, other = make_run("one", FIRST), make_run("other", SECOND)
    images = tuple(Photo(f"a/{n}.jpg", 0, "train", digest=f"d{n}") for n in range(3))
    for run, known in ((one, images[:2]), (other, images[:2])):
        write_info(run, classes=["a"])
        write_split(Split(("a",), known), run.split)
    assert call("compare", "runs/one", "runs/other") == 0
    assert "train on one split:" in capsys.readouterr().err
    grown = "train on one split:\n          xception train DIR --from runs/one\n"
    grown += "          or evaluate both on other images:\n"
    foreign = "evaluate both on other images:\n          xception eval runs/one --data DIR && "
    for digest, advice in (("d", grown), ("e", foreign)):  # more images, or none in common
        now = tuple(replace(image, digest=f"{digest}{n}") for n, image in enumerate(images))
        write_split(Split(("a",), now), other.split)
        assert call("compare", "runs/one", "runs/other") == 0
        shown = capsys.readouterr().err
        sentence = "these runs have different images; to compare them on the same images, "
        assert f"          {sentence}{advice}" in shown
    assert "xception train" not in shown
    make_run("other", {"d90": 0, "d91": 1})
    write_info(other, classes=["a"])
    assert call("compare", "runs/one", "runs/other") == 2
    shown = capsys.readouterr().err
    assert "no image of val in common: these runs have different images\n" in shown
    assert "xception train" not in shown


def test_images_that_were_renamed_are_the_same_and_need_no_split_file(capsys):
    one, other = make_run("one", FIRST), make_run("other", SECOND)
    images = tuple(Photo(f"a/{n}.jpg", 0, "train", digest=f"d{n}") for n in range(3))
    for run, folder in ((one, "a"), (other, "moved/a")):
        write_info(run, classes=["a"])
        renamed = tuple(replace(image, path=f"{folder}/{image.digest}.jpg") for image in images)
        write_split(Split(("a",), renamed), run.split)
    assert call("compare", "runs/one", "runs/other") == 0
    assert (
        "          these runs have different splits; to compare them on the same images, train on "
        "one split:\n          xception train DIR --from runs/one\n"
    ) in capsys.readouterr().err


def test_runs_are_listed_latest_first_despite_a_damaged_one(capsys):
    for name, day in (("early", "03"), ("late", "05"), ("going", "06")):
        run = RunDir(Path("runs") / name)
        run.path.mkdir(parents=True)
        write_info(run, started=f"2026-01-{day}T10:00:00Z", images={"train": 9})
        changed = "lr = 1e-3" if name == "late" else "seed = 1"
        run.config.write_text(f'unfreeze = "exit"\nepochs = 12\n{changed}\nlog_every = 10\n')
        if name != "going":
            figures = {"kept": "the linear probe", "epochs": 1, "evaluation": {"val": 0.875}}
            write_json(run.result, figures | {"seconds": {"probe": 60.0, "features": 30.0}})
    Path("runs/broken").mkdir()
    Path("runs/broken/run.json").write_text("{")
    found = list_runs(Path("runs"))
    assert [Path(run.run).name for run in found] == ["going", "late", "early", "broken"]
    assert [run.state for run in found] == ["unfinished", "finished", "finished", "damaged"]
    assert (found[1].val, found[1].seconds, found[1].images) == (0.875, 90.0, 9)
    assert call("runs") == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == "next: xception compare runs/early runs/late"
    shown = printed.out.splitlines()
    assert max(len(line) for line in shown) <= 80
    assert "87.5%" in shown[2]
    assert "1 min 30 s  the linear probe  lr=0.001" in shown[2]
    assert call("runs", "--json") == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed[1]["val"] == 0.875
    for line in printed:
        check_documented("runs", line)
    assert [line["settings"] for line in printed[1:3]] == [{"lr": 0.001}, {"seed": 1}]
    assert call("runs", "elsewhere") == 2
    assert "xception runs DIR lists another folder" in capsys.readouterr().err
    Path("runs").rename("moved")  # a bare --resume would look into runs/
    for name, left in (
        ("late", "eval moved/early"),
        ("early", "train --resume moved/going"),
        ("going", "train DIR"),
    ):
        shutil.rmtree(Path("moved", name))
        assert call("runs", "moved") == 0
        assert capsys.readouterr().err.splitlines()[-1] == f"next: xception {left}"


def test_a_decided_setting_is_listed_if_runs_on_the_same_data_differ_in_it():
    for name, data, balance in (("a", "one", "none"), ("b", "one", "loss"), ("c", "two", "none")):
        run = RunDir(Path("runs") / name)
        run.path.mkdir(parents=True)
        write_info(run, settings={"data": data, "balance": balance, "unfreeze": "exit"})
    found = {Path(run.run).name: run.settings for run in list_runs(Path("runs"))}
    assert found == {"a": {"balance": "none"}, "b": {"balance": "loss"}, "c": {}}


def test_a_list_of_runs_fits_a_terminal_of_80_columns_and_breaks_no_word():
    settings = {"test_fraction": 0.25, "image_size": 149, "balance": "sampler"}
    figures = RunFigures("runs/food-2", "2026-01-03T10:00:00Z", "finished", settings=settings)
    runs = [
        replace(figures, kept="fine-tuned, epoch 12", val=1.0, test=0.985, seconds=693.0),
        replace(figures, kept="the linear probe", val=0.8, seconds=47.0, settings={"seed": 2}),
    ]

    def drawn(width: int) -> str:
        console = Console(width=width, file=StringIO())
        console.print(runs_table(runs, width))
        lines = console.file.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines)

    assert drawn(80) == (
        "                  val      test\n"
        "run          accuracy  accuracy         time  kept          settings\n"
        "runs/food-2    100.0%     98.5%  11 min 33 s  fine-tuned,   test_fraction=0.25\n"
        "                                              epoch 12      image_size=149\n"
        "                                                            balance=sampler\n"
        "runs/food-2     80.0%                   47 s  linear probe  seed=2"
    )
    one, other = drawn(150).splitlines()[1:]
    assert one.endswith("fine-tuned, epoch 12  test_fraction=0.25, image_size=149, balance=sampler")
    assert other.startswith("runs/food-2  2026-01-03         80.0%")


def test_the_next_command_after_a_list_compares_runs_with_the_same_classes(capsys):
    def finish(name: str, day: int, *classes: str) -> None:
        run = RunDir(Path("runs") / name)
        run.path.mkdir(parents=True)
        write_info(run, started=f"2026-01-0{day}T10:00:00Z", classes=classes)
        run.config.write_text('unfreeze = "exit"\nlog_every = 10')
        write_json(run.result, {"kept": "the linear probe", "epochs": 1, "seconds": {}})

    def suggested() -> str:
        assert call("runs") == 0
        return capsys.readouterr().err.splitlines()[-1]

    finish("food", 1, "apple", "pear")
    finish("leaf", 2, "healthy", "rust")
    assert suggested() == "next: xception eval runs/leaf"
    finish("food-2", 3, "apple", "pear")
    assert suggested() == "next: xception compare runs/food runs/food-2"
    finish("food-3", 4, "apple", "pear", "plum")
    assert suggested() == "next: xception eval runs/food-3"


# Units and several comparisons


def test_the_sign_flip_test_is_mcnemars_if_each_image_is_a_unit():
    for gained, lost in ((0, 0), (1, 0), (7, 2), (30, 30), (40, 12)):
        differences = np.repeat([1, -1, 0], [gained, lost, 5])
        expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert sign_flip(differences) == pytest.approx(expected)


def test_the_sign_flip_test_counts_all_combinations_of_signs_of_the_units():
    differences = np.array([3, -1, 2, 0, 4, -2])
    sums = [
        abs(sum(sign * size for sign, size in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=6)
    ]
    expected = np.mean(np.array(sums) >= abs(differences.sum()))
    assert sign_flip(differences) == pytest.approx(expected)
    assert sign_flip(differences) != pytest.approx(binomtest(9, 12).pvalue)


def test_a_difference_within_one_group_could_be_chance():
    labels = {f"d{n}": n % 3 for n in range(60)}
    worse = {name: 0 if n < 12 else label for n, (name, label) in enumerate(labels.items())}
    groups = {f"d{n}": f"group {n // 12}" for n in range(60)}
    alone_ = compare_runs(make_run("a", worse), make_run("b", labels), "val")
    assert (alone_.gained, alone_.groups, alone_.p_value) == (8, 60, pytest.approx(2 * 0.5**8))
    grouped = compare_runs(make_run("c", worse), make_run("d", labels, units=groups), "val")
    assert (grouped.gained, grouped.groups, grouped.p_value) == (8, 5, 1.0)
    assert grouped.difference == alone_.difference
    width = grouped.difference_high - grouped.difference_low
    assert width > 1.5 * (alone_.difference_high - alone_.difference_low)
    assert "sign flips over 5 units, p = 1: could be chance" in verdict(grouped)


def test_images_grouped_by_either_run_are_one_unit():
    labels = {f"d{n}": n % 3 for n in range(60)}
    worse = {name: 0 if n < 12 else label for n, (name, label) in enumerate(labels.items())}
    groups = {f"d{n}": f"group {n // 12}" for n in range(60)}
    bridge = {"d11": "bridge", "d12": "bridge"}  # one from the first group and one from the second

    def groups_of(first: dict[str, str], second: dict[str, str]) -> tuple[int, float]:
        runs = make_run("one", worse, units=first), make_run("other", labels, units=second)
        found = compare_runs(*runs, "val")
        return found.groups, found.p_value

    assert groups_of(groups, NO_UNITS) == (5, 1.0)
    assert groups_of(NO_UNITS, groups) == (5, 1.0)
    assert groups_of(groups, bridge) == groups_of(bridge, groups) == (4, 1.0)
    assert groups_of(NO_UNITS, NO_UNITS) == (60, pytest.approx(2 * 0.5**8))  # the control


def test_no_difference_has_a_probability_of_0():
    found = compare_runs(make_run("one", FIRST), make_run("two", SECOND), "val")
    p_value = sign_flip(np.ones(1500, dtype=np.int64))  # 2 ** -1499
    assert p_value == 0
    surely = replace(found, p_value=p_value, p_corrected=p_value)
    assert "; McNemar p < 1e-300: unlikely to be chance" in verdict(surely)


def test_several_comparisons_are_corrected_by_their_number():
    run = make_run("one", FIRST)
    found = [compare_runs(run, make_run(name, SECOND), "val") for name in ("x", "y", "z")]
    values = (0.02, 0.04, 0.01)
    given = [replace(c, p_value=p, p_corrected=p) for c, p in zip(found, values, strict=True)]
    corrected = correct_comparisons(given)
    assert [c.p_corrected for c in corrected] == pytest.approx([0.04, 0.04, 0.03])
    assert [c.p_value for c in corrected] == list(values)
    assert correct_comparisons(given[:1]) == given[:1]
    assert "McNemar p = 0.03 (corrected for the number of comparisons)" in verdict(corrected[2])
