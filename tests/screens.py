"""Make docs/images again: a training in the terminal, and the report of its run.

`python tests/screens.py` draws the terminal from what docs/first.md records, so that both show the
same numbers; `python tests/screens.py RUN` also draws the report of that run, with chromium.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

from xception_cli.terminal import lay_out

DOCS = Path(__file__).parent.parent / "docs"
IMAGES = DOCS / "images"
COLUMNS = 80
BOLD = re.compile(r"\$|epoch  |kept  |result  ")  # the lines that `say` prints in bold
HEARTBEAT = re.compile(r"[a-z]+.*: [\d,]+ of [\d,]+, ")  # a bar on a terminal


def recorded() -> list[str]:
    """Return the lines of sample and train in docs/first.md."""
    text = (DOCS / "first.md").read_text(encoding="utf-8")
    shown = text.split("```text\n", 1)[1].split("\n\n$ xception eval")[0]
    return [line for line in shown.split("\n") if not HEARTBEAT.match(line)]


def draw_terminal() -> None:
    """Write the terminal as an SVG without the web fonts that rich refers to."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        for line in recorded():
            style = "bold" if BOLD.match(line) else ""
            console.print(Text(line, style) if line[:1] == "$" else lay_out(line, style, COLUMNS))
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
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1240,1600"]
        page = (run / "report.html").resolve().as_uri()
        subprocess.run(
            [chromium, *options, f"--screenshot={png}", page], check=True, capture_output=True
        )
        plots = run / "eval" / "val"
        for path in (png, plots / "confusion.png", plots / "calibration.png"):
            with Image.open(path) as image:
                image.convert("RGB").quantize(128).save(IMAGES / path.name, optimize=True)


if __name__ == "__main__":
    draw_terminal()
    if len(sys.argv) > 1:
        draw_report(Path(sys.argv[1]))
