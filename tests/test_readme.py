"""The README is up to date: its commands and its code are run, the tables of options generated.

`python tests/test_readme.py` rewrites the tables in docs/settings.md; test_docs.py has the pages.
"""

import dataclasses
import os
import re
import subprocess
import typing
from pathlib import Path

import pytest
import typer

from xception_cli.cli import app
from xception_cli.config import TrainConfig, flag, setting_type

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = ROOT / "docs" / "settings.md"


def commands() -> tuple[str, str]:
    """Return the first two one-line shell commands of the README."""
    first, second = re.findall(r"```sh\n(.+)\n```", README)[:2]
    return first, second


def test_ci_runs_the_test_command_of_the_readme_word_for_word() -> None:
    test_command = commands()[1]
    assert test_command.endswith("-m pytest")
    assert test_command in (ROOT / ".ci" / "run").read_text().splitlines()


def settings_table() -> str:
    """Return the table of settings as Markdown, one row per setting."""
    rows = ["| setting | meaning | default | range |", "|---|---|---|---|"]
    for setting in dataclasses.fields(TrainConfig):
        kind = setting_type(setting)
        low, high = setting.metadata["at_least"], setting.metadata["at_most"]
        if typing.get_args(kind):
            span = ", ".join(typing.get_args(kind))
        elif low is None:
            span = {bool: "yes or no", str: "text"}[kind]
        else:
            low, high = (x if x is None or x % 1 else f"{int(x):,}" for x in (low, high))
            span = f"≥ {low}" if high is None else f"{low} to {high}"
        default = setting.default
        if isinstance(default, bool):
            default = "yes" if default else "no"
        elif isinstance(default, int):
            default = f"{default:,}"
        shown = "" if default in {None, ""} else default
        rows.append(f"| `{flag(setting.name)}` | {setting.metadata['help']} | {shown} | {span} |")
    return "\n".join(rows) + "\n"


def options_table() -> str:
    """Return the table of train's options that are not settings, in the order of its help."""
    settings = {setting.name for setting in dataclasses.fields(TrainConfig)}
    rows = ["| option | meaning |", "|---|---|"]
    for option in typer.main.get_command(app).commands["train"].params:  # type: ignore[attr-defined]
        if option.name not in {*settings, "help"}:
            named = ", ".join(f"`{name}`" for name in option.opts if name.startswith("-"))
            rows.append(f"| {named or '`DIR`'} | {option.help} |")
    return "\n".join(rows) + "\n"


def test_the_tables_of_settings_and_options_are_the_generated_ones() -> None:
    page = SETTINGS.read_text(encoding="utf-8")
    assert settings_table() in page
    assert options_table() in page


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.slow
@pytest.mark.weights
def test_the_first_command_trains_evaluates_and_predicts_in_a_fresh_clone(tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", str(ROOT), "clone"], check=True, cwd=tmp_path)
    # As many threads as users have; the tests' own are limited to one.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        ["bash", "-c", commands()[0]],
        check=False,
        cwd=tmp_path / "clone",
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    accuracy = re.search(r"result +val: accuracy ([\d.]+)%", done.stderr)
    assert accuracy is not None
    assert float(accuracy[1]) > 60  # chance is a twelfth
    assert "apple" in done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.weights
def test_the_python_of_the_readme_runs(tmp_path: Path, imagenet: object) -> None:
    """Both examples: the model trained with the Python API is loaded in plain PyTorch."""
    from images import draw

    for name, colour in (("a", (200, 50, 40)), ("b", (40, 60, 200))):
        for i in range(6):
            draw(tmp_path / "food" / name / f"{i}.jpg", colour, seed=i)
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "food" / "a" / "0.jpg").read_bytes())
    page = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
    for text in (README, page):
        (example,) = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
        exec(compile(example, "README.md", "exec"), {})


if __name__ == "__main__":
    written = SETTINGS.read_text(encoding="utf-8")
    for head, made in (("setting", settings_table), ("option", options_table)):
        table = re.compile(rf"\| {head} \| meaning .*?\n(?!\|)", re.DOTALL)
        written = table.sub(lambda _, made=made: made(), written)  # type: ignore[misc]
    SETTINGS.write_text(written, encoding="utf-8")
