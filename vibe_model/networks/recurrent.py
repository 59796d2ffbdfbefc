"""A GRU whose training step on a CPU is a few large products.  features -> windows -> [training] -> evaluation

torch's GRU on a CPU adds each frame's share of the weights' gradient by itself: at VIBE's sizes, 16 times 32 rows into
12 MB. Here only what truly follows from the last state is done frame by frame; the rest is one product over all frames.
The numbers are the same up to rounding, and the same to the bit from one run to the next.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vibe_model.networks.products import linear, product, times


class GRU(nn.GRU):
    """`nn.GRU`, with its parameters, names and initial values. What `Recurrence` is not made for is left to torch.

    That is: a GPU, where cuDNN does the same; sequences that are packed, or not batch first; a given initial state;
    dropout between layers; no biases.
    """

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: A002  torch's name
        """(B, T, n_in) -> states of the last layer (B, T, D hidden), last states (layers D, B, hidden).

        D: 2 with both directions, else 1. On a CPU, computes in autocast's type where that is on, with states in the
        parameters'; on a GPU, in the parameters'.
        """
        if isinstance(input, Tensor) and input.is_cuda and torch.is_autocast_enabled("cuda"):
            # Autocast takes cuDNN's GRUs to float16, whatever type was asked for: there, small gradients vanish.
            with torch.autocast("cuda", enabled=False):
                widened: tuple[Tensor, Tensor] = nn.GRU.forward(self, input.to(next(self.parameters()).dtype), hx)
                return widened
        plain = isinstance(input, Tensor) and input.dim() == 3 and self.batch_first and self.bias and hx is None
        if not plain or self.dropout or input.device.type != "cpu":
            output: tuple[Tensor, Tensor] = nn.GRU.forward(self, input, hx)
            return output
        sequence, last = input.transpose(0, 1), []  # (T, B, n_in)
        directions = 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            ways = []
            for way in range(directions):
                states = _one_way(sequence, *self.all_weights[layer * directions + way], backwards=way == 1)
                ways.append(states)  # (T, B, hidden)
                last.append(states[0 if way == 1 else -1])
            sequence = ways[0] if directions == 1 else torch.cat(ways, dim=-1)
        return sequence.transpose(0, 1), torch.stack(last)


def _one_way(
    sequence: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor, *, backwards: bool
) -> Tensor:
    """One layer in one direction: (T, B, n_in) -> (T, B, hidden), in the order of the input."""
    # The hidden side's biases of the gates r and z are only ever added to the input side's; that of n is not.
    rz, n = torch.split(bias_hh, [2 * weight_hh.shape[1], weight_hh.shape[1]])
    gates = linear(sequence, weight_ih, bias_ih + torch.cat((rz, torch.zeros_like(n))))  # (T, B, 3 hidden)
    if torch.is_autocast_enabled("cpu"):
        weight_hh = weight_hh.to(torch.get_autocast_dtype("cpu"))
    if not backwards:
        return _recurrence(gates, weight_hh, n)
    return _recurrence(gates.flip(0), weight_hh, n).flip(0)


def _recurrence(gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    states: Tensor = Recurrence.apply(gates, weight, bias)  # type: ignore[no-untyped-call]
    return states


class Recurrence(torch.autograd.Function):
    """h_t of a GRU from 0, given what the inputs add to its gates (Cho et al., EMNLP 2014, as torch and cuDNN have it).

        r, z = sigmoid(gates_rz + W_rz h)    n = tanh(gates_n + r (W_n h + bias))    h' = (1 - z) n + z h

    gates (T, B, 3 H) in the order r, z, n; weight (3 H, H); bias (H,) -> (T, B, H) of the bias's type, in which the
    state is kept; products are taken in the weight's type.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n_frames, n_rows, size = *gates.shape[:2], weight.shape[1]
        with torch.autocast("cpu", enabled=False):
            states = bias.new_zeros(n_frames + 1, n_rows, size)  # h_0 = 0 first
            rz, n, hidden_n = (bias.new_empty(n_frames, n_rows, width) for width in (2 * size, size, size))
            # What the products take, in their type: the states themselves where that is the same.
            factors = states if weight.dtype == states.dtype else states.to(weight.dtype)
            times_weight = times(weight.t(), n_rows)
            for t in range(n_frames):
                hidden = times_weight(factors[t])  # (B, H) @ (H, 3 H)
                torch.add(gates[t, :, : 2 * size], hidden[:, : 2 * size], out=rz[t]).sigmoid_()
                torch.add(hidden[:, 2 * size :], bias, out=hidden_n[t])
                torch.addcmul(gates[t, :, 2 * size :], rz[t, :, :size], hidden_n[t], out=n[t]).tanh_()
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
        # How much of a state's gradient comes to the inside of each gate: (T, B, H), for all frames at once.
        to_n = (1 - z) * (1 - n.square())
        to_z = (states[:-1] - n) * z * (1 - z)
        n_to_r = hidden_n * r * (1 - r)
        inside = n.new_empty(*n.shape[:2], 3 * size)  # the gradients inside r, z and, times r, n: what W h gets
        inside_n = torch.empty_like(n)
        factor = inside if weight.dtype == inside.dtype else torch.empty_like(inside, dtype=weight.dtype)
        later = torch.zeros_like(n[0])  # what a state's gradient gets from the frames after it
        times_weight = times(weight, len(later))
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
            weight_grad = product(factor.flatten(0, 1).t(), factors[:-1].flatten(0, 1))  # (3 H, T B) @ (T B, H)
        bias_grad = inside[..., 2 * size :].sum(dim=(0, 1))
        gates_grad = torch.cat((inside[..., : 2 * size], inside_n), dim=-1).to(ctx.gates_type)
        return gates_grad, weight_grad, bias_grad
