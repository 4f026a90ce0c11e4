"""Inference of the network alone, by precision and layout.

    python tests/benchmarks/inference.py

Every case gets the same number of batches of random pixels, in memory. `ours` is what
`xception predict` computes: `ModelBundle.outputs` on uint8 pixels, normalising included.

    python tests/benchmarks/inference.py --only engine --batch-size 1 --batches 32

compares what the same network takes in torch and in OpenVINO, in one precision.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import materials
import torch
from baselines import Timm, Tutorial, lacks_bf16, synchronize
from harness import Case, Step, missing, run

if TYPE_CHECKING:
    from xception_cli.runtime import Runtime


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--batches", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="of the engines (default: %(default)s)")


def setup(options: Namespace) -> str:
    import product

    return product.keep_weights(options)


def cases(options: Namespace) -> list[Case]:
    def others(precision: str, *, channels_last: bool) -> Step:
        return plain(Tutorial(options, precision=precision, channels_last=channels_last), options)

    no_bf16 = lacks_bf16(options)
    return [
        Case(
            "tutorial: fp32, NCHW", lambda: others("fp32", channels_last=False), baseline="tutorial"
        ),
        Case("fp32, channels_last", lambda: others("fp32", channels_last=True)),
        Case("bf16, NCHW", lambda: others("bf16", channels_last=False), skip=no_bf16),
        Case("bf16, channels_last", lambda: others("bf16", channels_last=True), skip=no_bf16),
        Case(
            "timm, its best flags",
            lambda: plain(Timm(options), options),
            baseline="timm",
            skip=missing("timm"),
        ),
        Case(
            "ONNX Runtime",
            lambda: onnxruntime_step(options),
            skip=missing("onnx", "onnxscript", "onnxruntime"),
        ),
        Case("OpenVINO", lambda: openvino_step(options), skip=missing("openvino")),
        Case("ours, fp32", lambda: ours_in(options, "fp32")),
        Case("ours", lambda: ours(options)),
        Case("not packed", lambda: not_packed(options), group="engine", baseline="not packed"),
        Case("ours", lambda: ours_in(options, options.precision), group="engine"),
        *(
            Case(
                f"OpenVINO, {streams} at once",
                lambda streams=streams: openvino_step(options, streams),
                group="engine",
                skip=missing("openvino"),
            )
            for streams in (1, 2)
        ),
    ]


def pixels(options: Namespace) -> torch.Tensor:
    shape = (options.batch_size, 3, options.image_size, options.image_size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def normalized(options: Namespace) -> torch.Tensor:
    return pixels(options).float() / 127.5 - 1


def plain(loop: Tutorial, options: Namespace) -> Step:
    network = loop.create_network(len(materials.CLASSES))
    images = loop.place(normalized(options))

    @torch.inference_mode()
    def step() -> int:
        for _ in range(options.batches):
            with loop.autocast():
                network(images)
        synchronize(loop.device)
        return options.batches * options.batch_size

    return step


def ours(options: Namespace, runtime: "Runtime | None" = None) -> Step:
    import product

    bundle = product.create_bundle(options, runtime)
    images = pixels(options)

    def step() -> int:
        for _ in range(options.batches):
            bundle.outputs(images)
        return options.batches * options.batch_size

    return step


def ours_in(options: Namespace, precision: str) -> Step:
    from xception_cli.runtime import decide_runtime

    return ours(options, decide_runtime(device=options.device, precision=precision))


def not_packed(options: Namespace) -> Step:
    from xception_cli.model import folding

    folding.packs_weights = lambda _: False
    return ours_in(options, options.precision)


def onnxruntime_step(options: Namespace) -> Step:
    import onnxruntime

    path = Path(options.scratch, "network.onnx")
    network = Tutorial(options).create_network(len(materials.CLASSES)).cpu()
    images = normalized(options)
    torch.onnx.export(network, (images,), path, dynamo=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def step() -> int:
        for _ in range(options.batches):
            session.run(None, {name: images.numpy()})
        return options.batches * options.batch_size

    return step


def openvino_step(options: Namespace, streams: int = 1) -> Step:
    import openvino

    from xception_cli.runtime import decide_runtime

    precision = decide_runtime(device="cpu", precision=options.precision).precision
    network = Tutorial(options).create_network(len(materials.CLASSES)).cpu()
    images = normalized(options)
    model = openvino.convert_model(network, example_input=images)
    model.reshape(list(images.shape))
    compiled = openvino.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": streams,
        },
    )
    del model, network
    queue = openvino.AsyncInferQueue(compiled, streams)

    def step() -> int:
        for _ in range(options.batches):
            queue.start_async({0: images.numpy()}, share_inputs=True)
        queue.wait_all()
        return options.batches * options.batch_size

    return step


if __name__ == "__main__":
    run(__doc__, cases, arguments=arguments, setup=setup)
