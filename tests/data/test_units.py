"""Folds: units stay whole; if each image is a unit, they are scikit-learn's own."""

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold, StratifiedKFold
from units import alone

import xception_cli
from xception_cli.data.photo import Photo
from xception_cli.data.units import find_units, number_units, unit_folds


def same(found, expected) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(
        np.array_equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)
    )


def test_units_are_numbered_in_order_of_appearance():
    assert number_units(["b", "a", "b", "c", "a"]).tolist() == [0, 1, 0, 2, 1]
    assert number_units([]).tolist() == []


def test_if_each_image_is_a_unit_the_folds_are_scikit_learns():
    units = alone(range(53))[::-1]
    labels = np.arange(53) % 3
    plain, stratified = (
        KFold(5, shuffle=True, random_state=7),
        StratifiedKFold(5, shuffle=True, random_state=7),
    )
    assert same(unit_folds(units, folds=5, seed=7), plain.split(units))
    assert same(unit_folds(units, folds=5, seed=7, labels=labels), stratified.split(units, labels))
    assert not same(unit_folds(units, folds=5, seed=8), plain.split(units))  # the control


@pytest.mark.parametrize("with_labels", [False, True])
def test_each_image_is_left_out_once_and_no_unit_is_on_both_sides(with_labels):
    generator = np.random.default_rng(0)
    numbers = generator.integers(0, 30, 120)
    labels = numbers % 3 if with_labels else None
    folds = unit_folds(numbers.astype(str), folds=5, seed=1, labels=labels)
    assert len(folds) == 5
    assert sorted(np.concatenate([left for _, left in folds]).tolist()) == list(range(120))
    for fitted, left in folds:
        assert not set(numbers[fitted]) & set(numbers[left])
        assert sorted([*fitted, *left]) == list(range(120))
    plain = KFold(5, shuffle=True, random_state=1).split(numbers)  # the control
    assert any(set(numbers[fitted]) & set(numbers[left]) for fitted, left in plain)


def test_there_are_fewer_folds_for_few_units_and_none_for_one():
    assert len(unit_folds(["a", "a", "b", "c"], folds=5, seed=0)) == 3
    assert unit_folds(["a", "a"], folds=5, seed=0) == []
    assert unit_folds([], folds=5, seed=0) == []


def test_the_patterns_of_the_docs_group_images_by_sub_folder():
    page = Path(__file__).parents[2] / "docs" / "data.md"
    row = r"\| `--group-by '(.+)'` \| .+ \| `(.+)` \|"
    shown = re.findall(row, page.read_text(encoding="utf-8"))
    assert [group for _, group in shown] == ["2026-06-12", "healthy/2026-06-12"]
    paths = (
        "healthy/2026-06-12/1.jpg", "healthy/2026-06-12/2.jpg", "healthy/2026-06-19/1.jpg",
        "rust/2026-06-12/1.jpg", "rust/3.jpg",
    )  # fmt: skip
    images = [Photo(path, 0, digest=path) for path in paths]
    for (pattern, group), grouped in zip(shown, (paths[:2] + paths[3:4], paths[:2]), strict=True):
        units, (warning,) = find_units(images, [], pattern)
        assert [{paths[i] for i in u.members} for u in units if u.name == group] == [{*grouped}]
        assert warning == "1 image does not match --group-by and will not be grouped"


def test_images_without_a_group_in_a_table_that_has_groups_are_counted():
    groups = ("a", "a", "", "b")
    images = [Photo(f"{n}.jpg", 0, digest=str(n), group=group) for n, group in enumerate(groups)]
    units, warnings = find_units(images, [], None)
    assert [unit.members for unit in units] == [(0, 1), (2,), (3,)]
    assert warnings == ["1 image has no group in the table and will not be grouped"]
    assert find_units(images[:2], [], None)[1] == find_units(images[2:3], [], None)[1] == []


def test_no_other_module_of_the_package_splits_images_into_folds():
    splitters = re.compile(r"\b\w*(KFold|ShuffleSplit|train_test_split|LeaveOneOut)\w*\b|\bcv=\d")
    package = Path(xception_cli.__file__).parent
    users = [
        path.relative_to(package).as_posix()
        for path in sorted(package.rglob("*.py"))
        if splitters.search(path.read_text(encoding="utf-8"))
    ]
    assert users == ["data/units.py"]
