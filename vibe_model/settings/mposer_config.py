"""The settings of the motion prior's training, and where its run lies.  features -> windows -> [training] -> evaluation

Imports no torch: the scheduler asks whether a run is complete without paying for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from vibe_model import runs
from vibe_model.errors import ConfigError, DataError, StandInMixed
from vibe_model.settings.checks import (
    require_folder_name,
    require_not_negative,
    require_positive,
    require_positive_by_split,
    require_share,
    require_words,
)
from vibe_model.settings.config import TAILS

if TYPE_CHECKING:
    from cache import Split

# Raised by hand when the same inputs and settings would train to other numbers.
MPOSER_VERSION: Final = 1
# Settings that do not change a run's numbers: where things are, and how often the state is saved.
_ELSEWHERE: Final = frozenset({"name", "cache", "runs", "checkpoint_every"})


@dataclass(frozen=True, kw_only=True)
class MPoserConfig:
    """What `mposer_training.run` is told. The defaults are for AMASS; they are ours, the paper gives none.

    Raises ConfigError for values out of range.
    """

    # Where things are. None of these paths decides a number; what lies there does.
    name: str = "mposer"
    cache: Path | str = Path("data/cache")  # or a URL as s3://bucket/prefix
    runs: Path = Path("runs")

    # Windows.
    motion: tuple[str, ...] = ("amass/train",)
    validation: tuple[str, ...] = ("3dpw/validation",)  # whatever SMPL labels they have; none: training's own loss
    seqlen: int = 16
    stride: int = 16
    strides: Mapping[str, int] = field(default_factory=dict)  # by split
    # By split, 1 elsewhere: how often its windows come.
    window_weights: Mapping[str, float] = field(default_factory=dict)
    tail: str = "drop"  # or cover: see TrainConfig

    # The model.
    hidden_size: int = 512
    latent_size: int = 64
    n_layers: int = 1

    # The course of training.
    batch_size: int = 64  # windows
    iterations: int = 500  # per epoch
    epochs: int = 100
    lr: float = 1e-4
    weight_decay: float = 0.0
    # Of the KL divergence in nats, beside the mean squared error of all numbers of a window's rotation matrices. As a
    # likelihood: 2 s^2 / (16 * 23 * 9) for numbers that are off by s.
    kl_weight: float = 1e-5
    plateau_factor: float = 0.1  # the learning rate, when the score no longer falls
    plateau_patience: int = 10  # epochs
    max_non_finite: int = 10  # steps in a row without a finite loss before training stops
    seed: int = 0

    # The machine.
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    threads: int = 0  # of one operation on the CPU; 0: torch's own choice
    checkpoint_every: int = 500  # iterations; each epoch's end is one too

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_sense(self)

    @classmethod
    def amass(cls, **changes: Any) -> Self:
        """For real motion, with changes."""
        return replace(cls(), **changes)

    @classmethod
    def embedded(cls, **changes: Any) -> Self:
        """A minute on two CPU cores, for the embedded stand-in motion."""
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

    def as_dict(self) -> dict[str, Any]:
        """All settings as JSON knows them: paths as text, tuples as lists."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return plain

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that is read, each once."""
        return tuple(dict.fromkeys((*self.motion, *self.validation)))


PRESETS: Final = {"amass": MPoserConfig.amass, "embedded": MPoserConfig.embedded}


def is_in_cache(config: MPoserConfig) -> bool:
    """Does the cache have every split that the configuration names?"""
    import cache

    if not cache.store_at(config.cache).exists("zarr.json"):
        return False
    return set(config.splits) <= set(cache.open(config.cache).splits)


def open_splits(config: MPoserConfig) -> dict[str, Split]:
    """Every split that the configuration names, open. Raises DataError when the cache lacks one."""
    import cache  # here: it is slow to import, and settings alone need none

    opened = cache.open(config.cache)
    if absent := [name for name in config.splits if name not in opened.splits]:
        known = ", ".join(opened.splits) or "none"
        raise DataError(
            f"{config.cache}: expected {', '.join(absent)} to train a motion prior, found splits {known}. Convert "
            "them, or name others."
        )
    return {name: opened[name] for name in config.splits}


def is_stand_in(splits: Mapping[str, Split]) -> bool:
    """Is all of it stand-in motion? Raises StandInMixed when some is and some is not."""
    kinds = {name: bool(split.manifest.get("stand_in", False)) for name, split in splits.items()}
    if len(set(kinds.values())) > 1:
        stand_ins, real = (", ".join(n for n, kind in kinds.items() if kind is wanted) for wanted in (True, False))
        raise StandInMixed(
            f"stand-ins ({stand_ins}) cannot be used together with real motion ({real}). Name splits of one kind."
        )
    return all(kinds.values())


def inputs(config: MPoserConfig, splits: Mapping[str, Split]) -> dict[str, str]:
    """Digests of everything that the run reads, by split."""
    return {name: runs.content_digest(splits[name].manifest) for name in config.splits}


def fingerprint(config: MPoserConfig, splits: Mapping[str, Split]) -> str:
    """16 hex digits: the same for runs that must give the same numbers."""
    settings = {name: value for name, value in config.as_dict().items() if name not in _ELSEWHERE}
    parts = {"mposer_version": MPOSER_VERSION, "settings": settings, "inputs": inputs(config, splits)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def run_folder(config: MPoserConfig, splits: Mapping[str, Split] | None = None) -> Path:
    """`runs/<name>-<fingerprint>`. Opens the cache unless `splits` are given; raises as `open_splits` does."""
    return config.runs / f"{config.name}-{fingerprint(config, open_splits(config) if splits is None else splits)}"


def is_complete(config: MPoserConfig) -> bool:
    """Has a run with this configuration, on what the cache holds now, been finished? Not if something is missing."""
    return is_in_cache(config) and runs.is_finished(run_folder(config))


_POSITIVE: Final = (
    *("seqlen", "stride", "hidden_size", "latent_size", "n_layers", "batch_size", "iterations", "epochs", "lr"),
    *("max_non_finite", "checkpoint_every"),
)
_NOT_NEGATIVE: Final = ("weight_decay", "kl_weight", "plateau_patience", "seed", "threads")


def _check_ranges(config: MPoserConfig) -> None:
    require_positive(config, _POSITIVE)
    require_not_negative(config, _NOT_NEGATIVE)
    require_share(config, ("plateau_factor",))
    require_positive_by_split(config, ("strides", "window_weights"))
    require_words(config, {"tail": TAILS})


def _check_sense(config: MPoserConfig) -> None:
    require_folder_name(config)
    if not config.motion:
        raise ConfigError("motion: expected splits of real motion for the motion prior to learn from, found none")
