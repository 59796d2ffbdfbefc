"""luigi.cfg, read once, at the edge, into typed objects; a typo is an error, not a default."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from configparser import ConfigParser, Error
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from pipeline import datasets
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError
from pipeline.features import StreamSpec
from pipeline.weights import WeightsSpec

T = TypeVar("T")

# Sections that are Luigi's own: it checks them itself.
LUIGI: Final = frozenset(
    {"core", "scheduler", "worker", "retcode", "logging", "email", "resources", "task_history", "task"}
)


@dataclass(frozen=True, slots=True)
class Paths:
    """[paths]: where everything lies. Relative paths are below the folder of luigi.cfg."""

    raw: Path  # raw/<dataset>/ is that dataset's own download
    body: Path  # SMPL's files, or the stand-in's
    cache: Path
    runs: Path


@dataclass(frozen=True, slots=True)
class Data:
    """[data]: which datasets take part."""

    datasets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Embedded:
    """[embedded]: the small stand-in data that is made when there is no real data."""

    enabled: bool = False  # make it in [paths] raw and body, which must then be empty or stand-ins
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Convert:
    """[convert]: raw -> tracks."""

    workers: int = 0  # processes; 0: one a core
    strict: bool = False  # fail on the first video that cannot be used, instead of setting it aside


@dataclass(frozen=True, slots=True)
class Features:
    """[features]: tracks -> a feature stream."""

    stream: str = "resnet50"
    weights: str = "untrained:0"  # spin:FILE, torchvision:NAME, file:FILE, or untrained:SEED (a stand-in)
    precision: str = "fast"  # exact: plain fp32, the same bits at every run
    device: str = "auto"  # auto: cuda when there is one, else cpu
    batch_size: int = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """All of luigi.cfg that is ours. `train` and the datasets' own sections stay text until their owners type them."""

    file: Path
    paths: Paths
    data: Data
    embedded: Embedded
    convert: Convert
    features: Features
    train: Mapping[str, str]
    options: Mapping[str, Mapping[str, Any]]  # dataset -> its reader's options, typed

    def dataset(self, name: str) -> Dataset:
        return datasets.get(name, **self.options.get(name, {}))

    def raw(self, name: str) -> Path:
        return self.paths.raw / name

    @property
    def workers(self) -> int:
        return self.convert.workers or len(os.sched_getaffinity(0))

    @property
    def stream(self) -> StreamSpec:
        given = self.features
        weights = WeightsSpec.parse(given.weights)
        return StreamSpec(given.stream, weights, given.precision, given.device, given.batch_size)


@functools.cache
def settings() -> Settings:
    """The effective settings, from the file in LUIGI_CONFIG_PATH or ./luigi.cfg. Raises ConfigError."""
    return load(Path(os.environ.get("LUIGI_CONFIG_PATH", "luigi.cfg")))


def load(file: Path) -> Settings:
    """Read and check a whole luigi.cfg.

    Raises ConfigError for a missing file, an unknown section or key, or a value of the wrong type.
    """
    cfg = ConfigParser(interpolation=None)
    try:
        with file.open() as stream:
            cfg.read_file(stream)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file.resolve()}: there is no such file. Run from the project's folder, or set LUIGI_CONFIG_PATH."
        ) from error
    except Error as error:
        raise ConfigError(f"{file}: {error}") from error
    own = {"paths": Paths, "data": Data, "embedded": Embedded, "convert": Convert, "features": Features}
    known = {*own, "train", *datasets.names()}
    if unknown := sorted(set(cfg.sections()) - known - LUIGI):
        raise ConfigError(f"{file}: unknown section [{unknown[0]}]; known: {', '.join(sorted(known))}, and Luigi's own")
    sections: dict[str, Any] = {name: section(file, cfg, name, spec) for name, spec in own.items()}
    base = file.resolve().parent
    paths = Paths(**{f.name: base / getattr(sections["paths"], f.name) for f in fields(Paths)})
    enabled = sections["data"].datasets
    if strangers := sorted(set(enabled) - set(datasets.names())):
        raise ConfigError(f"{file} [data] datasets: unknown {strangers}; known: {', '.join(datasets.names())}")
    return Settings(
        file=file,
        **{**sections, "paths": paths},
        train=dict(cfg["train"]) if cfg.has_section("train") else {},
        options={
            name: typed(file, name, dict(cfg[name]), type(datasets.get(name)))
            for name in datasets.names()
            if cfg.has_section(name)
        },
    )


def section(file: Path, cfg: ConfigParser, name: str, spec: type[T]) -> T:
    """[name] -> spec, a dataclass."""
    given = dict(cfg[name]) if cfg.has_section(name) else {}
    values = typed(file, name, given, spec)
    required = [f.name for f in fields(spec) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    if missing := [key for key in required if key not in values]:
        raise ConfigError(f"{file} [{name}]: {missing[0]!r} is missing")
    return spec(**values)


def typed(file: Path, name: str, given: Mapping[str, str], spec: type[Any]) -> dict[str, Any]:
    """The given texts as the types of spec's fields. Raises ConfigError for an unknown key or an unfit value."""
    hints = {f.name: hint for f in fields(spec) if (hint := get_type_hints(spec)[f.name])}
    if unknown := sorted(given.keys() - hints.keys()):
        raise ConfigError(f"{file} [{name}]: unknown key {unknown[0]!r}; known: {', '.join(hints) or 'none'}")
    values = {}
    for key, text in given.items():
        try:
            values[key] = _parse(text, hints[key])
        except ValueError as error:
            raise ConfigError(f"{file} [{name}] {key} = {text}: expected {_in_words(hints[key])}") from error
    return values


def _parse(text: str, hint: Any) -> Any:
    if hint is bool:
        try:
            return ConfigParser.BOOLEAN_STATES[text.lower()]
        except KeyError as error:
            raise ValueError(text) from error
    if get_origin(hint) is tuple:
        return tuple(_parse(word, get_args(hint)[0]) for word in text.split())
    if NoneType in get_args(hint):
        rest = next(h for h in get_args(hint) if h is not NoneType)
        return None if text in ("", "none") else _parse(text, rest)
    return hint(text)


def _in_words(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return f"{_in_words(get_args(hint)[0])}s with spaces between"
    return {bool: "true or false", int: "a whole number", float: "a number", Path: "a path", str: "a word"}.get(
        hint, str(hint)
    )
