"""`xception serve` as a user sees it: the command, and its page in a browser."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from images import SMALL, encoded, photo
from networks import lively_network
from runs import call

from xception_cli.data.transforms import Preprocessing
from xception_cli.model.about import About
from xception_cli.model.bundle import save_model

pytestmark = [
    pytest.mark.slow,  # a process that loads torch, and a browser
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]
CLASSES = ("<img src=http://attacker.example>", "pear", "<script>document.title='ran'</script>")


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    about = About(CLASSES, Preprocessing.for_size(SMALL), provenance={"precision": "fp32"})
    save_model(tmp_path / "m.safetensors", lively_network().state_dict(), about)
    process = subprocess.Popen(
        [sys.executable, "-m", "xception_cli", "serve", "--model", "m.safetensors", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def test_a_photo_chosen_in_the_page_gets_the_class_that_predict_prints_and_nothing_else_runs(
    serving: subprocess.Popen[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "<b>good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(encoded(photo(1)))
    bad.write_text("no image")
    assert serving.stdout is not None
    address = serving.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:")
    with Browser(tmp_path / "profile") as page:
        page.open(address)
        page.choose("#photos", good, bad)
        page.wait_for("document.querySelector('#status').textContent.startsWith('2 of 2')")
        answers = page.run("[...document.querySelectorAll('.answer')].map(x => x.textContent)")
        bars = page.run("[...document.querySelectorAll('.bars li')].map(x => x.textContent)")
        name = "getComputedStyle(document.querySelector('.bars bdi')).textAlign"
        assert page.run(name) == "left"  # right-to-left names, too
        assert page.wait_for("document.querySelector('figure img').naturalWidth") == 160
        before = page.run("document.querySelector('figure img').src")
        page.run("document.querySelector('figure button').focus()")
        for kind in ("keyDown", "keyUp"):
            page.ask("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", text=" ")
        assert page.run("document.querySelector('figure button').ariaPressed") == "true"
        assert page.run("document.querySelector('figure img').src") != before
        page.ask("Emulation.setDeviceMetricsOverride", width=390, height=844,
            deviceScaleFactor=1, mobile=True)  # fmt: skip
        assert page.run("document.documentElement.scrollWidth") == 390
        assert page.run("document.title") == "Xception m.safetensors: 3 classes"
        assert page.run("document.querySelectorAll('img, script').length") == 2  # the photo, ours
        asked = {
            one["request"]["url"].partition(",")[0] for one in page.of("Network.requestWillBeSent")
        }
        assert asked == {f"{address}/", f"{address}/predict", "data:image/jpeg;base64"}
        # The console reports only that bad.jpg is refused; then the control.
        problems = [one["entry"]["text"] for one in page.of("Log.entryAdded")]
        assert [text for text in problems if "422" not in text] == []
        assert page.of("Runtime.exceptionThrown") == []
        page.run("addEventListener('securitypolicyviolation', () => { window.refused = true })")
        page.run("document.body.append(Object.assign(new Image(), {src: '/x.png'}))")
        page.wait_for("window.refused")
        problems = [one["entry"]["text"] for one in page.of("Log.entryAdded")]
        assert "Content Security Policy" in problems[-1]
    serving.send_signal(signal.SIGINT)
    out, err = serving.communicate(timeout=30)
    assert (serving.returncode, out) == (130, "")
    assert err.splitlines() == [
        f"serving   {address} (Ctrl-C stops it)",
        "note      for demonstrations, not for production",
        "stopped by SIGINT (Ctrl-C)",
    ]
    assert call("predict", str(good), "--model", "m.safetensors", "--top", "3") == 0
    named = capsys.readouterr().out.strip().removeprefix(f"{good}: ")
    assert ", ".join(bars) == named
    assert answers[0] == bars[0].rpartition(" ")[0]
    assert answers[1].startswith("not an image of a supported format")
