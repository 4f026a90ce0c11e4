"""Lists of paths: read as a stream, repeatedly; URLs and binary files are refused."""

import io
import os
import sys
from pathlib import Path

import pytest

from xception_cli.data.lists import open_list
from xception_cli.errors import UsageError


class _Stdin:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        (b"a.jpg\nb c.jpg\n\n  d.jpg", ["a.jpg", "b c.jpg", "  d.jpg"]),
        (b"\xef\xbb\xbfa.jpg\r\n\xe9.jpg\r\n", ["a.jpg", "\udce9.jpg"]),
        (b"a\nb.jpg\0c.jpg\0", ["a\nb.jpg", "c.jpg"]),
        (
            b"".join(b"%07d.jpg\n" % n for n in range(20_000)),
            [f"{n:07}.jpg" for n in range(20_000)],
        ),
    ],
    ids=["lines", "as windows writes them", "zero bytes", "several blocks"],
)
def test_a_list_from_a_file_or_stdin_yields_its_paths_in_order(monkeypatch, content, paths):
    Path("list").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", _Stdin(content))
    for source in ("list", "-"):
        listed = open_list(source)
        assert len(listed) == len(paths)
        one = iter(listed)  # two simultaneous iterators are independent
        assert next(one) == Path(paths[0])
        assert [os.fspath(path) for path in listed] == paths
        assert next(one) == Path(paths[1])
    Path("folder").mkdir()
    assert next(iter(open_list("list", Path("folder")))) == Path("folder") / paths[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list", b"a.jpg\n\nhttps://x.org//b.jpg\n",
         "list, line 3: https://x.org//b.jpg is a URL, not a file"),
        ("list", b"\n\n", "list lists no path"),
        ("list", b"a.jpg\n" + b"x" * 200_000, "list, line 2 is over 65,536 bytes long"),
        ("list", "a.jpg\n".encode("utf-16"), "list is UTF-16"),
        ("photo.jpg", b"", "photo.jpg looks like an image or a table, not a list of paths"),
        ("gone", None, "cannot read the list gone: No such file or directory"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_list_of_paths_is_refused(name, content, message):
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        open_list(name)
    assert caught.value.message == message


class _Endless(io.RawIOBase):
    """A source of the same bytes again and again."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.size = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self.size += size
        assert self.size < 100 << 20, "it reads forever"
        return self.content * (size // len(self.content))


@pytest.mark.parametrize("content", [b"\0", b"\n", b"x", b"\r\n"])
def test_a_list_without_an_end_and_without_a_path_is_refused_soon(monkeypatch, content):
    stdin = _Stdin(b"")
    stdin.buffer = _Endless(content)
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(UsageError, match="the list on stdin has over 1,048,576 bytes without a"):
        open_list("-")


def test_a_list_of_paths_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr("xception_cli.data.lists._MOST", 1 << 20)
    stdin = _Stdin(b"")
    stdin.buffer = _Endless(b"y\n")  # of the command `yes`
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(UsageError, match="the list on stdin is over 1,048,576 bytes long"):
        open_list("-")
