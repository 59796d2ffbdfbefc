"""Settings and presets of VIBE and its motion prior, and VIBE's ablations. No torch.  [settings] ->
training
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from pipeline.errors import ConfigError
from vibe_model.models import Model, Training
from vibe_model.settings import EMBEDDED, SPIN, RunConfig, Share, VideoConfig

# Split -> frames from one window's start to the next, where it differs from `stride`.
PUBLISHED_STRIDES: Final = {"penn_action/train": 4, "posetrack/train": 4, "3dpw/train": 4}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(VideoConfig):
    """The settings of VIBE, beside those of every model; the defaults are the published ones."""

    VERSION: ClassVar[Mapping[str, int]] = {"version": 4}
    NEUTRAL: ClassVar[frozenset[str]] = VideoConfig.NEUTRAL | {"mposer"}
    FIXED: ClassVar[frozenset[str]] = VideoConfig.FIXED | {"discriminator_weight"}
    MODEL: ClassVar[str] = "vibe"
    MADE_BY: ClassVar[Mapping[str, tuple[str, str]]] = {
        "mposer": ("TrainMPoser", "prior = discriminator")
    }
    TERMS: ClassVar[tuple[str, ...]] = (
        "kp_2d",
        "kp_3d",
        "pose",
        "shape",
        "adversarial",
        "discriminator",
        "mposer",
    )

    name: str = "vibe"
    # best.pt of a motion prior, for prior = mposer; none: the one of TrainMPoser
    mposer: Path | None = None

    # Windows.

    strides: Mapping[str, PositiveInt] = field(default_factory=PUBLISHED_STRIDES.copy)
    datasets_2d: tuple[str, ...] = ("insta_variety/train",)
    datasets_3d: tuple[str, ...] = ("mpi_inf_3dhp/train", "3dpw/train")
    evaluation: tuple[str, ...] = ("3dpw/test", "mpi_inf_3dhp/test", "h36m/val")

    # Training.

    weight_decay_generator: NonNegativeFloat = 0.0  # Adam's weight decay
    weight_decay_discriminator: NonNegativeFloat = 1e-4  # Adam's weight decay for the discriminator

    # prior of human motion; mposer: TrainMPoser's
    prior: Literal["discriminator", "mposer", "none"] = "discriminator"

    # Weights of the loss terms.

    # 2D joints: squared error times confidence, in crop coordinates from -1 to 1
    kp_2d_weight: NonNegativeFloat = 300.0
    kp_3d_weight: NonNegativeFloat = 300.0  # 3D joints, in m: 14 about the hip midpoint
    pose_weight: NonNegativeFloat = 60.0  # rotation matrices
    shape_weight: NonNegativeFloat = 0.06  # betas
    # of the generator: E[(D - 1)^2] of predicted motion
    adversarial_weight: NonNegativeFloat = 0.5
    # of the discriminator: E[(D - 1)^2] of real motion + E[D^2] of predicted motion
    discriminator_weight: NonNegativeFloat = 0.5
    # mean squared norm of the motion's latent code; ours, the paper gives none
    mposer_weight: NonNegativeFloat = 0.1

    # Generator.

    n_layers: NonNegativeInt = 2  # of the GRU; 0: no temporal encoder, each frame by itself
    hidden_size: PositiveInt = 1024  # of the GRU's state
    bidirectional: bool = False  # a GRU in both directions
    add_linear: bool = True  # ReLU and a linear layer after the GRU
    use_residual: bool = True  # add the input to the output
    regressor_size: PositiveInt = 1024  # of the regressor's hidden layers

    # Motion discriminator.

    # of the GRU's state and, as in the paper's ablation, of the attention's layers
    disc_size: PositiveInt = 1024
    disc_layers: PositiveInt = 2  # of the GRU
    disc_pool: Literal["attention", "concat", "last"] = "attention"  # pooling over time
    # with the last one, of one output: 3 are two of disc_size and that one, which the paper calls 2
    attention_layers: PositiveInt = 3
    attention_dropout: Share = 0.2  # in the attention's layers

    @classmethod
    def paper(cls) -> Self:
        """The paper's mixture of datasets and dropout, which the published configuration
        changes.
        """
        return cls(
            attention_dropout=0.1,
            datasets_2d=(
                "penn_action/train",
                "posetrack/train",
                "insta_variety/train",
                "kinetics/train",
            ),
            datasets_3d=("mpi_inf_3dhp/train", "h36m/train", "3dpw/train"),
        )

    @classmethod
    def embedded(cls, **changes: Any) -> Self:
        """A short functional test on the embedded demo data, minutes on two CPU cores."""
        small = cls(
            **EMBEDDED,
            name="embedded",
            datasets_2d=("penn_action/train", "kinetics/train", "videos/train"),
            stride=8,
            batch_size=16,
            epochs=5,
            hidden_size=256,
            disc_size=128,
        )
        return replace(small, **changes)

    @property
    def usual_start(self) -> str:
        return SPIN

    @property
    def uses_motion(self) -> bool:
        """Whether the motion discriminator reads real motion."""
        return self.prior == "discriminator"

    @property
    def per_frame(self) -> bool:
        return self.n_layers == 0

    @property
    def reads_made(self) -> tuple[str, ...]:
        return ("mposer",) if self.prior == "mposer" else ()

    @property
    def parts(self) -> dict[str, int]:
        """Number of windows from each part in a batch: as many of real motion as of videos."""
        motion = {"motion": self.batch_size} if self.splits_of("motion") else {}
        return {**super().parts, **motion}


class _Variant(NamedTuple):
    """A row of the paper's ablation."""

    title: str  # similar to the paper's tables
    changes: Mapping[str, Any]  # settings that it overrides -> their values


def _discriminator_variant(title: str, **changes: Any) -> _Variant:
    return _Variant(f"G + D_M, {title}", {"prior": "discriminator", **changes})


def _attention_variant(layers: int, size: int) -> _Variant:
    """The paper counts the layers of `size`; the authors' configuration, the score's, too."""
    return _discriminator_variant(
        f"attention [{layers}, {size}]",
        disc_pool="attention",
        attention_layers=layers + 1,
        disc_size=size,
    )


PER_FRAME: Final = "per-frame"
"""The baseline of temporal models: the same regressor on each frame's feature."""

VARIANTS: Final[Mapping[str, _Variant]] = {
    PER_FRAME: _Variant("per frame, no temporal encoder", {"n_layers": 0, "prior": "none"}),
    "generator-only": _Variant("only G", {"prior": "none"}),
    "mposer": _Variant("G + MPoser prior", {"prior": "mposer"}),
    "concat": _discriminator_variant("concat", disc_pool="concat"),
    "attention-2x512": _attention_variant(2, 512),
    "attention-2x1024": _attention_variant(2, 1024),
    "attention-3x512": _attention_variant(3, 512),
    "attention-3x1024": _attention_variant(3, 1024),
    "without-3dpw": _Variant("VIBE, trained without 3DPW", {"leave_out": ("3dpw/train",)}),
}

PRESETS: Final = {
    "published": TrainConfig,
    "paper": TrainConfig.paper,
    "embedded": TrainConfig.embedded,
}

MODEL: Final = Model(
    title="VIBE",
    config=TrainConfig,
    presets=PRESETS,
    preset="published",
    variants={name: variant.changes for name, variant in VARIANTS.items()},
    baseline=PER_FRAME,
    always_reported=True,
    trainer="vibe_model.vibe.training:VIBETrainer",
    generator="vibe_model.vibe.networks:VIBE.build",
)


@dataclass(frozen=True, kw_only=True)
class MPoserConfig(RunConfig):
    """Settings of the motion prior's training. The defaults are ours, for AMASS; the paper gives
    none.
    """

    MODEL: ClassVar[str] = "mposer"
    VERSION: ClassVar[Mapping[str, int]] = {"mposer_version": 2}
    NEUTRAL: ClassVar[frozenset[str]] = frozenset(
        {"name", "cache", "at", "runs", "checkpoint_every"}
    )

    name: str = "mposer"

    # The model.

    hidden_size: PositiveInt = 512  # of the GRUs' states
    latent_size: PositiveInt = 64  # of the latent code
    n_layers: PositiveInt = 1  # of the encoder, and of the decoder

    # Training. Of the validation splits, the frames with SMPL labels count; without any, the
    # training loss does.

    batch_size: PositiveInt = 64
    epochs: PositiveInt = 100
    lr: PositiveFloat = 1e-4  # Adam's learning rate
    weight_decay: NonNegativeFloat = 0.0  # Adam's weight decay
    # Of the KL divergence in nats; the other term is the mean squared error of all numbers of a
    # window's rotation matrices. As a likelihood: 2 s^2 / (16 * 23 * 9) for numbers that are off by
    # s.
    kl_weight: NonNegativeFloat = 1e-5
    plateau_patience: NonNegativeInt = 10
    checkpoint_every: PositiveInt = 500

    def check_consistency(self) -> None:
        if not self.motion:
            raise ConfigError(
                "motion: expected splits of real motion for the motion prior to learn from, "
                "found none",
                "motion",
            )

    @classmethod
    def embedded(cls, **changes: Any) -> Self:
        """A short training on the embedded demo motion: a minute on two CPU cores."""
        small = cls(
            hidden_size=128,
            latent_size=32,
            batch_size=32,
            iterations=100,
            epochs=12,
            lr=2e-3,
            checkpoint_every=100,
            device="cpu",
        )
        return replace(small, **changes)


# A prior must learn from the same windows as the generator that it is for, and learns on the same
# device. Therefore these settings are not in [mposer]; they are taken from [vibe].
OF_VIBE: Final = (
    "cache",
    "at",
    "runs",
    "validation",
    "seqlen",
    "seconds",
    "rate",
    "stride",
    "strides",
    "window_weights",
    "tail",
    "seed",
    "device",
)

MPOSER: Final = Training(
    title="MPoser",
    config=MPoserConfig,
    presets={"amass": MPoserConfig, "embedded": MPoserConfig.embedded},
    preset="amass",
    inherited=(*OF_VIBE, "motion"),
    inherited_from="[vibe], [paths] or [data]",
)
