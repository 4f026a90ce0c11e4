"""Completion: the values that a shell offers for an option or argument. No heavy imports."""

import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xception_cli.recipes import list_recipes
from xception_cli.rundir import RunDir
from xception_cli.runs import RUNS

Complete = Callable[[str], list[str]]  # from what was typed so far


def choices(kind: Any) -> Complete:
    """Offer the values of a Literal, or those given, without `gpu`, a synonym of cuda."""
    values = [name for name in typing.get_args(kind) or kind if name != "gpu"]
    return lambda incomplete: [name for name in values if name.startswith(incomplete)]


def run_folders(incomplete: str) -> list[str]:
    """Offer the runs in `runs/`; elsewhere the shell completes folders by itself."""
    found = sorted(RUNS.iterdir()) if RUNS.is_dir() else []
    runs = [str(folder) for folder in found if RunDir(folder).is_run]
    return [run for run in runs if run.startswith(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Offer the shipped recipes, and TOML files."""
    files = [str(path) for path in Path().glob("*.toml")]
    return [name for name in [*list_recipes(), *files] if name.startswith(incomplete)]
