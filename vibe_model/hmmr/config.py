"""Settings, presets and variants of HMMR's training.  [settings] -> training

Imports no torch. The defaults are those of the authors' implementation (Kanazawa et al., CVPR
2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Final, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from pipeline.errors import ConfigError
from vibe_model.settings import EMBEDDED, SPIN, RunConfig, Share, VideoConfig


@dataclass(frozen=True, kw_only=True)
class HMMRConfig(VideoConfig):
    """HMMR's settings, in addition to those of every model."""

    VERSION: ClassVar[Mapping[str, int]] = {"hmmr_version": 3}
    FIXED: ClassVar[frozenset[str]] = VideoConfig.FIXED | {
        "discriminator_weight",
        "least_scale",
        "largest_scale",
    }
    MODEL: ClassVar[str] = "hmmr"
    TERMS: ClassVar[tuple[str, ...]] = (
        "kp",
        "joints",
        "smpl",
        "const",
        "hallucinate",
        "shape",
        "adversarial",
        "discriminator",
    )

    name: str = "hmmr"

    # Windows. 560,000 steps; the authors released step 559,908.

    seqlen: PositiveInt = 20
    stride: PositiveInt = 10
    datasets_2d: tuple[str, ...] = ("penn_action/train", "insta_variety/train")
    datasets_3d: tuple[str, ...] = ("h36m/train",)
    share_2d: Share = 0.5
    validation: tuple[str, ...] = ("h36m/train:S5*", "penn_action/test:1/10")
    evaluation: tuple[str, ...] = ("3dpw/test", "h36m/val", "penn_action/test:!1/10")
    # Number of jittered copies `<stream>.j1`, `.j2`, ... to read windows of `datasets_2d` from, at
    # random; 0: the stream itself. The authors use one for 2D data and five for 3D data.
    copies_2d: NonNegativeInt = 0
    copies_3d: NonNegativeInt = 0  # the same for `datasets_3d`
    batch_size: PositiveInt = 8
    iterations: PositiveInt = 5000
    epochs: PositiveInt = 112
    plateau_patience: NonNegativeInt = 1000  # epochs; the default keeps learning rates constant
    checkpoint_every: PositiveInt = 1000
    seed: NonNegativeInt = 1
    lr_generator: PositiveFloat = 1e-5

    prior: Literal["discriminator", "none"] = "discriminator"  # none: generator only

    # Weights of the loss terms.

    # 2D joints: absolute errors; past and future by the optimal camera, without gradient
    kp_weight: NonNegativeFloat = 60.0
    # 3D joints, in m: half the squared error of 14 about the hip midpoint
    joints_weight: NonNegativeFloat = 60.0
    # half the squared errors of 24 rotation matrices, and of the betas
    smpl_weight: NonNegativeFloat = 60.0
    const_weight: NonNegativeFloat = 1.0  # change of the betas between frames, equation 1
    # squared distance between hallucination and movie strip, equation 3
    hallucinate_weight: NonNegativeFloat = 1.0
    shape_weight: NonNegativeFloat = 1.0  # mean squared betas
    # of the generator: least-squares GAN, summed over 24 outputs
    adversarial_weight: NonNegativeFloat = 1.0
    discriminator_weight: NonNegativeFloat = 1.0  # of the discriminator, likewise
    # joint: `hallucinate_weight` trains the movie strip, too; detached: only the hallucinator.
    hallucinator_target: Literal["joint", "detached"] = "joint"

    # The camera of past and future frames.

    # least_squares: the paper's; trace: the authors' code
    optimal_camera: Literal["least_squares", "trace"] = "trace"
    least_scale: PositiveFloat = 0.7
    largest_scale: PositiveFloat = 10.0

    # The model.

    # group norm; frame: a prediction depends on 13 frames
    norm: Literal["window", "frame"] = "window"
    # hmr: axis-angle with ReLU; spin: VIBE's, which `pretrained` can initialise from SPIN's
    # checkpoint.
    regressor: Literal["hmr", "spin"] = "hmr"
    past: NonNegativeInt = 5  # frames before the current one at which to predict the past; 0: none
    # frames after the current one at which to predict the future; 0: none
    future: NonNegativeInt = 5
    hallucinator: bool = True  # also predict past, present and future from a single frame
    temporal: bool = True  # false: no temporal encoder
    # of a bottleneck in encoder and hallucinator, a multiple of 32; 0: none
    width: NonNegativeInt = 0
    regressor_size: PositiveInt = 1024  # of the regressors' hidden layers
    dropout: Share = 0.5  # in the regressors

    def check_consistency(self) -> None:
        super().check_consistency()
        if self.temporal and self.width % 32:
            raise ConfigError(
                f"width: expected a multiple of 32 (the group norm's groups), found {self.width}",
                "width",
            )
        if self.processes > 1:
            raise ConfigError(
                f"processes: expected 1, since HMMR trains in one process; found {self.processes}",
                "processes",
            )

    def check_feature_size(self) -> None:
        if self.temporal and not self.width and self.feature_size % 32:
            raise ConfigError(
                f"width: {self.stream} has {self.feature_size} numbers per row, which is no "
                "multiple of 32 (the group norm's groups). Set width, for example to 256.",
                "width",
            )

    @property
    def deltas(self) -> tuple[int, ...]:
        """Steps in frames at which past and future are predicted."""
        return tuple(dt for dt in (-self.past, self.future) if dt)

    @property
    def usual_start(self) -> str:
        return SPIN if self.regressor == "spin" else "HMR's, which cannot be read here"

    @property
    def uses_motion(self) -> bool:
        """Whether the pose discriminator reads real motion."""
        return self.prior == "discriminator"

    @property
    def per_frame(self) -> bool:
        return not self.temporal

    def poses(self) -> RunConfig | None:
        """Settings of the batches of real poses: single frames, as many as predicted bodies."""
        if not self.uses_motion:
            return None
        n_sets = 1 + len(self.deltas)  # of bodies: present, past and future
        if self.hallucinator:
            n_sets *= 2
        return RunConfig(
            motion=self.splits_of("motion"),
            seqlen=1,
            stride=1,
            batch_size=n_sets * self.batch_size * self.seqlen,
            window_weights=self.window_weights,
            iterations=self.iterations,
            epochs=self.epochs,
            seed=self.seed,
        )

    def streams_of(self, part: str) -> tuple[str, ...]:
        n_copies = {"datasets_2d": self.copies_2d, "datasets_3d": self.copies_3d}.get(part, 0)
        if not n_copies:
            return super().streams_of(part)
        return tuple(f"{self.stream}.j{k}" for k in range(1, n_copies + 1))


_NO_DYNAMICS: Final = {"past": 0, "future": 0, "hallucinator": False}

PRESETS: Final[Mapping[str, Callable[..., HMMRConfig]]] = {
    "hmmr-published": partial(HMMRConfig, copies_2d=1, copies_3d=5),  # the authors' settings
    # Ours: group norm per frame, larger batches, VIBE's regressor for SPIN's weights
    # (`pretrained`).
    "hmmr": partial(
        HMMRConfig,
        regressor="spin",
        norm="frame",
        optimal_camera="least_squares",
        batch_size=32,
        lr_generator=5e-5,
    ),
    # A short functional test on the embedded demo data, minutes on two CPU cores.
    "embedded": partial(
        HMMRConfig,
        **EMBEDDED,
        name="hmmr-embedded",
        validation=RunConfig.validation,
        datasets_2d=("penn_action/train", "kinetics/train", "videos/train"),
        stride=4,
        batch_size=4,
        epochs=3,
        norm="frame",
        regressor="spin",
        dropout=0.0,
        prior="none",
        optimal_camera="least_squares",
        width=256,
        regressor_size=256,
        seed=0,
    ),
}
# name -> changes to the settings
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "single-view": {"temporal": False, **_NO_DYNAMICS},
    "no-dynamics": _NO_DYNAMICS,
    "no-const": {"const_weight": 0.0},
    "no-hallucinator": {"hallucinator": False},
    "no-prior": {"prior": "none"},
    # By data, as in the paper: its "Ours" also has NBA, which is not available; VLOG-people are
    # clips of `videos`.
    "ours": {"datasets_2d": ("penn_action/train",)},
    "vlog": {"datasets_2d": ("penn_action/train", "videos/train")},
    "insta-variety": {"datasets_2d": ("penn_action/train", "insta_variety/train")},
    "videos": {"datasets_2d": (*HMMRConfig.datasets_2d, "videos/train")},  # with your own clips
}
