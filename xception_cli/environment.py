"""Environment: what a bug report should contain about the machine."""

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from xception_cli.runtime import Runtime, supported_precisions, versions


@dataclass(frozen=True)
class DeviceInfo:
    """A device that can compute the network.

    Attributes:
        device: PyTorch's name, such as `cuda:0`.
        description: For people.
        threads: Of a CPU; else None.
        precisions: That it supports, the best first.
    """

    device: str
    description: str
    threads: int | None
    precisions: list[str]


@dataclass(frozen=True)
class Environment:
    """The versions, the system and the devices.

    Attributes:
        versions: Of xception, Python and the packages that results depend on.
        system: The operating system.
        devices: The CPU first.
    """

    versions: dict[str, str]
    system: str
    devices: list[DeviceInfo]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        return asdict(self)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield names and values for people."""
        yield from self.versions.items()
        yield "system", self.system
        for found in self.devices:
            precisions = ", ".join(found.precisions)
            yield found.device, f"{found.description}; precisions {precisions}"


def read_environment() -> Environment:
    """Return the environment of this process."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps"))
    return Environment(versions(), platform.platform(), [_describe(device) for device in devices])


def _describe(device: torch.device) -> DeviceInfo:
    return DeviceInfo(
        device=str(device),
        description=Runtime(device, "fp32").describe_device(),
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        precisions=supported_precisions(device),
    )
