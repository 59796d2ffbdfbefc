"""Networks that models share.  features -> [networks] -> bodies"""

from torch import nn


def xavier(n_in: int, n_out: int, gain: float = 1.0) -> nn.Linear:
    """A linear layer that starts Xavier uniform, with bias 0."""
    layer = nn.Linear(n_in, n_out)
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
