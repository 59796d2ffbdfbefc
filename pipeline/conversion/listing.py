"""The videos that a raw folder has of a split, each under a name of its own.  [raw] -> tracks

Only folders and label files are listed, by the dataset's own code (`Dataset.videos`). A name that
is not UTF-8 is escaped, since tables of the cache hold text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cache
from pipeline.cli.text import command
from pipeline.conversion.committed import no_videos, refuse_missing_folder
from pipeline.datasets.base import Dataset
from pipeline.errors import RawDataError
from pipeline.files.raw import RawVideo, changes


def list_videos(
    committed: cache.Split | None, dataset: Dataset, split: str, raw: Path
) -> tuple[RawVideo, ...]:
    """The split's raw videos, each with a name that tables can hold and no other video has.

    committed: the split in the cache; None if it is not there yet. Raises PipelineError if it has
    videos and the folder has none; RawDataError if the folder is not the dataset's.
    """
    refuse_missing_folder(raw, committed)
    had_videos = committed is not None and len(committed.videos) > 0
    videos: Sequence[RawVideo] = ()
    try:
        videos = dataset.videos(raw, split)
    except RawDataError as error:
        if raw.name == dataset.name:  # doctor needs the folder that holds <dataset>/
            error.args = (
                f"{error} More: {command('doctor', dataset.name, '--raw', str(raw.parent))}",
            )
        if not had_videos:
            raise
    if committed is not None and had_videos and not videos:
        raise no_videos(raw, committed)
    return tuple(_escape_names(videos))


def _escape_names(videos: Sequence[RawVideo]) -> list[RawVideo]:
    """Escape names that are not UTF-8. An escaped name that another video has gets a "?"."""
    taken = {video.name for video in videos}
    named = []
    for video in videos:
        name = changes.utf8(video.name)
        if name == video.name:
            named.append(video)
            continue
        while name in taken:
            name += "?"
        taken.add(name)
        named.append(replace(video, name=name))
    return named
