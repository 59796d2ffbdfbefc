"""Networks on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.arrays import Floats
from pipeline.cli.console import err
from pipeline.errors import PipelineError
from pipeline.features.networks.arithmetic import torch_flags
from pipeline.features.networks.base import Loaded, Network, PlainNetwork
from pipeline.features.streams.base import Machine, Precision

FAST_BATCH: Final = 256  # crops in a batch, precision fast
EXACT_BATCH: Final = 64  # crops in a batch, precision exact
PORTABLE: Final = 1  # cudaHostRegisterPortable: pinned for every GPU of the process

# cuDNN's flags are global and read when layers are launched: one network at a time sets its own.
_LAUNCHING: Final = threading.Lock()


class CudaNetwork(Network):
    """A network on a GPU; crops are copied as bytes and normalised there.

    In precision fast, it computes in bf16 by autocast, channels last, compiled if torch's compiler
    works here, in two threads with a CUDA stream each. Otherwise it computes in fp32 without TF32,
    with deterministic algorithms, in batches of a fixed size and in one thread.
    """

    def __init__(
        self, loaded: Loaded, device: torch.device, machine: Machine, precision: Precision
    ) -> None:
        name = str(torch.cuda.get_device_name(device))
        if precision == "fast":
            size = machine.batch_size or FAST_BATCH
            super().__init__(loaded, size, 2, device=name, arithmetic="bf16, autocast")
            network = PlainNetwork(loaded, torch.float32, torch.channels_last)
        else:
            fp32 = "fp32 without TF32, deterministic"
            super().__init__(loaded, EXACT_BATCH, 1, device=name, arithmetic=fp32)
            network = PlainNetwork(loaded, torch.float32, torch.contiguous_format)
        self._device = device
        self._precision: Precision = precision
        # the adopted memory of each stream that this network computes
        self._pinned: list[NDArray[np.uint8]] = []
        self._forward: Callable[[Tensor], Tensor] = network.to(device)
        self._of_thread = threading.local()  # `stream`: the thread's CUDA stream
        if precision == "fast":
            self._compile()

    def _compile(self) -> None:
        """Compile the network, or print why torch's compiler does not work here.

        This computes once, as two threads must not compile at once.
        """
        uncompiled = self._forward
        # Trying all algorithms takes minutes, and ends at cuDNN's for nearly every layer.
        self._forward = torch.compile(uncompiled, dynamic=False)
        try:
            self(np.zeros((self.batch_size, *self.region, 3), np.uint8))
            self.arithmetic = "bf16, compiled"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the compiler's errors have no common class
            self._forward = uncompiled
            err.warn(_not_compiled(error))

    def adopt(self, memory: NDArray[np.uint8]) -> None:
        """Pin the memory of all crops, so that the GPU copies crops while it computes. Raises
        PipelineError if that fails.
        """
        with torch.cuda.device(self._device):
            runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            error = int(runtime.cudaHostRegister(memory.ctypes.data, memory.nbytes, PORTABLE))
        if error:
            raise PipelineError(
                f"cannot pin {memory.nbytes >> 20} MB for copies to the GPU (cudaHostRegister: "
                f"{error}). Free some memory, or use a smaller batch size or the device cpu."
            )
        self._pinned.append(memory)

    def release(self) -> None:
        """Unpin the memory that was adopted last."""
        if self._pinned:
            with torch.cuda.device(self._device):
                torch.cuda.cudart().cudaHostUnregister(self._pinned.pop().ctypes.data)  # type: ignore[no-untyped-call]

    @torch.inference_mode()
    def _compute(self, crops: NDArray[np.uint8], labels: Mapping[str, Tensor]) -> Floats:
        with torch.cuda.stream(self._stream()):
            pixels = torch.from_numpy(crops).to(self._device, non_blocking=True)
            columns = {name: values.to(self._device) for name, values in labels.items()}
            autocast = torch.autocast("cuda", torch.bfloat16, enabled=self._precision == "fast")
            with _LAUNCHING, torch_flags(self._precision), autocast:
                features = self._forward(pixels, **columns)
            # This waits for this thread's stream. Afterwards, the crops' memory may be overwritten.
            result: Floats = features.cpu().numpy()
        return result

    def _stream(self) -> torch.cuda.Stream:
        """This thread's CUDA stream."""
        if not hasattr(self._of_thread, "stream"):
            self._of_thread.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            # The weights were copied in the default stream.
            self._of_thread.stream.wait_stream(torch.cuda.default_stream(self._device))
        stream: torch.cuda.Stream = self._of_thread.stream
        return stream


def _not_compiled(error: Exception) -> str:
    """A note on a network that cannot be compiled."""
    reason, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"torch.compile does not work here, so features take about twice as long: {reason} "
        "It needs a C compiler (apt install gcc python3-dev)."
    )
