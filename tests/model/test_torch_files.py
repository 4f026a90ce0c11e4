"""Untrusted torch files use no more memory than their size, and run no code."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from xception_cli.errors import ArtifactError
from xception_cli.model.torch_files import load_torch, named_bytes


def saved(state: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_written_by_torch_is_read_unchanged(zipped):
    state = {"a": torch.arange(6.0).view(2, 3), "b": [1, "x", {"c": torch.ones(2)}]}
    found = load_torch(saved(state, _use_new_zipfile_serialization=zipped), "file")
    assert found["a"].equal(state["a"])
    assert found["b"][:2] == [1, "x"]
    assert found["b"][2]["c"].equal(torch.ones(2))


def _rewritten(content: bytes, method: int, change: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", method) as new:
        for member in old.infolist():
            data = (change or {}).get(Path(member.filename).name, old.read(member))
            new.writestr(member.filename, data)
    return out.getvalue()


def test_a_compressed_archive_is_refused_before_it_is_inflated():
    bomb = _rewritten(saved({"a": torch.zeros(4)}), zipfile.ZIP_DEFLATED, {"0": bytes(50_000_000)})
    assert len(bomb) < 100_000
    with pytest.raises(ArtifactError, match=r"file unpacks to 50,\d+,\d+ bytes from"):
        load_torch(bomb, "file")
    control = _rewritten(saved({"a": torch.zeros(4)}), zipfile.ZIP_STORED)
    assert load_torch(control, "file")["a"].equal(torch.zeros(4))


def test_an_archive_that_pythons_reader_refuses_is_not_read_by_torch():
    """Torch's reader is more lenient; it found the members through a table at another place."""
    sound = saved({"a": torch.zeros(4)})
    for broken in (
        sound[:-4],
        sound[:200],
        sound + b"x" * 70_000,
        sound.replace(b"PK\1\2", b"PK\1\3"),
    ):
        with pytest.raises(
            ArtifactError, match=r"file is (a damaged archive|not a file that torch)"
        ):
            load_torch(broken, "file")


def test_two_readers_cannot_see_different_archives_in_one_file():
    """A small archive in front of a compressed one: what is read is what is measured."""
    small = saved({"a": torch.zeros(4)})
    bomb = _rewritten(saved({"a": torch.zeros(4)}), zipfile.ZIP_DEFLATED, {"0": bytes(9_000_000)})
    with pytest.raises(ArtifactError, match="unpacks to"):
        load_torch(small + bomb, "file")
    assert load_torch(bomb + small, "file")["a"].equal(torch.zeros(4))


def test_two_members_of_one_name_are_refused():
    whole = saved({"a": torch.zeros(1000)})
    out = io.BytesIO(whole)
    with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.infolist()[0].filename, b"")
    with pytest.raises(ArtifactError, match="Duplicate name"):
        load_torch(out.getvalue(), "file")


def test_members_that_share_their_bytes_count_each():
    content = bytearray(saved({"a": torch.zeros(1000), "b": torch.zeros(1000)}))
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        first, second = (m for m in archive.infolist() if m.file_size == 4000)
    table = content.rindex(b"PK\1\2", 0, content.rindex(second.filename.encode()))
    content[table + 42 : table + 46] = struct.pack("<I", first.header_offset)
    with pytest.raises(ArtifactError):  # if their names differ; if they are equal, the sizes count
        load_torch(bytes(content), "file")


@pytest.mark.parametrize(
    "state",
    [
        {"a": torch.zeros(1).expand(10_000_000)},
        {"a": torch.zeros(10).as_strided((3000, 3000), (0, 0))},
        [torch.zeros(1000)[:1].expand(10_000)] * 50,
    ],
)
def test_a_tensor_with_stride_0_is_counted_in_full(state):
    content = saved(state)
    assert named_bytes(load_torch(content, "file")) > len(content)
    control = saved([torch.zeros(1000), 1])
    assert named_bytes(load_torch(control, "file")) == 4000 < len(control)


def test_recursive_data_is_counted_once():
    state: list[Any] = [torch.zeros(3)]
    state.append(state)
    found = load_torch(saved(state), "file")
    assert found[1] is found
    assert named_bytes(found) == 12


def test_no_code_is_run():
    class Evil:
        def __reduce__(self):
            return Path.touch, (Path("run"),)

    with pytest.raises(ArtifactError, match="not a plain state dict"):
        load_torch(saved({"a": Evil()}), "file")
    assert not Path("run").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_asks_for_a_buffer_of_any_size_is_refused(zipped):
    class Zeros:
        def __reduce__(self):
            return bytearray, (2_000_000,)  # could be as many billions

    content = saved({"a": Zeros()}, _use_new_zipfile_serialization=zipped)
    assert len(content) < 2_000
    with pytest.raises(ArtifactError, match="not a plain state dict"):
        load_torch(content, "file")
