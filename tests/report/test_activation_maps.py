"""Explanations: Grad-CAM computed from gradients, at the right place, size and orientation."""

import shlex
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from images import COLOURS, SMALL, draw
from networks import CPU, lively_network
from PIL import Image
from runs import call

from xception_cli.commands import predict
from xception_cli.data.transforms import Preprocessing
from xception_cli.errors import UsageError
from xception_cli.files import partial_path
from xception_cli.heatmaps import HeatMaps, name_explanations
from xception_cli.model.about import About
from xception_cli.model.bundle import ModelBundle, save_model
from xception_cli.predictions import PredictionFile
from xception_cli.report.activation_maps import (
    draw_heat,
    explain_image,
    heat_maps,
    seen_square,
)


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return ModelBundle(lively_network(), About(tuple(COLOURS), Preprocessing.for_size(SMALL)), CPU)


def test_the_heat_map_equals_one_computed_from_gradients(bundle):
    pixels = torch.randint(0, 256, (2, 3, SMALL, SMALL), dtype=torch.uint8)
    labels = torch.tensor([0, 2])
    found = heat_maps(bundle, pixels, labels)
    network = lively_network()
    inputs = bundle.preprocessing.normalize(pixels)
    with torch.no_grad():
        activations = network.features(inputs).relu()
        plain = network(inputs)
    activations.requires_grad_()
    logits = network.last_linear(activations.mean((2, 3)))
    assert torch.allclose(logits, plain, atol=1e-4)
    logits[torch.arange(2), labels].sum().backward()
    weights = activations.grad.mean((2, 3), keepdim=True)
    expected = (weights * activations).sum(1).relu().detach().numpy()
    expected /= expected.max((1, 2), keepdims=True)
    assert found == pytest.approx(expected, abs=1e-3)
    assert found.max() == 1.0
    other = heat_maps(bundle, pixels, labels.flip(0))
    assert np.abs(other - found).max() > 0.05  # another class, another place


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (71, 71)])
def test_the_heat_map_covers_the_square_that_the_network_sees(size: tuple[int, int]):
    preprocessing = Preprocessing.for_size(SMALL)
    left, top, right, bottom = seen_square(size, preprocessing)
    assert right - left == pytest.approx(71 / 79 * min(size), abs=1)
    assert abs(left - (size[0] - right)) <= 1
    assert abs(top - (size[1] - bottom)) <= 1
    heat = np.zeros((3, 3), dtype=np.float32)
    heat[0, 2] = 1  # top right
    grey = Image.new("RGB", size, (128, 128, 128))
    changed = np.abs(np.asarray(draw_heat(grey, heat, preprocessing)).astype(int) - 128).sum(axis=2)
    changed[changed > 380] = 0  # the white frame
    rows, columns = np.nonzero(changed > 40)
    assert rows.mean() < (top + bottom) / 2
    assert columns.mean() > (left + right) / 2
    assert np.asarray(grey).min() == 128  # the photo itself is not changed


def test_a_rotated_photo_is_explained_upright_and_in_its_size(bundle, tmp_path):
    draw(tmp_path / "flat.jpg", COLOURS["red"], seed=1, size=300)
    image = Image.open(tmp_path / "flat.jpg").crop((0, 0, 300, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate it by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(BytesIO(explain_image(bundle, tmp_path / "turned.jpg", 0))) as drawn:
        assert drawn.size == (200, 300)
        assert drawn.getexif().get(0x0112, 1) == 1


def test_heat_maps_are_not_written_among_other_files():
    photos, model = Path("photos"), Path("model.safetensors")
    photos.mkdir()
    HeatMaps(photos, [Path("a.png")], model)
    (photos / ".DS_Store").touch()
    (photos / "a.jpg").touch()  # may be the heat map of a stopped command: compared later
    partial_path(photos / "a.jpg", "0a1b2c3d").touch()  # of a killed command
    HeatMaps(photos, [Path("a.png")], model)
    assert sorted(path.name for path in photos.iterdir()) == [".DS_Store", "a.jpg"]
    (photos / "b.jpg").touch()
    with pytest.raises(UsageError, match="photos already exists and is not empty"):
        HeatMaps(photos, [Path("a.png")], model)


def test_each_explanation_has_a_unique_name_that_every_file_system_accepts():
    given = ["a/x.jpg", "b/x.png", "c/X.jpg", "x-2.jpg", f"{'ü' * 121}.jpg", f"b/{'ü' * 121}.webp"]
    names = name_explanations([Path(name) for name in given])
    assert names[:4] == ["x.jpg", "x-2.jpg", "X-3.jpg", "x-2-2.jpg"]
    assert len({name.casefold() for name in names}) == len(given)
    assert all(len(name.encode()) <= 255 and name.endswith(".jpg") for name in names)
    long = name_explanations([Path("y" * 251 + ".jpg"), Path("b") / ("y" * 251 + ".jpg")])
    assert [len(name) for name in long] == [255, 255]
    assert long[1].endswith("y-2.jpg")


def test_predict_explains_all_readable_images(bundle, photos, capsys):
    save_model(Path("m.safetensors"), bundle.network.state_dict(), bundle.about)
    (photos / "red" / "0.jpg").write_bytes(b"no image")
    arguments = ["predict", str(photos / "red"), "--model", "m.safetensors", "--explain", "why"]
    assert call(*arguments, "--device", "cpu", "--workers", "0") == 3
    assert sorted(path.name for path in Path("why").iterdir()) == [f"{i}.jpg" for i in range(1, 8)]
    assert "heat maps why" in capsys.readouterr().err


@pytest.mark.parametrize("output", [(), ("--output", "out.csv")])
def test_a_command_stopped_after_its_first_heat_map_starts_again(
    bundle, photos, monkeypatch, capsys, output
):
    save_model(Path("m.safetensors"), bundle.network.state_dict(), bundle.about)
    command = ["predict", "photos/red", "--model", "m.safetensors", "--explain", "why"]
    command += ["--device", "cpu", "--workers", "0", *output]

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # between the heat map of an image and its row
        patched.setattr(predict, "emit", stop)
        patched.setattr(PredictionFile, "add", stop)
        assert call(*command) == 130
    (first,) = Path("why").iterdir()
    written = first.read_bytes()
    first.write_bytes(b"of another model")
    assert call(*command) == 2
    assert "0.jpg already exists, and is not this heat map" in capsys.readouterr().err
    assert first.read_bytes() == b"of another model"
    first.write_bytes(written)
    assert call(*command) == 0
    assert len(list(Path("why").iterdir())) == 8


def test_the_next_command_after_predict_can_be_pasted_and_is_not_the_same_again(
    bundle, photos, capsys, monkeypatch
):
    save_model(Path("m.safetensors"), bundle.network.state_dict(), bundle.about)
    files = sorted(map(str, (photos / "red").iterdir()))
    Path("list.txt").write_text(f"{files[0]}\n")
    model, device = "--model m.safetensors", "--device cpu"
    answers = f"{model} --unknown 0.5 --tta mirror --max-pixels 5000000 {device}"
    for given, options, end in (
        (files[:2], "", f"{shlex.join(files[:2])} {model} {device} --explain heatmaps"),
        (files[:4], "", f"{shlex.join(files[:1])} {model} {device} --explain heatmaps"),
        (files[:2], "--explain why", f"DIR {model} {device} --output predictions.csv"),
        ([], "--from list.txt", f"--from list.txt {model} {device} --output predictions.csv"),
    ):
        command = [*given, *model.split(), *options.split(), *device.split(), "--workers", "0"]
        assert call("predict", *command) == 0
        assert capsys.readouterr().err.splitlines()[-1] == f"next: xception predict {end}"
    folder = str(photos / "red")
    assert call("predict", folder, *answers.split(), "--output", "o.csv", "--workers", "0") == 0
    end = f"{shlex.quote(folder)} {answers} --sort-into sorted"
    assert capsys.readouterr().err.splitlines()[-1] == f"next: xception predict {end}"
    model = f"--model {shlex.quote(str(Path('m.safetensors').absolute()))}"
    monkeypatch.chdir(folder)  # sorted images must not be among those to sort
    command = [".", *shlex.split(model), "--output", "../o.csv", "--workers", "0"]
    assert call("predict", *command) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"next: xception predict . {model} --sort-into ../sorted"
    assert call(*shlex.split(last)[2:]) == 0
