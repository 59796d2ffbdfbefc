"""A network on a GPU: while one batch is computed, the next is copied there.  crops -> [network] -> features"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Self

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
        self._memory: NDArray[np.uint8] | None = None
        self._forward: Callable[[torch.Tensor], torch.Tensor] = on_device(
            network, device, fast=fast, normalisation=normalisation
        )
        if compiled:
            self._forward = torch.compile(self._forward, mode="max-autotune-no-cudagraphs", dynamic=False)
        self._copied, self._counting = 0.0, threading.Lock()
        self._of_thread = threading.local()
        self._flags = Together(lambda: cudnn_flags(fast=fast))
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
        self._memory = memory

    def release(self) -> None:
        """Unpin it."""
        if self._memory is not None:
            with torch.cuda.device(self._device):
                torch.cuda.cudart().cudaHostUnregister(self._memory.ctypes.data)  # type: ignore[no-untyped-call]
            self._memory = None

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


class Together:
    """A context that several threads are in at the same time: entered with the first, left with the last.

    What it sets holds for the process: a thread that left it by itself would end it for the others.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make, self._inside, self._lock = make, 0, threading.Lock()
        self._entered: AbstractContextManager[None] | None = None

    def __enter__(self) -> Self:
        with self._lock:
            if self._inside == 0:
                self._entered = self._make()
                self._entered.__enter__()
            self._inside += 1
        return self

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._entered is not None:
                self._entered.__exit__(None, None, None)
                self._entered = None
