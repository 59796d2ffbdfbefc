"""A network on a GPU: while one batch is computed, the next is copied there.  crops -> [network] -> features"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ClassVar, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import PipelineError
from pipeline.features.networks.base import WHOLE, Network, Normalisation, PlainNetwork

FAST_BATCH: Final = 256
EXACT_BATCH: Final = 64
PORTABLE: Final = 1  # cudaHostRegisterPortable: pinned for every GPU of the process


class CudaNetwork(Network):
    """`fast`: bf16, channels last, two threads with a stream each. Otherwise fp32 without TF32, by deterministic
    algorithms, in batches of one size and one thread. `compiled`: by torch.compile, where it is fast.

    Crops go to the GPU as bytes and are normalised there.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        *,
        fast: bool,
        batch_size: int,
        compiled: bool,
        region: tuple[int, int] = WHOLE,
        normalisation: Normalisation | None = None,
    ) -> None:
        super().__init__((batch_size or FAST_BATCH) if fast else EXACT_BATCH, 2 if fast else 1, region)
        self.device = str(torch.cuda.get_device_name(device))
        compiled = compiled and fast
        self.arithmetic = "fp32 without TF32, deterministic"
        if fast:
            self.arithmetic = "bf16, compiled" if compiled else "bf16, layer by layer"
        self._device = device
        self._pinned: list[NDArray[np.uint8]] = []  # of each stream that this network computes
        self._forward: Callable[[torch.Tensor], torch.Tensor] = on_device(
            network, device, fast=fast, normalisation=normalisation
        )
        if compiled:
            self._forward = torch.compile(self._forward, mode="max-autotune-no-cudagraphs", dynamic=False)
        self._copied, self._counting = 0.0, threading.Lock()
        self._of_thread = threading.local()
        self._flags = CudnnFlags(fast=fast)
        # What is compiled is compiled here, once, and not in two threads at the same time.
        self(np.zeros((self.batch_size, *region, 3), np.uint8))

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        """Pin the memory: only from there can the GPU copy crops while it computes. Raises PipelineError."""
        with torch.cuda.device(self._device):
            error = int(torch.cuda.cudart().cudaHostRegister(memory.ctypes.data, memory.nbytes, PORTABLE))  # type: ignore[no-untyped-call]
        if error:
            raise PipelineError(
                f"the {memory.nbytes >> 20} MB through which crops go to the GPU cannot be pinned (cudaHostRegister: "
                f"{error}). Free some memory, or use a smaller batch size or the device cpu."
            )
        self._pinned.append(memory)

    def release(self) -> None:
        """Unpin the memory that was adopted last."""
        if self._pinned:
            with torch.cuda.device(self._device):
                torch.cuda.cudart().cudaHostUnregister(self._pinned.pop().ctypes.data)  # type: ignore[no-untyped-call]

    def copied(self) -> float:
        with self._counting:
            seconds, self._copied = self._copied, 0.0
        return seconds

    @torch.inference_mode()
    def _compute(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.cuda.stream(self._stream()), self._flags:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            before.record()
            there = torch.from_numpy(crops).to(self._device, non_blocking=True)
            after.record()
            features = self._forward(there)
            # Waits for this thread's stream alone. Then the crops have been read, and their memory may be used again.
            result: NDArray[np.float32] = features.cpu().numpy()
        with self._counting:
            self._copied += before.elapsed_time(after) / 1000
        return result

    def _stream(self) -> torch.cuda.Stream:
        if not hasattr(self._of_thread, "stream"):
            self._of_thread.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            # The weights were copied in the default stream.
            self._of_thread.stream.wait_stream(torch.cuda.default_stream(self._device))
        stream: torch.cuda.Stream = self._of_thread.stream
        return stream


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a GPU does: from Ampere on. Older ones emulate it, more slowly than fp32, or refuse it."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def on_device(
    network: nn.Module, device: torch.device, *, fast: bool, normalisation: Normalisation | None = None
) -> PlainNetwork:
    """The network, changed to the precision's format and moved to the device."""
    dtype = torch.bfloat16 if fast else torch.float32
    return PlainNetwork(network, dtype, channels_last=fast, normalisation=normalisation).to(device)


def cudnn_flags(*, fast: bool) -> AbstractContextManager[None]:
    """How cuDNN chooses its algorithms. By default, it rounds fp32 to TF32's 10 bits."""
    if fast:
        return torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True)
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


class CudnnFlags:
    """A context of `cudnn_flags` that several threads, of several networks, are in at the same time.

    What it sets holds for the process: a thread that left it by itself would end it for the others. While any network
    inside is exact, its flags are set: a fast one's numbers do not depend on them.
    """

    _inside: ClassVar[Counter[bool]] = Counter()  # fast? -> threads
    _set: ClassVar[tuple[bool, AbstractContextManager[None]] | None] = None
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, *, fast: bool) -> None:
        self._fast = fast

    def __enter__(self) -> Self:
        self._count(1)
        return self

    def __exit__(self, *_error: object) -> None:
        self._count(-1)

    def _count(self, n: int) -> None:
        of = CudnnFlags
        with of._lock:
            of._inside[self._fast] += n
            wanted = None if not of._inside.total() else not of._inside[False]
            if of._set is not None and of._set[0] is not wanted:
                of._set[1].__exit__(None, None, None)
                of._set = None
            if of._set is None and wanted is not None:
                of._set = wanted, cudnn_flags(fast=wanted)
                of._set[1].__enter__()
