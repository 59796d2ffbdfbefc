"""luigi.cfg but for training, typed: what detection, conversion and extraction depend on.  [raw] -> tracks -> features

The packages above declare sections of their own, which are found by the registry of plug-ins: `declared`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import ValidationError

from cache import CacheError
from cache.format.layout import check_names
from pipeline import datasets, detect, plug_ins
from pipeline.cli.console import DOUBT, err, plain
from pipeline.cli.options import cores
from pipeline.commands.settings.file import LUIGI, Section, SettingsFile, layered, read
from pipeline.commands.settings.schema import (
    TYPES,
    ConvertSettings,
    Dask,
    DataSettings,
    DetectSettings,
    Embedded,
    Features,
    Paths,
)
from pipeline.datasets.base import Dataset
from pipeline.demo import has_demo_data
from pipeline.detect.base import Detector
from pipeline.errors import ConfigError, PipelineError, did_you_mean
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Stream
from pipeline.features.streams.crops import Crops
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import WeightsSpec

T = TypeVar("T")

KIND: Final = "kind"  # the key of a further stream's section
FORMERLY: Final = {"train": "vibe"}  # old names of sections, which are read until the next version
DEMO: Final = "demo"  # the detector for demo data alone
IN_FEATURES: Final = ("weights", "precision")  # options of resnet50 that are in [features]


@dataclass(frozen=True, slots=True)
class Settings:
    """All of luigi.cfg that is ours. What trains models stays text here: it builds on presets."""

    source: SettingsFile
    paths: Paths
    data: DataSettings
    embedded: Embedded
    detect: DetectSettings
    convert: ConvertSettings
    features: Features
    dask: Dask
    stream: StreamSpec  # [features], with the options of its kind
    crops: StreamSpec | None  # what it is computed from, where that is a stream of crops
    also: tuple[StreamSpec, ...]  # further ones; those of pixels share a pass over them
    readers: Mapping[str, Dataset]  # of the datasets that have a section: with its options
    detector: Detector | None = None

    @property
    def file(self) -> Path:
        return self.source.path

    def dataset(self, name: str) -> Dataset:
        return self.readers.get(name) or datasets.get(name)

    def raw(self, name: str) -> Path:
        return self.paths.raw / name

    @property
    def embedded_datasets(self) -> tuple[str, ...]:
        """The enabled datasets that demo data is made for. Those of other packages bring their own raw files."""
        return tuple(name for name in self.data.datasets if self.embedded.enabled and has_demo_data(name))

    @property
    def workers(self) -> int:
        """Processes that convert."""
        return cores(self.convert.workers)

    def known_splits(self, names: Sequence[str] = ()) -> tuple[list[str], Mapping[str, str]]:
        """The splits of datasets, of all that there are where none is named, and why others cannot be loaded."""
        names = names or datasets.names()
        broken = datasets.broken(names)
        return [f"{n}/{split}" for n in names if n not in broken for split in datasets.get(n).splits], broken

    def drops_removed(self, name: str) -> bool:
        """Do rows of a dataset's videos go when these are gone? Those of demo data do, which are made again."""
        return self.convert.removed == "drop" or (self.embedded.enabled and has_demo_data(name))


class SectionValues(NamedTuple):
    """A section as it holds."""

    section: str
    values: Mapping[str, Any]  # by key
    unset: Mapping[str, Any]  # likewise: their values where they are not set


class Declared(NamedTuple):
    """What a package does with the sections that it declares by entry points of the group `plug_ins.SECTIONS`."""

    check: Callable[[Settings], None]  # raise ConfigError
    values: Callable[[Settings], Iterator[SectionValues]]
    check_inputs: Callable[[Settings], None]  # raise ConfigError for what only training refuses


def declared_names() -> tuple[str, ...]:
    """The sections that packages declare; nothing of theirs is imported."""
    groups = (plug_ins.SECTIONS, plug_ins.MODELS)
    return tuple(dict.fromkeys(entry.name for group in groups for entry in plug_ins.entry_points(group)))


def declared() -> tuple[Declared, ...]:
    """What each package does with its sections. Imports them. Raises PlugInError for one that cannot be loaded."""
    records = plug_ins.load_records(plug_ins.SECTIONS, Declared)
    return tuple({id(record): record for record in records.values()}.values())


def load(file: Path, do: str | None = None, detector: str | None = None, *, tolerant: bool = False) -> Settings:
    """Read and check all of luigi.cfg but the sections that packages above declare, and Luigi's own.

    Over it comes what `--set` sets.

    Raises ConfigError, which names the line, for an unknown section or key, a value of the wrong type or out of range,
    what is missing, and settings that contradict each other. `do`: what to do where there is no such file; `detector`:
    which one a command names, whose section may have options, too. `tolerant`: sections and datasets that a missing
    package may add are left out, with a warning.
    """
    source = layered(read(file) if do is None else read(file, do), FORMERLY)
    check_sections(source, tolerant=tolerant)
    values = {name: dataclass_of(source.section(name), spec) for name, spec in TYPES.items()}
    if values["embedded"].enabled and "detector" not in source.section("detect"):
        values["detect"] = replace(values["detect"], detector=DEMO)
    values["data"] = replace(values["data"], datasets=_check_datasets(source, values["data"].datasets, tolerant))
    stream, crops, also = streams_of(source, values["features"])
    of_settings = detector_named(source, values["detect"], detector)
    readers = readers_of(source)
    s = Settings(source=source, **values, stream=stream, crops=crops, also=also, readers=readers, detector=of_settings)
    _check_folders(s.paths, source)
    _check_devices(s)
    return s


def reader_of(source: SettingsFile, name: str) -> Dataset:
    """A dataset with the options of its section. Raises ConfigError, and as `datasets.get`."""
    return configured(source.section(name), type(datasets.get(name)), datasets.get)


def readers_of(source: SettingsFile) -> dict[str, Dataset]:
    """Of the datasets that have a section; one that cannot be loaded fails where it is used."""
    names = [name for name in datasets.names() if name in source.sections]
    broken = datasets.broken(names)
    return {name: reader_of(source, name) for name in names if name not in broken}


def dataclass_of(section: Section, spec: type[Any]) -> Any:
    """A section as its dataclass of TYPES. Raises ConfigError, also where a key without default is missing."""
    section.check_keys(field.name for field in fields(spec))
    values = section.typed(spec)
    try:
        return spec(**values)
    except ValidationError as error:
        (key, *_) = error.errors()[0]["loc"]
        raise ConfigError(f"{section.where()}: {key!r} is missing (docs/settings.md)") from error


def configured(
    section: Section, kind: type[Any], make: Callable[..., T], options: Section | None = None, **more: Any
) -> T:
    """A dataset, stream or detector with the options of its section, and `more`, which are not in it.

    `options`: a command's NAME=VALUE, over the section's. Raises ConfigError, with the line or the option, for options
    that it does not have and values that it refuses.
    """
    layers, values = [section] if options is None else [options, section], dict[str, Any]()
    for layer in reversed(layers):
        layer.check_keys(field.name for field in fields(kind) if field.name not in more)
        values |= layer.typed(kind)
    try:
        return make(section.name, **values | more)
    except ConfigError as error:
        words = set(re.findall(r"\w+", str(error)))
        of_layer = next((layer for layer in layers if words & layer.keys()), section)
        if of_layer or options is None:
            raise ConfigError(of_layer.located(str(error))) from error
        raise


# ------------------------------------------------------------------------------------------------------- streams


def streams_of(
    source: SettingsFile, features: Features
) -> tuple[StreamSpec, StreamSpec | None, tuple[StreamSpec, ...]]:
    """The stream that luigi.cfg asks for, the stream of crops that it is computed from, if it is, and further ones.

    Raises ConfigError, which names the line, also for options of a stream that is not extracted.
    """
    where = source.section("features").where
    for kind in streams.names():
        if (
            kind in source.sections
            and kind not in (features.kind, *features.also)
            and (kind != Crops.kind or features.crops is None)
        ):
            without = ", and crops is none" if kind == Crops.kind else ""
            raise ConfigError(
                f"{source.where(kind)} has options of a stream, but [features] kind is {features.kind}{without}"
            )
    further = [("also", name) for name in features.also]
    for key, name in (("stream", features.stream), ("crops", features.crops), *further):
        try:
            check_names("dataset/split", name or features.stream)
        except CacheError as error:
            raise ConfigError(f"{where(key)}: {error}") from error
    if features.crops == features.stream:
        raise ConfigError(f"{where('crops')}: stream {features.stream!r} cannot be computed from itself: name another")
    named = [features.stream, *filter(None, [features.crops]), *features.also]
    if twice := sorted({name for name in features.also if named.count(name) > 1}):
        raise ConfigError(f"{where('also')}: stream {twice[0]!r} is named twice")
    stream = _stream(source, features)
    also = tuple(further_stream(source, features, name) for name in features.also)
    if features.crops is None:
        return StreamSpec(features.stream, stream), None, also
    crops = configured(source.section(Crops.kind), Crops, streams.get)
    return StreamSpec(features.stream, stream, features.crops), StreamSpec(features.crops, crops), also


def further_stream(source: SettingsFile, features: Features, name: str) -> StreamSpec:
    """A stream beside that of [features], as [features] also names them. Raises ConfigError."""
    stream = _further(source, features, name)
    return StreamSpec(name, stream, (features.crops or "") if stream.reads.crops else "")


def _stream(source: SettingsFile, features: Features) -> Stream:
    """[features] kind, with the options of the section that has the kind's name. Raises ConfigError."""
    section = source.section("features")
    try:
        kind = streams.find(features.kind)
    except PipelineError as error:
        raise ConfigError(f"{section.where('kind')}: {error}") from error
    if not issubclass(kind, ResNet50) and (strange := [key for key in IN_FEATURES if key in section]):
        which, lines = ("are", "these lines") if len(strange) > 1 else ("is", "this line")
        raise ConfigError(
            f"{' and '.join(map(section.where, strange))}: {which} for kind = {ResNet50.kind}, but kind is "
            f"{features.kind}, whose options are in [{features.kind}]. Delete {lines}."
        )
    return stream_of(source, features, features.kind, kind)


def _further(source: SettingsFile, features: Features, name: str) -> Stream:
    """A stream of [features] also: the options of the section of that name, whose `kind` is the name unless it says so.

    Raises ConfigError.
    """
    section = source.section(name)
    try:
        kind = streams.find(str(section.get(KIND, name)))
    except PipelineError as error:
        do = f" Name its kind in a section [{name}]: kind = resnet50." if KIND not in section else ""
        raise ConfigError(
            f"{section.where(KIND) if section else source.where('features', 'also')}: {error}{do}"
        ) from error
    return stream_of(source, features, name, kind)


def stream_of(
    source: SettingsFile,
    features: Features,
    name: str,
    kind: type[Stream],
    options: Section | None = None,
) -> Stream:
    """A stream of this kind with the options of the section `name`; a resnet50 has those IN_FEATURES from there.

    `options`: a command's, over them, as of `configured`.
    """
    section = source.section(name).without(KIND)
    more: dict[str, Any] = {}
    if issubclass(kind, ResNet50):
        try:  # a checkpoint's file is below the folder of luigi.cfg, like all paths
            weights = WeightsSpec.parse(features.weights).below(source.path.resolve().parent)
        except ConfigError as error:
            raise ConfigError(source.section("features").located(str(error))) from error
        more = {"weights": weights, "precision": features.precision}
    more = {option: value for option, value in more.items() if option not in (options or {})}
    return configured(section, kind, lambda _, **all_: streams.get(kind.kind, **all_), options, **more)


def detector_of(source: SettingsFile, name: str, options: Section | None = None, **given: Any) -> Detector:
    """A detector with the options of its section. `options`, `given`: a command's, over them, as of `stream_of`."""
    section = source.section(name).without(*given)
    detector = configured(section, detect.find(name), detect.get, options, **given)
    below = detector.below(source.path.resolve().parent)  # paths of luigi.cfg, not those of the command
    return replace(detector, **{key: getattr(below, key) for key in section.keys() - (options or {}).keys()})


def detector_named(source: SettingsFile, settings: DetectSettings, named: str | None = None) -> Detector | None:
    """[detect] detector, with the options of the section that has its name. Raises ConfigError.

    `named`: by a command, which reads that section, too.
    """
    where = source.section("detect").where
    for name in settings.datasets:
        if unknown := datasets.unknown(name):
            raise ConfigError(f"{where('datasets')}: {unknown}")
    for name in detect.names():
        if name in source.sections and name not in (settings.detector, named):
            which = settings.detector or "none"
            do = f"set it to {name} (--set detect.detector={name}), or remove this"
            raise ConfigError(f"{source.where(name)} has options of a detector, but [detect] detector is {which}: {do}")
    if settings.detector is None:
        return None
    try:
        detect.find(settings.detector)
    except PipelineError as error:
        raise ConfigError(f"{where('detector')}: {error}") from error
    return detector_of(source, settings.detector)


# -------------------------------------------------------------------------------------------------------- checks


def check_sections(source: SettingsFile, *, tolerant: bool = False) -> None:
    """Raise ConfigError for an unknown section, unless `tolerant`, and for names that two packages claim."""
    names = [*TYPES, *datasets.names(), *streams.names(), *detect.names(), *declared_names()]
    if twice := sorted(name for name in {*names} if names.count(name) > 1):
        raise ConfigError(
            f"a stream, detector or model of another package is called {twice[0]!r}, as a section of {source.path}: "
            "rename it"
        )
    section_names = sorted({*names, *source.section("features").get("also", "").split()})
    for name, section in source.sections.items():
        if name not in section_names and name not in LUIGI:
            close = did_you_mean(name, [*section_names, *LUIGI]).rstrip(";")
            do = "If a package adds it, install that package. docs/settings.md lists the other sections."
            message = f"{section.where()}: unknown section{close or '.'} {do}"
            _refuse(message, warn=tolerant and not (close or section.by_set))


def _refuse(message: str, *, warn: bool) -> None:
    """Raise ConfigError, or print a warning."""
    if not warn:
        raise ConfigError(message)
    err.print(f"{DOUBT} {plain(message)}")


def _check_datasets(source: SettingsFile, enabled: tuple[str, ...], tolerant: bool) -> tuple[str, ...]:
    line, names = source.where("data", "datasets"), datasets.names()
    for name in (name for name in enabled if name not in names):
        _refuse(f"{line}: {datasets.unknown(name)}", warn=tolerant and did_you_mean(name, names) == ";")
    if not enabled or len(set(enabled)) < len(enabled):
        listed = f"one twice ({' '.join(enabled)})" if enabled else "none"
        raise ConfigError(f"{line}: expected one or more of {', '.join(names)}, found {listed}")
    return tuple(name for name in enabled if name in names)


def _check_folders(paths: Paths, source: SettingsFile) -> None:
    """Raise ConfigError where `gc`, which removes from the cache what does not belong there, would find other files."""
    folders = {key: getattr(paths, key).resolve() for key in ("raw", "body", "runs")}
    for key, folder in folders.items():
        if isinstance(paths.cache, Path) and folder.is_relative_to(paths.cache.resolve()):
            raise ConfigError(
                f"{source.where('paths', key)}: {getattr(paths, key)} is in the cache, {paths.cache}, which must hold "
                "nothing else: name another folder"
            )
    for key, sibling in itertools.combinations(folders, 2):
        if folders[key] == folders[sibling]:
            message = f"{getattr(paths, sibling)} is {key}, too: name a folder of its own for each"
            raise ConfigError(f"{source.where('paths', sibling)}: {message}")


def devices_of(source: SettingsFile, name: str, settings: Features | DetectSettings) -> tuple[str, ...]:
    """What a section's `devices` names. Raises ConfigError."""
    try:
        return settings.processes
    except ConfigError as error:
        raise ConfigError(f"{source.where(name, 'devices')}: {error}") from error


def _check_devices(s: Settings) -> None:
    for name, settings in (("features", s.features), ("detect", s.detect)):
        key = "devices" if devices_of(s.source, name, settings) else "device"
        line = f"{s.source.where(name, key)} = {getattr(settings, key)}"
        if s.dask.scheduler is not None and (key == "devices" or settings.device.startswith("cuda:")):
            raise ConfigError(f"{line}: with [dask] scheduler every worker has a GPU of its own. Set cuda, or auto.")
    if s.features.compile and s.features.device == "cpu":
        line = s.source.where("features", "compile")
        raise ConfigError(f"{line} = true: device is cpu, and only CUDA compiles. Delete one.")
