"""Settings of all models of video features. No torch.  [settings] -> training"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from vibe_model.errors import ConfigError
from vibe_model.settings.run_config import RunConfig, Share, split_of

# Which tracks of a split are evaluated, as a pattern of their names: Human3.6M's protocol 2 has one camera.
PUBLISHED_TRACKS: Final[Mapping[str, str]] = {"h36m/val": "*60457274*"}

EMBEDDED: Final[Mapping[str, Any]] = {
    "datasets_3d": ("3dpw/train",),
    "evaluation": ("3dpw/test", "emdb/emdb1"),
    "iterations": 30,
    "lr_generator": 1e-4,  # there are few steps
    "checkpoint_every": 30,
    "device": "cpu",
}
"""What the `embedded` presets of all models share: short runs on the demo data."""


@dataclass(frozen=True, kw_only=True)
class VideoConfig(RunConfig):
    """The settings of `training.run` that every model has, beside those of every training."""

    MODEL: ClassVar[str]  # its name in `vibe_model.models`
    TERMS: ClassVar[tuple[str, ...]] = ()  # of the loss that have a setting `<term>_weight`
    # Settings of checkpoints that other trainings make: the Luigi task that does, and the setting that needs none.
    MADE_BY: ClassVar[Mapping[str, tuple[str, str]]] = {}
    NEUTRAL: ClassVar[frozenset[str]] = frozenset(
        {"name", "cache", "tag", "runs", "body", "pretrained", "processes", "checkpoint_every", "hold", "read_workers"}
    )

    FIXED: ClassVar[frozenset[str]] = RunConfig.FIXED | {"feature_size", "leave_out", "eval_batch"}

    # Where things are.
    body: Path | None = None  # folder of the SMPL files; None: the procedural body
    pretrained: Path | None = None  # checkpoint to start from: of this model, or VIBE's or SPIN's regressor

    # Windows.
    stream: str = "resnet50"
    datasets_2d: tuple[str, ...] = ()  # splits for the 2D part of a batch
    datasets_3d: tuple[str, ...] = ()  # splits for the 3D part of a batch
    share_2d: Share = 0.6  # 2D part of a batch, rounded down to windows, when there are both 2D and 3D datasets
    leave_out: tuple[str, ...] = ()  # of these splits and `motion`: not to train on, as 3dpw/train, h36m/train:S5*
    evaluation: tuple[str, ...] = ()  # splits that the trained model is evaluated on
    # By split: evaluate only tracks whose names match a pattern (`*`, `?`, `[...]`).
    tracks: Mapping[str, str] = field(default_factory=lambda: dict(PUBLISHED_TRACKS))
    feature_size: PositiveInt = 2048

    # Training.
    lr_generator: PositiveFloat = 5e-5  # Adam's learning rate
    lr_discriminator: PositiveFloat = 1e-4  # Adam's learning rate for the discriminator, where there is one

    # The machine.
    processes: NonNegativeInt = 1  # share each batch, one GPU each; 0: one per GPU. A run resumes with the same number
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16: matrix products in bfloat16, everything else in float32
    # Where features are during training. none: read with each batch; ram, device: read once, an error where they need
    # more than 80% of the free memory; auto: the first of device, ram and none that they fit into.
    hold: Literal["none", "ram", "device", "auto"] = "auto"
    read_workers: NonNegativeInt = 0  # processes that read batches ahead; 0: a thread, which suffices for a local disk
    eval_batch: PositiveInt = 16  # windows

    def check_feature_size(self) -> None:
        """Raise ConfigError where the model cannot read the stream: known only when it is to be trained."""

    def check_consistency(self) -> None:
        if not self.training_splits:
            raise ConfigError("datasets_2d, datasets_3d: expected at least one split to train on, found none")
        if not self.validation:
            raise ConfigError("validation: expected at least one split, to choose the best epoch by; found none")
        if self.processes > self.batch_size:
            raise ConfigError(
                f"processes: expected at most batch_size, {self.batch_size}: each has a window; found {self.processes}"
            )
        if self.uses_motion and not self.part("motion"):
            raise ConfigError(
                "motion: expected splits of real motion for the discriminator, found none. Or: prior = none."
            )
        splits = {*self.datasets_2d, *self.datasets_3d, *self.motion}
        for name, named in (("leave_out", self.leave_out), ("window_weights", self.window_weights)):
            if idle := sorted({*map(split_of, named)} - splits):
                raise ConfigError(f"{name}: expected splits that are trained on, found {', '.join(idle)}")
        if partly := [name for name in self.leave_out if ":" in name and split_of(name) in self.motion]:
            raise ConfigError(f"leave_out: expected whole splits of motion, found {', '.join(partly)}")
        if self.part("datasets_2d") and self.part("datasets_3d") and not 0 < self.windows_2d < self.batch_size:
            raise ConfigError(
                f"share_2d: {self.share_2d} of a batch of {self.batch_size} leaves no window for one of 2D and 3D. "
                "Use a larger batch, another share, or only one kind of dataset."
            )

    @classmethod
    def published(cls, **changes: Any) -> Self:
        """The authors' configuration, with changes."""
        return cls(**changes)

    @property
    def weights(self) -> dict[str, float]:
        """The factors of the loss terms, by the terms' names."""
        return {name: getattr(self, f"{name}_weight") for name in self.TERMS}

    @property
    def uses_motion(self) -> bool:
        """Does training read real motion?"""
        return False

    @property
    def per_frame(self) -> bool:
        """Is every frame regressed from its own feature, as a baseline is?"""
        return False

    def poses(self) -> RunConfig | None:
        """Configuration of batches of real motion beside every batch; None: none, or windows of the batch."""
        return None

    @property
    def reads_made(self) -> tuple[str, ...]:
        """Which checkpoints of `MADE_BY` training reads."""
        return ()

    @property
    def lacks(self) -> tuple[str, ...]:
        """Settings of checkpoints that training needs and that are not set: other trainings make them."""
        return tuple(name for name in self.reads_made if getattr(self, name) is None)

    def not_made(self, name: str) -> ConfigError:
        task, without = self.MADE_BY[name]
        return ConfigError(
            f"{name} = {getattr(self, name)}: expected best.pt of {task}, found no such file. "
            f"`luigi --module tasks {task}` trains it; {without} needs none."
        )

    def files(self) -> dict[str, Path | None]:
        """Files beside splits and body that decide a run, by name. Raises ConfigError for one that must be there."""
        made = {name: getattr(self, name) if name in self.reads_made else None for name in self.MADE_BY}
        for name, file in made.items():
            if file is not None and not file.is_file():
                raise self.not_made(name)
        return {"pretrained": self.pretrained, **made}

    def part(self, name: str) -> tuple[str, ...]:
        """The splits of datasets_2d, datasets_3d or motion that are trained on."""
        if name == "motion" and not self.uses_motion:
            return ()
        return tuple(split for split in getattr(self, name) if split not in self.leave_out)

    def tracks_of(self, named: str) -> str:
        """The pattern of the tracks that are evaluated of a split of `validation` or `evaluation`."""
        return named.partition(":")[2] or self.tracks.get(split_of(named), "*")

    @property
    def windows_2d(self) -> int:
        """How many windows of a batch come from `datasets_2d`."""
        if not (self.part("datasets_2d") and self.part("datasets_3d")):
            return self.batch_size if self.part("datasets_2d") else 0
        return int(self.batch_size * self.share_2d)

    @property
    def parts(self) -> dict[str, int]:
        n_2d = self.windows_2d
        counts = {"datasets_2d": n_2d, "datasets_3d": self.batch_size - n_2d}
        return {part: count for part, count in counts.items() if self.part(part)}

    @property
    def training_splits(self) -> tuple[str, ...]:
        return (*self.part("datasets_2d"), *self.part("datasets_3d"))

    def streams_of(self, part: str) -> tuple[str, ...]:
        return () if part == "motion" else (self.stream,)

    @property
    def streams(self) -> dict[str, tuple[str, ...]]:
        """The feature streams of every split that is trained on, validated on or evaluated."""
        by_split: dict[str, tuple[str, ...]] = {}
        read = [(split, self.streams_of(part)) for part in self.parts for split in self.part(part)]
        for split, names in (
            *read,
            *((split, (self.stream,)) for split in (*map(split_of, self.validation), *self.evaluation)),
        ):
            if names:
                extra_streams = (extra.stream for extra in self.extra_streams.values())
                by_split[split] = tuple(dict.fromkeys((*by_split.get(split, ()), *names, *extra_streams)))
        return by_split

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.streams, *self.part("motion"))))
