"""xception embed: the features of images, as the model computes them."""

from pathlib import Path

import numpy as np
import torch
from images import COLOURS, SMALL, draw_photos
from networks import CPU, lively_network
from runs import call, stop_after

from xception_cli.data.images import decode
from xception_cli.data.inspection import content_digest
from xception_cli.data.transforms import Preprocessing
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, save_model


def test_the_features_are_those_of_the_model(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    draw_photos(Path("new"))
    Path("new/broken.jpg").write_text("no image")
    about, network = About(tuple(COLOURS), Preprocessing.for_size(SMALL)), lively_network()
    save_model(Path("m.safetensors"), network.state_dict(), about)
    assert call("embed", "new", "--model", "m.safetensors", "--output", "x.npz") == 3
    assert "left out  new/broken.jpg: not an image" in capsys.readouterr().err
    found = np.load("x.npz")
    assert {name: found[name].shape for name in found} == {
        "features": (24, 2048),
        "paths": (24,),
        "digests": (24,),
    }
    bundle = ModelBundle(network, about, CPU)  # in float32; the command may use bf16
    contents = [Path(path).read_bytes() for path in found["paths"]]
    assert [content_digest(content) for content in contents] == found["digests"].tolist()
    images = [bundle.transform()(decode(content)) for content in contents]
    expected = np.stack([one.features for one in bundle.outcomes(torch.stack(images))])
    apart = np.linalg.norm(found["features"][:, None] - expected, axis=2)
    assert apart.argmin(axis=1).tolist() == list(range(24))  # the nearest image is the same one
    assert apart.diagonal().max() < 0.05 * np.linalg.norm(expected, axis=1).max()


def test_a_stopped_command_is_resumed_to_the_same_features(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    draw_photos(Path("new"))
    Path("new/broken.jpg").write_text("no image")
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL))
    save_model(Path("m.safetensors"), lively_network().state_dict(), about)
    command = ["embed", "new", "--model", "m.safetensors", "--device", "cpu", "--output"]
    assert call(*command, "whole.npz") == 3
    with monkeypatch.context() as patched:
        stop_after(patched, 10)
        assert call(*command, "x.npz") == 130
    assert "10 of 25 images; the same command resumes there" in capsys.readouterr().err
    assert call(*command, "x.npz") == 3
    said = capsys.readouterr().err
    assert "resuming  after 10 of 25 images" in said
    assert "left out  new/broken.jpg: not an image" in said
    whole, found = np.load("whole.npz"), np.load("x.npz")
    assert found["paths"].tolist() == whole["paths"].tolist()
    assert found["digests"].tolist() == whole["digests"].tolist()
    assert found["features"][:9].tobytes() == whole["features"][:9].tobytes()
    np.testing.assert_allclose(found["features"], whole["features"], rtol=0.02, atol=0.02)


def test_of_many_images_that_cannot_be_read_twenty_are_named(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(23):
        Path(f"broken{number:02}.jpg").write_text("no image")
    draw_photos(Path("new"))
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL))
    save_model(Path("m.safetensors"), lively_network().state_dict(), about)
    assert call("embed", ".", "--model", "m.safetensors", "--output", "x.npz") == 3
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert len(said) == 21
    assert "broken19.jpg" in said[19]
    assert said[20] == "left out  and 3 more"


def test_images_none_of_which_can_be_read_leave_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new").mkdir()
    Path("new/broken.jpg").write_text("no image")
    about = About(tuple(COLOURS), Preprocessing.for_size(SMALL))
    save_model(Path("m.safetensors"), lively_network().state_dict(), about)
    assert call("embed", "new", "--model", "m.safetensors", "--output", "x.npz") == 3
    assert "none of the images could be read" in capsys.readouterr().err
    assert sorted(path.name for path in Path().iterdir()) == ["m.safetensors", "new"]
