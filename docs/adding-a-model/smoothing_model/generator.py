"""The network."""

import torch
from torch import Tensor, nn

from pipeline.body import Body
from smoothing_model.config import SmoothingConfig
from vibe_model.networks.video_model import Estimate, VideoModel
from vibe_model.vibe.generator import Regressor


class Smoothing(VideoModel):
    """Features, smoothed over time by a learned kernel, through VIBE's regressor."""

    def __init__(self, body: Body, feature_size: int, regressor_size: int, kernel_size: int) -> None:
        super().__init__()
        self.body = body
        self.kernel = nn.Parameter(torch.zeros(kernel_size))  # before a softmax: all frames alike
        self.regressor = Regressor(body, feature_size=feature_size, hidden_size=regressor_size)

    def regress(self, features: Tensor) -> Estimate:
        """(B, T, feature_size) -> bodies and cameras, (B, T, ...)."""
        size = len(self.kernel)
        margin = (size // 2, size // 2)
        padded = nn.functional.pad(features.transpose(1, 2), margin, mode="replicate")  # (B, F, T + size - 1)
        smooth = (padded.unfold(2, size, 1) @ self.kernel.softmax(0)).transpose(1, 2)  # (B, T, F)
        return Estimate.of_6d(*(part.unflatten(0, features.shape[:2]) for part in self.regressor(smooth.flatten(0, 1))))


def build_generator(config: SmoothingConfig, body: Body) -> Smoothing:
    """A generator by the configuration, with fresh parameters."""
    return Smoothing(body, config.feature_size, config.regressor_size, config.kernel_size)
