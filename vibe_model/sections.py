"""Sections of luigi.cfg for trainings.  [settings] -> training

Each model has a section, such as [vibe]; so have the trainings that belong to no model, [mposer]
and [pose_embedding]. This module makes configurations (`RunConfig`) from the sections, and checks
them. A preset is a named set of defaults; the keys of a section override it. A variant is an
ablation that overrides keys of the section.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self, TypeVar

from cache.read.open_split import TRACK_FIELDS
from pipeline.errors import ConfigError, did_you_mean
from pipeline.settings.file import Section
from pipeline.settings.sections import Settings, SettingValue, stream_of
from vibe_model import models
from vibe_model.models import Model, Training
from vibe_model.part_dynamics.pr_vipe.config import PR_VIPE, PrVIPEConfig
from vibe_model.reading import split_of
from vibe_model.settings import SPIN, RunConfig, VideoConfig
from vibe_model.vibe.config import MPOSER, OF_VIBE, MPoserConfig

C = TypeVar("C", bound=RunConfig)

VIBE: Final = models.find("vibe")
_WITHOUT_MODEL: Final[tuple[Training[Any], ...]] = (MPOSER, PR_VIPE)
# Name of the preset for demo data. If [vibe] uses it, it is the default of all other models that
# have such a preset.
_DEMO_PRESET: Final = "embedded"
WITHOUT_DEPTH: Final = "trained on 2D labels alone (datasets_3d is empty): depth is not learned"
_SPLIT_KEYS: Final = (
    "datasets_2d",
    "datasets_3d",
    "poses_3d",
    "motion",
    "validation",
    "evaluation",
)


@dataclass(frozen=True, slots=True)
class RunChoice:
    """Keys of a model's section that choose its runs.

    The other keys are fields of its configuration. On demo data, defaults differ: `read`.
    """

    preset: str = "published"  # the other keys start from it; unless set, `embedded` for demo data
    # an ablation, which overrides the keys that it changes; join several by +
    variant: str | None = None
    # evaluation trains the per-frame baseline, too; unless set, for demo data only VIBE's does
    baseline: bool = True
    # `Report` trains and evaluates this model; unless set, it does so for demo data
    report: bool = False

    @classmethod
    def default(cls, model: Model) -> Self:
        """A model's runs on real data, by a section without keys."""
        return cls(preset=model.preset, report=model.always_reported)

    @classmethod
    def read(cls, settings: Settings, model: Model = VIBE) -> Self:
        """Read a model's choice from its section. Raises ConfigError.

        `Model.always_reported` says the defaults of `baseline` and `report`. Another model is
        reported on demo data only if it has the preset for them.
        """
        demo = settings.embedded.enabled
        defaults = cls(
            preset=_preset_of(settings, model),
            baseline=model.always_reported or not demo,
            report=model.always_reported or (demo and _DEMO_PRESET in model.presets),
        )
        return replace(defaults, **settings.source.section(model.section).parse(cls))


def _preset_of(settings: Settings, training: Training[Any]) -> str:
    """Name of a training's preset: that of its section, else the default.

    The default is the preset for demo data, if the training has it and `_is_short`.
    """
    default = training.preset
    if _is_short(settings) and _DEMO_PRESET in training.presets:
        default = _DEMO_PRESET
    return settings.source.section(training.section).get("preset", default)


def _is_short(settings: Settings) -> bool:
    """Whether trainings should by default take minutes, by the preset for demo data.

    They do if VIBE uses that preset, which is VIBE's default if [embedded] is enabled.
    """
    vibe = settings.source.section(VIBE.section)
    if "preset" in vibe:
        return vibe["preset"] == _DEMO_PRESET
    return settings.embedded.enabled


@dataclass(frozen=True, slots=True)
class ModelSections:
    """The sections of luigi.cfg with the settings of models and of other trainings."""

    settings: Settings

    def check(self) -> None:
        """Raise ConfigError for mistakes in the sections of all trainings.

        `check_inputs` checks the splits, streams and files that they name. Without streams nothing
        can be trained, and nothing is checked.
        """
        if not self.settings.streams:
            return
        for name, error in models.load_all(models.names()).broken.items():
            if name in self.settings.source.sections:
                raise ConfigError(f"{self.settings.source.where(name)}: {error}")
        for model in models.every():
            self._check_model(model, self.model(model))
        for training in _WITHOUT_MODEL:
            self._training_settings(training)

    def check_all_inputs(self) -> Iterator[str]:
        """`check_inputs` for all models whose sections or defaults say that they are trained.

        Yields their `doubts`.
        """
        for model in models.every():
            section = self.settings.source.section(model.section)
            if (
                model.always_reported
                or section.keys() - {"report", "pretrained"}  # which `init` sets for all
                or (section and RunChoice.read(self.settings, model).report)
            ):
                config = self.model(model)
                self.check_inputs(config, model)
                if config.device.startswith("cuda"):  # does this machine have it?
                    from vibe_model.devices import device_of  # imports torch

                    with _name_section(section):
                        device_of(config.device)
                yield from self.doubts(config)

    def doubts(self, config: VideoConfig) -> Iterator[str]:
        """Yield warnings, before a training, about settings that its results suffer from."""
        if not config.learns_depth:
            yield WITHOUT_DEPTH
        preset = _preset_of(self.settings, models.find(config.MODEL))
        if config.usual_start and config.pretrained is None and preset != _DEMO_PRESET:
            yield (
                f"{config.name} starts from a random regressor, not from {config.usual_start} "
                f"([{config.MODEL}] pretrained = none)"
            )

    def check_inputs(self, config: RunConfig, training: Training[Any]) -> None:
        """Check that a training's splits, streams and checkpoint are known or exist.

        Called before the conversion, which takes hours. Raises ConfigError, which names the
        training's section.
        """
        splits, broken = self.settings.known_splits(self.settings.data.datasets)
        section = self.settings.source.section(training.section)
        with _name_section(section):
            config.check_feature_size()
        for key in _SPLIT_KEYS:
            for name in map(split_of, getattr(config, key, ())):
                if name in config.splits and name not in splits:
                    reason = broken.get(name.split("/")[0]) or self._why_unknown(name, splits)
                    raise ConfigError(f"{section.where(key)}: {reason}")
        for split, names in config.streams.items():
            if split in splits:
                streams = {name: stream_of(self.settings.source, name).stream for name in names}
                self._check_columns(config, split, streams)
        if not isinstance(config, VideoConfig) or config.pretrained is None:
            return
        pretrained = config.pretrained
        if not pretrained.is_file():
            raise ConfigError(
                f"{section.where('pretrained')} = {pretrained}: there is no such file. Name "
                "another, or none."
            )
        weights = self.settings.stream.stream.weights_file
        if pretrained == weights and config.usual_start not in ("", SPIN):
            raise ConfigError(
                f"{section.where('pretrained')} = {pretrained}: SPIN's regressor has other "
                "layers. Set pretrained = none, or regressor = spin."
            )

    def model(
        self, model: Model, variant: str | None = None, seed: int | None = None
    ) -> VideoConfig:
        """Make a model's configuration. Each step overrides the settings of those before it:

        1. the preset; `_enabled_splits` cuts that for demo data
        2. the model's section
        3. paths and features of other sections, and `seed` (the option `--seed`)
        4. `variant` (the option `--variant`), or else that of the section

        Raises ConfigError for invalid settings.
        """
        runs = RunChoice.read(self.settings, model)
        section = self.settings.source.section(model.section)
        values = _parse_settings(section, model, runs.preset, besides=tuple(asdict(runs)))
        preset = model.presets[runs.preset]()
        if runs.preset == _DEMO_PRESET:
            values = self._enabled_splits(preset) | values
        values |= {
            "cache": self.settings.paths.cache,
            "at": self.settings.data.at,
            "runs": self.settings.paths.runs,
            "body": self.settings.paths.body,
            "stream": self.settings.stream.name,
            "feature_size": self.settings.stream.stream.dim,
        }
        if seed is not None:
            values["seed"] = seed

        if variant:
            model.parse_variant(variant, "--variant")  # raises ConfigError
        with _name_section(section):
            config = replace(preset, **values)
            chosen = variant or runs.variant
            if not chosen:
                return config
            varied = model.vary(config, chosen)
            return replace(varied, name=f"{config.name}-{chosen}")

    def mposer(self, train: VideoConfig) -> MPoserConfig:
        """Configuration of the motion prior for the generator `train`. Raises ConfigError.

        It comes from [mposer], except for the settings in `OF_VIBE` and the motion splits: those
        are the generator's, so that the prior learns from the same windows.
        """
        decided: dict[str, Any] = {name: getattr(train, name) for name in OF_VIBE}
        motion = tuple(split for split in train.motion if split not in train.leave_out)
        decided["motion"] = motion
        for name in ("strides", "window_weights"):  # the prior reads no other splits
            decided[name] = {
                split: value for split, value in decided[name].items() if split in motion
            }
        with _name_section(self.settings.source.section(VIBE.section)):
            return replace(self._training_settings(MPOSER), **decided)

    def pr_vipe(self) -> PrVIPEConfig:
        """[pose_embedding] with the paths. Raises ConfigError."""
        return replace(
            self._training_settings(PR_VIPE),
            cache=self.settings.paths.cache,
            at=self.settings.data.at,
            runs=self.settings.paths.runs,
            body=self.settings.paths.body,
        )

    def values(self) -> Iterator[SettingValue]:
        """Yield the effective value and the default of every key of these sections."""
        for model in models.every():
            runs = RunChoice.read(self.settings, model)
            defaults = asdict(RunChoice.default(model))
            yield from _values_of(model, self.model(model), asdict(runs), defaults)
        for training in _WITHOUT_MODEL:
            preset = _preset_of(self.settings, training)
            yield from _values_of(
                training,
                self._training_settings(training),
                values={"preset": preset},
                defaults={"preset": training.preset},
            )

    def _enabled_splits(self, preset: VideoConfig) -> dict[str, Any]:
        """The preset's splits of enabled datasets, by key; `evaluation` only if it has any."""
        enabled = {}
        for key in ("datasets_2d", "evaluation"):
            splits = tuple(
                split
                for split in getattr(preset, key)
                if split.split("/")[0] in self.settings.data.datasets
            )
            if splits or key == "datasets_2d":
                enabled[key] = splits
        return enabled

    def _training_settings(self, training: Training[C]) -> C:
        """Configuration of a training that belongs to no model. Raises ConfigError."""
        section = self.settings.source.section(training.section)
        preset = _preset_of(self.settings, training)
        values = _parse_settings(section, training, preset, besides=("preset",))
        with _name_section(section):
            return replace(training.presets[preset](), **values)

    def _check_model(self, model: Model, config: VideoConfig) -> None:
        """Raise ConfigError for settings that training would ignore, or refuse when it begins."""
        where = functools.partial(self.settings.source.where, model.section)
        splits, broken = self.settings.known_splits()
        for key in ("strides", "tracks"):  # training would ignore unknown splits
            if key not in self.settings.source.section(model.section):
                continue
            for name in getattr(config, key):
                if name not in splits and name.split("/")[0] not in broken:
                    raise ConfigError(
                        f"{where(key)}: there is no split {name}; known: {', '.join(splits)}"
                    )
        # Torch would refuse this only when training begins.
        if config.processes > 1 and config.device.startswith("cuda:"):
            raise ConfigError(
                f"{where('processes')} = {config.processes}: device is {config.device}, but each "
                "of several processes has a GPU of its own. Take device = cuda."
            )

    def _check_columns(self, config: RunConfig, split: str, streams: Mapping[str, Any]) -> None:
        """Raise ConfigError if a stream is computed from columns that the split will not have."""
        dataset, _, part = split.partition("/")
        reader = self.settings.dataset(dataset)
        extra = (column.name for column in reader.extra_columns(part, body=True))
        columns = {*reader.columns(part, body=True), *extra, *TRACK_FIELDS}
        for name, stream in streams.items():
            missing = [column for column in stream.needs if column not in columns]
            if missing:
                raise ConfigError(
                    f"{self.settings.source.where(config.MODEL)}: stream {name!r} is computed from "
                    f"{', '.join(missing)}, which {split} does not have. Use other splits, or a "
                    "variant without this stream."
                )

    def _why_unknown(self, name: str, splits: Sequence[str]) -> str:
        """Why there is no split `name` among the splits of enabled datasets, and what to do."""
        if name.split("/")[0] not in self.settings.data.datasets:
            return (
                f"{name} is to be used, but [data] datasets does not enable it. "
                f"Enable it, or set {', '.join(_SPLIT_KEYS)} to enabled datasets."
            )
        suggestion = did_you_mean(name, splits) or ";"
        return f"there is no split {name}{suggestion} known: {', '.join(splits)}"


def _parse_settings(
    section: Section, training: Training[Any], preset: str, *, besides: tuple[str, ...]
) -> dict[str, Any]:
    """Parse the training's settings in its section. besides: other keys that are allowed.

    Raises ConfigError for an unknown preset or key, for a key that another section sets, and for an
    invalid value.
    """
    if preset not in training.presets:
        raise ConfigError(
            f"{section.where('preset')} = {preset}: expected one of {', '.join(training.presets)}"
        )
    for key in section:
        if key in training.inherited:
            raise ConfigError(
                f"{section.where(key)}: is set in {training.inherited_from}, not here"
            )
    section.check_keys((*besides, *training.settable))
    return section.parse(training.config)


@contextmanager
def _name_section(section: Section) -> Iterator[None]:
    """Context that adds the line of luigi.cfg to ConfigErrors of a configuration."""
    try:
        yield
    except ConfigError as error:
        raise section.locate(error) from error


def _values_of(
    training: Training[C],
    config: C,
    values: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> Iterator[SettingValue]:
    yield from (
        SettingValue(training.section, key, value, defaults[key]) for key, value in values.items()
    )
    unset = training.presets[values["preset"]]()
    for key in training.settable:
        yield SettingValue(training.section, key, getattr(config, key), getattr(unset, key))
