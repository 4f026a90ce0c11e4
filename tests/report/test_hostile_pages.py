"""The pages of a hostile run in a browser: no script runs, and nothing is loaded."""

import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from images import draw
from pages import Page
from runs import call, quick_settings, train_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
pytestmark = [
    pytest.mark.slow,  # a training and a browser
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and the requests that it got."""
    paths: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


def dom(page: Path) -> str:
    """Return the page in a browser after its scripts, if any, have run."""
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
         f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout


def test_the_browser_would_run_a_script_and_load_an_image(tmp_path, asked):
    """The control: without it, an empty page would pass, too."""
    address, paths = asked
    page = tmp_path / "page.html"
    page.write_text(f"<p>a</p><img src='{address}/image'><script>document.title = 'ran'</script>")
    assert "<title>ran</title>" in dom(page)
    assert "/image" in paths


def test_a_run_of_hostile_names_runs_nothing_and_loads_nothing(tmp_path, random_weights, asked):
    address, paths = asked
    host = address.removeprefix("http://")
    names = [
        "<script>document.title='ran'<script>",
        f'=HYPERLINK("{host}")',
        "\"><img src=x onerror=document.title='ran'>",
        "' onmouseover='document.title=1",
        "{{ 7 * 7 }}",
    ]
    photos = tmp_path / "photos"
    for number, name in enumerate(names):
        for at in range(5):
            draw(photos / name / f"<img src={at}>.jpg", (40 * number, 90, 200), 100 * number + at)
        shutil.copy(
            photos / name / "<img src=0>.jpg", photos / name / f"javascript:alert{number}.jpg"
        )
    train_run(quick_settings(photos, random_weights) | {"unfreeze": "head"})
    issues = Path("run/issues.csv")
    detail = f"<iframe src={address}/frame></iframe>"
    with issues.open("a") as file:
        file.write(f"/etc/passwd,suspect label,{detail},exclude,<b>x</b>\n")
    assert call("report", "run") == 0
    assert call("check", "photos", "--output", "found") in {0, 3}
    for page in (Path("run/report.html").absolute(), Path("found/check.html").absolute()):
        found = dom(page)
        assert "<title>ran" not in found
        assert "<script" not in found.lower()
        assert "<iframe" not in found.lower()
        assert not [e for e in Page(found).elements if any(n.startswith("on") for n in e[1])]
        assert "{{ 7 * 7 }}" in found
        assert "&lt;script&gt;" in found  # the name is shown as text
    assert paths == []
