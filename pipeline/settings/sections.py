"""luigi.cfg but for training, typed: what conversion and extraction depend on.  [raw] -> tracks -> features

`tasks.settings` adds [train] and [mposer], of which only the names are known here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from cache import CacheError, Root
from cache.format.layout import check_names
from pipeline import datasets
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError, PipelineError
from pipeline.features import streams
from pipeline.features.spec import Resources, StreamSpec
from pipeline.features.streams.base import Machine, Stream
from pipeline.features.streams.crops import Crops
from pipeline.features.streams.resnet50 import ResNet50
from pipeline.features.weights import WeightsSpec
from pipeline.settings.file import GONE, LUIGI, SettingsFile, did_you_mean, located, read, where
from pipeline.settings.types import AtLeast, check_keys, typed

T = TypeVar("T")

OF_TRAINING: Final = ("train", "mposer")  # sections that `tasks.settings` checks
IN_FEATURES: Final = ("weights", "precision")  # options of resnet50 that are in [features]


@dataclass(frozen=True, slots=True)
class Paths:
    """[paths]: where everything is. Relative paths are below the folder of luigi.cfg."""

    raw: Path  # raw/<dataset>/ is that dataset's own download
    body: Path  # SMPL's files, or the demo body's
    cache: Root
    runs: Path


@dataclass(frozen=True, slots=True)
class Data:
    """[data]: which datasets take part."""

    datasets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Embedded:
    """[embedded]: the small demo data that is made when there is no real data."""

    enabled: bool = False  # make it in [paths] raw and body, which must then be empty or demo data
    seed: Annotated[int, AtLeast(0)] = 0
    size: Literal["tiny", "default", "large"] = "default"


@dataclass(frozen=True, slots=True)
class Convert:
    """[convert]: raw -> tracks."""

    workers: Annotated[int, AtLeast(0)] = 0  # processes; 0: one a core
    strict: bool = False  # fail on the first video that cannot be used, instead of rejecting it


@dataclass(frozen=True, slots=True)
class Features:
    """[features]: tracks -> a feature stream. Options of kinds other than resnet50 are in a section of their own."""

    stream: str = "resnet50"  # its name in the cache
    kind: str = "resnet50"  # what it is: resnet50, crops, or a plug-in's
    weights: str = "untrained:0"  # of resnet50: spin:FILE, torchvision:NAME, file:FILE, or untrained:SEED (for demos)
    precision: Literal["exact", "fast"] = "fast"  # of resnet50. exact: plain fp32, the same bits at every run
    crops: str | None = None  # a stream of crops to compute from, instead of the raw pictures
    device: str = "auto"  # auto: cuda when there is one, else cpu
    batch_size: Annotated[int, AtLeast(0)] = 0  # 0: what the device does best
    compile: bool = False  # torch.compile, on CUDA
    workers: Annotated[int, AtLeast(0)] = 0  # processes that decode; 0: one a core
    timeout: Annotated[int, AtLeast(1)] = 60  # s without progress after which a decoding process is ended

    def resources(self) -> Resources:
        """What of the machine it may take."""
        return Resources(Machine(self.device, self.batch_size, compile=self.compile), self.workers, self.timeout)


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
    """luigi.cfg as far as it is the pipeline's."""

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
    stream, crops = _streams(source, values["features"])
    given = [name for name in datasets.names() if name in source.sections]
    broken = datasets.broken(given)  # a dataset that cannot be loaded fails where it is used
    options = {name: _reader_options(source, name) for name in given if name not in broken}
    sections = Sections(source=source, **values, stream=stream, crops=crops, options=options)
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
            raise ConfigError(f"{source.where(name)}: this section is gone. {GONE[name, '']}")
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


def _reader_options(source: SettingsFile, name: str) -> dict[str, Any]:
    """A dataset's own section, tried on its reader."""
    given = source.section(name)
    options = typed(source.path, name, given, type(datasets.get(name)))
    try:
        datasets.get(name, **options)
    except ConfigError as error:
        raise ConfigError(located(source.path, name, given, str(error))) from error
    return options


# ------------------------------------------------------------------------------------------------------- streams


def _streams(source: SettingsFile, features: Features) -> tuple[StreamSpec, StreamSpec | None]:
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
        try:
            check_names("dataset/split", name or features.stream)
        except CacheError as error:
            raise ConfigError(f"{source.where('features', key)}: {error}") from error
    if features.crops == features.stream:
        at = source.where("features", "crops")
        raise ConfigError(f"{at}: stream {features.stream!r} cannot be computed from itself: name it otherwise")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", features.device):
        at = source.where("features", "device")
        raise ConfigError(f"{at} = {features.device}: expected auto, cpu, cuda, or one of several GPUs, as cuda:1")
    stream = _stream(source, features)
    resources = features.resources()
    if features.crops is None:
        return StreamSpec(features.stream, stream, resources=resources), None
    crops = _crops(source)
    return (
        StreamSpec(features.stream, stream, features.crops, resources=resources),
        StreamSpec(features.crops, crops, resources=resources),
    )


def _stream(source: SettingsFile, features: Features) -> Stream:
    """[features] kind, with the options of the section that has the kind's name. Raises ConfigError.

    A checkpoint's file is below the folder of luigi.cfg, like all paths.
    """
    try:
        kind = streams.find(features.kind)
    except PipelineError as error:
        raise ConfigError(f"{source.where('features', 'kind')}: {error}") from error
    options = stream_options(source.path, features.kind, source.section(features.kind), kind)
    section, given = features.kind, source.section("features")
    if issubclass(kind, ResNet50):
        section = "features"
    elif idle := [key for key in IN_FEATURES if key in given]:
        raise ConfigError(
            f"{source.where('features', idle[0])}: is for kind = {ResNet50.kind}, but kind is {features.kind}, whose "
            f"options are in [{features.kind}]. Delete this line."
        )
    try:
        if issubclass(kind, ResNet50):
            weights = WeightsSpec.parse(features.weights)
            if weights.kind in ("spin", "file"):
                file = source.path.resolve().parent / Path(weights.argument).expanduser()
                weights = replace(weights, argument=str(file))
            options |= {"weights": weights, "precision": features.precision}
        return streams.get(features.kind, **options)
    except ConfigError as error:
        raise ConfigError(located(source.path, section, source.section(section), str(error))) from error


def _crops(source: SettingsFile) -> Stream:
    """The stream of crops that [features] crops asks for, with the options of [crops]. Raises ConfigError."""
    given = source.section(Crops.kind)
    try:
        return streams.get(Crops.kind, **stream_options(source.path, Crops.kind, given, Crops))
    except ConfigError as error:
        raise ConfigError(located(source.path, Crops.kind, given, str(error))) from error


def stream_options(file: Path, section: str, given: Mapping[str, str], kind: type[Stream]) -> dict[str, Any]:
    """Texts as the types of the kind's own options. Raises ConfigError for options that it does not have."""
    elsewhere = IN_FEATURES if issubclass(kind, ResNet50) else ()
    for key, text in given.items():
        if key in elsewhere:
            raise ConfigError(f"{where(file, section, key, text)}: belongs into [features]")
    check_keys(file, section, given, [field.name for field in fields(kind) if field.name not in elsewhere])
    return typed(file, section, given, kind)


# -------------------------------------------------------------------------------------------------------- checks


def _check_datasets(source: SettingsFile, enabled: tuple[str, ...]) -> None:
    at, known = source.where("data", "datasets"), datasets.names()
    for name in enabled:
        if name not in known:
            close = did_you_mean(name, known)
            raise ConfigError(f"{at}: there is no dataset {name!r}{close} known: {', '.join(known)}")
    if not enabled or len(set(enabled)) < len(enabled):
        found = f"one twice ({' '.join(enabled)})" if enabled else "none"
        raise ConfigError(f"{at}: expected one or more of {', '.join(known)}, found {found}")


def _check_folders(of: Sections) -> None:
    """Raise ConfigError where `gc`, which removes from the cache what does not belong there, would find other files."""
    paths, at = of.paths, of.source.where
    if isinstance(paths.cache, Path):
        for key in ("raw", "body", "runs"):
            if getattr(paths, key).resolve().is_relative_to(paths.cache.resolve()):
                raise ConfigError(
                    f"{at('paths', key)}: {getattr(paths, key)} is in the cache, {paths.cache}, which must hold "
                    "nothing else: name another folder"
                )
    for one, other in itertools.combinations(("raw", "body", "runs"), 2):
        if getattr(paths, one).resolve() == getattr(paths, other).resolve():
            raise ConfigError(
                f"{at('paths', other)}: {getattr(paths, other)} is {one}, too: name a folder of its own for each"
            )


def _check_devices(of: Sections) -> None:
    at, features = of.source.where, of.features
    if of.dask.scheduler is not None and features.device.startswith("cuda:"):
        raise ConfigError(
            f"{at('features', 'device')} = {features.device}: with [dask] scheduler every worker has a GPU of its "
            "own. Set cuda, or auto."
        )
    if features.compile and features.device == "cpu":
        raise ConfigError(f"{at('features', 'compile')} = true: device is cpu, and only CUDA compiles. Delete one.")
