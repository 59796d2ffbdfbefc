"""Settings, presets and variants of part dynamics' training.  [settings] -> training

Imports no torch. After Lee and Lee, ICCV 2021. Their loss weights, schedule and sizes are unknown;
these are VIBE's or ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from pipeline.errors import ConfigError
from vibe_model.part_dynamics.pr_vipe.config import SIZE
from vibe_model.reading import Reading
from vibe_model.settings import EMBEDDED, SPIN, VideoConfig
from vibe_model.vibe.config import PUBLISHED_STRIDES

HOMOGRAPHY_SIZE: Final = 9  # a 3 x 3 matrix
HISTORY: Final = 14  # rows before a frame's own: 15 pairs of frames, half a second
PR_VIPE_SIZE: Final = 2 * SIZE  # mean and standard deviation of an embedding


@dataclass(frozen=True, kw_only=True)
class PartDynamicsConfig(VideoConfig):
    """Part dynamics' settings, in addition to those of every model."""

    VERSION: ClassVar[Mapping[str, int]] = {"part_dynamics_version": 3}
    NEUTRAL: ClassVar[frozenset[str]] = VideoConfig.NEUTRAL | {"embedding"}
    # no windows of a rate: homographies are of consecutive frames
    FIXED: ClassVar[frozenset[str]] = VideoConfig.FIXED | {"seconds", "rate"}
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

    # 2D joints, in crop coordinates from -1 to 1; as VIBE's
    kp_2d_weight: NonNegativeFloat = 300.0
    kp_3d_weight: NonNegativeFloat = 300.0  # 3D joints, in m; as VIBE's
    pose_weight: NonNegativeFloat = 60.0  # rotation matrices; as VIBE's
    shape_weight: NonNegativeFloat = 0.06  # betas; as VIBE's
    # the four terms above for the frames `delta` before and after, 2D by the optimal camera;
    # provisional
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
    def usual_start(self) -> str:
        return SPIN

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
        batch_size=8,
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
