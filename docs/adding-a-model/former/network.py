"""The network and one step of its training."""

from functools import partial

import torch
from torch import Tensor, nn

from former import FormerConfig
from vibe_model.api import (
    PUBLISHED_WEIGHTS,
    Body,
    Estimate,
    ProcessGroup,
    Regressor,
    TrainingBatch,
    VideoModel,
    VideoTrainer,
    generator_losses,
    keypoints_3d,
    labels_of,
)


class Former(VideoModel):
    """A transformer encoder over time, followed by VIBE's regressor."""

    def __init__(self, config: FormerConfig, body: Body) -> None:
        super().__init__()
        self.body = body
        size = config.hidden_size
        self.embed = nn.Linear(config.feature_size, size)
        block = partial(
            nn.TransformerEncoderLayer, size, config.n_heads, 2 * size, batch_first=True
        )
        self.layers = nn.Sequential(*(block() for _ in range(config.n_layers)))
        self.regressor = Regressor(body, feature_size=size, hidden_size=size)

    def regress(self, features: Tensor) -> Estimate:
        """(B, T, feature_size) -> bodies and cameras, (B, T, ...)."""
        state = self.embed(features)  # (B, T, hidden)
        state = self.layers(state + _positions(state)) if len(self.layers) else state
        return Estimate.of_6d(
            *(part.unflatten(0, features.shape[:2]) for part in self.regressor(state.flatten(0, 1)))
        )


def _positions(state: Tensor) -> Tensor:
    """Position encoding by sines and cosines: (B, T, hidden) -> (T, hidden), for windows of any
    length.
    """
    frames, size = state.shape[1:]
    places = torch.arange(size, device=state.device)
    angles = torch.arange(frames, device=state.device)[:, None] / 1e4 ** (places // 2 * 2 / size)
    return torch.where(places % 2 == 0, angles.sin(), angles.cos())


def velocity(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error of joint steps relative to the hips: twice (B, T, 49, 3) m, (B, T) ->
    scalar, m^2.
    """
    both = torch.minimum(weight[:, 1:], weight[:, :-1])
    return keypoints_3d(pred.diff(dim=1), target.diff(dim=1), both)


class FormerTrainer(VideoTrainer):
    """VIBE's supervised losses and a velocity loss."""

    def __init__(self, config: FormerConfig, body: Body, group: ProcessGroup) -> None:
        super().__init__(config, body, group)
        self.velocity_weight = config.velocity_weight
        self.learners = {"generator": self.learner(self.generator, "gen", lr=config.lr_generator)}

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The weighted terms, by the names of their curves."""
        estimate = self.generator.regress(batch.labels["features"].float())
        pred = self.generator.pose(estimate, vertices=False)
        terms = generator_losses(pred, batch.labels, PUBLISHED_WEIGHTS)
        label = labels_of(batch.labels, pred["theta"])
        error = velocity(pred["kp_3d"], label["kp_3d"], label["w_3d"])
        terms["velocity"] = self.velocity_weight * error
        return terms
