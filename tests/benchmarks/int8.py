"""The effect of int8 on photos not used for any choice: agreement, accuracy, speed.

    python tests/benchmarks/int8.py RUN[=DATA]...

Each run's model is exported and quantised as by `xception export --quantize int8`. Both files are
evaluated on the run's test split, or on the photos of DATA that the model was not trained on.
"""

import argparse
from pathlib import Path

import torch

from xception_cli.evaluation.intervals import wilson_interval
from xception_cli.evaluation.selection import select_images
from xception_cli.model.bundle import load_model
from xception_cli.onnx.file import classifier_from
from xception_cli.onnx.graph import build_onnx
from xception_cli.onnx.images import JudgeImage, own_images
from xception_cli.onnx.judge import Agreement, measure_agreement
from xception_cli.onnx.quantize import quantize_onnx
from xception_cli.onnx.run import CALIBRATION, calibration_pixels
from xception_cli.rundir import RunDir
from xception_cli.runtime import Runtime


def compare(run: RunDir, data: Path | None) -> Agreement:
    """Quantise a run's model and compare it with the float model."""
    bundle = load_model(run.model, Runtime(torch.device("cpu"), "fp32"))
    model = build_onnx(bundle, cropped=False)
    exported = classifier_from(model.SerializeToString(), Path("float.onnx"))
    used = own_images(run, bundle.classes, "train", least=CALIBRATION, most=CALIBRATION)
    content = quantize_onnx(model, calibration_pixels(exported, used)).SerializeToString()
    quantized = classifier_from(content, Path("int8.onnx"))
    chosen = select_images(
        run,
        bundle.classes,
        data=data,
        split=None if data else "test",
        ignore_extra_classes=False,
    )
    pictures = [
        JudgeImage(chosen.name, chosen.root / image.path, image.label)
        for image in chosen.images
        if image.problem is None
    ]
    return measure_agreement(exported, quantized, pictures, calibrated_on=used)


def main() -> None:
    """Print the results of each run, and the agreement over all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN[=DATA]")
    found = []
    for given in parser.parse_args().runs:
        run, _, data = given.partition("=")
        found.append(compare(RunDir(Path(run)), Path(data) if data else None))
        print(run, *found[-1].lines(), sep="\n  ", flush=True)
    images, agreeing = (sum(getattr(f, name) for f in found) for name in ("images", "agreeing"))
    low, high = wilson_interval(agreeing, images)
    print(f"together {agreeing} of {images}, {agreeing / images:.1%} ({low:.1%} to {high:.1%})")


if __name__ == "__main__":
    main()
