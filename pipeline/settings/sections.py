"""Typed settings of luigi.cfg for detection, conversion and extraction.  [raw] -> tracks ->
features

`Settings` checks the names of sections and keys, and parses a section of `schema.SECTION_TYPES` or
of a dataset when it is read. `load` reads the file and `--set`, and parses all of them. Streams
(`stream_of`) and detectors (`detector_of`) are made from the sections of their names, with the
options of a command.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from cache import CacheError, local_folder
from cache.format.layout import check_names
from pipeline import datasets, plug_ins
from pipeline.cli import pages
from pipeline.cli.console import err
from pipeline.clips import detectors
from pipeline.clips.detectors import Detector
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError, PipelineError, did_you_mean
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.plug_ins import PlugInError
from pipeline.processes import cores
from pipeline.processes.settings import Computing, Dask
from pipeline.settings.file import LUIGI, NO_FILE, Section, SettingsFile
from pipeline.settings.schema import (
    SECTION_TYPES,
    ConvertSettings,
    DataSettings,
    DetectSettings,
    Embedded,
    Features,
    Paths,
)

T = TypeVar("T")
P = TypeVar("P", bound=Computing)

KIND: Final = "kind"  # key of a stream's section that names its class; default: the section's name
DEMO: Final = "demo"  # detector for demo data only; in [data], all datasets that have these
FILE: Final = Path("luigi.cfg")  # optional
# resnet50.j2: unless it has a section, the second jittered copy of resnet50
_COPY: Final = re.compile(r"(.+)\.j([1-9]\d*)")
TRAININGS: Final = ("mposer", "pose_embedding")  # sections of trainings that belong to no model


def _section(name: str, spec: type[T]) -> functools.cached_property[T]:
    """A section as an attribute of `Settings`."""
    return functools.cached_property(lambda settings: _parse_section(settings.source, name, spec))


@dataclass(frozen=True)
class Settings:
    """The settings of luigi.cfg, or the defaults without such a file.

    Making it checks the names of sections and keys. A section is parsed when it is first read, or
    by `check`; reading it raises ConfigError, with the line, for an invalid or missing setting.
    Sections of training are not parsed here, since they build on presets.
    """

    source: SettingsFile  # the sections as text
    # skip unknown sections and datasets with a warning; a missing package may add them
    tolerant: bool = False

    embedded = _section("embedded", Embedded)
    convert = _section("convert", ConvertSettings)
    dask = _section("dask", Dask)

    def __post_init__(self) -> None:
        _check_sections(self.source, tolerant=self.tolerant)
        _check_keys(self.source)

    @functools.cached_property
    def named_paths(self) -> Paths | None:
        """[paths]; None without a luigi.cfg."""
        if not self.source.path.exists():
            _configure([self.source.section("paths")], Paths, dict)  # keys that are set
            return None
        paths = _parse_section(self.source, "paths", Paths)
        _check_folders(paths, self.source)
        return paths

    @functools.cached_property
    def data(self) -> DataSettings:
        """[data], with the datasets that exist; none without a luigi.cfg."""
        if not self.source.path.exists():
            _configure([self.source.section("data")], DataSettings, dict)
            return DataSettings(())
        data = _parse_section(self.source, "data", DataSettings)
        return replace(data, datasets=_check_datasets(self.source, data.datasets, self.tolerant))

    @functools.cached_property
    def detect(self) -> DetectSettings:
        return self._computing("detect", DetectSettings)

    @functools.cached_property
    def features(self) -> Features:
        return self._computing("features", Features)

    def _computing(self, name: str, spec: type[P]) -> P:
        """Parse a section with devices, which must not contradict another setting."""
        parsed = _parse_section(self.source, name, spec)
        where = self.source.section(name).where
        try:
            processes = parsed.processes
        except ConfigError as error:
            raise ConfigError(f"{where('devices')}: {error}") from error
        key = "devices" if processes else "device"
        names_gpus = processes or parsed.device.startswith("cuda:")
        if names_gpus and self.dask.scheduler is not None:
            line = f"{where(key)} = {getattr(parsed, key)}"
            raise ConfigError(
                f"{line}: with [dask] scheduler, each worker has its own GPU. Set cuda or auto."
            )
        return parsed

    @functools.cached_property
    def detector(self) -> Detector | None:
        """The detector of [detect], with the options of its section; without the key `detector`,
        that of demo data if it is enabled, else None.
        """
        where = self.source.section("detect").where
        for name in self.detect.datasets:
            if not datasets.is_known(name):
                raise ConfigError(f"{where('datasets')}: {datasets.unknown(name)}")
        detector = self.detect.detector
        if self.embedded.enabled and "detector" not in self.source.section("detect"):
            detector = DEMO
        if detector is None:
            return None
        try:
            detectors.find(detector)
        except PipelineError as error:
            raise ConfigError(f"{where('detector')}: {error}") from error
        return detector_of(self.source, detector)

    def check(self) -> Settings:
        """Parse all sections. Raises ConfigError for the first mistake. Datasets that cannot be
        loaded are left out: they fail when they are used.
        """
        _ = self.named_paths, self.data, self.convert, self.detector
        _ = self.features
        named = [name for name in datasets.names() if name in self.source.sections]
        for name in datasets.load_all(named).records:
            self.dataset(name)
        if self.source.sections.keys() & {"features", *streams.names()}:
            _ = self.streams
        return self

    @property
    def file(self) -> Path:
        return self.source.path

    @property
    def paths(self) -> Paths:
        """[paths]. Raises ConfigError without a luigi.cfg."""
        if self.named_paths is None:
            raise ConfigError(
                f"{self.file.resolve()}: file not found. Run from the project's folder."
            )
        return self.named_paths

    @property
    def stream_names(self) -> tuple[str, ...]:
        """[features] streams, none for tracks alone. Raises ConfigError for invalid and repeated
        names.
        """
        where = self.source.where("features", "streams")
        names = self.features.streams
        if len(set(names)) < len(names):
            raise ConfigError(
                f"{where}: expected different names of streams, found {' '.join(names)}"
            )
        for name in names:
            try:
                check_names("dataset/split", name)
            except CacheError as error:
                raise ConfigError(f"{where}: {error}") from error
        return names

    @functools.cached_property
    def streams(self) -> tuple[StreamSpec, ...]:
        """The streams that [features] streams names, with the options of their sections.

        Raises ConfigError, with the line.
        """
        return tuple(stream_of(self.source, name) for name in self.stream_names)

    @property
    def stream(self) -> StreamSpec:
        """The first stream, which models read. Raises ConfigError if there is none."""
        if not self.streams:
            where = self.source.where("features", "streams")
            raise ConfigError(f"{where}: is empty, and models read the first stream. Name it.")
        return self.streams[0]

    def dataset(self, name: str) -> Dataset:
        """A dataset with the options of its section. Raises what `datasets.get` raises."""
        if name not in self.source.sections:
            return datasets.get(name)
        make = functools.partial(datasets.get, name)
        return _configure([self.source.section(name)], datasets.find(name), make)

    def use_device(self, device: str | None) -> Settings:
        """The settings with this device in [detect] and [features]; None: as they are."""
        if device is None:
            return self
        source = self.source
        for section in ("detect", "features"):
            source = source.override(section, "device", device, "--device")
        return Settings(source, tolerant=True)

    def raw(self, name: str) -> Path:
        return self.paths.raw / name

    @property
    def embedded_datasets(self) -> tuple[str, ...]:
        if not self.embedded.enabled:
            return ()
        return tuple(name for name in self.data.datasets if name in datasets.WITH_DEMO_DATA)

    @property
    def workers(self) -> int:
        return cores(self.convert.workers)

    def known_splits(
        self, names: Sequence[str] = ()
    ) -> tuple[list[str], Mapping[str, PlugInError]]:
        """The splits of these datasets (default: of all datasets).

        Also returns dataset -> error for datasets whose package is broken.
        """
        names = names or datasets.names()
        loaded = datasets.load_all(names)
        splits: list[str] = []
        for name in loaded.records:
            splits += [f"{name}/{split}" for split in datasets.get(name).splits]
        return splits, loaded.broken


class SettingValue(NamedTuple):
    """A setting with its effective value and its default."""

    section: str
    key: str
    value: Any
    default: Any

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"


def training_sections() -> tuple[str, ...]:
    """Names of the sections of trainings, which `vibe_model.sections` checks."""
    return (*TRAININGS, *plug_ins.list_names(plug_ins.MODELS))


def load(
    file: Path,
    hint: str = NO_FILE,
    *,
    tolerant: bool = False,
    optional: bool = False,
) -> Settings:
    """Read and check luigi.cfg and `--set`.

    Sections of trainings and of Luigi are not checked.

    Args:
        hint: End of the message for a missing file.
        tolerant: As for `Settings`.
        optional: Use the defaults if the file is missing.

    Raises ConfigError, with the line, for unknown, missing, invalid and contradictory settings.
    """
    source = SettingsFile.read(file, hint, optional=optional)
    return Settings(source.apply_overrides(), tolerant).check()


def _parse_section(source: SettingsFile, name: str, make: type[T]) -> T:
    """Parse a section as the dataclass that SECTION_TYPES has for it.

    Raises ConfigError for invalid values, and for a missing key that is required.
    """
    section = source.section(name)
    spec: type[Any] = make
    for field in fields(spec):
        if field.default is MISSING and field.name not in section:
            raise ConfigError(f"{section.where()}: {field.name!r} is missing ({pages.SETTINGS})")
    return _configure([section], spec, make)


def _configure(layers: Sequence[Section], spec: type[Any], make: Callable[..., T]) -> T:
    """Make a dataset, stream or detector with the options of sections.

    layers: The sections; an earlier one overrides the later ones. spec: The class whose fields are
    the options.

    Raises ConfigError, with the line or the option, for unknown options and invalid values.
    """
    values = dict[str, Any]()
    for layer in reversed(layers):
        layer.check_keys(_keys_of(spec))  # with those of a command's options
        values |= layer.parse(spec)
    try:
        return make(**values)
    except ConfigError as error:
        setting = (layer for layer in layers if not layer.keys().isdisjoint(error.options))
        raise next(setting, layers[-1]).locate(error) from error


# --------------------------------------------------------------------------------------------------
# streams


def kind_of(source: SettingsFile, name: str) -> str:
    """A stream's kind: the key `kind` of its section, else its name."""
    return _section_of(source, name).get(KIND, name)


def _section_of(source: SettingsFile, name: str) -> Section:
    """A stream's section; of a jittered copy without one, the copied stream's with another crop."""
    copy = _COPY.fullmatch(name)
    if name in source.sections or copy is None:
        return source.section(name)
    section = source.section(copy[1])
    crop = f"{stream_of(source, copy[1]).stream.policy} jitter:{copy[2]}"
    return Section(source.path, name, {KIND: copy[1], **section, "crop": crop}, section.options)


def stream_of(source: SettingsFile, name: str) -> StreamSpec:
    """A stream with the options of its section, else of its kind's section. Raises ConfigError."""
    section = _section_of(source, name)
    kind = kind_of(source, name)
    try:
        stream_class = streams.find(kind)
    except PipelineError as error:
        hint = ""
        if KIND not in section:
            hint = f" Name its kind: --kind resnet50, or in a section [{name}]: kind = resnet50."
        where = section.where(KIND) if KIND in section else source.where("features", "streams")
        raise ConfigError(f"{where}: {error}{hint}") from error
    layers = [section.drop_keys(KIND)]
    if kind != name:
        layers.append(source.section(kind).drop_keys(KIND))
    return StreamSpec(name, _configure(layers, stream_class, functools.partial(streams.get, kind)))


def detector_of(source: SettingsFile, name: str) -> Detector:
    """A detector with the options of its section. Raises ConfigError."""
    section = source.section(name)
    detector = _configure([section], detectors.find(name), functools.partial(detectors.get, name))
    # paths of luigi.cfg are relative to its folder, paths of options to the working folder
    below = detector.below(source.path.resolve().parent)
    of_file = section.keys() - section.options.keys()
    return replace(detector, **{key: getattr(below, key) for key in of_file})


# --------------------------------------------------------------------------------------------------
# checks


def _check_sections(source: SettingsFile, *, tolerant: bool) -> None:
    """Raise ConfigError for an unknown section.

    tolerant: print a warning about an unknown section instead.
    """
    names = [
        *SECTION_TYPES,
        *datasets.names(),
        *streams.names(),
        *detectors.names(),
        *training_sections(),
    ]
    section_names = sorted({*names, *source.section("features").get("streams", "").split()})
    hint = f"If a package adds it, install the package. {pages.SETTINGS} lists the other sections."
    for name, section in source.sections.items():
        if name not in section_names and name not in LUIGI:
            similar = did_you_mean(name, [*section_names, *LUIGI])
            message = f"{section.where()}: unknown section{similar or '.'} {hint}"
            _raise_or_warn(message, warn=tolerant and not (similar or section.options))
    # Luigi itself would end with a traceback
    exit_codes = source.section("retcode")
    for key, text in exit_codes.items():
        if not text.isdecimal():
            raise ConfigError(f"{exit_codes.where(key)} = {text}: expected a whole number")


def _check_keys(source: SettingsFile) -> None:
    """Raise ConfigError for an unknown key. Not checked are sections of trainings and of Luigi, and
    of packages that cannot be loaded.
    """
    for name, section in source.sections.items():
        if name in SECTION_TYPES:
            section.check_keys(_keys_of(SECTION_TYPES[name]))
            continue
        kind = section.get(KIND, name)
        for registry in (datasets, detectors, streams):
            if registry.is_known(kind):
                with suppress(PlugInError):
                    section.drop_keys(KIND).check_keys(_keys_of(registry.find(kind)))


def _keys_of(spec: type[Any]) -> list[str]:
    return [field.name for field in fields(spec)]


def _raise_or_warn(message: str, *, warn: bool) -> None:
    """Raise ConfigError, or print the message as a warning."""
    if not warn:
        raise ConfigError(message)
    err.warn(message)


def _check_datasets(
    source: SettingsFile, enabled: tuple[str, ...], tolerant: bool
) -> tuple[str, ...]:
    """Return the datasets of [data] that exist, those with demo data in place of the word `demo`.
    Raises ConfigError for an unknown one (`tolerant`: prints a warning, unless a similar name
    exists), for a repeated one, and if there are none.
    """
    line = source.where("data", "datasets")
    names = datasets.names()
    listed: list[str] = []
    for name in enabled:
        listed += datasets.WITH_DEMO_DATA if name == DEMO else [name]
    for name in listed:
        if name not in names:
            similar = did_you_mean(name, names)
            _raise_or_warn(f"{line}: {datasets.unknown(name)}", warn=tolerant and not similar)
    if not listed or len(set(listed)) < len(listed):
        expected = f"one or more of {', '.join((DEMO, *names))}, each once"
        raise ConfigError(f"{line}: expected {expected}, found {' '.join(listed) or 'none'}")
    return tuple(name for name in listed if name in names)


def _check_folders(paths: Paths, source: SettingsFile) -> None:
    """Raise ConfigError for a folder in the cache: `gc` would delete its files."""
    root = local_folder(paths.cache)
    for key in ("raw", "body", "runs", "state"):
        folder: Path | None = getattr(paths, key)
        if folder and root and folder.resolve().is_relative_to(root.resolve()):
            raise ConfigError(
                f"{source.where('paths', key)}: {folder} is in the cache "
                f"{paths.cache}, which must hold nothing else. Name another folder."
            )
