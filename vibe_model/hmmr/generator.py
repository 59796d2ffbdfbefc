"""HMMR's generator: image features -> bodies now, before and after.  features -> windows ->
[training] -> evaluation

Kanazawa, Zhang, Felsen and Malik, "Learning 3D Human Dynamics from Video", CVPR 2019, section 3;
sizes and initialisation are those of the authors' implementation. In the paper's symbols:

    movie strip   Phi = f_movie(phi)         MovieStrip, or from one frame h(phi): Hallucinator
    frame's body  theta_t = f_3D(Phi_t)      HMRRegressor, or VIBE's Regressor
    other bodies  theta_t+dt = f_dt(Phi_t)   Corrections, one for each step dt, such as -5 and 5

A movie strip has one vector per frame, of the image feature's size. `HMMR` is the whole model;
training calls `HMMR.sets`, evaluation and prediction call its methods `regress*`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError, require_option
from pipeline.people.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    rotation_6d_to_matrix,
)
from vibe_model.cameras import project_orthographic
from vibe_model.devices import constant
from vibe_model.networks import xavier
from vibe_model.networks.video_model import (
    CAMERA_SIZE,
    FEATURE_SIZE,
    SHAPE_SIZE,
    Estimate,
    VideoModel,
    step_name,
)
from vibe_model.vibe.networks import POSE_SIZE, REGRESSOR_ITERATIONS, Regressor

if TYPE_CHECKING:
    from pipeline.people.body import Body
    from vibe_model.hmmr.config import HMMRConfig

N_GROUPS: Final = 32
N_BLOCKS: Final = 3
# receptive field on either side in frames: two convolutions of kernel 3 per block
MARGIN: Final = 2 * N_BLOCKS
MEAN_CAMERA: Final = (0.9, 0.0, 0.0)
UPRIGHT: Final = (math.pi, 0.0, 0.0)  # images have y down
NEAR_IDENTITY: Final = math.sqrt(0.001)  # initial Xavier gain of residuals of a feature
SMALL_STEP: Final = 0.1  # initial Xavier gain of an iteration's correction
AXIS_ANGLE_SIZE: Final = 24 * 3

# The tensors of `VideoModel.pose`, and "deltas": the same tensors by step in frames. Example:
# {"theta": (B, T, 85), "kp_3d": ..., "deltas": {-5: {"theta": (B, T, 85), ...}, 5: {...}}}
Prediction = dict[str, Any]
Norm = Literal["window", "frame"]  # over which the group norm computes statistics
RegressorKind = Literal["hmr", "spin"]


class Sets(NamedTuple):
    """The predictions of B windows for training: sets of bodies from one or two movie strips."""

    strip: Tensor  # (B, T, F) movie strip
    hallucination: Tensor | None  # (B, T, F) hallucinated strip; None without a hallucinator
    real: Prediction  # from the strip
    hallucinated: Prediction | None  # from the hallucination

    @property
    def bodies(self) -> list[Mapping[str, Tensor]]:
        """The predictions of every set, (B, T, ...)."""
        predictions: list[Mapping[str, Tensor]] = []
        for pred in (self.real, self.hallucinated):
            if pred is not None:
                predictions += [pred, *pred["deltas"].values()]
        return predictions

    @property
    def rotations(self) -> Tensor:
        """Rotations of all sets' bodies without the global one, (S B T, 23, 3, 3)."""
        return torch.cat([pred["rotmat"][..., 1:, :, :].flatten(0, 1) for pred in self.bodies])


class _States(NamedTuple):
    """What the regressors predict for the frames of a strip, with D steps."""

    poses: Tensor  # (D + 1, B, T, P), the current frame's first; P: 72 rad, or 144 in 6D
    shape: Tensor  # (B, T, 10)
    camera: Tensor  # (B, T, 3)


class _GroupNorm(nn.GroupNorm):
    """Group norm of (B, T, C) with statistics over a group's channels and all T frames ("window")
    or each frame.

    With "window", the authors' choice, every output depends on all frames of the window.
    """

    def __init__(self, size: int, over: Norm) -> None:
        super().__init__(N_GROUPS, size, eps=1e-6)
        self.over = over

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """(B, T, C) -> (B, T, C)."""
        if self.over == "frame":
            return super().forward(input.flatten(0, 1)).view_as(input)
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


class _FrameConvolution(nn.Module):
    """`nn.Conv1d(size, size, 3, padding=1)` for (B, T, size), with the same parameter names."""

    def __init__(self, size: int, gain: float) -> None:
        super().__init__()
        # (out, 3, in), the layout of the product over a frame and its neighbours
        stored = torch.empty(size, 3, size)
        self.weight = nn.Parameter(stored.transpose(1, 2))  # (out, in, 3)
        self.bias = nn.Parameter(torch.zeros(size))
        nn.init.xavier_uniform_(self.weight, gain)

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, size) -> (B, T, size)."""
        padded = functional.pad(sequence, (0, 0, 1, 1))  # (B, T + 2, size)
        before = padded[:, :-2]
        after = padded[:, 2:]
        neighbours = torch.cat((before, sequence, after), dim=-1)  # (B, T, 3 size)
        weight = self.weight.transpose(1, 2).flatten(1)  # (size, 3 size)
        return functional.linear(neighbours, weight, self.bias)


class _TemporalBlock(nn.Module):
    """x + conv2(relu(norm2(conv1(relu(norm1(x))))))."""

    def __init__(self, size: int, norm: Norm) -> None:
        super().__init__()
        self.norm1 = _GroupNorm(size, norm)
        self.conv1 = _FrameConvolution(size, 1.0)
        self.norm2 = _GroupNorm(size, norm)
        self.conv2 = _FrameConvolution(size, NEAR_IDENTITY)

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, size) -> (B, T, size)."""
        hidden = self.conv1(self.norm1(sequence).relu())
        out: Tensor = sequence + self.conv2(self.norm2(hidden).relu())
        return out


class MovieStrip(nn.Module):
    """The temporal encoder f_movie.

    width: Size of the blocks; they then work on a narrowed sequence, and their result is widened
    and added to the features. None: blocks of the features' size.
    """

    def __init__(self, feature_size: int, norm: Norm, width: int | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _TemporalBlock(width or feature_size, norm) for _ in range(N_BLOCKS)
        )
        self.narrow: nn.Linear | None = None
        self.widen: nn.Linear | None = None
        if width is not None:
            self.narrow = xavier(feature_size, width)
            self.widen = xavier(width, feature_size, NEAR_IDENTITY)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, feature_size) -> (B, T, feature_size)."""
        sequence = features
        if self.narrow is not None:
            sequence = self.narrow(features)
        for block in self.blocks:
            sequence = block(sequence)
        if self.widen is not None:
            sequence = features + self.widen(sequence)
        return sequence


class Hallucinator(nn.Module):
    """The hallucinator h: predicts the movie strip from a single frame's feature."""

    def __init__(self, feature_size: int, width: int | None) -> None:
        super().__init__()
        size = width or feature_size
        self.fc1 = xavier(feature_size, size)
        self.fc2 = xavier(size, size)
        self.fc3 = xavier(size, feature_size, NEAR_IDENTITY)

    def forward(self, features: Tensor) -> Tensor:
        """(..., feature_size) -> (..., feature_size)."""
        hidden = self.fc1(features).relu()
        hidden = self.fc2(hidden).relu()
        added: Tensor = self.fc3(hidden)
        return features + added


class Corrections(nn.Module):
    """An MLP that corrects a state REGRESSOR_ITERATIONS times: state + MLP([feature, state]).

    As f_dt, it starts at the current frame's pose.
    """

    def __init__(
        self, feature_size: int, state_size: int, hidden_size: int, *, relu: bool, dropout: float
    ) -> None:
        super().__init__()
        self.fc1 = xavier(feature_size + state_size, hidden_size)
        self.fc2 = xavier(hidden_size, hidden_size)
        self.out = xavier(hidden_size, state_size, SMALL_STEP)
        self.dropout = nn.Dropout(dropout)
        self._relu = relu

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        """(N, feature_size), (N, state_size) -> (N, state_size)."""
        # fc1([feature, state]) as a sum, whose first part is the same in all iterations
        sizes = [features.shape[1], state.shape[1]]
        feature_weight, state_weight = torch.split(self.fc1.weight, sizes, dim=1)
        from_feature = functional.linear(features, feature_weight, self.fc1.bias)  # (N, hidden)
        for _ in range(REGRESSOR_ITERATIONS):
            from_state = functional.linear(state, state_weight)  # (N, hidden)
            hidden = self.dropout(self._active(from_feature + from_state))
            hidden = self.dropout(self._active(self.fc2(hidden)))  # (N, hidden)
            state = state + self.out(hidden)
        return state

    def _active(self, hidden: Tensor) -> Tensor:
        return hidden.relu() if self._relu else hidden


class HMRRegressor(Corrections):
    """f_3D: camera, pose (axis-angle) and shape of a frame, starting at a learned mean."""

    def __init__(self, body: Body, feature_size: int, hidden_size: int, dropout: float) -> None:
        size = CAMERA_SIZE + AXIS_ANGLE_SIZE + SHAPE_SIZE
        super().__init__(feature_size, size, hidden_size, relu=True, dropout=dropout)
        mean_pose = body.mean_pose.detach().float().reshape(24, 6)
        rotmat = rotation_6d_to_matrix(mean_pose)
        pose = matrix_to_axis_angle(rotmat)[1:].flatten()  # (69,)
        shape = body.mean_shape.detach().float()
        camera = torch.tensor(MEAN_CAMERA, device=pose.device)
        upright = torch.tensor(UPRIGHT, device=pose.device)
        self.mean = nn.Parameter(torch.cat((camera, upright, pose, shape)))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """(N, feature_size) -> pose (N, 72) rad, shape (N, 10), camera (N, 3)."""
        mean = self.mean.expand(len(features), -1)
        theta = super().forward(features, mean)
        sizes = [CAMERA_SIZE, AXIS_ANGLE_SIZE, SHAPE_SIZE]
        camera, pose, shape = torch.split(theta, sizes, dim=1)
        return pose, shape, camera


class HMMR(VideoModel):
    """Video features -> one body per frame, and its past and future bodies at `deltas` frames.

    Args:
        norm: Statistics of the group norm, per "window" or per "frame".
        regressor: "hmr" (85 numbers, axis-angle with ReLU) or "spin" (VIBE's, 6D without ReLU, can
            be initialised with SPIN's weights).
        deltas: Different steps other than 0, in frames.
        temporal: False regresses each frame from its own feature.
        width: Bottleneck of encoder and hallucinator; None: the feature's size. With `temporal`, a
            multiple of N_GROUPS.
    """

    __call__: Callable[..., Prediction]  # of `forward`; torch declares Any

    project = staticmethod(project_orthographic)

    def __init__(
        self,
        body: Body,
        *,
        norm: Norm = "window",
        regressor: RegressorKind = "hmr",
        deltas: tuple[int, ...] = (-5, 5),
        dropout: float = 0.5,
        hallucinator: bool = True,
        temporal: bool = True,
        width: int | None = None,
        feature_size: int = FEATURE_SIZE,
        regressor_size: int = 1024,
    ) -> None:
        super().__init__()
        require_option("norm", norm, Norm)
        require_option("regressor", regressor, RegressorKind)
        self.steps = tuple(deltas)
        self.temporal: MovieStrip | None = None
        if temporal:
            self.temporal = MovieStrip(feature_size, norm, width)
        self.regressor: HMRRegressor | Regressor
        if regressor == "hmr":
            pose_size = AXIS_ANGLE_SIZE
            self.regressor = HMRRegressor(body, feature_size, regressor_size, dropout)
        else:
            pose_size = POSE_SIZE
            self.regressor = Regressor(
                body, feature_size=feature_size, hidden_size=regressor_size, dropout=dropout
            )
        self.deltas = nn.ModuleDict()
        for dt in deltas:
            self.deltas[step_name(dt)] = Corrections(
                feature_size,
                pose_size,
                regressor_size,
                relu=regressor == "hmr",
                dropout=dropout,
            )
        self.hallucinator: Hallucinator | None = None
        if hallucinator:
            self.hallucinator = Hallucinator(feature_size, width)
        self.body = body
        self.margin = MARGIN if temporal else 0
        # With statistics per window, windows must have the length used in training.
        self.repeats_ends = norm == "window"

    @classmethod
    def build(cls, config: HMMRConfig, body: Body) -> Self:
        """Build a generator with new parameters."""
        return cls(
            body,
            norm=config.norm,
            regressor=config.regressor,
            deltas=config.deltas,
            dropout=config.dropout,
            hallucinator=config.hallucinator,
            temporal=config.temporal,
            width=config.width or None,
            feature_size=config.feature_size,
            regressor_size=config.regressor_size,
        )

    def movie_strip(self, features: Tensor) -> Tensor:
        """(B, T, feature_size) -> (B, T, feature_size); the features without temporal encoder."""
        if self.temporal is None:
            return features
        strip: Tensor = self.temporal(features)
        return strip

    def hallucinate(self, features: Tensor) -> Tensor:
        """Predict the movie strip from single frames: (B, T, feature_size) -> (B, T, feature_size).

        Raises ConfigError for a model without a hallucinator.
        """
        if self.hallucinator is None:
            raise ConfigError(
                "hallucinator: this model has none. Train one with hallucinator = true."
            )
        strip: Tensor = self.hallucinator(features)
        return strip

    def forward(
        self,
        features: Tensor,
        eval_joints: bool = False,
        vertices: bool = True,
        hallucinated: bool = False,
    ) -> Prediction:
        """(B, T, feature_size) -> the dict of `pose`, each (B, T, ...), and "deltas": the same dict
        by step in frames.

        Bodies of a step are indexed by the frame that predicts them, with the camera (1, 0, 0) and
        that frame's shape. hallucinated: Predict from `hallucinate`, each frame separately.
        """
        if hallucinated:
            strip = self.hallucinate(features)
        else:
            strip = self.movie_strip(features)
        return self._by_step(self._pose_all(self._states(strip, self.steps), eval_joints, vertices))

    def sets(self, features: Tensor, *, precision: str = "fp32") -> Sets:
        """`forward` with and without hallucination in one pass, without vertices.

        precision: "bf16" computes matrix products in bfloat16; rotations, bodies and losses stay
        float32.
        """
        with torch.autocast(features.device.type, torch.bfloat16, enabled=precision == "bf16"):
            strip = self.movie_strip(features)
            if self.hallucinator is None:
                hallucination = None
                strips = strip
            else:
                hallucination = self.hallucinate(features)
                strips = torch.cat((strip, hallucination))  # (2 B, T, feature_size)
            states = self._states(strips, self.steps)
        states = _States(*[state.to(features.dtype) for state in states])
        posed = self._pose_all(states, vertices=False)
        strip = strip.to(features.dtype)
        if hallucination is None:
            return Sets(strip, None, self._by_step(posed), None)
        hallucination = hallucination.to(features.dtype)
        n_windows = len(strip)
        real = self._by_step(posed, slice(0, n_windows))
        hallucinated = self._by_step(posed, slice(n_windows, None))
        return Sets(strip, hallucination, real, hallucinated)

    def regress(self, features: Tensor) -> Estimate:
        """(B, T, feature_size) -> bodies and cameras of the frames themselves, (B, T, ...)."""
        return self._around(self.movie_strip(features), ())[0]

    def regress_around(self, features: Tensor) -> dict[int, Estimate]:
        """`regress` for now, past and future, with the frame's shape and camera."""
        return self._around(self.movie_strip(features), self.steps)

    def regress_stills(self, features: Tensor) -> dict[int, Estimate]:
        """`regress_around` from the hallucinated strip, if there is a hallucinator."""
        if self.hallucinator is None:
            return self.regress_around(features)
        return self._around(self.hallucinate(features), self.steps)

    def _around(self, strip: Tensor, steps: tuple[int, ...]) -> dict[int, Estimate]:
        states = self._states(strip, steps)
        rotmats = self._rotmat(states.poses)
        estimates = {}
        for step, rotmat in zip((0, *steps), rotmats, strict=True):
            estimates[step] = Estimate(rotmat, states.shape, states.camera)
        return estimates

    def _states(self, strip: Tensor, steps: tuple[int, ...]) -> _States:
        """Regress the current bodies of a strip (B, T, feature_size), and the poses at `steps`."""
        rows = strip.flatten(0, 1)
        frames = strip.shape[:2]
        pose, shape, camera = self.regressor(rows)
        moved = [self.deltas[step_name(dt)](rows, pose) for dt in steps]
        poses = torch.stack((pose, *moved))
        return _States(
            poses=poses.view(len(poses), *frames, -1),
            shape=shape.view(*frames, -1),
            camera=camera.view(*frames, -1),
        )

    def _pose_all(
        self, states: _States, eval_joints: bool = False, vertices: bool = True
    ) -> dict[str, Tensor]:
        """Pose the bodies of all steps together, (D + 1, B, T, ...), the current ones first."""
        poses, shape, camera = states
        n_sets = len(poses)
        # the camera of past and future frames is unknown
        unit_cameras = constant((1.0, 0.0, 0.0), camera).expand(n_sets - 1, *camera.shape)
        cameras = torch.cat((camera[None], unit_cameras))
        shapes = shape.expand(n_sets, *shape.shape)
        estimate = Estimate(self._rotmat(poses), shapes, cameras)
        posed = self.pose(estimate, eval_joints, vertices)
        if isinstance(self.regressor, HMRRegressor):
            # the regressor's own angles, a sum of corrections, which may exceed pi
            posed["theta"] = torch.cat((cameras, poses, shapes), dim=-1)
        return posed

    def _by_step(self, posed: Mapping[str, Tensor], windows: slice = slice(None)) -> Prediction:
        """The bodies of some windows, (B, T, ...) each. posed: of `_pose_all`."""
        current, *moved = (
            {name: value[i, windows] for name, value in posed.items()}
            for i in range(len(self.steps) + 1)
        )
        return {**current, "deltas": dict(zip(self.steps, moved, strict=True))}

    def _rotmat(self, pose: Tensor) -> Tensor:
        """(..., 72) rad or (..., 144) 6D -> (..., 24, 3, 3)."""
        per_joint = pose.reshape(*pose.shape[:-1], 24, -1)
        if isinstance(self.regressor, HMRRegressor):
            return axis_angle_to_matrix(per_joint)
        return rotation_6d_to_matrix(per_joint)
