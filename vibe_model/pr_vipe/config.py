"""Every setting of Pr-VIPE's training, typed, and its presets.  [settings] -> training

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from vibe_model.errors import ConfigError
from vibe_model.settings.run_config import RunConfig, not_negative, one_of, positive, share


@dataclass(frozen=True, kw_only=True)
class PrVIPEConfig(RunConfig):
    """The settings of `pr_vipe.training.run`, in addition to those of every training."""

    VERSION: ClassVar[Mapping[str, int]] = {"pr_vipe_version": 1}
    NEUTRAL: ClassVar[frozenset[str]] = frozenset({"name", "cache", "runs", "body", "checkpoint_every"})

    name: str = "pr-vipe"
    body: Path | None = None  # folder of the SMPL files; None: the procedural body

    # Poses: single frames, every `stride`-th. Real pairs are of `poses_3d`, where several cameras see one instant.
    seqlen: int = positive(1)
    stride: int = positive(5)
    poses_3d: tuple[str, ...] = ("h36m/train", "mpi_inf_3dhp/train")
    held_out: float = share(0.1)  # of the tracks of `motion`: not trained on, but retrieved from
    real: float = share(0.5)  # of a batch's pairs, where there are any
    validation: tuple[str, ...] = ("h36m/val",)
    eval_poses: int = positive(1000)  # at most, of a split

    # What is made of them.
    depth: float = positive(2.0)  # torso sizes from a made-up camera to the hips
    noise: float = not_negative(0.01)  # of its keypoints, torso sizes
    point_dropout: float = share(0.1)  # of each keypoint but the torso's, without which there is no pose
    limb_dropout: float = share(0.2)  # of one arm, one leg, or both legs

    # The model.
    size: int = positive(32)
    hidden_size: int = positive(1024)
    dropout: float = share(0.3)
    samples: int = positive(20)

    # Training.
    batch_size: int = positive(256)  # pairs
    iterations: int = positive(2000)
    epochs: int = positive(100)
    optimiser: str = one_of("adam", ("adam", "adagrad"))  # adagrad: with the rate `lr` all along
    lr: float = positive(1e-3)
    lr_end: float = positive(1e-5)  # of Adam, by a cosine
    average: float = share(0.9999)  # decay of the mean of the weights, which is what is used
    triplet_weight: float = not_negative(1.0)
    positive_weight: float = not_negative(0.005)
    prior_weight: float = not_negative(0.001)
    plateau_patience: int = not_negative(1_000_000)  # epochs: learning rates have a schedule of their own
    checkpoint_every: int = positive(500)

    def check_consistency(self) -> None:
        if not (self.motion or self.poses_3d):
            raise ConfigError("motion, poses_3d: expected at least one split with 3D poses, found none")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size: expected at least 2 pairs, found {self.batch_size}")
        if self.seqlen != 1:
            raise ConfigError(f"seqlen: expected 1, poses are single frames; found {self.seqlen}")

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.motion, *self.poses_3d, *self.validation)))

    @classmethod
    def published(cls, **changes: Any) -> Self:
        """The authors' optimiser and number of steps."""
        theirs = cls(optimiser="adagrad", lr=0.02, epochs=500, iterations=10_000, noise=0.0)
        return replace(theirs, **changes)

    @classmethod
    def embedded(cls, **changes: Any) -> Self:
        """250 steps, half a minute on two CPU cores, for the embedded demo motion."""
        small = cls(
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
        )
        return replace(small, **changes)


PRESETS: Final[Mapping[str, Callable[..., PrVIPEConfig]]] = {
    "usual": PrVIPEConfig,
    "published": PrVIPEConfig.published,
    "embedded": PrVIPEConfig.embedded,
}
