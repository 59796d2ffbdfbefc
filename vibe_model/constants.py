"""Constant numbers on a device.  [training]"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """Indices (n,) int64, or other numbers (n,) in the dtype of `like`, on its device: copied there once."""
    dtype = torch.int64 if all(isinstance(value, int) for value in values) else like.dtype
    return _constant(tuple(values), dtype, like.device)


@functools.cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # also for gradients
        return torch.tensor(values, dtype=dtype, device=device)
