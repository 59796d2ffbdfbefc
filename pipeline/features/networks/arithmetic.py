"""The arithmetic of each precision: bf16 where a device has it, and fp32 without TF32."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from typing import Any

import torch

from pipeline.errors import ConfigError
from pipeline.features.streams.base import Precision


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


@contextlib.contextmanager
def torch_flags(precision: Precision) -> Iterator[None]:
    """Within the block, set whether torch may use TF32, and whether cuDNN is deterministic.

    In precision exact, fp32 is computed without TF32, whose numbers have only 10 bits of mantissa:
    TF32 is cuDNN's default for convolutions, and the environment may set it for matrix products.

    Raises ConfigError if the process has set TF32 by torch's newer options, as torch refuses to mix
    both.
    """
    is_fast = precision == "fast"
    before = torch.get_float32_matmul_precision()
    with contextlib.ExitStack() as stack:
        try:
            flags = {"benchmark": is_fast, "deterministic": not is_fast, "allow_tf32": is_fast}
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, **flags))
        except RuntimeError as error:
            raise ConfigError(
                "this process has set torch.backends.cudnn.conv.fp32_precision or "
                ".rnn.fp32_precision, perhaps in a "
                "plug-in. Delete that: precision = exact or fast decides about TF32."
            ) from error
        if not is_fast:
            torch.set_float32_matmul_precision("highest")
            stack.callback(torch.set_float32_matmul_precision, before)
        yield
