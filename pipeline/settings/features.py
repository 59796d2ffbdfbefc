"""[features] of luigi.cfg, and the options of the commands that extract -> a `StreamSpec`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cache import CacheError
from cache.format.layout import check_names
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import streams
from pipeline.features.engine import Resources
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Machine, Stream
from pipeline.features.streams.crops import Crops
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.settings.file import SettingsFile, blamed, where
from pipeline.settings.types import AtLeast, check_keys, typed


@dataclass(frozen=True, slots=True)
class Features:
    """[features]: tracks -> a feature stream. Options of kinds other than resnet50 are in a section of their own."""

    stream: str = "resnet50"  # its name in the cache
    kind: str = "resnet50"  # what it is: resnet50, crops, or a plug-in's
    weights: str = "untrained:0"  # of resnet50: spin:FILE, torchvision:NAME, file:FILE, or untrained:SEED (a stand-in)
    precision: Literal["exact", "fast"] = "fast"  # of resnet50. exact: plain fp32, the same bits at every run
    crops: str | None = None  # a stream of crops to compute from, instead of the raw pictures
    device: str = "auto"  # auto: cuda when there is one, else cpu
    batch_size: Annotated[int, AtLeast(0)] = 0  # 0: what the device does best
    compile: bool = False  # torch.compile, on CUDA
    workers: Annotated[int, AtLeast(0)] = 0  # processes that decode; 0: one a core
    timeout: Annotated[int, AtLeast(1)] = 60  # s without a sign of life after which a decoding process is ended

    def resources(self) -> Resources:
        """What of the machine it may take."""
        return Resources(Machine(self.device, self.batch_size, compile=self.compile), self.workers, self.timeout)


def streams_of(source: SettingsFile, features: Features) -> tuple[StreamSpec, StreamSpec | None]:
    """The stream that luigi.cfg asks for, and the stream of crops that it is computed from, if it is.

    Raises ConfigError, which names the line, also for options of a stream that is not made.
    """
    made = {features.kind, *([] if features.crops is None else [Crops.kind])}
    for kind in streams.names():
        if kind not in made and kind in source.sections:
            without = ", and crops is none" if kind == Crops.kind else ""
            raise ConfigError(
                f"{source.where(kind)} has options of a stream, but [features] kind is {features.kind}{without}"
            )
    for key, name in (("stream", features.stream), ("crops", features.crops)):
        if name is not None:
            _check_name(source, key, name)
    if features.crops == features.stream:
        where = source.where("features", "crops")
        raise ConfigError(f"{where}: stream {features.stream!r} cannot be computed from itself: name it otherwise")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", features.device):
        where = source.where("features", "device")
        raise ConfigError(f"{where} = {features.device}: expected auto, cpu, cuda, or one of several GPUs, as cuda:1")
    return _stream_spec(source, features), _crops_spec(source, features)


def _stream_spec(source: SettingsFile, features: Features) -> StreamSpec:
    """What luigi.cfg asks for, with the options of the section that has the kind's name. Raises ConfigError.

    A checkpoint's file lies below the folder of luigi.cfg, like all paths.
    """
    given, options = source.section("features"), source.section(features.kind)
    try:
        kind = streams.find(features.kind)
    except PipelineError as error:
        raise ConfigError(f"{source.where('features', 'kind')}: {error}") from error
    values = _typed(source.path, features.kind, options, kind)
    if not issubclass(kind, ResNet50) and (idle := [key for key in ("weights", "precision") if key in given]):
        raise ConfigError(
            f"{source.where('features', idle[0])}: is for kind = {ResNet50.kind}, but kind is {features.kind}, whose "
            f"options stand in [{features.kind}]. Take it out."
        )
    try:
        made = streams.get(features.kind, **values, **_of_resnet50(source, features, kind))
    except ConfigError as error:
        named = "features" if issubclass(kind, ResNet50) else features.kind
        raise ConfigError(blamed(source.path, named, source.section(named), str(error))) from error
    try:
        return StreamSpec(features.stream, made, features.crops or "", features.resources())
    except ConfigError as error:
        raise ConfigError(blamed(source.path, "features", given, str(error))) from error


def _of_resnet50(source: SettingsFile, features: Features, kind: type[Stream]) -> dict[str, Any]:
    """Its options, which stand in [features]."""
    if not issubclass(kind, ResNet50):
        return {}
    weights = WeightsSpec.parse(features.weights)
    if weights.kind in ("spin", "file"):
        weights = replace(weights, argument=str(source.path.resolve().parent / Path(weights.argument).expanduser()))
    return {"weights": weights, "precision": features.precision}


def _crops_spec(source: SettingsFile, features: Features) -> StreamSpec | None:
    if features.crops is None:
        return None
    given = source.section(Crops.kind)
    values = _typed(source.path, Crops.kind, given, Crops)
    try:
        made = streams.get(Crops.kind, **values)
    except ConfigError as error:
        raise ConfigError(blamed(source.path, Crops.kind, given, str(error))) from error
    return StreamSpec(features.crops, made, resources=features.resources())


def _check_name(source: SettingsFile, key: str, name: str) -> None:
    """Raises ConfigError for what no stream can be called, before anything is planned with it."""
    try:
        check_names("dataset/split", name)
    except CacheError as error:
        raise ConfigError(f"{source.where('features', key)}: {error}") from error


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
    for key, text in given.items():
        if key in named:
            raise ConfigError(f"{where(file, section, key, text)}: stands in [features]")
    check_keys(file, section, given, [field.name for field in fields(kind) if field.name not in named])
    return typed(file, section, given, kind)
