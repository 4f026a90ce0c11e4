"""Prediction from JPEG files, small and large, to class names.

    python tests/benchmarks/predict_files.py

From path to prediction: reading, decoding, resizing, the network. The model is already loaded;
under `whole process` it is not, and imports and start-up count as well, once for all photos.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import materials
from baselines import Timm, Tutorial
from harness import Case, Step, command, missing, run


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--small", type=int, default=96, help="photos (default: %(default)s)")
    parser.add_argument("--large", type=int, default=48, help="photos (default: %(default)s)")
    parser.add_argument("--width", type=int, default=4000, help="of large (default: %(default)s)")


def setup(options: Namespace) -> str:
    import product

    materials.draw_photos(folder(options, "small"), options.small, 300, 300)
    materials.draw_photos(
        folder(options, "large"), options.large, options.width, options.width * 3 // 4
    )
    note = product.keep_weights(options)
    product.write_model(options, model(options))
    return note


def folder(options: Namespace, kind: str) -> Path:
    return Path(options.scratch, kind)


def model(options: Namespace) -> Path:
    return Path(options.scratch, "model.safetensors")


def cases(options: Namespace) -> list[Case]:
    made = []
    large = f"{options.width * (options.width * 3 // 4) / 1e6:.2g} Mpx"
    for kind, size in (("small", "300 px"), ("large", large)):
        for whole in (False, True):
            made += _cases(options, kind, f"{size}{', whole process' * whole}", whole=whole)
    return made


def _cases(options: Namespace, kind: str, group: str, *, whole: bool) -> list[Case]:
    ours = ours_by_command if whole else ours_in_process
    return [
        Case(
            "tutorial",
            lambda: plain(Tutorial(options), folder(options, kind)),
            group,
            baseline="tutorial",
            whole=whole,
        ),
        Case(
            "timm, its best flags",
            lambda: plain(Timm(options), folder(options, kind)),
            group,
            baseline="timm",
            skip=missing("timm"),
            whole=whole,
        ),
        Case("xception predict" if whole else "ours", lambda: ours(options, kind), group),
    ]


def plain(loop: Tutorial, photos: Path) -> Step:
    network = loop.create_network(len(materials.CLASSES))
    batches = loop.create_loader(photos, training=False)
    return lambda: loop.classify(network, batches)[1]


def ours_in_process(options: Namespace, kind: str) -> Step:
    import product

    from xception_cli.data.workers import default_workers
    from xception_cli.inference import predict_images

    bundle = product.create_bundle(options)
    paths = sorted(folder(options, kind).rglob("*.jpg"))
    workers = default_workers(bundle.runtime)

    def step() -> int:
        predictions = list(predict_images(bundle, paths, workers=workers))
        assert all(prediction.error is None for prediction in predictions)
        return len(predictions)

    return step


def ours_by_command(options: Namespace, kind: str) -> Step:
    return command(
        *("-m", "xception_cli", "predict", folder(options, kind)),
        *("--model", model(options), "--device", options.device),
        items=getattr(options, kind),
    )


if __name__ == "__main__":
    # Not warmed up: users predict files once.
    run(__doc__, cases, arguments=arguments, setup=setup, warm_up=False)
