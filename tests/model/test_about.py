"""What a model file records about its training, compared with the run folder that it lies in."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("entry", [{"seed": 1}, {"refit_images": 9}])
def test_a_model_of_another_run_is_not_evaluated_on_the_images_of_this_one(
    probed, recorded, entry, capsys
):
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
