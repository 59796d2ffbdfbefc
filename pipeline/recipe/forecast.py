"""Forecast of rows and bytes of a plan.  [raw -> tracks -> features] -> windows

Rows follow from committed videos, the release's numbers or estimates, or (clips without keypoints)
the frames in headers; bytes from rows.
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
from cache.read.batches import OF_TRACKS
from pipeline.accounting import Totals
from pipeline.cli.console import plain, size
from pipeline.cli.text import count
from pipeline.conversion.plan import ConversionPlan
from pipeline.errors import MissingAssets, PipelineError
from pipeline.files.pixels.frames import Video
from pipeline.recipe.overview import SplitPlan, columns_bytes, stream_bytes

DETECT = "detect"
CONVERT = "convert"
EXTRACT = "extract"
UNKNOWN: Final = "number of rows unknown before the first conversion"
HEADERS: Final = 64  # clips whose headers are read


class Work(NamedTuple):
    """A step to run."""

    step: str  # DETECT, CONVERT or EXTRACT
    name: str  # of the dataset or stream
    rows: float  # of detection, frames


@dataclass(slots=True)
class Forecast:
    """Rows, bytes and steps to write of one split."""

    split: str
    rows: float | None  # of the conversion; None: unknown
    source: str  # how the rows are known
    bytes: dict[str, float] = field(default_factory=dict)  # of "columns" and by stream
    works: list[Work] = field(default_factory=list)
    # rows of streams that are carried over if their images and boxes are unchanged
    carried: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        steps = [work._asdict() for work in self.works]
        return {
            "rows": self.rows,
            "source": self.source,
            "carried": self.carried,
            "bytes": self.bytes,
            "steps": steps,
        }


def forecasts_of(plans: Sequence[SplitPlan]) -> dict[str, Forecast]:
    """Forecasts of the splits that are not up to date and have raw files, by split."""
    upcoming = [plan for plan in plans if not (plan.up_to_date or plan.problems)]
    return {
        plan.name: _forecast_of(plan, plan.conversion)
        for plan in upcoming
        if plan.conversion is not None
    }


def _forecast_of(plan: SplitPlan, todo: ConversionPlan) -> Forecast:
    recipe = plan.recipe
    frames = _frames_stated(recipe.raw, plan.undetected)
    rows, source = _expected_rows(plan, todo)
    if plan.undetected:
        rows = (rows or 0) + frames
        source = (
            f"with one person per frame of {count(len(plan.undetected), 'clip')} without keypoints"
        )
    new = rows or 0
    columns = todo.dataset.columns(recipe.split, body=todo.reader["body"] is not None)
    extra = todo.dataset.extra_columns(recipe.split, body=todo.reader["body"] is not None)
    result = Forecast(plan.name, rows, source, {"columns": columns_bytes(new, columns, extra)})
    there = {*columns, *(column.name for column in extra), *OF_TRACKS}
    forms: dict[str, tuple[int, str]] = {}
    for spec in (spec for spec in recipe.streams if there.issuperset(spec.stream.needs)):
        with contextlib.suppress(MissingAssets):  # `missing_files` names the file
            forms[spec.name] = (spec.stream.dim, spec.stream.dtype)
    forms |= {stream.stream: stream.form for stream in plan.extractions}
    missing = {stream.stream: stream.missing.rows for stream in plan.extractions if stream.why}
    works = [Work(DETECT, recipe.dataset.name, frames), Work(CONVERT, recipe.dataset.name, new)]
    for name, form in forms.items():
        written = missing.get(name, 0) + new
        carried = plan.carried_at_most(name, written)
        result.bytes[name], result.carried = stream_bytes(written, *form), result.carried + carried
        works.append(Work(EXTRACT, name, written - carried))
    result.works = [work for work in works if work.rows]
    return result


def _frames_stated(raw: Path, clips: Sequence[str]) -> float:
    """Number of frames of clips, by the headers of some of them."""
    lengths = []
    for i in np.unique(
        np.linspace(0, len(clips) - 1, min(HEADERS, len(clips))).round().astype(int)
    ).tolist():
        with contextlib.suppress(PipelineError):
            lengths.append(Video(raw, clips[i]).header().n_frames or 0)
    return float(np.mean(lengths)) * len(clips) if lengths else 0.0


def _expected_rows(plan: SplitPlan, todo: ConversionPlan) -> tuple[float | None, str]:
    """Rows that a conversion will write, without clips without keypoints; and how they are
    known.
    """
    clips = frozenset(plan.undetected)
    new = [video for video in todo.append if not clips & {str(file) for file in video.files}]
    if not new:
        return 0, "no new rows"
    if todo.committed is not None and (n_committed := len(todo.committed.videos)):
        mean = todo.committed.manifest["rows"] / n_committed
        n_new = max(0, len(new) - len(todo.changed))
        reasons = [f"{plan.rows_again:,} in changed videos"] if todo.changed else []
        reasons += [f"{mean:,.3g} per new video, as in committed ones"] if n_new else []
        return plan.rows_again + mean * n_new, ", ".join(reasons)
    dataset = todo.dataset
    stand_in = todo.reader["stand_in"]
    for other in _readable(todo.root):
        of_this = (
            other.name.startswith(f"{dataset.name}/")
            and other.manifest["reader"].get("stand_in") == stand_in
        )
        if of_this and other.manifest["rows"]:
            mean = other.manifest["rows"] / len(other.videos)
            return mean * len(new), f"{mean:,.3g} per video, as in {other.name}"
    known = dataset.totals.get(todo.split, Totals())
    every = dataset.totals.get("all", Totals())
    # then a split lists all videos
    share = known.videos / every.videos if known.videos and every.videos else 1.0
    sizes = [
        (of.frames or of.about or 0, of.videos) for of in (known, every, *dataset.totals.values())
    ]
    rows = share * len(new) * next((n / videos for n, videos in sizes if n and videos), math.inf)
    rows = min(rows, known.frames or known.about or math.inf) / dataset.every
    if stand_in or rows == math.inf:
        return None, UNKNOWN
    return (
        rows,
        "from the release's numbers"
        if known.frames or every.frames
        else "from an estimate of the release",
    )


def _readable(root: cache.Root) -> Iterator[cache.Split]:
    with contextlib.suppress(cache.CacheError):
        opened = cache.open(root)
        for name in opened.splits:
            # a damaged one is among its plan's problems
            with contextlib.suppress(cache.CacheError):
                yield opened[name]


def forecast_lines(forecasts: Sequence[Forecast]) -> Iterator[str]:
    """Rows by split; then bytes, and rows by step."""
    unknown = [result.split for result in forecasts if result.rows is None]
    known = [result for result in forecasts if result.rows is not None]
    works = [work for result in known for work in result.works]
    if not works and not unknown:
        return
    yield "[bold]forecast[/bold]"
    for result in known:
        if result.rows:
            yield (
                f"  {plain(result.split):<24}  "
                f"{plain(f'about {_about(result.rows)} rows: {result.source}')}"
            )
    if unknown:
        yield f"  {'no forecast':<24}  {plain(', '.join(unknown))}: {UNKNOWN}"
    if not works:
        return
    disk = sum((Counter(result.bytes) for result in known), Counter[str]())
    by_stream = ", ".join(f"{plain(name)} {size(n)}" for name, n in disk.items())
    yield f"  {'disk':<24}  {'at least ' if unknown else ''}{size(sum(disk.values()))}: {by_stream}"
    for step, name in dict.fromkeys((work.step, work.name) for work in works):
        same = [work for work in works if (work.step, work.name) == (step, name)]
        unit = "frames" if step == DETECT else "rows"
        yield f"  {plain(f'{step} {name}'):<24}  {_about(sum(work.rows for work in same))} {unit}"
    if carried := sum(result.carried for result in known):
        yield (
            f"  {'carried over':<24}  up to {_about(carried)} rows with unchanged images and boxes"
        )


def _about(n: float) -> str:
    """
    >>> [_about(n) for n in (0, 987.4, 81749, 41_234_567, 2.1e9)]
    ['0', '987', '81,700', '41.2 million', '2,100 million']
    """
    if n >= 1e6:
        return f"{float(f'{n / 1e6:.3g}'):,.10g} million"
    return f"{float(f'{n:.3g}'):,.0f}"
