"""Grades of a split's tracks: stored after its commits, read, and computed where they are not
stored.  [tracks]

What is stored are numbers (`pipeline.grades.stored`): words and limits are applied when they are
read. Writers call `announce_grades` before a commit of the split, or of the stream whose joints are
graded, and `store_grades` after it. A run that is killed in between has outdated grades to finish.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

import cache
from cache.format.place import Place
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.features.committed import MissingRows
from pipeline.files.pixels import sources
from pipeline.grades import BLAZE_JOINTS, stored, unpack_numbers, video_grades
from pipeline.grades.stored import StoredGrades
from pipeline.grades.words import Grade
from pipeline.steps.conversion_record import ConversionRecord

WRITE_EVERY: Final = 30.0  # s: a kill costs no more of the work


def announce_grades(root: cache.Root, name: str, stream: str | None = None) -> None:
    """Before a commit of a split, or of one of its streams: let the next run notice if this one is
    killed before `store_grades`.
    """
    if stream in (None, BLAZE_JOINTS):
        stored.announce(root, name)


def store_grades(
    root: cache.Root,
    name: str,
    stream: str | None = None,
    *,
    packed: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> None:
    """After a commit of a split, or of one of its streams: store the numbers of its grades. Does
    nothing while another process writes the split, which will do it.

    packed: those of new videos, by name (`video_numbers`). Others that are missing are computed.
    """
    if stream not in (None, BLAZE_JOINTS):
        return
    place = Place(cache.store_at(root), name)
    try:
        lock = place.store.lock(place.writing)
    except cache.Busy:
        return
    with lock:
        split = cache.FeatureCache(place.store)[name]
        grades = StoredGrades(split)
        if not grades.is_current:
            _complete(grades, split, packed or {}, progress)
            grades.write(is_complete=True)


def _complete(
    grades: StoredGrades, split: cache.Split, packed: Mapping[str, str], progress: Progress
) -> None:
    """Find the numbers of all tracks. On the way, write those that are found."""
    names = split.videos.names
    written = time.monotonic()
    for video, tracks in _tracks_by_video(split):
        if grades.is_known[tracks].all():
            continue
        numbers = unpack_numbers(packed.get(names[video], ""))
        if len(numbers) != len(tracks):
            progress(tracks[0], len(split.tracks), "grades")
            try:
                numbers = np.array([grade.numbers for grade in _compute(split, video, tracks)])
            except Exception:  # noqa: S112  it costs no row, and `status --csv` says why
                continue
        grades.numbers[tracks] = numbers
        grades.is_known[tracks] = True
        if time.monotonic() - written > WRITE_EVERY:
            grades.write(is_complete=False)
            written = time.monotonic()


def copy_grades(source: cache.Split, copied: cache.Split) -> None:
    """Store the current grades of a split for its copy, unless it lacks joints that are graded."""
    grades = StoredGrades(source)
    of_copy = StoredGrades(copied)
    if not grades.is_current or of_copy.is_current:
        return
    if _count_missing(source) != _count_missing(copied):
        return
    numbers = {name: number for number, name in enumerate(source.tracks.names)}
    in_source = [numbers[name] for name in copied.tracks.names]
    of_copy.numbers = grades.numbers[in_source]
    of_copy.is_known = grades.is_known[in_source]
    with copied.store.lock(copied.place(None).writing):
        of_copy.write(is_complete=True)


def _count_missing(split: cache.Split) -> int:
    """Number of rows without joints that are graded."""
    stream = BLAZE_JOINTS if BLAZE_JOINTS in split.streams else None
    return MissingRows.find(split, stream).rows


def grades_by_video(split: cache.Split) -> Iterator[tuple[int, list[int], list[Grade]]]:
    """Yield the number of each video with tracks, the numbers of its tracks, and their grades.

    Raises CacheError and OSError if rows whose grades are not stored cannot be read.
    """
    grades = StoredGrades(split)
    for video, tracks in _tracks_by_video(split):
        if grades.is_known[tracks].all():
            names = split.tables.texts("track_name", np.array(tracks))
            numbers = grades.numbers[tracks].tolist()
            yield video, tracks, [Grade(*of_track).name_other(names) for of_track in numbers]
        else:
            yield video, tracks, _compute(split, video, tracks)


def _tracks_by_video(split: cache.Split) -> Iterator[tuple[int, list[int]]]:
    """Yield the number of each video with tracks, and the numbers of its tracks."""
    videos = split.tracks.video.tolist()  # the tracks of a video follow one another
    for video, tracks in itertools.groupby(range(len(videos)), key=videos.__getitem__):
        yield video, list(tracks)


def _compute(split: cache.Split, video: int, tracks: Sequence[int]) -> list[Grade]:
    """Grade the tracks of a video by their rows."""
    raw = ConversionRecord(split).raw
    location = split.videos[video].source
    source = None
    if raw is not None and location:
        source = sources.parse(raw, location)
    return [*video_grades(split, tracks, source).values()]


def stored_words(split: cache.Split) -> dict[str, int] | None:
    """How many tracks are good, doubtful, bad and unknown; None if their grades are not stored."""
    grades = StoredGrades(split)
    return stored.count_words(grades.numbers) if grades.is_current else None


def describe_words(words: Mapping[str, int] | None) -> str:
    """A line about a split's tracks.

    >>> describe_words({"good": 2, "doubtful": 1, "bad": 0, "unknown": 0})
    '3 tracks: 2 good, 1 doubtful'
    """
    if words is None:
        return "grades not stored yet"
    by_word = ", ".join(f"{n:,} {word}" for word, n in words.items() if n)
    return f"{count(sum(words.values()), 'track')}: {by_word or 'none'}"
