"""Parts of theta, and constant numbers on a device, copied there once instead of in each step.
[training]
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

# Parts of theta (..., 85), whose first three numbers are the camera: scale, tx, ty.
POSE: Final = slice(3, 75)  # axis-angle of 24 joints, rad; the first one is the global orientation
BETAS: Final = slice(75, 85)  # SMPL's shape


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """(n,) on the device of `like`: indices in int64, other numbers in its dtype."""
    return _constant(
        tuple(values), torch.int64 if isinstance(values[0], int) else like.dtype, like.device
    )


@functools.cache
@torch.inference_mode(False)  # also for gradients
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)
