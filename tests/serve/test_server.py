"""The server of `xception serve`: what it refuses, and what its replies reveal. No model."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.message import Message
from email.parser import BytesParser
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from runs import call

from xception_cli.errors import MachineError
from xception_cli.serve import server as module
from xception_cli.serve.server import MOST_BYTES, WAITING, Server, policy_of

PAGE = "<style>p { margin: 0 }</style><p>a page</p><script>1</script>"
SECRET = "/home/me/model.safetensors"


def answer(content: bytes) -> dict[str, Any]:
    if content == b"bug":
        raise KeyError(SECRET)
    if content == b"machine":
        raise MachineError(f"{SECRET}: there is too little memory")
    return {"error": "not an image" if content == b"text" else None, "size": len(content)}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Serving(answer) as made:
        yield made


class Serving(Server):
    """A server in a thread."""

    def __init__(self, answer: module.Answer) -> None:
        super().__init__(0)
        self.thread = threading.Thread(target=self.show, args=(PAGE, answer))
        self.thread.start()

    def server_close(self) -> None:
        self.shutdown()
        self.thread.join()
        super().server_close()


def send(server: Server, request: str | bytes, *, end: bool = True) -> tuple[int, Message, bytes]:
    """Send raw bytes; return status, headers and body of the reply, or status 0 without one."""
    if isinstance(request, str):
        request = request.replace("HOST", f"127.0.0.1:{server.port}").encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        if end:
            connection.shutdown(socket.SHUT_WR)
        reply = connection.makefile("rb").read()
    head, _, body = reply.partition(b"\r\n\r\n")
    if not head:
        return 0, Message(), b""
    first, _, rest = head.partition(b"\r\n")
    return int(first.split()[1]), BytesParser().parsebytes(rest + b"\r\n\r\n"), body


def post(more: str = "Content-Length: 5\r\n", body: str = "image", host: str = "HOST") -> str:
    return f"POST /predict HTTP/1.1\r\nHost: {host}\r\n{more}\r\n{body}"


def get(path: str = "/", more: str = "", method: str = "GET", host: str = "HOST") -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"


HEADERS = {
    "Server": "xception",
    "Connection": "close",
    "Content-Security-Policy": policy_of(PAGE),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def test_the_page_and_an_answer_have_these_headers_and_no_others(server: Server) -> None:
    page, reply = send(server, get("/?utm=x")), send(server, post())
    assert (page[0], page[2]) == (200, PAGE.encode())
    assert (reply[0], json.loads(reply[2])) == (200, {"error": None, "size": 5})
    for (_, headers, body), kind in (
        (page, "text/html; charset=utf-8"),
        (reply, "application/json"),
    ):
        own = {"Content-Type": kind, "Content-Length": str(len(body))}
        assert dict(headers) == HEADERS | own | {"Date": headers["Date"]}
    status, headers, body = send(server, get(method="HEAD"))
    assert (status, headers["Content-Length"], body) == (200, str(len(PAGE)), b"")


def test_the_policy_allows_the_script_and_the_style_of_the_page_and_no_other_source() -> None:
    policy = dict(part.split(" ", 1) for part in policy_of(PAGE).split("; "))
    assert policy == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        # printf 1 | openssl dgst -sha256 -binary | base64
        "script-src": "'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='",
        "style-src": policy["style-src"],
        "img-src": "data:",
        "connect-src": "'self'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert policy["style-src"].startswith("'sha256-")


REFUSED = [
    ("another path", get("/model.safetensors"), 404),
    ("a way out", get("/../../../../etc/passwd"), 404),
    ("a way out, encoded", get("/%2e%2e/%2e%2e/etc/passwd"), 404),
    ("two slashes", get("//etc/passwd"), 404),
    ("a proxy's form", get("http://127.0.0.1/"), 404),
    ("a page to POST to", post().replace("/predict", "/"), 405),
    ("an answer to GET", get("/predict"), 405),
    *((f"{m}", get(method=m), 405) for m in ("PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "x")),
    ("another host (DNS rebinding)", get(host="attacker.example"), 421),
    ("another host in a POST", post(host="attacker.example"), 421),
    ("another port", get(host="127.0.0.1:1"), 421),
    ("two hosts", get(more="Host: attacker.example\r\n"), 421),
    ("no host", "GET / HTTP/1.0\r\n\r\n", 421),
    ("another page", post("Content-Length: 5\r\nOrigin: http://attacker.example\r\n"), 403),
    ("a page of a file", post("Content-Length: 5\r\nOrigin: null\r\n"), 403),
    ("another port's page", post("Content-Length: 5\r\nOrigin: http://127.0.0.1:1\r\n"), 403),
    ("no length", post(""), 411),
    ("chunks", post("Transfer-Encoding: chunked\r\n", "5\r\nimage\r\n0\r\n\r\n"), 411),
    ("chunks with a length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 411),
    ("two lengths", post("Content-Length: 5\r\nContent-Length: 50\r\n"), 411),
    *((f"length {n!r}", post(f"Content-Length: {n}\r\n"), 400) for n in ("-1", "+5", "1_0", "5;")),
    ("a huge length", post(f"Content-Length: {10**20}\r\n"), 400),
    ("too large", post(f"Content-Length: {MOST_BYTES + 1}\r\n"), 413),
    ("an end too early", post("Content-Length: 6\r\n"), 400),
    ("no image", post("Content-Length: 4\r\n", "text"), 422),
    ("a bug", post("Content-Length: 3\r\n", "bug"), 500),
    ("a machine without memory", post("Content-Length: 7\r\n", "machine"), 500),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\n\n", 400),
    ("another protocol", "GET / HTTP/2.0\r\n\r\n", 505),
    ("a long path", get("/" + "a" * 70_000), 414),
    ("a long header", get(more=f"A: {'a' * 70_000}\r\n"), 431),
    ("many headers", get(more="A: a\r\n" * 200), 431),
]


@pytest.mark.parametrize(
    ("request_", "status"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_a_bad_request_is_refused_with_a_sentence_that_reveals_nothing(
    server: Server, request_: str | bytes, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = request_ if isinstance(request_, bytes) else request_.encode()
    found, headers, body = send(server, request_)
    assert found == status
    assert {name: headers[name] for name in HEADERS} == HEADERS
    assert "Access-Control-Allow-Origin" not in headers
    assert ("Allow" in headers) == (status == 405)
    assert json.loads(body)["error"]
    for secret in (b"passwd", b"Python", b"/home", b"attacker", b"Traceback"):
        assert secret not in body + str(headers).encode()
    printed = capsys.readouterr().err
    assert (SECRET in printed) == (status == 500)  # only the terminal explains it
    assert ("KeyError" in printed) == (b"bug" in raw)
    assert send(server, get())[0] == 200


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost"])
def test_the_page_itself_may_send_images_under_either_host_name(server: Server, name: str) -> None:
    host = f"{name}:{server.port}"
    origin = f"Content-Length: 5\r\nOrigin: http://{host.lower()}\r\n"
    assert send(server, post(origin, host=host))[0] == 200


def test_a_slow_sender_is_disconnected_however_many_bytes_it_sends(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.5)
    monkeypatch.setattr(module, "_LINGER", 0.2)
    start = time.monotonic()
    assert send(server, "GET / HTTP/1.1\r\nHost:", end=False)[0] == 0
    assert send(server, post("Content-Length: 50\r\n"), end=False)[0] == 408
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        sent = 0
        with suppress(OSError):  # closed while it sends
            while sent < 100:
                connection.sendall(b"G")
                sent += 1
                time.sleep(0.05)
    assert 2 < sent < 40
    assert time.monotonic() - start < 4


def test_of_thirty_images_at_once_some_wait_and_the_others_must_be_sent_again() -> None:
    may_end = threading.Event()

    def wait(content: bytes) -> dict[str, Any]:
        assert may_end.wait(30)
        return {"error": None}

    def ask(server: Server) -> int:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", "/predict", b"x" * 1_000_000)
        reply = connection.getresponse()
        assert reply.status == 200 or reply.getheader("Retry-After") == "1"
        reply.read()
        connection.close()
        if reply.status == 503:
            refused.release()
        return reply.status

    refused = threading.Semaphore(0)
    with Serving(wait) as server, ThreadPoolExecutor(30) as pool:
        asked = [pool.submit(ask, server) for _ in range(30)]
        for _ in range(30 - WAITING):
            assert refused.acquire(timeout=30)
        may_end.set()
        assert Counter(one.result() for one in asked) == {200: WAITING, 503: 30 - WAITING}
        assert send(server, post())[0] == 200


def test_a_port_in_use_is_reported_with_a_hint(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("m.safetensors").touch()  # the port is opened before the model is read
    assert call("serve", "--model", "m.safetensors", "--port", str(server.port)) == 5
    assert capsys.readouterr().err == (
        f"error: port {server.port} cannot be opened: address already in use\n"
        "hint: choose another --port; --port 0 selects a free one\n"
    )
    assert call("serve", "run", "--model", "m.safetensors") == 2
    assert call("serve", "--port", "65536") == 2
