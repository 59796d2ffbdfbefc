"""Open shards of a stream, whose rows are computed in any order.  crops -> [features]

`OpenShards` has the open shards of one output. A shard is opened when its first row is needed. Rows
that need not be computed are filled in: they are carried over from replaced tracks, or kept from an
interrupted extraction. Then each row to compute gets its numbers (`check`, `store`), is given up,
or is lost with its video. When no row is left to compute, `take_finished` closes the shard, for the
writing thread.

Row numbers are those of the split; a row's index in its shard is its number minus `shard.start`.

The thread of `Run` calls all methods, with two exceptions: a network's thread calls `check`, which
changes nothing, and the writing thread calls the functions that `save` yields, which read rows that
do not change any more.
"""

from __future__ import annotations

import enum
import functools
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from cache import Split
from cache.arrays import Array, Bools, Ints, Keys
from cache.format.layout import NO_KEY
from pipeline.errors import PipelineError
from pipeline.features.inputs import column, cuts, has_previous, label_batch, row_keys
from pipeline.features.streams.base import Labels, Stream

NO_VALUE: Final = 0  # `ok` flag of rows that are neither COMPUTED nor UNDEFINED
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
    """Computed rows, as `OpenShards.check` returns them."""

    values: Array  # (n, dim), of the stream's dtype
    ok: Array  # (n,) flags: COMPUTED, UNDEFINED or NO_VALUE


class State(enum.IntEnum):
    """State of a row of an open shard. Of the rows to compute, TODO changes to one of the last
    three, and COMPUTED to LOST if the video turns out to have changed; the others stay.
    """

    UNUSED = 0  # belongs to no track
    TODO = 1  # still to be computed
    CARRIED = 2  # copied from another row of the stream with an equal key
    KEPT = 3  # computed by an interrupted extraction
    FIRST = 4  # first row of a run: it lacks the previous frame, which a stream of pairs needs
    COMPUTED = 5
    GIVEN_UP = 6  # cannot be computed, for example because its frame is undecodable
    LOST = 7  # its video cannot be read now: a later extraction computes it


@dataclass(slots=True, eq=False)
class PendingShard:
    """One open shard, with n rows."""

    number: int
    start: int  # its first row
    columns: Mapping[str, Array]  # for streams of crops, frame_index (n,) and bbox (n, 4)
    keys: Keys  # (n, 2) digests of the rows' inputs (`inputs.row_keys`)
    state: NDArray[np.uint8]  # (n,) of `State`
    n_todo: int  # number of rows with the state TODO
    values: Array  # (n, dim)
    ok: NDArray[np.uint8]  # (n,) COMPUTED, UNDEFINED or NO_VALUE
    counts: Counts
    n_saved: int  # number of rows in the checkpoint

    @property
    def stop(self) -> int:
        return self.start + len(self.ok)

    def todo(self, start: int, stop: int) -> Ints:
        """The rows in [start, stop), of any shard, that are still to be computed in this one."""
        first, state = self.state_within(start, stop)
        return np.flatnonzero(state == State.TODO) + first + self.start

    def state_within(self, start: int, stop: int) -> tuple[int, NDArray[np.uint8]]:
        """The states of the shard's rows in [start, stop), and the index of the first of them."""
        first = max(start - self.start, 0)
        return first, self.state[first : max(stop - self.start, 0)]

    def finish(self, rows: Ints, state: State) -> None:
        """Set the state of rows that were TODO and are not any more."""
        self.state[rows - self.start] = state
        self.n_todo -= len(rows)


class OpenShards:
    """The open shards of one stream's extraction.

    Args:
        target: numbers of the shards to compute, ascending.
    """

    def __init__(
        self, split: Split, shards: cache.StreamShards, stream: Stream, target: Sequence[int]
    ) -> None:
        self._split = split
        self._shards = shards
        self._stream = stream
        self.target = target
        self._size = split.rows_per_shard
        self._missing = set(target)  # shards that are not finished
        self._open: dict[int, PendingShard] = {}  # by number
        self.has_pairs = stream.reads.crops > 1
        # number of rows, in all shards so far, that this extraction need not or could not compute:
        # carried, kept, FIRST, given up or lost while TODO. Progress counts them as finished.
        self.not_computed = 0
        self._n_finite = 0  # number of computed rows whose numbers are finite
        self._n_not_finite = 0  # number of the other computed rows

    def __len__(self) -> int:
        return len(self._open)

    def open(self, number: int) -> PendingShard:
        """Return the open shard. If it is not open yet, read its rows, and fill in features that
        need not be computed.
        """
        if number not in self._open:
            self._open[number] = self._load(number)
        return self._open[number]

    def todo(self, numbers: Sequence[int], rows: range) -> Ints:
        """Which of these rows are still to be computed in these shards. Opens the shards."""
        parts = [self.open(number).todo(rows.start, rows.stop) for number in numbers]
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def is_missing(self, number: int) -> bool:
        """Whether a shard is missing and not finished."""
        return number in self._missing

    def rows(self, name: str, first: int, stop: int) -> Array:
        """As `Split.rows`, but rows that an open shard has in memory are not read again."""
        shard = self._open.get(first // self._size)
        if shard is None or name not in shard.columns:
            return self._split.rows(name, first, stop)
        values = shard.columns[name][first - shard.start : stop - shard.start]
        if stop > shard.stop:
            values = np.concatenate([values, self.rows(name, shard.stop, stop)])
        return values

    def cuts(self, rows: Ints) -> NDArray[np.void]:
        """How the crops of rows (n,) are cut from their frames: an array (n,) of `CUT`."""
        return cuts(self._split, self._stream.policy, rows, self.rows)

    def labels(self, rows: Ints) -> Labels:
        """The labels (n, ...) of rows (n,) that the stream reads, by column."""
        return label_batch(self._split, rows, self._stream.reads)

    def check(self, computed: Array, known: Bools) -> Checked:
        """Convert computed numbers (n, dim) to the stream's dtype, and find their `ok` flags (n,):
        COMPUTED if known, UNDEFINED if not, NO_VALUE for rows that are not finite. Any thread may
        call this.
        """
        with np.errstate(over="ignore"):
            computed = np.asarray(computed, self._stream.dtype)
        ok = np.where(known, cache.COMPUTED, cache.UNDEFINED)
        is_finite = np.isfinite(computed).all(axis=1)
        return Checked(computed, np.where(is_finite, ok, NO_VALUE))

    def store(self, rows: Ints, checked: Checked) -> int:
        """Store checked values of rows (n,) in the open shards. Rows with NO_VALUE are given up;
        -1, and rows that are not to be computed any more, are left out. Returns the number of
        stored rows.

        Raises PipelineError if the first `MOST_NOT_FINITE` rows are all given up.
        """
        values, ok = checked
        is_todo = self.is_todo(rows)
        is_finite = ok != NO_VALUE
        is_bad = is_todo & ~is_finite
        if is_bad.any():
            self._give_up_not_finite(rows[is_bad], values[is_bad])
        is_stored = is_todo & is_finite
        rows = rows[is_stored]
        values = values[is_stored]
        ok = ok[is_stored]
        self._n_finite += len(rows)
        for shard, selected in self._by_shard(rows):
            index = rows[selected] - shard.start
            shard.values[index] = values[selected]
            shard.ok[index] = ok[selected]
            shard.finish(rows[selected], State.COMPUTED)
            shard.counts.computed += len(index)
        return len(rows)

    def _give_up_not_finite(self, rows: Ints, numbers: Array) -> None:
        tracks = self._split.tracks
        frame = column(self.rows, "frame_index", rows)
        for i, track in enumerate(self._split.track_of(rows).tolist()):
            n_bad = np.count_nonzero(~np.isfinite(numbers[i]))
            message = (
                f"track {tracks[track].name}, frame {frame[i]}: {n_bad:,} of "
                f"{numbers.shape[1]:,} numbers are not finite in {numbers.dtype}"
            )
            self.give_up(rows[i : i + 1], NOT_FINITE, message)
        self._n_not_finite += len(rows)
        if self._n_not_finite >= MOST_NOT_FINITE and not self._n_finite:
            raise PipelineError(
                f"{self._split.name}: {self._stream.kind}: no row of {self._n_not_finite:,} is "
                f"finite in {numbers.dtype}. Check its weights and precision."
            )

    def give_up(self, rows: Ints, kind: str, message: str) -> None:
        """Give up rows that cannot be computed, and count their problem: their `ok` stays 0."""
        self.not_computed += len(rows)
        for shard, selected in self._by_shard(rows):
            problems = Counter({kind: len(rows[selected])})
            shard.finish(rows[selected], State.GIVEN_UP)
            shard.counts.add(Counts(problems=problems, examples=[message]))

    def is_todo(self, rows: Ints) -> Bools:
        """Whether rows (n,) are still to be computed; False for -1, which stands for no row, and
        for rows of lost videos.
        """
        todo = np.zeros(len(rows), bool)
        number = rows // self._size
        for shard_number in np.unique(number).tolist():
            shard = self._open.get(shard_number)
            if shard is not None:
                selected = number == shard_number
                todo[selected] = shard.state[rows[selected] - shard.start] == State.TODO
        return todo

    def lose(self, rows: range, video: str, why: str, *, computed: bool = False) -> None:
        """Leave a video's rows in open shards to a later extraction.

        Args:
            rows: all rows of the video.
            why: why it cannot be read.
            computed: also discard its rows that have been computed.
        """
        for shard in self._open.values():
            first, state = shard.state_within(rows.start, rows.stop)
            is_todo = state == State.TODO
            is_computed = (state == State.COMPUTED) & computed
            lost = np.flatnonzero(is_todo | is_computed) + first
            if not len(lost):
                continue
            shard.counts.lost[video] = why
            shard.counts.computed -= int(is_computed.sum())
            self.not_computed += int(is_todo.sum())
            shard.n_todo -= int(is_todo.sum())
            shard.state[lost] = State.LOST
            shard.ok[lost] = NO_VALUE
            shard.keys[lost] = NO_KEY

    def save(self, uncompared: Sequence[range] = ()) -> Iterator[Callable[[], None]]:
        """Yield a function for each shard with new rows, which writes its checkpoint. Any thread
        may call these functions.

        Args:
            uncompared: rows to leave out, as their pixels have not been compared yet.
        """
        for shard in self._open.values():
            has_values = np.isin(shard.state, (State.KEPT, State.COMPUTED))
            for rows in uncompared:
                first = max(rows.start - shard.start, 0)
                has_values[first : max(rows.stop - shard.start, 0)] = False
            index = np.flatnonzero(has_values)
            if len(index) > shard.n_saved:
                shard.n_saved = len(index)
                yield functools.partial(self._save, shard, index)

    def _save(self, shard: PendingShard, index: Ints) -> None:
        # This runs in another thread, which is safe because computed rows do not change.
        self._shards.checkpoint(
            shard.number, index, shard.values[index], shard.ok[index], shard.keys[index]
        )

    def take_finished(self, uncompared: Container[int] = ()) -> Iterator[PendingShard]:
        """Close and yield the shards in which no row is left to compute, except those whose pixels
        have not been compared yet (`uncompared`).
        """
        for number, shard in list(self._open.items()):
            if not shard.n_todo and number not in uncompared:
                self._missing.discard(number)
                yield self._open.pop(number)

    def _by_shard(self, rows: Ints) -> Iterator[tuple[PendingShard, Bools]]:
        """Yield the open shards that have some of the rows (n,), each with flags (n,) of these."""
        number = rows // self._size
        for shard_number in np.unique(number).tolist():
            yield self._open[shard_number], number == shard_number

    def _load(self, number: int) -> PendingShard:
        """Read a shard's rows and keys, give each row its first `State`, and fill in the features
        of rows that need not be computed: they are carried over, or else kept; those of the first
        rows of runs of pairs are 0.
        """
        rows = self._shards.rows(number)
        is_live = self._shards.live(number)
        live_rows = rows.start + np.flatnonzero(is_live)
        keys = np.zeros((len(rows), 2), np.uint64)
        keys[is_live] = row_keys(self._split, self._stream, live_rows)
        kept = self._shards.kept(number, keys)
        carried = self._shards.carried(keys)

        # if several states fit a row, it gets the last of them
        state = np.full(len(rows), State.UNUSED, np.uint8)
        state[is_live] = State.TODO
        if self.has_pairs:
            state[is_live] = np.where(has_previous(self._split, live_rows), State.TODO, State.FIRST)
        state[is_live & kept.mask] = State.KEPT
        state[is_live & carried.mask] = State.CARRIED

        values = np.asarray(carried.features, self._stream.dtype)  # 0 for rows that are not carried
        ok = carried.ok
        is_kept = state == State.KEPT
        values[is_kept] = kept.features[is_kept]
        ok[is_kept] = kept.ok[is_kept]
        ok[state == State.FIRST] = cache.UNDEFINED

        n_by_state = np.bincount(state, minlength=len(State)).tolist()
        counts = Counts(
            computed=n_by_state[State.FIRST],
            carried=n_by_state[State.CARRIED],
            kept=n_by_state[State.KEPT],
        )
        self.not_computed += counts.computed + counts.carried + counts.kept
        names = ("frame_index", "bbox") if self._stream.reads.crops else ()
        columns = {name: self._split.rows(name, rows.start, rows.stop) for name in names}
        return PendingShard(
            number=number,
            start=rows.start,
            columns=columns,
            keys=keys,
            state=state,
            n_todo=n_by_state[State.TODO],
            values=values,
            ok=ok,
            counts=counts,
            n_saved=n_by_state[State.KEPT],
        )
