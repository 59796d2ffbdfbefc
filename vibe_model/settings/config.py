"""Every setting of VIBE's training, typed, and its presets.  [settings] -> training

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from vibe_model.errors import ConfigError
from vibe_model.settings.run_config import RunConfig, not_negative, one_of, positive, share

# Frames from one window's start to the next, where it is not `stride`.
PUBLISHED_STRIDES: Final[Mapping[str, int]] = {
    "penn_action/train": 4,
    "posetrack/train": 4,
    "3dpw/train": 4,
}
# Which tracks of a split are evaluated, as a pattern of their names: Human3.6M's protocol 2 has one camera.
PUBLISHED_TRACKS: Final[Mapping[str, str]] = {"h36m/val": "*60457274*"}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """The settings of `training.run`, beside those of every training; the defaults are VIBE's published ones.

    Raises ConfigError for values of a wrong type, out of range, or that contradict one another.
    """

    VERSION: ClassVar[Mapping[str, int]] = {"version": 3}
    NEUTRAL: ClassVar[frozenset[str]] = frozenset(
        {"name", "cache", "runs", "body", "pretrained", "mposer", "processes", "checkpoint_every", "hold"}
        | {"read_workers"}
    )

    # Where things are.
    name: str = "vibe"
    body: Path | None = None  # folder of the SMPL files; None: the procedural body
    pretrained: Path | None = None  # SPIN's or VIBE's checkpoint to start from
    mposer: Path | None = None  # a trained motion prior's best.pt, for prior = mposer

    # Windows.
    stream: str = "resnet50"
    strides: Mapping[str, int] = positive(PUBLISHED_STRIDES)  # by split
    datasets_2d: tuple[str, ...] = ("insta_variety/train",)
    datasets_3d: tuple[str, ...] = ("mpi_inf_3dhp/train", "3dpw/train")
    share_2d: float = share(0.6)  # of a batch, when there are both 2D and 3D datasets
    leave_out: tuple[str, ...] = ()  # of these splits and `motion`: not to train on, as 3dpw/train
    evaluation: tuple[str, ...] = ("3dpw/test", "mpi_inf_3dhp/test", "h36m/val")
    tracks: Mapping[str, str] = field(default_factory=lambda: dict(PUBLISHED_TRACKS))  # by split: evaluate only these

    # Training.
    lr_generator: float = positive(5e-5)
    lr_discriminator: float = positive(1e-4)
    weight_decay_generator: float = not_negative(0.0)
    weight_decay_discriminator: float = not_negative(1e-4)

    # What teaches the generator how people move: discriminator, mposer (a prior that is trained before) or none.
    prior: str = one_of("discriminator", ("discriminator", "mposer", "none"))

    # Weights of the loss terms.
    kp_2d_weight: float = not_negative(300.0)
    kp_3d_weight: float = not_negative(300.0)
    pose_weight: float = not_negative(60.0)
    shape_weight: float = not_negative(0.06)
    adversarial_weight: float = not_negative(0.5)
    discriminator_weight: float = not_negative(0.5)
    mposer_weight: float = not_negative(0.1)  # of the motion code's mean squared norm; the paper does not give its own

    # Generator.
    feature_size: int = positive(2048)
    n_layers: int = not_negative(2)  # of the temporal encoder; 0: none, each frame by itself
    hidden_size: int = positive(1024)
    bidirectional: bool = False
    add_linear: bool = True
    use_residual: bool = True
    regressor_size: int = positive(1024)

    # Motion discriminator.
    disc_size: int = positive(1024)  # of the GRU and, as in the paper's ablation, of the attention
    disc_layers: int = positive(2)
    disc_pool: str = "attention"
    attention_layers: int = positive(3)
    attention_dropout: float = share(0.2)

    # The machine.
    processes: int = not_negative(1)  # that share every batch, each on its GPU; 0: one a GPU
    precision: str = one_of("fp32", ("fp32", "bf16"))  # bf16: matrix products in bfloat16, everything else in float32
    # Features in memory: none, ram, device, or auto, the first of device and RAM that they fit into.
    hold: str = one_of("none", ("none", "ram", "device", "auto"))
    read_workers: int = not_negative(0)  # processes that read batches; 0: a thread of this process
    eval_batch: int = positive(16)  # windows

    def check_consistency(self) -> None:
        """Raise ConfigError for settings that contradict one another."""
        if not self.training_splits:
            raise ConfigError("datasets_2d, datasets_3d: expected at least one split to train on, found none")
        if not self.validation:
            raise ConfigError("validation: expected at least one split, to choose the best epoch by; found none")
        if self.processes > self.batch_size:
            raise ConfigError(
                f"processes: expected at most batch_size, {self.batch_size}: each has a window; found {self.processes}"
            )
        if self.prior == "discriminator" and not self.part("motion"):
            raise ConfigError(
                "motion: expected splits of real motion for the discriminator, found none. Or: prior = none."
            )
        known = {*self.datasets_2d, *self.datasets_3d, *self.motion}
        for name, named in (("leave_out", self.leave_out), ("window_weights", self.window_weights)):
            if idle := sorted(set(named) - known):
                raise ConfigError(f"{name}: expected splits that are trained on, found {', '.join(idle)}")
        if self.part("datasets_2d") and self.part("datasets_3d") and not 0 < self.windows_2d < self.batch_size:
            raise ConfigError(
                f"share_2d: {self.share_2d} of a batch of {self.batch_size} leaves no window for one of 2D and 3D. "
                "Use a larger batch, another share, or only one kind of dataset."
            )

    @classmethod
    def published(cls, **changes: Any) -> Self:
        """VIBE's published configuration, with changes."""
        return replace(cls(), **changes)

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """The paper's own mixture of datasets, which the published configuration trains on a part of."""
        mixture = cls(
            datasets_2d=("penn_action/train", "posetrack/train", "insta_variety/train", "kinetics/train"),
            datasets_3d=("mpi_inf_3dhp/train", "h36m/train", "3dpw/train"),
        )
        return replace(mixture, **changes)

    @classmethod
    def embedded(cls, **changes: Any) -> Self:
        """A short run on the embedded demo data, minutes on two CPU cores. It shows that all works, not accuracy."""
        small = cls(
            name="embedded",
            datasets_2d=("penn_action/train", "kinetics/train"),
            datasets_3d=("3dpw/train",),
            evaluation=("3dpw/test",),
            stride=8,
            batch_size=16,
            iterations=30,
            epochs=8,
            lr_generator=1e-4,  # there are few steps
            hidden_size=256,
            disc_size=128,
            checkpoint_every=30,
            device="cpu",
        )
        return replace(small, **changes)

    @property
    def weights(self) -> dict[str, float]:
        """The factors of the loss terms, by the terms' names."""
        names = ("kp_2d", "kp_3d", "pose", "shape", "adversarial", "discriminator", "mposer")
        return {name: getattr(self, f"{name}_weight") for name in names}

    def part(self, name: str) -> tuple[str, ...]:
        """The splits of datasets_2d, datasets_3d or motion that are trained on."""
        if name == "motion" and self.prior != "discriminator":
            return ()
        return tuple(split for split in getattr(self, name) if split not in self.leave_out)

    @property
    def windows_2d(self) -> int:
        """How many windows of a batch come from `datasets_2d`."""
        if not (self.part("datasets_2d") and self.part("datasets_3d")):
            return self.batch_size if self.part("datasets_2d") else 0
        return int(self.batch_size * self.share_2d)

    @property
    def parts(self) -> dict[str, int]:
        """How many windows of a batch each part gives."""
        n_2d = self.windows_2d
        counts = {"datasets_2d": n_2d, "datasets_3d": self.batch_size - n_2d, "motion": self.batch_size}
        return {part: count for part, count in counts.items() if self.part(part)}

    @property
    def training_splits(self) -> tuple[str, ...]:
        return (*self.part("datasets_2d"), *self.part("datasets_3d"))

    @property
    def streams(self) -> dict[str, str]:
        """The feature stream of every split that is trained on, validated on or evaluated."""
        return dict.fromkeys((*self.training_splits, *self.validation, *self.evaluation), self.stream)

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that is read, each once."""
        return tuple(dict.fromkeys((*self.streams, *self.part("motion"))))


PRESETS: Final = {
    "published": TrainConfig.published,
    "paper": TrainConfig.paper,
    "embedded": TrainConfig.embedded,
}
