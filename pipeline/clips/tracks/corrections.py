"""Cut and join people, and exchange their sides, by hand.  raw -> [tracks] -> features -> windows

`CorrectedPeople.correct` does the lines of `files.raw.corrections`. A line names a person before
corrections, or a part that a cut has made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.files.raw.corrections import CUT, EXCHANGE, JOIN, Correction
from pipeline.people.boxes import tight_boxes
from pipeline.people.checked_people import CORNERS
from pipeline.people.hands import exchange_hands
from pipeline.people.skeletons import Array, Doubles, Ints, Skeleton, opposite_joints
from pipeline.people.track import free_name

MOST_COMMON_S: Final = 0.2  # in which both of two people who are joined have rows
NOBODY: Final = ""


@dataclass(slots=True)
class CorrectedPeople:
    """The people of a clip with N detections: whose each is, or NOBODY's."""

    joints: Doubles  # (N, J, 3); left and right are exchanged in place
    hands: Doubles  # (N, 42, 3) or (N, 0, 3), likewise
    skeleton: Skeleton  # the order of the joints
    frames: Ints  # (N,)
    before: Array  # (N,) names before corrections
    now: Array  # (N,) names

    @property
    def people(self) -> dict[str, Ints]:
        """Name -> rows (n,), by time."""
        rows_of: dict[str, list[int]] = {}
        for row, name in enumerate(self.now.tolist()):
            rows_of.setdefault(name, []).append(row)
        rows_of.pop(NOBODY, None)
        return {name: np.array(rows) for name, rows in rows_of.items()}

    def stretches(self, rows: Ints) -> list[list[str | int]]:
        """Whose rows (n,) were before corrections: name, first and last frame of each stretch."""
        if not len(rows):  # all frames of a part are dropped
            return []
        names = self.before[rows]
        starts = np.flatnonzero(names[1:] != names[:-1]) + 1
        stretches = []
        for part in np.split(rows, starts):
            name = self.before[part[0]]
            first, last = self.frames[part[[0, -1]]].tolist()
            stretches.append([name, first, last])
        return stretches

    def correct(self, lines: Iterable[Correction], account: VideoAccount, fps: float) -> None:
        """Cut people by frames, exchange their sides, then join them; record in the account where
        those of each line are.

        Raises RawDataError for a line that does not fit the people.
        """
        joins = []
        for line in sorted(lines, key=lambda line: (line.verb, line.frames)):
            found = [self._find(line, number) for number in range(len(line.names))]
            middles = [rows[len(rows) // 2] for rows in found]
            account.corrections[line.text] = [*map(self._place, middles)]
            if line.verb == JOIN:
                joins.append((line, found))
            else:
                self._cut_or_exchange(line, found[0])
        for line, found in joins:
            account.drop("duplicate_person", self._join(line, found, fps))

    def _find(self, line: Correction, number: int) -> Ints:
        """Rows of one of a line's people; of JOIN, of a part of the person."""
        name = line.people[number]
        rows = np.flatnonzero(self.before == name)
        if not len(rows):
            rows = np.flatnonzero(self.now == name)
        if not len(rows):
            people = ", ".join(self.people)
            raise line.misfit(f"one of the people {people}", name)
        if line.places:
            at = rows[self.frames[rows] == line.places[number][0]]
            line.check_place(number, [*map(self._place, at)])
            name = self.now[at[0]]
        if line.verb == JOIN:
            rows = np.flatnonzero(self.now == name)
        return rows

    def _place(self, row: int) -> list[float]:
        """Frame of a detection, and centre and side (px) of the box around its joints."""
        box, *_ = tight_boxes(self.joints[[row]])
        frame = int(self.frames[row])
        return [frame, *box[0, :3].tolist()]

    def _cut_or_exchange(self, line: Correction, rows: Ints) -> None:
        frames = self.frames[rows]
        first, last = line.frames
        start, stop = np.searchsorted(frames, [first, last + 1])
        if line.verb == CUT and 0 < start < len(rows):
            after = rows[start:]
            part = after[self.now[after] == self.now[after[0]]]
            name = free_name(line.people[0], "-", 1, {*self.now})
            self.now[part] = name
        elif line.verb == EXCHANGE and start < stop and self.skeleton != CORNERS:
            rows = rows[start:stop]
            opposite = opposite_joints(self.skeleton)
            self.joints[rows] = self.joints[rows][:, opposite]
            exchange_hands(self.hands, rows)
        else:
            has = f"with joints in {frames[0]} to {frames[-1]}, which is cut after the first"
            raise line.misfit(f"frames of {line.names[0]}, {has}", line.text)

    def _join(self, line: Correction, found: Sequence[Ints], fps: float) -> int:
        """Join two people. Returns in how many frames one of two rows is dropped."""
        # of a part that another line has joined, too, this is the name of the whole
        into, joined = (max(self.now[rows]) for rows in found)
        is_either = (self.now == into) | (self.now == joined)
        rows = np.flatnonzero(is_either)
        n_seen = (self.joints[rows, :, 2] > 0).sum(axis=1)
        best_first = np.lexsort((-n_seen, self.frames[rows]))
        rows = rows[best_first]
        is_second = np.diff(self.frames[rows], prepend=-1) == 0
        n_common = int(is_second.sum())
        if into == joined or n_common > MOST_COMMON_S * fps:
            most = f"two people who have at most {MOST_COMMON_S} s in common"
            raise line.misfit(most, f"{n_common} frames of both")
        self.now[rows] = into
        self.now[rows[is_second]] = NOBODY
        return n_common
