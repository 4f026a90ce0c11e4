"""Baselines with the same network: the tutorials' plain loop, and timm with its best flags."""

from argparse import Namespace
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import materials
import pretrainedmodels
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
Schedule = Callable[[int], None]


class Tutorial:
    """The loop of transfer learning tutorials: all layers, SGD, batches of 16.

    The default precision and layout are the tutorials' own; other values show their effect alone.

    Args:
        options: Options of the benchmark: `device`, `image_size`, `scratch`.
        precision: `fp32`, or `bf16` for autocast.
        channels_last: Use channels-last weights and activations, else NCHW.
    """

    batch_size = 16
    evaluation_batch_size = 16
    label_smoothing = 0.0

    def __init__(
        self, options: Namespace, *, precision: str = "fp32", channels_last: bool = False
    ) -> None:
        self.options = options
        self.device = choose_device(options)
        self.precision = precision
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def create_network(self, class_count: int) -> nn.Module:
        """Return the network with the ImageNet weights and a new head, in eval mode."""
        network = materials.fill(self._build(class_count), self.options)
        return network.to(self.device, memory_format=self.memory_format)

    def _build(self, class_count: int) -> nn.Module:
        network: nn.Module = pretrainedmodels.xception(num_classes=1000, pretrained=None)
        network.last_linear = nn.Linear(2048, class_count)
        return network

    def create_loader(self, folder: Path, *, training: bool) -> "DataLoader[Any]":
        """Return batches of a folder's photos."""
        size = self.options.image_size
        if training:
            crop = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]
        else:
            crop = [v2.Resize(round(size * 333 / 299)), v2.CenterCrop(size)]
        finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.5])]
        return DataLoader(
            ImageFolder(folder, v2.Compose([*crop, *finish])),
            batch_size=self.batch_size if training else self.evaluation_batch_size,
            shuffle=training,
            num_workers=2,
        )

    def create_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of all layers."""
        return torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def create_schedule(self, optimizer: torch.optim.Optimizer, epochs: int) -> Schedule:
        """Return a function that is called after each epoch with its number, from 1."""
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
        return lambda _: schedule.step()

    def place(self, images: torch.Tensor) -> torch.Tensor:
        """Move a batch to the device, in the memory layout."""
        return images.to(self.device).contiguous(memory_format=self.memory_format)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def train_epoch(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches
    ) -> int:
        """Train on all batches; return the number of images."""
        criterion = nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)
        network.train()
        seen = 0
        for images, labels in batches:
            optimizer.zero_grad()
            with self.autocast():
                loss = criterion(network(self.place(images)), labels.to(self.device))
            loss.backward()
            optimizer.step()
            seen += len(labels)
        synchronize(self.device)
        return seen

    @torch.inference_mode()
    def classify(self, network: nn.Module, batches: Batches) -> tuple[int, int]:
        """Classify all batches; return the number of correct images, and of all images."""
        network.eval()
        right = seen = 0
        for images, labels in batches:
            with self.autocast():
                logits = network(self.place(images))
            right += int((logits.argmax(1).cpu() == labels).sum())
            seen += len(labels)
        return right, seen


class Timm(Tutorial):
    """The same network in timm, with timm's own parts and the flags that suit it best here.

    The numbers are the defaults of its `train.py`, except for the learning rate warm-up: its five
    epochs would be the whole fine-tuning.

    Args:
        options: Options of the benchmark.
    """

    evaluation_batch_size = 32
    label_smoothing = 0.1

    def __init__(self, options: Namespace) -> None:
        super().__init__(
            options, precision=best_precision(choose_device(options)), channels_last=True
        )

    def _build(self, class_count: int) -> nn.Module:
        import timm

        network: nn.Module = timm.create_model("legacy_xception", num_classes=class_count)
        return network

    def create_loader(self, folder: Path, *, training: bool) -> "DataLoader[Any]":
        """Return batches of a folder's photos, by timm's own reader and transforms."""
        import timm.data

        size = self.options.image_size
        pixels = timm.get_pretrained_cfg("legacy_xception")
        loader: DataLoader[Any] = timm.data.create_loader(
            timm.data.create_dataset("", root=str(folder)),
            input_size=(3, size, size),
            batch_size=self.batch_size if training else self.evaluation_batch_size,
            is_training=training,
            interpolation="random" if training else pixels.interpolation,
            mean=pixels.mean,
            std=pixels.std,
            crop_pct=pixels.crop_pct,
            num_workers=2,
            use_prefetcher=False,  # for CUDA only
            device=self.device,
        )
        return loader

    @torch.inference_mode()
    def embed(self, network: nn.Module, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs `(images, features)` and the labels of a folder's photos."""
        outputs, labels = [], []
        for images, answers in self.create_loader(folder, training=False):
            with self.autocast():
                outputs.append(network(self.place(images)).float().cpu())
            labels.append(answers)
        return torch.cat(outputs), torch.cat(labels)

    def create_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return SGD with the learning rate that train.py computes for this batch size."""
        from timm.optim import create_optimizer_v2

        rate = 0.1 * self.batch_size / 256
        return create_optimizer_v2(network, opt="sgd", lr=rate, momentum=0.9, weight_decay=2e-5)

    def create_schedule(self, optimizer: torch.optim.Optimizer, epochs: int) -> Schedule:
        """Return a cosine schedule."""
        from timm.scheduler import create_scheduler_v2

        return create_scheduler_v2(optimizer, sched="cosine", num_epochs=epochs)[0].step


def choose_device(options: Namespace) -> torch.device:
    """Return the device that our runtime chooses, too."""
    if options.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(options.device)


def lacks_bf16(options: Namespace) -> str | None:
    """Return a note if bf16 would be emulated, many times slower than fp32."""
    if best_precision(choose_device(options)) == "bf16":
        return None
    return "no bf16 instructions here"


def best_precision(device: torch.device) -> str:
    """Return bf16 if the CPU has instructions for it."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if native else "fp32"


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
