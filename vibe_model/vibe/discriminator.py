"""VIBE's motion discriminator (Kocabas et al., CVPR 2020, 3.2), with the published names.  [training]"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from vibe_model.errors import ConfigError
from vibe_model.networks.cpu_kernels import GRU, Dropout, Linear

if TYPE_CHECKING:
    from vibe_model.vibe.config import TrainConfig

MOTION: Final = slice(6, 75)  # of theta: the pose without camera (3) and global orientation (3)
MOTION_SIZE: Final = MOTION.stop - MOTION.start
POOLS: Final = ("attention", "concat", "last")


class SelfAttention(nn.Module):
    """A mean over time with weights from an MLP."""

    def __init__(self, state_size: int, *, n_layers: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        sizes = [state_size, *[hidden_size] * (n_layers - 1), 1]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            linear = Linear(n_in, n_out)
            nn.init.uniform_(linear.weight, -0.1, 0.1)
            nn.init.constant_(linear.bias, 0.01)
            layers += [linear, nn.Tanh(), Dropout(dropout)]
        self.attention = nn.Sequential(*layers)

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, state_size) -> (B, state_size)."""
        weights = torch.softmax(self.attention(states), dim=1)  # (B, T, 1)
        return (weights * states).sum(dim=1)


class MotionDiscriminator(nn.Module):
    """Scores windows of poses by a GRU pooled over time: 1 for real motion, 0 for generated motion.

    feature_pool: "attention", "concat" (mean and maximum over time side by side) or "last" (the last state).
    """

    def __init__(
        self,
        rnn_size: int = 1024,
        num_layers: int = 2,
        feature_pool: str = "attention",
        attention_layers: int = 3,
        attention_size: int = 1024,
        attention_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if feature_pool not in POOLS:
            raise ConfigError(f"feature_pool: expected one of {', '.join(POOLS)}, found {feature_pool!r}")
        if attention_layers < 1:
            raise ConfigError(f"attention_layers: expected at least 1, found {attention_layers}")
        self.feature_pool = feature_pool
        self.gru = GRU(MOTION_SIZE, rnn_size, num_layers, batch_first=True)
        if feature_pool == "attention":
            self.attention = SelfAttention(
                rnn_size, n_layers=attention_layers, hidden_size=attention_size, dropout=attention_dropout
            )
        self.fc = Linear(rnn_size * (2 if feature_pool == "concat" else 1), 1)

    def forward(self, motion: Tensor) -> Tensor:
        """(B, T, 69) axis-angle in rad, `theta[..., 6:75]` -> (B, 1)."""
        states: Tensor = self.gru(motion)[0]  # (B, T, rnn_size)
        pooled = states[:, -1]  # (B, rnn_size), or (B, 2 rnn_size) for "concat"
        if self.feature_pool == "attention":
            pooled = self.attention(states)
        elif self.feature_pool == "concat":
            active = states.relu()
            pooled = torch.cat((active.mean(dim=1), active.amax(dim=1)), dim=1)
        score: Tensor = self.fc(pooled)
        return score


def build_discriminator(config: TrainConfig) -> MotionDiscriminator:
    """A discriminator with new parameters, by the configuration."""
    return MotionDiscriminator(
        rnn_size=config.disc_size,
        num_layers=config.disc_layers,
        feature_pool=config.disc_pool,
        attention_layers=config.attention_layers,
        attention_size=config.disc_size,
        attention_dropout=config.attention_dropout,
    )


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Context in which gradients flow through `module`, but not into its parameters."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
