"""luigi.cfg, read once, at the edge, into typed objects; a typo is an error, not a default."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from configparser import ConfigParser, Error
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from cache import Root
from pipeline import datasets, streams
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError
from pipeline.feature_settings import Features, streams_of
from pipeline.parsing import AtLeast, typed
from pipeline.places import settings_file
from pipeline.stream_spec import StreamSpec
from vibe_model.config import TrainConfig
from vibe_model.mposer_config import MPoserConfig

T = TypeVar("T")

# Sections that are Luigi's own, read by itself.
LUIGI: Final = frozenset(
    {"core", "scheduler", "worker", "retcode", "logging", "email", "resources", "task_history", "task"}
)

# Keys of [train] that are no setting of a run, but say which runs there are.
OF_TRAIN: Final = frozenset({"preset", "variant", "baseline"})


@dataclass(frozen=True, slots=True)
class Paths:
    """[paths]: where everything lies. Relative paths are below the folder of luigi.cfg."""

    raw: Path  # raw/<dataset>/ is that dataset's own download
    body: Path  # SMPL's files, or the stand-in's
    cache: Root
    runs: Path


@dataclass(frozen=True, slots=True)
class Data:
    """[data]: which datasets take part."""

    datasets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Embedded:
    """[embedded]: the small stand-in data that is made when there is no real data."""

    enabled: bool = False  # make it in [paths] raw and body, which must then be empty or stand-ins
    seed: Annotated[int, AtLeast(0)] = 0
    size: Literal["tiny", "default", "large"] = "default"


@dataclass(frozen=True, slots=True)
class Convert:
    """[convert]: raw -> tracks."""

    workers: Annotated[int, AtLeast(0)] = 0  # processes; 0: one a core
    strict: bool = False  # fail on the first video that cannot be used, instead of setting it aside


@dataclass(frozen=True, slots=True)
class Dask:
    """[dask]: conversion and extraction on a cluster."""

    scheduler: str | None = None  # its address, as tcp://node:8786, or the file that it wrote; none: on this machine


@dataclass(frozen=True, slots=True)
class Settings:
    """All of luigi.cfg that is ours. `train`, `mposer` and the datasets' own sections stay text for their owners."""

    file: Path
    paths: Paths
    data: Data
    embedded: Embedded
    convert: Convert
    features: Features
    dask: Dask
    stream: StreamSpec  # [features], with the options of its kind
    crops: StreamSpec | None  # what it is computed from, where that is a stream of crops
    train: Mapping[str, str]
    mposer: Mapping[str, str]
    options: Mapping[str, Mapping[str, Any]]  # dataset -> its reader's options, typed

    def dataset(self, name: str) -> Dataset:
        return datasets.get(name, **self.options.get(name, {}))

    def raw(self, name: str) -> Path:
        return self.paths.raw / name

    @property
    def embedded_datasets(self) -> tuple[str, ...]:
        """The enabled datasets that stand-in data is made for. Those of other packages bring their own raw files."""
        return tuple(name for name in self.data.datasets if self.embedded.enabled and name in datasets.DATASETS)

    @property
    def workers(self) -> int:
        return self.convert.workers or len(os.sched_getaffinity(0))


@functools.cache
def settings() -> Settings:
    """The effective settings. Raises ConfigError."""
    return load(settings_file())


def load(file: Path) -> Settings:
    """Read and check a whole luigi.cfg.

    Raises ConfigError for a missing file, an unknown section or key, or a value of the wrong type or out of range.
    """
    cfg = _read(file)
    own = {"paths": Paths, "data": Data, "embedded": Embedded, "convert": Convert, "features": Features, "dask": Dask}
    taken = {*own, "train", "mposer", *datasets.names()}
    if twice := sorted(taken & set(streams.names())):
        raise ConfigError(f"a stream of another package is called {twice[0]!r}, as a section of {file}: rename it")
    known = {*taken, *streams.names()}
    if unknown := sorted(set(cfg.sections()) - known - LUIGI):
        raise ConfigError(f"{file}: unknown section [{unknown[0]}]; known: {', '.join(sorted(known))}, and Luigi's own")
    sections: dict[str, Any] = {name: _section(file, cfg, name, spec) for name, spec in own.items()}
    _check_datasets(file, sections["data"].datasets)
    train = dict(cfg["train"]) if cfg.has_section("train") else {}
    typed(file, "train", {key: text for key, text in train.items() if key not in OF_TRAIN}, TrainConfig)
    mposer = dict(cfg["mposer"]) if cfg.has_section("mposer") else {}
    typed(file, "mposer", {key: text for key, text in mposer.items() if key != "preset"}, MPoserConfig)
    stream, crops = streams_of(file, cfg, sections["features"])
    return Settings(
        file=file,
        **sections,
        stream=stream,
        crops=crops,
        train=train,
        mposer=mposer,
        options={name: _options(file, cfg, name) for name in datasets.names() if cfg.has_section(name)},
    )


def _read(file: Path) -> ConfigParser:
    cfg = ConfigParser(interpolation=None)
    try:
        with file.open(encoding="utf-8") as stream:
            cfg.read_file(stream)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file.resolve()}: there is no such file. Run from the project's folder, or set LUIGI_CONFIG_PATH."
        ) from error
    except (Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    return cfg


def _section(file: Path, cfg: ConfigParser, name: str, spec: type[T]) -> T:
    """[name] -> spec, a dataclass."""
    values = typed(file, name, dict(cfg[name]) if cfg.has_section(name) else {}, spec)
    required = [f.name for f in fields(spec) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    if missing := [key for key in required if key not in values]:
        raise ConfigError(f"{file} [{name}]: {missing[0]!r} is missing")
    return spec(**values)


def _options(file: Path, cfg: ConfigParser, name: str) -> dict[str, Any]:
    """A dataset's own section, tried on its reader."""
    options = typed(file, name, dict(cfg[name]), type(datasets.get(name)))
    try:
        datasets.get(name, **options)
    except ConfigError as error:
        raise ConfigError(f"{file} [{name}] {error}") from error
    return options


def _check_datasets(file: Path, enabled: tuple[str, ...]) -> None:
    if strangers := sorted(set(enabled) - set(datasets.names())):
        raise ConfigError(f"{file} [data] datasets: unknown {strangers}; known: {', '.join(datasets.names())}")
    if not enabled or len(set(enabled)) < len(enabled):
        found = f"one twice ({' '.join(enabled)})" if enabled else "none"
        raise ConfigError(
            f"{file} [data] datasets: expected one or more of {', '.join(datasets.names())}, found {found}"
        )
