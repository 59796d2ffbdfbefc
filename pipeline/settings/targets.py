"""What is to be in the cache: by luigi.cfg, or by folders that are named.  [raw -> tracks -> features] -> windows

For commands that ask what would run. They take luigi.cfg as the tasks do, but for [train] and [mposer].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cache
from pipeline import datasets
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.features.spec import StreamSpec
from pipeline.plug_ins import PlugInError
from pipeline.settings.sections import Sections, load


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
    weights: str = ""  # where luigi.cfg names the network's, which are never untrained for real data; "": by an option

    @property
    def name(self) -> str:
        return f"{self.dataset.name}/{self.split}"


def by_settings(file: Path, names: Sequence[str] = (), root: cache.Root | None = None) -> list[Wanted]:
    """Every split that luigi.cfg enables, or of those the ones that DATASET or DATASET/SPLIT name.

    `root`: another cache than its own. Datasets whose package is broken are left out (`broken_in`), unless `names` has
    them. Raises ConfigError, PipelineError for a name that is not enabled, PlugInError for one that cannot be loaded.
    """
    found = load(file)
    broken = datasets.broken(found.data.datasets)
    if asked := [broken[name] for name in (name.partition("/")[0] for name in names) if name in broken]:
        raise PlugInError(asked[0])
    wanted = [
        Wanted(
            dataset,
            split,
            found.raw(name),
            found.paths.cache if root is None else root,
            found.paths.body if dataset.uses_body else None,
            found.stream if dataset.has_pixels else None,
            found.crops if dataset.has_pixels else None,
            to_be_made=_to_be_made(found, name),
            weights=found.source.where("features", "weights"),
        )
        for name, dataset in ((name, found.dataset(name)) for name in found.data.datasets if name not in broken)
        for split in dataset.splits
    ]
    return list(_chosen(wanted, names, file))


def broken_in(file: Path) -> list[str]:
    """What luigi.cfg enables and cannot be loaded, in words. Raises ConfigError."""
    return list(datasets.broken(load(file).data.datasets).values())


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


def _to_be_made(found: Sections, name: str) -> bool:
    return found.embedded.enabled and name in datasets.DATASETS and not found.raw(name).is_dir()
