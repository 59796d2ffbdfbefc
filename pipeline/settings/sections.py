"""luigi.cfg but for training, typed: what conversion and extraction depend on.  [raw] -> tracks -> features

`tasks.settings` adds [train] and [mposer], of which nothing is known here but the names.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from cache import Root
from pipeline import datasets
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.settings.features import Features, streams_of
from pipeline.settings.file import GONE, LUIGI, SettingsFile, blamed, did_you_mean, read
from pipeline.settings.types import AtLeast, typed

T = TypeVar("T")

OF_TRAINING: Final = ("train", "mposer")  # sections that are checked by their owner


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


TYPES: Final[Mapping[str, type[Any]]] = {
    "paths": Paths,
    "data": Data,
    "embedded": Embedded,
    "convert": Convert,
    "features": Features,
    "dask": Dask,
}


@dataclass(frozen=True, slots=True)
class Sections:
    """What luigi.cfg says, as far as it is the pipeline's."""

    source: SettingsFile
    paths: Paths
    data: Data
    embedded: Embedded
    convert: Convert
    features: Features
    dask: Dask
    stream: StreamSpec  # [features], with the options of its kind
    crops: StreamSpec | None  # what it is computed from, where that is a stream of crops
    options: Mapping[str, Mapping[str, Any]]  # dataset -> its reader's options, typed

    @property
    def file(self) -> Path:
        return self.source.path

    def dataset(self, name: str) -> Dataset:
        return datasets.get(name, **self.options.get(name, {}))

    def raw(self, name: str) -> Path:
        return self.paths.raw / name


def load(file: Path, do: str | None = None) -> Sections:
    """Read and check all of luigi.cfg but [train], [mposer] and Luigi's own sections.

    Raises ConfigError, which names the line, for an unknown section or key, a value of the wrong type or out of range,
    what is missing, and settings that contradict each other. `do`: what to do where there is no such file.
    """
    source = read(file) if do is None else read(file, do)
    _check_sections(source)
    values: dict[str, Any] = {name: _section(source, name, spec) for name, spec in TYPES.items()}
    _check_datasets(source, values["data"].datasets)
    stream, crops = streams_of(source, values["features"])
    own = _all_options(source)
    sections = Sections(source=source, **values, stream=stream, crops=crops, options=own)
    _check_folders(sections)
    _check_devices(sections)
    return sections


def _check_sections(source: SettingsFile) -> None:
    taken = {*TYPES, *OF_TRAINING, *datasets.names()}
    if twice := sorted(taken & set(streams.names())):
        raise ConfigError(
            f"a stream of another package is called {twice[0]!r}, as a section of {source.path}: rename it"
        )
    known = sorted({*taken, *streams.names()})
    for name in source.sections:
        if (name, "") in GONE:
            raise ConfigError(f"{source.where(name)}: there is no such section any more. {GONE[name, '']}")
        if name not in known and name not in LUIGI:
            close = did_you_mean(name, [*known, *LUIGI])
            luigi = ", ".join(sorted(LUIGI))
            raise ConfigError(
                f"{source.where(name)}: unknown section{close} known: {', '.join(known)}, and Luigi's own: {luigi}"
            )


def _section(source: SettingsFile, name: str, spec: type[T]) -> T:
    """[name] -> spec, a dataclass."""
    values = typed(source.path, name, source.section(name), spec)
    required = [f.name for f in fields(spec) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    if missing := [key for key in required if key not in values]:
        raise ConfigError(f"{source.where(name)}: {missing[0]!r} is missing (docs/settings.md)")
    return spec(**values)


def _all_options(source: SettingsFile) -> dict[str, dict[str, Any]]:
    """Of every dataset that has a section. One that cannot be loaded fails where it is used, and there alone."""
    given = [name for name in datasets.names() if name in source.sections]
    broken = datasets.broken(given)
    return {name: _options(source, name) for name in given if name not in broken}


def _options(source: SettingsFile, name: str) -> dict[str, Any]:
    """A dataset's own section, tried on its reader."""
    given = source.section(name)
    options = typed(source.path, name, given, type(datasets.get(name)))
    try:
        datasets.get(name, **options)
    except ConfigError as error:
        raise ConfigError(blamed(source.path, name, given, str(error))) from error
    return options


def _check_datasets(source: SettingsFile, enabled: tuple[str, ...]) -> None:
    where, known = source.where("data", "datasets"), datasets.names()
    for name in enabled:
        if name not in known:
            close = did_you_mean(name, known)
            raise ConfigError(f"{where}: there is no dataset {name!r}{close} known: {', '.join(known)}")
    if not enabled or len(set(enabled)) < len(enabled):
        found = f"one twice ({' '.join(enabled)})" if enabled else "none"
        raise ConfigError(f"{where}: expected one or more of {', '.join(known)}, found {found}")


def _check_folders(of: Sections) -> None:
    """Raises ConfigError where `gc`, which removes from the cache what is none of it, would meet something else."""
    paths, where = of.paths, of.source.where
    if isinstance(paths.cache, Path):
        for key in ("raw", "body", "runs"):
            if getattr(paths, key).resolve().is_relative_to(paths.cache.resolve()):
                raise ConfigError(
                    f"{where('paths', key)}: {getattr(paths, key)} lies in the cache, {paths.cache}, which is to hold "
                    "nothing else: name another folder"
                )
    for one, other in itertools.combinations(("raw", "body", "runs"), 2):
        if getattr(paths, one).resolve() == getattr(paths, other).resolve():
            raise ConfigError(
                f"{where('paths', other)}: {getattr(paths, other)} is {one}, too: name a folder of its own for each"
            )


def _check_devices(of: Sections) -> None:
    where, features = of.source.where, of.features
    if of.dask.scheduler is not None and features.device.startswith("cuda:"):
        raise ConfigError(
            f"{where('features', 'device')} = {features.device}: with [dask] scheduler every worker has a GPU of its "
            "own. Take cuda, or auto."
        )
    if features.compile and features.device == "cpu":
        raise ConfigError(
            f"{where('features', 'compile')} = true: device is cpu, and only CUDA compiles. Leave one out."
        )
