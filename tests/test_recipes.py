"""The shipped recipes: valid settings, found by name; and other files in the wheel."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from documented import check_documented
from runs import call

from xception_cli import __version__
from xception_cli.errors import UsageError
from xception_cli.recipes import copy_recipe, find_config, list_recipes, title
from xception_cli.settings import resolve
from xception_cli.toml_files import read_toml

ROOT = Path(__file__).parent.parent
RECIPES = list_recipes()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid_and_begins_with_its_purpose_and_its_command(name):
    config = resolve({}, RECIPES[name]).config
    head = RECIPES[name].read_text().split("\n\n")[0]
    assert re.search(rf"^#   xception train --data \S+ --config {name}\b", head, re.MULTILINE)
    assert title(RECIPES[name]).endswith(".")
    given = read_toml(RECIPES[name])
    assert {name: getattr(config, name) for name in given} == given


def test_the_papers_recipe_has_the_papers_numbers():
    config = resolve({}, RECIPES["paper"]).config
    found = (config.optimizer, config.lr, config.schedule, config.weight_decay, config.dropout)
    assert found == ("sgd", 0.045, "step", 1e-5, 0.5)
    assert config.ema > 0
    assert config.weights == "none"


def test_a_config_is_a_path_or_a_name_and_a_file_of_that_name_wins():
    assert find_config("quick") == RECIPES["quick"]
    assert find_config("mine.toml") == Path("mine.toml")
    Path("gpu").mkdir()  # the data, maybe
    assert find_config("gpu") == RECIPES["gpu"]
    Path("quick").write_text("epochs = 3")
    assert find_config("quick") == Path("quick")


def test_a_mistyped_name_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="there is no config quik; the recipes are") as caught:
        find_config("quik")
    assert caught.value.hint == "did you mean quick?"


def test_recipes_are_listed_shown_and_copied(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("configs", "ls") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(RECIPES)
    assert call("configs", "ls", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    check_documented("configs ls", found)
    assert [Path(recipe["path"]).stem for recipe in found["recipes"]] == list(RECIPES)
    assert call("configs", "show", "paper") == 0
    assert capsys.readouterr().out == RECIPES["paper"].read_text()
    assert call("configs", "cp", "paper", "mine.toml") == 0
    assert capsys.readouterr().out == "mine.toml\n"
    assert Path("mine.toml").read_bytes() == RECIPES["paper"].read_bytes()
    assert call("configs", "cp", "paper") == 0
    assert Path("paper.toml").is_file()
    with pytest.raises(UsageError, match=r"mine\.toml already exists"):
        copy_recipe("paper", Path("mine.toml"))


def test_every_package_is_named_in_pyproject():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [path.parent for path in (ROOT / "xception_cli").rglob("__init__.py")]
    there = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(named) == there | {"xception_cli.configs"}


def test_versions_are_the_same_everywhere():
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    classified = re.findall(r":: (3\.\d+)", "\n".join(metadata["classifiers"]))
    workflow = (ROOT / ".github/workflows/tests.yml").read_text()
    assert classified == re.findall(r'"(3\.\d+)"', workflow.split("python: [")[1].split("]")[0])
    assert metadata["requires-python"] == f">={classified[0]}"
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{__version__}] - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


TEMPLATES = {
    f"xception_cli/report/templates/{path.name}"
    for path in (ROOT / "xception_cli/report/templates").iterdir()
}


def test_every_file_that_is_not_a_module_is_package_data():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed = {
        path.relative_to(ROOT).as_posix()
        for package, patterns in known["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
        if package != "xception_cli.configs"  # its folder is mapped; the wheel is tested below
    }
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "xception_cli").rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert listed == there == {*TEMPLATES, "xception_cli/py.typed"}
    assert {Path(name).suffix for name in TEMPLATES} == {".j2", ".css", ".js"}


@pytest.mark.slow
def test_the_wheel_contains_the_recipes_and_the_templates(tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", str(ROOT), "clone"], check=True, cwd=tmp_path)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "wheel", "./clone"]
    subprocess.run(command, check=True, cwd=tmp_path)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    held = {name for name in names if name.startswith("xception_cli") and name[-3:] != ".py"}
    recipes = {f"xception_cli/configs/{name}.toml" for name in RECIPES}
    held -= {name for name in held if ".dist-info/" in name}
    assert held == {*recipes, *TEMPLATES, "xception_cli/py.typed"}
