"""Forecast how many rows and bytes a plan will write.  [raw -> tracks -> features] -> windows

The number of rows is estimated from committed videos, from numbers or estimates of the dataset's
release, or, for clips without keypoints, from the frames that video headers state. The number of
bytes follows from the rows.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

import cache
from cache.read.batches import TRACK_FIELDS
from pipeline.accounting import Totals
from pipeline.cli.console import plain, size
from pipeline.cli.text import count
from pipeline.conversion.plan import ConversionPlan
from pipeline.datasets.base import Dataset
from pipeline.errors import MissingAssets, PipelineError
from pipeline.files.pixels.frames import Video
from pipeline.recipe.overview import SplitPlan
from pipeline.recipe.sizes import RowFormat, columns_bytes, stream_bytes

DETECT = "detect"
CONVERT = "convert"
EXTRACT = "extract"
UNKNOWN: Final = "number of rows unknown before the first conversion"
HEADERS: Final = 64  # most clips whose headers are read


class Step(NamedTuple):
    """A step to run."""

    step: str  # DETECT, CONVERT or EXTRACT
    name: str  # name of the dataset or stream
    rows: float  # number of rows; for detection, of frames


@dataclass(slots=True)
class Forecast:
    """The forecast for one split: rows and bytes to write, and steps to run."""

    split: str
    rows: float | None  # rows that the conversion will write; None: unknown
    source: str  # what the number of rows is estimated from, for people
    # bytes to write, by stream, and for all columns of labels under "columns"
    bytes: dict[str, float] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    # rows of streams that need not be computed if their images and boxes are unchanged
    carried: float = 0.0

    def add(self, step: str, name: str, rows: float) -> None:
        """Add a step, if it has rows."""
        if rows:
            self.steps.append(Step(step, name, rows))

    def as_dict(self) -> dict[str, Any]:
        steps = [step._asdict() for step in self.steps]
        return {
            "rows": self.rows,
            "source": self.source,
            "carried": self.carried,
            "bytes": self.bytes,
            "steps": steps,
        }


def forecasts_of(plans: Sequence[SplitPlan]) -> dict[str, Forecast]:
    """Forecasts by split, for splits that are not up to date, have no problems and have a
    conversion plan.
    """
    forecasts = {}
    for plan in plans:
        if plan.up_to_date or plan.problems:
            continue
        if plan.conversion is not None:
            forecasts[plan.name] = _forecast_of(plan, plan.conversion)
    return forecasts


def _forecast_of(plan: SplitPlan, conversion: ConversionPlan) -> Forecast:
    dataset = conversion.dataset
    frames = _frames_stated(plan.recipe.raw, plan.undetected)
    rows, source = _expected_rows(plan, conversion)
    if plan.undetected:
        rows = (rows or 0) + frames
        clips = count(len(plan.undetected), "clip")
        source = f"with one person per frame of {clips} without keypoints"
    new = rows or 0

    has_body = conversion.reader["body"] is not None
    columns = dataset.columns(conversion.split, body=has_body)
    extra = dataset.extra_columns(conversion.split, body=has_body)
    result = Forecast(plan.name, rows, source, {"columns": columns_bytes(new, columns, extra)})
    result.add(DETECT, dataset.name, frames)
    result.add(CONVERT, dataset.name, new)

    formats = _row_formats(plan, {*columns, *(column.name for column in extra), *TRACK_FIELDS})
    missing = {stream.stream: stream.missing.rows for stream in plan.extractions if stream.why}
    for name, row_format in formats.items():
        written = missing.get(name, 0) + new
        carried = plan.carried_at_most(name, written)
        result.bytes[name] = stream_bytes(written, *row_format)
        result.carried += carried
        result.add(EXTRACT, name, written - carried)
    return result


def _row_formats(plan: SplitPlan, columns: set[str]) -> dict[str, RowFormat]:
    """The format of each stream that can be computed from these columns, and of the streams that
    are to be extended.
    """
    formats: dict[str, RowFormat] = {}
    for spec in plan.recipe.streams:
        if columns.issuperset(spec.stream.needs):
            with contextlib.suppress(MissingAssets):  # `missing_files` reports the missing file
                formats[spec.name] = RowFormat(spec.stream.dim, spec.stream.dtype)
    for stream in plan.extractions:
        formats[stream.stream] = stream.row_format
    return formats


def _frames_stated(raw: Path, clips: Sequence[str]) -> float:
    """Estimate the number of frames of clips from the headers of up to HEADERS of them."""
    sample = np.linspace(0, len(clips) - 1, min(HEADERS, len(clips))).round().astype(int)
    lengths = []
    for i in np.unique(sample).tolist():
        with contextlib.suppress(PipelineError):
            lengths.append(Video(raw, clips[i]).header().n_frames or 0)
    if not lengths:
        return 0.0
    return float(np.mean(lengths)) * len(clips)


def _expected_rows(plan: SplitPlan, conversion: ConversionPlan) -> tuple[float | None, str]:
    """Estimate the rows that a conversion will write, not counting clips without keypoints. Returns
    the number (None: unknown), and what it is estimated from.
    """
    clips = frozenset(plan.undetected)
    new = [video for video in conversion.append if clips.isdisjoint(map(str, video.files))]
    if not new:
        return 0, "no new rows"

    committed = conversion.committed
    if committed is not None and len(committed.videos):
        mean = _mean_rows(committed)
        n_new = max(0, len(new) - len(conversion.changed))
        reasons = []
        if conversion.changed:
            reasons.append(f"{plan.rows_again:,} in changed videos")
        if n_new:
            reasons.append(f"{mean:,.3g} per new video, as in committed ones")
        return plan.rows_again + mean * n_new, ", ".join(reasons)

    other = _find_similar(conversion)
    if other is not None:
        mean = _mean_rows(other)
        return mean * len(new), f"{mean:,.3g} per video, as in {other.name}"

    dataset = conversion.dataset
    rows = _rows_by_release(dataset, conversion.split, len(new))
    if conversion.reader["stand_in"] or rows == math.inf:
        return None, UNKNOWN
    if any(dataset.totals.get(name, Totals()).frames for name in (conversion.split, "all")):
        return rows, "from the release's numbers"
    return rows, "from an estimate of the release"


def _mean_rows(split: cache.Split) -> float:
    """Mean number of rows of a split's videos."""
    return float(split.manifest["rows"] / len(split.videos))


def _find_similar(conversion: ConversionPlan) -> cache.Split | None:
    """Another split of the dataset with rows, of demo data if the conversion's data are; else
    None.
    """
    stand_in = conversion.reader["stand_in"]
    for other in _readable(conversion.root):
        is_same_kind = other.manifest["reader"].get("stand_in") == stand_in
        is_same_dataset = other.name.startswith(f"{conversion.dataset.name}/")
        if is_same_dataset and is_same_kind and other.manifest["rows"]:
            return other
    return None


def _rows_by_release(dataset: Dataset, split: str, n_videos: int) -> float:
    """Estimate the rows of `n_videos` videos from the release's totals; infinity without totals."""
    of_split = dataset.totals.get(split, Totals())
    of_all = dataset.totals.get("all", Totals())
    share = 1.0
    if of_split.videos and of_all.videos:  # then every split lists the videos of all splits
        share = of_split.videos / of_all.videos
    mean = math.inf
    for totals in (of_split, of_all, *dataset.totals.values()):
        frames = totals.frames or totals.about
        if frames and totals.videos:
            mean = frames / totals.videos
            break
    at_most = of_split.frames or of_split.about or math.inf
    return min(share * n_videos * mean, at_most) / dataset.every


def _readable(root: cache.Root) -> Iterator[cache.Split]:
    """Yield the splits of a cache that can be opened; none if there is no cache."""
    with contextlib.suppress(cache.CacheError):
        opened = cache.open(root)
        for name in opened.splits:
            # The plan of a damaged split has it among its problems.
            with contextlib.suppress(cache.CacheError):
                yield opened[name]


def forecast_lines(forecasts: Sequence[Forecast]) -> Iterator[str]:
    """Yield the forecast as lines for the terminal: rows by split, then bytes, and rows by step."""
    unknown = [result.split for result in forecasts if result.rows is None]
    disk = Counter[str]()
    rows_of: dict[tuple[str, str], float] = {}  # step and name -> rows
    carried = 0.0
    lines = []
    for result in forecasts:
        if result.rows is None:
            continue
        disk += Counter(result.bytes)
        carried += result.carried
        for step, name, rows in result.steps:
            rows_of[step, name] = rows_of.get((step, name), 0) + rows
        if result.rows:
            expected = f"about {_about(result.rows)} rows: {result.source}"
            lines.append(f"  {plain(result.split):<24}  {plain(expected)}")
    if not rows_of and not unknown:
        return

    yield "[bold]forecast[/bold]"
    yield from lines
    if unknown:
        yield f"  {'no forecast':<24}  {plain(', '.join(unknown))}: {UNKNOWN}"
    if not rows_of:
        return
    by_stream = ", ".join(f"{plain(name)} {size(n)}" for name, n in disk.items())
    bound = "at least " if unknown else ""
    yield f"  {'disk':<24}  {bound}{size(sum(disk.values()))}: {by_stream}"
    for (step, name), rows in rows_of.items():
        unit = "frames" if step == DETECT else "rows"
        yield f"  {plain(f'{step} {name}'):<24}  {_about(rows)} {unit}"
    if carried:
        reused = f"up to {_about(carried)} rows with unchanged images and boxes"
        yield f"  {'carried over':<24}  {reused}"


def _about(n: float) -> str:
    """A number as text, rounded to three digits.

    >>> [_about(n) for n in (0, 987.4, 81749, 41_234_567, 2.1e9)]
    ['0', '987', '81,700', '41.2 million', '2,100 million']
    """
    if n >= 1e6:
        return f"{float(f'{n / 1e6:.3g}'):,.10g} million"
    return f"{float(f'{n:.3g}'):,.0f}"
