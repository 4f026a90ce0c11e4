"""What a model file records about its training, compared with the run folder that it lies in."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from images import COLOURS, draw
from networks import CPU
from runs import call

from xception_cli.errors import ArtifactError
from xception_cli.model.about import check_origin
from xception_cli.model.bundle import load_model, save_model
from xception_cli.rundir import RunDir


@pytest.fixture
def recorded(probed: RunDir) -> dict[str, object]:
    return dict(load_model(probed.model, CPU).about.provenance)


@pytest.mark.parametrize("entry", [{"seed": 1}, {"data_fingerprint": "0" * 64}])
def test_the_model_of_another_run_is_refused_by_every_command(probed, recorded, entry, capsys):
    assert call("eval", "run", "--split", "val", "--workers", "0") == 0
    bundle = load_model(probed.model, CPU)
    other = replace(bundle.about, provenance=recorded | entry)
    save_model(probed.model, bundle.network.state_dict(), other)
    image = next(Path("photos").rglob("*.jpg"))
    for command in (
        ["eval", "run"],
        ["predict", "run", str(image)],
        ["export", "run", "--output", "m.onnx"],
        ["report", "run"],
    ):
        capsys.readouterr()
        assert call(*command) == 4
        assert capsys.readouterr().err.endswith(
            "error: run/model.safetensors belongs to another run: its data, seed or split is not "
            "that of run.json beside it\n"
            "hint: move the model file to a folder of its own, or restore this run's model\n"
        )
    probed.model.rename("model.safetensors")
    assert call("predict", str(image), "--model", "model.safetensors") == 0


@pytest.mark.parametrize("entry", [{"seed": 1}, {"refit_images": 9}, {"split": "0" * 16}])
def test_a_model_of_another_run_is_not_evaluated_on_the_images_of_this_one(
    probed, recorded, entry, capsys
):
    assert entry.keys() <= recorded.keys()  # of these, none is missing in the model's own
    bundle = load_model(probed.model, CPU)
    for name, provenance in {"own": recorded, "other": recorded | entry}.items():
        about = replace(bundle.about, provenance=provenance)
        save_model(Path(f"{name}.safetensors"), bundle.network.state_dict(), about)
    assert call("eval", "run", "--model", "own.safetensors", "--workers", "0") == 0
    capsys.readouterr()
    assert call("eval", "run", "--model", "other.safetensors", "--workers", "0") == 4
    assert capsys.readouterr().err == (
        "error: other.safetensors belongs to another run: its data, seed or split is not that of "
        "run\nhint: xception eval RUN --model other.safetensors, with its own run\n"
    )


def test_a_model_file_alone_or_beside_a_damaged_run_json_is_accepted(probed, recorded):
    check_origin(probed.model, recorded)
    with pytest.raises(ArtifactError, match="belongs to another run"):
        check_origin(probed.model, recorded | {"seed": 1})
    check_origin(probed.path / "copy.safetensors", recorded | {"seed": 1})
    probed.info.write_text(json.dumps({"started": 3}))
    check_origin(probed.model, recorded | {"seed": 1})


def test_a_run_of_version_0_1_without_recorded_settings_is_accepted(probed, recorded):
    info = json.loads(probed.info.read_text())
    del info["settings"]
    probed.info.write_text(json.dumps(info))
    check_origin(probed.model, recorded)
    with pytest.raises(ArtifactError, match="belongs to another run"):
        check_origin(probed.model, recorded | {"data_fingerprint": "0" * 64})


def test_a_model_of_another_split_is_evaluated_on_images_that_no_split_of_the_data_has(
    probed, recorded, capsys
):
    draw(Path("new/red/a.jpg"), COLOURS["red"], seed=900)
    draw(Path("new/blue/b.jpg"), COLOURS["blue"], seed=901)
    for number, path in enumerate(sorted(Path("photos/green").iterdir())):  # of every split
        shutil.copy(path, Path("new/red") / f"known{number}.jpg")
    bundle = load_model(probed.model, CPU)
    for name, entry in {"split": {"seed": 1}, "data": {"data_fingerprint": "0" * 64}}.items():
        about = replace(bundle.about, provenance=recorded | entry)
        save_model(Path(f"{name}.safetensors"), bundle.network.state_dict(), about)

    def evaluated(file: str, *where: str) -> int:
        capsys.readouterr()
        return call("eval", "run", "--model", f"{file}.safetensors", "--workers", "0", *where)

    assert evaluated("split", "--data", "new", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["contaminated"]["trained_on"]) == (2, 8)
    assert report["note"] == (
        "8 of 10 images left out: 8 the model was trained on; the model was trained on another "
        "split of the run's data: all of its images count as training images"
    )
    # Images that such a model may have been trained on, by whatever path they are named.
    Path("photos").rename("moved")
    assert evaluated("split", "--data", "moved") == 3
    assert "the model may have been trained on every image in moved" in capsys.readouterr().err
    assert evaluated("split", "--data", "moved", "--split", "val") == 4
    assert "split.safetensors belongs to another run" in capsys.readouterr().err
    # Which images a model of other data was trained on is not known here.
    assert evaluated("data", "--data", "new") == 4
    assert "data.safetensors belongs to another run" in capsys.readouterr().err
