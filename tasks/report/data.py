"""The cache's content: splits and dropped data.  raw -> tracks -> features -> [report]

`OpenedCache.read` opens what can be read; `sections` shows it in two sections, of sizes and of
dropped data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple, Self

import numpy as np

import cache
from pipeline import datasets
from pipeline.accounting import SAMPLED, reason
from pipeline.cli.system_errors import error_text
from pipeline.cli.text import command, count, from_here
from pipeline.commands import leaks
from pipeline.features.committed import MissingRows, is_untrained, stream_label
from pipeline.people.estimates import estimates_of
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.grading import describe_words, stored_words
from tasks.report import DEMO, UNTRAINED, PageSection

UNREADABLE: Final = (cache.CacheError, OSError)  # errors that remove only a split from a section
# unit of the accounting in manifests -> its noun on the page
COUNTED: Final = {"videos": "video", "tracks": "track", "frames": "person-frame"}
MOST_REJECTED: Final = 5  # rejected videos to list per split; the others are counted


class _DroppedFrames(NamedTuple):
    """Numbers of dropped person-frames, without those that sampling skips."""

    by_design: int
    errors: int


class _SplitRow(NamedTuple):
    """A split in the table of sizes."""

    name: str
    data: str  # real, demo, or estimates of another model
    streams: str
    grades: str
    n_videos: int  # with a track
    n_tracks: int
    n_rows: int


class _ReasonRow(NamedTuple):
    """A reason in the table of dropped data."""

    split: str
    reason: str
    kind: str  # by design, sampling, error; "" for videos without tracks
    dropped: str  # numbers of videos, tracks and frames
    meaning: str


class _RejectedVideos(NamedTuple):
    """The rejected videos of a split."""

    split: str
    n: int
    first: list[str]  # messages about the first ones


@dataclass(frozen=True, slots=True)
class OpenedCache:
    """The readable splits of a cache, and problems of the others."""

    root: cache.Root
    splits: Sequence[cache.Split]
    n_missing: Mapping[str, int]  # stream -> rows without features, in all splits
    problems: Sequence[str]

    @classmethod
    def read(cls, root: cache.Root) -> Self:
        """Open all splits of a cache. Unreadable ones are listed in `problems`."""
        try:
            features = cache.open(root)
            names = features.splits
        except UNREADABLE as error:
            return cls(root, [], {}, [str(error)])
        splits: list[cache.Split] = []
        n_missing = Counter[str]()
        problems: list[str] = []
        if not names:
            problems.append(
                f"{root}: the cache has no split yet. `luigi --module tasks Data` fills it."
            )
        for name in names:
            try:
                split = features[name]
                n_missing.update(_missing_rows(split))
            except UNREADABLE as error:
                problems.append(f"{name}: {error_text(error)}")
                continue
            splits.append(split)
            dataset = name.partition("/")[0]
            reader = split.manifest.get("reader")
            is_of_reader = reader is not None and "imported" not in reader
            if is_of_reader and not datasets.is_known(dataset):
                problems.append(f"{name}: split of {datasets.missing_label(dataset)}")
        return cls(root, splits, n_missing, problems)

    @property
    def mark(self) -> str:
        """DEMO if a split is demo data, UNTRAINED if only features come from random weights; else
        "".
        """
        if any(map(_is_demo, self.splits)):
            return DEMO
        for split in self.splits:
            for name in split.streams:
                if split.open_stream(name).manifest.get("stand_in") or is_untrained(split, name):
                    return UNTRAINED
        return ""

    @property
    def splits_of_datasets(self) -> str:
        """Their numbers as text: 3 splits of 2 datasets."""
        names = {split.name.partition("/")[0] for split in self.splits}
        return f"{count(len(self.splits), 'split')} of {count(len(names), 'dataset')}"

    @property
    def n_rows(self) -> int:
        """Number of rows in committed tracks."""
        return sum(split.tracks.n_rows for split in self.splits)

    def sections(self) -> list[PageSection]:
        """The sections of sizes and of dropped data."""
        return [_overview_section(self), _accounting_section(self)]

    def dropped_frames(self) -> _DroppedFrames:
        """Count the dropped person-frames of all splits with an accounting."""
        by_design = 0
        errors = 0
        for split in self.splits:
            for name, n in _count_dropped(split, "frames").items():
                if name in SAMPLED:
                    continue
                if reason(name).by_design:
                    by_design += n
                else:
                    errors += n
        return _DroppedFrames(by_design, errors)


def _missing_rows(split: cache.Split) -> dict[str, int]:
    """Stream -> its rows without features. Reads the tables and streams; raises CacheError and
    OSError for those that cannot be read.
    """
    _ = split.tracks  # reads the tables
    return {name: MissingRows.find(split, name).rows for name in split.streams}


def _is_demo(split: cache.Split) -> bool:
    """Whether the split comes from demo data."""
    return bool(split.manifest.get("stand_in", False))


def _overview_section(opened: OpenedCache) -> PageSection:
    """The section of datasets and splits: size, streams and grades."""
    rows = []
    for split in opened.splits:
        kind = "demo" if _is_demo(split) else "real"
        streams = [stream_label(split, name) for name in split.streams]
        rows.append(
            _SplitRow(
                split.name,
                estimates_of(split) or kind,
                ", ".join(streams) or "none",
                describe_words(stored_words(split)),
                len(np.unique(split.tracks.video)),
                len(split.tracks),
                split.tracks.n_rows,
            )
        )
    comparisons = leaks.compare_splits(opened.splits)
    data = {
        "rows": rows,
        "problems": opened.problems,
        "shared": leaks.summary(comparisons),
        "leaks": any(comparison.leaks for comparison in comparisons),
        "leaks_command": command("leaks", "--cache", from_here(opened.root)),
    }
    line = f"{opened.splits_of_datasets}, {count(opened.n_rows, 'row')}"
    return PageSection("datasets", "Datasets and splits", data, line, bool(opened.problems))


def _accounting_section(opened: OpenedCache) -> PageSection:
    """The section of dropped data: reasons, rejected videos."""
    rejected: list[_RejectedVideos] = []
    reasons: list[_ReasonRow] = []
    for split in opened.splits:
        reasons += _reason_rows(split)
        record = ConversionRecord(split)
        if record.n_rejected:
            first = [*islice(record.rejections(), MOST_REJECTED)]
            rejected.append(_RejectedVideos(split.name, record.n_rejected, first))
    data = {
        "reasons": reasons,
        "rejected": rejected,
        "command": command("status", "--all", "--cache", from_here(opened.root)),
    }
    dropped = opened.dropped_frames()
    line = (
        f"{count(dropped.by_design, 'person-frame')} dropped by design, {dropped.errors:,} "
        "because of errors"
    )
    unfolded = bool(dropped.errors or rejected)
    return PageSection("accounting", "Dropped data", data, line, unfolded)


def _reason_rows(split: cache.Split) -> Iterator[_ReasonRow]:
    """Yield a row for each reason for which data of a split was dropped."""
    texts: dict[str, list[str]] = {}
    for counted, noun in COUNTED.items():
        for name, n in _count_dropped(split, counted).items():
            texts.setdefault(name, []).append(count(n, noun))
    for name in sorted(texts):
        kind = "by design" if reason(name).by_design else "error"
        if name in SAMPLED:
            kind = "sampling"
        yield _ReasonRow(split.name, name, kind, ", ".join(texts[name]), reason(name).meaning)
    n_without = split.manifest.get("accounting", {}).get("videos", {}).get("without_tracks", 0)
    if n_without:
        dropped = count(n_without, "video")
        yield _ReasonRow(split.name, "no track", "", dropped, "none of its frames is kept")


def _count_dropped(split: cache.Split, counted: str) -> dict[str, int]:
    """Reason -> number of `videos` set aside, or `tracks` or `frames` dropped; empty if it was not
    recorded.
    """
    totals = split.manifest.get("accounting", {}).get(counted, {})
    return {**totals.get("dropped", {}), **totals.get("set_aside", {})}
