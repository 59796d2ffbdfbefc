"""The images of a split's videos, in the raw folder of its conversion.  [pixels] -> crops ->
features
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cache import Split
from pipeline.errors import PipelineError
from pipeline.features.pixels import Pixels, find_lost, videos_of
from pipeline.files.pixels import sources
from pipeline.steps.conversion_record import ConversionRecord


def pixels(split: Split, raw: Path | None) -> Callable[[int], Pixels]:
    """A function from the number of a video to its `Pixels`. Raises PipelineError if there is no
    raw folder.
    """
    folder = raw_folder(split, raw)

    def pixels_of(number: int) -> Pixels:
        entry = split.videos[number]
        source = sources.parse(folder, entry.source)
        return Pixels(source, entry.name, entry.pixels)

    return pixels_of


def raw_folder(split: Split, given: Path | None) -> Path:
    """The split's raw folder: the given one, or the one of its conversion. A split that was
    imported has none of its own, so it must be given. Raises PipelineError if there is none.
    """
    record = ConversionRecord(split)
    if record.imported is not None:
        origin = f"{split.name}: imported from {record.imported}"
        videos = np.unique(split.tracks.video).tolist()
        if not all(split.videos[number].source for number in videos):
            raise PipelineError(
                f"{origin}, which does not name its images. "
                "To extract features, convert the dataset into another cache."
            )
        if given is None:
            do = "Name the dataset's raw folder: --raw DIR, or [paths] raw in luigi.cfg."
            raise PipelineError(f"{origin}. {do}")
    return record.raw_folder(given)


def require_videos(split: Split, raw: Path | None, shards: Sequence[int]) -> None:
    """Raise PipelineError unless the files of all videos of these shards exist. To be called before
    stored features are replaced: those of a missing video could not be computed again.
    """
    pixels_of = pixels(split, raw)
    videos = videos_of(split, shards)
    lost = find_lost(pixels_of, videos)
    if lost:
        number, why = next(iter(lost.items()))
        folder = raw_folder(split, raw)
        drop = ConversionRecord(split).drop_command(folder)
        raise PipelineError(
            f"{split.name}: {len(lost)} of {len(videos)} videos are missing from {folder}, "
            f"first {split.videos[number].name}: {why}. Restore them (is the disk mounted?), "
            f"or delete their rows: {drop}"
        )
