"""Products and dropout of a training step on a CPU, in float32.  features -> windows -> [training] -> evaluation

There, oneDNN multiplies large matrices up to a tenth faster than what torch takes, and random bits are cheaper than
random numbers. Everything else (a GPU, other types, autocast, what no gradient is asked of) is left to torch.
The products are torch's up to rounding, and the same to the bit from one run to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_LEVELS: Final = 2**16  # of 16 random bits


def product(left: Tensor, right: Tensor) -> Tensor:
    """(n, k) @ (k, m) -> (n, m)."""
    if not _for_onednn(left, right):
        return left @ right
    return _linear(_dense(left), _dense(right.t()))


def times(matrix: Tensor, n_rows: int) -> Callable[[Tensor], Tensor]:
    """What multiplies (n_rows, n) by this (n, m), again and again.

    In float32, oneDNN lays the matrix out as it likes best, once: with few rows, up to twice as fast as asking anew
    each time. In bfloat16 that gains nothing.
    """
    if not _for_onednn(matrix):
        return lambda rows: rows @ matrix
    packed = torch.ops.mkldnn._reorder_linear_weight(matrix.t(), n_rows)
    return lambda rows: _linear(rows, packed)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`functional.linear`: rows (..., n), weight (m, n), bias (m,) -> (..., m)."""
    given = [rows, weight] if bias is None else [rows, weight, bias]
    asked = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    if not asked or torch.is_autocast_enabled("cpu") or not _for_onednn(*given):
        return functional.linear(rows, weight, bias)
    out: Tensor = _Linear.apply(rows.reshape(-1, rows.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
    return out.reshape(*rows.shape[:-1], len(weight))


class Linear(nn.Linear):
    """`nn.Linear`, with its parameters, names and initial values."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """(..., n) -> (..., m)."""
        return linear(input, self.weight, self.bias)


class Dropout(nn.Dropout):
    """`nn.Dropout` whose draws, on a CPU in float32, are of 16 random bits each.

    There p is rounded to a multiple of 1 / 65536; what is kept grows by as much as makes the expectation exact.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """Of any shape."""
        dropped = round(self.p * _LEVELS)  # of the levels
        plain = input.device.type != "cpu" or input.dtype != torch.float32 or self.inplace
        if plain or not self.training or not 0 < dropped < _LEVELS:
            return nn.Dropout.forward(self, input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: input.numel()].view(input.shape)  # four of a word, from -32768
        factor = torch.empty(input.shape)
        torch.ge(bits, dropped - _LEVELS // 2, out=factor)
        return input * factor.mul_(_LEVELS / (_LEVELS - dropped))


class _Linear(torch.autograd.Function):
    """rows (N, n), weight (m, n), bias (m,) or None -> (N, m)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows, weight = _dense(rows), _dense(weight)
        ctx.save_for_backward(rows, weight)  # as copied, if they were: backward need not do so again
        return _linear(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(grad, weight) if of_rows else None,
            product(grad.t(), rows) if of_weight else None,
            grad.sum(dim=0) if of_bias else None,
        )


def _for_onednn(*tensors: Tensor) -> bool:
    on_cpu = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
    return on_cpu and bool(torch._C._has_mkldnn) and all(tensor.numel() for tensor in tensors)


def _dense(matrix: Tensor) -> Tensor:
    """The matrix without gaps between rows, or between columns: with gaps, oneDNN is a thousand times slower."""
    return matrix if matrix.t().is_contiguous() else matrix.contiguous()


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return out
