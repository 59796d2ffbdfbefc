"""What is to be in the cache: by luigi.cfg, or by folders that are named.  [raw -> tracks -> features] -> windows

For commands that ask what would run. `tasks.settings` reads and checks all of luigi.cfg; this reads what conversion and
extraction depend on, and takes it as the tasks do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cache
from pipeline import datasets
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError, PipelineError
from pipeline.feature_settings import Features, streams_of
from pipeline.parsing import typed
from pipeline.places import Places, read_places
from pipeline.stream_spec import StreamSpec


@dataclass(frozen=True, slots=True)
class Wanted:
    """A split that is to be converted, and the stream that is to be extracted for it."""

    dataset: Dataset
    split: str
    raw: Path  # the dataset's own raw folder
    root: cache.Root
    body: Path | None
    stream: StreamSpec | None  # None: whatever the cache has, as it was extracted
    crops: StreamSpec | None = None  # a stream of crops that is extracted first, since `stream` is computed from it
    to_be_made: bool = False  # by `synthesize`: there is nothing to look at yet

    @property
    def name(self) -> str:
        return f"{self.dataset.name}/{self.split}"


def by_settings(file: Path, names: Sequence[str] = (), root: cache.Root | None = None) -> list[Wanted]:
    """Every split that luigi.cfg enables, or of those the ones that DATASET or DATASET/SPLIT name.

    `root`: another cache than its own. Raises ConfigError, and PipelineError for a name that is not enabled.
    """
    places = read_places(file)
    cfg = ConfigParser(interpolation=None)
    cfg.read(file, encoding="utf-8")
    stream, crops = _streams(file, cfg)
    wanted = [
        Wanted(
            dataset,
            split,
            places.raw / name,
            places.cache if root is None else root,
            places.body if dataset.uses_body else None,
            stream if dataset.has_pixels else None,
            crops if dataset.has_pixels else None,
            to_be_made=_to_be_made(places, name),
        )
        for name, dataset in ((name, _reader(file, cfg, name)) for name in places.datasets)
        for split in dataset.splits
    ]
    return list(_chosen(wanted, names, file))


def by_folders(
    dataset: str, split: str, *, raw: Path, root: cache.Root, body: Path | None = None, stream: StreamSpec | None = None
) -> Wanted:
    """One split, whatever luigi.cfg says; the reader has its default options. Raises PipelineError for a wrong name."""
    reader = datasets.get(dataset)
    reader.check_split(split)
    return Wanted(reader, split, raw, root, body, None if stream is None else stream.at(raw))


def _chosen(wanted: Sequence[Wanted], names: Sequence[str], file: Path) -> Iterator[Wanted]:
    enabled = list(dict.fromkeys(one.dataset.name for one in wanted))
    for name in names:
        dataset, _, split = name.partition("/")
        if dataset not in enabled:
            do = "Enable it there." if dataset in datasets.names() else f"Known: {', '.join(datasets.names())}."
            raise PipelineError(f"{file} [data] datasets does not enable {dataset!r}, only {', '.join(enabled)}. {do}")
        if split:
            next(one.dataset for one in wanted if one.dataset.name == dataset).check_split(split)
    return (one for one in wanted if not names or one.dataset.name in names or one.name in names)


def _reader(file: Path, cfg: ConfigParser, name: str) -> Dataset:
    """The dataset's reader, with the options of its own section."""
    if name not in datasets.names():
        raise ConfigError(f"{file} [data] datasets: unknown {name!r}; known: {', '.join(datasets.names())}")
    given = dict(cfg[name]) if cfg.has_section(name) else {}
    options: dict[str, Any] = typed(file, name, given, type(datasets.get(name)))
    try:
        return datasets.get(name, **options)
    except ConfigError as error:
        raise ConfigError(f"{file} [{name}] {error}") from error


def _streams(file: Path, cfg: ConfigParser) -> tuple[StreamSpec, StreamSpec | None]:
    """[features], and the options of its kind; and the stream of crops that it is computed from, if it is."""
    given = dict(cfg["features"]) if cfg.has_section("features") else {}
    return streams_of(file, cfg, Features(**typed(file, "features", given, Features)))


def _to_be_made(places: Places, name: str) -> bool:
    return places.embedded and name in datasets.DATASETS and not (places.raw / name).is_dir()
