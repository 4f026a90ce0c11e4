"""A sealed file: every changed bit is detected."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import CPU, PREPROCESSING, lively_network
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save
from safetensors.torch import save_file

from xception_cli.errors import ArtifactError
from xception_cli.evaluation.candidates import add_candidate, read_candidates
from xception_cli.model.about import About
from xception_cli.model.bundle import load_model, save_model
from xception_cli.model.seal import check_entries, check_seal, seal, seal_entries

HERE = Path("a.safetensors")
ARRAYS = {"b": np.arange(5, dtype=np.float32), "a": np.ones((2, 3), np.uint16)}


def check(content: bytes) -> None:
    check_seal(BytesIO(content), HERE, hint="")


def flips(content: bytes):
    for at in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[at // 8] ^= 1 << at % 8
        yield bytes(flipped)


@pytest.mark.parametrize("metadata", [None, {"about": "\u00e9"}])
def test_a_sealed_file_reads_as_before_and_is_reproducible(metadata):
    content = save(ARRAYS, metadata)
    sealed = seal(content)
    assert seal(content) == seal(sealed) == sealed != content
    check(sealed)
    check(content)  # from another program: nothing to compare with
    HERE.write_bytes(sealed)
    found = load_file(HERE)
    assert found.keys() == ARRAYS.keys()
    assert all((found[name] == array).all() for name, array in ARRAYS.items())


def test_each_flipped_bit_of_a_file_is_refused_or_has_no_effect():
    refused = 0
    for flipped in flips(seal(save(ARRAYS, {"about": "x"}))):
        try:
            found = load(flipped)
            check(flipped)
        except (SafetensorError, ArtifactError):
            refused += 1
            continue
        # The entry now has another name: there is no digest, and all else is unchanged.
        assert b'"digest"' not in flipped
        assert b'"about":"x"' in flipped
        assert all((found[name] == array).all() for name, array in ARRAYS.items())
    assert refused > 2000


def test_each_flipped_bit_of_the_candidates_is_refused_or_has_no_effect():
    add_candidate(HERE, 0, [0, 1, 1], [0.5, 0.25, 2.0])
    before, refused = read_candidates(HERE, 3), 0
    for flipped in flips(HERE.read_bytes()):
        HERE.write_bytes(flipped)
        try:
            found = read_candidates(HERE, 3)
        except ArtifactError:
            refused += 1
            continue
        for name, array in vars(before).items():
            assert (vars(found)[name] == array).all()
    assert refused > 2000


def test_entries_are_sealed_and_any_change_of_them_is_refused():
    sealed = seal_entries({"images": 12, "digest of": None})
    assert check_entries(sealed, HERE) == {"images": 12, "digest of": None}
    assert check_entries({"images": 13}, HERE) == {"images": 13}  # from an earlier version
    for change in ({"images": 13}, {"x": 1}, {"digest": 7}):
        with pytest.raises(ArtifactError, match="is not what was written"):
            check_entries(sealed | change, HERE)


@pytest.fixture(scope="module")
def network():
    return lively_network(2)


def saved(network) -> bytes:
    save_model(HERE, network.state_dict(), About(("cat", "dog"), PREPROCESSING, 1.5))
    return HERE.read_bytes()


@pytest.mark.parametrize("old", [b'"cat', b"1.5", b"image_size"], ids=str)
def test_a_model_with_changed_metadata_is_refused_with_a_hint(network, old):
    changed = saved(network).replace(old, bytes([old[0], old[1] ^ 1, *old[2:]]), 1)
    HERE.write_bytes(changed)
    with pytest.raises(ArtifactError) as caught:
        load_model(HERE, CPU)
    assert caught.value.message == (
        "a.safetensors is damaged: it is not what was written (its SHA-256 differs)"
    )
    assert caught.value.hint == "download or copy the file again"


def test_one_flipped_bit_of_a_weight_is_detected(network):
    content = bytearray(saved(network))
    content[-1000] ^= 4
    HERE.write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged"):
        load_model(HERE, CPU)


def test_a_model_of_an_earlier_version_is_loaded_with_a_note(network, capsys):
    content = saved(network)
    load_model(HERE, CPU)
    assert capsys.readouterr().err == ""
    metadata = {"xception": load_metadata(content)}
    save_file({n: t.contiguous() for n, t in network.state_dict().items()}, HERE, metadata)
    loaded = load_model(HERE, CPU)
    assert capsys.readouterr().err.count("has no digest") == 1
    for name, tensor in network.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(
            tensor, loaded.network.state_dict()[name]
        )


def load_metadata(content: bytes) -> str:
    import json

    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]["xception"]
