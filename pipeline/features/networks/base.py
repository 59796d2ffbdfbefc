"""The base class of networks that run on a device, and their input: normalised pixels in batches of
a fixed size.  crops -> [network] -> features
"""

from __future__ import annotations

import copy
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache.arrays import Floats
from pipeline.errors import ConfigError
from pipeline.features.streams.base import Labels, Provenance, Standardisation
from pipeline.people.boxes import CROP_SIZE

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
NO_LABELS: Final[Labels] = MappingProxyType({})

_THREAD_COUNT_LOCK: Final = threading.Lock()


class Network(ABC):
    """A network on its device; it implements `streams.base.Computer`.

    `region`: (height, width) px of its crops.

    Args:
        batch_size: crops in each call.
        lanes: number of threads, which compute one batch each.
        device, arithmetic: their names, for provenance.
    """

    def __init__(
        self, loaded: Loaded, batch_size: int, lanes: int, *, device: str, arithmetic: str
    ) -> None:
        self.batch_size = batch_size
        self.lanes = lanes
        self.device = device
        self.arithmetic = arithmetic
        self.region = loaded.region
        self._mean: Floats | float = 0.0
        self._std: Floats | float = 1.0
        if loaded.standardisation is not None:
            self._mean, self._std = np.array(loaded.standardisation, np.float32)
        self._provenance = loaded.provenance
        self._threads = _torch_threads(lanes)

    @property
    def provenance(self) -> Provenance:
        """Weights, their source, and the arithmetic."""
        return {**self._provenance, "arithmetic": self.arithmetic, "device": self.device}

    def adopt(self, memory: NDArray[np.uint8]) -> None:  # noqa: B027 - a CPU reads any memory
        """Prepare the memory of all crops; a GPU pins it, to copy crops while it computes."""

    def release(self) -> None:  # noqa: B027
        """Undo `adopt`."""

    def __call__(self, crops: NDArray[np.uint8], labels: Labels = NO_LABELS) -> Floats:
        """Compute features (batch_size, dim) of crops (batch_size, height, width, 3) RGB.

        Args:
            labels: the stream's columns, (batch_size, ...) each.
        """
        tensors = {
            name: torch.from_numpy(values.astype(np.float32)) for name, values in labels.items()
        }
        features = self._threads.submit(self._compute, crops, tensors).result()
        return (features - self._mean) / self._std

    @abstractmethod
    def _compute(self, crops: NDArray[np.uint8], labels: Mapping[str, Tensor]) -> Floats:
        """Compute features without standardisation, in the calling thread. `labels`: float32."""

    def compute_crops(self, crops: NDArray[np.uint8]) -> Floats:
        """Compute features (N, dim) of crops (N, height, width, 3), N > 0, in batches and threads.
        The network must not read labels.
        """
        n_batches = -(-len(crops) // self.batch_size)
        filled = np.zeros((n_batches * self.batch_size, *crops.shape[1:]), np.uint8)
        filled[: len(crops)] = crops
        with ThreadPoolExecutor(self.lanes) as lanes:
            features = list(lanes.map(self, np.split(filled, n_batches)))
        return np.concatenate(features)[: len(crops)]


def _torch_threads(number: int) -> ThreadPoolExecutor:
    """Make a pool of threads in which torch computes, each on one core.

    With several batches at a time, one thread per batch is as fast as several threads per batch.
    The threads live as long as their network, because cuDNN remembers by thread which algorithms
    are fast.
    """
    return ThreadPoolExecutor(number, thread_name_prefix="network", initializer=_one_thread_here)


def _one_thread_here() -> None:
    """Let torch use one core in the calling thread, without changing other threads.

    `torch.set_num_threads` sets the number for the calling thread and for all threads that start
    later. So a short-lived thread sets the number for later threads back to what it was.
    """
    with _THREAD_COUNT_LOCK:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        thread = threading.Thread(target=torch.set_num_threads, args=(before,))
        thread.start()
        thread.join()


class Normalisation(nn.Module):
    """Normalise pixels: uint8 crops (B, height, width, 3) RGB -> (B, 3, height, width) float32, in
    the memory format channels last.

    `mean` and `std` are for RGB in [0, 1]. `width`: the width of all crops in px.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        width: int = CROP_SIZE,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        # One number for each byte of an image line: broadcasting three numbers is much slower.
        self.register_buffer("mean", 255 * torch.tensor(mean).repeat(width))
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)).repeat(width))

    def forward(self, crops: Tensor) -> Tensor:
        lines = crops.flatten(2).float()  # (B, height, width * 3)
        return lines.sub_(self.mean).mul_(self.scale).view(crops.shape).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A network for evaluation in fp32, without its classifier, before it is put on a device.

    It maps normalised pixels (B, 3, height, width) to features (B, N). If it has `columns`, it
    gets them as keyword arguments, (B, ...) float32 each.
    """

    network: nn.Module
    provenance: dict[str, Any]  # weights, sha256 of the tensors, stand_in, network, layer
    region: tuple[int, int]  # (height, width) px of its input
    normalisation: Normalisation
    columns: tuple[str, ...] = ()
    is_folded: bool = False  # it is a ResNet whose batch norms are folded into its convolutions
    standardisation: Standardisation | None = None  # of its features; None: they stay


class PlainNetwork(nn.Module):
    """A network that runs by torch's layers: uint8 crops (B, height, width, 3) RGB -> (B, dim)
    float32.

    It takes over `loaded.network`: nothing else may use that afterwards, as its dtype, memory
    format and device change in place. A copy may not fit in memory.
    """

    def __init__(
        self, loaded: Loaded, dtype: torch.dtype, memory_format: torch.memory_format
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.format = memory_format
        self.normalisation = copy.deepcopy(loaded.normalisation)  # moved to the device
        self.network = loaded.network.to(dtype=dtype, memory_format=memory_format)  # type: ignore[call-overload]

    def forward(self, crops: Tensor, **labels: Tensor) -> Tensor:
        pixels = self.normalisation(crops).to(self.dtype).contiguous(memory_format=self.format)
        features: Tensor = self.network(pixels, **labels)
        return features.float()


def chosen_device(text: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:1` means. Raises ConfigError if there is no
    such device.
    """
    has_cuda = torch.cuda.is_available()
    if text == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    kind, _, number = text.partition(":")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise ConfigError(
            f"device {text!r}: expected auto, cpu, cuda, or one GPU such as cuda:1", "device"
        )
    if kind == "cuda" and not has_cuda:
        raise ConfigError(
            f"device {text!r}: torch {torch.__version__} finds no CUDA device here. Use cpu or "
            "auto.",
            "device",
        )
    if number and int(number) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {text!r}: there are {torch.cuda.device_count()} CUDA devices here, from "
            "cuda:0",
            "device",
        )
    return torch.device(text)
