"""Every setting of a training run, typed.  features -> windows -> [training] -> evaluation

Imports no torch: the scheduler asks whether a run is complete without paying for it.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Self, get_args, get_origin, get_type_hints

from vibe_model.errors import ConfigError
from vibe_model.settings.checks import (
    require_folder_name,
    require_not_negative,
    require_positive,
    require_positive_by_split,
    require_share,
    require_words,
)

# Frames from one window's start to the next, where it is not `stride`.
PUBLISHED_STRIDES: Final[Mapping[str, int]] = {
    "penn_action/train": 4,
    "posetrack/train": 4,
    "3dpw/train": 4,
}
PRIORS: Final = ("discriminator", "mposer", "none")
TAILS: Final = ("drop", "cover")
# Which tracks of a split evaluation looks at, as a pattern of their names: Human3.6M's protocol 2 has one camera.
PUBLISHED_TRACKS: Final[Mapping[str, str]] = {"h36m/val": "*60457274*"}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What `training.run` is told. The defaults are VIBE's published configuration.

    Raises ConfigError for values of a wrong type, out of range, or that contradict one another.
    """

    # Where things are. None of these paths decides a number; what lies there does.
    name: str = "vibe"
    cache: Path | str = Path("data/cache")  # or a URL as s3://bucket/prefix
    runs: Path = Path("runs")
    body: Path | None = None  # folder of the SMPL files; None: the procedural stand-in
    pretrained: Path | None = None  # SPIN's or VIBE's checkpoint to start from
    mposer: Path | None = None  # a trained motion prior's best.pt, for prior = mposer

    # Windows.
    stream: str = "resnet50"
    seqlen: int = 16
    stride: int = 16
    strides: Mapping[str, int] = field(default_factory=lambda: dict(PUBLISHED_STRIDES))  # by split
    # By split, 1 elsewhere: how often its windows come.
    window_weights: Mapping[str, float] = field(default_factory=dict)
    tail: str = "drop"  # or cover: also the window that ends where a run of frames ends, short of a stride
    datasets_2d: tuple[str, ...] = ("insta_variety/train",)
    datasets_3d: tuple[str, ...] = ("mpi_inf_3dhp/train", "3dpw/train")
    motion: tuple[str, ...] = ("amass/train",)  # real motion, for the discriminator and for MPoser
    leave_out: tuple[str, ...] = ()  # of the splits above: not to train on, as 3dpw/train
    validation: tuple[str, ...] = ("3dpw/validation",)
    evaluation: tuple[str, ...] = ("3dpw/test", "mpi_inf_3dhp/test", "h36m/val")
    tracks: Mapping[str, str] = field(default_factory=lambda: dict(PUBLISHED_TRACKS))  # by split: evaluate only these

    # The course of training.
    batch_size: int = 32  # windows
    share_2d: float = 0.6  # of a batch, when there are both 2D and 3D datasets
    iterations: int = 500  # per epoch
    epochs: int = 30
    lr_generator: float = 5e-5
    lr_discriminator: float = 1e-4
    weight_decay_generator: float = 0.0
    weight_decay_discriminator: float = 1e-4
    plateau_factor: float = 0.1  # both learning rates, when validation PA-MPJPE no longer falls
    plateau_patience: int = 5  # epochs
    max_non_finite: int = 10  # steps in a row without a finite loss before training stops
    seed: int = 0

    # What tells the generator how people move: discriminator, mposer (a prior that is trained before) or none.
    prior: str = "discriminator"

    # Weights of the loss terms.
    kp_2d_weight: float = 300.0
    kp_3d_weight: float = 300.0
    pose_weight: float = 60.0
    shape_weight: float = 0.06
    adversarial_weight: float = 0.5
    discriminator_weight: float = 0.5
    mposer_weight: float = 0.1  # of the mean squared norm of the motion's latent code; the paper does not say its own

    # Generator.
    feature_size: int = 2048
    n_layers: int = 2  # of the temporal encoder; 0: none, each frame by itself
    hidden_size: int = 1024
    bidirectional: bool = False
    add_linear: bool = True
    use_residual: bool = True
    regressor_size: int = 1024

    # Motion discriminator.
    disc_size: int = 1024  # of the GRU and, as in the paper's ablation, of the attention
    disc_layers: int = 2
    disc_pool: str = "attention"
    attention_layers: int = 3
    attention_dropout: float = 0.2

    # The machine.
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    processes: int = 1  # that share every batch, each on its GPU; 0: one a GPU
    precision: str = "fp32"  # or bf16: matrix products in bfloat16, everything else as it was
    threads: int = 0  # of one operation on the CPU; 0: torch's own choice
    hold: str = "none"  # features in memory: none, ram, device, or auto, the first of device and RAM that they fit into
    read_workers: int = 0  # processes that read batches; 0: a thread of this process
    checkpoint_every: int = 100  # iterations; each epoch's end is one too
    eval_batch: int = 16  # windows

    def __post_init__(self) -> None:
        _check_types(self)
        _check_ranges(self)
        _check_sense(self)

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
        """A short run on the embedded stand-in data, minutes on two CPU cores. It shows the path, not accuracy."""
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

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`. Raises ConfigError for unknown names."""
        known = get_type_hints(cls)
        if unknown := sorted(raw.keys() - known.keys()):
            raise ConfigError(f"unknown settings {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**{name: _revive(known[name], value) for name, value in raw.items()})

    def as_dict(self) -> dict[str, Any]:
        """All settings as JSON knows them: paths as text, tuples as lists."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @property
    def weights(self) -> dict[str, float]:
        """The factors of the loss terms, by the terms' names."""
        names = ("kp_2d", "kp_3d", "pose", "shape", "adversarial", "discriminator", "mposer")
        return {name: getattr(self, f"{name}_weight") for name in names}

    @property
    def windows_2d(self) -> int:
        """How many windows of a batch come from `datasets_2d`."""
        if not (self.part("datasets_2d") and self.part("datasets_3d")):
            return self.batch_size if self.part("datasets_2d") else 0
        return int(self.batch_size * self.share_2d)

    def part(self, name: str) -> tuple[str, ...]:
        """The splits of datasets_2d, datasets_3d or motion that are trained on."""
        if name == "motion" and self.prior != "discriminator":
            return ()
        return tuple(split for split in getattr(self, name) if split not in self.leave_out)

    @property
    def training_splits(self) -> tuple[str, ...]:
        return (*self.part("datasets_2d"), *self.part("datasets_3d"))

    @property
    def pixel_splits(self) -> tuple[str, ...]:
        """Every split whose feature stream is read, each once."""
        return tuple(dict.fromkeys((*self.training_splits, *self.validation, *self.evaluation)))

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that is read, each once."""
        return tuple(dict.fromkeys((*self.pixel_splits, *self.part("motion"))))


PRESETS: Final = {
    "published": TrainConfig.published,
    "paper": TrainConfig.paper,
    "embedded": TrainConfig.embedded,
}

_POSITIVE: Final = (
    *("seqlen", "stride", "batch_size", "iterations", "epochs", "lr_generator", "lr_discriminator", "max_non_finite"),
    *("feature_size", "hidden_size", "regressor_size", "disc_size", "disc_layers", "attention_layers"),
    *("checkpoint_every", "eval_batch"),
)
_NOT_NEGATIVE: Final = (
    *("weight_decay_generator", "weight_decay_discriminator", "plateau_patience", "seed", "threads", "read_workers"),
    *("kp_2d_weight", "kp_3d_weight", "pose_weight", "shape_weight", "adversarial_weight", "discriminator_weight"),
    *("mposer_weight", "n_layers", "processes"),
)

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "tail": TAILS,
    "hold": ("none", "ram", "device", "auto"),
    "prior": PRIORS,
    "precision": ("fp32", "bf16"),
}


def _check_types(config: TrainConfig) -> None:
    hints = get_type_hints(TrainConfig)
    for item in fields(config):
        value, hint = getattr(config, item.name), hints[item.name]
        if not _is_a(value, hint):
            wanted = getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
            raise ConfigError(f"{item.name}: expected {wanted}, found {value!r}")


def _check_ranges(config: TrainConfig) -> None:
    require_positive(config, _POSITIVE)
    require_not_negative(config, _NOT_NEGATIVE)
    require_share(config, ("share_2d", "plateau_factor", "attention_dropout"))
    require_positive_by_split(config, ("strides", "window_weights"))
    require_words(config, _WORDS)


def _check_sense(config: TrainConfig) -> None:
    require_folder_name(config)
    if not config.training_splits:
        raise ConfigError("datasets_2d, datasets_3d: expected at least one split to train on, found none")
    if not config.validation:
        raise ConfigError("validation: expected at least one split, to tell the best epoch by; found none")
    if config.processes > config.batch_size:
        raise ConfigError(
            f"processes: expected at most batch_size, {config.batch_size}: each has a window; found {config.processes}"
        )
    if config.prior == "discriminator" and not config.part("motion"):
        raise ConfigError("motion: expected splits of real motion for the discriminator, found none. Or: prior = none.")
    known = {*config.datasets_2d, *config.datasets_3d, *config.motion}
    if idle := sorted(set(config.leave_out) - known):
        raise ConfigError(f"leave_out: expected splits that would be trained on, found {', '.join(idle)}")
    if idle := sorted(config.window_weights.keys() - known):
        raise ConfigError(f"window_weights: expected splits that are trained on, found {', '.join(idle)}")
    if config.part("datasets_2d") and config.part("datasets_3d") and not 0 < config.windows_2d < config.batch_size:
        raise ConfigError(
            f"share_2d: {config.share_2d} of a batch of {config.batch_size} leaves no window for one of 2D and 3D. "
            "Use a larger batch, another share, or only one kind of dataset."
        )


def _is_a(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_is_a(value, kind) for kind in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_a(entry, arguments[0]) for entry in value)
    if origin is not None:
        key, entry = arguments
        return isinstance(value, Mapping) and all(_is_a(k, key) and _is_a(v, entry) for k, v in value.items())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _revive(hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and "://" in value:  # a cache in an object store: as a path it would lose a slash
        return value
    takes_path = hint is Path or Path in get_args(hint)
    return Path(value) if takes_path and isinstance(value, str) else value
