"""Networks that models share.  features -> [networks] -> bodies"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def xavier(n_in: int, n_out: int, gain: float = 1.0) -> nn.Linear:
    """A linear layer that starts Xavier uniform, with bias 0."""
    layer = nn.Linear(n_in, n_out)
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Context in which a network is in evaluation mode; afterwards it is in its earlier mode."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
