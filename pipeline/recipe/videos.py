"""Each video of a split as a line of a table: what was kept of it, and its worst grades."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cache
from pipeline.cli.console import printable
from pipeline.cli.text import error_text
from pipeline.conversion import committed
from pipeline.files.pixels import sources
from pipeline.grades import Grade, track_grade


def videos_csv(splits: Sequence[cache.Split], problems: list[str]) -> str:
    """A header, and a line for each video: found = kept + dropped by reason, in person-frames; its
    worst grades. Adds a problem for each split whose rows cannot be read.
    """
    reasons = set()
    for split in splits:
        frames = split.manifest.get("accounting", {}).get("frames", {})
        reasons |= {*frames.get("dropped", {})}
    columns = sorted(reasons)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    counts = ("tracks", "found", "kept")
    writer.writerow(
        map(
            printable,
            ("split", "video", "state", "reason", *counts, *columns, *Grade._fields, "message"),
        )
    )
    for split in splits:
        harmless = committed.harmless_of(split)
        grades = _worst_grades(split, problems)
        for number, video in enumerate(split.videos):
            state, why, message = committed.video_state(video.account, harmless)
            if state == committed.OTHER_SPLIT:
                continue
            cells = [split.name, video.name, state, why]
            cells += _frame_counts(video.account, columns)
            for grade in grades.get(number, Grade()):
                cells.append("" if math.isnan(grade) else f"{round(grade, 3):g}")
            writer.writerow(map(printable, (*cells, message)))
    return text.getvalue()


def _frame_counts(account: Mapping[str, Any], reasons: Sequence[str]) -> list[str]:
    """Cells: tracks, frames found and kept, and those dropped by reason; empty if unknown."""
    counts = [account.get(key, "") for key in ("tracks_kept", "found", "kept")]
    for name in reasons:
        counts.append(account["dropped"].get(name, 0) if "dropped" in account else "")
    return [*map(str, counts)]


def _worst_grades(split: cache.Split, problems: list[str]) -> dict[int, Grade]:
    """Each video's worst grades, by its number. Adds a problem for rows that cannot be read."""
    worst: dict[int, Grade] = {}
    raw = committed.recorded_raw(split)
    try:
        for track, number in zip(split.tracks, split.tracks.video.tolist(), strict=True):
            video = split.videos[number]
            source = None
            if raw and video.source:
                source = sources.parse(Path(raw), video.source)
            grade = track_grade(split, track, source, video.account.get("clip", {}))
            if number in worst:
                grade = worst[number].worse(grade)
            worst[number] = grade
    except (cache.CacheError, OSError) as error:
        problems.append(f"{split.name}: no grades: {error_text(error)}")
    return worst
