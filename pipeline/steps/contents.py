"""Contents of a cache as text and numbers, which `status` prints in place of its own table.
[tracks, features]

    csv_table       a line for each video, with how many of its frames were kept and its worst
                    grades; or for each track, with its own
    StoredBytes     bytes on the disk
    list_digests    digests to publish; `verify --digest` compares a cache with such a list
                    (docs/digests.md)

A line of a list has a SHA-256, a split, and what the digest is of: "labels", or
"features/<stream>".
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Self

import cache
from cache.format.folders import unmounted_streams
from cache.format.layout import FEATURES, stream_of
from pipeline.accounting import VideoOutcome, VideoState
from pipeline.cli.progress import Progress
from pipeline.cli.system_errors import error_text
from pipeline.cli.text import printable
from pipeline.features.committed import is_current, is_untrained
from pipeline.grades.words import MEASURES, Grade
from pipeline.processes.software import package_version
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.grading import grades_by_video

# counts of person-frames in a video's account; unknown for a video of another program
COUNTS: Final = ("tracks_kept", "found", "kept")
PART: Final = 1 << 20  # characters of a table that are printed at once


def csv_table(
    splits: Sequence[cache.Split], problems: list[str], *, by_track: bool
) -> Iterator[str]:
    """Yield parts of a table of the splits' videos or tracks, as CSV text with a header.

    Adds a message to `problems` for each split whose rows cannot be read.
    """
    rows = _video_rows(splits, problems)
    if by_track:
        rows = _track_rows(splits, problems)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for cells in rows:
        writer.writerow(map(printable, cells))
        if text.tell() > PART:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _video_rows(splits: Sequence[cache.Split], problems: list[str]) -> Iterator[Sequence[str]]:
    """Yield the header, and the cells of each video: the counts of person-frames, where found =
    kept + dropped for each reason, and the worst grades of its tracks.
    """
    reasons = set()
    for split in splits:
        frames = ConversionRecord(split).totals.get("frames", {})
        reasons |= {*frames.get("dropped", {})}
    columns = sorted(reasons)

    yield (
        "split",
        "video",
        "state",
        "reason",
        "tracks",
        "found",
        "kept",
        *columns,
        "grade",
        "grade_reasons",
        *MEASURES,
        "message",
    )
    for split in splits:
        for number, grades in _all_videos(split, problems):
            video = split.videos[number]
            outcome = VideoOutcome.from_account(video.account)
            if outcome.state == VideoState.OTHER_SPLIT:
                continue
            cells = [split.name, video.name, outcome.state, outcome.reason]
            cells += [str(video.account.get(key, "")) for key in COUNTS]
            dropped = video.account.get("dropped")
            cells += ["" if dropped is None else str(dropped.get(name, 0)) for name in columns]
            cells += _grade_cells(Grade.worst_of(grades) if grades else None)
            yield (*cells, outcome.message)


def _all_videos(split: cache.Split, problems: list[str]) -> Iterator[tuple[int, Sequence[Grade]]]:
    """Yield the number of each video, and the grades of its tracks."""
    n_videos = 0
    for video, _, grades in _grades(split, problems):
        for without_tracks in range(n_videos, video):
            yield without_tracks, ()
        yield video, grades
        n_videos = video + 1
    for without_tracks in range(n_videos, len(split.videos)):
        yield without_tracks, ()


def _track_rows(splits: Sequence[cache.Split], problems: list[str]) -> Iterator[Sequence[str]]:
    """Yield the header, and the cells of each track with its grade."""
    yield ("split", "video", "track", "rows", "grade", "grade_reasons", *MEASURES)
    for split in splits:
        for _, tracks, grades in _grades(split, problems):
            for number, grade in zip(tracks, grades, strict=True):
                track = split.tracks[number]
                cells = [split.name, track.video, track.name, str(track.stop - track.start)]
                yield (*cells, *_grade_cells(grade))


def _grade_cells(grade: Grade | None) -> list[str]:
    """The cells of a grade: its word, its reasons, and each measure; empty if unknown."""
    if grade is None:
        return [""] * (2 + len(MEASURES))
    cells = [grade.word or "", ", ".join(grade.reasons)]
    for number in grade.numbers:
        cells.append("" if math.isnan(number) else f"{round(number, 3):g}")
    return cells


def _grades(
    split: cache.Split, problems: list[str]
) -> Iterator[tuple[int, Sequence[int], Sequence[Grade]]]:
    """Yield as `grades_by_video` does. Adds a message to `problems`, and ends, if rows cannot be
    read.
    """
    try:
        yield from grades_by_video(split)
    except (cache.CacheError, OSError) as error:
        problems.append(f"{split.name}: no grades: {error_text(error)}")


class StoredBytes(NamedTuple):
    """Stored bytes of a split."""

    columns: int
    streams: Mapping[str, int]  # by name
    tables: int  # all other files
    files: int  # number of all files
    # time of the newest commit of "columns" and of each stream; None if lost
    commits: Mapping[str, str | None]

    @classmethod
    def from_split(cls, split: cache.Split) -> Self:
        columns = 0
        streams = dict.fromkeys(split.streams, 0)
        tables = 0
        sizes = split.store.file_sizes(split.name)
        for key, n_bytes in sizes.items():
            # shards lie at COLUMN/c/... and at features/ARRAY/c/...
            top, *names = key.removeprefix(f"{split.name}/").split("/")
            stream = stream_of(names[0]) if names[1:2] == ["c"] else None
            if top in split.columns and names[:1] == ["c"]:
                columns += n_bytes
            elif top == FEATURES and stream in streams:
                streams[stream] += n_bytes
            else:
                tables += n_bytes
        commits = {"columns": split.provenance.get("finished")}
        for name in split.streams:
            commits[name] = split.open_stream(name).provenance.get("finished")
        return cls(columns, streams, tables, len(sizes), commits)


def list_digests(
    opened: cache.FeatureCache, names: Sequence[str], problems: list[str], progress: Progress
) -> Iterator[str]:
    """Yield the lines of a list for the labels and streams of these splits. Adds a message to
    `problems` for each that cannot be read.
    """
    yield f"# {package_version()}"
    contents: list[tuple[cache.Split, str | None]] = []
    for name in names:
        try:
            split = opened[name]
            contents.append((split, None))
            contents += [(split, stream) for stream in split.streams]
            problems += unmounted_streams(opened.store, name).values()
        except (cache.CacheError, OSError) as error:
            problems.append(error_text(error))
    for number, (split, stream) in enumerate(contents):
        content = "labels"
        if stream is not None:
            content = f"{FEATURES}/{stream}"
        progress(number, len(contents), f"{split.name} {content}")
        try:
            notes = []  # what a reader of the list has to know
            if stream is None and ConversionRecord(split).is_stand_in:
                notes.append("demo data")
            if stream is not None and is_untrained(split, stream):
                notes.append("untrained")
            if stream is not None and not is_current(split, stream):
                notes.append("rows missing")
            line = f"{cache.content_digest(split, stream)}  {split.name}  {content}"
            yield f"{line}  # {', '.join(notes)}" if notes else line
        except (cache.CacheError, OSError) as error:
            problems.append(f"{split.name}: no digest of {content}: {error_text(error)}")
