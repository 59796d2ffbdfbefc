"""Settings of every training and of every model: typed, checked, to JSON and back. No torch.
[settings] -> training

`RunConfig` has the settings of every training, `VideoConfig` also those of every model of video
features; each model adds its own in a subclass.

A model's batch has up to three parts, which are named like the settings that list their splits:
datasets_2d, datasets_3d, and motion (real motion, without images). A configuration describes them
by these members, which subclasses override:

    parts                the batch's parts and their numbers of windows: {"datasets_3d": 32}
    splits_of(part)      splits that the part's windows are drawn from
    streams_of(part)     streams that the part's features are read from
    poses()              settings of separate batches of real motion, if a model has them

Comments at fields are the descriptions in docs/settings.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

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

from pipeline.errors import ConfigError, invalid_setting
from vibe_model.files import file_digest, folder_digest, local_root
from vibe_model.reading import Reading, check_window_length, pattern_of, split_of

if TYPE_CHECKING:
    from cache import Split

Share = Annotated[float, Field(ge=0, lt=1)]
# folder of a cache, or a URL as text
CacheRoot = Annotated[Path | str, BeforeValidator(local_root)]

# Split -> pattern of the names of the tracks that are evaluated. Human3.6M's protocol 2 evaluates
# one camera.
PUBLISHED_TRACKS: Final[Mapping[str, str]] = {"h36m/val": "*60457274*"}

EMBEDDED: Final[Mapping[str, Any]] = {
    "datasets_3d": ("3dpw/train",),
    "evaluation": ("3dpw/test", "emdb/emdb1"),
    "iterations": 30,
    "lr_generator": 1e-4,  # there are few steps
    "checkpoint_every": 30,
    "device": "cpu",
}
"""Settings of all `embedded` presets: short runs on the demo data."""


SPIN: Final = "SPIN's"  # of `usual_start`


@dataclass(
    frozen=True,
    kw_only=True,
    config={"extra": "forbid", "allow_inf_nan": False, "defer_build": True},
)
class RunConfig:
    """Settings of every training. Raises ConfigError for invalid values and contradictions."""

    MODEL: ClassVar[str]  # name of what is trained, and of its section of luigi.cfg
    # Part of the run's fingerprint, such as {"version": 4}. It is raised by hand if, after a change
    # of the code, equal inputs and settings give other numbers.
    VERSION: ClassVar[Mapping[str, int]]
    # Settings that do not affect results, such as paths, and how often the state is saved. The
    # fingerprint does not have them.
    NEUTRAL: ClassVar[frozenset[str]]
    # Settings of later versions -> the value with which they change nothing, as in JSON. With it,
    # the fingerprint does not have them: runs of earlier versions keep their names.
    ADDED: ClassVar[Mapping[str, Any]] = {"seconds": None, "rate": None}
    # Fields that no luigi.cfg sets, since they follow from others.
    FIXED: ClassVar[frozenset[str]] = frozenset({"threads", "max_non_finite"})
    # Columns that batches have beside the labels, as `Split.read` returns them: ("bbox",
    # "intrinsics").
    fields: ClassVar[tuple[str, ...]] = ()

    # Where things are. None of these paths decides a number; the content there does.

    name: str = "run"  # start of the name of the run's folder
    cache: CacheRoot = Path("demo/cache")  # or a URL as s3://bucket/prefix
    at: str | None = None  # tag of the cache
    runs: Path = Path("demo/runs")

    # Windows.

    seqlen: PositiveInt = 16  # frames in a training window
    stride: PositiveInt = 16  # frames from one window's start to the next
    # Windows of equal times, with the next: seqlen = seconds x rate. Slower tracks have none;
    # `stride` counts frames of the rate. Validation and evaluation take all frames.
    seconds: PositiveFloat | None = None
    rate: PositiveFloat | None = None  # frames a second of a training window; unset: the clip's own
    # by split, where it differs from `stride`
    strides: Mapping[str, PositiveInt] = field(default_factory=dict)
    # By split: how often its windows are drawn, relative to other splits of the same part of a
    # batch; 1 unless set.
    window_weights: Mapping[str, PositiveFloat] = field(default_factory=dict)
    # last frames of a track, short of a stride; cover: one more window
    tail: Literal["drop", "cover"] = "drop"
    # splits of real motion, for a discriminator, a prior or an embedding
    motion: tuple[str, ...] = ("amass/train",)
    # Chooses the best epoch, by PA-MPJPE or, if no split has 3D labels, by the error in 2D: SPLIT,
    # SPLIT:PATTERN of tracks, SPLIT:1/10 of its videos, SPLIT:!1/10: the others. Not trained on.
    validation: tuple[str, ...] = ("3dpw/validation",)

    # Training.

    batch_size: PositiveInt = 32  # windows per step
    iterations: PositiveInt = 500  # steps per epoch
    epochs: PositiveInt = 30  # each ends with a validation
    # multiplies the learning rates when the validation score no longer falls
    plateau_factor: Share = 0.1
    plateau_patience: NonNegativeInt = 5  # epochs without a better score that are tolerated
    max_non_finite: PositiveInt = 10  # steps in a row without a finite loss before training stops
    seed: NonNegativeInt = 0  # of initial weights, dropout and the order of windows

    # The machine.

    device: str = "auto"  # auto (cuda when there is one), cpu, cuda, cuda:1, ...
    threads: NonNegativeInt = 0  # of one operation on the CPU; 0: torch's own choice
    # steps from one saved state to the next; each epoch's end is one, too
    checkpoint_every: PositiveInt = 100

    @model_validator(mode="wrap")
    @classmethod
    def _refused_by_name(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise invalid_setting(error) from None

    def __post_init__(self) -> None:
        if self.name in ("", "..") or Path(self.name).name != self.name:
            raise ConfigError(f"name: expected the name of a folder, found {self.name!r}", "name")
        check_window_length(self.seqlen, self.seconds, self.rate)
        self.check_consistency()

    def check_consistency(self) -> None:
        """Raise ConfigError for contradictory settings."""

    def check_feature_size(self) -> None:
        """Raise ConfigError if a model cannot read features of its `feature_size` numbers. Only
        `check_inputs` calls it, before a training.
        """

    def splits_of(self, part: str) -> tuple[str, ...]:
        """Splits of one part of a batch."""
        return tuple(getattr(self, part))

    @property
    def parts(self) -> dict[str, int]:
        """Part of a batch -> number of its windows."""
        return {"motion": self.batch_size}

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits that the run reads, for training, validation and evaluation."""
        return tuple(dict.fromkeys((*self.motion, *map(split_of, self.validation))))

    def tracks_of(self, entry: str) -> str:
        """Pattern of the tracks that an entry of `validation` names."""
        return pattern_of(entry) or "*"

    def left_out(self, split: str) -> tuple[str, ...]:
        """Patterns of a split's tracks that are not trained on, by `leave_out` and `validation`."""
        patterns = []
        for entry in (*getattr(self, "leave_out", ()), *self.validation):
            pattern = pattern_of(entry)
            if pattern and split_of(entry) == split:
                patterns.append(pattern)
        return tuple(patterns)

    def streams_of(self, part: str) -> tuple[str, ...]:
        """Feature streams of a part of a batch, without `extra_streams`.

        Each window is read from one of them, chosen at random: a split may have several streams of
        one network, from jittered crops.
        """
        del part
        return ()

    @property
    def extra_streams(self) -> Mapping[str, Reading]:
        """Extra streams, by the argument of `VideoModel.regress` that takes them.

        Example: {"homography": Reading("homography", size=9)}.
        """
        return {}

    @property
    def streams(self) -> dict[str, tuple[str, ...]]:
        """All feature streams that the run reads, by split."""
        return {}

    def inputs(self, opened: Mapping[str, Split]) -> dict[str, Any]:
        """Digests of all data that the run reads, as config.json records them.

        opened: `splits`, by name. Example: {"amass/train": "5a0f...", "body": "9c01..."}.
        """
        return {name: opened[name].manifest["digest"] for name in self.splits}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Inverse of `as_dict`, also of earlier versions, which lack settings of `ADDED`. Raises
        ConfigError for unknown names.
        """
        return cls(**{**cls.ADDED, **raw})

    def as_dict(self) -> dict[str, Any]:
        """All settings as in JSON: paths as text, tuples as lists."""
        settings: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return settings


@dataclass(frozen=True, kw_only=True)
class VideoConfig(RunConfig):
    """Settings of every model, beside those of every training."""

    TERMS: ClassVar[tuple[str, ...]] = ()  # loss terms that have a setting `<term>_weight`
    # Checkpoints of other trainings that the model may read. Setting with the checkpoint's path ->
    # (Luigi task that trains it, setting with which no checkpoint is needed), such as
    # {"mposer": ("TrainMPoser", "prior = discriminator")}.
    # `reads_made` has those that this configuration reads. Where their path is None
    # (`missing_checkpoints`), Luigi trains the checkpoint first and sets the path; a training that
    # is started without one raises `checkpoint_error`. The content of the checkpoints is part of
    # the run's fingerprint (`files`).
    MADE_BY: ClassVar[Mapping[str, tuple[str, str]]] = {}
    NEUTRAL: ClassVar[frozenset[str]] = frozenset(
        {
            "name",
            "cache",
            "at",
            "runs",
            "body",
            "pretrained",
            "processes",
            "checkpoint_every",
            "hold",
            "read_workers",
        }
    )

    FIXED: ClassVar[frozenset[str]] = RunConfig.FIXED | {"feature_size", "leave_out", "eval_batch"}

    # Where things are.

    body: Path | None = None  # folder of the SMPL files; None: the procedural body
    # checkpoint to start from: of this model, or VIBE's or SPIN's regressor
    pretrained: Path | None = None

    # Windows.

    stream: str = "resnet50"
    datasets_2d: tuple[str, ...] = ()  # splits for the 2D part of a batch
    datasets_3d: tuple[str, ...] = ()  # splits for the 3D part of a batch
    # 2D part of a batch, rounded down to windows, when there are both 2D and 3D datasets
    share_2d: Share = 0.6
    # of these splits and `motion`: not to train on, as 3dpw/train, h36m/train:S5*
    leave_out: tuple[str, ...] = ()
    # of the trained model: splits, each once, or some tracks of them, as in `validation`
    evaluation: tuple[str, ...] = ()
    # By split: evaluate only tracks whose names match a pattern (`*`, `?`, `[...]`).
    tracks: Mapping[str, str] = field(default_factory=lambda: dict(PUBLISHED_TRACKS))
    feature_size: PositiveInt = 2048

    # Training.

    lr_generator: PositiveFloat = 5e-5  # Adam's learning rate
    # Adam's learning rate for the discriminator, where there is one
    lr_discriminator: PositiveFloat = 1e-4

    # The machine.

    # share each batch, one GPU each; 0: one per GPU. A run resumes with any number
    processes: NonNegativeInt = 1
    # bf16: matrix products in bfloat16, everything else in float32
    precision: Literal["fp32", "bf16"] = "fp32"
    # Where features are during training. none: read with each batch; ram, device: read once, an
    # error where they need more than 80% of the free memory; auto: the first of device, ram and
    # none that they fit into.
    hold: Literal["none", "ram", "device", "auto"] = "auto"
    # processes that read batches ahead; 0: a thread, which suffices for a local disk
    read_workers: NonNegativeInt = 0
    eval_batch: PositiveInt = 16  # windows

    def check_consistency(self) -> None:
        if not self.training_splits:
            raise ConfigError(
                "datasets_2d, datasets_3d: expected at least one split to train on, found none",
                "datasets_2d",
                "datasets_3d",
            )
        if not self.validation:
            raise ConfigError(
                "validation: expected at least one split, to choose the best epoch by; found none",
                "validation",
            )
        if self.processes > self.batch_size:
            raise ConfigError(
                f"processes: expected at most batch_size, {self.batch_size}: each has a window; "
                f"found {self.processes}",
                "processes",
                "batch_size",
            )
        if self.uses_motion and not self.splits_of("motion"):
            raise ConfigError(
                "motion: expected splits of real motion for the discriminator, found none. Or: "
                "prior = none.",
                "motion",
                "prior",
            )
        if len(self.evaluated) < len(self.evaluation):
            raise ConfigError(
                f"evaluation: expected each split once, found {self.evaluation}", "evaluation"
            )
        splits = {*self.datasets_2d, *self.datasets_3d, *self.motion}
        for setting in ("leave_out", "window_weights"):
            unused = sorted({*map(split_of, getattr(self, setting))} - splits)
            if unused:
                raise ConfigError(
                    f"{setting}: expected splits that are trained on, found {', '.join(unused)}",
                    setting,
                )
        partial = [
            entry for entry in self.leave_out if ":" in entry and split_of(entry) in self.motion
        ]
        if partial:
            raise ConfigError(
                f"leave_out: expected whole splits of motion, found {', '.join(partial)}",
                "leave_out",
                "motion",
            )
        if self._has_2d_and_3d and not 0 < self.windows_2d < self.batch_size:
            raise ConfigError(
                f"share_2d: {self.share_2d} of a batch of {self.batch_size} leaves no window "
                "for one of 2D and 3D. "
                "Use a larger batch, another share, or only one kind of dataset.",
                "share_2d",
            )

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the loss terms by name."""
        return {name: getattr(self, f"{name}_weight") for name in self.TERMS}

    @property
    def learns_depth(self) -> bool:
        """Whether it trains on more than 2D labels."""
        return bool(self.datasets_3d)

    @property
    def usual_start(self) -> str:
        """Whose regressor trainings usually start from, for messages; "" for random weights."""
        return ""

    @property
    def uses_motion(self) -> bool:
        """Whether training reads real motion."""
        return False

    @property
    def per_frame(self) -> bool:
        """Whether each frame is regressed from its own feature alone, as in the baseline."""
        return False

    def poses(self) -> RunConfig | None:
        """Configuration of additional batches of real motion, drawn apart from the video windows.

        None if the model reads no real motion, or reads it as the part `motion` of its batches.
        """
        return None

    @property
    def reads_made(self) -> tuple[str, ...]:
        """Settings in `MADE_BY` whose checkpoints this configuration reads."""
        return ()

    @property
    def missing_checkpoints(self) -> tuple[str, ...]:
        """Those of `reads_made` that are None: another training has to make the checkpoint."""
        return tuple(name for name in self.reads_made if getattr(self, name) is None)

    def checkpoint_error(self, name: str) -> ConfigError:
        """Make the error for a missing checkpoint. name: its setting in `MADE_BY`."""
        task, without = self.MADE_BY[name]
        return ConfigError(
            f"{name} = {getattr(self, name)}: expected best.pt of {task}, found no such file. "
            f"`luigi --module tasks {task}` trains it; {without} needs none."
        )

    def files(self) -> dict[str, Path | None]:
        """Setting -> checkpoint file that affects the run's results; None: no such file is used.

        Raises ConfigError for a missing checkpoint of `MADE_BY`.
        """
        files: dict[str, Path | None] = {"pretrained": self.pretrained}
        files |= dict.fromkeys(self.MADE_BY)
        for name in self.reads_made:
            file = getattr(self, name)
            if file is not None and not file.is_file():
                raise self.checkpoint_error(name)
            files[name] = file
        return files

    def vary(self, changes: Mapping[str, Any]) -> Self:
        """Change settings. Splits to leave out are added to those that are left out already."""
        left_out = dict.fromkeys((*self.leave_out, *changes.get("leave_out", ())))
        return replace(self, **{**changes, "leave_out": tuple(left_out)})

    def splits_of(self, part: str) -> tuple[str, ...]:
        """Splits of datasets_2d, datasets_3d or motion that are trained on."""
        if part == "motion" and not self.uses_motion:
            return ()
        return tuple(split for split in getattr(self, part) if split not in self.leave_out)

    def tracks_of(self, entry: str) -> str:
        """Pattern of the evaluated tracks, for an entry of `validation` or `evaluation`."""
        return pattern_of(entry) or self.tracks.get(split_of(entry), "*")

    @property
    def evaluated(self) -> dict[str, str]:
        """Split of `evaluation` -> pattern of its tracks."""
        return {split_of(entry): self.tracks_of(entry) for entry in self.evaluation}

    @property
    def _has_2d_and_3d(self) -> bool:
        """Whether batches have a 2D part and a 3D part, of sizes by `share_2d`."""
        return bool(self.splits_of("datasets_2d") and self.splits_of("datasets_3d"))

    @property
    def windows_2d(self) -> int:
        """Number of windows from `datasets_2d` in a batch."""
        if self._has_2d_and_3d:
            return int(self.batch_size * self.share_2d)
        return self.batch_size if self.splits_of("datasets_2d") else 0

    @property
    def parts(self) -> dict[str, int]:
        n_2d = self.windows_2d
        counts = {"datasets_2d": n_2d, "datasets_3d": self.batch_size - n_2d}
        return {part: count for part, count in counts.items() if self.splits_of(part)}

    @property
    def training_splits(self) -> tuple[str, ...]:
        """Splits of the 2D and 3D parts of a batch."""
        return (*self.splits_of("datasets_2d"), *self.splits_of("datasets_3d"))

    def streams_of(self, part: str) -> tuple[str, ...]:
        return () if part == "motion" else (self.stream,)

    @property
    def streams(self) -> dict[str, tuple[str, ...]]:
        extra = [reading.stream for reading in self.extra_streams.values()]
        by_split: dict[str, tuple[str, ...]] = {}
        reads = [(self.splits_of(part), self.streams_of(part)) for part in self.parts]
        evaluated = (*map(split_of, self.validation), *self.evaluated)
        for splits, names in (*reads, (evaluated, (self.stream,))):
            if not names:
                continue
            for split in splits:
                earlier = by_split.get(split, ())
                by_split[split] = tuple(dict.fromkeys((*earlier, *names, *extra)))
        return by_split

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.streams, *self.splits_of("motion"))))

    def inputs(self, opened: Mapping[str, Split]) -> dict[str, Any]:
        """Digests of all data that the run reads; None for a file that is not used.

        Example: {"splits": {"3dpw/train": "1f2e...", ...}, "streams": {"3dpw/train": "77aa...",
        ...}, "body": "9c01...", "pretrained": None, "mposer": "b3d4..."}.
        """
        stream_digests = dict[str, str]()
        for name, streams in self.streams.items():
            for stream in streams:
                key = name if stream == self.stream else f"{name}/{stream}"
                stream_digests[key] = opened[name].open_stream(stream).manifest["digest"]
        digests: dict[str, Any] = {"splits": super().inputs(opened), "streams": stream_digests}
        digests["body"] = None if self.body is None else folder_digest(self.body)
        for name, file in self.files().items():
            digests[name] = None if file is None else file_digest(file)
        return digests
