"""The probabilistic, view-invariant embedding of a 2D pose.  labels -> [pr_vipe] -> features, training

Sun et al., "View-Invariant Probabilistic Embedding for Human Pose" (ECCV 2020): two pictures of one body pose, from
whatever side, are to be near one another, and the spread of the embedding is how little a picture tells. Sizes and
constants are those of the authors' implementation (google-research, poem), but for the embedding's size: 32, as Lee and
Lee (ICCV 2021) have it. Missing keypoints are ours: every point has a flag of visibility beside its coordinates.
"""

from __future__ import annotations

import itertools
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.skeletons import KEYPOINTS_13

N_POINTS: Final = len(KEYPOINTS_13)
N_INPUTS: Final = 3 * N_POINTS  # x and y of each point in turn, then their visibilities
SIZE: Final = 32
SAMPLES: Final = 20  # of an embedding, where two are compared
SMOOTHING: Final = 0.1  # of the matching probability: it is in [0.05, 0.95]
SHOULDERS, HIPS = ([KEYPOINTS_13.index(side + joint) for side in "lr"] for joint in ("shoulder", "hip"))
TORSO: Final = (*SHOULDERS, *HIPS)
_TORSO_SIZE: Final = 0.5  # of a normalised pose
_LEAST_STD: Final = 1e-6  # in float32, elu(s) + 1 is 0 below s = -17
_SAMPLE_PAIRS: Final = 1 << 24  # that are compared at once without gradients, 64 MiB of distances


class Stem(nn.Module):
    """A linear layer, batch norm, ReLU, dropout."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear, self.norm = _he_normal(N_INPUTS, hidden), nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, poses: Tensor) -> Tensor:
        """(N, 39) -> (N, hidden)."""
        out: Tensor = self.dropout(self.norm(self.linear(poses)).relu())
        return out


class ResidualBlock(nn.Module):
    """Two such layers, added to their input."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1, self.norm1 = _he_normal(hidden, hidden), nn.BatchNorm1d(hidden)
        self.linear2, self.norm2 = _he_normal(hidden, hidden), nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor) -> Tensor:
        """(N, hidden) -> (N, hidden)."""
        inner = self.dropout(self.norm1(self.linear1(state)).relu())
        out: Tensor = state + self.dropout(self.norm2(self.linear2(inner)).relu())
        return out


class PrVIPE(nn.Module):
    """A normalised 2D pose -> mean and standard deviation of its embedding, a normal distribution."""

    def __init__(self, size: int = SIZE, hidden: int = 1024, dropout: float = 0.3) -> None:
        super().__init__()
        self.stem = Stem(hidden, dropout)
        self.blocks = nn.ModuleList(ResidualBlock(hidden, dropout) for _ in range(2))
        self.mean, self.spread = _he_normal(hidden, size), _he_normal(hidden, size)
        self.raw_a, self.b = nn.Parameter(torch.tensor(-0.65)), nn.Parameter(torch.tensor(-0.5))

    @classmethod
    def like(cls, size: int, hidden: int, state: dict[str, Tensor]) -> PrVIPE:
        """One with these parameters, in evaluation mode, frozen. Raises RuntimeError where they do not fit."""
        network = cls(size, hidden)
        network.load_state_dict(state)
        return network.requires_grad_(False).eval()

    @staticmethod
    def normalise(kp: Tensor) -> tuple[Tensor, Tensor]:
        """(..., 13, 3) x, y of any unit, confidence -> (..., 39), and (...) whether it is defined.

        The points, in the order of KEYPOINTS_13, about the middle of the hips; the largest of the six distances among
        hips and shoulders is 0.5. Coordinates in turn, 0 where missing, then 13 visibilities, 1 for a confidence above
        0. All 0, and not defined, without both hips and both shoulders, and where these are one point.
        """
        visible = kp[..., 2] > 0
        xy = torch.where(visible[..., None], kp[..., :2], 0.0)
        sides = [xy[..., i, :] - xy[..., j, :] for i, j in itertools.combinations(TORSO, 2)]
        size = torch.stack(sides, dim=-2).square().sum(-1).amax(-1)  # (...) squared: its root has a gradient
        ok = visible[..., TORSO].all(-1) & (size > 0)
        size = torch.where(ok, size, 1.0).sqrt()
        centred = xy - xy[..., HIPS, :].mean(-2, keepdim=True)
        known = visible & ok[..., None]
        scaled = torch.where(known[..., None], centred * (_TORSO_SIZE / size)[..., None, None], 0.0)
        return torch.cat((scaled.flatten(-2), known.to(kp.dtype)), dim=-1), ok

    def forward(self, normalised: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 39) of `normalise` -> mean (N, size), std (N, size), above 0."""
        state = self.stem(normalised)
        for block in self.blocks:
            state = block(state)
        std = (functional.elu(self.spread(state)) + 1).clamp(min=_LEAST_STD)
        return self.mean(state), std

    def match_probability(
        self,
        mean_a: Tensor,
        std_a: Tensor,
        mean_b: Tensor,
        std_b: Tensor,
        samples: int = SAMPLES,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Whether row i of both sides is one body pose, smoothed: means and stds (N, size) -> (N,) in [0.05, 0.95].

        The mean over all pairs of `samples` samples of either side.
        """
        a, b = (_drawn(m, s, samples, generator) for m, s in ((mean_a, std_a), (mean_b, std_b)))  # (N, K, size)
        return self._probability(torch.cdist(a, b)).mean((-2, -1))

    def distances(
        self,
        mean_a: Tensor,
        std_a: Tensor,
        mean_b: Tensor,
        std_b: Tensor,
        samples: int = SAMPLES,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """-log of the matching probability of every row of one side with every row of the other: -> (A, B).

        Each row's samples are drawn once. Without gradients, some rows at a time.
        """
        a, b = (_drawn(m, s, samples, generator) for m, s in ((mean_a, std_a), (mean_b, std_b)))
        every = b.flatten(0, 1)  # (B K, size)
        n_rows = len(a) if torch.is_grad_enabled() else max(_SAMPLE_PAIRS // (samples * len(every)), 1)
        parts = []
        for rows in torch.split(a, n_rows):
            probability = self._probability(torch.cdist(rows.flatten(0, 1), every))
            parts.append(probability.view(len(rows), samples, len(b), samples).mean((1, 3)))
        return -torch.cat(parts).log()

    def _probability(self, distance: Tensor) -> Tensor:
        sure = torch.sigmoid(self.b - (functional.elu(self.raw_a) + 1) * distance)
        return (1 - SMOOTHING) * sure + SMOOTHING / 2


def _drawn(mean: Tensor, std: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """(N, size) each -> (N, samples, size)."""
    shape = (len(mean), samples, mean.shape[1])
    noise = torch.randn(shape, dtype=mean.dtype, device=mean.device, generator=generator)
    return mean[:, None] + std[:, None] * noise


def _he_normal(n_in: int, n_out: int) -> nn.Linear:
    layer = nn.Linear(n_in, n_out)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
