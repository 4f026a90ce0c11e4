"""Recipes: the shipped config files, found by name."""

import os
from pathlib import Path

from xception_cli.console import quoted, show
from xception_cli.errors import UsageError
from xception_cli.files import write_durably
from xception_cli.suggestions import did_you_mean, expect_choice

EFFORTS = ("quick", "standard", "best")  # the recipes that differ only in training time, ascending


def _folder() -> Path:
    package = Path(__file__).parent
    installed = package / "configs"  # in a wheel; in a clone it is next to the package
    return installed if installed.is_dir() else package.parent / "configs"


def list_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name, sorted."""
    return {path.stem: path for path in sorted(_folder().glob("*.toml"))}


def title(path: Path) -> str:
    """Return the first line of a recipe: what it is for."""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def find_config(given: str) -> Path:
    """Return the config file for a path or the name of a shipped recipe.

    Raises:
        UsageError: It is neither a path nor a recipe.
    """
    recipes = list_recipes()
    if given in recipes and not Path(given).is_file():  # a data folder may be named like a recipe
        return recipes[given]
    if os.sep in given or given.endswith(".toml") or os.path.lexists(given):
        return Path(given)  # errors are reported where it is read
    raise _unknown(given, recipes)


def find_effort(name: str) -> Path:
    """Return the recipe of an effort.

    Raises:
        UsageError: There is no such effort.
    """
    expect_choice("effort", name, EFFORTS)
    return list_recipes()[name]


def find_recipe(name: str) -> Path:
    """Return a shipped recipe.

    Raises:
        UsageError: There is no such recipe.
    """
    recipes = list_recipes()
    if name not in recipes:
        raise _unknown(name, recipes)
    return recipes[name]


def _unknown(name: str, recipes: dict[str, Path]) -> UsageError:
    return UsageError(
        f"there is no config {show(name)}; the recipes are {', '.join(recipes)}",
        hint=did_you_mean(name, recipes, "xception configs ls"),
    )


def copy_recipe(name: str, to: Path) -> Path:
    """Copy a shipped recipe, to edit it.

    Args:
        name: Name of the recipe.
        to: A new file, or a folder.

    Returns:
        The new file.

    Raises:
        UsageError: There is no such recipe, or the file exists.
        MachineError: The file cannot be written.
    """
    recipe = find_recipe(name)
    target = to / recipe.name if to.is_dir() else to
    if os.path.lexists(target):
        raise UsageError(
            f"{show(target)} already exists",
            hint=f"xception configs cp {quoted(name)} ANOTHER.toml",
        )
    write_durably(target, recipe.read_bytes())
    return target
