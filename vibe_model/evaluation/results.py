"""Where a model is good and where it is not: results by track and the worst windows.  training -> [evaluation]

Both are for a person who wants to look at the pictures: they name the split, the track, and the source's own frames.
"""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from vibe_model import runs
from vibe_model.evaluation.frame_errors import Means, TrackErrors
from vibe_model.evaluation.measures import ERRORS, SEQUENCES, WORST_WINDOWS
from vibe_model.evaluation.predictions import TrackEstimate
from vibe_model.evaluation.smoothing import stretches
from vibe_model.evaluation.windows import cover

if TYPE_CHECKING:
    from cache import Split

KEPT_WINDOWS: Final = 100  # of a split
UNITS: Final = {
    "pa_mpjpe, mpjpe, pve": "mm",
    "accel, accel_error": "mm per frame^2",
    "pck, auc, pck_2d": "%",
    "first_frame, last_frame": "the source's own frames, counted from 0, the last one included",
    "first_row, last_row": "rows of the split in the cache, the last one included",
    "frames": "with 3D labels that count",
    "frames_2d": "with 2D labels that count",
}
_PLACE: Final = ("split", "track", "video", "first_frame", "last_frame", "first_row", "last_row")
_COUNTS: Final = ("frames_predicted", "frames", "frames_2d")
COLUMNS: Final = (*_PLACE, *ERRORS, *_COUNTS, "stand_in")  # of both CSV files; sequences have `predictions` too

Row = dict[str, Any]


@dataclass(slots=True)
class SplitResults:
    """Collects one split's tracks. Memory: a row a track, and KEPT_WINDOWS windows."""

    name: str  # of the split
    split: Split
    seqlen: int  # frames of a window
    sequences: list[Row] = field(default_factory=list)
    _worst: list[tuple[float, int, Row]] = field(default_factory=list)  # a heap, the least bad window first

    def add(self, estimate: TrackEstimate, errors: TrackErrors, **facts: Any) -> None:
        """Take in one track; `facts` stand in its row as they are."""
        if not len(estimate.rows):
            return
        frames = self._frames_of(estimate)
        self.sequences.append({**self._row(estimate, errors, frames, slice(0, len(frames))), **facts})
        for part in _windows(estimate.run, self.seqlen):
            row = self._row(estimate, errors, frames, part)
            if (badness := _badness(row)) is not None:
                # Rows are unlike each other, so that two of equal badness compare by them, never by their contents.
                self._keep((badness, -row["first_row"], row))

    def worst(self) -> list[Row]:
        """The worst windows: largest PA-MPJPE first, without 3D labels smallest 2D PCK; of equals the earlier one."""
        return [row for _, _, row in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)]

    def _keep(self, entry: tuple[float, int, Row]) -> None:
        if len(self._worst) < KEPT_WINDOWS:
            heapq.heappush(self._worst, entry)
        else:
            heapq.heappushpop(self._worst, entry)

    def _frames_of(self, estimate: TrackEstimate) -> NDArray[np.int64]:
        whole = [(estimate.track.start, estimate.track.stop)]
        read = self.split.read(np.array(whole, np.int64), stream=None, fields=("frame_index",))["frame_index"]
        frames: NDArray[np.int64] = read[0, estimate.rows - estimate.track.start].astype(np.int64)
        return frames

    def _row(self, estimate: TrackEstimate, errors: TrackErrors, frames: NDArray[np.int64], part: slice) -> Row:
        means = Means().add(errors, part)
        rows = estimate.rows[part]
        return {
            "split": self.name,
            "track": estimate.track.name,
            "video": estimate.track.video,
            "first_frame": int(frames[part][0]),
            "last_frame": int(frames[part][-1]),
            "first_row": int(rows[0]),
            "last_row": int(rows[-1]),
            **means.of(),
            "frames_predicted": means.predicted,
            "frames": means.counted,
            "frames_2d": means.counted_2d,
        }


def write(folder: Path, results: Sequence[SplitResults], *, stand_in: bool, about: Mapping[str, Any]) -> list[Path]:
    """sequences and worst_windows, as JSON and as CSV, each exchanged atomically. Returns the four paths.

    `about` stands in the JSON as it is. Every row says whether it is of stand-in data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        SEQUENCES: [row for split in results for row in split.sequences],
        WORST_WINDOWS: [row for split in results for row in split.worst()],
    }
    written = []
    for name, rows in tables.items():
        said = [{**row, "stand_in": stand_in} for row in rows]
        columns = (*COLUMNS, "predictions") if any("predictions" in row for row in rows) else COLUMNS
        as_json, as_csv = folder / f"{name}.json", folder / f"{name}.csv"
        runs.write_json(as_json, {**about, "stand_in": stand_in, "units": UNITS, name: said})
        runs.replace_file(as_csv, partial(_write, to_csv(said, columns).encode()))
        written += [as_json, as_csv]
    return written


def to_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """A line of names, then the rows; what a row lacks is left empty, errors have two decimals."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows([_cell(row.get(name, "")) for name in columns] for row in rows)
    return text.getvalue()


def _write(content: bytes, stream: IO[bytes]) -> None:
    stream.write(content)


def _cell(value: Any) -> Any:
    return f"{value:.2f}" if isinstance(value, float) else value


def _badness(row: Row) -> float | None:
    if "pa_mpjpe" in row:
        return float(row["pa_mpjpe"])
    return -float(row["pck_2d"]) if "pck_2d" in row else None


def _windows(run: NDArray[np.int64], seqlen: int) -> list[slice]:
    """Windows of `seqlen` within stretches of equal run number; a stretch's last one is moved back to end with it.

    >>> _windows(np.array([0, 0, 0, 1]), 2)
    [slice(0, 2, None), slice(1, 3, None), slice(3, 4, None)]
    """
    covered = (cover(start, stop, seqlen) for start, stop in stretches(run))
    return [slice(window.start, window.stop) for windows in covered for window in windows]
