"""What would run for a split, how much, and why.  [raw -> tracks -> features] -> windows

A conversion's plan and an extraction's, side by side, for who wants to know before anything runs. Nothing is written,
nothing is computed: names, sizes and times of raw files are looked at, manifests and tables are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

import cache
from pipeline.conversion.differences import Difference
from pipeline.conversion.plan import ConversionPlan, committed_split, compare_raw
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.extract import CHANGED, ExtractionPlan, compare_stream, refuse_untrained
from pipeline.features.plan import MissingRows, missing_rows
from pipeline.features.streams.base import BYTES
from pipeline.raw import changes
from pipeline.settings.targets import Wanted

FLAG_AND_KEY: Final = 1 + 16  # bytes that every row of every stream takes besides
A_CROP: Final = 24_000  # bytes of a 224 x 224 JPEG of quality 95, about


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What an extraction would do for what is committed now."""

    stream: str
    why: str  # "" when there is nothing to do
    lacks: MissingRows
    row_bytes: int  # of what a row has in the stream; of compressed crops about so many
    differs: tuple[Difference, ...]  # then an extraction refuses
    otherwise: str = ""  # the same in words

    @property
    def n_bytes(self) -> int:
        """Of the features, flags and keys that would be written."""
        return self.lacks.rows * (self.row_bytes + FLAG_AND_KEY)


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """A split's plans. Each is None where it cannot be told, or has nothing to look at; `problems` say why."""

    wanted: Wanted
    conversion: ConversionPlan | None
    extractions: tuple[StreamPlan, ...]  # of what is committed now; what conversion brings comes on top
    committed: cache.Split | None
    problems: tuple[str, ...]  # errors that whoever runs it will meet
    behind: tuple[StreamPlan, ...] = ()  # streams besides the wanted one that lack rows: nobody extracts them by itself

    @property
    def name(self) -> str:
        return self.wanted.name

    @property
    def nothing_to_do(self) -> bool:
        done = self.conversion is not None and self.conversion.up_to_date and not self.problems
        return done and not any(plan.why or plan.differs for plan in self.extractions)

    @property
    def n_videos(self) -> int:
        """Videos of the split, in the cache; those of other splits, which are only looked at, are none."""
        return 0 if self.committed is None else int(self.committed.manifest["accounting"]["videos"]["found"])

    @property
    def rows_again(self) -> int:
        """Rows that the videos have now which would be read again: about as many as would be written for them."""
        if self.committed is None or self.conversion is None:
            return 0
        again = set(self.conversion.changed)
        of_video = np.array([name in again for name in self.committed.videos.names], bool)
        tracks = self.committed.tracks
        return int((tracks.stop - tracks.start)[of_video[tracks.video]].sum()) if again else 0

    @property
    def bytes_again(self) -> int:
        """Of these rows, in the split's columns."""
        return self.rows_again * sum(
            math.prod(cache.COLUMNS[name].trailing) * cache.COLUMNS[name].dtype.itemsize
            for name in (self.committed.columns if self.committed is not None else ())
        )

    @property
    def bytes_of_labels(self) -> int:
        """Of the label and video files that would be opened."""
        if self.conversion is None:
            return 0
        return sum(changes.bytes_of_labels(self.conversion.stamps[video.name]) for video in self.conversion.append)


def plan_split(wanted: Wanted) -> SplitPlan:
    """Both plans of one split. Errors that a person can mend become its `problems`."""
    problems: list[str] = []
    if wanted.to_be_made:
        return SplitPlan(wanted, None, (), None, ())
    conversion, committed = None, None
    try:
        committed = committed_split(wanted.root, wanted.name)
        conversion = compare_raw(
            wanted.dataset, wanted.split, raw=wanted.raw, root=wanted.root, body=wanted.body, committed=committed
        )
    except (PipelineError, cache.CacheError) as error:
        problems.append(str(error))
    extractions: list[StreamPlan] = []
    behind: list[StreamPlan] = []
    if committed is None:
        problems += _untrained(wanted)
    elif "bbox" in committed.columns:
        try:
            behind = list(_behind(wanted, committed))
            extractions = list(_extractions(wanted, committed))
            problems += [_otherwise(committed.name, plan) for plan in extractions if plan.differs]
            if not problems and (any(plan.why for plan in extractions) or (conversion and conversion.append)):
                problems += _untrained(wanted)
        except (PipelineError, cache.CacheError) as error:
            problems.append(str(error))
    return SplitPlan(wanted, conversion, tuple(extractions), committed, tuple(problems), tuple(behind))


def _untrained(wanted: Wanted) -> list[str]:
    """That the extraction will be refused, where luigi.cfg would have an untrained network see real data."""
    try:
        if wanted.weights and wanted.stream is not None and wanted.raw.is_dir():
            refuse_untrained(wanted.stream, wanted.raw, wanted.weights)
    except ConfigError as error:
        return [str(error)]
    return []


def _behind(wanted: Wanted, committed: cache.Split) -> Iterator[StreamPlan]:
    """Streams that lack rows, and that luigi.cfg or the options do not name."""
    named = [spec.name for spec in (wanted.stream, wanted.crops) if spec is not None]
    for name in committed.streams if named else ():
        if name not in named and (lacks := missing_rows(committed, name)).shards:
            yield _as_it_was_made(committed, name, lacks)


def _extractions(wanted: Wanted, committed: cache.Split) -> Iterator[StreamPlan]:
    """Of the stream that is wanted; if none is named, of every stream there is, as it was made."""
    if wanted.stream is None:
        for name in committed.streams:
            yield _as_it_was_made(committed, name, missing_rows(committed, name))
        return
    if wanted.crops is not None:
        crops = compare_stream(committed, wanted.crops.at(wanted.raw))
        yield from _stream_plan(crops)
        if crops.lacks is not None and wanted.crops.name not in committed.streams:
            stream = wanted.stream.stream  # comes of crops that are not there yet
            row_bytes = _row_bytes(stream.dim, stream.dtype)
            yield StreamPlan(wanted.stream.name, crops.why, crops.lacks, row_bytes, ())
            return
    yield from _stream_plan(compare_stream(committed, wanted.stream.at(wanted.raw)))


def _as_it_was_made(committed: cache.Split, name: str, lacks: MissingRows) -> StreamPlan:
    has = committed.stream_manifest(name)
    row_bytes = _row_bytes(int(has["dim"]), str(has["dtype"]))
    return StreamPlan(name, CHANGED if lacks.shards else "", lacks, row_bytes, ())


def _stream_plan(plan: ExtractionPlan) -> Iterator[StreamPlan]:
    if plan.lacks is not None:
        stream = plan.spec.stream
        row_bytes = _row_bytes(stream.dim, stream.dtype)
        yield StreamPlan(plan.spec.name, plan.why, plan.lacks, row_bytes, plan.differs, plan.otherwise)


def _row_bytes(dim: int, dtype: str) -> int:
    return A_CROP if dtype == BYTES else dim * np.dtype(dtype).itemsize


def _otherwise(split: str, plan: StreamPlan) -> str:
    """Why an extraction would be refused, and the ways out."""
    return (
        f"{split}: the stream {plan.stream!r} was extracted otherwise: {plan.otherwise}. Name "
        "another one ([features] stream, --stream), discard this one (extract --replace) or, if the numbers are the "
        "same nevertheless, accept it (accept --stream)."
    )
