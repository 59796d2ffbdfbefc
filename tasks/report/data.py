"""The cache's content: splits and dropped data.  raw -> tracks -> features -> [report]

`open_splits` opens what can be read; two sections show it: `overview_section` (sizes) and
`accounting_section` (dropped data).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np

import cache
from pipeline import datasets
from pipeline.accounting import SAMPLED, reason
from pipeline.cli.console import duration
from pipeline.cli.text import command, count, error_text
from pipeline.commands import leaks
from pipeline.conversion.committed import rejected_videos
from pipeline.estimates import estimates_of
from pipeline.features.plan import is_untrained, missing_rows, stream_label
from tasks.report.page import Cell, PageSection

UNREADABLE: Final = (cache.CacheError, OSError)  # errors that remove only a split from a section
# unit of the accounting in manifests -> its name on the page
COUNTED: Final = {"videos": "videos", "tracks": "tracks", "frames": "person-frames"}
MOST_REJECTED: Final = 5  # rejected videos to list per split; the others are counted

DEMO: Final = "demo data"  # marks of a page
UNTRAINED: Final = "untrained network"


@dataclass(slots=True)
class OpenedCache:
    """The readable splits of a cache, and problems of the others."""

    root: cache.Root
    splits: list[cache.Split] = field(default_factory=list)
    # (split, its stream) -> rows without features
    missing: dict[tuple[str, str], int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """DEMO if a split is demo data, UNTRAINED if only features come from random weights; else
        "".
        """
        if any(map(is_demo, self.splits)):
            return DEMO
        for split in self.splits:
            for name in split.streams:
                if split.stream_manifest(name).get("stand_in") or is_untrained(split, name):
                    return UNTRAINED
        return ""

    @property
    def splits_of_datasets(self) -> str:
        """Their numbers as text: 3 splits of 2 datasets."""
        datasets = {split.name.partition("/")[0] for split in self.splits}
        return f"{count(len(self.splits), 'split')} of {count(len(datasets), 'dataset')}"

    @property
    def n_rows(self) -> int:
        """Number of rows in committed tracks."""
        return sum(map(_n_rows, self.splits))

    def frames_left_out(self) -> tuple[int, int]:
        """Number of person-frames dropped by design, and because of errors. Frames skipped by
        sampling do not count.
        """
        left_out = _left_out(split for split in self.splits if "accounting" in split.manifest)
        frames = {
            name: n
            for (unit, name), n in left_out.items()
            if unit == COUNTED["frames"] and name not in SAMPLED
        }
        by_design = sum(n for name, n in frames.items() if reason(name).by_design)
        return by_design, sum(frames.values()) - by_design


def open_splits(root: cache.Root) -> OpenedCache:
    """Open all splits of a cache. Unreadable ones are listed in `problems`."""
    opened = OpenedCache(root)
    try:
        features = cache.open(root)
        names = features.splits
    except UNREADABLE as error:
        opened.problems.append(str(error))
        return opened
    if not names:
        opened.problems.append(
            f"{root}: the cache has no split yet. `luigi --module tasks Data` fills it."
        )
    for name in names:
        try:
            split = features[name]
            _n_rows(split)  # reads the tables
            for stream in split.streams:
                opened.missing[name, stream] = missing_rows(split, stream).rows
            opened.splits.append(split)
            if "reader" in split.manifest and "imported" not in split.manifest["reader"]:
                not_installed = datasets.not_installed(name.partition("/")[0])
                if not_installed:
                    opened.problems.append(f"{name}: split of {not_installed}")
        except UNREADABLE as error:
            opened.problems.append(f"{name}: {error_text(error)}")
    return opened


def _n_rows(split: cache.Split) -> int:
    """Number of rows in a split's tracks."""
    return int((split.tracks.stop - split.tracks.start).sum())


def is_demo(split: cache.Split) -> bool:
    """Whether the split comes from demo data."""
    return bool(split.manifest.get("stand_in", False))


# -----------------------------------------------------------------------------------------------
# datasets and splits


def overview_section(opened: OpenedCache, used: Mapping[str, str] | None = None) -> PageSection:
    """The section of datasets and splits: size, dropped data, streams.

    used: Split -> its uses in the runs (`runs.split_uses`); None: without this column.
    """
    header = ["split", "data", "videos", "tracks", "rows", "person-time", "streams"]
    if used is not None:
        header.append("used for")
    header.append("dropped, by reason")
    rows = list[Sequence[Cell]]()
    sizes = list[tuple[int, int, int]]()
    for split in opened.splits:
        n_videos = len(np.unique(split.tracks.video))
        sizes.append((n_videos, len(split.tracks), _n_rows(split)))
        kind = "demo" if is_demo(split) else "real"
        row: list[Cell] = [split.name, estimates_of(split) or kind, *sizes[-1]]
        streams = [stream_label(split, name) for name in split.streams]
        row += [_person_time([split]), ", ".join(streams) or "none"]
        if used is not None:
            row.append(used.get(split.name, "nothing"))
        row.append(_left_out_of(split))
        rows.append(row)
    if len(rows) > 1:
        totals = map(sum, zip(*sizes, strict=True))
        row = ["all", "", *totals, _person_time(opened.splits)]
        row += [""] * (len(header) - len(row))
        rows.append(row)

    comparisons = leaks.compare_names(opened.splits)
    readable = {split.name for split in opened.splits}
    gone = [(name, use) for name, use in (used or {}).items() if name not in readable]
    data = {
        "header": header,
        "rows": rows,
        "problems": opened.problems,
        "gone": gone,
        "shared": leaks.summary(comparisons),
        "leaks": any(comparison.leaks for comparison in comparisons),
        "leaks_command": command("leaks", "--cache", str(opened.root)),
    }
    line = f"{opened.splits_of_datasets}, {count(opened.n_rows, 'row')}"
    return PageSection(
        "datasets", "Datasets and splits", "overview.html", data, line, bool(opened.problems)
    )


def _person_time(splits: Sequence[cache.Split]) -> str:
    """Total duration of the tracks with a known frame rate; a row lasts `step` frames of the
    video.
    """
    seconds = 0.0
    n_known = 0
    n_tracks = 0
    for split in splits:
        tracks = split.tracks
        has_rate = np.isfinite(tracks.fps) & (tracks.fps > 0)
        frames = (tracks.stop - tracks.start) * tracks.step
        seconds += float((frames[has_rate] / tracks.fps[has_rate]).sum())
        n_known += int(has_rate.sum())
        n_tracks += len(tracks)
    if not n_known:
        return "unknown rate"
    if n_known < n_tracks:
        known = count(n_known, "track")
        return f"{duration(seconds)} (of {known}; unknown rate for the others)"
    return duration(seconds)


# --------------------------------------------------------------------------------------------------
# left out


def accounting_section(opened: OpenedCache) -> PageSection:
    """The section of dropped data: reasons, rejected videos."""
    recorded = [split for split in opened.splits if "accounting" in split.manifest]
    left_out = _left_out(recorded)
    reasons = []
    names = {name for _, name in left_out}
    for name in sorted(names, key=lambda name: (reason(name).by_design, name)):
        kind = "by design" if reason(name).by_design else "error"
        if name in SAMPLED:
            kind = "sampling"
        dropped = []
        for (unit, its_reason), n in left_out.items():
            if its_reason == name:
                dropped.append(count(n, unit[:-1]))  # count() adds the plural's s
        reasons.append((name, kind, ", ".join(dropped), reason(name).meaning))

    faulty = []
    for split in recorded:
        n_rejected, texts = rejected_videos(split)
        if n_rejected:
            first = [*islice(texts, MOST_REJECTED)]
            faulty.append({"split": split.name, "n": n_rejected, "first": first})
    data = {
        "reasons": reasons,
        "rejected": faulty,
        "command": command("status", "--all", "--cache", str(opened.root)),
        "unrecorded": [split.name for split in opened.splits if split not in recorded],
    }
    by_design, wrong = opened.frames_left_out()
    line = f"{count(by_design, 'person-frame')} dropped by design, {wrong:,} because of errors"
    return PageSection(
        "accounting", "Dropped data", "accounting.html", data, line, bool(wrong or faulty)
    )


def _left_out(recorded: Iterable[cache.Split]) -> Counter[tuple[str, str]]:
    """(unit: a value of `COUNTED`, reason) -> number dropped, over all these splits."""
    left_out: Counter[tuple[str, str]] = Counter()
    for split in recorded:
        for counted, unit in COUNTED.items():
            for name, n in _reasons(split, counted).items():
                left_out[unit, name] += n
    return left_out


def _reasons(split: cache.Split, counted: str) -> dict[str, int]:
    """Reason -> number of `videos`, `tracks` or `frames` of a split dropped for it."""
    totals = split.manifest["accounting"][counted]
    return {**totals.get("dropped", {}), **totals.get("set_aside", {})}


def _left_out_of(split: cache.Split) -> str:
    """The dropped data of a split as text: "videos: 3 bad_labels; person-frames: 21 bad_labels".

    Frames skipped by sampling are not mentioned.
    """
    if "accounting" not in split.manifest:
        return "not recorded"
    texts = []
    for counted, unit in COUNTED.items():
        trackless = split.manifest["accounting"][counted].get("without_tracks")
        reasons = {**_reasons(split, counted), "without a track": trackless}
        counts = [f"{n:,} {name}" for name, n in reasons.items() if n and name not in SAMPLED]
        if counts:
            texts.append(f"{unit}: {', '.join(counts)}")
    return "; ".join(texts) or "nothing"
