"""Sections of luigi.cfg for trainings.  [settings] -> training"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, TypeVar, cast

from cache.read.batches import OF_TRACKS
from pipeline.errors import ConfigError, did_you_mean
from pipeline.settings.file import Section
from pipeline.settings.sections import Declared, Settings, SettingValue
from vibe_model import models
from vibe_model.models import Model, Training
from vibe_model.settings import RunConfig, VideoConfig, split_of
from vibe_model.vibe.config import MPOSER, OF_VIBE, UNLESS_SET, MPoserConfig

C = TypeVar("C", bound=RunConfig)

VIBE: Final = models.find("vibe")
# preset for demo data: if [vibe] has it, so has every model with such a preset
EMBEDDED: Final = "embedded"
# Keys that name splits.
SPLITS: Final = ("datasets_2d", "datasets_3d", "poses_3d", "motion", "validation", "evaluation")


@dataclass(frozen=True, slots=True)
class WhichRuns:
    """Runs of a model by its section. Defaults for demo data differ: `which_runs`."""

    preset: str = "published"  # the other keys start from it; unless set, `embedded` for demo data
    # an ablation, which overrides the keys that it changes; join several by +
    variant: str | None = None
    # evaluation trains the per-frame baseline, too; unless set, for demo data only VIBE's does
    baseline: bool = True
    # `Report` trains and evaluates this model; unless set, it does so for demo data
    report: bool = False


def which_runs(s: Settings, model: Model = VIBE) -> WhichRuns:
    """Runs of a model by its section; on demo data with its short preset, if any. Raises
    ConfigError.
    """
    demo = s.embedded.enabled
    defaults = WhichRuns(
        preset=EMBEDDED if _small(s, model) and EMBEDDED in model.presets else model.preset,
        baseline=model is VIBE or not demo,
        report=model is VIBE or (demo and EMBEDDED in model.presets),
    )
    return replace(defaults, **s.source.section(model.section).parse(WhichRuns))


def _small(s: Settings, model: Model) -> bool:
    """Whether a model's default is a training of minutes."""
    return s.embedded.enabled if model is VIBE else which_runs(s).preset == EMBEDDED


def not_small(s: Settings, model: Model) -> str:
    """Note for a model that trains on demo data without a preset for them; "" for others."""
    if (
        not _small(s, model)
        or EMBEDDED in model.presets
        or "preset" in s.source.section(model.section)
    ):
        return ""
    return (
        f"{model.title} has no preset {EMBEDDED!r}, for demo data: it is trained by its "
        f"preset {model.preset!r}"
    )


def note_missing_depth(config: object) -> str:
    """Note for a training on 2D labels alone; "" for others, and for configurations without such
    labels.
    """
    if getattr(config, "datasets_3d", True):
        return ""
    return "trained on 2D labels alone (datasets_3d is empty): depth is not learned"


def model_settings(
    s: Settings, model: Model, given: str = "", seed: int | None = None
) -> VideoConfig:
    """A model's configuration. given: variant of an option, overrides luigi.cfg's. Raises
    ConfigError.
    """
    runs = which_runs(s, model)
    section = s.source.section(model.section)
    values = _own(section, model, runs.preset, besides=tuple(asdict(runs)))
    preset = model.presets[runs.preset]()
    paths = s.paths
    variant = given or runs.variant or ""
    values |= {
        "cache": paths.cache,
        "runs": paths.runs,
        "body": paths.body,
        "stream": s.stream.name,
    }
    if seed is not None:
        values["seed"] = seed
    values["feature_size"] = s.stream.stream.dim
    if runs.preset == EMBEDDED:
        for name in ("datasets_2d", "evaluation"):
            splits = [
                split for split in getattr(preset, name) if split.split("/")[0] in s.data.datasets
            ]
            if name not in values and (splits or name == "datasets_2d"):
                values[name] = tuple(splits)
    with _name_section(section, variant_by_option=bool(given)):
        config = replace(preset, **values)
        if not variant:
            return config
        # Settings of a variant override luigi.cfg.
        varied = models.variant_of(config, variant)
        return replace(varied, name=f"{config.name}-{variant}")


def mposer_settings(s: Settings, train: VideoConfig) -> MPoserConfig:
    """[mposer], with settings that a generator's decide. Raises ConfigError."""
    decided: dict[str, Any] = {name: getattr(train, name) for name in OF_VIBE}
    motion = decided["motion"] = tuple(
        split for split in train.motion if split not in train.leave_out
    )
    for name in ("strides", "window_weights"):  # other splits change nothing here
        decided[name] = {split: value for split, value in decided[name].items() if split in motion}
    with _name_section(s.source.section(VIBE.section)):
        return cast("MPoserConfig", replace(other_settings(s, MPOSER), **decided))


def other_settings(s: Settings, training: Training) -> RunConfig:
    """Configuration of a training that belongs to no model. Raises ConfigError."""
    section = s.source.section(training.section)
    preset = _preset_of(s, training)
    values = _own(section, training, preset, besides=("preset",))
    of_vibe = dict[str, Any]()
    if training is MPOSER:
        config = model_settings(s, VIBE)
        of_vibe |= {name: getattr(config, name) for name in UNLESS_SET}
    with _name_section(section):
        return replace(training.presets[preset](), **of_vibe | values)


def _preset_of(s: Settings, training: Training) -> str:
    """Preset of [mposer] or [pose_embedding]: `embedded` if [vibe] has it, unless set."""
    usual = training.preset
    if which_runs(s).preset == EMBEDDED:
        usual = EMBEDDED
    return s.source.section(training.section).get("preset", usual)


def _own(
    section: Section, training: Training, preset: str, *, besides: tuple[str, ...]
) -> dict[str, Any]:
    if preset not in training.presets:
        raise ConfigError(
            f"{section.where('preset')} = {preset}: expected one of {', '.join(training.presets)}"
        )
    for key in section:
        if key in training.elsewhere:
            sections = "[vibe] or [paths]" if training is MPOSER else "[paths] or [features]"
            raise ConfigError(f"{section.where(key)}: is set in {sections}, not here")
    section.check_keys((*besides, *training.settable))
    return section.parse(training.config)


@contextmanager
def _name_section(section: Section, *, variant_by_option: bool = False) -> Iterator[None]:
    """Context in which errors of a configuration name the line of luigi.cfg, or the option
    `--variant`.
    """
    try:
        yield
    except ConfigError as error:
        of_option = variant_by_option and str(error).startswith("variant:")
        text = section.prefix_line(str(error))
        if of_option:
            text = f"--{error}"
        raise ConfigError(text) from error


def check(s: Settings) -> None:
    """Raise ConfigError for mistakes in the sections themselves."""
    for name, message in models.broken(models.names()).items():
        if name in s.source.sections:
            raise ConfigError(f"{s.source.where(name)}: {message}")
    for model in models.every():
        _check_model(s, model, model_settings(s, model))
    other_settings(s, MPOSER)


def _check_model(s: Settings, model: Model, config: VideoConfig) -> None:
    where = functools.partial(s.source.where, model.section)
    splits, broken = s.known_splits()
    for key in ("strides", "tracks"):  # training would ignore other splits
        if key not in s.source.section(model.section):
            continue
        for name in getattr(config, key):
            if name not in splits and name.split("/")[0] not in broken:
                raise ConfigError(
                    f"{where(key)}: there is no split {name}; known: {', '.join(splits)}"
                )
    # Torch would refuse these only when training begins.
    if config.hold == "device" and config.device == "cpu":
        raise ConfigError(
            f"{where('hold')} = device: device is cpu, whose memory is called ram. Take ram, or "
            "auto."
        )
    if config.processes > 1 and config.device.startswith("cuda:"):
        raise ConfigError(
            f"{where('processes')} = {config.processes}: device is {config.device}, but each "
            "of several processes has a GPU of its own. Take device = cuda."
        )


def check_inputs(s: Settings, config: RunConfig, section_name: str = VIBE.section) -> None:
    """Check splits, streams and checkpoint of a configuration, before hours of conversion. Raises
    ConfigError.
    """
    splits, broken = s.known_splits(s.data.datasets)
    if isinstance(config, VideoConfig):
        section = s.source.section(config.MODEL)
        with _name_section(section):
            config.check_feature_size()
    else:
        section = s.source.section(section_name)
    for key in SPLITS:
        at = section.where(key)
        named = map(split_of, getattr(config, key, ()))
        for name in (name for name in named if name in config.splits and name not in splits):
            dataset = name.split("/")[0]
            if dataset in broken:
                raise ConfigError(f"{at}: {broken[dataset]}")
            if dataset not in s.data.datasets:
                raise ConfigError(
                    f"{at}: {name} is to be used, but [data] datasets does not enable it. "
                    f"Enable it, or set {', '.join(SPLITS)} to enabled datasets."
                )
            suited = [
                n for n in splits if n.endswith("/train") or key in ("validation", "evaluation")
            ] or splits
            similar = did_you_mean(name, suited) or ";"
            raise ConfigError(f"{at}: there is no split {name}{similar} known: {', '.join(splits)}")
    specs = {spec.name: spec.stream for spec in s.streams}
    if isinstance(config, VideoConfig):
        for split, streams in config.streams.items():
            if split in splits:
                needing = {name: specs[name] for name in streams if name in specs}
                _check_columns(s, config, split, needing)
    pretrained = getattr(config, "pretrained", None)
    if pretrained is not None and not pretrained.is_file():
        raise ConfigError(
            f"{section.where('pretrained')} = {pretrained}: there is no such file. Name "
            "another, or none."
        )


def _check_columns(
    s: Settings, config: VideoConfig, split: str, streams: Mapping[str, Any]
) -> None:
    """Raise ConfigError for a stream that is computed from what the split's reader does not
    write.
    """
    dataset, _, part = split.partition("/")
    reader = s.dataset(dataset)
    extra = (column.name for column in reader.extra_columns(part, body=True))
    columns = {*reader.columns(part, body=True), *extra, *OF_TRACKS}
    for name, stream in streams.items():
        missing = [column for column in stream.needs if column not in columns]
        if missing:
            naming = [
                key
                for key in SPLITS
                if key != "motion" and split in map(split_of, getattr(config, key, ()))
            ]
            where = s.source.section(config.MODEL).where(naming[0])
            raise ConfigError(
                f"{where}: stream {name!r} is computed from {', '.join(missing)}, which {split} "
                "does not have. Use other splits, or a variant without this stream."
            )


def _values(s: Settings) -> Iterator[SettingValue]:
    """Effective values and defaults of every section."""
    for model in models.every():
        runs = which_runs(s, model)
        config = model_settings(s, model)
        usual = asdict(WhichRuns(preset=model.preset, report=model is VIBE))
        yield from _values_of(model, config, runs.preset, asdict(runs), usual)
    yield from other_values(s, MPOSER)


def other_values(s: Settings, training: Training) -> Iterator[SettingValue]:
    """Values of the section of a training that belongs to no model."""
    preset = _preset_of(s, training)
    config = other_settings(s, training)
    return _values_of(training, config, preset, {"preset": preset}, {"preset": training.preset})


def _values_of(
    training: Training,
    config: RunConfig,
    preset: str,
    values: Mapping[str, Any],
    usual: Mapping[str, Any],
) -> Iterator[SettingValue]:
    yield from (
        SettingValue(training.section, key, value, usual[key]) for key, value in values.items()
    )
    unset = training.presets[preset]()
    for key in training.settable:
        yield SettingValue(training.section, key, getattr(config, key), getattr(unset, key))


def _check_all_inputs(s: Settings) -> None:
    for model in models.every():
        section = s.source.section(model.section)
        if (
            model is VIBE
            or section.keys() - {"report"}
            or (section and which_runs(s, model).report)
        ):
            check_inputs(s, model_settings(s, model))


SECTIONS: Final = Declared(check, _values, _check_all_inputs)
