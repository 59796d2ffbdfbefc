"""People in frames as arrays, which grow while a file is read.  [raw] -> tracks"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, overload

import numpy as np

from pipeline.people.skeletons import Array, Bools, Doubles, Ints

Identity = int | str | None  # of a person, as a detector tracks it

BLOCK: Final = 1 << 13  # people of whom checks look at so many at once
SPARE: Final = 8  # an array that is full grows by this part
ODD: Final = np.uint64(0x9E3779B97F4A7C15)


class FoundPerson(NamedTuple):
    """One person in one image."""

    frame: int  # counted from 0; or the number of an image, which may begin anywhere
    # (J, 3): x, y in px, score. If only a box is known, (2, 3): upper left and lower right corner
    points: Doubles
    identity: Identity = None
    # (2, 2) px, upper left and lower right corner: where the file has a box beside joints
    box: Doubles | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ByFrame(Sequence[Array]):
    """The rows of an array by frame; an item is those of one frame.

    Attributes:
        rows: (N, ...) the rows of all T frames.
        start: (T + 1,) each frame's first row, and N.
    """

    rows: Array
    start: Ints

    def __len__(self) -> int:
        return len(self.start) - 1

    @overload
    def __getitem__(self, t: int) -> Array: ...
    @overload
    def __getitem__(self, t: slice) -> list[Array]: ...
    def __getitem__(self, t: int | slice) -> Array | list[Array]:
        if isinstance(t, slice):
            return [self[i] for i in range(*t.indices(len(self)))]
        if not -len(self) <= t < len(self):
            raise IndexError(t)
        t %= len(self)
        return self.rows[self.start[t] : self.start[t + 1]]


def all_rows(by_frame: Sequence[Array]) -> Array:
    """The rows of all frames as one array, without a copy if they are one already."""
    return by_frame.rows if isinstance(by_frame, ByFrame) else np.concatenate(by_frame)


def blocks(n: int) -> Iterator[slice]:
    """Slices of up to BLOCK of n rows; one, which is empty, of none."""
    for first in range(0, max(n, 1), BLOCK):
        yield slice(first, min(first + BLOCK, n))


class _Column:
    """An array (N, ...) that grows by a part of its length, where it is if there is room."""

    def __init__(self, dtype: type, *shape: int) -> None:
        self.shape = shape  # of a row
        self.n = 0
        self._array: Array = np.empty((64, *shape), dtype)

    def extend(self, rows: Array | Sequence[int]) -> None:
        stop = self.n + len(rows)
        if stop > len(self._array):
            self._array.resize((stop + stop // SPARE + 64, *self.shape), refcheck=False)
        self._array[self.n : stop] = rows
        self.n = stop

    def rows(self) -> Array:
        """The rows so far, until there are more."""
        return self._array[: self.n]

    def finish(self) -> Array:
        """The rows. There can be no more of them."""
        self._array.resize((self.n, *self.shape), refcheck=False)
        return self._array


class PeopleTable(NamedTuple):
    """N people of a file, in its order."""

    frame: Ints  # (N,)
    points: Doubles  # (N, J, 3), as of `FoundPerson`
    code: Ints  # (N,) places of their identities among `identities`
    identities: Sequence[Identity]
    boxed: Ints  # (M,) the rows of people with a box beside joints
    boxes: Doubles  # (M, 2, 2) px

    def find_copies(self) -> Bools:
        """(N,) whether an earlier person has the same frame, identity and joints, of which some
        have a score.
        """
        is_copy = np.zeros(len(self.frame), bool)
        if (np.diff(self.frame) > 0).all():
            return is_copy
        weights = np.cumprod(np.full(self.points[:1].size, ODD))
        digest = np.empty(len(self.frame), np.uint64)
        for rows in blocks(len(digest)):
            # without the sign of zeros
            bits = (self.points[rows] + 0.0).reshape(-1, len(weights)).view(np.uint64)
            digest[rows] = bits @ weights + self.code[rows].astype(np.uint64)
        order = np.lexsort((digest, self.frame))
        for before, after in _equal_neighbours(order, self.frame, digest, self.code):
            is_equal = (self.points[before] == self.points[after]).all(axis=(1, 2))
            is_copy[after] = is_equal & self.points[after, :, 2].any(axis=1)
        return is_copy

    def in_order(self, is_left_out: Bools) -> PeopleTable:
        """The people in the order of frames, without those for whom it is true; without boxes."""
        frame, points, code = self.frame, self.points, self.code
        if is_left_out.any() or (np.diff(frame) < 0).any():
            order = np.argsort(frame, kind="stable")
            order = order[~is_left_out[order]]
            for rows in points.swapaxes(0, 1):  # in place, so that there is no second copy
                rows[: len(order)] = rows[order]
            points = points[: len(order)]
            frame, code = frame[order], code[order]
        return PeopleTable(frame, points, code, self.identities, self.boxed[:0], self.boxes[:0])


def _equal_neighbours(order: Ints, *columns: Array) -> Iterator[tuple[Ints, Ints]]:
    """Yield rows that follow each other in an order, and have equal numbers in all columns."""
    for rows in blocks(len(order) - 1):
        before = order[rows]
        after = order[rows.start + 1 : rows.stop + 1]
        is_equal = np.all([column[before] == column[after] for column in columns], axis=0)
        yield before[is_equal], after[is_equal]


class FoundPeople:
    """The people of a file while it is read.

    Attributes:
        other: frame and number of points of the first person whose number of points is not that of
            the first one. Such people are not added.
    """

    def __init__(self) -> None:
        self.other: tuple[int, int] | None = None
        self._codes: dict[Identity, int] = {}
        self._frame = _Column(np.int64)
        self._code = _Column(np.int32)
        self._points = _Column(np.float64, 0, 3)
        self._boxed = _Column(np.int64)
        self._boxes = _Column(np.float64, 2, 2)

    def __len__(self) -> int:
        return self._frame.n

    @property
    def n_points(self) -> int:
        """Number of points of each person; 0 without people."""
        return self._points.shape[0]

    def add(self, person: FoundPerson) -> None:
        """Add a person."""
        n = len(self)
        self.extend([person.frame], person.points[None], [person.identity])
        if person.box is not None and len(self) > n:
            self._boxed.extend([n])
            self._boxes.extend(person.box[None])

    def extend(
        self, frames: Sequence[int], points: Doubles, identities: Sequence[Identity]
    ) -> None:
        """Add n people without boxes beside joints. points: (n, J, 3)."""
        if not len(self):
            self._points = _Column(np.float64, *points.shape[1:])
        if points.shape[1] != self.n_points:
            self.other = self.other or (frames[0], points.shape[1])
            return
        codes = self._codes
        self._code.extend([codes.setdefault(identity, len(codes)) for identity in identities])
        self._frame.extend(frames)
        self._points.extend(points)

    def find_repeated(self) -> set[tuple[int, Identity]]:
        """Frames and identities that several people share."""
        frame = self._frame.rows()
        code = self._code.rows()
        known = [*self._codes]
        repeated = set()
        for _, after in _equal_neighbours(np.lexsort((code, frame)), frame, code):
            repeated |= {(int(frame[row]), known[code[row]]) for row in after.tolist()}
        return repeated

    def have_identities(self) -> bool:
        """Whether somebody has an identity other than 0."""
        return any(self._codes)

    def finish(self, *, identities: bool = True) -> PeopleTable:
        """The people. There can be no more of them. identities: whether they have any."""
        known: list[Identity] = [*self._codes]
        code = self._code.finish()
        if not identities:
            known = [None]
            code[:] = 0
        return PeopleTable(
            self._frame.finish(),
            self._points.finish(),
            code,
            known,
            self._boxed.finish(),
            self._boxes.finish(),
        )
