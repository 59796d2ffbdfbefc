"""People in frames as arrays, which grow while a file is read.  [raw] -> tracks"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.cli.text import count
from pipeline.files.formats.names import quote_name
from pipeline.people.skeletons import Array, Bools, Doubles, Ints

Identity = int | str | None  # of a person, as a detector tracks it; None: it has none

ALPHAPOSE_KEY: Final = "idx"  # its trackers count from 1; without a tracker, all are 0
BLOCK: Final = 1 << 13  # people of whom checks look at so many at once


class FoundPerson(NamedTuple):
    """One person in one image."""

    frame: int  # counted from 0; or the number of an image, which may begin anywhere
    # (J, 3): x, y in px, score. If only a box is known, (2, 3): upper left and lower right corner
    points: Doubles
    # or a tuple with that of each key, for `FoundPeople.choose_identity`
    identity: Identity | tuple[Identity, ...] = None
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

    @classmethod
    def join(cls, frames: Sequence[Array]) -> ByFrame:
        """The rows of all frames as one array, without a copy if they are one already."""
        if isinstance(frames, ByFrame):
            return frames
        start = np.append(0, np.cumsum([len(rows) for rows in frames], dtype=np.int64))
        return cls(np.concatenate(frames), start)

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, t: Any) -> Any:
        place = range(len(self))[t]
        if isinstance(place, range):
            return [self[i] for i in place]
        return self.rows[self.start[place] : self.start[place + 1]]


def take_in_place(values: Array, rows: Ints) -> Array:
    """`values[rows]` of an array (N, J, ...), at its begin: there is no second copy of it."""
    for column in values.swapaxes(0, 1):
        column[: len(rows)] = column[rows]
    return values[: len(rows)]


def blocks(n: int) -> Iterator[slice]:
    """Slices of up to BLOCK of n rows; one, which is empty, of none."""
    for first in range(0, max(n, 1), BLOCK):
        yield slice(first, min(first + BLOCK, n))


class PeopleTable(NamedTuple):
    """N people of a file, in its order."""

    frame: Ints  # (N,)
    points: Doubles  # (N, J, 3), as of `FoundPerson`
    code: Ints  # (N,) places of their identities among `identities`
    identities: Sequence[Identity]
    boxes: Doubles  # (N, 2, 2) px, of people with a box beside joints; NaN: none

    def find_copies(self) -> Bools:
        """(N,) whether an earlier person has the same frame, identity and joints, of which some
        have a score.
        """
        is_copy = np.zeros(len(self.frame), bool)
        if not len(self.find_repeated()):
            return is_copy
        before, after = _equal_neighbours(self.digests(), self.code, self.frame)
        is_equal = (self.points[before] == self.points[after]).all(axis=(1, 2))
        is_copy[after] = is_equal & self.points[after, :, 2].any(axis=1)
        return is_copy

    def digests(self) -> Ints:
        """(N,) numbers that are equal for equal points."""
        # without the sign of zeros
        numbers = (hash((points + 0.0).tobytes()) for points in self.points)
        return np.fromiter(numbers, np.int64, len(self.frame))

    def find_repeated(self) -> Ints:
        """The rows whose frame and identity an earlier row has."""
        key = self.code * (self.frame.max(initial=0) + 1)
        key += self.frame
        key.sort()  # where numbers overflow, those of equal people are still equal
        if not (key[1:] == key[:-1]).any():
            return np.zeros(0, np.int64)
        return _equal_neighbours(self.code, self.frame)[1]

    def are_in_one_frame(self) -> bool:
        """Whether all people are in one frame, and most have an identity that another one has: then
        the people of all frames are there.
        """
        if None in self.identities or len(np.unique(self.frame)) != 1:
            return False
        return 2 * len(self.find_repeated()) >= len(self.frame)

    def find_frames(self) -> Ints:
        """(T + 1,) the first row of each of T frames, and N, if people are in order."""
        n_people = len(self.frame)
        is_first = np.ones(n_people, bool)
        is_first[1:] = self.frame[1:] != self.frame[:-1]
        return np.append(np.flatnonzero(is_first), n_people)

    def sort(self, is_left_out: Bools) -> PeopleTable:
        """The people in the order of frames, without those for whom it is true."""
        if not is_left_out.any() and (self.frame[1:] >= self.frame[:-1]).all():
            return self
        order = np.argsort(self.frame, kind="stable")
        order = order[~is_left_out[order]]
        return self._replace(
            frame=self.frame[order],
            points=take_in_place(self.points, order),
            code=self.code[order],
            boxes=self.boxes[order],
        )


def _equal_neighbours(*columns: Array) -> tuple[Ints, Ints]:
    """Rows with equal numbers in all columns: each but the last of equal ones, and the next one."""
    order = np.lexsort(columns)
    ordered = (column[order] for column in columns)
    is_equal = np.logical_and.reduce([values[1:] == values[:-1] for values in ordered])
    return order[:-1][is_equal], order[1:][is_equal]


def _has_any(key: str, identities: Sequence[Identity]) -> bool:
    if key == ALPHAPOSE_KEY:
        return any(identities)
    return any(identity is not None for identity in identities)


class FoundPeople:
    """The people of a file while it is read.

    Attributes:
        n_points: of each person; 0 without people.
        other: frame and number of points of the first person whose number of points is not that of
            the first one. Such people are not added.
    """

    def __init__(self) -> None:
        self.n_points = 0
        self.other: tuple[int, int] | None = None
        self._codes: dict[Any, int] = {}
        self._frame = array("q")
        self._code = array("i")
        self._points = array("d")
        self._boxed = array("q")
        self._boxes = array("d")

    def __len__(self) -> int:
        return len(self._frame)

    def add(self, person: FoundPerson) -> None:
        """Add a person."""
        n_points = len(person.points)
        self.n_points = self.n_points or n_points
        if n_points != self.n_points:
            self.other = self.other or (person.frame, n_points)
            return
        if person.box is not None:
            self._boxed.append(len(self))
            self._boxes.frombytes(person.box.tobytes())
        self._code.append(self._codes.setdefault(person.identity, len(self._codes)))
        self._frame.append(person.frame)
        self._points.frombytes(person.points.tobytes())

    def choose_identity(self, keys: Sequence[str]) -> list[str]:
        """Take the identities of the first of `keys` that anybody has, of people who were added
        with one for each key. Returns notes of what differs.
        """
        by_key = dict(zip(keys, zip(*self._codes, strict=True), strict=False))
        known = [key for key, column in by_key.items() if _has_any(key, column)]
        if not known:
            self.identify([None] * len(self))
            return [
                f"nobody has the key {quote_name(key)}" for key in keys if len(keys) == 1 and by_key
            ]
        first, *others = known
        chosen = by_key[first]
        n_by_code = np.bincount(self._code)
        notes = []
        for key in others:
            pairs = zip(chosen, by_key[key], strict=True)
            n_people = int(n_by_code[[other not in (None, one) for one, other in pairs]].sum())
            if n_people:
                people = count(n_people, "detection")
                notes.append(f"{first} is the identity: {key} differs for {people}")
        self.identify(chosen[code] for code in self._code)
        return notes

    def identify(self, identities: Iterable[Identity]) -> None:
        """Give all people, in their order, other identities."""
        codes: dict[Identity, int] = {}
        self._code = array("i", (codes.setdefault(each, len(codes)) for each in identities))
        self._codes = codes

    def points(self) -> Doubles:
        """(N, J, 3) the points of all people, to be changed in place. There can be no more people
        while it is there.
        """
        return np.asarray(self._points).reshape(len(self), self.n_points, 3)

    def finish(self) -> PeopleTable:
        """The people. There can be no more of them."""
        boxes = np.full((len(self), 2, 2), np.nan)
        boxes[np.asarray(self._boxed, np.int64)] = np.asarray(self._boxes).reshape(-1, 2, 2)
        code = np.asarray(self._code)
        return PeopleTable(np.asarray(self._frame), self.points(), code, [*self._codes], boxes)
