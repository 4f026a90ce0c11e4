"""A headless Chromium, driven over its DevTools pipe: what a page does with a real file."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Browser:
    """One page in one browser, which uses no network but this machine's.

    Attributes:
        events: What the page reported, in order: console messages, exceptions, violations of its
            policy (`Log.entryAdded`), and each address that it asked for.
    """

    def __init__(self, profile: Path) -> None:
        to_browser, ours = os.pipe()
        back, from_browser = os.pipe()
        command = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", str(CHROMIUM), "--headless", "--no-sandbox",
             "--disable-gpu", "--remote-debugging-pipe", "--disable-background-networking",
             f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._to, self._from = os.fdopen(ours, "wb", buffering=0), os.fdopen(back, "rb")
        self.events: list[dict[str, Any]] = []
        self._count, self._rest, self._session = 0, b"", ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._to.close()  # it ends with its pipe
        self._process.wait(30)
        self._from.close()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its result; what the page reports meanwhile is kept."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            received = self._receive()
            if received.get("id") == self._count:
                assert "error" not in received, received
                return dict(received["result"])
            self.events.append(received)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._from.fileno(), 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def run(self, script: str) -> Any:
        """Return what an expression is in the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60) -> Any:
        """Return what an expression is once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)
        return value

    def open(self, address: str) -> None:
        """Show a page."""
        self.ask("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files, as a person does in the dialog of a file input."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def of(self, method: str) -> list[dict[str, Any]]:
        """Return what the page reported in one kind of event."""
        return [event["params"] for event in self.events if event.get("method") == method]
