"""Networks that models share.  features -> [networks] -> bodies"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def xavier(n_in: int, n_out: int, gain: float = 1.0) -> nn.Linear:
    """A linear layer that starts Xavier uniform, with bias 0."""
    layer = nn.Linear(n_in, n_out)
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def run_gru(gru: nn.GRU, sequence: Tensor) -> Tensor:
    """(B, T, n_in) -> states of the last layer (B, T, D hidden), D: number of directions.

    On a GPU without autocast, which takes cuDNN's GRUs to float16, not to the requested type: small
    gradients vanish.
    """
    if sequence.is_cuda:
        with torch.autocast("cuda", enabled=False):
            states: Tensor = gru(sequence.to(next(gru.parameters()).dtype))[0]
    else:
        states = gru(sequence)[0]
    return states


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Context in which a network is in evaluation mode; afterwards it is in its earlier mode."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
