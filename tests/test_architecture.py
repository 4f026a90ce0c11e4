"""docs/architecture.md is up to date: its map is generated from the modules' first lines.

`python tests/test_architecture.py` rewrites the map.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from runs import python

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
MAP = re.compile(r"(?<=<!-- map -->\n).*(?=<!-- end of map -->)", re.DOTALL)


def package_map() -> str:
    """List each module with the first line of its docstring, the highest layer first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = {
        contract["containers"][0]: [
            name for layer in contract["layers"] for name in layer.split(" | ")
        ]
        for contract in contracts["tool"]["importlinter"]["contracts"]
    }
    lines = []
    for name in layers["xception_cli"]:
        package = ROOT / "xception_cli" / name
        if not package.is_dir():
            lines.append(f"- `{name}.py`: {first_line(package.with_suffix('.py'))}")
            continue
        lines.append(f"- **`{name}/`**: {first_line(package / '__init__.py')}")
        modules = [package / f"{module}.py" for module in layers[f"xception_cli.{name}"]]
        lines += [f"  - `{name}/{module.name}`: {first_line(module)}" for module in modules]
    return "\n".join(lines) + "\n"


def first_line(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    assert docstring, module
    return docstring.splitlines()[0]


def test_the_map_lists_every_module() -> None:
    shown = MAP.search(PAGE.read_text(encoding="utf-8"))
    assert shown is not None
    assert shown[0] == package_map(), f"rewrite it: python {Path(__file__).relative_to(ROOT)}"
    modules = {
        path.relative_to(ROOT / "xception_cli") for path in ROOT.glob("xception_cli/**/*.py")
    }
    named = {Path(name) for name in re.findall(r"`([\w/]+\.py)`", shown[0])}
    assert named == {path for path in modules if path.name != "__init__.py"}


def test_no_module_is_too_long() -> None:
    lengths = {
        path.relative_to(ROOT / "xception_cli").as_posix(): len(path.read_text().splitlines())
        for path in ROOT.glob("xception_cli/**/*.py")
    }
    assert max(lengths.values()) > 300  # the control
    assert {name: length for name, length in lengths.items() if length > 350} == {}


# The worked examples


@pytest.fixture
def changed(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Copy the code and apply the example below the heading that is the parameter."""
    copy = tmp_path / "code"
    shutil.copytree(
        ROOT / "xception_cli", copy / "xception_cli", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", copy)
    section = PAGE.read_text(encoding="utf-8").split(f"### {request.param}\n")[1].split("\n### ")[0]
    (diff,) = re.findall(r"```diff\n(.+?)```", section, re.DOTALL)
    subprocess.run(["git", "apply", "-"], input=diff, text=True, check=True, cwd=copy)
    return copy


def test_every_worked_example_applies_to_the_code() -> None:
    """Some are only used by slow tests."""
    for diff in re.findall(r"```diff\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        subprocess.run(
            ["git", "apply", "--check", "-"], input=diff, text=True, check=True, cwd=ROOT
        )


def run_in(code: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on a copy of the code."""
    done = python(
        *arguments, env=os.environ | {"PYTHONPATH": str(code), "PYTHONWARNINGS": "ignore"}
    )
    assert done.returncode == 0, done.stderr
    return done


_TRAIN = """
import sys
from ignite.engine import Engine, Events
from xception_cli.training.handlers import attach_overfitting_note
from xception_cli.records import Scores

trainer = Engine(lambda *_: None)
losses = iter(map(float, sys.argv[1:]))

@trainer.on(Events.EPOCH_COMPLETED)
def _validate(engine):
    engine.state.metrics["scores"] = Scores(next(losses), 0.5, 0.5, [], 1, None)

attach_overfitting_note(trainer)
trainer.run([0], max_epochs=len(sys.argv) - 1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["A handler"], indirect=True)
def test_the_example_of_a_handler_is_called_after_each_epoch(changed: Path) -> None:
    note = "note      the validation loss has risen for 3 epochs"
    assert note in run_in(changed, "-c", _TRAIN, "0.5", "0.6", "0.7", "0.8").stderr
    assert (
        note not in run_in(changed, "-c", _TRAIN, "0.5", "0.6", "0.4", "0.8").stderr
    )  # the control
    story = (changed / "xception_cli" / "training" / "run.py").read_text(encoding="utf-8")
    assert "\n        handlers.attach_overfitting_note(trainer)\n" in story


_MEASURE = """
import json
import numpy as np
from xception_cli.evaluation.eval_report import EvalReport
from xception_cli.evaluation.described import scores
from xception_cli.evaluation.metrics import measure

probabilities = np.array([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
report = measure(np.array([0, 1, 0]), probabilities, np.array(list("abc")), ["x", "y"], name="val")
assert EvalReport.from_dict(report.to_dict()) == report
print(json.dumps([report.to_dict()["brier_score"], scores(report)[-1]]))
"""


@pytest.mark.parametrize("changed", ["A metric"], indirect=True)
def test_the_example_of_a_metric_is_in_the_report_and_in_metrics_json(changed: Path) -> None:
    value, shown = json.loads(run_in(changed, "-c", _MEASURE).stdout)
    assert value == pytest.approx((0.08 + 0.32 + 0.98) / 3)
    assert shown == ["Brier score", "0.460", "n/a"]


_STEP = """
import torch
from xception_cli.training.engines import create_optimizer

weight = torch.nn.Parameter(torch.zeros(1))
optimizer = create_optimizer("sgd", [{"params": [weight], "lr": 0.1}], fused=False, nesterov=True)
print(optimizer.defaults["nesterov"])
"""


@pytest.mark.parametrize("changed", ["A setting"], indirect=True)
def test_the_example_of_a_setting_is_an_option_and_reaches_the_optimizer(changed: Path) -> None:
    shown = run_in(changed, "-m", "xception_cli", "train", "--help").stdout
    assert "--nesterov" in shown
    assert "Nesterov momentum for SGD." in shown
    assert run_in(changed, "-c", _STEP).stdout == "True\n"
    learner = (changed / "xception_cli" / "training" / "learner.py").read_text(encoding="utf-8")
    assert "nesterov=config.nesterov" in learner


_COMPARE = """
import sys
from pathlib import Path
import torch
from xception_cli.model.bundle import load_model
from xception_cli.runtime import Runtime

inputs = torch.rand(3, 3, 71, 71)
network = load_model(Path(sys.argv[1]), Runtime(torch.device("cpu"), "fp32")).network
program = torch.export.load(sys.argv[2]).module()
with torch.no_grad():
    print(float((program(inputs) - network(inputs)).abs().max()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["An export"], indirect=True)
def test_the_example_of_an_export_computes_what_the_model_does(
    changed: Path, tuned_once: Path
) -> None:
    run = tuned_once / "run"
    command = ("-m", "xception_cli", "export", str(run), "--output", "model.pt2")
    assert run_in(changed, *command).stderr.startswith("written   model.pt2")
    difference = run_in(changed, "-c", _COMPARE, str(run / "model.safetensors"), "model.pt2").stdout
    assert float(difference) < 1e-4
    lint = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    environment = os.environ | {"PYTHONPATH": str(changed)}
    done = python("-c", lint, cwd=changed, env=environment)
    assert re.search(r"Contracts: \d+ kept, 0 broken\.", done.stdout), done.stdout + done.stderr


if __name__ == "__main__":
    written = MAP.sub(lambda _: package_map(), PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(written, encoding="utf-8")
