"""Server: a page and its requests over HTTP, for browsers on this machine only. No torch.

No other web page may read from it or send it images, so the server listens on the loopback address,
checks Host and Origin, and its own page loads nothing.
"""

import io
import json
import os
import re
import socket
import sys
import time
import traceback
from base64 import b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import BoundedSemaphore
from typing import Any

from xception_cli.console import say
from xception_cli.errors import MachineError, XceptionError, is_out_of_memory

ADDRESS = "127.0.0.1"
MOST_BYTES = 64_000_000  # of an image
SECONDS = 20  # limit on the time that a request takes to arrive
WAITING = 8  # images in memory: the one being classified, and the queue
_CONNECTIONS = 64  # each is a thread
_LINGER = 2  # seconds for reading the rest of a refused request
_METHODS = {"/": "GET, HEAD", "/predict": "POST"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_ITSELF = (  # all that its script may do: send requests to this server, and write text
    "img-src data:; connect-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
)

Answer = Callable[[bytes], Mapping[str, Any]]


def policy_of(page: str) -> str:
    """Return the Content-Security-Policy of a page: it runs its own script and loads nothing.

    Args:
        page: HTML whose scripts and styles have no attributes, and whose other text is escaped.
    """
    own = []
    for kind in ("script", "style"):
        texts = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        hashes = (b64encode(sha256(text.encode()).digest()).decode() for text in texts)
        own.append(" ".join([f"{kind}-src", *(f"'sha256-{value}'" for value in hashes)]))
    return "; ".join([_NOTHING, *own, _ITSELF])


class Server(ThreadingTCPServer):  # HTTPServer would look up the name of the address in the DNS
    """A server that binds a local port on construction; `show` serves a page there.

    Args:
        port: The port; 0 selects a free one.

    Raises:
        MachineError: The port is in use, or not permitted.
    """

    daemon_threads = True
    request_queue_size = _CONNECTIONS
    allow_reuse_address = os.name != "nt"  # which would share the port with another program

    def __init__(self, port: int) -> None:
        self.slots = BoundedSemaphore(WAITING)
        self._connections = BoundedSemaphore(_CONNECTIONS)
        # Only one thread computes: torch keeps threads and buffers for each thread that calls it.
        self._worker = ThreadPoolExecutor(max_workers=1)
        self.page, self.policy = b"", _NOTHING
        self._answer: Answer = lambda _: {}
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise MachineError(
                f"port {port} cannot be opened: {(error.strerror or str(error)).lower()}",
                hint="choose another --port; --port 0 selects a free one",
            ) from error

    @property
    def port(self) -> int:
        """The port number."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """The URL of the page."""
        return f"http://{ADDRESS}:{self.port}"

    @property
    def hosts(self) -> frozenset[str]:
        """The valid values of the header `Host`."""
        names = {ADDRESS, "localhost"}
        hosts = {f"{name}:{self.port}" for name in names}
        return frozenset(hosts | names if self.port == 80 else hosts)  # which may be left out

    def show(self, page: str, answer: Answer) -> None:
        """Serve a page and its requests until a signal arrives.

        Args:
            page: HTML, see `policy_of`.
            answer: Returns plain data for the bytes of an image file; its `error` is None if the
                image could be read. It is called in one thread.
        """
        self.page, self.policy, self._answer = page.encode(), policy_of(page), answer
        self.serve_forever(poll_interval=0.1)

    def answer(self, content: bytes) -> Mapping[str, Any]:
        """Answer after the images received earlier."""
        return self._worker.submit(self._answer, content).result()

    def server_close(self) -> None:
        """Release the port, and wait for the image being classified."""
        super().server_close()
        self._worker.shutdown(cancel_futures=True)

    def handle_error(self, *_: object) -> None:
        """Print the traceback of a bug, unless the browser has gone or the server is closed."""
        if not isinstance(sys.exception(), OSError) and self.fileno() >= 0:
            traceback.print_exc()

    def verify_request(self, *_: object) -> bool:
        """Refuse connections over the limit."""
        return self._connections.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, in its own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()


class _RefusedError(Exception):
    """A request that is refused.

    Args:
        status: HTTP status of the reply.
        reason: Reason, for the user.
        headers: Headers of the reply.
    """

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class _Input(io.RawIOBase):
    """The input of a connection, with a deadline."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self.end_in(SECONDS)

    def end_in(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One connection, with one request."""

    server: Server
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # a reply to HTTP/0.9 has no headers

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._input = _Input(self.connection)
        self.rfile = io.BufferedReader(self._input)

    def do_GET(self) -> None:
        try:
            self._check("GET")
        except _RefusedError as refused:
            self._refuse(refused)
        else:
            self._reply(200, "text/html; charset=utf-8", self.server.page)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        try:
            self._check("POST")
            reply = self._predict()
        except _RefusedError as refused:
            self._refuse(refused)
        else:
            status = 200 if reply["error"] is None else 422
            self._reply(status, "application/json", json.dumps(reply).encode())

    def _check(self, method: str) -> None:
        """Refuse requests from other pages, and for other paths or methods."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise _RefusedError(421, f"this server is at {self.server.url} only")
        path = self.path.partition("?")[0]
        if path not in _METHODS:
            raise _RefusedError(404, f"there is no such path; the page is at {self.server.url}")
        if method not in _METHODS[path]:
            raise _RefusedError(405, f"use {_METHODS[path]} here", Allow=_METHODS[path])
        origin = self.headers.get("Origin")
        if method == "POST" and origin not in {None, f"http://{hosts[0].lower()}"}:
            raise _RefusedError(403, "only this server's own page can send images")

    def _predict(self) -> Mapping[str, Any]:
        length = self._length()
        if not self.server.slots.acquire(blocking=False):
            raise _RefusedError(503, "other images are waiting: try again", **{"Retry-After": "1"})
        try:
            try:
                content = self.rfile.read(length)
            except TimeoutError:
                raise _RefusedError(408, f"the image did not arrive in {SECONDS} s") from None
            if len(content) < length:
                raise _RefusedError(
                    400, f"the image has {length:,} bytes, {len(content):,} arrived"
                )
            return self._compute(content)
        finally:
            self.server.slots.release()

    def _length(self) -> int:
        lengths = self.headers.get_all("Content-Length", [])
        if len(lengths) != 1 or "Transfer-Encoding" in self.headers:
            raise _RefusedError(411, "send the image with one Content-Length")
        if not re.fullmatch("[0-9]{1,15}", lengths[0]):
            raise _RefusedError(400, "Content-Length is not a number")
        if int(lengths[0]) > MOST_BYTES:
            raise _RefusedError(413, f"the image is over {MOST_BYTES:,} bytes")
        return int(lengths[0])

    def _compute(self, content: bytes) -> Mapping[str, Any]:
        """Answer, or print the error on the terminal: the reply must not show paths."""
        try:
            return self.server.answer(content)
        except Exception as error:
            if isinstance(error, XceptionError) or is_out_of_memory(error):
                say(f"warning   an image was not classified: {error}")
            else:
                self.server.handle_error()
            raise _RefusedError(
                500, "the image could not be classified; xception serve printed why"
            ) from error

    def _refuse(self, refused: _RefusedError) -> None:
        content = json.dumps({"error": refused.reason}).encode()
        self._reply(refused.status, "application/json", content, refused.headers)
        # Closing with unread input would reset the connection, and the reply would be lost.
        with suppress(OSError, ValueError):
            self.connection.shutdown(socket.SHUT_WR)
            self._input.end_in(_LINGER)
            while self.rfile.read1(65_536):
                pass

    def _reply(
        self, status: int, kind: str, content: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        self.connection.settimeout(SECONDS)
        self.send_response(status)
        policy = {"Content-Security-Policy": self.server.policy}
        sizes = {"Content-Type": kind, "Content-Length": str(len(content)), "Connection": "close"}
        for name, value in (sizes | policy | _HEADERS | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse invalid requests and other methods, without Python's error page."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._refuse(_RefusedError(405, "use GET or POST", Allow="GET, HEAD, POST"))
        else:
            self._refuse(_RefusedError(code, HTTPStatus(code).phrase))

    def version_string(self) -> str:
        return "xception"

    def log_message(self, *_: object) -> None:
        """Log nothing: stderr is for what the user must know."""
