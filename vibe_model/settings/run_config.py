"""What the settings of every training have in common: typed, checked, to JSON and back.  [settings] -> training

Imports no torch: the scheduler asks whether a run is complete without paying for it.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, get_args, get_origin, get_type_hints

from vibe_model.errors import ConfigError


def positive(default: Any) -> Any:
    """A setting above 0; of a mapping by split, each of its values."""
    return _checked(default, "more than 0", lambda value: 0 < value < math.inf)


def not_negative(default: float) -> Any:
    """A setting of 0 or more."""
    return _checked(default, "0 or more", lambda value: 0 <= value < math.inf)


def share(default: float) -> Any:
    """A setting from 0 on, below 1."""
    return _checked(default, "0 or more and less than 1", lambda value: 0 <= value < 1)


def one_of(default: str, words: Sequence[str]) -> Any:
    """A setting that is one of these words."""
    return _checked(default, f"one of {', '.join(words)}", words.__contains__)


def _checked(default: Any, expected: str, holds: Callable[[Any], bool]) -> Any:
    check = {"expected": expected, "holds": holds}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=check)
    return field(default=default, metadata=check)


class Reading(NamedTuple):
    """A stream that a model reads beside its features: of every frame (history + 1) * size numbers, oldest rows first.

    Rows before the segment that a window begins in are 0.
    """

    stream: str  # its name in the cache
    size: int  # numbers a row
    history: int = 0  # rows before the frame's own
    of_keypoints: bool = False  # is it computed from the 2D keypoints, which may be projections of the truth?


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings of every training; its subclasses are those of one model's.

    Raises ConfigError for values of a wrong type, out of range, or that contradict one another.
    """

    VERSION: ClassVar[Mapping[str, int]]  # raised by hand when equal inputs and settings would train to other numbers
    NEUTRAL: ClassVar[frozenset[str]]  # settings that change no number: where things are, how often the state is saved

    # Where things are. None of these paths decides a number; the content there does.
    name: str = "run"
    cache: Path | str = Path("data/cache")  # or a URL as s3://bucket/prefix
    runs: Path = Path("runs")

    # Windows.
    seqlen: int = positive(16)
    stride: int = positive(16)
    strides: Mapping[str, int] = positive({})  # by split
    window_weights: Mapping[str, float] = positive({})  # by split, 1 elsewhere: how often its windows come
    tail: str = one_of("drop", ("drop", "cover"))  # cover: also the window that ends with its track, short of a stride
    motion: tuple[str, ...] = ("amass/train",)  # real motion, for the discriminator and for MPoser
    validation: tuple[str, ...] = ("3dpw/validation",)

    # Training.
    batch_size: int = positive(32)  # windows
    iterations: int = positive(500)  # per epoch
    epochs: int = positive(30)
    plateau_factor: float = share(0.1)  # of the learning rates, when the validation score no longer falls
    plateau_patience: int = not_negative(5)  # epochs
    max_non_finite: int = positive(10)  # steps in a row without a finite loss before training stops
    seed: int = not_negative(0)

    # The machine.
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    threads: int = not_negative(0)  # of one operation on the CPU; 0: torch's own choice
    checkpoint_every: int = positive(100)  # iterations; each epoch's end is one too

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for setting in fields(self):
            name, value, hint = setting.name, getattr(self, setting.name), hints[setting.name]
            if not _is_a(value, hint):
                kind = getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
                raise ConfigError(f"{name}: expected {kind}, found {value!r}")
            check = setting.metadata
            for split, one in value.items() if isinstance(value, Mapping) else [("", value)]:
                if check and not check["holds"](one):
                    of_split = f" for {split}" if split else ""
                    raise ConfigError(f"{name}: expected {check['expected']}{of_split}, found {one!r}")
        if self.name in ("", "..") or Path(self.name).name != self.name:
            raise ConfigError(f"name: expected the name of a folder, found {self.name!r}")
        self.check_consistency()

    def check_consistency(self) -> None:
        """Raise ConfigError for settings that contradict one another."""

    def part(self, name: str) -> tuple[str, ...]:
        """The splits that one part of a batch is drawn from."""
        return tuple(getattr(self, name))

    @property
    def parts(self) -> dict[str, int]:
        """How many windows of a batch each part gives."""
        return {"motion": self.batch_size}

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that is read, each once."""
        return tuple(dict.fromkeys((*self.motion, *self.validation)))

    def streams_of(self, part: str) -> tuple[str, ...]:
        """The feature streams that windows of a part are read from, each window from one of them; empty: from none."""
        del part
        return ()

    @property
    def beside(self) -> Mapping[str, Reading]:
        """What is read beside those streams, by the name of the model's argument."""
        return {}

    @property
    def streams(self) -> dict[str, tuple[str, ...]]:
        """The feature streams that are read of each split, where any are."""
        return {}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`. Raises ConfigError for unknown names."""
        hints, known = get_type_hints(cls), {setting.name for setting in fields(cls)}
        if unknown := sorted(raw.keys() - known):
            raise ConfigError(f"unknown settings {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**{name: _from_json(hints[name], value) for name, value in raw.items()})

    def as_dict(self) -> dict[str, Any]:
        """All settings as JSON has them: paths as text, tuples as lists."""
        values = ((name, str(value) if isinstance(value, Path) else value) for name, value in asdict(self).items())
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}


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


def _from_json(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and "://" in value:  # a cache in an object store: as a path it would lose a slash
        return value
    return Path(value) if isinstance(value, str) and (hint is Path or Path in get_args(hint)) else value
