"""Recompute random rows of streams, to find rows with the numbers of another frame.  tracks ->
[features]

A checksum cannot show that a row was computed from the previous or next frame by mistake. So
`verify --recompute` calls `recompute`, which for each stream

1. draws random rows (`draw_rows`), and computes them with code that is independent of the
   extraction (`pipeline.features.single_rows`);
2. compares them with the stored rows (`_compare`). Rows that differ are suspicious;
3. computes suspicious rows from the frames of the rows before and after them, too
   (`_compare_neighbours`), to find out whether one of these fits the stored row better.

A suspicious row is, by the first of these that applies (`_compare_neighbours`):

    misaligned   a neighbour's frame fits it clearly better, by CLEARLY_BETTER
    unmatched    no frame fits it (`_matches_no_frame`)
    beyond       it differs by NOISE or more, which rounding does not explain
    doubtful     all else, which is no error
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import cache
from cache import Split
from cache.format.manifest import shard_rows
from pipeline.cli.console import DONE, DOUBT, IDLE, WRONG, CommandResult
from pipeline.cli.progress import Bars, Progress, silent
from pipeline.cli.text import count, few
from pipeline.conversion.identity import describe
from pipeline.errors import PipelineError
from pipeline.features import plan, streams
from pipeline.features.inputs import column
from pipeline.features.single_rows import Requests, Rows, SingleRows, Values
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.base import Reads
from pipeline.features.weights import WeightsSpec

# Relative difference from which a row's neighbours are computed. Measured with the fast ResNet-50
# (random weights) on demo data and two clips of Kinetics: correct rows differ by up to 0.0004
# (float16), successive frames of demo data by at least 0.05, of the slower clip by 0.014 (median).
# Noise of one grey level makes 0.02.
SUSPICIOUS: Final = 0.002
NOISE: Final = 0.05  # relative difference that rounding cannot explain
# a neighbour fits better if its difference is less than this share of the row's own
CLEARLY_BETTER: Final = 0.5
OTHERWISE: Final = (
    "this machine computes other numbers from their frames. Other code, libraries or another "
    "kind of processor has "
    "computed them. If the numbers of this machine are right, run extract --replace"
)
MOST_ROWS: Final = 20  # rows that are named on the terminal
IMPORTED: Final = "it was imported"  # why a stream is skipped; this is not a problem
# the largest possible relative difference; also that of a row whose value is unknown now
LARGEST_DIFFERENCE: Final = 2.0
# Parts of a row count as at least this share of its root mean square: in smaller parts, such as
# zeros, all differences would be noise.
LEAST_PART: Final = 0.01


class Misaligned(NamedTuple):
    """A row that fits a neighbour's frame better than its own. Differences are relative."""

    track: str
    frame: int
    differs: float  # from its own frame
    neighbour: int  # the frame that fits better
    neighbour_differs: float

    def __str__(self) -> str:
        return (
            f"{self.track}, frame {self.frame}: differs by {self.differs:.2%}, and from frame "
            f"{self.neighbour} by {self.neighbour_differs:.2%}"
        )


@dataclass(slots=True)
class _ComparedStream:
    """The result for one stream. Each differing row is misaligned, unmatched, beyond, or only
    doubtful.
    """

    split: str
    stream: str
    rows: int = 0  # number of compared rows
    largest: float = 0.0  # largest relative difference of a row
    differing: int = 0  # rows whose difference is at least SUSPICIOUS
    not_computed: int = 0  # rows whose frames could not be decoded
    problem: str = ""  # why the first of these could not be decoded
    misaligned: list[Misaligned] = field(default_factory=list)
    # rows that match no frame: all zeros, or no closer to their own frame than to a neighbour's
    unmatched: int = 0
    beyond: int = 0  # other rows whose difference is at least NOISE

    @property
    def ok(self) -> bool:
        """Whether every drawn row was compared, and none has an error."""
        return not any((self.misaligned, self.unmatched, self.beyond, self.not_computed))

    def add_lines(self, result: CommandResult) -> None:
        """Add a line to a command's result for each kind of difference."""
        n_misaligned = len(self.misaligned)
        if n_misaligned:
            rows = count(n_misaligned, "row")
            result.line(f"{rows} with the numbers of another frame:", indent=2)
        misaligned = [str(row) for row in self.misaligned]
        result.lines(few(misaligned, MOST_ROWS, "verify --recompute --json"), indent=4)
        if self.unmatched:
            why = (
                "all zeros, or as far from their own frame as from a neighbouring one, or computed "
                "with other columns"
            )
            rows = count(self.unmatched, "row")
            result.line(f"{rows} that match no frame: {why}", indent=2)
        if self.beyond:
            rows = f"{count(self.beyond, 'row')} of {NOISE:.0%} difference or more"
            result.line(f"{rows}: {OTHERWISE}", indent=2)
        n_doubtful = self.differing - n_misaligned - self.unmatched - self.beyond
        if n_doubtful:
            rows = f"{count(n_doubtful, 'row')} of {SUSPICIOUS:.1%} difference or more"
            why = "which match no neighbouring frame clearly better"
            result.line(f"{rows}, {why}", DOUBT, indent=2)
        if self.not_computed:
            rows = count(self.not_computed, "row")
            result.line(f"{rows} not compared, the first: {self.problem}", indent=2)


class _StreamSkipped(NamedTuple):
    """A stream that was not compared."""

    split: str
    stream: str
    why: str


@dataclass(slots=True)
class Recomputed:
    """The results for all streams."""

    compared: list[_ComparedStream] = field(default_factory=list)
    skipped: list[_StreamSkipped] = field(default_factory=list)
    # messages: what could not be compared, and what to do
    refused: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every drawn row was compared and matches its own frame."""
        are_equal = all(stream.ok for stream in self.compared)
        were_compared = all(stream.why == IMPORTED for stream in self.skipped)
        return are_equal and were_compared and not self.refused

    def add_lines(self, result: CommandResult) -> None:
        """Add lines to a command's result: for each compared stream, a summary and its differences;
        then the streams that were skipped.
        """
        for stream in self.compared:
            name = f"{stream.split}, {stream.stream}"
            if not stream.rows:
                result.line(f"{name}: no rows to compare", IDLE)
                continue
            rows = count(stream.rows, "row")
            summary = f"{rows} recomputed, largest difference {stream.largest:.2%}"
            result.line(f"{name}: {summary}", DONE if stream.ok else WRONG)
            stream.add_lines(result)
        for skipped in self.skipped:
            mark = IDLE if skipped.why == IMPORTED else WRONG
            result.line(f"{skipped.split}, {skipped.stream}: not compared: {skipped.why}", mark)


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
    """Recompute `n` random rows of every stream of some splits, and compare them with the stored
    rows. Only rows with the flag `cache.COMPUTED` are drawn.

    Args:
        seed: seed of the random choice.
        splits: names of the splits; None: all.
        raw: the dataset's raw folder now; None: as recorded.
        weights: weights for streams whose manifest has only a digest of their weights file.
        workers: number of decoding processes.

    Raises CacheError for a split that does not exist, PipelineError if `raw` would be used for
    several datasets.
    """
    opened = cache.open(root)
    recomputed = Recomputed()
    names = opened.splits if splits is None else splits
    datasets = {name.partition("/")[0] for name in names}
    if raw is not None and len(datasets) > 1:
        raise PipelineError(
            f"--raw goes with the splits of one dataset, found {', '.join(sorted(datasets))}"
        )
    for name in names:
        split = opened[name]
        for stream in split.streams:
            with bars(f"recompute {name}, {stream}") as progress:
                try:
                    spec = StreamSpec.from_manifest(split, stream, raw=raw, weights=weights)
                    why = _reason_to_skip(split, stream, spec)
                    if why:
                        recomputed.skipped.append(_StreamSkipped(name, stream, why))
                        continue
                    assert spec is not None
                    recomputed.compared.append(_compare(split, spec, n, seed, workers, progress))
                except (PipelineError, cache.CacheError) as error:
                    recomputed.refused.append(f"{name}, {stream}: {error}")
    return recomputed


def draw_rows(split: Split, stream: str, n: int, seed: int) -> Rows:
    """Draw `n` of a stream's computed rows at random; all, if there are fewer. Sorted.

    First counts the rows of all shards, then reads those of the shards with drawn rows again.
    """
    shards = split.stream_shards(stream)
    counts = [len(_computed_rows(split, stream, shard)) for shard in shards]
    total = sum(counts)
    rng = np.random.default_rng([seed, zlib.crc32(f"{split.name}/{stream}".encode())])
    drawn = np.sort(rng.choice(total, min(n, total), replace=False, shuffle=False))
    rows = [np.zeros(0, np.int64)]
    first = 0  # position of the shard's first computed row among all
    for shard, n_computed in zip(shards, counts, strict=True):
        in_shard = drawn[(drawn >= first) & (drawn < first + n_computed)]
        if len(in_shard):
            rows.append(_computed_rows(split, stream, shard)[in_shard - first])
        first += n_computed
    return np.concatenate(rows)


def _computed_rows(split: Split, stream: str, shard: int) -> Rows:
    """Rows of tracks in a shard that have the flag COMPUTED."""
    # without padding rows, which cannot be read
    committed = shard_rows(split.stream_manifest(stream), shard)
    rows = np.arange(committed.start, committed.stop)
    flags = split.rows(f"features/{stream}_ok", committed.start, committed.stop)
    is_computed = flags == cache.COMPUTED
    computed: Rows = rows[is_computed & (split.track_of(rows) >= 0)]
    return computed


def _reason_to_skip(split: Split, stream: str, spec: StreamSpec | None) -> str:
    """Why a stream cannot be recomputed here; "" if it can. `spec`: None if its weights are
    missing.
    """
    before = plan.recorded_identity(split, stream)
    kind = before.get("kind")
    if kind == plan.IMPORTED:
        return IMPORTED
    not_installed = streams.not_installed(str(kind))
    if not_installed:
        return f"needs {not_installed}"
    if spec is None:
        digest = str((before.get("weights") or {}).get("file_sha256", ""))[:12]
        file = f" (sha256 {digest})" if digest else ""
        return f"its weights are missing: {kind}{file}. Name them: --weights KIND:FILE"
    identity = spec.stream.identity()
    if identity != before:
        return f"it was extracted differently: {describe(before, identity)}"
    return ""


def _compare(
    split: Split, spec: StreamSpec, n: int, seed: int, workers: int, progress: Progress
) -> _ComparedStream:
    """Recompute `n` random rows of one stream, and compare them with the stored rows."""
    rows = draw_rows(split, spec.name, n, seed)
    single = SingleRows(split, spec, workers)
    parts = _parts(split, spec)
    compared = _ComparedStream(split.name, spec.name)
    suspicious = dict[int, _Suspicious]()
    own_frames = Requests(row=rows, source=rows, box=rows, labels=rows)
    for n_done, result in enumerate(single.compute(own_frames), 1):
        progress(n_done, len(rows))
        if result.problem:
            compared.not_computed += 1
            compared.problem = compared.problem or result.problem
            continue
        row = int(rows[result.request])
        stored: Values = split.rows(f"features/{spec.name}", row, row + 1)[0]
        difference = _relative_difference(result.values, stored, parts)
        compared.rows += 1
        compared.largest = max(compared.largest, difference)
        if difference >= SUSPICIOUS:
            suspicious[row] = _Suspicious(difference, result.values, stored)
    compared.differing = len(suspicious)
    if compared.not_computed and not compared.rows:
        raise PipelineError(f"none of {len(rows)} rows can be compared: {compared.problem}")
    if suspicious:
        _compare_neighbours(split, spec, single, suspicious, compared)
    return compared


class _NeighbourFit(NamedTuple):
    """How well the frame of a neighbouring row fits a row's stored numbers. The best fit is the
    smallest, so `difference` stands first.
    """

    difference: float  # relative difference of the stored numbers from the neighbour's
    neighbour: int  # the neighbouring row


@dataclass(slots=True)
class _Suspicious:
    """A row whose stored numbers differ from those computed from its own frame."""

    difference: float  # relative difference between the two
    computed: Values | None  # computed from its own frame; None: the value is unknown
    stored: Values
    best: _NeighbourFit | None = None  # of its neighbours; None: it has none
    # whether a neighbour's frame that gives other numbers fits it at least as well as its own frame
    fits_neighbour: bool = False

    def add_neighbour(self, fit: _NeighbourFit, computed: Values | None) -> None:
        """Update `best` and `fits_neighbour` by the numbers `computed` from a neighbour's frame."""
        if self.best is None or fit < self.best:
            self.best = fit
        if self.computed is None:
            return
        has_moved = _relative_difference(computed, self.computed) >= SUSPICIOUS
        if has_moved and fit.difference <= self.difference:
            self.fits_neighbour = True


def _compare_neighbours(
    split: Split,
    spec: StreamSpec,
    single: SingleRows,
    suspicious: Mapping[int, _Suspicious],
    compared: _ComparedStream,
) -> None:
    """Compare suspicious rows with their neighbours' frames, and record in `compared` which are
    misaligned, unmatched or beyond noise.
    """
    requests = _neighbour_requests(split, spec, sorted(suspicious))
    parts = _parts(split, spec)
    for result in single.compute(requests):
        suspect = suspicious[int(requests.row[result.request])]
        difference = _relative_difference(result.values, suspect.stored, parts)
        neighbour = int(requests.labels[result.request])  # see `_neighbour_requests`
        suspect.add_neighbour(_NeighbourFit(difference, neighbour), result.values)

    for row, suspect in sorted(suspicious.items()):
        best = suspect.best
        if best is not None and best.difference < CLEARLY_BETTER * suspect.difference:
            compared.misaligned.append(_describe_misaligned(split, row, suspect.difference, best))
        elif _matches_no_frame(suspect, spec.stream.reads):
            compared.unmatched += 1
        elif suspect.difference >= NOISE:
            compared.beyond += 1


def _matches_no_frame(suspect: _Suspicious, reads: Reads) -> bool:
    """Whether a row that is not misaligned fits neither its own frame nor a neighbour's."""
    if reads.crops > 1:
        return False  # rows of pairs without motion are near zero: their differences are noise
    if suspect.computed is None or not suspect.stored.any():
        return True
    if suspect.difference < NOISE:
        return False
    # If a row of crops was computed with wrong columns, no neighbour's columns fit either.
    reads_columns = reads.crops == 1 and bool(reads.labels)
    return suspect.fits_neighbour or reads_columns


def _describe_misaligned(
    split: Split, row: int, difference: float, best: _NeighbourFit
) -> Misaligned:
    rows = np.array([row, best.neighbour])
    frame, neighbour = column(split.rows, "frame_index", rows).tolist()
    track = split.tracks[int(split.track_of(rows[:1])[0])].name
    return Misaligned(track, frame, difference, neighbour, best.difference)


def _neighbour_requests(split: Split, spec: StreamSpec, rows: Sequence[int]) -> Requests:
    """Make the requests for the neighbours of each row, those one row before and after in its run.

    Each request reads the labels of its neighbour, so `Requests.labels` tells which one that is.
    """
    reads = spec.stream.reads
    runs = split.runs
    requests: list[tuple[int, int, int, int]] = []  # row, source, box, labels: as in `Requests`
    for row in rows:
        start, stop = runs[np.searchsorted(runs[:, 0], row, side="right") - 1].tolist()
        if reads.crops > 1:
            start += 1  # the first row of a run has no pair
        for neighbour in (row - 1, row + 1):
            if not start <= neighbour < stop:
                continue
            if reads.crops:  # the neighbour's frame, in the row's own box
                requests.append((row, neighbour, row, neighbour))
            # the neighbour's frame, box and labels
            requests.append((row, neighbour, neighbour, neighbour))
            if reads.crops and reads.labels:  # the row's own crop, with the neighbour's labels
                requests.append((row, row, row, neighbour))
    return Requests(*np.array(requests, np.int64).reshape(-1, 4).T)


def _relative_difference(
    computed: Values | None, stored: Values, parts: Sequence[slice] = (slice(None),)
) -> float:
    """The largest |computed - stored| / max(|computed|, |stored|) over parts of two rows, 0 to 2.

    If a row is shorter, its missing numbers count as 0. A part whose norm is very small counts as
    LEAST_PART of the row. `computed` None (unknown) gives 2.

    >>> _relative_difference(np.array([3.0, 4.0]), np.array([3.0]))
    0.8
    """
    if computed is None:
        return LARGEST_DIFFERENCE
    padded = np.zeros((2, max(len(computed), len(stored))))
    padded[0, : len(computed)] = computed
    padded[1, : len(stored)] = stored
    least = LEAST_PART * np.sqrt(np.mean(padded**2))
    largest = 0.0
    for part in parts:
        values = padded[:, part]
        size = max(*np.linalg.norm(values, axis=1), least * values.shape[1] ** 0.5)
        if size:
            largest = max(largest, float(np.linalg.norm(values[0] - values[1]) / size))
    return largest


def _parts(split: Split, spec: StreamSpec) -> list[slice]:
    """The slices of a row that are compared separately: the parts that the stream's provenance
    names, such as outputs of a graph ([{"offset": 0}, {"offset": 72}]), or else the whole row.
    """
    parts = (split.stream_manifest(spec.name)["backbone"] or {}).get("parts") or [{"offset": 0}]
    starts = [int(part["offset"]) for part in parts]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], None], strict=True)]
