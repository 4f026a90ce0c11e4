"""Job: what a training run works with."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xception_cli.check.report import CheckReport
from xception_cli.config import TrainConfig
from xception_cli.console import duration, say, show
from xception_cli.data.dataset import (
    ImageCache,
    KeyedBatches,
    PictureDataset,
    cached_fraction,
    default_workers,
)
from xception_cli.data.folder import DataFolder
from xception_cli.data.loading import PictureInputs
from xception_cli.data.split import Split
from xception_cli.data.transforms import Preprocessing
from xception_cli.evaluation.metrics import TOP
from xception_cli.model.bundle import About, save_model
from xception_cli.model.weights import PretrainedWeights
from xception_cli.rundir import RunDir
from xception_cli.runtime import Runtime, versions
from xception_cli.training.plan import Images, class_weights, decoded_bytes


class Budget:
    """What is left of the time, and the decisions taken on it.

    They are kept in run.json, so that a resumed run continues with them; time between its processes
    does not count. `views` and `epochs` only ever follow the last decision.

    Args:
        run: Whose run.json holds the record; read when it is there.
        record: As `run.json` has it under `timed`, or as `new_record` makes it.
    """

    def __init__(self, run: RunDir, record: dict[str, Any]) -> None:
        self._run = run
        self._record = record
        self._began = time.monotonic() - record["spent"]

    @property
    def left(self) -> float:
        """Seconds until the kept model has to be evaluated."""
        reserved = self._record["budget"] - self._record["evaluation"]
        return float(reserved - (time.monotonic() - self._began))

    @property
    def views(self) -> int:
        """Views of each training image, by the last decision."""
        return int(self._record["decisions"][-1]["views"])

    @property
    def epochs(self) -> int:
        """Epochs, by the last decision."""
        return int(self._record["decisions"][-1]["epochs"])

    def another_view(self, done: int, seconds: float) -> bool:
        """Tell whether there is time for one more view and the training after it.

        Args:
            done: Views that are there.
            seconds: What one takes.
        """
        if seconds + self.epochs * self._record["epoch"] <= self.left:
            self.keep()
            return True
        self._decide(f"view {done}", "there is no time for more views", views=done)
        return False

    def fit_epochs(self, done: int, wanted: int, seconds: float) -> int:
        """Return how many epochs there are to be in all.

        Args:
            done: Completed epochs.
            wanted: No more than these.
            seconds: What one takes.
        """
        fitting = max(done, min(wanted, done + int(self.left / seconds)))
        if fitting != self.epochs:
            why = f"an epoch takes {duration(seconds)}"
            self._decide(f"epoch {done}", why, epochs=fitting)
        else:
            self.keep()
        return fitting

    def end_now(self, done: int) -> None:
        """Record that time was up in the epoch after `done`."""
        self._decide(f"epoch {done}", "time is up inside the next one", epochs=done)

    def keep(self) -> None:
        """Write down how much time was spent."""
        self._record["spent"] = round(time.monotonic() - self._began, 1)
        self._run.update_info({"timed": self._record})

    def _decide(self, after: str, why: str, **changes: int) -> None:
        decision = {"views": self.views, "epochs": self.epochs, **changes}
        self._record["decisions"].append({"after": after, **decision, "why": why})
        self.keep()
        now = ", ".join(f"{value} {name}" for name, value in changes.items())
        say(f"plan      after {after}: {now} in all; {why}")


def new_record(
    *, budget: float, spent: float, expected: dict[str, float], views: int, epochs: int
) -> dict[str, Any]:
    """Make the record of a run that starts.

    Args:
        budget: Seconds.
        spent: Seconds that are gone already.
        expected: Seconds of each phase, from `plan.expected_seconds`.
        views: Of each training image.
        epochs: Of training.
    """
    return {
        "budget": budget,
        "spent": round(spent, 1),
        "evaluation": round(expected["evaluation"], 1),
        "epoch": round(expected.get("fine-tuning", 0.0) / epochs, 3),
        "decisions": [{"after": "start", "views": views, "epochs": epochs, "why": "the plan"}],
    }


@dataclass(frozen=True)
class Job:
    """What the phases of a run share; made in `preparation.py`.

    Attributes:
        config: The settings, with everything decided.
        run: Its folder.
        runtime: Where it is computed.
        folder: The data.
        split: Its images by split.
        pretrained: The weights that training starts from; None are random ones.
        network: With these weights, on its device.
        preprocessing: Of the pixels.
        budget: The clock of a run with `--budget`.
        seconds: Spent per phase.
    """

    config: TrainConfig
    run: RunDir
    runtime: Runtime
    folder: DataFolder
    split: Split
    pretrained: PretrainedWeights | None
    network: torch.nn.Module
    preprocessing: Preprocessing
    budget: Budget | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The data folder."""
        return self.folder.root

    @property
    def images(self) -> Images:
        """How many there are in each split."""
        return Images(*(len(self.split.of(name)) for name in ("train", "val", "test")))

    @property
    def workers(self) -> int:
        """Processes that decode images."""
        if self.config.workers is None:
            return default_workers(self.runtime)
        return self.config.workers

    @property
    def top_k(self) -> int:
        """The k of top-k accuracy; 1, where the usual one could not be wrong."""
        return TOP if len(self.split.classes) > TOP else 1

    def labels(self, split: str) -> torch.Tensor:
        """Return the labels `(images,)` of a split, int64."""
        return torch.tensor([image.label for image in self.split.of(split)])

    def pictures(
        self, split: str, *, augmented: bool = False, shuffle: bool = False, epochs: bool = False
    ) -> PictureInputs:
        """Return the pictures of a split as inputs of the network.

        Args:
            split: Its name.
            augmented: As in training, not as in evaluation.
            shuffle: In the batches that training draws.
            epochs: Read in every epoch: decoded images are cached.
        """
        config, preprocessing = self.config, self.preprocessing
        transform, prepare = preprocessing.evaluation_transform(), preprocessing.evaluation_crop()
        if augmented:
            transform = preprocessing.training_transform(augment=config.augment, flip=config.flip)
            prepare = preprocessing.training_source
        images, cache = self.split.of(split), None
        if epochs:
            needed = decoded_bytes(config.image_size, self.images.train, self.images.val)
            fraction = cached_fraction(self.run.path, needed, config.cache_gb * 1e9)
            count = int(fraction * len(images))
            cache = ImageCache(self.run.decoded, split, prepare, count)
        dataset = PictureDataset(
            self.root,
            [image.path for image in images],
            [image.label for image in images],
            transform,
            least_side=self.preprocessing.least_side,
            seed=config.seed,
            cache=cache,
        )
        return PictureInputs(
            dataset,
            self.shuffled(split) if shuffle else self.in_order(split),
            preprocessing=self.preprocessing,
            runtime=self.runtime,
            workers=self.workers,
        )

    def in_order(self, split: str) -> KeyedBatches:
        """Return a split in its order, in batches for inference in each process."""
        return KeyedBatches(
            len(self.split.of(split)),
            self.runtime.inference_batch * self.runtime.processes.count,
            seed=self.config.seed,
            shuffle=False,
            processes=self.runtime.processes,
        )

    def shuffled(self, split: str) -> KeyedBatches:
        """Return the batches that training draws from a split."""
        labels, weights = self.labels(split), None
        if self.config.balance == "sampler" and self.class_weights is not None:
            weights = self.class_weights[labels]
        return KeyedBatches(
            len(labels),
            self.config.batch_size,
            seed=self.config.seed,
            shuffle=True,
            weights=weights,
            processes=self.runtime.processes,
        )

    @property
    def class_weights(self) -> torch.Tensor | None:
        """The weight of each class, `(classes,)`; None where all weigh the same."""
        if self.config.balance not in {"loss", "sampler"}:
            return None
        return torch.tensor(class_weights(self.split.counts("train")))

    @property
    def loss_weights(self) -> torch.Tensor | None:
        """The same on the device, where the loss is weighted by them."""
        if self.config.balance != "loss" or self.class_weights is None:
            return None
        return self.runtime.to_device(self.class_weights)

    @property
    def epochs(self) -> int:
        """How many there are to be, as far as is known."""
        return self.config.epochs if self.budget is None else self.budget.epochs

    @property
    def leads(self) -> bool:
        """Whether this process speaks for the run and writes it."""
        return self.runtime.processes.leads

    def units(self, split: str) -> NDArray[np.str_]:
        """Return what each image of a split belongs to, `(images,)`."""
        return np.array([image.unit for image in self.split.of(split)], np.str_)

    def alone(self) -> "Job":
        """Return the same for what this process does by itself."""
        return replace(self, runtime=self.runtime.alone())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what a phase takes."""
        began = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def save_model(self, state: Mapping[str, torch.Tensor], trained: Mapping[str, Any]) -> None:
        """Write the run's model file, if this process leads.

        Args:
            state: The whole network's.
            trained: How it came about, for the provenance.

        Raises:
            DivergedError: A weight is not finite; the file before stays.
        """
        if not self.leads:
            return
        save_model(
            self.run.model,
            state,
            About(
                self.split.classes,
                self.preprocessing,
                provenance={
                    "versions": versions(),
                    "weights": weights_info(self.pretrained),
                    "data_fingerprint": self.split.fingerprint,
                    "seed": self.config.seed,
                    "unfreeze": self.config.unfreeze,
                    "precision": self.runtime.precision,
                    **trained,
                },
            ),
        )


@dataclass(frozen=True)
class Draft:
    """A new run that is decided and not yet started.

    Attributes:
        job: Its folder is not made yet.
        reasons: A sentence for each decision.
        report: Of the data check.
    """

    job: Job
    reasons: tuple[str, ...]
    report: CheckReport


def weights_info(pretrained: PretrainedWeights | None) -> dict[str, Any]:
    """Return what names the weights that training starts from."""
    if pretrained is None:
        return {"source": "none", "digest": None}
    return {"source": show(pretrained.source), "digest": pretrained.digest}
