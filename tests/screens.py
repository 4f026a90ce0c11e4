"""Make docs/images again: a training in the terminal, and the report of its run.

`python tests/screens.py` trains on the sample set for that (about 5 minutes); `python
tests/screens.py RUN` only renders the report of a run. It needs tmux and chromium.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).parent.parent / "docs" / "images"
COMMANDS = ("sample food", "train --data food --classes 12")
COLUMNS = 80


def record(folder: Path) -> str:
    """Run the commands in a terminal of tmux; return its last state, with ANSI colours."""
    lines = [f'xception() {{ {sys.executable} -m xception_cli "$@"; }}']
    for command in COMMANDS:
        lines += [f"printf '\\033[1m$ xception {command}\\033[0m\\n'"]
        lines += [f"xception {command}", "echo"]
    (folder / "commands.sh").write_text("\n".join([*lines, "touch done", "sleep 60"]))
    tmux = ["tmux", "-L", f"screens-{os.getpid()}"]  # a server of its own, with this environment
    size = ("-x", str(COLUMNS), "-y", "70")
    subprocess.run(
        [*tmux, "new-session", "-d", *size, "-c", str(folder), "bash commands.sh"], check=True
    )
    while not (folder / "done").exists():
        time.sleep(1)
    shown = subprocess.run(
        [*tmux, "capture-pane", "-e", "-p", "-S", "-"], check=True, capture_output=True, text=True
    ).stdout
    subprocess.run([*tmux, "kill-server"], check=True)
    return shown.rstrip()


def draw_terminal(shown: str) -> None:
    """Write the terminal as an SVG without the web fonts that rich refers to."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(shown))
    svg = console.export_svg(title="xception")
    while "@font-face" in svg:
        start = svg.index("@font-face")
        svg = svg[:start] + svg[svg.index("}", start) + 1 :]
    svg = svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")
    (IMAGES / "terminal.svg").write_text(svg, encoding="utf-8")


def draw_report(run: Path) -> None:
    """Write the top of a run's report, its confusion matrix and its calibration as small PNGs."""
    with tempfile.TemporaryDirectory() as folder:
        png = Path(folder) / "report.png"
        chromium = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1100,1460"]
        page = (run / "report.html").resolve().as_uri()
        subprocess.run(
            [chromium, *options, f"--screenshot={png}", page], check=True, capture_output=True
        )
        plots = run / "eval" / "val"
        for path in (png, plots / "confusion.png", plots / "calibration.png"):
            with Image.open(path) as image:
                image.convert("RGB").quantize(128).save(IMAGES / path.name, optimize=True)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    if len(sys.argv) > 1:
        draw_report(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            draw_terminal(record(Path(made)))
            draw_report(Path(made) / "runs" / "food")
