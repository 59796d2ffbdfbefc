"""luigi.cfg, read once, at the edge, into typed objects; a typo is an error, not a default."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from pipeline import datasets
from pipeline.errors import ConfigError
from pipeline.settings import sections
from pipeline.settings.file import LUIGI as LUIGI
from pipeline.settings.file import SettingsFile, Text, did_you_mean, located, settings_file, where
from pipeline.settings.sections import Sections
from pipeline.settings.types import check_keys, typed
from vibe_model.errors import VibeModelError
from vibe_model.settings import config as of_training
from vibe_model.settings import mposer_config as of_mposer
from vibe_model.settings.config import TrainConfig
from vibe_model.settings.mposer_config import MPoserConfig
from vibe_model.settings.variants import variant_of

# Keys of [train] that are no setting of a run, but say which runs there are.
OF_TRAIN: Final = ("preset", "variant", "baseline")
# Settings of a run that other sections say.
ELSEWHERE: Final = ("cache", "runs", "body", "stream")
# A prior is for the windows that a generator is trained on: these settings of it are [train]'s.
OF_TRAINING: Final = ("cache", "runs", "validation", "seqlen", "stride", "strides", "window_weights", "tail", "seed")

UNLESS_SET: Final = ("device", "threads")  # these too, where [mposer] says nothing
# Those of [train] that name splits that are read.
SPLITS: Final = ("datasets_2d", "datasets_3d", "motion", "validation", "evaluation")


@dataclass(frozen=True, slots=True)
class Settings(Sections):
    """All of luigi.cfg that is ours. `train` and `mposer` are checked, and stay text for those who build on presets."""

    train: Mapping[str, Text]
    mposer: Mapping[str, Text]

    @property
    def embedded_datasets(self) -> tuple[str, ...]:
        """The enabled datasets that stand-in data is made for. Those of other packages bring their own raw files."""
        return tuple(name for name in self.data.datasets if self.embedded.enabled and name in datasets.DATASETS)

    @property
    def workers(self) -> int:
        return self.convert.workers or len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class WhichRuns:
    """[train]: which runs there are, and what the other keys start from."""

    preset: str = "published"
    variant: str | None = None  # several are joined by +
    baseline: bool = True  # EvaluateVIBE trains the per-frame baseline, too


@functools.cache
def settings() -> Settings:
    """The effective settings. Raises ConfigError."""
    return load(settings_file())


def load(file: Path) -> Settings:
    """Read and check a whole luigi.cfg.

    Raises ConfigError, which names the line, as `pipeline.settings.sections.load` does, and for mistakes in [train] and
    [mposer] that can be seen without looking at what they name.
    """
    found = sections.load(file)
    given = {f.name: getattr(found, f.name) for f in fields(found)}
    made = Settings(**given, train=found.source.section("train"), mposer=found.source.section("mposer"))
    config = own_config(made)
    _check_names_of_splits(found.source, config)
    _check_device(found.source, config)
    own_mposer(made)
    return made


def which_runs(s: Settings) -> WhichRuns:
    """Raises ConfigError."""
    return WhichRuns(**typed(s.file, "train", {k: text for k, text in s.train.items() if k in OF_TRAIN}, WhichRuns))


def own_config(s: Settings, variant: str = "", seed: int | None = None) -> TrainConfig:
    """[train]: a preset, what luigi.cfg says instead, the paths, and a variant of that, as it stands there or another.

    Raises ConfigError.
    """
    runs = which_runs(s)
    if runs.preset not in of_training.PRESETS:
        raise _no_preset(s.file, "train", s.train, of_training.PRESETS)
    elsewhere: dict[str, Any] = {
        "cache": s.paths.cache,
        "runs": s.paths.runs,
        "body": s.paths.body,
        "stream": s.features.stream,
    }
    given = {key: text for key, text in s.train.items() if key not in OF_TRAIN}
    _refuse(s.file, "train", given, ELSEWHERE, "[paths] or [features]")
    check_keys(s.file, "train", given, [*OF_TRAIN, *_names(TrainConfig, ELSEWHERE)])
    changes = typed(s.file, "train", given, TrainConfig)
    variant = variant or runs.variant or ""
    try:
        own = replace(of_training.PRESETS[runs.preset](), **elsewhere, **changes)
        # A variant is what it is called, whatever luigi.cfg says of the settings that make it.
        config = replace(variant_of(own, variant), name=f"{own.name}-{variant}" if variant else own.name)
        return config if seed is None else replace(config, seed=seed)
    except VibeModelError as error:
        raise ConfigError(located(s.file, "train", s.train, str(error))) from error


def own_mposer(s: Settings) -> tuple[MPoserConfig, dict[str, Any]]:
    """[mposer]: its preset, and what luigi.cfg says instead.

    The preset is `embedded` where [train] has that, else `amass`. Raises ConfigError.
    """
    given = dict(s.mposer)
    preset = given.pop("preset", "embedded" if which_runs(s).preset == "embedded" else "amass")
    if preset not in of_mposer.PRESETS:
        raise _no_preset(s.file, "mposer", s.mposer, of_mposer.PRESETS)
    decided = (*OF_TRAINING, "motion")
    _refuse(s.file, "mposer", given, decided, "[train] or [paths]")
    check_keys(s.file, "mposer", given, ["preset", *_names(MPoserConfig, decided)])
    changes = typed(s.file, "mposer", given, MPoserConfig)
    try:
        return replace(of_mposer.PRESETS[preset](), **changes), changes
    except VibeModelError as error:
        raise ConfigError(located(s.file, "mposer", given, str(error))) from error


def check_what_it_reads(s: Settings, config: TrainConfig) -> None:
    """What can be known before hours of conversion: are the splits enabled, do they exist, is the checkpoint there?

    Raises ConfigError.
    """
    broken = datasets.broken(s.data.datasets)
    every = {name: datasets.get(name).splits for name in s.data.datasets if name not in broken}
    for key in SPLITS:
        wanted, where = getattr(config, key), s.source.where("train", key)
        for name in (name.split("/")[0] for name in wanted if name in config.splits):
            if name in broken:
                raise ConfigError(f"{where}: {broken[name]}")
        absent = [name for name in wanted if name in config.splits and name.split("/")[0] not in every]
        if absent:
            raise ConfigError(
                f"{where}: {', '.join(absent)} is to be used, but [data] datasets does not enable it. Enable it, or "
                f"set {', '.join(SPLITS)} to what there is."
            )
        known = [f"{name}/{split}" for name, splits in every.items() for split in splits]
        for name in wanted:
            if name in config.splits and name not in known:
                close = did_you_mean(name, known)
                raise ConfigError(f"{where}: there is no split {name}{close} known: {', '.join(known)}")
    if config.pretrained is not None and not config.pretrained.is_file():
        where = s.source.where("train", "pretrained")
        raise ConfigError(f"{where} = {config.pretrained}: there is no such file. Name another, or none.")


def _names(spec: type[Any], but: tuple[str, ...]) -> list[str]:
    return [field.name for field in fields(spec) if field.name not in but]


def _no_preset(file: Path, section: str, given: Mapping[str, str], presets: Mapping[str, Any]) -> ConfigError:
    found = given["preset"]
    return ConfigError(f"{where(file, section, 'preset', found)} = {found}: expected one of {', '.join(presets)}")


def _refuse(file: Path, section: str, given: Mapping[str, str], keys: tuple[str, ...], there: str) -> None:
    for key, text in given.items():
        if key in keys:
            raise ConfigError(f"{where(file, section, key, text)}: is set in {there}, not here")


def _check_names_of_splits(source: SettingsFile, config: TrainConfig) -> None:
    """Raises ConfigError for a stride or a pattern of a split that no dataset has: nothing else would ever miss it."""
    broken = datasets.broken(datasets.names())
    whole = [name for name in datasets.names() if name not in broken]
    known = [f"{name}/{split}" for name in whole for split in datasets.get(name).splits]
    for key in ("strides", "tracks"):
        for name in getattr(config, key) if key in source.section("train") else ():
            if name not in known and name.split("/")[0] not in broken:
                at = source.where("train", key)
                raise ConfigError(f"{at}: there is no split {name}; known: {', '.join(known)}")


def _check_device(source: SettingsFile, config: TrainConfig) -> None:
    """Raises ConfigError for what torch would refuse only when training begins."""
    at = functools.partial(source.where, "train")
    if config.hold == "device" and config.device == "cpu":
        raise ConfigError(f"{at('hold')} = device: device is cpu, whose memory is called ram. Take ram, or auto.")
    if config.processes > 1 and config.device.startswith("cuda:"):
        raise ConfigError(
            f"{at('processes')} = {config.processes}: device is {config.device}, but each of several processes has a "
            "GPU of its own. Take device = cuda."
        )
