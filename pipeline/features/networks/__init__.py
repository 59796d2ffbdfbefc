"""Run networks on CPU or GPU, in batches and threads.  crops -> [network] -> features

Streams call `load` for a ResNet-50, and `run` for any other network. Both return a `Network`, which
computes batches:

    _CudaNetwork   on a GPU; it computes one batch while it copies the next
    _CpuNetwork    on a CPU, one batch per core; a ResNet-50 at once, other networks crop by crop

All use torch's layers; those of the ResNet-50 have its batch norms folded in. On a GPU, fast
networks are compiled. On a CPU the compiler makes bf16 14% faster, but it takes a minute, the time
of 10,000 crops, and needs a C++ compiler.

Importing this module imports torch, so streams import it only when they compute.
"""

from __future__ import annotations

import contextlib
import copy
import platform
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache.arrays import Floats
from pipeline.boxes import CROP_SIZE
from pipeline.cli.console import err
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.networks import backbones
from pipeline.features.networks.backbones import fold_batch_norms
from pipeline.features.networks.base import Loaded
from pipeline.features.networks.base import Network as Network
from pipeline.features.networks.base import chosen_device as chosen_device
from pipeline.features.networks.base import compute as compute
from pipeline.features.streams.base import Machine, Standardisation
from pipeline.features.weights import WeightsSpec
from pipeline.processes import cores

CALIBRATION_CROPS: Final = 96  # rendered crops that standardise a ResNet-50 with random weights
COMPARED_CROPS: Final = 4  # rendered crops that compare fast features with exact ones
LEAST_COSINE: Final = 0.9999  # between fast and exact features
FAST_BATCH: Final = 256  # crops in a batch on a GPU, precision fast
EXACT_BATCH: Final = 64  # crops in a batch on a GPU, precision exact
# crops in a batch on a CPU: larger batches are not faster, and results of layers fit the caches
BATCH_SIZE: Final = 16
SMALL_BATCH: Final = 8  # for networks that compute one crop at a time, which may take seconds
PORTABLE: Final = 1  # cudaHostRegisterPortable: pinned for every GPU of the process

# cuDNN's flags are global and read when layers are launched: one network at a time sets its own.
_LAUNCHING: Final = threading.Lock()


def load(
    weights: WeightsSpec,
    precision: str,
    machine: Machine,
    recorded: Standardisation | None,
    region: tuple[int, int] = (CROP_SIZE, CROP_SIZE),
) -> Network:
    """Load a ResNet-50 on its device, for crops of `region` (height, width) px.

    Random weights give features with a mean near 9 that vary by only 0.25 over poses. So these
    features are standardised, by the statistics of existing rows (`recorded`), or else by new ones
    over rendered crops. Features of real weights are never standardised.

    Raises ConfigError for a missing device, and what `backbones.load` raises.
    """
    device = chosen_device(machine.device)
    loaded = backbones.load(weights, region)
    # first, so that only one folded copy of the network is in memory at a time
    if weights.stand_in:
        statistics = recorded or _statistics(loaded)
        loaded.provenance["standardisation"] = {  # as JSON has it
            name: list(numbers) for name, numbers in statistics._asdict().items()
        }
    running = _on_device(fold_batch_norms(loaded), device, machine, fast=precision == "fast")
    if weights.stand_in:
        running.mean = np.array(statistics.mean, np.float32)
        running.std = np.array(statistics.std, np.float32)
    return running


def run(load: Callable[[], Loaded], precision: str, machine: Machine) -> Network:
    """Load any network except the ResNet-50 on its device, by calling `load`. It runs in fp32, or
    in bf16 if `precision` is fast and the device has bf16.

    Raises what `load` raises, and ConfigError for a missing device, for precision fast with a
    network that reads columns, and if fast features are inexact: their cosine with exact ones is
    below 0.9999 for a rendered crop.
    """
    device = chosen_device(machine.device)
    loaded = load()
    if precision == "fast" and loaded.columns:
        raise ConfigError(
            f"precision fast: {loaded.provenance['network']} reads {', '.join(loaded.columns)}, "
            "which bf16 rounds to "
            "three digits. Set precision = exact."
        )

    running = _on_device(loaded, device, machine, fast=False)
    if precision == "fast" and has_bf16(device):
        exact = running
        loaded = replace(loaded, network=copy.deepcopy(loaded.network).cpu())
        running = _on_device(loaded, device, machine, fast=True)
        _check_fast(exact, running, str(loaded.provenance["network"]))
    return running


def _on_device(loaded: Loaded, device: torch.device, machine: Machine, *, fast: bool) -> Network:
    """Put a network on its device. fast: bf16 if the device has it."""
    if device.type == "cuda":
        return _CudaNetwork(loaded, device, machine, fast=fast and has_bf16(device))
    return _CpuNetwork(loaded, machine, fast=fast)


def has_bf16(device: torch.device) -> bool:
    """Whether a device has instructions that multiply bf16 numbers.

    GPUs have them from Ampere on; older ones emulate bf16 slowly, or refuse it. On CPUs without
    them, oneDNN's emulation is slower than fp32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not _has(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"):
        return False
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    instructions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(_has(torch.cpu, name) for name in instructions)


def _has(module: Any, check: str) -> bool:
    """Call the function `check` of a module of torch; False if this torch lacks it."""
    return hasattr(module, check) and getattr(module, check)()


def _render_crops(n: int, region: tuple[int, int]) -> NDArray[np.uint8]:
    """Render n crops of people (n, height, width, 3), with the size of `region`: they are resized
    to its longer side, and the centre is cut out.
    """
    from pipeline.demo.scene import calibration_crops

    height, width = region
    side = max(region)
    crops = calibration_crops(n)
    if side != crops.shape[1]:
        crops = np.stack([cv2.resize(crop, (side, side)) for crop in crops]).astype(np.uint8)
    top = (side - height) // 2
    left = (side - width) // 2
    return np.ascontiguousarray(crops[:, top : top + height, left : left + width])


def _check_fast(exact: Network, fast: Network, name: str) -> None:
    """Raise ConfigError if fast features of some rendered crop differ too much from exact ones."""
    crops = _render_crops(COMPARED_CROPS, exact.region)
    a = compute(exact, crops).astype(np.float64)
    b = compute(fast, crops).astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / lengths
    lowest = float(cosines.min())
    if not lowest >= LEAST_COSINE:  # also if it is NaN
        raise ConfigError(
            f"precision fast: {name} in bf16 differs too much from fp32: the smallest cosine "
            f"over {COMPARED_CROPS} rendered crops is {lowest:.6f}, expected at least "
            f"{LEAST_COSINE}. Set precision = exact."
        )


def _statistics(loaded: Loaded) -> Standardisation:
    """Mean and standard deviation of each feature of a ResNet-50 over rendered crops, rounded so
    that JSON stores them exactly.
    """
    exact = _CpuNetwork(fold_batch_norms(loaded), Machine(), fast=False)
    features = compute(exact, _render_crops(CALIBRATION_CROPS, loaded.region)).astype(np.float64)
    mean = features.mean(axis=0)
    std = features.std(axis=0, ddof=1).clip(min=1e-4)
    rounded = [tuple(float(f"{x:.6g}") for x in numbers) for numbers in (mean, std)]
    return Standardisation(*rounded)


@contextlib.contextmanager
def arithmetic(*, fast: bool) -> Iterator[None]:
    """Within the block, set whether torch may use TF32, and whether cuDNN is deterministic.

    Unless `fast`, fp32 is computed without TF32, whose numbers have only 10 bits of mantissa: TF32
    is cuDNN's default for convolutions, and the environment may set it for matrix products.

    Raises ConfigError if the process has set TF32 by torch's newer options, as torch refuses to mix
    both.
    """
    before = torch.get_float32_matmul_precision()
    with contextlib.ExitStack() as stack:
        try:
            flags = {"benchmark": fast, "deterministic": not fast, "allow_tf32": fast}
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, **flags))
        except RuntimeError as error:
            raise ConfigError(
                "this process has set torch.backends.cudnn.conv.fp32_precision or "
                ".rnn.fp32_precision, perhaps in a "
                "plug-in. Delete that: precision = exact or fast decides about TF32."
            ) from error
        if not fast:
            torch.set_float32_matmul_precision("highest")
            stack.callback(torch.set_float32_matmul_precision, before)
        yield


class _CudaNetwork(Network):
    """A network on a GPU; crops are copied as bytes and normalised there.

    If `fast`, it computes in bf16 by autocast, channels last, compiled if torch's compiler works
    here, in two threads with a CUDA stream each. Otherwise it computes in fp32 without TF32, with
    deterministic algorithms, in batches of a fixed size and in one thread.
    """

    def __init__(
        self, loaded: Loaded, device: torch.device, machine: Machine, *, fast: bool
    ) -> None:
        if fast:
            super().__init__(loaded, machine.batch_size or FAST_BATCH, lanes=2)
            self.arithmetic = "bf16, autocast"
        else:
            super().__init__(loaded, EXACT_BATCH, lanes=1)
            self.arithmetic = "fp32 without TF32, deterministic"
        self.device = str(torch.cuda.get_device_name(device))
        self._device = device
        # the adopted memory of each stream that this network computes
        self._pinned: list[NDArray[np.uint8]] = []
        network = _PlainNetwork(loaded, fast=False, channels_last=fast)
        self._forward: Callable[[Tensor], Tensor] = network.to(device)
        self._of_thread = threading.local()  # `stream`: the thread's CUDA stream
        self._fast = fast
        if fast:
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
            autocast = torch.autocast("cuda", torch.bfloat16, enabled=self._fast)
            with _LAUNCHING, arithmetic(fast=self._fast), autocast:
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


class _CpuNetwork(Network):
    """A network on a CPU, in several threads (`machine.threads`; 0: one per core), each with a
    batch.

    A folded ResNet computes a batch at once: in fp32, or, if `fast`, in bf16 if the CPU has it. Its
    bits do not depend on the number of threads; those of fp32 are of batches of the same size on
    all machines. Other networks compute crops one by one, so that a row's bits depend only on its
    own input.
    """

    device = "cpu"

    def __init__(self, loaded: Loaded, machine: Machine, *, fast: bool) -> None:
        size = machine.batch_size or SMALL_BATCH
        if loaded.is_folded:
            size = (machine.batch_size if fast else 0) or BATCH_SIZE
        super().__init__(loaded, size, cores(machine.threads))
        fast = fast and has_bf16(torch.device("cpu"))
        self.arithmetic = f"{'bf16' if fast else 'fp32'}, layer by layer"
        self._at_once = size if loaded.is_folded else 1
        self._forward: nn.Module
        if fast and loaded.is_folded:
            self._forward = _ReorderedNetwork(loaded)
        else:
            self._forward = _PlainNetwork(loaded, fast=fast)

    @torch.inference_mode()
    def _compute(self, crops: NDArray[np.uint8], labels: Mapping[str, Tensor]) -> Floats:
        features = []
        for first in range(0, len(crops), self._at_once):
            part = slice(first, first + self._at_once)
            of_part = {name: values[part] for name, values in labels.items()}
            features.append(self._forward(torch.from_numpy(crops[part]), **of_part).numpy())
        return np.concatenate(features)


def _not_compiled(error: Exception) -> str:
    """A note on a network that cannot be compiled."""
    reason, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"torch.compile does not work here, so features take about twice as long: {reason} "
        "It needs a C compiler (apt install gcc python3-dev)."
    )


class _PlainNetwork(nn.Module):
    """A network that runs by torch's layers: uint8 crops (B, height, width, 3) RGB -> (B, dim)
    float32. It computes in bf16 if `fast`.

    Changes the dtype and memory format of `loaded.network` in place.
    """

    def __init__(self, loaded: Loaded, *, fast: bool, channels_last: bool = True) -> None:
        super().__init__()
        self.dtype = torch.bfloat16 if fast else torch.float32
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.normalisation = copy.deepcopy(loaded.normalisation)  # moved to the device
        self.network = loaded.network.to(dtype=self.dtype, memory_format=self.format)  # type: ignore[call-overload]

    def forward(self, crops: Tensor, **labels: Tensor) -> Tensor:
        pixels = self.normalisation(crops).to(self.dtype).contiguous(memory_format=self.format)
        features: Tensor = self.network(pixels, **labels)
        return features.float()


class _ReorderedNetwork(nn.Module):
    """A folded ResNet in bf16 on a CPU, by torch's layers for oneDNN: their weights are reordered
    once, where other layers do it for each batch, which takes 8% of the time.
    """

    def __init__(self, loaded: Loaded) -> None:
        super().__init__()
        self.normalisation = loaded.normalisation
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these layers of torch use TorchScript: deprecated
            from torch.utils.mkldnn import to_mkldnn

            self.network = to_mkldnn(loaded.network, torch.bfloat16)  # type: ignore[no-untyped-call]

    def forward(self, crops: Tensor) -> Tensor:
        pixels = self.normalisation(crops).contiguous().to_mkldnn(torch.bfloat16)
        features: Tensor = self.network(pixels)
        return features
