"""Settings of processes: the devices that they compute on, and a Dask cluster.

[features] and [detect] have the keys of `Computing`, and [dask] is a section (`Dask`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

from annotated_types import Ge, Gt, Le

from pipeline.errors import ConfigError
from pipeline.processes import TIMEOUT, Machine, cores

MOST_CROPS: Final = 8192  # in a batch, 1.2 GB of pixels


def _parse_device(text: str) -> str:
    """Return a device's name as given. Raises ValueError for others."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError("expected auto, cpu, cuda or one of several GPUs, such as cuda:1")
    return text


DeviceName = Annotated[
    str, _parse_device, "Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ..."
]
# replaces `device`; a GPU that is listed twice, as 0,0, gets two processes
DeviceNames = Annotated[str | None, "GPUs (0,1,2,3), one process each; 0,0: two; none: device"]


@dataclass(frozen=True)
class Computing:
    """Devices, processes and limits of a step on this machine. They do not change results."""

    device: DeviceName = "auto"
    devices: DeviceNames = None
    batch_size: Annotated[int, Ge(0)] = 0  # 0: chosen
    workers: Annotated[int, Ge(0), "Number of decoding processes; 0: one per core"] = 0
    timeout: Annotated[float, Gt(0)] = TIMEOUT  # s

    @property
    def processes(self) -> tuple[str, ...]:
        """Names of the devices that get a process each; (): the calling process computes.

        Raises ConfigError for others than numbers of GPUs and names of devices, and if `device` is
        set, too.

        >>> Computing(devices="0,1").processes
        ('cuda:0', 'cuda:1')
        """
        text = self.devices or ""
        if text and self.device != "auto":
            raise ConfigError(
                f"devices {text}: device {self.device} is set, too. Name one of both."
            )
        words = text.replace(",", " ").split()
        names = tuple(f"cuda:{word}" if word.isdecimal() else word for word in words)
        for name in names:
            if not re.fullmatch(r"cpu|cuda:\d+", name):
                raise ConfigError(
                    f"devices {text}: expected numbers of GPUs such as 0,1,2,3, found {name!r}"
                )
        return names

    def decoders(self, process: str = "") -> int:
        """The number of decoding processes.

        Args:
            process: the device of this process, which gets its share of the cores, if there is one
                process per device; "": there is not.
        """
        n = cores(self.workers)
        if process:
            n = max(1, n // len(self.processes))
        return n


@dataclass(frozen=True)
class DetectionResources(Computing):
    """Devices, processes and limits of a detection. They do not change results.

    The model of luigi.cfg's section [detect] inherits from this class.
    """

    batch_size: Annotated[int, Ge(0), "Images in a batch; 0: chosen by the detector"] = 0
    timeout: Annotated[
        float, Gt(0), "Seconds without progress, over 0, until a clip is given up"
    ] = TIMEOUT


@dataclass(frozen=True)
class Resources(Computing):
    """Resources of an extraction on this machine. They are settings of the section [features],
    whose class inherits from this one.
    """

    batch_size: Annotated[int, Ge(0), Le(MOST_CROPS), "Crops in a batch; 0: chosen by device"] = 0
    timeout: Annotated[
        float, Gt(0), "Seconds without progress, over 0, until a decoder is ended"
    ] = 60

    def machine(self, process: str = "") -> Machine:
        """The device and its options. `process`: as for `decoders`."""
        threads = 0
        if process == "cpu":
            threads = max(1, cores(0) // len(self.processes))
        return Machine(process or self.device, self.batch_size, threads)


@dataclass(frozen=True)
class Dask:
    """[dask]: detection, conversion and extraction on a cluster."""

    scheduler: Annotated[str | None, "Dask cluster (tcp://node:8786); none: this machine"] = None
    patience: Annotated[float, Gt(0), "Seconds to wait while there is no Dask worker"] = 3600


NO_CLUSTER: Final = Dask()
