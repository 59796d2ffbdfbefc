"""What would run for a split, how much, and why.  [raw -> tracks -> features] -> windows

A conversion's plan and an extraction's, side by side, before anything runs. Nothing is written or computed: names,
sizes and times of raw files are compared, manifests and tables are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

import cache
from pipeline.conversion.identity import Difference, accepted_lines
from pipeline.conversion.plan import ConversionPlan, committed_split, compare
from pipeline.errors import PipelineError
from pipeline.features.plan import CHANGED, ExtractionPlan, MissingRows, compare_stream, missing_rows, refuse_untrained
from pipeline.features.streams.base import BYTES
from pipeline.raw import changes
from pipeline.settings.targets import Target

FLAG_AND_KEY: Final = 1 + 16  # bytes that every row of every stream takes besides
A_CROP: Final = 24_000  # bytes of a 224 x 224 JPEG of quality 95, about


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What an extraction would do for what is committed now."""

    stream: str
    why: str  # "" when it is up to date
    lacks: MissingRows
    row_bytes: int  # of a row's features; of compressed crops about so many
    differs: tuple[Difference, ...] = ()  # then an extraction refuses
    otherwise: str = ""  # the same as text

    @property
    def n_bytes(self) -> int:
        """Of the features, flags and keys that would be written."""
        return self.lacks.rows * (self.row_bytes + FLAG_AND_KEY)


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """A split's plans. Each is None or empty where it cannot be made, or there is nothing yet; see `problems`."""

    target: Target
    conversion: ConversionPlan | None
    extractions: tuple[StreamPlan, ...]  # of what is committed now; what conversion adds comes on top
    committed: cache.Split | None
    problems: tuple[str, ...]  # errors that running it will meet
    behind: tuple[StreamPlan, ...] = ()  # streams that lack rows and that neither luigi.cfg nor the options name

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def up_to_date(self) -> bool:
        done = self.conversion is not None and self.conversion.up_to_date and not self.problems
        return done and not any(plan.why or plan.differs for plan in self.extractions)

    @property
    def rows_again(self) -> int:
        """Rows of the videos that would be read again: about as many as would be written for them."""
        if self.committed is None or self.conversion is None:
            return 0
        again = set(self.conversion.changed)
        of_video = np.array([name in again for name in self.committed.videos.names], bool)
        tracks = self.committed.tracks
        return int((tracks.stop - tracks.start)[of_video[tracks.video]].sum()) if again else 0

    @property
    def bytes_again(self) -> int:
        """Of these rows, in the split's columns."""
        columns = () if self.committed is None else self.committed.columns
        return self.rows_again * sum(
            math.prod(cache.COLUMNS[name].trailing) * cache.COLUMNS[name].dtype.itemsize for name in columns
        )

    @property
    def bytes_of_labels(self) -> int:
        """Of the label and video files that would be read."""
        if self.conversion is None:
            return 0
        return sum(changes.bytes_of_labels(self.conversion.stamps[video.name]) for video in self.conversion.append)

    @property
    def accepted(self) -> list[str]:
        """Differences that the user has accepted, of the split and of its streams."""
        if self.committed is None:
            return []
        return list(accepted_of(self.committed))


def accepted_of(split: cache.Split) -> Iterator[str]:
    """Differences that the user has accepted, of a split and of its streams."""
    yield from (f"{split.name}: {text}" for text in accepted_lines(split.manifest))
    for name in split.streams:
        yield from (f"{split.name}, {name}: {text}" for text in accepted_lines(split.stream_manifest(name)))


def plan_split(target: Target) -> SplitPlan:
    """Both plans of one split. Errors that the user can correct become its `problems`."""
    problems: list[str] = []
    conversion, committed = None, None
    if target.not_made:
        return SplitPlan(target, None, (), None, ())
    try:
        committed = committed_split(target.root, target.name)
        conversion = compare(
            committed, target.dataset, target.split, raw=target.raw, root=target.root, body=target.body
        )
    except (PipelineError, cache.CacheError) as error:
        problems.append(str(error))
    extractions: tuple[StreamPlan, ...] = ()
    behind: tuple[StreamPlan, ...] = ()
    try:
        if committed is not None and "bbox" in committed.columns:
            behind = tuple(_behind(target, committed))
            extractions = tuple(_extractions(target, committed))
            problems += [_refused(committed.name, plan) for plan in extractions if plan.differs]
        will_extract = committed is None or any(plan.why for plan in extractions) or (conversion and conversion.append)
        if will_extract and not (problems and committed) and target.weights and target.stream and target.raw.is_dir():
            refuse_untrained(target.stream, target.raw, target.weights)
    except (PipelineError, cache.CacheError) as error:
        problems.append(str(error))
    return SplitPlan(target, conversion, extractions, committed, tuple(problems), behind)


def _behind(target: Target, committed: cache.Split) -> Iterator[StreamPlan]:
    """Streams that lack rows, and that neither luigi.cfg nor the options name."""
    named = [spec.name for spec in (target.stream, target.crops) if spec is not None]
    for name in committed.streams if named else ():
        if name not in named and (lacks := missing_rows(committed, name)).shards:
            yield _as_extracted(committed, name, lacks)


def _extractions(target: Target, committed: cache.Split) -> Iterator[StreamPlan]:
    """Of the target's stream; if it names none, of every stream there is, as it was extracted."""
    if target.stream is None:
        for name in committed.streams:
            yield _as_extracted(committed, name, missing_rows(committed, name))
        return
    if target.crops is not None:
        crops = compare_stream(committed, target.crops.at(target.raw))
        yield from _stream_plan(crops)
        if crops.lacks is not None and target.crops.name not in committed.streams:
            stream = target.stream.stream  # is computed from crops that are not there yet
            row_bytes = _row_bytes(stream.dim, stream.dtype)
            yield StreamPlan(target.stream.name, crops.why, crops.lacks, row_bytes)
            return
    yield from _stream_plan(compare_stream(committed, target.stream.at(target.raw)))


def _as_extracted(committed: cache.Split, name: str, lacks: MissingRows) -> StreamPlan:
    has = committed.stream_manifest(name)
    row_bytes = _row_bytes(int(has["dim"]), str(has["dtype"]))
    return StreamPlan(name, CHANGED if lacks.shards else "", lacks, row_bytes)


def _stream_plan(plan: ExtractionPlan) -> Iterator[StreamPlan]:
    if plan.lacks is not None:
        stream = plan.spec.stream
        row_bytes = _row_bytes(stream.dim, stream.dtype)
        yield StreamPlan(plan.spec.name, plan.why, plan.lacks, row_bytes, plan.differs, plan.otherwise)


def _row_bytes(dim: int, dtype: str) -> int:
    return A_CROP if dtype == BYTES else dim * np.dtype(dtype).itemsize


def _refused(split: str, plan: StreamPlan) -> str:
    """Why an extraction would be refused, and what to do."""
    return (
        f"{split}: the stream {plan.stream!r} was extracted differently: {plan.otherwise}. Name another one "
        "([features] stream, --stream), replace this one (extract --replace) or, if the numbers are the same all the "
        "same, accept the difference (accept --stream)."
    )
