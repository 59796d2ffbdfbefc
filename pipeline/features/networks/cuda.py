"""A network on a GPU, which computes one batch while it copies the next.  crops -> [network] -> features"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
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

# cuDNN's flags are global and read when layers are launched: one network at a time sets its own.
_LAUNCHING: Final = threading.Lock()


class CudaNetwork(Network):
    """A network on a GPU; crops are copied as bytes and normalised there.

    fast: bf16, channels last, two threads with a stream each, optionally torch.compile. Otherwise fp32 without TF32, by
    deterministic algorithms, in batches of one size and one thread.
    """

    def __init__(self, loaded: Loaded, device: torch.device, machine: Machine, *, fast: bool) -> None:
        super().__init__(loaded, (machine.batch_size or FAST_BATCH) if fast else EXACT_BATCH, 2 if fast else 1)
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
        if not loaded.columns:  # compile here, not in two threads at the same time
            self(np.zeros((self.batch_size, *self.region, 3), np.uint8))

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        """Pin the memory, so that the GPU copies crops while it computes. Raises PipelineError."""
        with torch.cuda.device(self._device):
            error = int(torch.cuda.cudart().cudaHostRegister(memory.ctypes.data, memory.nbytes, PORTABLE))  # type: ignore[no-untyped-call]
        if error:
            raise PipelineError(
                f"cannot pin {memory.nbytes >> 20} MB for copies to the GPU (cudaHostRegister: {error}). Free some "
                "memory, or use a smaller batch size or the device cpu."
            )
        self._pinned.append(memory)

    def release(self) -> None:
        """Unpin the memory that was adopted last."""
        if self._pinned:
            with torch.cuda.device(self._device):
                torch.cuda.cudart().cudaHostUnregister(self._pinned.pop().ctypes.data)  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def _compute(self, crops: NDArray[np.uint8], labels: Mapping[str, torch.Tensor]) -> NDArray[np.float32]:
        with torch.cuda.stream(self._stream()):
            there = torch.from_numpy(crops).to(self._device, non_blocking=True)
            beside = {name: values.to(self._device) for name, values in labels.items()}
            with _LAUNCHING, torch.backends.cudnn.flags(enabled=True, **self._flags):
                features = self._forward(there, **beside)
            # Waits for this thread's stream only. Then the crops' memory may be overwritten.
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
    """Whether a GPU multiplies bf16, as from Ampere on; older ones emulate it slowly, or refuse it."""
    return torch.cuda.get_device_capability(device) >= (8, 0)
