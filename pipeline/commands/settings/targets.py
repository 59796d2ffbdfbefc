"""What is to be in the cache: by luigi.cfg, or by a command's options.  [raw -> tracks -> features] -> windows

For commands that show what would run. They read luigi.cfg as the tasks do, but for [vibe] and [mposer].
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cache
from pipeline import datasets
from pipeline.commands.settings.file import BY_SET, Section, SettingsFile
from pipeline.commands.settings.schema import Features
from pipeline.commands.settings.sections import Settings, configured, dataclass_of, load, stream_of
from pipeline.datasets.base import Dataset
from pipeline.demo import has_demo_data
from pipeline.detect.base import Detector
from pipeline.errors import MissingAssets, PipelineError
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Stream
from pipeline.files.formats import smpl_files
from pipeline.plug_ins import PlugInError

NOTHING: Final = SettingsFile(Path(), {})  # no luigi.cfg
NO_SETTINGS: Final = (
    "Run from the project's folder, set LUIGI_CONFIG_PATH, or name one raw folder: DATASET SPLIT --raw DIR --cache DIR."
)


@dataclass(frozen=True, slots=True)
class Target:
    """A split that is to be converted, and the stream that is to be extracted for it."""

    dataset: Dataset
    split: str
    raw: Path  # the dataset's own raw folder
    root: cache.Root
    body: Path | None = None
    stream: StreamSpec | None = None  # None: the streams that the cache has, as they were extracted
    crops: StreamSpec | None = None  # a stream of crops that is extracted first, since `stream` is computed from it
    also: tuple[StreamSpec, ...] = ()  # further ones
    drop_removed: bool = False  # rows of videos that are gone from the raw folder go, too
    not_made: bool = False  # demo data, or the demo body, that `synthesize` has not made yet
    detector: Detector | None = None  # that finds people in its clips before they are converted
    by_any_detector: bool = False  # but where another one has found some
    weights: str = ""  # where luigi.cfg names the network's, which must be trained for real data; "": by an option

    @property
    def name(self) -> str:
        return f"{self.dataset.name}/{self.split}"

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        """In the order in which they are extracted."""
        return tuple(spec for spec in (self.crops, self.stream, *self.also) if spec is not None)


def by_settings(file: Path, names: Sequence[str] = (), root: cache.Root | None = None) -> list[Target]:
    """Every split that luigi.cfg enables, or of those the ones that DATASET or DATASET/SPLIT name.

    `root`: another cache than its own. Datasets whose package is broken are left out (`broken_in`), unless `names` has
    them. Raises ConfigError, PipelineError for a name that is not enabled, PlugInError for one that cannot be loaded.
    """
    s = load(file, NO_SETTINGS)
    broken = datasets.broken(s.data.datasets)
    enabled = {name: s.dataset(name) for name in s.data.datasets if name not in broken}
    for name in names:
        dataset, _, split = name.partition("/")
        if dataset in broken:
            raise PlugInError(broken[dataset])
        if dataset not in enabled:
            if unknown := datasets.unknown(dataset):
                raise PipelineError(unknown)
            only = f"only {', '.join(enabled)}. Enable it there."
            raise PipelineError(f"{file} [data] datasets does not enable {dataset!r}, {only}")
        if split:
            enabled[dataset].check_split(split)
    targets = [
        Target(
            dataset,
            split,
            s.raw(name),
            s.paths.cache if root is None else root,
            s.paths.body if dataset.uses_body else None,
            s.stream if dataset.has_pixels else None,
            s.crops if dataset.has_pixels else None,
            s.also,
            drop_removed=s.drops_removed(name),
            not_made=s.embedded.enabled and _not_made(s, dataset),
            detector=s.detector if name in s.detect.datasets else None,
            weights=s.source.where("features", "weights"),
        )
        for name, dataset in enabled.items()
        for split in dataset.splits
    ]
    return [target for target in targets if not names or target.dataset.name in names or target.name in names]


def _not_made(s: Settings, dataset: Dataset) -> bool:
    """Does `synthesize` make its raw files, or the body that it uses, and has not?"""
    without_raw = has_demo_data(dataset.name) and not s.raw(dataset.name).is_dir()
    return without_raw or (dataset.uses_body and not s.paths.body.is_dir())


def broken_in(file: Path) -> list[str]:
    """Datasets that luigi.cfg enables and that cannot be loaded, as messages. Raises ConfigError."""
    return list(datasets.broken(load(file).data.datasets).values())


def absent(targets: Iterable[Target]) -> list[str]:
    """Messages: files of weights and of the body that targets name and that are not there. Each message once."""
    messages = []
    for target in targets:
        needed: list[Callable[[], object]] = [spec.stream.identity for spec in target.streams]
        if target.detector is not None and not target.detector.downloads:
            needed.append(target.detector.identity)
        if target.dataset.uses_body and target.body is not None and not target.not_made:
            needed += [functools.partial(smpl_files.digest, target.body, gender) for gender in target.dataset.genders]
        for digest in needed:
            try:
                digest()
            except MissingAssets as error:
                messages.append(str(error))
    return list(dict.fromkeys(messages))


def stream_named(
    kind: str, options: Mapping[str, str], over: Stream | SettingsFile = NOTHING, name: str = ""
) -> Stream:
    """The stream that a command's options ask for, over another of the kind or over luigi.cfg.

    `name`: whose section of luigi.cfg has its options; where there is none, its kind's. Raises ConfigError for options
    that the kind does not have.
    """
    of_kind, section = streams.find(kind), Section(BY_SET, kind, options)
    if not isinstance(over, SettingsFile):
        return configured(Section(Path(), kind), of_kind, lambda _, **all_: replace(over, **all_), section)
    features = dataclass_of(over.section("features"), Features)
    return stream_of(over, features, name if name in over.sections else kind, of_kind, section)
