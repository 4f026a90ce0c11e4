"""Scale: an evaluation of many images and classes, without the network.

    python tests/benchmarks/scale.py

What a model answers is drawn: logits, and features whose distance decides about `unknown`. The step
scores the images, measures them with all intervals, and writes all files of the evaluation. The
peak memory is that of the process, with torch and the drawn answers.
"""

import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

from harness import Case, Step, run

SIZES = ("5000x1000", "50000x1000")  # images x classes
ACCURATE = 6.0  # is added to the true class's logit


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--sizes", nargs="+", default=SIZES, metavar="IMAGESxCLASSES", help=f"(default: {SIZES})"
    )


def cases(options: Namespace) -> list[Case]:
    return [
        Case(size, lambda size=size: prepare(size, options), "images x classes")
        for size in options.sizes
    ]


def prepare(size: str, options: Namespace) -> Step:
    import numpy as np
    import torch

    from xception_cli.data.photo import Photo
    from xception_cli.data.transforms import Preprocessing
    from xception_cli.evaluation.files import write_evaluation
    from xception_cli.evaluation.scoring import report_outcomes
    from xception_cli.model.about import About
    from xception_cli.model.bundle import ModelBundle, Outcome
    from xception_cli.model.network import FEATURES
    from xception_cli.model.unknown import Thresholds, UnknownRule, remember
    from xception_cli.runtime import Runtime

    images, count = map(int, size.split("x"))
    random = np.random.default_rng(0)
    labels = np.arange(images) % count
    features = random.random((images, FEATURES), np.float32)
    logits = random.standard_normal((images, count), np.float32)
    logits[np.arange(images), labels] += ACCURATE * random.random(images, np.float32)
    rule = UnknownRule(Thresholds(0.98, 0.5, 1.0), remember(features[:500], labels[:500]))
    about = About(
        tuple(f"class {n}" for n in range(count)), Preprocessing.for_size(299), 1.5, {}, rule
    )
    bundle = ModelBundle(torch.nn.Identity(), about, Runtime(torch.device("cpu"), "fp32"))
    photos = [
        Photo(f"class {label}/{n}.jpg", int(label), digest=f"{n:064x}", unit=f"{n:064x}")
        for n, label in enumerate(labels)
    ]
    outcomes = [Outcome(*rows) for rows in zip(logits, features, strict=True)]

    def step() -> int:
        report, scored = report_outcomes(bundle, photos, outcomes, name="drawn")
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            write_evaluation(Path(folder), report, scored)
        return images

    return step


if __name__ == "__main__":
    run(__doc__, cases, arguments=arguments, warm_up=False, unit="image")
