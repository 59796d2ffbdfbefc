"""Do a stream's rows have the numbers of their own frames? Random rows, computed again.  tracks -> [features]

A row that was computed from the frame before or after is as plausible as the right one: no checksum finds it. So rows
are computed again apart from the extraction (`pipeline.features.single_rows`), and where the numbers differ, those of
both neighbours, too: a row that one of them fits clearly better is misaligned.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import cache
from cache import Split
from cache.format.manifest import shard_rows
from pipeline.cli.progress import Bars, Progress, silent
from pipeline.conversion.identity import describe
from pipeline.errors import PipelineError
from pipeline.features import streams
from pipeline.features.pixel_sources import column
from pipeline.features.plan import recorded_identity, recorded_spec
from pipeline.features.single_rows import Numbers, Requests, Rows, SingleRows
from pipeline.features.spec import StreamSpec
from pipeline.features.weights import WeightsSpec

# Relative difference from which a row's neighbours are computed. Measured with the untrained fast ResNet-50 on demo
# data and two clips of Kinetics: sound rows differ by up to 0.0004 (float16), successive frames of demo data by 0.05
# and more, those of the slower clip by 0.014 in the median. Noise of one level in each pixel would make 0.02: where
# decoders differ so much, a low value costs time, and no false alarm.
SUSPICIOUS: Final = 0.002
CLEARLY: Final = 0.5  # a neighbour fits better where its difference is less than so much of the row's own
IMPORTED: Final = "it was imported"  # why a stream is skipped: there is nothing to compare it with, which is no fault
MOST: Final = 2.0  # the largest relative difference there is: also of a row that cannot be computed as it was


class Misaligned(NamedTuple):
    """A row that fits its neighbour's frame better than its own. Differences are relative."""

    track: str
    frame: int
    differs: float  # from what was computed of its own frame
    neighbour: int  # the frame that fits better
    neighbour_differs: float


@dataclass(slots=True)
class ComparedStream:
    """What was found of one stream of a split."""

    split: str
    stream: str
    rows: int = 0  # compared
    ways: Counter[str] = field(default_factory=Counter)  # by what their frames were decoded -> rows
    largest: float = 0.0  # relative difference
    differing: int = 0  # rows whose difference is at least SUSPICIOUS
    not_computed: int = 0  # rows whose frames could not be decoded
    problem: str = ""  # of the first of them
    misaligned: list[Misaligned] = field(default_factory=list)


class Skipped(NamedTuple):
    """A stream that was not compared, and why."""

    split: str
    stream: str
    why: str


@dataclass(slots=True)
class Recomputed:
    """What was found of all streams."""

    compared: list[ComparedStream] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)  # messages: what could not be compared, and what to do about it

    @property
    def ok(self) -> bool:
        """Whether every row that was drawn has its own numbers: what could not be compared is not known to."""
        sound = not any(stream.misaligned or stream.not_computed for stream in self.compared)
        return sound and not self.refused and all(stream.why == IMPORTED for stream in self.skipped)


def recompute(
    root: cache.Root,
    n: int,
    *,
    seed: int = 0,
    splits: Sequence[str] | None = None,
    raw: Path | None = None,
    weights: WeightsSpec | None = None,
    workers: int = 1,
    bars: Bars = lambda _: nullcontext(silent),
) -> Recomputed:
    """Compare `n` random rows of every stream of these splits, or all, with what is computed of them now.

    Only rows that were computed from something count (`cache.COMPUTED`); with fewer than `n`, all are compared. `raw`
    is where the dataset's raw folder is now; None: where it was at the conversion. `weights` are of streams whose
    manifest names only the digest of theirs.

    Raises CacheError for a split that does not exist, PipelineError when `raw` would stand for more than one dataset.
    """
    opened, recomputed = cache.open(root), Recomputed()
    names = opened.splits if splits is None else tuple(splits)
    if raw is not None and len(datasets := {name.partition("/")[0] for name in names}) > 1:
        raise PipelineError(f"--raw is one dataset's own folder, and these are {', '.join(sorted(datasets))}")
    for name in names:
        split = opened[name]
        for stream in split.streams:
            with bars(f"recompute {name}, {stream}") as progress:
                try:
                    spec = recorded_spec(split, stream, raw=raw, weights=weights)
                    if why := _why_not(split, stream, spec):
                        recomputed.skipped.append(Skipped(name, stream, why))
                        continue
                    assert spec is not None
                    recomputed.compared.append(_compare(split, spec, n, seed, workers, progress))
                except (PipelineError, cache.CacheError) as error:
                    recomputed.refused.append(f"{name}, {stream}: {error}")
    return recomputed


def drawn(split: Split, stream: str, n: int, seed: int) -> Rows:
    """(n,) ascending rows of a stream, each as likely as any other that was computed from something; fewer: all."""
    shards = split.stream_shards(stream)
    numbers = [len(_computed(split, stream, shard)) for shard in shards]
    ends = np.cumsum([0, *numbers])
    rng = np.random.default_rng([seed, zlib.crc32(f"{split.name}/{stream}".encode())])
    among = np.sort(rng.choice(int(ends[-1]), min(n, int(ends[-1])), replace=False, shuffle=False))
    parts = np.split(among, np.searchsorted(among, ends[1:-1]))
    rows = [
        _computed(split, stream, shard)[part - start]
        for shard, part, start in zip(shards, parts, ends[:-1].tolist(), strict=True)
        if len(part)
    ]
    return np.concatenate([np.zeros(0, np.int64), *rows])


def _computed(split: Split, stream: str, shard: int) -> Rows:
    of_commit = shard_rows(split.stream_manifest(stream), shard)  # without padding, which no shard holds
    rows = np.arange(of_commit.start, of_commit.stop)
    is_computed = split.rows(f"features/{stream}_ok", of_commit.start, of_commit.stop) == cache.COMPUTED
    computed: Rows = rows[is_computed & (split.track_of(rows) >= 0)]
    return computed


def _why_not(split: Split, stream: str, spec: StreamSpec | None) -> str:
    """Why a stream cannot be computed here as it was; "" where it can."""
    before = recorded_identity(split, stream)
    if (kind := before.get("kind")) == "imported":
        return IMPORTED
    if not_installed := streams.not_installed(str(kind)):
        return f"of the {not_installed}"
    if spec is None:
        digest = str((before.get("weights") or {}).get("file_sha256", ""))[:12]
        file = f" (sha256 {digest})" if digest else ""
        return f"what computes it is not at hand: {kind} with its own weights{file}"
    now = spec.identity()
    return "" if now == before else f"it was extracted differently: {describe(before, now)}"


def _compare(split: Split, spec: StreamSpec, n: int, seed: int, workers: int, progress: Progress) -> ComparedStream:
    rows = drawn(split, spec.name, n, seed)
    single = SingleRows(split, spec, workers)
    compared, differs = ComparedStream(split.name, spec.name), dict[int, float]()
    for n_done, result in enumerate(single.numbers(Requests(rows, rows, rows)), 1):
        progress(n_done, len(rows))
        if result.problem:
            compared.not_computed += 1
            compared.problem = compared.problem or result.problem
            continue
        row = int(rows[result.number])
        difference = relative_difference(result.numbers, _stored(split, spec, row))
        compared.rows += 1
        compared.ways[result.decoder] += 1
        compared.largest = max(compared.largest, difference)
        if difference >= SUSPICIOUS:
            differs[row] = difference
    compared.differing = len(differs)
    if compared.not_computed and not compared.rows:
        raise PipelineError(f"none of {len(rows)} rows can be compared: {compared.problem}")
    compared.misaligned = list(_misaligned(split, spec, single, differs))
    return compared


def _misaligned(split: Split, spec: StreamSpec, single: SingleRows, differs: dict[int, float]) -> Iterator[Misaligned]:
    """Of rows that differ, those that a neighbour fits clearly better, ascending."""
    requests = _neighbours(split, spec, sorted(differs))
    best: dict[int, tuple[float, int]] = {}
    for result in single.numbers(requests) if differs else ():
        row = int(requests.row[result.number])
        difference = relative_difference(result.numbers, _stored(split, spec, row))
        best[row] = min(best.get(row, (MOST, row)), (difference, int(requests.source[result.number])))
    for row, (difference, neighbour) in sorted(best.items()):
        if difference < CLEARLY * differs[row]:
            frame, other = column(split.rows, "frame_index", np.array([row, neighbour])).tolist()
            track = split.tracks[int(split.track_of(np.array([row]))[0])].name
            yield Misaligned(track, frame, differs[row], other, difference)


def _neighbours(split: Split, spec: StreamSpec, rows: Sequence[int]) -> Requests:
    """The rows one step before and after, each by this row's box and by its own; of pairs, those that are one."""
    crops, runs, requests = spec.stream.reads.crops, split.runs, []
    for row in rows:
        start, stop = runs[np.searchsorted(runs[:, 0], row, side="right") - 1].tolist()
        for neighbour in (row - 1, row + 1):
            if start + max(crops - 1, 0) <= neighbour < stop:
                boxes = (row, neighbour) if crops else (neighbour,)
                requests += [(row, neighbour, box) for box in boxes]
    return Requests(*np.array(requests, np.int64).reshape(-1, 3).T)


def _stored(split: Split, spec: StreamSpec, row: int) -> Numbers:
    numbers: Numbers = split.rows(f"features/{spec.name}", row, row + 1)[0]
    return numbers


def relative_difference(computed: Numbers | None, stored: Numbers) -> float:
    """|computed - stored| / max(|computed|, |stored|), of (n,) numbers, 0 to 2; what one has fewer of counts as 0.

    >>> relative_difference(np.array([3.0, 4.0]), np.array([3.0]))
    0.8
    """
    if computed is None:
        return MOST
    padded = np.zeros((2, max(len(computed), len(stored))))
    padded[0, : len(computed)], padded[1, : len(stored)] = computed, stored
    size = float(np.linalg.norm(padded, axis=1).max())
    return float(np.linalg.norm(padded[0] - padded[1])) / size if size else 0.0
