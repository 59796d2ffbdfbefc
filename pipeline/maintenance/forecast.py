"""What a plan will bring: person-frames, bytes, hours.  [raw -> tracks -> features] -> windows

Person-frames come from a sample of videos, from the videos that are committed, or from the release's known numbers.
Bytes follow from them (`pipeline.maintenance.overview`). Hours follow from the speeds that earlier runs of this machine
noted beside their commits (provenance.json), or from one that is given.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from pipeline.accounting import Totals
from pipeline.cli.console import duration
from pipeline.cli.text import count
from pipeline.conversion.convert import read_videos
from pipeline.conversion.plan import ConversionPlan
from pipeline.datasets.base import Dataset
from pipeline.features.streams.base import BYTES
from pipeline.maintenance.overview import A_CROP, SplitPlan, columns_bytes, sizes, stream_bytes
from pipeline.raw import listing

CONVERT: Final = "convert"
UNKNOWN: Final = "person-frames are not known before some videos are read: --sample 16"
Form = tuple[int, str]  # numbers a row and their type; for compressed crops, `BYTES`


class Rate(NamedTuple):
    """How fast something goes here."""

    rows: float  # a second
    source: str  # "given"; "measured here 3 days ago, over 81,749 rows"
    weight: float = math.inf  # rows that it was measured over
    start: float = 0.0  # s before the first row
    devices: int = 0  # that share it, where it is given; 0: measured

    def seconds(self, rows: float) -> float:
        return self.start + rows / self.rows


class Expected(NamedTuple):
    """Person-frames that a conversion will write."""

    rows: float | None  # None: not known
    source: str  # how they are known, or what to do to know them
    error: float = 0.0  # of the mean, as a share of it: two standard errors of a sample; 0: not known, or exact
    rate: Rate | None = None  # of reading the sample


@dataclass(slots=True)
class Forecast:
    """Of one split: what is still to be written."""

    split: str
    expected: Expected
    columns: float = 0.0  # bytes
    rows: dict[str, float] = field(default_factory=dict)  # by stream: rows to compute
    bytes: dict[str, float] = field(default_factory=dict)  # by stream
    seconds: dict[str, float | None] = field(default_factory=dict)  # of CONVERT and by stream; None: not known
    rates: dict[str, Rate] = field(default_factory=dict)


def forecast(
    plan: SplitPlan, rates: Mapping[str, Rate], *, sample: int = 0, workers: int = 1, crop: float = A_CROP
) -> Forecast | None:
    """Of one split's plans; None where nothing is to be done, or no plan could be made of the raw files that are there.

    rates: by dataset (conversion) and by stream. sample: so many videos are read, 0: none. crop: bytes of a stored
    crop.
    """
    todo, target = plan.conversion, plan.target
    body = target.body is not None
    if todo is None and not target.not_made and next(listing.listed(target.raw, {}), None) is None:
        expected = of_release(target.dataset, target.split, None)
    elif todo is None or plan.problems or plan.up_to_date:
        return None
    else:
        expected, body = expected_rows(todo, plan.rows_again, sample, workers), todo.reader["body"] is not None
    found = Forecast(plan.name, expected)
    columns = target.dataset.columns(target.split, body=body)
    new = expected.rows or 0
    found.columns = columns_bytes(new, columns)
    specs = [spec for spec in target.streams if target.dataset.has_pixels and {*spec.stream.needs} <= {*columns}]
    forms: dict[str, Form] = {spec.name: (spec.stream.dim, spec.stream.dtype) for spec in specs}
    forms |= {stream.stream: stream.form for stream in plan.extractions}
    lacks = {stream.stream: stream.lacks.rows for stream in plan.extractions if stream.why}
    for name, (dim, dtype) in forms.items():
        found.rows[name] = lacks.get(name, 0) + new
        found.bytes[name] = stream_bytes(found.rows[name], dim, dtype, crop)
    works = {CONVERT: (new, rates.get(target.dataset.name) or expected.rate)}
    works |= {name: (rows, rates.get(name)) for name, rows in found.rows.items()}
    for name, (rows, rate) in works.items():
        if rows:
            found.seconds[name] = None if rate is None else rate.seconds(rows)
            found.rates |= {} if rate is None else {name: rate}
    return found


# ------------------------------------------------------------------------------------------------- person-frames


def expected_rows(plan: ConversionPlan, again: int, sample: int, workers: int) -> Expected:
    """Of the videos that a conversion will read. again: rows of those that are committed and read again."""
    if not plan.append:
        return Expected(0, "no new video to read")
    if sample:
        return _sampled(plan, min(sample, len(plan.append)), workers)
    if plan.committed is not None and len(plan.committed.videos):
        mean = plan.committed.manifest["rows"] / len(plan.committed.videos)
        return Expected(again + mean * len(plan.new), "as many a video as are committed")
    if plan.reader["stand_in"]:
        return Expected(None, UNKNOWN)
    return of_release(plan.dataset, plan.split, len(plan.append))


def of_release(dataset: Dataset, split: str, downloaded: int | None) -> Expected:
    """By what is known of the full release. downloaded: videos that are there; None: nothing is there yet."""
    known, every = dataset.totals.get(split, Totals()), dataset.totals.get("all", Totals())
    frames: float | None = known.frames
    videos, source = known.videos, "by the release's numbers"
    if frames is None and videos and every.frames and every.videos:  # then all videos are listed for a split
        frames, videos = every.frames * videos / every.videos, every.videos
    if frames is None and known.about is not None:
        frames, source = known.about, "estimated (docs/scale.md)"
    if frames is None or (downloaded is not None and not videos):
        return Expected(None, UNKNOWN if downloaded is not None else "person-frames are not known before the download")
    share = 1.0 if downloaded is None or not videos else min(1.0, downloaded / videos)
    return Expected(frames * share / dataset.every, source + ", not downloaded yet" * (downloaded is None))


def _sampled(plan: ConversionPlan, n: int, workers: int) -> Expected:
    """By reading `n` videos, evenly over the list."""
    at = np.unique(np.linspace(0, len(plan.append) - 1, n).round().astype(int)).tolist()
    times, rows = [time.perf_counter()], list[int]()
    for read in read_videos(plan, [plan.append[i] for i in at], workers):
        rows.append(read.n_rows)
        times.append(time.perf_counter())
    mean = float(np.mean(rows))
    everyone = len(rows) == len(plan.append)
    spread = float(np.std(rows, ddof=1)) / math.sqrt(len(rows)) if len(rows) > 1 and not everyone else 0.0
    rate = None
    if later := sum(rows[1:]):  # processes start before the first video is read
        source = f"measured here now, over {count(later, 'row')}"
        rate = Rate(later / max(times[-1] - times[1], 1e-6), source, later, start=times[1] - times[0])
    source = "all videos were read" if everyone else f"by a sample of {count(len(rows), 'video')}"
    error = 2 * spread / mean if mean else 0.0
    return Expected(mean * len(plan.append), source, error, rate)


# ---------------------------------------------------------------------------------------------------- what is known


def readable(root: cache.Root) -> list[cache.Split]:
    """The splits of a cache that can be opened; none where there is no cache yet."""
    found = list[cache.Split]()
    with contextlib.suppress(cache.CacheError):
        opened = cache.open(root)
        for name in opened.splits:
            with contextlib.suppress(cache.CacheError):  # a damaged one is among its plan's problems
                found.append(opened[name])
    return found


def measured_rates(splits: Iterable[cache.Split]) -> dict[str, Rate]:
    """How fast this machine converted each dataset and extracted each stream: of each, the run over the most rows."""
    found: dict[str, Rate] = {}
    for split in splits:
        notes = [(split.name.partition("/")[0], split.provenance)]
        with contextlib.suppress(cache.CacheError):
            notes += [(name, split.stream_provenance(name)) for name in split.streams]
        for name, note in notes:
            rate = _measured(note)
            if rate is not None and (name not in found or rate.weight > found[name].weight):
                found[name] = rate
    return found


def _measured(note: Mapping[str, Any]) -> Rate | None:
    """Of one commit's note; None where it was made on another machine, or nothing was measured."""
    measured = note.get("measured")
    if note.get("host") != socket.gethostname() or not isinstance(measured, Mapping):
        return None
    try:
        rows, rate = int(measured["rows"]), float(measured["rows_a_second"])
        age = (datetime.now(UTC) - datetime.fromisoformat(str(note["finished"]))).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
    source = f"measured here {duration(max(age, 1))} ago, over {count(rows, 'row')}"
    return Rate(rate, source, rows) if rows and rate > 0 else None


def bytes_of_a_crop(splits: Sequence[cache.Split]) -> float:
    """Of the crops that a cache has; `A_CROP` where it has none."""
    rows, n_bytes = 0, 0
    for split in splits:
        with contextlib.suppress(cache.CacheError):
            for name in (name for name in split.streams if split.stream_manifest(name).get("dtype") == BYTES):
                rows += int(split.rows_by_shard()[split.stream_shards(name)].sum())
                n_bytes += sizes(split)["streams"][name]
    return n_bytes / rows if rows else A_CROP
