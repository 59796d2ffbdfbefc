"""Settings of every training: typed, checked, to JSON and back. No torch.  [settings] -> training"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

import cache
from pipeline.errors import expected
from vibe_model.errors import ConfigError

Share = Annotated[float, Field(ge=0, lt=1)]
Place = Annotated[cache.Root, BeforeValidator(lambda place: cache.place_of(str(place)))]


def split_of(named: str) -> str:
    """The split of a setting that may name some of its tracks: h36m/train of h36m/train:S5*."""
    return named.partition(":")[0]


class Reading(NamedTuple):
    """An extra stream of a model: (history + 1) * size numbers a frame, oldest rows first.

    Rows before the segment that a window begins in are 0.
    """

    stream: str  # its name in the cache
    size: int  # numbers a row
    history: int = 0  # rows before the frame's own
    of_keypoints: bool = False  # is it computed from the 2D keypoints, which may be projections of the truth?


@dataclass(frozen=True, kw_only=True, config={"extra": "forbid", "allow_inf_nan": False, "defer_build": True})
class RunConfig:
    """Settings of every training. Raises ConfigError for invalid values and contradictions."""

    VERSION: ClassVar[Mapping[str, int]]  # raised by hand when equal inputs and settings would train to other numbers
    NEUTRAL: ClassVar[frozenset[str]]  # settings that change no number: where things are, how often the state is saved
    # Fields that no luigi.cfg sets, since they follow from others.
    FIXED: ClassVar[frozenset[str]] = frozenset({"tag", "threads", "max_non_finite"})
    # Columns that batches have beside the labels, as `Split.read` returns them: ("bbox", "intrinsics").
    fields: ClassVar[tuple[str, ...]] = ()

    # Where things are. None of these paths decides a number; the content there does.
    name: str = "run"  # start of the name of the run's folder
    cache: Place = Path("data/cache")  # or a URL as s3://bucket/prefix
    tag: str = ""  # of the cache, whose state is read; "": what is committed now
    runs: Path = Path("runs")

    # Windows.
    seqlen: PositiveInt = 16  # frames in a training window
    stride: PositiveInt = 16  # frames from one window's start to the next
    strides: Mapping[str, PositiveInt] = field(default_factory=dict)  # by split, where it differs from `stride`
    # By split: how often its windows are drawn, relative to other splits of the same part of a batch; 1 unless set.
    window_weights: Mapping[str, PositiveFloat] = field(default_factory=dict)
    tail: Literal["drop", "cover"] = "drop"  # last frames of a track, short of a stride; cover: one more window
    motion: tuple[str, ...] = ("amass/train",)  # splits of real motion, for a discriminator, a prior or an embedding
    # Chooses the best epoch: SPLIT, SPLIT:PATTERN of tracks, or SPLIT:1/10 of its videos. They are not trained on.
    validation: tuple[str, ...] = ("3dpw/validation",)

    # Training.
    batch_size: PositiveInt = 32  # windows per step
    iterations: PositiveInt = 500  # steps per epoch
    epochs: PositiveInt = 30  # each ends with a validation
    plateau_factor: Share = 0.1  # multiplies the learning rates when the validation score no longer falls
    plateau_patience: NonNegativeInt = 5  # epochs without a better score that are tolerated
    max_non_finite: PositiveInt = 10  # steps in a row without a finite loss before training stops
    seed: NonNegativeInt = 0  # of initial weights, dropout and the order of windows

    # The machine.
    device: str = "auto"  # auto (cuda when there is one), cpu, cuda, cuda:1, ...
    threads: NonNegativeInt = 0  # of one operation on the CPU; 0: torch's own choice
    checkpoint_every: PositiveInt = 100  # steps from one saved state to the next; each epoch's end is one, too

    @model_validator(mode="wrap")
    @classmethod
    def _refused_by_name(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise ConfigError(_message(error)) from None

    def __post_init__(self) -> None:
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
        return tuple(dict.fromkeys((*self.motion, *map(split_of, self.validation))))

    def left_out(self, split: str) -> tuple[str, ...]:
        """Patterns of the tracks that are not trained on, of a split that is."""
        named = (name.partition(":") for name in (*getattr(self, "leave_out", ()), *self.validation))
        return tuple(tracks for of, colon, tracks in named if of == split and colon)

    def streams_of(self, part: str) -> tuple[str, ...]:
        """The feature streams that windows of a part are read from, each window from one of them; empty: from none."""
        del part
        return ()

    @property
    def extra_streams(self) -> Mapping[str, Reading]:
        """What is read beside those streams, by the name of the model's argument."""
        return {}

    @property
    def streams(self) -> dict[str, tuple[str, ...]]:
        """The feature streams that are read of each split, where any are."""
        return {}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`. Raises ConfigError for unknown names."""
        return cls(**raw)

    def as_dict(self) -> dict[str, Any]:
        """All settings as JSON has them: paths as text, tuples as lists."""
        settings: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return settings


def _message(error: ValidationError) -> str:
    """The first of pydantic's errors, in one line: "epochs: expected more than 0, found 0"."""
    detail = error.errors()[0]
    name, *of = map(str, detail["loc"])
    if detail["type"] == "unexpected_keyword_argument":
        return f"{name}: there is no such setting"
    return f"{name}: {expected(error)}{f' for {of[0]}' if of else ''}, found {detail['input']!r}"
