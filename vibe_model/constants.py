"""Constant numbers on a device, copied there once instead of in each step.  [training]"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """(n,) on the device of `like`: indices in int64, other numbers in its dtype."""
    return _constant(
        tuple(values), torch.int64 if isinstance(values[0], int) else like.dtype, like.device
    )


@functools.cache
@torch.inference_mode(False)  # also for gradients
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
