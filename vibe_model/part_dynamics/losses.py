"""What asks the predicted 2D pose to agree with the embedding of the labelled one.  windows -> [training]

After Lee and Lee, ICCV 2021: sum over frames of |w mu - w' mu'|, w = sigma^2 / sum sigma^2. The sum in w over the
embedding's dimensions, and the mean over frames instead of the sum, are ours.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor

from pipeline.features.networks.pr_vipe import PrVIPE
from vibe_model.vibe.discriminator import frozen

LEAST_STD: Final = 1e-3
_EPSILON: Final = 1e-12  # within the root, whose gradient has no value at 0


def uncertainty(embedding: PrVIPE, kp: Tensor, pr_vipe: Tensor, ok: Tensor) -> Tensor:
    """The mean distance of weighted embeddings, a scalar, before its weight.

    kp: (B, T, 13, 3), predicted x and y in the order of KEYPOINTS_13, and the labels' visibility; pr_vipe: (B, T, 64)
    of the labelled pose; ok: (B, T), 1 where that is known. Other frames, and those whose prediction cannot be
    normalised, are left out; with none left it is 0. Gradients reach the prediction alone; the embedding is in
    evaluation mode meanwhile.
    """
    normalised, defined = PrVIPE.normalise(kp)
    counted = (ok > 0) & defined
    if not counted.any():
        return 0 * kp.sum()
    was_training = embedding.training
    with frozen(embedding):
        embedding.eval()
        own = _weighted(*embedding(normalised[counted]))
        embedding.train(was_training)
    target = _weighted(*pr_vipe[counted].chunk(2, dim=-1))
    return ((own - target).square().sum(-1) + _EPSILON).sqrt().mean()


def _weighted(mean: Tensor, std: Tensor) -> Tensor:
    """(N, size) each -> (N, size)."""
    variance = std.clamp(min=LEAST_STD).square()
    return variance / variance.sum(-1, keepdim=True) * mean
