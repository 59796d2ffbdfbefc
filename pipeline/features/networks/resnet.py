"""What a network on any device has: normalised pixels, folded batch norms, threads.  crops -> [network] -> features"""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck, ResNet

from pipeline.crops import CROP_SIZE

A = TypeVar("A")
B = TypeVar("B")

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class Network(ABC):
    """A ResNet-50 on its device, as the `Computer` of a stream. Its features are standardised by `mean` and `std`.

    `lanes` batches at a time, each computed in a thread of its own.
    """

    device: str
    arithmetic: str
    provenance: Mapping[str, Any]  # where the weights come from, what they are, and the arithmetic
    mean: NDArray[np.float32] | float = 0.0
    std: NDArray[np.float32] | float = 1.0

    def __init__(self, batch_size: int, lanes: int) -> None:
        self.batch_size, self.lanes, self._threads = batch_size, lanes, Threads(lanes)

    def adopt(self, memory: NDArray[np.uint8]) -> None:  # noqa: B027 - a CPU reads crops wherever they are
        """All crops will be in this memory."""

    def release(self) -> None:  # noqa: B027
        """That memory goes away."""

    def copied(self) -> float:
        """Seconds since the last call that copying crops to the device took."""
        return 0.0

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(batch_size, 224, 224, 3) RGB -> (batch_size, 2048)."""
        if crops.shape != (self.batch_size, CROP_SIZE, CROP_SIZE, 3) or crops.dtype != np.uint8:
            raise ValueError(f"expected ({self.batch_size}, 224, 224, 3) uint8, found {crops.shape} {crops.dtype}")
        return (self._threads(self._compute, crops) - self.mean) / self.std

    @abstractmethod
    def _compute(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same before it is standardised, in one thread."""


class Normalisation(nn.Module):
    """uint8 crops (B, 224, 224, 3) RGB -> (B, 3, 224, 224) float32, channels last: without a copy."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        # One number for every byte of a line: torch is several times slower when it broadcasts three.
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).repeat(CROP_SIZE))
        self.register_buffer("scale", 1 / (255 * torch.tensor(IMAGENET_STD)).repeat(CROP_SIZE))

    def forward(self, crops: Tensor) -> Tensor:
        lines = crops.flatten(2).float()  # (B, 224, 224 * 3)
        return lines.sub_(self.mean).mul_(self.scale).view(crops.shape).permute(0, 3, 1, 2)


class GlobalMean(nn.Module):
    """(B, 2048, 7, 7) -> (B, 2048) float32, summed in float32 whatever the features are."""

    def forward(self, features: Tensor) -> Tensor:
        return features.float().mean((2, 3))


class PlainNetwork(nn.Module):
    """The layers one by one, as torch has them. uint8 crops (B, 224, 224, 3) RGB -> features (B, 2048) float32."""

    def __init__(self, network: ResNet, dtype: torch.dtype, *, channels_last: bool) -> None:
        super().__init__()
        self.normalisation = Normalisation()
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = folded(network).to(dtype, memory_format=self.format)
        self.dtype = dtype

    def forward(self, crops: Tensor) -> Tensor:
        pixels = self.normalisation(crops).to(self.dtype).contiguous(memory_format=self.format)
        features: Tensor = self.network(pixels)
        return features


def folded(network: ResNet) -> ResNet:
    """A copy in which each convolution includes the scale and shift of the batch norm behind it.

    The same function, less work; folded in float64, so that it is no less exact than the two in a row.
    """
    network = copy.deepcopy(network).double()
    network.conv1, network.bn1 = fuse_conv_bn_eval(network.conv1, network.bn1), nn.Identity()
    for block in network.modules():
        if isinstance(block, Bottleneck):
            for k in (1, 2, 3):
                fused = fuse_conv_bn_eval(getattr(block, f"conv{k}"), getattr(block, f"bn{k}"))
                setattr(block, f"conv{k}", fused)
                setattr(block, f"bn{k}", nn.Identity())
            if block.downsample is not None:
                block.downsample = nn.Sequential(fuse_conv_bn_eval(block.downsample[0], block.downsample[1]))
    network.avgpool, network.fc = GlobalMean(), nn.Identity()
    return network.float()


_SETTING: Final = threading.Lock()


class Threads:
    """`number` threads in which torch computes side by side, each on one core. Any thread may call.

    Two batches in a thread each take no longer than two batches by two threads each: no thread waits for the other half
    of every layer. The threads live as long as this object: cuDNN remembers by thread what it tried.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="network", initializer=_one_thread_here)

    def __call__(self, work: Callable[[A], B], argument: A) -> B:
        """work(argument) in the next free thread, waited for."""
        return self._threads.submit(work, argument).result()


def _one_thread_here() -> None:
    """Torch computes in this thread alone; new threads elsewhere find the process's number as it was.

    `torch.set_num_threads` sets the number of the calling thread and that of all new ones. So a short-lived thread
    sets the second back.
    """
    with _SETTING:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        others = threading.Thread(target=torch.set_num_threads, args=(before,))
        others.start()
        others.join()
