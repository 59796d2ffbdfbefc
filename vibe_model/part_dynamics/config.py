"""Settings of part dynamics and of Pr-VIPE, its embedding of 2D poses.  [settings] -> training

Imports no torch. After Lee and Lee, ICCV 2021. Their loss weights, schedule and sizes are unknown;
these are VIBE's or ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from pipeline.errors import ConfigError
from vibe_model.models import Training
from vibe_model.settings import EMBEDDED, Reading, RunConfig, Share, VideoConfig
from vibe_model.vibe.config import PUBLISHED_STRIDES

HOMOGRAPHY_SIZE: Final = 9  # a 3 x 3 matrix
HISTORY: Final = 14  # rows before a frame's own: 15 pairs of frames, half a second
SIZE: Final = 32  # of an embedding's mean, and of its standard deviation
PR_VIPE_SIZE: Final = 2 * SIZE
STATE: Final = "pr_vipe_state_dict"  # key of the embedding's network in best.pt


@dataclass(frozen=True, kw_only=True)
class PartDynamicsConfig(VideoConfig):
    """Part dynamics' settings, in addition to those of every model."""

    VERSION: ClassVar[Mapping[str, int]] = {"part_dynamics_version": 3}
    NEUTRAL: ClassVar[frozenset[str]] = VideoConfig.NEUTRAL | {"embedding"}
    MODEL: ClassVar[str] = "part_dynamics"
    MADE_BY: ClassVar[Mapping[str, tuple[str, str]]] = {
        "embedding": ("TrainPrVIPE", "uncertainty_weight = 0")
    }
    TERMS: ClassVar[tuple[str, ...]] = (
        "kp_2d",
        "kp_3d",
        "pose",
        "shape",
        "neighbours",
        "uncertainty",
    )

    name: str = "partdyn"
    # best.pt of TrainPrVIPE for the uncertainty loss; none: the stream's or the task's
    embedding: Path | None = None

    # Windows. Data sets as in the paper's comparison with TCMR, without 3DPW's training set.

    strides: Mapping[str, PositiveInt] = field(default_factory=PUBLISHED_STRIDES.copy)
    datasets_2d: tuple[str, ...] = ("insta_variety/train", "posetrack/train", "penn_action/train")
    datasets_3d: tuple[str, ...] = ("mpi_inf_3dhp/train", "h36m/train")
    evaluation: tuple[str, ...] = ("3dpw/test", "mpi_inf_3dhp/test", "h36m/val")
    pr_vipe_stream: str = "pr_vipe"  # stream with embeddings of 2D poses
    homography_stream: str = "homography"  # stream with homographies
    # training rows from which to estimate the homographies' standard deviations
    sigma_rows: PositiveInt = 10_000

    # Weights of the loss terms.

    kp_2d_weight: NonNegativeFloat = 300.0  # 2D joints, in crop coordinates from -1 to 1
    kp_3d_weight: NonNegativeFloat = 300.0  # 3D joints, in m
    pose_weight: NonNegativeFloat = 60.0  # rotation matrices
    shape_weight: NonNegativeFloat = 0.06  # betas
    # the four terms above for the frames `delta` before and after; provisional
    neighbours_weight: NonNegativeFloat = 0.5
    # Distance between the embeddings of the projected prediction and of the labelled 2D pose;
    # provisional. 0: no embedding is needed.
    uncertainty_weight: NonNegativeFloat = 5.0

    # The model.

    temporal: bool = True  # false: VIBE's regressor on each frame's feature, the baseline
    uses_pr_vipe: bool = True  # the decoder reads the embedding of the 2D pose
    uses_homography: bool = True  # the decoder reads the last 15 homographies
    regions: PositiveInt = 5  # 5: body regions; 1: a plain convolution with as many parameters
    # how a region reads the others; without effect for one region
    recombine: Literal["multiply", "add", "none"] = "multiply"
    # frames to the predicted neighbours before and after; 0: no neighbours
    delta: NonNegativeInt = 5
    width: NonNegativeInt = 0  # channels of a region's state; 0: as in `generator.WIDTHS`
    hidden_size: PositiveInt = 1024  # of the GRU
    regressor_size: PositiveInt = 1024  # of the regressors' hidden layers

    def check_consistency(self) -> None:
        super().check_consistency()
        if self.regions not in (1, 5):
            raise ConfigError(f"regions: expected 5 or 1, found {self.regions}", "regions")

    @property
    def extra_streams(self) -> Mapping[str, Reading]:
        streams = {}
        if self.temporal and self.uses_pr_vipe:
            streams["pr_vipe"] = Reading(self.pr_vipe_stream, PR_VIPE_SIZE, of_keypoints=True)
        if self.temporal and self.uses_homography:
            streams["homography"] = Reading(self.homography_stream, HOMOGRAPHY_SIZE, HISTORY)
        return streams

    @property
    def per_frame(self) -> bool:
        return not self.temporal

    @property
    def reads_made(self) -> tuple[str, ...]:
        if self.uncertainty_weight:
            return ("embedding",)
        return ()


PRESETS: Final[Mapping[str, Callable[..., PartDynamicsConfig]]] = {
    "partdyn": PartDynamicsConfig,
    # A short functional test on the embedded demo data, minutes on two CPU cores.
    "embedded": partial(
        PartDynamicsConfig,
        **EMBEDDED,
        name="partdyn-embedded",
        datasets_2d=("penn_action/train", "kinetics/train"),
        stride=8,
        batch_size=16,
        epochs=3,
        hidden_size=256,
        width=64,
        regressor_size=256,
    ),
}
# name -> changes to the settings
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "per-frame": {"temporal": False, "delta": 0, "uncertainty_weight": 0.0},
    "no-u": {"uses_pr_vipe": False},  # without the 2D pose's embedding and its uncertainty
    "no-d": {"uses_homography": False},  # without the dynamic feature, the image motion
    "no-dt": {"delta": 0},  # without neighbouring frames
    "no-unc": {"uncertainty_weight": 0.0},  # without the uncertainty loss
    "one-region": {"regions": 1},
    "recombine-add": {"recombine": "add"},
    "recombine-none": {"recombine": "none"},
}


@dataclass(frozen=True, kw_only=True)
class PrVIPEConfig(RunConfig):
    """Pr-VIPE's settings, in addition to those of every training: [pose_embedding]."""

    MODEL: ClassVar[str] = "pose_embedding"  # not "pr_vipe", which is the stream's section
    VERSION: ClassVar[Mapping[str, int]] = {"pr_vipe_version": 1}
    NEUTRAL: ClassVar[frozenset[str]] = frozenset(
        {"name", "cache", "runs", "body", "checkpoint_every"}
    )
    FIXED: ClassVar[frozenset[str]] = RunConfig.FIXED | {
        "seqlen",
        "strides",
        "window_weights",
        "tail",
        "plateau_factor",
        "plateau_patience",
        "size",
    }

    name: str = "pr-vipe"
    body: Path | None = None  # folder of the SMPL files; None: the procedural body

    # Poses: every `stride`-th frame.

    seqlen: PositiveInt = 1
    stride: PositiveInt = 5  # frames between two poses of a track
    # Splits with SMPL or 3D labels in camera axes. Frames seen by several cameras give real pairs.
    poses_3d: tuple[str, ...] = ("h36m/train", "mpi_inf_3dhp/train")
    held_out: Share = 0.1  # share of the tracks of `motion` for validation, chosen by name
    real: Share = 0.5  # share of real pairs in a batch, if there are any
    validation: tuple[str, ...] = ("h36m/val",)  # further splits for validation
    eval_poses: PositiveInt = 1000  # most poses per validation split

    # Virtual views.

    depth: PositiveFloat = 2.0  # torso sizes from a virtual camera to the hips
    noise: NonNegativeFloat = 0.01  # standard deviation of its keypoints, in torso sizes
    point_dropout: Share = 0.1  # probability of dropping a keypoint other than the torso's
    limb_dropout: Share = 0.2  # probability of dropping an arm, a leg, or both legs

    # The model.

    size: PositiveInt = SIZE
    hidden_size: PositiveInt = 1024  # of the network's layers
    dropout: Share = 0.3  # of the layers
    samples: PositiveInt = 20  # samples of an embedding for a comparison

    # Training.

    batch_size: PositiveInt = 256  # pairs per step
    iterations: PositiveInt = 2000
    epochs: PositiveInt = 100  # each ends with validation by retrieval
    # adam: cosine schedule; adagrad: constant learning rate
    optimiser: Literal["adam", "adagrad"] = "adam"
    lr: PositiveFloat = 1e-3  # initial learning rate
    lr_end: PositiveFloat = 1e-5  # Adam's final learning rate
    average: Share = 0.9999  # decay of the moving average of the weights, which is saved
    triplet_weight: NonNegativeFloat = 1.0  # triplet ratio loss
    positive_weight: NonNegativeFloat = 0.005  # positive pairwise loss
    prior_weight: NonNegativeFloat = 0.001  # KL divergence from the standard normal distribution
    # epochs; unused, since learning rates have a schedule
    plateau_patience: NonNegativeInt = 1_000_000
    checkpoint_every: PositiveInt = 500

    def check_consistency(self) -> None:
        if not (self.motion or self.poses_3d):
            raise ConfigError(
                "motion, poses_3d: expected at least one split with 3D poses, found none",
                "motion",
                "poses_3d",
            )
        if self.batch_size < 2:
            raise ConfigError(
                f"batch_size: expected at least 2 pairs, found {self.batch_size}", "batch_size"
            )
        partly = [name for name in self.validation if ":" in name]
        if partly:
            raise ConfigError(
                f"validation: expected whole splits, found {', '.join(partly)}", "validation"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.motion, *self.poses_3d, *self.validation)))


_PR_VIPE_PRESETS: Final[Mapping[str, Callable[..., PrVIPEConfig]]] = {
    "usual": PrVIPEConfig,
    # The authors' optimiser and number of steps.
    "published": partial(
        PrVIPEConfig, optimiser="adagrad", lr=0.02, epochs=500, iterations=10_000, noise=0.0
    ),
    # A short functional test on the embedded demo motion, half a minute on two CPU cores.
    "embedded": partial(
        PrVIPEConfig,
        poses_3d=("h36m/train",),
        stride=2,
        held_out=0.2,
        eval_poses=300,
        hidden_size=256,
        dropout=0.0,
        batch_size=64,
        iterations=125,
        epochs=2,
        average=0.999,
        checkpoint_every=125,
        device="cpu",
    ),
}

PR_VIPE: Final = Training(
    title="Pr-VIPE", config=PrVIPEConfig, presets=_PR_VIPE_PRESETS, preset="usual"
)
