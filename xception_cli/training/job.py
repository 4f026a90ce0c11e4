"""Job: what the phases of a training run share."""

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
from xception_cli.console import show
from xception_cli.data.dataset import ImageDataset, KeyedBatches
from xception_cli.data.folder import DataFolder
from xception_cli.data.image_cache import ImageCache, cached_fraction
from xception_cli.data.images import DECODER
from xception_cli.data.inputs import ImageInputs
from xception_cli.data.layout import SPLITS
from xception_cli.data.recorded import row_checks
from xception_cli.data.split import Split
from xception_cli.data.transforms import Preprocessing, to_pixels
from xception_cli.data.workers import default_workers
from xception_cli.evaluation.metrics import TOP
from xception_cli.model.about import SPLIT, About, split_digest
from xception_cli.model.bundle import save_model
from xception_cli.model.feature_cache import FeatureCache, KeptView, kept_view, open_feature_cache
from xception_cli.model.network import last_frozen
from xception_cli.model.weights import PretrainedWeights
from xception_cli.rundir import RunDir
from xception_cli.runtime import Runtime, versions
from xception_cli.training.budget import Budget
from xception_cli.training.costs import Images, decoded_bytes, train_views, val_views
from xception_cli.training.plan import class_weights

_SAMPLE = 1000  # images that are looked up in the cache, to estimate a share


@dataclass(frozen=True)
class Job:
    """What the phases of a run share; made in `preparation.py`.

    Attributes:
        config: The settings, with everything decided.
        run: Its folder.
        runtime: Where it is computed.
        folder: The data.
        split: Its images by split.
        pretrained: The weights that training starts from; None for random ones.
        network: With these weights, on its device.
        preprocessing: Of the pixels.
        budget: The clock of a run with `--budget`.
        cache: Features of frozen networks, shared with other runs.
        seconds: Spent per phase.
        resumed: Whether it was reopened; `seconds` then leaves out the time before.
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
    cache: FeatureCache = field(default_factory=open_feature_cache)
    seconds: dict[str, float] = field(default_factory=dict)
    resumed: bool = False

    @property
    def root(self) -> Path:
        """The data folder."""
        return self.folder.root

    @property
    def images(self) -> Images:
        """The number of images in each split."""
        train, val, test = (len(self.split.of(name)) for name in SPLITS)
        return Images(train, val, test, len(self.split.classes))

    @property
    def workers(self) -> int:
        """Processes that decode images."""
        if self.config.workers is None:
            return default_workers(self.runtime)
        return self.config.workers

    @property
    def top_k(self) -> int:
        """The k of top-k accuracy; 1 with so few classes that the usual k is always right."""
        return TOP if len(self.split.classes) > TOP else 1

    def cached_share(self) -> float:
        """Return the fraction of the needed features that are cached, estimated by a sample."""
        steps: list[str | None] = [None]
        if self.config.unfreeze in {"exit", "middle"}:
            steps.append(last_frozen(self.config.unfreeze))
        found = [
            all(view.has(index, step) for step in steps)
            for split in self.view_counts
            for view in self.kept_views(split)
            for index in range(0, len(view.digests), 1 + len(view.digests) // _SAMPLE)
        ]
        return sum(found) / max(1, len(found))

    def digests(self, split: str) -> list[str]:
        """Return the digest of each image's content in a split."""
        return [image.digest for image in self.split.of(split)]

    def labels(self, split: str) -> torch.Tensor:
        """Return the labels `(images,)` of a split, int64."""
        return torch.tensor([image.label for image in self.split.of(split)])

    def image_inputs(
        self, split: str, view: str = "centre", *, shuffle: bool = False, epochs: bool = False
    ) -> ImageInputs:
        """Return the images of a split as inputs of the network.

        Args:
            split: Its name.
            view: `centre`, the evaluation crop; `mirrored` or `rotated`, that crop mirrored or
                rotated; or `random`, a training crop.
            shuffle: In shuffled training batches instead of in order.
            epochs: Whether they are read in every epoch: then decoded images are cached.
        """
        config, preprocessing = self.config, self.preprocessing
        transform, prepare = preprocessing.evaluation_transform(), preprocessing.evaluation_crop()
        if view == "mirrored":
            transform = preprocessing.mirrored_transform()
        if view == "rotated":
            transform = preprocessing.rotated_transform()
        if view == "random":
            transform = preprocessing.training_transform(augment=config.augment, flip=config.flip)
            prepare = preprocessing.training_source
        images, cache = self.split.of(split), None
        if epochs:
            needed = decoded_bytes(config.image_size, self.images.train, self.images.val)
            fraction = cached_fraction(self.run.path, needed, config.cache_gb * 1e9)
            count = int(fraction * len(images))
            cache = ImageCache(self.run.decoded, f"{split}-{DECODER}", prepare, count)
            if view == "centre":
                transform = to_pixels  # the cached image is the crop
        dataset = ImageDataset(
            self.root,
            [image.path for image in images],
            [image.label for image in images],
            transform,
            least_side=preprocessing.least_side,
            grey_bits=preprocessing.grey_bits,
            seed=config.seed,
            cache=cache,
            digests=None if epochs else self.digests(split),
        )
        return ImageInputs(
            dataset,
            self.shuffled(split) if shuffle else self.in_order(split),
            preprocessing=self.preprocessing,
            runtime=self.runtime,
            workers=self.workers,
            passes=config.epochs if epochs else 1,
        )

    @property
    def view_counts(self) -> dict[str, int]:
        """The number of views of each split that are computed before training, see `--views`."""
        return {"train": train_views(self.config), "val": val_views(self.config)}

    def _view_kinds(self, split: str) -> list[str]:
        count, second = self.view_counts[split], ["mirrored"] * self.config.flip
        averages = split == "val" and self.config.tta == "mirror"  # an answer needs the second view
        if self.config.augment == "rotate90" and not averages:  # it helps more than the mirror
            second = ["rotated"]
        return ["centre", *second, *["random"] * count][:count]

    def views(self, split: str) -> list[ImageInputs]:
        """Return the images of a split in order, once for each view.

        A random view depends on its number and the content of the image, not on the seed, so that
        runs with other seeds and splits share it.
        """
        kinds = self._view_kinds(split)
        made = {kind: self.image_inputs(split, kind) for kind in dict.fromkeys(kinds)}
        return [made[kind] for kind in kinds]

    def kept_views(self, split: str) -> list[KeptView]:
        """Return these views in the feature cache; random weights have none."""
        if self.pretrained is None:
            return []
        drawn = f"{self.config.augment}, {'with' if self.config.flip else 'without'} mirror images"
        return [
            kept_view(
                self.cache,
                weights=self.pretrained.digest,
                runtime=self.runtime,
                preprocessing=self.preprocessing,
                view=f"random {number}, {drawn}" if kind == "random" else kind,
                digests=self.digests(split),
            )
            for number, kind in enumerate(self._view_kinds(split))
        ]

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
        """Return a split in shuffled batches, for training."""
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
        """The weight of each class, `(classes,)`; None if all are equal."""
        if self.config.balance not in {"loss", "sampler"}:
            return None
        return torch.tensor(class_weights(self.split.counts("train")))

    @property
    def criterion(self) -> torch.nn.CrossEntropyLoss:
        """The loss, on the device."""
        weights = self.class_weights if self.config.balance == "loss" else None
        if weights is not None:
            weights = self.runtime.to_device(weights)
        return torch.nn.CrossEntropyLoss(weights, label_smoothing=self.config.label_smoothing)

    @property
    def epochs(self) -> int:
        """The planned number of epochs; a time budget may change it."""
        return self.config.epochs if self.budget is None else self.budget.epochs

    def averaging_mirror(self, mirror: bool) -> "Job":
        """Return the job of a model that classifies the mirror image too, or does not."""
        return replace(self, preprocessing=replace(self.preprocessing, mirror=mirror))

    @property
    def leads(self) -> bool:
        """Whether this process prints and writes for the run."""
        return self.runtime.processes.leads

    def units(self, split: str) -> NDArray[np.str_]:
        """Return the unit of each image of a split, `(images,)`."""
        return np.array([image.unit for image in self.split.of(split)], np.str_)

    def alone(self) -> "Job":
        """Return the job for work that this process does alone."""
        return replace(self, runtime=self.runtime.alone())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the duration of a phase."""
        began = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def save_model(self, state: Mapping[str, torch.Tensor], trained: Mapping[str, Any]) -> None:
        """Write the run's model file, if this process leads.

        Args:
            state: State dict of the whole network.
            trained: How it was trained, for the provenance.

        Raises:
            DivergedError: A weight is not finite; the earlier file stays.
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
                    SPLIT: split_digest(row_checks(self.split)),
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
        job: Its run folder does not exist yet.
        reasons: A sentence for each decision.
        report: Of the data check.
        asked: The settings before any decision.
    """

    job: Job
    reasons: tuple[str, ...]
    report: CheckReport
    asked: TrainConfig

    @property
    def undecided(self) -> tuple[str, ...]:
        """Names of the settings that were `auto`, or not given and changed by a decision."""
        return tuple(
            name
            for name, default in vars(TrainConfig()).items()
            if getattr(self.asked, name) == default
            and (default == "auto" or getattr(self.job.config, name) != default)
        )


def weights_info(pretrained: PretrainedWeights | None) -> dict[str, Any]:
    """Return the source and digest of the weights that training starts from."""
    if pretrained is None:
        return {"source": "none", "digest": None}
    return {"source": show(pretrained.source), "digest": pretrained.digest}
