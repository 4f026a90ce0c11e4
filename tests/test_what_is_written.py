"""Nothing outside of the run folder, the cache and the named outputs is ever written."""

import json
import os
from pathlib import Path

import pytest
from images import COLOURS, draw, draw_photos
from runs import python, quick_settings

# Each process, including forked helpers, records what it opens to write, creates or renames.
_WATCHED = """
import json, os, sys
noted = os.open(os.environ["NOTED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
def note(event, arguments):
    paths = []
    if event == "open":
        path, mode, flags = arguments
        # A folder opened for writing (O_TMPFILE) gets a file without a name.
        is_file = not isinstance(path, int) and not os.path.isdir(path)
        if is_file and (flags & writing or set(mode or "") & set("wax+")):
            paths = [path]
    elif event in {"os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.utime"}:
        # By descriptor, or relative to one (shutil.rmtree), what was opened before is changed.
        is_named = not isinstance(arguments[0], int) and arguments[-1] in (-1, None)
        paths = [arguments[0]] if is_named else []
    elif event in {"os.rename", "os.link", "os.symlink", "shutil.move"}:
        paths = list(arguments[:2])
    elif event == "sqlite3.connect":
        paths = [arguments[0]]
    for path in paths:
        path = os.fsdecode(path)
        os.write(noted, f"{event} {os.path.abspath(path)}\\n".encode("utf-8", "replace"))
sys.addaudithook(note)
from xception_cli.cli import main
for name, command in json.loads(sys.argv[1]).items():
    os.write(noted, f"command {name}\\n".encode())
    if name == "export":
        from xception_cli.onnx import run
        run.judge_images.__kwdefaults__.update(least=6, large=0)  # few images to compare
    try:
        main(command)
    except SystemExit as ended:
        if ended.code:
            sys.exit(f"{name}: {ended.code}")
"""


def _snapshot(root: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        found[str(path.relative_to(root))] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


@pytest.mark.slow
def test_every_command_writes_only_to_its_outputs(tmp_path, random_weights):
    home, temporary, work = (tmp_path / name for name in ("home", "tmp", "work"))
    for folder in (home, temporary, work):
        folder.mkdir()
    (home / ".bashrc").write_text("alias ll='ls -l'\n")
    (home / "thesis.txt").write_text("precious")
    photos = draw_photos(work / "photos")
    for number, (name, colour) in enumerate(COLOURS.items()):
        draw(work / "others" / name / "new.jpg", colour, seed=9000 + number)
    settings = quick_settings(photos, random_weights)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    commands = {
        "check": ["check", "photos"],
        "check, with a page": ["check", "photos", "--output", "found"],
        "train": ["train", *flags],
        "resume": ["train", "--resume", "runs/photos", "--epochs", "3"],
        "eval": ["eval", "runs/photos"],
        "eval of others": ["eval", "runs/photos", "--data", "others"],
        "predict": ["predict", "photos/red", "--output", "out.csv", "--explain", "why"],
        "report": ["report", "runs/photos"],
        "export": ["export", "runs/photos", "--output", "food.onnx"],
        "summary": ["summary", "--svg", "x.svg"],
        "sample": ["sample", "drawn", "--classes", "2", "--images", "2"],
        "configs": ["configs", "cp", "quick" if _has("quick") else "tiny", "own.toml"],
    }
    outputs = {
        "check, with a page": ["found"], "train": ["runs"], "resume": ["runs"], "eval": ["runs"],
        "eval of others": ["runs"], "predict": ["out.csv", "why"], "report": ["runs"],
        "export": ["food.onnx", "export_report.json"], "summary": ["x.svg"], "sample": ["drawn"],
        "configs": ["own.toml"],
    }  # fmt: skip
    # Torch, if loaded here, has set the variable in the environment.
    others = ("XDG_", "MPL", "TORCHINDUCTOR_")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(others)
    } | {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "XCEPTION_CACHE": str(tmp_path / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NOTED": str(tmp_path / "noted"),
    }
    before = _snapshot(home), _snapshot(photos)
    done = python("-c", _WATCHED, json.dumps(commands), cwd=work, env=environment)
    assert done.returncode == 0, done.stderr
    assert (_snapshot(home), _snapshot(photos)) == before
    assert list(temporary.iterdir()) == []
    wrong: dict[str, set[str]] = {}
    for line in (tmp_path / "noted").read_text().splitlines():
        event, _, path = line.partition(" ")
        if event == "command":
            wrong[path], recorded = set(), 0
            allowed = [str(work / output) for output in outputs.get(path, [])]
            allowed += [str(tmp_path / "cache"), str(temporary), "/dev/null"]
            # Whether a folder can be written is tried, with a nameless file on Linux.
            allowed += [] if hasattr(os, "O_TMPFILE") else [str(work / "tmp")]
            command = path
        elif not path.startswith(tuple(allowed)):
            wrong[command].add(line)
        recorded += event == "open"
    assert wrong == {name: set() for name in commands}
    assert recorded  # the control: something is recorded, even of the last command


def _has(recipe: str) -> bool:
    from xception_cli.recipes import list_recipes

    return recipe in list_recipes()
