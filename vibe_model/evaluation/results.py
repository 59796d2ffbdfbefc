"""Results by track, and the worst windows.  training -> [evaluation]"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vibe_model import runs
from vibe_model.evaluation.frame_errors import Means, TrackErrors
from vibe_model.evaluation.protocols import table_metrics
from vibe_model.prediction.predict import TrackBodies, segments
from vibe_model.prediction.windows import cover

KEPT_WINDOWS: Final = 100  # per split
UNITS: Final = {
    "first_frame, last_frame": "the source's own frames, counted from 0, the last one included",
    "first_row, last_row": "rows of the split in the cache, the last one included",
    "frames": "with 3D labels that count",
    "frames_2d": "with 2D labels that count",
}
PLACE: Final = ("split", "track", "video", "first_frame", "last_frame", "first_row", "last_row")
COUNTS: Final = ("frames_predicted", "frames", "frames_2d")

Row = dict[str, Any]


@dataclass(slots=True)
class SplitResults:
    """Results of one split: a row per track, and KEPT_WINDOWS windows."""

    name: str  # of the split
    seqlen: int  # frames per window; 0: whole stretches
    sequences: list[Row] = field(default_factory=list)
    _worst: list[tuple[float, int, Row]] = field(default_factory=list)  # a heap, the least bad window first

    def add(self, bodies: TrackBodies, errors: TrackErrors, **facts: Any) -> None:
        """Add one track; its row also gets `facts`."""
        if not len(bodies):
            return
        self.sequences.append({**self._row(bodies, errors, slice(0, len(bodies))), **facts})
        for start, stop in segments(bodies.run):
            for window in cover(start, stop, self.seqlen or stop - start):
                row = self._row(bodies, errors, slice(window.start, window.stop))
                if "pa_mpjpe" in row or "pck_2d" in row:
                    badness = row["pa_mpjpe"] if "pa_mpjpe" in row else -row["pck_2d"]
                    # First rows differ: rows themselves are never compared.
                    heapq.heappush(self._worst, (float(badness), -row["first_row"], row))
                    if len(self._worst) > KEPT_WINDOWS:
                        heapq.heappop(self._worst)

    def worst(self) -> list[Row]:
        """The worst windows first: largest PA-MPJPE (without 3D labels, smallest 2D PCK); of equals the earlier one."""
        return [row for _, _, row in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)]

    def _row(self, bodies: TrackBodies, errors: TrackErrors, part: slice) -> Row:
        means, frames, rows = Means().add(errors, part), bodies.frame_index[part], bodies.rows[part]
        return {
            "split": self.name,
            "track": bodies.track.name,
            "video": bodies.track.video,
            "first_frame": int(frames[0]),
            "last_frame": int(frames[-1]),
            "first_row": int(rows[0]),
            "last_row": int(rows[-1]),
            **means.by_error(),
            "frames_predicted": means.predicted,
            "frames": means.counted,
            "frames_2d": means.counted_2d,
        }


def write(folder: Path, results: Sequence[SplitResults], *, stand_in: bool, about: Mapping[str, Any]) -> None:
    """Write sequences and worst_windows as JSON, with the facts `about`, and as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        runs.SEQUENCES: [row for split in results for row in split.sequences],
        runs.WORST_WINDOWS: [row for split in results for row in split.worst()],
    }
    for name, table_rows in tables.items():
        rows = [{**row, "stand_in": stand_in} for row in table_rows]
        measured = table_metrics(rows)
        predictions = ("predictions",) if any("predictions" in row for row in rows) else ()
        columns = (*PLACE, *measured, *COUNTS, "stand_in", *predictions)
        units = {**{metric: measured[metric].unit for metric in measured}, **UNITS}
        runs.write_json(folder / f"{name}.json", {**about, "stand_in": stand_in, "units": units, name: rows})
        cells = ((row.get(column, "") for column in columns) for row in rows)  # errors with two decimals
        lines = ([f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row] for row in cells)
        runs.write_text(folder / f"{name}.csv", runs.csv_text([columns, *lines]))
