"""The README and docs/ cannot go stale: links lead somewhere, commands exist and run."""

import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import notebook
import pytest
import typer
from drawings import drawings
from images import SMALL, draw
from PIL import Image
from runs import call, python

from xception_cli.cli import _expand_bare_resume, app
from xception_cli.errors import UsageError
from xception_cli.sample.run import draw_sample

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and Zensical make them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_links_lead_to_a_file_and_to_a_heading_in_it() -> None:
    links = [
        (page, *target.partition("#")[::2])
        for page in PAGES
        for target in re.findall(
            r"""(?:\]\(|src=")([^)"\s]+)[)"]""", BLOCK.sub("", page.read_text("utf-8"))
        )
        if "://" not in target
    ]
    assert len(links) > 50
    broken = []
    for page, name, anchor in links:
        file = (page.parent / name) if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{page.name}: {name}#{anchor}")
    assert broken == []


def test_the_drawings_are_those_of_the_code() -> None:
    stale = [f.name for f, drawn in drawings().items() if f.read_text("utf-8") != drawn]
    assert stale == [], "rewrite them: python tests/drawings.py"


# The commands


def shell_commands(page: Path) -> Iterator[str]:
    """Yield the lines of a page's shell blocks, and those typed in its recordings."""
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in {"sh", "console"}:
            yield from (turn for line in text.splitlines() if line for turn in unrolled(line))
        else:
            yield from (line[2:] for line in text.splitlines() if line.startswith("$ "))


def unrolled(line: str) -> Iterator[str]:
    """Yield the commands of a shell loop, once for each value; another line as it is."""
    loop = re.fullmatch(r"for (\w+) in (.+?); do (.+); done", line)
    if loop is None:
        yield line
        return
    yield from (loop[3].replace(f"${loop[1]}", value) for value in loop[2].split())


def mentioned_commands(page: Path) -> Iterator[str]:
    """Yield what a page's sentences and tables quote."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    yield from (" ".join(code.split()) for code in re.findall(r"`(xception [^`]+)`", text))


def of_xception(line: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of xception in a line of a shell."""
    words = shlex.split(line)
    for i, word in enumerate(words):
        if Path(word).name == "xception" or words[max(i - 1, 0) : i + 1] == ["-m", "xception_cli"]:
            rest = words[i + 1 :]
            ends = [rest.index(sign) for sign in ("&&", "|") if sign in rest]
            yield rest[: min(ends, default=len(rest))]


def parse(arguments: list[str]) -> None:
    """Parse arguments down to the last subcommand, without calling any."""
    command: Any = typer.main.get_command(app)
    context = None
    # Parsing that option would change the shell of whoever runs the tests.
    typed = [word for word in arguments if word != "--install-completion"]
    name, rest = "xception", _expand_bare_resume(typed)
    while True:
        context = command.make_context(name, list(rest), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)


def test_every_command_of_the_pages_is_one_of_the_command_line() -> None:
    refused, seen = [], 0
    for page in PAGES:
        for line in shell_commands(page):
            for arguments in of_xception(line):
                seen += 1
                try:
                    parse(arguments)
                except Exception as error:
                    refused.append(f"{page.name}: {line}: {error!r}")
        for line in mentioned_commands(page):  # a sentence may leave out what is required
            try:
                parse(next(of_xception(line)))
            except UsageError as error:
                if "is missing" not in error.message:
                    refused.append(f"{page.name}: {line}: {error!r}")
            except typer.Exit:  # a group of commands alone prints its help
                pass
    assert refused == []
    assert seen > 60
    with pytest.raises(UsageError, match="--epoch"):  # the control
        parse(["train", "food", "--epoch", "3"])


_SMALL = "--image-size 71 --views 1 --workers 0 --device cpu --precision fp32"
_SMALL += " --weights random.safetensors --epochs 1 --ceiling 1"
# What makes a command take seconds, by its beginning; the first that fits holds.
QUICKER = {
    "train .*--resume .*--epochs": "--epochs 2",
    "train .*--resume": "",
    "train --data food": f"{_SMALL} --unfreeze exit",  # the first of all, which is resumed
    "train .*--from": f"{_SMALL} --unfreeze head",  # the second run of food, which is compared
    "train .*-o runs/seed": f"{_SMALL} --unfreeze head",  # several seeds, which are compared
    "train .*--plan": _SMALL,
    "train": f"{_SMALL} --unfreeze head --plan",  # the others differ in what a plan decides
    "sample": "--images 5",
    "check .*--(deep|curve)": "--weights random.safetensors",
}
# Only parsed here: they need the network, do not end by themselves, or need an exported file, whose
# gate takes 15 s; tests/onnx exports and uses one.
ELSEWHERE = ("weights fetch", "serve", "export", "predict img.jpg --model food.onnx")
ELSEWHERE += ("eval --model food.onnx",)


def quicker(arguments: list[str]) -> list[str]:
    """Return a variant of a command that takes seconds."""
    typed = shlex.join(arguments)
    more = next((more for start, more in QUICKER.items() if re.match(start, typed)), "")
    return [*arguments, *more.split()]


@pytest.mark.slow
def test_the_commands_of_the_pages_run_in_their_order(
    tmp_path: Path,
    random_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One folder for all pages, as for a reader who types everything; each command once."""
    shutil.copy(random_weights, "random.safetensors")
    monkeypatch.setenv("XCEPTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XCEPTION_FEATURES_GB", "1")
    for number, name in enumerate(("mug", "plate", "bowl")):
        for i in range(6):
            colour = [(200, 50, 40), (40, 60, 200), (60, 180, 60)][number]
            draw(Path(f"photos/{name}/{i}.jpg"), colour, seed=i)
            draw(Path(f"scans/{name}/patient{i}_{number}.jpg"), colour, seed=9 + i)
            draw(Path(f"unlabelled/{name}{i}.jpg"), colour, seed=20 + i)
    draw_sample(Path("food_val"), images=6)
    for path in Path("food_val").glob("*/*_00[0-4].jpg"):
        path.unlink()
    shutil.copy("photos/mug/0.jpg", "img.jpg")
    shutil.copy("photos/mug/0.jpg", "photo.jpg")

    first = [ROOT / "docs" / f"{name}.md" for name in ("first", "data", "training", "results")]
    done: list[str] = []
    for page in dict.fromkeys([*first, *PAGES]):
        for block, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            lines = [turn for line in text.splitlines() for turn in unrolled(line)]
            for line in lines if block == "sh" else []:
                if line.replace("./", "") in done or not re.match("xception |find ", line):
                    continue  # pip, venv and torchrun have tests of their own
                done.append(line.replace("./", ""))
                run(line, monkeypatch)
                assert "Traceback" not in capfd.readouterr().err, line
    assert len(done) > 35


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "|" in line:
        feed, line = line.split(" | ")
        listed = subprocess.run(shlex.split(feed), check=True, capture_output=True).stdout
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed)))
    (arguments,) = of_xception(line)
    if not shlex.join(arguments).startswith(ELSEWHERE):
        assert call(*quicker(arguments)) == 0, line


def test_the_glossary_is_in_alphabetical_order() -> None:
    rows = re.findall(
        r"^\| (?!term|-)(.+?) \| ", (ROOT / "docs/glossary.md").read_text("utf-8"), re.M
    )
    assert len(rows) > 60
    assert rows == sorted(rows, key=lambda term: term.strip("*`").lower())


# The notebook


def texts(cells: list[notebook.Cell]) -> list[list[str]]:
    """Return what each cell printed, of those whose outputs do not depend on the machine."""
    return [
        [line for output in cell["outputs"] for line in output.get("text", ())]
        for cell in cells
        if cell["cell_type"] == "code" and "varies" not in cell["metadata"].get("tags", ())
    ]


def test_the_page_of_the_notebook_is_generated_and_its_images_are_small() -> None:
    cells = notebook.read_cells()
    shown = notebook.PAGE.read_text("utf-8")
    assert shown == notebook.page(cells), "rewrite it: python tests/notebook.py"
    (image,) = notebook.images(cells)
    assert image == (ROOT / "docs" / notebook.IMAGE).read_bytes()
    assert len(image) < 150_000


@pytest.mark.slow
@pytest.mark.weights
def test_the_notebook_runs_and_its_outputs_are_those_it_is_stored_with(
    tmp_path: Path, imagenet: object
) -> None:
    """In a process of its own, on small images."""
    stored = notebook.read_cells()
    code = "".join(line for cell in stored if "outputs" in cell for line in cell["source"])
    assert set(re.findall(r"xception_cli[\w.]*", code)) == {"xception_cli"}  # the public API alone
    assert code.count("SIDE = 299") == 1
    done = python(notebook.__file__, str(SMALL), "small.ipynb", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = notebook.read_cells(tmp_path / "small.ipynb")
    assert texts(found) == texts(stored), "rewrite them: python tests/notebook.py"
    assert sum(map(len, texts(found))) > 40
    (image,), (expected,) = notebook.images(found), notebook.images(stored)
    assert Image.open(io.BytesIO(image)).tobytes() == Image.open(io.BytesIO(expected)).tobytes()
