"""Losses of part dynamics: neighbouring frames, and embeddings of 2D poses.  windows -> [training]

After Lee and Lee, ICCV 2021. `neighbours` are VIBE's terms for the bodies some frames before and
after. `uncertainty` compares the Pr-VIPE embeddings (mean mu, deviation sigma) of predicted and
labelled keypoints:

    sum over frames of |w mu - w' mu'|,  w = sigma^2 / sum sigma^2

The sum in w over the embedding's dimensions, and the mean over frames instead of the sum, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from vibe_model.cameras import apply_optimal_camera
from vibe_model.losses import generator_losses, pair_step
from vibe_model.networks import evaluating
from vibe_model.part_dynamics.pr_vipe.network import PrVIPE
from vibe_model.vibe.networks import frozen

LEAST_STD: Final = 1e-3
_EPSILON: Final = 1e-12  # below the root, whose gradient is undefined at 0


def neighbours(
    by_step: Mapping[int, Mapping[str, Tensor]],
    batch: Mapping[str, Tensor],
    weights: Mapping[str, float],
) -> Tensor:
    """Weighted sum over steps of VIBE's supervised terms for neighbouring frames, a scalar.

    Only frames whose neighbour is in the window count. Keypoints are compared with the optimal
    camera, if it exists.

    Args:
        by_step: Step in frames -> predictions of each frame with the camera (1, 0, 0).
        batch, weights: Arguments of `losses.generator_losses`.
    """
    labelled = batch["kp_2d"]
    total = labelled.new_zeros(())
    for step, predicted in by_step.items():
        if abs(step) >= labelled.shape[1]:
            continue
        pred, label = pair_step(predicted, batch, step)
        kp_2d, label_kp_2d = apply_optimal_camera(pred["kp_2d"], label["kp_2d"])
        pred = {**pred, "kp_2d": kp_2d}
        label = {**label, "kp_2d": label_kp_2d}
        terms = generator_losses(pred, label, weights)
        total = total + torch.stack([*terms.values()]).sum()
    return total


def uncertainty(network: PrVIPE, keypoints: Tensor, target: Tensor, is_known: Tensor) -> Tensor:
    """Mean distance of weighted embeddings, a scalar, without its weight; 0 without valid frames.

    The network is frozen and in evaluation mode. Frames whose prediction cannot be normalised are
    ignored.

    Args:
        keypoints: (B, T, 13, 3), predicted x and y in the order of KEYPOINTS_13, and the labels'
            visibility.
        target: (B, T, 64), embedding of the labelled pose.
        is_known: (B, T), 1 where it is known.
    """
    normalised, is_defined = PrVIPE.normalise(keypoints)
    counted = (is_known > 0) & is_defined
    if not counted.any():
        # 0 in the prediction's graph, for backward; 0 times an infinite prediction would be NaN
        return keypoints[:0].sum()
    with frozen(network), evaluating(network):
        predicted = _weigh(*network(normalised[counted]))
    mean, std = target[counted].chunk(2, dim=-1)
    labelled = _weigh(mean, std)
    squared = (predicted - labelled).square().sum(-1)
    return (squared + _EPSILON).sqrt().mean()


def _weigh(mean: Tensor, std: Tensor) -> Tensor:
    """Weigh embeddings (N, size) by their share of the variance (module docstring)."""
    variance = std.clamp(min=LEAST_STD).square()
    total = variance.sum(-1, keepdim=True)
    return variance / total * mean
