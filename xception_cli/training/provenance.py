"""How a run was started, as recorded in run.json."""

import os
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from xception_cli.config import TrainConfig
from xception_cli.console import show
from xception_cli.data.recorded import row_checks
from xception_cli.data.split import Split
from xception_cli.files import file_digest
from xception_cli.model.folding import packs_weights
from xception_cli.runtime import versions
from xception_cli.training.job import Job, weights_info


def run_info(job: Job) -> dict[str, Any]:
    """Return the content of run.json for a new run; see `RunInfo`."""
    return {
        "started": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "process": os.getpid(),
        "command": _command(),
        "versions": versions(),
        "git_commit": _git_commit(),
        "device": str(job.runtime.device),
        "precision": job.runtime.precision,
        "tf32": job.runtime.device.type == "cuda" and torch.backends.cudnn.allow_tf32,
        "packed_weights": packs_weights(job.runtime),
        "threads": torch.get_num_threads(),
        "processes": job.runtime.processes.count,
        "data": job.config.data,
        "data_fingerprint": job.split.fingerprint,
        "classes": list(job.split.classes),
        "images": {name: len(job.split.of(name)) for name in ("train", "val", "test", "out")},
        "weights": weights_info(job.pretrained),
        **({} if job.folder.table is None else {"root": str(job.root.absolute())}),
        **({} if (bits := job.preprocessing.grey_bits) == 16 else {"grey_bits": bits}),
        **({} if job.config.fixes is None else {"fixes_digest": file_digest(job.run.fixes)}),
        **recorded(job.config, job.split),
    }


def recorded(config: TrainConfig, split: Split) -> dict[str, Any]:
    """Return the values that config.toml and split.csv are compared with when they are read."""
    return {"settings": asdict(config), "split_checks": row_checks(split)}


def _command() -> str:
    """Return the command line; for a program that uses the Python API, only its name."""
    program = Path(sys.argv[0])
    is_command = program.stem in {"xception", "xception-cli"}
    if is_command or program.parts[-2:] == ("xception_cli", "__main__.py"):
        return " ".join(show(part) for part in ["xception", *sys.argv[1:]])
    return f"python {show(program.name)}".rstrip()  # not its arguments: they may hold paths


def _git_commit() -> str | None:
    """Return the commit of the user's own repository, if the run is started in one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
