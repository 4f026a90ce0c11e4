"""Fine-tune an ImageNet-pretrained Xception on a folder of photos.

The names in `__all__` are the public API, described in docs/python.md. Those that need torch are
imported at their first use.
"""

from typing import TYPE_CHECKING, Any

from xception_cli.errors import (
    ArtifactError,
    DataError,
    DivergedError,
    MachineError,
    RunBusyError,
    StoppedError,
    UsageError,
    WeightsError,
    XceptionError,
)

if TYPE_CHECKING:
    from xception_cli.api import Model, evaluate, load, train
    from xception_cli.evaluation.eval_report import EvalReport
    from xception_cli.inference import Prediction
    from xception_cli.training.result import TrainResult

__version__ = "0.2.0"

__all__ = [
    "ArtifactError",
    "DataError",
    "DivergedError",
    "EvalReport",
    "MachineError",
    "Model",
    "Prediction",
    "RunBusyError",
    "StoppedError",
    "TrainResult",
    "UsageError",
    "WeightsError",
    "XceptionError",
    "__version__",
    "evaluate",
    "load",
    "train",
]

_HOMES = {
    "EvalReport": "xception_cli.evaluation.eval_report",
    "Model": "xception_cli.api",
    "Prediction": "xception_cli.inference",
    "TrainResult": "xception_cli.training.result",
    "evaluate": "xception_cli.api",
    "load": "xception_cli.api",
    "train": "xception_cli.api",
}

if not TYPE_CHECKING:  # else a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'xception_cli' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)

    def __dir__() -> list[str]:
        return __all__
