"""A network on a GPU: while one batch is computed, the next is copied there.  crops -> [network] -> features"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.features.networks.base import Loaded, Network, PlainNetwork
from pipeline.features.streams.base import Machine

FAST_BATCH: Final = 256
EXACT_BATCH: Final = 64
PORTABLE: Final = 1  # cudaHostRegisterPortable: pinned for every GPU of the process

# cuDNN's flags hold for the process, and are read where layers are launched: one network at a time sets its own.
_LAUNCHING: Final = threading.Lock()


class CudaNetwork(Network):
    """`fast`: bf16, channels last, two threads with a stream each. Otherwise fp32 without TF32, by deterministic
    algorithms, in batches of one size and one thread. Where it is fast, by torch.compile if the machine says so.

    Crops go to the GPU as bytes and are normalised there.
    """

    def __init__(self, loaded: Loaded, device: torch.device, machine: Machine, *, fast: bool) -> None:
        super().__init__((machine.batch_size or FAST_BATCH) if fast else EXACT_BATCH, 2 if fast else 1, loaded.region)
        self.device = str(torch.cuda.get_device_name(device))
        compiled = machine.compile and fast
        self.arithmetic = "fp32 without TF32, deterministic"
        if fast:
            self.arithmetic = "bf16, compiled" if compiled else "bf16, layer by layer"
        self._device = device
        self._pinned: list[NDArray[np.uint8]] = []  # of each stream that this network computes
        plain = PlainNetwork(loaded, fast=fast, channels_last=fast)
        self._forward: Callable[[torch.Tensor], torch.Tensor] = plain.to(device)
        if compiled:
            self._forward = torch.compile(self._forward, mode="max-autotune-no-cudagraphs", dynamic=False)
        self._of_thread = threading.local()
        # By default, cuDNN rounds fp32 to TF32's 10 bits.
        self._flags = {"benchmark": fast, "deterministic": not fast, "allow_tf32": fast}
        # What is compiled is compiled here, once, and not in two threads at the same time.
        self(np.zeros((self.batch_size, *self.region, 3), np.uint8))

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

    @torch.inference_mode()
    def _compute(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.cuda.stream(self._stream()):
            there = torch.from_numpy(crops).to(self._device, non_blocking=True)
            with _LAUNCHING, torch.backends.cudnn.flags(enabled=True, **self._flags):
                features = self._forward(there)
            # Waits for this thread's stream alone. Then the crops have been read, and their memory may be used again.
            result: NDArray[np.float32] = features.cpu().numpy()
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
