"""Start-up: the help, and one photo in a new process.

    python tests/benchmarks/startup.py

Whole processes with files in the page cache: each is run once before. The help is compared with
that of a Typer program of two empty commands; the photo with a script that does the same in plain
PyTorch, and with its imports alone.
"""

from argparse import Namespace
from pathlib import Path

from harness import Case, command, run  # import nothing heavy: it would count as our memory

EMPTY_PROGRAM = '''
import typer

app = typer.Typer()


@app.command()
def one(name: str) -> None:
    """Do one thing."""


@app.command()
def two(name: str) -> None:
    """Do another."""


app()
'''

IMPORTS = "import torch, torchvision, pretrainedmodels"

SCRIPT = """
import sys

import pretrainedmodels
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision import transforms

photo, model, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
state = load_file(model)
network = pretrainedmodels.xception(num_classes=1000, pretrained=None)
network.last_linear = torch.nn.Linear(2048, len(state["last_linear.bias"]))
network.load_state_dict(state, strict=False)
network.eval()
transform = transforms.Compose([
    transforms.Resize(round(size * 333 / 299)),
    transforms.CenterCrop(size),
    transforms.ToTensor(),
    transforms.Normalize([0.5] * 3, [0.5] * 3),
])
with torch.inference_mode():
    print(network(transform(Image.open(photo).convert("RGB"))[None]).softmax(1))
"""


def setup(options: Namespace) -> str:
    import materials
    import product

    Path(options.scratch, "empty.py").write_text(EMPTY_PROGRAM)
    Path(options.scratch, "script.py").write_text(SCRIPT)
    photo = materials.draw_photos(Path(options.scratch), 1, 800, 600)[0]
    photo.rename(Path(options.scratch, "photo.jpg"))
    note = product.keep_weights(options)
    product.write_model(options, Path(options.scratch, "model.safetensors"))
    return note


def cases(options: Namespace) -> list[Case]:
    def made(name: str) -> Path:
        return Path(options.scratch, name)

    def script() -> list[str | Path]:
        return [
            made("script.py"),
            made("photo.jpg"),
            made("model.safetensors"),
            str(options.image_size),
        ]

    def predict() -> list[str | Path]:
        return [
            *("-m", "xception_cli", "predict", made("photo.jpg")),
            *("--model", made("model.safetensors"), "--device", options.device),
        ]

    version, photo = "help", "one cold photo"
    return [
        Case(
            "an empty Typer program",
            lambda: command(made("empty.py"), "--help"),
            version,
            baseline="an empty program",
        ),
        Case("xception --help", lambda: command("-m", "xception_cli", "--help"), version),
        Case(
            "xception train --help",
            lambda: command("-m", "xception_cli", "train", "--help"),
            version,
        ),
        Case("a bare script", lambda: command(*script()), photo, baseline="the script"),
        Case(
            "its imports: torch, torchvision, pretrainedmodels",
            lambda: command("-c", IMPORTS),
            photo,
            baseline="its imports",
        ),
        Case("import torch", lambda: command("-c", "import torch"), photo, baseline="import torch"),
        Case("xception predict", lambda: command(*predict()), photo),
    ]


if __name__ == "__main__":
    run(__doc__, cases, setup=setup, unit="run")
