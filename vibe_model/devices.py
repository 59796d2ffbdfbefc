"""The devices that settings name, and constant numbers on them.  [settings] -> [training]"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.errors import ConfigError


def device_of(name: str, local_rank: int | None = None) -> torch.device:
    """The device that a setting names: auto, cpu, cuda or cuda:1.

    local_rank: Number of this process on its machine, if several processes train together: each
    has the GPU of its number. Raises ConfigError for other names and for missing GPUs.
    """
    has_gpu = torch.cuda.is_available()
    chosen = name
    if name == "auto":
        chosen = "cuda" if has_gpu else "cpu"
    expected = f"device: expected auto, cpu, cuda or cuda:1, found {name!r}"
    try:
        device = torch.device(chosen)
    except RuntimeError as error:
        raise ConfigError(expected, "device") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(expected, "device")
    if device.type == "cuda" and local_rank is not None:
        if device.index is not None:
            raise ConfigError(
                f"device: found {name!r}, but each of several processes has a GPU of its own. "
                "Use cuda.",
                "device",
            )
        device = torch.device("cuda", local_rank)
    n_gpus = 0
    if has_gpu:
        n_gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= n_gpus:
        raise ConfigError(
            f"device: {name!r} needs {device}, but torch finds {n_gpus} GPUs here. Use cpu, or "
            "auto.",
            "device",
        )
    return device


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """(n,) on the device of `like`: indices in int64, other numbers in its dtype."""
    return _constant(
        tuple(values), torch.int64 if isinstance(values[0], int) else like.dtype, like.device
    )


@functools.cache
@torch.inference_mode(False)  # also for gradients
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
