"""What a plan will bring: person-frames, bytes, hours; and how that reads.  [raw -> tracks -> features] -> windows

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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from pipeline.accounting import Totals
from pipeline.cli.console import duration, plain, size
from pipeline.cli.text import count
from pipeline.commands.maintenance.overview import SplitPlan, columns_bytes, stream_bytes
from pipeline.conversion.convert import read_videos
from pipeline.conversion.plan import ConversionPlan
from pipeline.datasets.base import Dataset
from pipeline.detect.files import read_speed
from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import listing

CONVERT: Final = "convert"
DETECT: Final = "detect"
EXTRACT: Final = "extract"
UNKNOWN: Final = "person-frames are not known before some videos are read: plan --sample 16"
NOT_MADE: Final = "demo data that are not made yet; of the releases: --set embedded.enabled=false"
STEPS: Final = (DETECT, CONVERT, EXTRACT)
FIRST_RUN: Final = "the first run here measures it"
MEASURED_BY: Final = f"{FIRST_RUN}, or `plan --sample 16` a conversion; `plan --rate` sets a stream's"
HEADERS: Final = 64  # clips whose lengths are looked at
Step = tuple[str, str]  # DETECT, CONVERT or EXTRACT, and the name of the dataset or of the stream
Form = tuple[int, str]  # numbers a row and their type; for compressed crops, `BYTES`


class StepRate(NamedTuple):
    """How fast something goes here."""

    rows: float  # a second; of detection, frames
    source: str  # "given"; "measured here 3 days ago, over 81,749 rows"
    weight: float = math.inf  # rows that it was measured over


class Work(NamedTuple):
    """A step that is still to be done."""

    step: str  # DETECT, CONVERT or EXTRACT
    name: str  # of the dataset or of the stream
    rows: float  # of detection, frames
    carried: float = 0.0  # at most so many of the rows are carried over and need not be computed
    rate: StepRate | None = None  # None: not known

    @property
    def key(self) -> Step:
        return self.step, self.name

    @property
    def seconds(self) -> tuple[float, float] | None:
        """At least and at most; None where its speed is not known."""
        if self.rate is None:
            return None
        return (self.rows - self.carried) / self.rate.rows, self.rows / self.rate.rows


class Expected(NamedTuple):
    """Person-frames that a conversion will write."""

    rows: float | None  # None: not known
    source: str  # how they are known, or what to do to know them
    error: float = 0.0  # of the mean, as a share of it: two standard errors of a sample; 0: not known, or exact
    rate: StepRate | None = None  # of reading the sample


@dataclass(slots=True)
class Forecast:
    """Of one split: what is still to be written."""

    split: str
    expected: Expected
    bytes: dict[str, float] = field(default_factory=dict)  # of "columns" and by stream
    works: dict[str, Work] = field(default_factory=dict)  # by DETECT, CONVERT and stream

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        steps, seconds = self.works.items(), {name: work.seconds or (None, None) for name, work in self.works.items()}
        return {
            "rows": self.expected.rows,
            "source": self.expected.source,
            "error": self.expected.error,
            "bytes": self.bytes,
            "steps": {name: {"rows": work.rows, "carried_at_most": work.carried} for name, work in steps},
            "seconds": {name: most for name, (_, most) in seconds.items()},
            "seconds_at_least": {name: least for name, (least, _) in seconds.items()},
            "rates": {
                name: {"rows_a_second": work.rate.rows, "source": work.rate.source}
                for name, work in steps
                if work.rate is not None
            },
        }

    @property
    def extractions(self) -> dict[str, Work]:
        """By stream."""
        return {name: work for name, work in self.works.items() if name not in (DETECT, CONVERT)}


def forecasts_of(
    plans: Sequence[SplitPlan],
    *,
    sample: int = 0,
    unknown_only: bool = False,
    workers: int = 1,
    rate: float | None = None,
) -> dict[str, Forecast]:
    """By split, of those where something is to be done.

    sample: so many videos of each split are read, 0: none; unknown_only: only where nothing else tells how many rows
    there will be. rate: rows a second that are extracted; None: as measured here.
    """
    forecasts: dict[str, Forecast] = {}
    for plan in plans:
        result = _forecast_of(plan, 0 if unknown_only else sample, workers)
        if result is not None and unknown_only and result.expected.rows is None:
            result = _forecast_of(plan, sample, workers)
        if result is not None:
            forecasts[plan.name] = result
    rates = _rates(plans, forecasts)
    for result in forecasts.values():
        for name, work in result.works.items():
            given = StepRate(rate, "given") if rate is not None and work.step == EXTRACT else None
            result.works[name] = work._replace(rate=given or rates.get(work.key))
    return forecasts


def _forecast_of(plan: SplitPlan, sample: int, workers: int) -> Forecast | None:
    """Of one split, without speeds; None where nothing is to be done, or no plan could be made of its raw files."""
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
    new, columns = expected.rows or 0, target.dataset.columns(target.split, body=body)
    extra = target.dataset.extra_columns(target.split, body=body)
    result = Forecast(plan.name, expected, {"columns": columns_bytes(new, columns, extra)})
    specs = [
        spec
        for spec in target.streams
        if target.dataset.has_pixels and {*spec.stream.needs} <= {*columns, *(column.name for column in extra)}
    ]
    forms: dict[str, Form] = {spec.name: (spec.stream.dim, spec.stream.dtype) for spec in specs}
    forms |= {stream.stream: stream.form for stream in plan.extractions}
    lacks = {stream.stream: stream.lacks.rows for stream in plan.extractions if stream.why}
    works = {step: Work(step, target.dataset.name, n) for step, n in ((DETECT, frames), (CONVERT, new))}
    for name, (dim, dtype) in forms.items():
        rows = lacks.get(name, 0) + new
        result.bytes[name] = stream_bytes(rows, dim, dtype)
        works[name] = Work(EXTRACT, name, rows, plan.carried_at_most(name, rows))
    result.works = {name: work for name, work in works.items() if work.rows}
    return result


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
    source = f"{expected.source}; " if expected.rows else ""
    source += f"if each frame of {count(len(waiting), 'clip')} without keypoints shows one person"
    return expected._replace(rows=expected.rows + frames, source=source)


def expected_rows(plan: ConversionPlan, again: int, sample: int, workers: int) -> Expected:
    """Of the videos that a conversion will read. again: rows of those that are committed and read again."""
    n_videos = len(plan.append)
    if not plan.append:
        return Expected(0, "no new video to read")
    if sample:
        return _sampled(plan, min(sample, n_videos), workers)
    if plan.committed is not None and (n_committed := len(plan.committed.videos)):
        mean = plan.committed.manifest["rows"] / n_committed
        reasons = [f"{again:,} in videos that are read again"] if plan.changed else []
        if plan.new:
            reasons.append(f"{mean:,.3g} for each new video, as of the {count(n_committed, 'committed video')}")
        return Expected(again + mean * len(plan.new), ", ".join(reasons))
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
        rate = StepRate(later / max(times[-1] - times[1], 1e-6), source, later)
    source = "all videos were read" if everyone else f"by a sample of {count(len(rows), 'video')}"
    error = 2 * spread / mean if mean else 0.0
    return Expected(mean * len(plan.append), source, error, rate)


# ---------------------------------------------------------------------------------------------------- what is known


def _rates(plans: Sequence[SplitPlan], forecasts: Mapping[str, Forecast]) -> dict[Step, StepRate]:
    """How fast this machine did each step before, or reads a sample now: what was measured over the most rows."""
    measured: list[tuple[Step, StepRate | None]] = []
    for plan in plans:
        dataset = plan.target.dataset.name
        if plan.name in forecasts:
            measured.append(((CONVERT, dataset), forecasts[plan.name].expected.rate))
        if plan.detection is not None:
            speed = read_speed(plan.detection.out, plan.detection.about)
            measured.append(((DETECT, dataset), _measured(speed, "frame")))
    for split in _readable(plans[0].target.root) if plans else ():
        measured.append(((CONVERT, split.name.partition("/")[0]), _measured(split.provenance)))
        with contextlib.suppress(cache.CacheError):
            measured += [((EXTRACT, name), _measured(split.stream_provenance(name))) for name in split.streams]
    known = [(step, rate) for step, rate in measured if rate is not None]
    return dict(sorted(known, key=lambda pair: pair[1].weight))


def _readable(root: cache.Root) -> Iterator[cache.Split]:
    """The splits of a cache that can be opened; none where there is no cache yet."""
    with contextlib.suppress(cache.CacheError):
        opened = cache.open(root)
        for name in opened.splits:
            with contextlib.suppress(cache.CacheError):  # a damaged one is among its plan's problems
                yield opened[name]


def _measured(note: Mapping[str, Any], unit: str = "row") -> StepRate | None:
    """Of one run's note; None where it was made on another machine, or nothing was measured."""
    measured = note.get("measured")
    if not isinstance(measured, Mapping):
        return None
    note = {**note, **measured}  # those of a run that computed nothing are of an earlier one, and say so
    if note.get("host") != socket.gethostname():
        return None
    try:
        rows, rate = int(measured["rows"]), float(measured["rows_a_second"])
        age = (datetime.now(UTC) - datetime.fromisoformat(str(note["finished"]))).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
    source = f"measured here {duration(max(age, 1))} ago, over {count(rows, unit)}"
    return StepRate(rate, source, rows) if rows and rate > 0 else None


# ------------------------------------------------------------------------------------------------------- as it reads


def forecast_lines(forecasts: Sequence[Forecast], measured_by: str = MEASURED_BY) -> Iterator[str]:
    """Person-frames by split, and of which they are not known; of the others person-frames, bytes and hours in all."""
    if not forecasts:
        return
    yield "[bold]forecast[/bold]"
    countable = [result for result in forecasts if result.expected.rows is not None]
    yield from (f"  {plain(result.split):<24}  {plain(_expected(result))}" for result in countable)
    unknown = [result for result in forecasts if result.expected.rows is None]
    for why in dict.fromkeys(result.expected.source for result in unknown):
        names = ", ".join(result.split for result in unknown if result.expected.source == why)
        yield f"  {'no forecast':<24}  {plain(names)}: {why}"
    works = [work for result in countable for work in result.works.values()]
    if not works:
        return
    disk = sum((Counter(result.bytes) for result in countable), Counter[str]())
    rows = sum(
        max([result.expected.rows or 0, *(work.rows for work in result.extractions.values())]) for result in countable
    )
    yield f"  {'in all':<24}  about {_about(rows)} person-frames, {size(sum(disk.values()))}, {plain(_time(works))}" + (
        f"; without {count(len(unknown), 'split')} of unknown size" if unknown else ""
    )
    yield f"  {'disk':<24}  {', '.join(f'{plain(name)} {size(n)}' for name, n in disk.items())}"
    yield from (f"  {plain(title):<24}  {plain(text)}" for title, text in _steps(works, measured_by))


def _time(works: Sequence[Work]) -> str:
    """Of all steps together. Those without a known speed are named."""
    untimed = [work for work in works if work.rate is None]
    without = f"{_titles(untimed)} (no speed is known)"
    if len(untimed) == len(works):
        return f"hours not known: {without}"
    text = _between(*_seconds(works))
    return f"{text}; without {without}" if untimed else text


def _titles(works: Sequence[Work]) -> str:
    """Each once: `convert 3dpw, amass, extract resnet50`."""
    names = {step: dict.fromkeys(work.name for work in works if work.step == step) for step in STEPS}
    return ", ".join(f"{step} {', '.join(names[step])}" for step in STEPS if names[step])


def _seconds(works: Sequence[Work]) -> tuple[float, float]:
    """At least and at most, of those with a known speed."""
    seconds = [work.seconds for work in works if work.seconds is not None]
    return sum(least for least, _ in seconds), sum(most for _, most in seconds)


def _steps(works: Sequence[Work], measured_by: str) -> Iterator[tuple[str, str]]:
    """Each kind of step, such as `extract resnet50`, with its hours and the speed that they follow from."""
    for step, name in dict.fromkeys((work.step, work.name) for step in STEPS for work in works if work.step == step):
        same = [work for work in works if (work.step, work.name) == (step, name)]
        carried, rows, rate = sum(work.carried for work in same), sum(work.rows for work in same), same[0].rate
        texts = []
        if rate is not None:
            speed = f"at {_about(rate.rows)} a second, {rate.source.partition(', over ')[0]}"
            texts.append(f"{_between(*_seconds(same))} {speed}")
        if carried:
            texts.append(f"of {_about(rows)} rows at most {_about(carried)} are carried over, not computed")
        if texts:
            yield f"{step} {name}", "; ".join(texts)
    if untimed := [work for work in works if work.rate is None]:
        yield "no speed is known", f"{_titles(untimed)}: {measured_by}"


def _between(least: float, most: float) -> str:
    """
    >>> _between(9, 9.2), _between(0, 61), _between(3600, 9000)
    ('9 s', 'at most 61 s', '60 min to 2.5 h')
    """
    if duration(least) == duration(most):
        return duration(most)
    return f"{duration(least)} to {duration(most)}" if least else f"at most {duration(most)}"


def _expected(result: Forecast) -> str:
    """Person-frames of the conversion; rows of streams where these are others."""
    rows, source, error, _ = result.expected
    exactness = f" ± {error:.0%}" if error else ""
    new = f"about {_about(rows)} person-frames{exactness}, {source}" if rows else "no new person-frames"
    streams = (work for work in result.extractions.values() if work.rows > (rows or 0))
    return "; ".join([new, *(f"extract {work.name}: {_about(work.rows)} rows" for work in streams)])


def _about(n: float) -> str:
    """
    >>> [_about(n) for n in (0, 987.4, 81749, 41_234_567, 2.1e9)]
    ['0', '987', '81,700', '41.2 million', '2,100 million']
    """
    if n >= 1e6:
        return f"{float(f'{n / 1e6:.3g}'):,.10g} million"
    return f"{float(f'{n:.3g}'):,.0f}"
