"""VIBE's generator, and its discriminator of motion.  features -> windows -> [training] ->
evaluation

Kocabas et al., CVPR 2020, with the parameter names of the published checkpoints:

    generator G (section 3.1)               VIBE: TemporalEncoder, then Regressor frame by frame
    motion discriminator D_M (section 3.2)  MotionDiscriminator, with self-attention over time
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError, require_option
from vibe_model.networks.video_model import (
    CAMERA_SIZE,
    FEATURE_SIZE,
    SHAPE_SIZE,
    Estimate,
    VideoModel,
)

if TYPE_CHECKING:
    from pipeline.people.body import Body
    from vibe_model.vibe.config import TrainConfig

POSE_SIZE: Final = 24 * 6
REGRESSOR_ITERATIONS: Final = 3
# part of theta that is motion: the pose without camera (3 numbers) and global orientation (3)
MOTION: Final = slice(6, 75)
MOTION_SIZE: Final = MOTION.stop - MOTION.start


class TemporalEncoder(nn.Module):
    """A GRU over a window that corrects each frame's feature with the help of other frames.

    f + W relu(GRU(f)), with `add_linear` and `use_residual` as published.
    """

    def __init__(
        self,
        *,
        n_layers: int = 2,
        hidden_size: int = 1024,
        bidirectional: bool = False,
        add_linear: bool = True,
        use_residual: bool = True,
        feature_size: int = FEATURE_SIZE,
    ) -> None:
        super().__init__()
        self.gru = nn.GRU(
            feature_size, hidden_size, n_layers, bidirectional=bidirectional, batch_first=True
        )
        # Two directions need the linear layer even without `add_linear`: their states have another
        # size.
        self.linear: nn.Linear | None = None
        if bidirectional or add_linear:
            self.linear = nn.Linear(hidden_size * (2 if bidirectional else 1), feature_size)
        elif hidden_size != feature_size:
            raise ConfigError(
                f"hidden_size: expected {feature_size}, the feature's size, without a linear "
                f"layer; found {hidden_size}. Set add_linear, or hidden_size = {feature_size}.",
                "hidden_size",
                "add_linear",
            )
        self.use_residual = use_residual

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, feature_size) -> (B, T, feature_size)."""
        correction = _run_gru(self.gru, features)  # (B, T, hidden), or (B, T, 2 hidden)
        if self.linear is not None:
            correction = self.linear(correction.relu())  # (B, T, feature_size)
        if self.use_residual:
            return features + correction
        return correction


class Regressor(nn.Module):
    """Iterative error feedback from one frame's feature to pose, shape and camera (HMR; SPIN):
    three times, estimate + decoder(fc2(fc1([feature, estimate]))).

    `init_pose`, `init_shape`, `init_cam`: (1, n) buffers with the mean parameters at the start.
    """

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(
        self,
        body: Body,
        *,
        feature_size: int = FEATURE_SIZE,
        hidden_size: int = 1024,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(feature_size + POSE_SIZE + SHAPE_SIZE + CAMERA_SIZE, hidden_size)
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden_size, hidden_size)
        self.drop2 = nn.Dropout(dropout)
        self.decpose = nn.Linear(hidden_size, POSE_SIZE)
        self.decshape = nn.Linear(hidden_size, SHAPE_SIZE)
        self.deccam = nn.Linear(hidden_size, CAMERA_SIZE)
        for layer in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(layer.weight, gain=0.01)  # start near the mean
        for name, mean in (
            ("pose", body.mean_pose),
            ("shape", body.mean_shape),
            ("cam", body.mean_cam),
        ):
            start = torch.as_tensor(mean, dtype=torch.float32).detach().clone().reshape(1, -1)
            self.register_buffer(f"init_{name}", start)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, feature_size) -> pose (N, 144) 6D, shape (N, 10), camera (N, 3)."""
        sizes = [POSE_SIZE, SHAPE_SIZE, CAMERA_SIZE]
        feature_weight, estimate_weight = torch.split(
            self.fc1.weight, [features.shape[1], sum(sizes)], dim=1
        )
        # fc1([feature, estimate]) as a sum, whose first part is the same in every iteration
        from_feature = functional.linear(features, feature_weight, self.fc1.bias)  # (N, hidden)
        decoders = (self.decpose, self.decshape, self.deccam)
        weight = torch.cat([decoder.weight for decoder in decoders])
        bias = torch.cat([decoder.bias for decoder in decoders])
        start = torch.cat((self.init_pose, self.init_shape, self.init_cam), dim=1)
        estimate = start.expand(len(features), -1)
        for _ in range(REGRESSOR_ITERATIONS):
            # The published regressor has no non-linearity between these layers.
            from_estimate = functional.linear(estimate, estimate_weight)
            state = self.drop1(from_feature + from_estimate)
            state = self.drop2(self.fc2(state))  # (N, hidden)
            estimate = estimate + functional.linear(state, weight, bias)
        pose, shape, camera = torch.split(estimate, sizes, dim=1)
        return pose, shape, camera


class VIBE(VideoModel):
    """VIBE's generator: predicts one body per frame from video features.

    seqlen: Window length in training; other lengths are accepted, too. n_layers: Layers of the GRU;
    0: no temporal encoder, which is the per-frame baseline.
    """

    __call__: Callable[..., dict[str, Tensor]]  # of `forward`; torch declares Any

    def __init__(
        self,
        body: Body,
        seqlen: int = 16,
        n_layers: int = 2,
        hidden_size: int = 1024,
        bidirectional: bool = False,
        add_linear: bool = True,
        use_residual: bool = True,
        *,
        feature_size: int = FEATURE_SIZE,
        regressor_size: int = 1024,
    ) -> None:
        super().__init__()
        self.seqlen = seqlen
        self.encoder: nn.Module = nn.Identity()
        if n_layers:
            self.encoder = TemporalEncoder(
                n_layers=n_layers,
                hidden_size=hidden_size,
                bidirectional=bidirectional,
                add_linear=add_linear,
                use_residual=use_residual,
                feature_size=feature_size,
            )
        self.regressor = Regressor(body, feature_size=feature_size, hidden_size=regressor_size)
        self.body = body

    @classmethod
    def build(cls, config: TrainConfig, body: Body) -> Self:
        """Build a generator with newly initialised parameters, as the configuration says."""
        return cls(
            body,
            seqlen=config.seqlen,
            n_layers=config.n_layers,
            hidden_size=config.hidden_size,
            bidirectional=config.bidirectional,
            add_linear=config.add_linear,
            use_residual=config.use_residual,
            feature_size=config.feature_size,
            regressor_size=config.regressor_size,
        )

    def forward(
        self, features: Tensor, eval_joints: bool = False, vertices: bool = True
    ) -> dict[str, Tensor]:
        """Predict bodies from features (B, T, feature_size).

        Returns what `pose` does: theta, verts, kp_2d, kp_3d and rotmat, (B, T, ...) each.
        """
        return self.pose(self.regress(features), eval_joints, vertices)

    def regress(self, features: Tensor) -> Estimate:
        """Regress bodies and cameras (B, T, ...) from features (B, T, feature_size)."""
        encoded: Tensor = self.encoder(features)  # (B, T, feature_size)
        regressed = self.regressor(encoded.flatten(0, 1))  # (B T, ...)
        return Estimate.of_6d(*(part.unflatten(0, features.shape[:2]) for part in regressed))


class _SelfAttention(nn.Module):
    """A mean over time with weights from an MLP phi: softmax_t(phi(h_t)), section 3.2."""

    def __init__(self, state_size: int, *, n_layers: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        sizes = [state_size, *[hidden_size] * (n_layers - 1), 1]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layer = nn.Linear(n_in, n_out)
            nn.init.uniform_(layer.weight, -0.1, 0.1)
            nn.init.constant_(layer.bias, 0.01)
            # as published, also after the last layer, whose outputs are the scores
            layers += [layer, nn.Tanh(), nn.Dropout(dropout)]
        self.attention = nn.Sequential(*layers)

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, state_size) -> (B, state_size)."""
        weights = torch.softmax(self.attention(states), dim=1)  # (B, T, 1)
        return (weights * states).sum(dim=1)


Pool = Literal["attention", "concat", "last"]  # of a discriminator's states over time


class MotionDiscriminator(nn.Module):
    """Scores windows of poses by a GRU pooled over time: 1 for real motion, 0 for generated motion.

    feature_pool: "attention", "concat" (mean and maximum over time side by side) or "last" (the
    last state).
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        rnn_size: int = 1024,
        num_layers: int = 2,
        feature_pool: Pool = "attention",
        attention_layers: int = 3,
        attention_size: int = 1024,
        attention_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        require_option("feature_pool", feature_pool, Pool)
        self.feature_pool = feature_pool
        self.gru = nn.GRU(MOTION_SIZE, rnn_size, num_layers, batch_first=True)
        if feature_pool == "attention":
            self.attention = _SelfAttention(
                rnn_size,
                n_layers=attention_layers,
                hidden_size=attention_size,
                dropout=attention_dropout,
            )
        self.fc = nn.Linear(rnn_size * (2 if feature_pool == "concat" else 1), 1)

    def forward(self, motion: Tensor) -> Tensor:
        """(B, T, 69) axis-angle in rad, `theta[..., 6:75]` -> (B, 1)."""
        states = _run_gru(self.gru, motion)  # (B, T, rnn_size)
        pooled = states[:, -1]  # (B, rnn_size), or (B, 2 rnn_size) for "concat"
        if self.feature_pool == "attention":
            pooled = self.attention(states)
        elif self.feature_pool == "concat":
            active = states.relu()
            pooled = torch.cat((active.mean(dim=1), active.amax(dim=1)), dim=1)
        score: Tensor = self.fc(pooled)
        return score


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


def _run_gru(gru: nn.GRU, sequence: Tensor) -> Tensor:
    """(B, T, n_in) -> states of the last layer (B, T, D hidden), D: number of directions.

    On a GPU without autocast, which takes cuDNN's GRUs to float16, not to the requested type: small
    gradients vanish.
    """
    if sequence.is_cuda:
        with torch.autocast("cuda", enabled=False):
            states: Tensor = gru(sequence.to(next(gru.parameters()).dtype))[0]
    else:
        states = gru(sequence)[0]
    return states
