"""The probabilistic, view-invariant embedding of a 2D pose.  labels -> [pr_vipe] -> features,
training

Sun et al., "View-Invariant Probabilistic Embedding for Human Pose" (ECCV 2020): views of the same
body pose have similar embeddings, whose variance is the uncertainty. Sizes and constants are those
of the authors' implementation (google-research, poem), except the embedding's size, 32 as in Lee
and Lee (ICCV 2021), and the points' visibility flags as additional inputs.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.people.skeletons import KEYPOINTS_13
from vibe_model.devices import constant
from vibe_model.part_dynamics.pr_vipe.config import SIZE

N_POINTS: Final = len(KEYPOINTS_13)
N_INPUTS: Final = 3 * N_POINTS  # x and y of each point, then the visibilities
SAMPLES: Final = 20  # samples of an embedding for a comparison
SMOOTHING: Final = 0.1  # of the matching probability, which is in [0.05, 0.95]


def point_numbers(*joints: str) -> tuple[int, ...]:
    """Indices in KEYPOINTS_13 of joints on the left, then of the same joints on the right."""
    names = [f"l{joint}" for joint in joints] + [f"r{joint}" for joint in joints]
    return tuple(KEYPOINTS_13.index(name) for name in names)


HIPS: Final = point_numbers("hip")
TORSO: Final = (*point_numbers("shoulder"), *HIPS)
_TORSO_SIZE: Final = 0.5  # of a normalised pose
_LEAST_STD: Final = 1e-6  # in float32, elu(s) + 1 is 0 below s = -17
_SAMPLE_PAIRS: Final = 1 << 24  # compared at once without gradients (64 MiB of distances)


class _Stem(nn.Module):
    """A linear layer, batch norm, ReLU, dropout."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear = _he_normal(N_INPUTS, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, poses: Tensor) -> Tensor:
        """(N, 39) -> (N, hidden)."""
        state = self.norm(self.linear(poses))
        dropped: Tensor = self.dropout(state.relu())
        return dropped


class _ResidualBlock(nn.Module):
    """Two layers such as `_Stem`, added to their input."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = _he_normal(hidden, hidden)
        self.norm1 = nn.BatchNorm1d(hidden)
        self.linear2 = _he_normal(hidden, hidden)
        self.norm2 = nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor) -> Tensor:
        """(N, hidden) -> (N, hidden)."""
        inner = self.norm1(self.linear1(state))
        inner = self.dropout(inner.relu())
        inner = self.norm2(self.linear2(inner))
        added: Tensor = self.dropout(inner.relu())
        return state + added


class PrVIPE(nn.Module):
    """Normalised 2D pose -> mean and standard deviation of its embedding, a normal distribution."""

    def __init__(self, size: int = SIZE, hidden: int = 1024, dropout: float = 0.3) -> None:
        super().__init__()
        self.stem = _Stem(hidden, dropout)
        self.blocks = nn.ModuleList(_ResidualBlock(hidden, dropout) for _ in range(2))
        self.mean = _he_normal(hidden, size)
        self.spread = _he_normal(hidden, size)
        # slope, before elu(raw_a) + 1, and offset of the matching probability (`_probability`)
        self.raw_a = nn.Parameter(torch.tensor(-0.65))
        self.b = nn.Parameter(torch.tensor(-0.5))

    @staticmethod
    def torso_sides(xy: Tensor) -> Tensor:
        """Vectors (..., 4, 4, 2) between all hips and shoulders of points (..., 13, 2)."""
        torso = xy[..., constant(TORSO, xy), :]
        return torso.unsqueeze(-2) - torso.unsqueeze(-3)

    @staticmethod
    def normalise(kp: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (..., 13, 3) in any unit, with confidence -> inputs (..., 39), and (...)
        whether they are defined.

        Points, in the order of KEYPOINTS_13, are relative to the middle of the hips; the largest of
        the six distances among hips and shoulders is 0.5. Coordinates come first, 0 if missing,
        then 13 visibilities (confidence > 0). Undefined and all 0 if a hip or shoulder is missing,
        or all four are one point.
        """
        visible = kp[..., 2] > 0  # (..., 13)
        xy = torch.where(visible[..., None], kp[..., :2], 0.0)
        squared_sides = PrVIPE.torso_sides(xy).square().sum(-1)  # (..., 4, 4)
        squared_size = squared_sides.amax((-2, -1))  # (...)
        has_torso = visible[..., constant(TORSO, kp)].all(-1)
        is_defined = has_torso & (squared_size > 0)  # (...)
        # 1 where undefined: neither the root nor the division may give NaN, nor their gradients
        size = torch.where(is_defined, squared_size, 1.0).sqrt()

        hips = xy[..., constant(HIPS, kp), :]
        centre = hips.mean(-2, keepdim=True)  # (..., 1, 2)
        scale = _TORSO_SIZE / size
        scaled = (xy - centre) * scale[..., None, None]  # (..., 13, 2)
        has_point = visible & is_defined[..., None]  # (..., 13)
        points = torch.where(has_point[..., None], scaled, 0.0)
        visibilities = has_point.to(kp.dtype)
        return torch.cat((points.flatten(-2), visibilities), dim=-1), is_defined

    def forward(self, normalised: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 39) of `normalise` -> mean (N, size), std (N, size), above 0."""
        state = self.stem(normalised)
        for block in self.blocks:
            state = block(state)
        std = functional.elu(self.spread(state)) + 1
        return self.mean(state), std.clamp(min=_LEAST_STD)

    def match_probability(
        self,
        mean_a: Tensor,
        std_a: Tensor,
        mean_b: Tensor,
        std_b: Tensor,
        samples: int = SAMPLES,
    ) -> Tensor:
        """Probability that rows i of both sides show the same pose: means and stds (N, size) ->
        (N,) in [0.05, 0.95].

        The mean over all pairs of `samples` samples of either side.
        """
        a = _draw_samples(mean_a, std_a, samples)  # (N, K, size)
        b = _draw_samples(mean_b, std_b, samples)
        pairs = self._probability(torch.cdist(a, b))  # (N, K, K)
        return pairs.mean((-2, -1))

    def distances(
        self,
        mean_a: Tensor,
        std_a: Tensor,
        mean_b: Tensor,
        std_b: Tensor,
        samples: int = SAMPLES,
    ) -> Tensor:
        """-log of the matching probability of all rows of side a with all rows of side b, (A, B).

        Draws each row's samples once. Without gradients, computes some rows at a time.
        """
        a = _draw_samples(mean_a, std_a, samples)
        b = _draw_samples(mean_b, std_b, samples)
        columns = b.flatten(0, 1)  # (B K, size)
        n_rows = len(a)
        if not torch.is_grad_enabled():
            n_rows = max(_SAMPLE_PAIRS // (samples * len(columns)), 1)
        parts = []
        for rows in torch.split(a, n_rows):
            distances = torch.cdist(rows.flatten(0, 1), columns)
            pairs = self._probability(distances)
            by_row = pairs.view(len(rows), samples, len(b), samples)
            parts.append(by_row.mean((1, 3)))
        return -torch.cat(parts).log()

    def _probability(self, distance: Tensor) -> Tensor:
        """Matching probability of samples at distances d: sigmoid(b - a d), smoothed.

        The slope a = elu(raw_a) + 1 is above 0. a and b are learned.
        """
        slope = functional.elu(self.raw_a) + 1
        probability = torch.sigmoid(self.b - slope * distance)
        return (1 - SMOOTHING) * probability + SMOOTHING / 2


def _draw_samples(mean: Tensor, std: Tensor, samples: int) -> Tensor:
    """Draw samples of normal distributions: mean and std (N, size) -> (N, samples, size)."""
    shape = (len(mean), samples, mean.shape[1])
    noise = torch.randn(shape, dtype=mean.dtype, device=mean.device)
    return mean[:, None] + std[:, None] * noise


def _he_normal(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer with He's initial weights, and biases 0."""
    layer = nn.Linear(n_in, n_out)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
