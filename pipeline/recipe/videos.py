"""List each video of a split as a line of a CSV table: how many of its frames were kept, and its
worst grades.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cache
from pipeline.cli.console import printable
from pipeline.cli.text import error_text
from pipeline.conversion import committed
from pipeline.files.pixels import sources
from pipeline.grades import Grade, video_grades


def videos_csv(splits: Sequence[cache.Split], problems: list[str]) -> str:
    """The table as CSV text: a header, and a line for each video of these splits.

    A line has the counts of person-frames, where found = kept + dropped for each reason, and the
    worst grades of the video's tracks. Adds a message to `problems` for each split whose rows
    cannot be read.
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
            (
                "split",
                "video",
                "state",
                "reason",
                *counts,
                *columns,
                "grade",
                "grade_reasons",
                *Grade._fields,
                "message",
            ),
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
            grade = grades.get(number, Grade())
            reasons_of_grade = grade.reasons if number in grades else []
            cells += [grade.word, ", ".join(reasons_of_grade)]
            for measure in grade:
                cells.append("" if math.isnan(measure) else f"{round(measure, 3):g}")
            writer.writerow(map(printable, (*cells, message)))
    return text.getvalue()


def _frame_counts(account: Mapping[str, Any], reasons: Sequence[str]) -> list[str]:
    """The cells with counts of a video: tracks, frames found, frames kept, and frames dropped for
    each of `reasons`. A cell is empty if its count is unknown.
    """
    counts = [account.get(key, "") for key in ("tracks_kept", "found", "kept")]
    for name in reasons:
        counts.append(account["dropped"].get(name, 0) if "dropped" in account else "")
    return [*map(str, counts)]


def _worst_grades(split: cache.Split, problems: list[str]) -> dict[int, Grade]:
    """The worst grades of each video, by its number. Adds a message to `problems` if rows cannot be
    read.
    """
    worst: dict[int, Grade] = {}
    raw = committed.recorded_raw(split)
    videos = split.tracks.video.tolist()  # the tracks of a video follow one another
    try:
        for video, tracks in itertools.groupby(range(len(videos)), key=videos.__getitem__):
            source = None
            if raw and split.videos[video].source:
                source = sources.parse(Path(raw), split.videos[video].source)
            by_track = video_grades(split, list(tracks), source)
            worst[video] = functools.reduce(Grade.worse, by_track.values())
    except (cache.CacheError, OSError) as error:
        problems.append(f"{split.name}: no grades: {error_text(error)}")
    return worst
