"""Shards of a stream, whose rows are computed in any order.  crops -> [features]

`StreamRun` is a stream while it is computed, with its open shards (`_OpenShard`). A shard is opened
when its first row is needed. Rows that need not be computed are filled in: they are carried over
from replaced tracks, or kept from an interrupted extraction. Then each row to compute gets its
numbers (`check`, `store`), is given up, or is lost with its video. When no row is left to compute,
`take_finished` closes the shard, and the writing thread writes it (`write`).

Row numbers are those of the split; a row's index in its shard is its number minus `start`.

The thread of the run calls all methods, with these exceptions: a network's thread calls `check`,
which changes nothing; the writing thread calls `write`, and the functions that `save` yields, which
read rows that only a lost video changes.
"""

from __future__ import annotations

import enum
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from cache import Split
from cache.arrays import Array, Bools, Ints, Keys
from cache.format.layout import NO_KEY
from pipeline.errors import PipelineError
from pipeline.features.inputs import CROP, column, find_crops, label_batch, row_keys
from pipeline.features.streams import load
from pipeline.features.streams.base import Labels, Machine, Provenance, Stream
from pipeline.processes.meter import Meter

NO_VALUE: Final = 0  # `ok` flag of rows that are neither COMPUTED nor UNDEFINED
NOT_SAVED: Final = -1
EXAMPLES: Final = 5  # problems that are reported with their message
NOT_FINITE: Final = "not_finite"  # why rows are given up whose numbers are infinite or NaN
# If so many rows are not finite before any row is, the extraction fails.
MOST_NOT_FINITE: Final = 1024


@dataclass(slots=True)
class Counts:
    """Counts of rows by what became of them."""

    computed: int = 0  # with the first rows of runs of pairs, whose numbers are always 0
    carried: int = 0  # copied: the stream already had features of the same pixels, frame and box
    kept: int = 0  # computed by an interrupted extraction
    problems: Counter[str] = field(default_factory=Counter)  # why rows have no features -> number
    examples: list[str] = field(default_factory=list)  # messages of the first few problems
    lost: dict[str, str] = field(default_factory=dict)  # videos that could not be read, and why

    def add(self, other: Counts) -> None:
        self.computed += other.computed
        self.carried += other.carried
        self.kept += other.kept
        self.problems += other.problems
        self.examples = (self.examples + other.examples)[:EXAMPLES]
        self.lost |= other.lost


class Checked(NamedTuple):
    """Computed rows, as `StreamRun.check` returns them."""

    values: Array  # (n, dim), of the stream's dtype
    ok: Array  # (n,) flags: COMPUTED, UNDEFINED or NO_VALUE


class _State(enum.IntEnum):
    """State of a row of an open shard. MISSING changes to one of the last three, and COMPUTED to
    LOST if the video turns out to have changed; the others stay.
    """

    UNUSED = 0  # belongs to no track
    MISSING = 1  # still to be computed
    CARRIED = 2  # copied from another row of the stream with an equal key
    KEPT = 3  # computed by an interrupted extraction
    FIRST = 4  # first row of a run: it lacks the previous frame, which a stream of pairs needs
    COMPUTED = 5
    GIVEN_UP = 6  # cannot be computed, for example because its frame is undecodable
    LOST = 7  # its video cannot be read now: a later extraction computes it


@dataclass(slots=True, eq=False)
class _OpenShard:
    """One open shard, with n rows."""

    number: int
    start: int  # its first row
    video: NDArray[np.int64]  # (n,) number of each row's video; -1 for rows of no track
    crops: NDArray[np.void]  # (n,) of `CROP`; 0 for streams of labels
    keys: Keys  # (n, 2) digests of the rows' inputs (`inputs.row_keys`)
    state: NDArray[np.uint8]  # (n,) of `_State`
    values: Array  # (n, dim)
    ok: NDArray[np.uint8]  # (n,) COMPUTED, UNDEFINED or NO_VALUE
    counts: Counts = field(default_factory=Counts)  # problems and lost videos so far
    n_saved: int = 0  # number of rows in the checkpoint; NOT_SAVED: it has rows of lost videos

    @property
    def missing(self) -> Ints:
        """The rows that are still to be computed."""
        return np.flatnonzero(self.state == _State.MISSING) + self.start

    @property
    def n_done(self) -> int:
        """Number of rows of tracks that need not be computed any more."""
        return int(np.count_nonzero(self.state > _State.MISSING))

    def count(self) -> Counts:
        """What became of the rows."""
        n = np.bincount(self.state, minlength=len(_State)).tolist()
        of_states = Counts(
            computed=n[_State.COMPUTED] + n[_State.FIRST],
            carried=n[_State.CARRIED],
            kept=n[_State.KEPT],
        )
        of_states.add(self.counts)
        return of_states


class StreamRun:
    """One stream of a run, with its open shards.

    Args:
        target: numbers of the shards to compute, ascending.
        files: the stream in the cache.
        recorded: provenance of the rows that the stream already has.
    """

    def __init__(
        self,
        split: Split,
        stream: Stream,
        files: cache.StreamShards,
        target: Sequence[int],
        recorded: Provenance | None,
    ) -> None:
        self.stream = stream
        self.target = target
        self.provenance: Provenance | None = None  # None: nothing has been loaded
        self.counts = Counts()  # of the rows of written shards
        self.n_unwritten = 0  # number of opened shards that are not written
        self._split = split
        self._files = files
        self._recorded = recorded
        self._size = split.rows_per_shard
        self._missing = set(target)  # shards that are not finished
        self._open: dict[int, _OpenShard] = {}  # by number
        self._n_closed = 0  # number of rows of finished shards
        self._n_finite = 0  # number of computed rows whose numbers are finite
        self._n_not_finite = 0  # number of the other computed rows

    def load(self, machine: Machine) -> Any:
        """Load the stream's computer; None if decoding processes compute its rows."""
        computer, self.provenance = load(self.stream, machine, self._recorded)
        return computer

    @property
    def device(self) -> str:
        """The device of the loaded network; "" without one."""
        return str((self.provenance or {}).get("device", ""))

    @property
    def has_open(self) -> bool:
        return bool(self._open)

    @property
    def n_done(self) -> int:
        """Number of rows that need not be computed any more, in all shards so far."""
        return self._n_closed + sum(shard.n_done for shard in self._open.values())

    def open(self, number: int) -> _OpenShard | None:
        """The open shard of this number. If it is not open yet, read its rows, and fill in features
        that need not be computed. None if the shard is finished, or not to be computed.
        """
        if number not in self._missing:
            return None
        if number not in self._open:
            self._open[number] = self._load(number)
            self.n_unwritten += 1
        return self._open[number]

    def crops(self, video: int, numbers: Sequence[int]) -> NDArray[np.void]:
        """The crops (n,) of `CROP`, by row, of a video's rows to compute in these shards. Opens the
        shards.
        """
        parts = [np.zeros(0, CROP)]
        for number in numbers:
            shard = self.open(number)
            if shard is not None:
                is_missing = (shard.state == _State.MISSING) & (shard.video == video)
                parts.append(shard.crops[is_missing])
        return np.concatenate(parts)

    def labels(self, rows: Ints) -> Labels:
        """The labels (n, ...) of rows (n,) that the stream reads, by column."""
        return label_batch(self._split, rows, self.stream.reads)

    def is_missing(self, rows: Ints) -> Bools:
        """Whether rows (n,) are still to be computed; False for -1, which stands for no row, and
        for rows of lost videos.
        """
        is_missing = np.zeros(len(rows), bool)
        for _, selected, _ in self._missing_by_shard(rows):
            is_missing[selected] = True
        return is_missing

    def check(self, computed: Array, known: Bools) -> Checked:
        """Convert computed numbers (n, dim) to the stream's dtype, and find their `ok` flags (n,):
        COMPUTED if known, UNDEFINED if not, NO_VALUE for rows that are not finite. Any thread may
        call this.
        """
        with np.errstate(over="ignore"):
            computed = np.asarray(computed, self.stream.dtype)
        ok = np.where(known, cache.COMPUTED, cache.UNDEFINED)
        is_finite = np.isfinite(computed).all(axis=1)
        return Checked(computed, np.where(is_finite, ok, NO_VALUE))

    def store(self, rows: Ints, checked: Checked) -> int:
        """Store checked values of rows (n,) in the open shards. Rows with NO_VALUE are given up;
        -1, and rows that are not to be computed any more, are left out. Returns the number of
        stored rows.

        Raises PipelineError if the first `MOST_NOT_FINITE` rows are all given up.
        """
        is_missing = self.is_missing(rows)
        is_finite = checked.ok != NO_VALUE
        is_bad = is_missing & ~is_finite
        if is_bad.any():
            self._give_up_not_finite(rows[is_bad], checked.values.dtype)
        is_stored = is_missing & is_finite
        values = checked.values[is_stored]
        ok = checked.ok[is_stored]
        for shard, selected, index in self._missing_by_shard(rows[is_stored]):
            shard.values[index] = values[selected]
            shard.ok[index] = ok[selected]
            shard.state[index] = _State.COMPUTED
        self._n_finite += len(values)
        return len(values)

    def _give_up_not_finite(self, rows: Ints, dtype: object) -> None:
        """Give up rows whose numbers are not finite, with a message about the first one."""
        first = rows[:1]
        track = self._split.tracks[int(self._split.track_of(first)[0])].name
        frame = column(self._split, "frame_index", first)[0]
        message = f"track {track}, frame {frame}: its numbers are not finite in {dtype}"
        self.give_up(rows, NOT_FINITE, message)
        self._n_not_finite += len(rows)
        if self._n_not_finite >= MOST_NOT_FINITE and not self._n_finite:
            raise PipelineError(
                f"{self._split.name}: {self.stream.kind}: no row of {self._n_not_finite:,} is "
                f"finite in {dtype}. Check its weights and precision."
            )

    def give_up(self, rows: Ints, kind: str, message: str) -> None:
        """Give up those of the rows that are to be computed, and count their problem: their `ok`
        stays 0.
        """
        for shard, selected, index in self._missing_by_shard(rows):
            shard.state[index] = _State.GIVEN_UP
            problems = Counter({kind: len(selected)})
            shard.counts.add(Counts(problems=problems, examples=[message]))

    def lose(self, video: int, why: str) -> None:
        """Leave a video's rows in open shards to a later extraction, also those that have been
        computed. why: why the video cannot be read.
        """
        for shard in self._open.values():
            is_pending = np.isin(shard.state, (_State.MISSING, _State.COMPUTED))
            is_lost = is_pending & (shard.video == video)
            if is_lost.any():
                shard.counts.lost[self._split.videos[video].name] = why
                shard.state[is_lost] = _State.LOST
                # before `ok`: a checkpoint that is written meanwhile has no key for a lost row
                shard.keys[is_lost] = NO_KEY
                shard.ok[is_lost] = NO_VALUE
                shard.n_saved = NOT_SAVED

    def save(self) -> Iterator[Callable[[], None]]:
        """Yield a function for each shard with new or lost rows, which writes its checkpoint. Any
        thread may call these functions.
        """
        for shard in self._open.values():
            index = np.flatnonzero(np.isin(shard.state, (_State.KEPT, _State.COMPUTED)))
            if len(index) != shard.n_saved:
                shard.n_saved = len(index)
                yield functools.partial(self._save, shard, index)

    def _save(self, shard: _OpenShard, index: Ints) -> None:
        # This runs in another thread. Computed rows do not change, but for those that are lost
        # meanwhile: then another checkpoint follows.
        self._files.checkpoint(
            shard.number, index, shard.values[index], shard.ok[index], shard.keys[index]
        )

    def take_finished(self) -> Iterator[_OpenShard]:
        """Close and yield the shards in which no row is left to compute."""
        for number, shard in list(self._open.items()):
            if not (shard.state == _State.MISSING).any():
                self._n_closed += shard.n_done
                self._missing.discard(number)
                yield self._open.pop(number)

    def write(self, shard: _OpenShard, meter: Meter) -> None:
        """Stage a finished shard in the cache."""
        with meter.measure("write"):
            self._files.stage(
                shard.number, shard.values, shard.ok, shard.keys, made=self.provenance
            )

    def count(self, shard: _OpenShard) -> None:
        """Count the rows of a shard that has been written."""
        self.n_unwritten -= 1
        self.counts.add(shard.count())

    def _missing_by_shard(self, rows: Ints) -> Iterator[tuple[_OpenShard, Ints, Ints]]:
        """Yield the open shards in which some of the rows (n,) are still to be computed, each with
        the positions of these among the rows, and their indices in the shard.
        """
        number = rows // self._size
        for shard_number in np.unique(number).tolist():
            shard = self._open.get(shard_number)
            if shard is not None:
                selected = np.flatnonzero(number == shard_number)
                index = rows[selected] - shard.start
                is_missing = shard.state[index] == _State.MISSING
                if is_missing.any():
                    yield shard, selected[is_missing], index[is_missing]

    def _load(self, number: int) -> _OpenShard:
        """Read a shard's rows and keys, give each row its first `_State`, and fill in the features
        of rows that need not be computed: they are carried over, or else kept; those of the first
        rows of runs of pairs are 0.
        """
        split = self._split
        rows = self._files.rows(number)
        is_live = self._files.live(number)
        live_rows = rows.start + np.flatnonzero(is_live)
        crops = np.zeros(len(rows), CROP)
        if self.stream.reads.crops:
            crops[is_live] = find_crops(split, self.stream, live_rows)
        keys = np.zeros((len(rows), 2), np.uint64)
        keys[is_live] = row_keys(split, self.stream, live_rows, crops[is_live])
        video = np.full(len(rows), -1)
        video[is_live] = split.tracks.video[split.track_of(live_rows)]
        kept = self._files.kept(number, keys)
        carried = self._files.carried(keys)

        # if several states fit a row, it gets the last of them
        state = np.full(len(rows), _State.UNUSED, np.uint8)
        state[is_live] = _State.MISSING
        if self.stream.reads.crops > 1:
            state[is_live & (crops["previous"] == crops["frame"])] = _State.FIRST
        state[is_live & kept.mask] = _State.KEPT
        state[is_live & carried.mask] = _State.CARRIED

        values = np.asarray(carried.features, self.stream.dtype)  # 0 for rows that are not carried
        ok = carried.ok
        is_kept = state == _State.KEPT
        values[is_kept] = kept.features[is_kept]
        ok[is_kept] = kept.ok[is_kept]
        ok[state == _State.FIRST] = cache.UNDEFINED
        return _OpenShard(
            number=number,
            start=rows.start,
            video=video,
            crops=crops,
            keys=keys,
            state=state,
            values=values,
            ok=ok,
            n_saved=int(is_kept.sum()),
        )
