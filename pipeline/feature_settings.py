"""[features] of luigi.cfg, and the options of the commands that extract -> a `StreamSpec`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cache import CacheError
from cache.layout import check_names
from pipeline import streams
from pipeline.errors import ConfigError
from pipeline.extraction import Resources
from pipeline.parsing import AtLeast, typed
from pipeline.stream_spec import Decode, StreamSpec
from pipeline.streams.base import Machine, Stream
from pipeline.streams.crops import Crops
from pipeline.streams.resnet50 import ResNet50
from pipeline.weights import WeightsSpec


@dataclass(frozen=True, slots=True)
class Features:
    """[features]: tracks -> a feature stream. Options of kinds other than resnet50 are in a section of their own."""

    stream: str = "resnet50"  # its name in the cache
    kind: str = "resnet50"  # what it is: resnet50, crops, or a plug-in's
    weights: str = "untrained:0"  # of resnet50: spin:FILE, torchvision:NAME, file:FILE, or untrained:SEED (a stand-in)
    precision: Literal["exact", "fast"] = "fast"  # of resnet50. exact: plain fp32, the same bits at every run
    crops: str | None = None  # a stream of crops to compute from, instead of the raw pictures
    decode: Decode = "full"  # reduced: large persons from pictures decoded at a fraction of their size
    device: str = "auto"  # auto: cuda when there is one, else cpu
    batch_size: Annotated[int, AtLeast(0)] = 0  # 0: what the device does best
    compile: bool = False  # torch.compile, on CUDA
    workers: Annotated[int, AtLeast(0)] = 0  # processes that decode; 0: one a core
    timeout: Annotated[int, AtLeast(1)] = 60  # s without a sign of life after which a decoding process is ended

    def resources(self) -> Resources:
        """What of the machine it may take."""
        return Resources(Machine(self.device, self.batch_size, compile=self.compile), self.workers, self.timeout)


def streams_of(file: Path, cfg: ConfigParser, features: Features) -> tuple[StreamSpec, StreamSpec | None]:
    """The stream that luigi.cfg asks for, and the stream of crops that it is computed from, if it is.

    Raises ConfigError, also for options of a stream that is not made.
    """
    made = {features.kind, *([] if features.crops is None else [Crops.kind])}
    for kind in streams.names():
        if kind not in made and cfg.has_section(kind):
            without = ", and crops is none" if kind == Crops.kind else ""
            raise ConfigError(
                f"{file}: [{kind}] has options of a stream, but [features] kind is {features.kind}{without}"
            )
    for key, name in (("stream", features.stream), ("crops", features.crops)):
        if name is not None:
            _check_name(file, key, name)
    options = {kind: dict(cfg[kind]) if cfg.has_section(kind) else {} for kind in made}
    return _stream_spec(file, features, options[features.kind]), _crops_spec(file, features, options)


def _stream_spec(file: Path, features: Features, options: Mapping[str, str]) -> StreamSpec:
    """What luigi.cfg asks for. `options`: the section that has the kind's name. Raises ConfigError.

    A checkpoint's file lies below the folder of luigi.cfg, like all paths.
    """
    try:
        kind = streams.find(features.kind)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{file} [features] kind: {error}") from error
    values = _typed(file, features.kind, options, kind)
    try:
        if issubclass(kind, ResNet50):
            weights = WeightsSpec.parse(features.weights)
            if weights.kind in ("spin", "file"):
                weights = replace(weights, argument=str(file.resolve().parent / Path(weights.argument).expanduser()))
            values |= {"weights": weights, "precision": features.precision}
        made = streams.get(features.kind, **values)
        return StreamSpec(features.stream, made, features.crops or "", features.decode, features.resources())
    except ConfigError as error:
        raise ConfigError(f"{file} [features] {error}") from error


def _crops_spec(file: Path, features: Features, options: Mapping[str, Mapping[str, str]]) -> StreamSpec | None:
    if features.crops is None:
        return None
    values = _typed(file, Crops.kind, options[Crops.kind], Crops)
    try:
        made = streams.get(Crops.kind, **values)
    except ConfigError as error:
        raise ConfigError(f"{file} [{Crops.kind}] {error}") from error
    return StreamSpec(features.crops, made, resources=features.resources())


def _check_name(file: Path, key: str, name: str) -> None:
    """Raises ConfigError for what no stream can be called, before anything is planned with it."""
    try:
        check_names("dataset/split", name)
    except CacheError as error:
        raise ConfigError(f"{file} [features] {key}: {error}") from error


def stream_named(kind: str, weights: str | None, precision: str | None, options: Mapping[str, str]) -> Stream:
    """What a command's arguments ask for. Raises ConfigError for options that the kind does not have."""
    found = streams.find(kind)
    if not issubclass(found, ResNet50):
        if alone := [f"--{name}" for name, text in (("weights", weights), ("precision", precision)) if text]:
            raise ConfigError(f"{alone[0]} goes with --kind {ResNet50.kind}; options of {kind} are --set NAME=VALUE")
        return streams.get(kind, **_typed(Path("--set"), kind, options, found))
    if options:
        raise ConfigError(f"{kind} has no --set {next(iter(options))}: its options are --weights and --precision")
    given: dict[str, Any] = {"weights": weights and WeightsSpec.parse(weights), "precision": precision}
    return streams.get(kind, **{key: value for key, value in given.items() if value is not None})


def given_options(pairs: Sequence[str]) -> dict[str, str]:
    """--set NAME=VALUE, as often as it was given. Raises ConfigError for one without a value, and one given twice."""
    given: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set {pair}: expected NAME=VALUE, as in --set quality=95")
        if name in given:
            raise ConfigError(f"--set {pair}: {name} was set to {given[name]!r} before: once is enough")
        given[name] = value
    return given


def _typed(file: Path, section: str, given: Mapping[str, str], kind: type[Stream]) -> dict[str, Any]:
    """Texts as the types of the kind's own options."""
    named = {"weights", "precision"} if issubclass(kind, ResNet50) else set[str]()
    if wrong := sorted(given.keys() & named):
        raise ConfigError(f"{file} [{section}] {wrong[0]}: stands in [features]")
    known = {field.name for field in fields(kind)} - named
    if unknown := sorted(given.keys() - known):
        raise ConfigError(
            f"{file} [{section}]: unknown key {unknown[0]!r}; known: {', '.join(sorted(known)) or 'none'}"
        )
    return typed(file, section, given, kind)
