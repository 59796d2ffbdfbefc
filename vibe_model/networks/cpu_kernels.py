"""GRU, linear layers and dropout of a training step on a CPU, in float32.  features -> windows ->
[training]

On a CPU, oneDNN multiplies large matrices up to 10 % faster than torch, random bits are cheaper
than random numbers, and torch's GRU sums the weights' gradient over frames, which one product can
do. Torch does everything else (a GPU, other types, inference). Results equal torch's up to
rounding, and are repeatable to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_LEVELS: Final = 2**16  # of 16 random bits


def _product(left: Tensor, right: Tensor) -> Tensor:
    """(n, k) @ (k, m) -> (n, m)."""
    if not _suits_onednn(left, right):
        return left @ right
    return _onednn_linear(_dense(left), _dense(right.t()))


def _multiplier(matrix: Tensor, n_rows: int) -> Callable[[Tensor], Tensor]:
    """A function that multiplies (n_rows, n) by this (n, m); oneDNN reorders the matrix once."""
    if not _suits_onednn(matrix):
        return lambda rows: rows @ matrix
    packed = torch.ops.mkldnn._reorder_linear_weight(matrix.t(), n_rows)
    return lambda rows: _onednn_linear(rows, packed)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`functional.linear`: rows (..., n), weight (m, n), bias (m,) -> (..., m)."""
    given = [rows, weight] if bias is None else [rows, weight, bias]
    trains = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    if not trains or torch.is_autocast_enabled("cpu") or not _suits_onednn(*given):
        return functional.linear(rows, weight, bias)
    out: Tensor = cast("Any", _Linear).apply(rows.reshape(-1, rows.shape[-1]), weight, bias)
    return out.reshape(*rows.shape[:-1], len(weight))


class Linear(nn.Linear):
    """`nn.Linear`, with its parameters, names and initial values."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        return linear(input, self.weight, self.bias)


class Dropout(nn.Dropout):
    """`nn.Dropout`; on a CPU in float32 with 16 random bits per draw: p is rounded to 1 / 65536."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        dropped = round(self.p * _LEVELS)  # of the levels
        plain = input.device.type != "cpu" or input.dtype != torch.float32 or self.inplace
        if plain or not self.training or not 0 < dropped < _LEVELS:
            return nn.Dropout.forward(self, input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        # four per word, from -32768
        bits = words.view(torch.int16)[: input.numel()].view(input.shape)
        factor = torch.empty(input.shape)
        torch.ge(bits, dropped - _LEVELS // 2, out=factor)
        return input * factor.mul_(_LEVELS / (_LEVELS - dropped))


class GRU(nn.GRU):
    """`nn.GRU`, with its parameters, names and initial values.

    Torch computes on a GPU, and with packed sequences, batch second, an initial state, dropout or
    no biases.
    """

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:  # noqa: A002  torch's name
        """(B, T, n_in) -> states of the last layer (B, T, D hidden), last states (layers D, B,
        hidden).

        D: 2 with both directions, else 1. With autocast on a CPU, products have autocast's type and
        states the parameters'; on a GPU, everything has the parameters'.
        """
        if isinstance(input, Tensor) and input.is_cuda and torch.is_autocast_enabled("cuda"):
            # Autocast takes cuDNN's GRUs to float16, not to the requested type: small gradients
            # vanish.
            with torch.autocast("cuda", enabled=False):
                widened: tuple[Tensor, Tensor] = nn.GRU.forward(
                    self, input.to(next(self.parameters()).dtype), hx
                )
                return widened
        plain = (
            isinstance(input, Tensor)
            and input.dim() == 3
            and self.batch_first
            and self.bias
            and hx is None
        )
        if not plain or self.dropout or input.device.type != "cpu":
            output: tuple[Tensor, Tensor] = nn.GRU.forward(self, input, hx)
            return output
        sequence = input.transpose(0, 1)
        last = []  # (T, B, n_in)
        directions = 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            outputs = []
            for backwards in range(directions):
                weights = self.all_weights[layer * directions + backwards]
                states = _one_direction(sequence, *weights, backwards=backwards == 1)
                outputs.append(states)  # (T, B, hidden)
                last.append(states[0 if backwards else -1])
            sequence = outputs[0] if directions == 1 else torch.cat(outputs, dim=-1)
        return sequence.transpose(0, 1), torch.stack(last)


def _one_direction(
    sequence: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    *,
    backwards: bool,
) -> Tensor:
    """One layer in one direction: (T, B, n_in) -> (T, B, hidden), in the order of the input."""
    # The hidden biases of the gates r and z are added to the input's; that of n is not.
    rz, n = torch.split(bias_hh, [2 * weight_hh.shape[1], weight_hh.shape[1]])
    # (T, B, 3 hidden)
    gates = linear(sequence, weight_ih, bias_ih + torch.cat((rz, torch.zeros_like(n))))
    if torch.is_autocast_enabled("cpu"):
        weight_hh = weight_hh.to(torch.get_autocast_dtype("cpu"))
    states: Tensor = cast("Any", _Recurrence).apply(
        gates.flip(0) if backwards else gates, weight_hh, n
    )
    return states.flip(0) if backwards else states


class _Recurrence(torch.autograd.Function):
    """States of a GRU from 0, from the inputs' part of its gates (Cho et al., EMNLP 2014, as in
    torch and cuDNN).

        r, z = sigmoid(gates_rz + W_rz h)    n = tanh(gates_n + r (W_n h + bias))    h' = (1 - z) n
        + z h

    gates (T, B, 3 H) in the order r, z, n; weight (3 H, H); bias (H,) -> (T, B, H). States have the
    bias's type, products the weight's.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n_frames, n_rows, size = *gates.shape[:2], weight.shape[1]
        with torch.autocast("cpu", enabled=False):
            states = bias.new_zeros(n_frames + 1, n_rows, size)  # h_0 = 0 first
            rz, n, hidden_n = (
                bias.new_empty(n_frames, n_rows, width) for width in (2 * size, size, size)
            )
            # The states in the type of the products
            factors = states if weight.dtype == states.dtype else states.to(weight.dtype)
            times_weight = _multiplier(weight.t(), n_rows)
            for t in range(n_frames):
                hidden = times_weight(factors[t])  # (B, H) @ (H, 3 H)
                torch.add(gates[t, :, : 2 * size], hidden[:, : 2 * size], out=rz[t]).sigmoid_()
                torch.add(hidden[:, 2 * size :], bias, out=hidden_n[t])
                torch.addcmul(
                    gates[t, :, 2 * size :], rz[t, :, :size], hidden_n[t], out=n[t]
                ).tanh_()
                torch.lerp(n[t], states[t], rz[t, :, size:], out=states[t + 1])
                if factors is not states:
                    factors[t + 1] = states[t + 1]
        ctx.save_for_backward(states, factors, rz, n, hidden_n, weight)
        ctx.gates_type = gates.dtype
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, factors, rz, n, hidden_n, weight = ctx.saved_tensors
        r, z = rz.chunk(2, dim=-1)
        size = n.shape[-1]
        # Factors from a state's gradient to those inside each gate: (T, B, H), for all frames at
        # once
        to_n = (1 - z) * (1 - n.square())
        to_z = (states[:-1] - n) * z * (1 - z)
        n_to_r = hidden_n * r * (1 - r)
        # gradients inside r, z and, times r, n: those of W h
        inside = n.new_empty(*n.shape[:2], 3 * size)
        inside_n = torch.empty_like(n)
        factor = (
            inside if weight.dtype == inside.dtype else torch.empty_like(inside, dtype=weight.dtype)
        )
        later = torch.zeros_like(n[0])  # part of a state's gradient from later frames
        times_weight = _multiplier(weight, len(later))
        with torch.autocast("cpu", enabled=False):
            for t in range(len(n) - 1, -1, -1):
                total = later.add_(grad[t])
                torch.mul(total, to_n[t], out=inside_n[t])
                torch.mul(inside_n[t], n_to_r[t], out=inside[t, :, :size])
                torch.mul(total, to_z[t], out=inside[t, :, size : 2 * size])
                torch.mul(inside_n[t], r[t], out=inside[t, :, 2 * size :])
                if factor is not inside:
                    factor[t] = inside[t]
                through = times_weight(factor[t])  # (B, 3 H) @ (3 H, H)
                torch.addcmul(through, total, z[t], out=later)
            # (3 H, T B) @ (T B, H)
            weight_grad = _product(factor.flatten(0, 1).t(), factors[:-1].flatten(0, 1))
        bias_grad = inside[..., 2 * size :].sum(dim=(0, 1))
        gates_grad = torch.cat((inside[..., : 2 * size], inside_n), dim=-1).to(ctx.gates_type)
        return gates_grad, weight_grad, bias_grad


class _Linear(torch.autograd.Function):
    """rows (N, n), weight (m, n), bias (m,) or None -> (N, m)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = _dense(rows)
        weight = _dense(weight)
        ctx.save_for_backward(rows, weight)
        return _onednn_linear(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(grad, weight) if of_rows else None,
            _product(grad.t(), rows) if of_weight else None,
            grad.sum(dim=0) if of_bias else None,
        )


def _suits_onednn(*tensors: Tensor) -> bool:
    on_cpu = all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors
    )
    return on_cpu and bool(torch._C._has_mkldnn) and all(tensor.numel() for tensor in tensors)


def _dense(matrix: Tensor) -> Tensor:
    """The matrix without gaps between rows or columns, with which oneDNN is a thousand times
    slower.
    """
    return matrix if matrix.t().is_contiguous() else matrix.contiguous()


def _onednn_linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return out
