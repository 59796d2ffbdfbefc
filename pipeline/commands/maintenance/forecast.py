"""What a plan will bring: person-frames, bytes, hours.  [raw -> tracks -> features] -> windows

Person-frames come from a sample of videos, from the videos that are committed, or from the release's known numbers; of
clips in which people are to be found first, from the frames that their headers state. Bytes follow from them
(`maintenance.overview`). Hours follow from the speeds that earlier runs of this machine noted beside their commits
(provenance.json) or keypoints, or from one that is given.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from pipeline.accounting import Totals
from pipeline.cli.console import duration
from pipeline.cli.text import count
from pipeline.commands.maintenance.overview import A_CROP, SplitPlan, columns_bytes, stored_bytes, stream_bytes
from pipeline.conversion.convert import read_videos
from pipeline.conversion.plan import ConversionPlan
from pipeline.datasets.base import Dataset
from pipeline.detect.files import read_speed
from pipeline.errors import PipelineError
from pipeline.features.streams.base import BYTES
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import listing

CONVERT: Final = "convert"
DETECT: Final = "detect"
EXTRACT: Final = "extract"
UNKNOWN: Final = "person-frames are not known before some videos are read: --sample 16"
NOT_MADE: Final = "demo data that are not made yet; of the releases: --set embedded.enabled=false"
HEADERS: Final = 64  # clips whose lengths are looked at
# Bytes of tables, manifests and other small files, about: of a split, a column, a stream, a video, a track.
OF_SPLIT, OF_COLUMN, OF_STREAM, OF_VIDEO, OF_TRACK = 13_000, 1_100, 4_000, 500, 170
ROWS_OF_A_TRACK: Final = 128  # where nothing is known of its length
Step = tuple[str, str]  # DETECT, CONVERT or EXTRACT, and the name of the dataset or of the stream
Form = tuple[int, str]  # numbers a row and their type; for compressed crops, `BYTES`


class Rate(NamedTuple):
    """How fast something goes here."""

    rows: float  # a second; of detection, frames
    source: str  # "given"; "measured here 3 days ago, over 81,749 rows"
    weight: float = math.inf  # rows that it was measured over
    start: float = 0.0  # s before the first row
    devices: int = 0  # that share it, where it is given; 0: measured

    def seconds(self, rows: float) -> float:
        return self.start + rows / self.rows if rows else 0.0


class Work(NamedTuple):
    """A step that is still to be done."""

    step: str  # DETECT, CONVERT or EXTRACT
    name: str  # of the dataset or of the stream
    rows: float  # of detection, frames
    carried: float = 0.0  # at most so many of the rows are carried over and need not be computed
    rate: Rate | None = None  # None: not known

    @property
    def key(self) -> Step:
        return self.step, self.name

    @property
    def seconds(self) -> tuple[float, float] | None:
        """At least and at most; None where its speed is not known."""
        if self.rate is None:
            return None
        return self.rate.seconds(self.rows - self.carried), self.rate.seconds(self.rows)


class Expected(NamedTuple):
    """Person-frames that a conversion will write."""

    rows: float | None  # None: not known
    source: str  # how they are known, or what to do to know them
    error: float = 0.0  # of the mean, as a share of it: two standard errors of a sample; 0: not known, or exact
    rate: Rate | None = None  # of reading the sample
    videos: float = 0.0
    tracks: float | None = None  # None: not known


@dataclass(slots=True)
class Forecast:
    """Of one split: what is still to be written."""

    split: str
    expected: Expected
    columns: float = 0.0  # bytes
    tables: float = 0.0  # bytes of tables, manifests and other small files, about
    bytes: dict[str, float] = field(default_factory=dict)  # by stream
    works: dict[str, Work] = field(default_factory=dict)  # by DETECT, CONVERT and stream

    @property
    def extractions(self) -> dict[str, Work]:
        """By stream."""
        return {name: work for name, work in self.works.items() if name not in (DETECT, CONVERT)}


def forecast(plan: SplitPlan, *, sample: int = 0, workers: int = 1, crop: float = A_CROP) -> Forecast | None:
    """Of one split's plans; None where nothing is to be done, or no plan could be made of the raw files that are there.

    sample: so many videos are read, 0: none. crop: bytes of a stored crop. Rates are added by `timed`.
    """
    todo, target = plan.conversion, plan.target
    if target.not_made:
        return Forecast(plan.name, Expected(None, NOT_MADE))
    body, frames = target.body is not None, 0.0
    if todo is None and plan.committed is None and next(listing.listed(target.raw, {}), None) is None:
        expected = of_release(target.dataset, target.split, None)
    elif todo is None or plan.problems or plan.up_to_date:
        return None
    else:
        frames, body = frames_stated(target.raw, plan.undetected), todo.reader["body"] is not None
        expected = _with_detection(plan, todo, frames, sample, workers)
    result, columns = Forecast(plan.name, expected), target.dataset.columns(target.split, body=body)
    new = expected.rows or 0
    result.columns = columns_bytes(new, columns)
    specs = [spec for spec in target.streams if target.dataset.has_pixels and {*spec.stream.needs} <= {*columns}]
    forms: dict[str, Form] = {spec.name: (spec.stream.dim, spec.stream.dtype) for spec in specs}
    forms |= {stream.stream: stream.form for stream in plan.extractions}
    lacks = {stream.stream: stream.lacks.rows for stream in plan.extractions if stream.why}
    works = {
        DETECT: Work(DETECT, target.dataset.name, frames),
        CONVERT: Work(CONVERT, target.dataset.name, new),
    }
    for name, (dim, dtype) in forms.items():
        rows = lacks.get(name, 0) + new
        result.bytes[name] = stream_bytes(rows, dim, dtype, crop)
        works[name] = Work(EXTRACT, name, rows, plan.carried_at_most(name, rows))
    result.works = {name: work for name, work in works.items() if work.rows}
    result.tables = OF_VIDEO * expected.videos
    result.tables += OF_TRACK * (new / ROWS_OF_A_TRACK if expected.tracks is None else expected.tracks)
    if plan.committed is None:
        result.tables += OF_SPLIT + OF_COLUMN * len(columns)
    held = () if plan.committed is None else plan.committed.streams
    result.tables += OF_STREAM * sum(name not in held and rows > 0 for name, rows in result.bytes.items())
    return result


def timed(forecasts: Iterable[Forecast], rates: Mapping[Step, Rate]) -> None:
    """Add the rates, by step and name. Of a dataset without one, the speed of a sample holds for all of its splits."""
    every = list(forecasts)
    of_samples: dict[Step, Rate] = {}
    for one in every:
        rate, work = one.expected.rate, one.works.get(CONVERT)
        if rate is not None and work is not None:
            of_samples[work.key] = max(rate, of_samples.get(work.key, rate), key=lambda rate: rate.weight)
    for one in every:
        for name, work in one.works.items():
            one.works[name] = work._replace(rate=rates.get(work.key) or of_samples.get(work.key))


# ------------------------------------------------------------------------------------------------- person-frames


def frames_stated(raw: Path, clips: Sequence[str]) -> float:
    """Frames of clips, by the headers of some of them, evenly over the list."""
    lengths = []
    for i in np.unique(np.linspace(0, len(clips) - 1, min(HEADERS, len(clips))).round().astype(int)).tolist():
        with contextlib.suppress(PipelineError):
            lengths.append(Video(raw, clips[i]).header().n_frames or 0)
    return float(np.mean(lengths)) * len(clips) if lengths else 0.0


def _with_detection(plan: SplitPlan, todo: ConversionPlan, frames: float, sample: int, workers: int) -> Expected:
    """`expected_rows`, and one person in each of the frames in which people are to be found first."""
    clips = frozenset(plan.undetected)
    waiting = {video.name for video in todo.listed if clips & {str(file) for file in video.files}}
    detected = replace(todo, append=tuple(video for video in todo.append if video.name not in waiting))
    expected = expected_rows(detected, plan.rows_again, sample, workers)
    if not waiting or expected.rows is None:
        return expected
    source = f"if each frame of {count(len(waiting), 'clip')} without keypoints shows one person"
    return expected._replace(
        rows=expected.rows + frames,
        source=f"{expected.source}; {source}" if expected.rows else source,
        videos=expected.videos + len(waiting),
        tracks=None,
    )


def expected_rows(plan: ConversionPlan, again: int, sample: int, workers: int) -> Expected:
    """Of the videos that a conversion will read. again: rows of those that are committed and read again."""
    n_videos = len(plan.append)
    if not plan.append:
        return Expected(0, "no new video to read")
    if sample:
        return _sampled(plan, min(sample, n_videos), workers)
    if plan.committed is not None and (n_committed := len(plan.committed.videos)):
        mean = plan.committed.manifest["rows"] / n_committed
        known = [f"{again:,} in videos that are read again"] if plan.changed else []
        if plan.new:
            known.append(f"{mean:,.3g} for each new video, as of the {count(n_committed, 'committed video')}")
        tracks = n_videos * len(plan.committed.tracks) / n_committed
        return Expected(again + mean * len(plan.new), ", ".join(known), videos=n_videos, tracks=tracks)
    if plan.reader["stand_in"]:
        return Expected(None, UNKNOWN)
    return of_release(plan.dataset, plan.split, n_videos)


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
    rows = frames * share / dataset.every
    source += ", not downloaded yet" * (downloaded is None)
    return Expected(rows, source, videos=downloaded or known.videos or rows / ROWS_OF_A_TRACK)


def _sampled(plan: ConversionPlan, n: int, workers: int) -> Expected:
    """By reading `n` videos, evenly over the list."""
    at = np.unique(np.linspace(0, len(plan.append) - 1, n).round().astype(int)).tolist()
    times, rows, tracks = [time.perf_counter()], list[int](), 0
    for read in read_videos(plan, [plan.append[i] for i in at], workers):
        rows.append(read.n_rows)
        tracks += len(read.tracks)
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
    n_videos = len(plan.append)
    return Expected(mean * n_videos, source, error, rate, n_videos, n_videos * tracks / len(rows))


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


def measured_rates(splits: Iterable[cache.Split]) -> dict[Step, Rate]:
    """How fast this machine did each step: of each, the run over the most rows."""
    found: dict[Step, Rate] = {}
    for split in splits:
        notes = [((CONVERT, split.name.partition("/")[0]), split.provenance)]
        with contextlib.suppress(cache.CacheError):
            notes += [((EXTRACT, name), split.stream_provenance(name)) for name in split.streams]
        for step, note in notes:
            rate = _measured(note)
            if rate is not None and (step not in found or rate.weight > found[step].weight):
                found[step] = rate
    return found


def detection_rates(plans: Iterable[SplitPlan]) -> dict[Step, Rate]:
    """How fast this machine found people with the detectors that are to be used."""
    rates: dict[Step, Rate] = {}
    for plan in plans:
        if plan.detection is not None:
            rate = _measured(read_speed(plan.detection.out, plan.detection.about), "frame")
            rates |= {} if rate is None else {(DETECT, plan.target.dataset.name): rate}
    return rates


def _measured(note: Mapping[str, Any], unit: str = "row") -> Rate | None:
    """Of one run's note; None where it was made on another machine, or nothing was measured."""
    measured = note.get("measured")
    if note.get("host") != socket.gethostname() or not isinstance(measured, Mapping):
        return None
    try:
        rows, rate = int(measured["rows"]), float(measured["rows_a_second"])
        age = (datetime.now(UTC) - datetime.fromisoformat(str(note["finished"]))).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
    source = f"measured here {duration(max(age, 1))} ago, over {count(rows, unit)}"
    return Rate(rate, source, rows) if rows and rate > 0 else None


def bytes_of_a_crop(splits: Sequence[cache.Split]) -> float:
    """Of the crops that a cache has; `A_CROP` where it has none."""
    rows, n_bytes = 0, 0
    for split in splits:
        with contextlib.suppress(cache.CacheError):
            for name in (name for name in split.streams if split.stream_manifest(name).get("dtype") == BYTES):
                rows += int(split.rows_by_shard()[split.stream_shards(name)].sum())
                n_bytes += stored_bytes(split)["streams"][name]
    return n_bytes / rows if rows else A_CROP
