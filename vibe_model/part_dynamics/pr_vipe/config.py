"""Settings and presets of Pr-VIPE's training, the embedding of 2D poses.  [settings] -> training

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from pipeline.errors import ConfigError
from vibe_model.files import folder_digest
from vibe_model.models import Training
from vibe_model.settings import RunConfig, Share

if TYPE_CHECKING:
    from cache import Split

SIZE: Final = 32  # of an embedding's mean, and of its standard deviation
STATE: Final = "pr_vipe_state_dict"  # key of the embedding's network in best.pt


@dataclass(frozen=True, kw_only=True)
class PrVIPEConfig(RunConfig):
    """Pr-VIPE's settings, in addition to those of every training: [pose_embedding]."""

    MODEL: ClassVar[str] = "pose_embedding"  # not "pr_vipe", which is the stream's section
    VERSION: ClassVar[Mapping[str, int]] = {"pr_vipe_version": 1}
    NEUTRAL: ClassVar[frozenset[str]] = frozenset(
        {"name", "cache", "at", "runs", "body", "checkpoint_every"}
    )
    # Settings of windows and plateaus have no effect here. They are fixed and not absent: like all
    # of `RunConfig` they are part of the runs' fingerprints and of the settings in best.pt.
    FIXED: ClassVar[frozenset[str]] = RunConfig.FIXED | {
        "seqlen",
        "seconds",
        "rate",
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

    def inputs(self, opened: Mapping[str, Split]) -> dict[str, Any]:
        digests = super().inputs(opened)
        if self.body is not None:
            digests["body"] = folder_digest(self.body)
        return digests


PRESETS: Final[Mapping[str, Callable[..., PrVIPEConfig]]] = {
    "usual": PrVIPEConfig,
    # The authors' optimiser and number of steps.
    "published": partial(
        PrVIPEConfig, optimiser="adagrad", lr=0.02, epochs=500, iterations=10_000, noise=0.0
    ),
    # A short functional test on the embedded demo motion, a minute on two CPU cores.
    "embedded": partial(
        PrVIPEConfig,
        poses_3d=("h36m/train",),
        stride=2,
        held_out=0.2,
        eval_poses=300,
        hidden_size=256,
        dropout=0.0,
        batch_size=64,
        iterations=70,
        epochs=2,
        average=0.999,
        checkpoint_every=70,
        device="cpu",
    ),
}

PR_VIPE: Final = Training(title="Pr-VIPE", config=PrVIPEConfig, presets=PRESETS, preset="usual")
