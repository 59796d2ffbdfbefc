"""Pr-VIPE's losses.  features -> windows -> [training] -> evaluation

Sun et al., ECCV 2020, with two details of the authors' implementation (google-research, poem):
semi-hard negatives, and a mean over triplets with a positive loss. Rows of the (B, B) distances are
anchors, columns are matches; the diagonal has each anchor's own match, another view of its pose.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

KAPPA: Final = 0.1  # NP-MPJPE in torso sizes from which two poses are different
MARGIN: Final = math.log(2)  # of the triplets' ratio of probabilities


def triplet_ratio(distances: Tensor, pose_distances: Tensor) -> Tensor:
    """Mean of max(0, D(i, i+) - D(i, i-) + ln 2) over triplets in which it is positive, a scalar.

    An anchor's negative is the nearest match of a different pose that is farther than its own
    match; anchors without one are ignored. distances: (B, B), -log of matching probabilities;
    pose_distances: (B, B) NP-MPJPE.
    """
    to_own = distances.diagonal()  # (B,)
    is_other = ~torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    is_different = pose_distances >= KAPPA
    is_farther = distances > to_own[:, None]
    semi_hard = is_other & is_different & is_farther

    nearest = torch.where(semi_hard, distances, torch.inf).amin(1)  # (B,)
    # without a negative, a distance whose hinge is 0
    negative = torch.where(semi_hard.any(1), nearest, to_own + 2 * MARGIN)
    hinge = (to_own - negative + MARGIN).clamp(min=0)
    n_positive = (hinge > 0).sum()
    return hinge.sum() / n_positive.clamp(min=1)


def positive_pairwise(distances: Tensor) -> Tensor:
    """Mean distance of anchors (B, B) to their own match, a scalar."""
    return distances.diagonal().mean()


def prior(mean: Tensor, std: Tensor) -> Tensor:
    """Mean over poses of the KL divergence from the standard normal distribution, in nats. (N,
    size) each -> scalar.
    """
    squares = std.square() + mean.square()
    divergence = squares - 1 - 2 * std.log()
    return 0.5 * divergence.sum(-1).mean()
