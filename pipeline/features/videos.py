"""Which videos have rows in some shards, and which of them are lost.  [pixels] -> crops -> features

A video is *lost* if it is missing, cannot be read now, or has changed since it was converted
(`inputs.VideoLost`). Before an extraction, `find_lost` finds such videos, and `computable_shards`
the shards with rows of other videos. Videos and shards are named by their numbers in the split.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from cache import Split
from pipeline.conversion import committed
from pipeline.errors import PipelineError
from pipeline.features.inputs import Pixels, VideoLost, pixels, raw_folder


def videos_of(split: Split, shards: Sequence[int]) -> list[int]:
    """Numbers of the videos with rows in these shards, ascending."""
    size = split.rows_per_shard
    tracks = split.tracks  # sorted by row, and disjoint
    videos = set[int]()
    for shard in shards:
        first = np.searchsorted(tracks.stop, shard * size, side="right")
        last = np.searchsorted(tracks.start, (shard + 1) * size)
        videos.update(tracks.video[first:last].tolist())
    return sorted(videos)


def find_lost(
    pixels_of: Callable[[int], Pixels],
    videos: Iterable[int],
    check: Callable[[Pixels], None] = Pixels.require_place,
) -> dict[int, str]:
    """Those of the videos that are lost -> why.

    check: raises VideoLost. By default, it finds missing videos alone; `Pixels.check` finds changed
    and unreadable ones, too, and takes longer.
    """
    lost = {}
    for video in videos:
        try:
            check(pixels_of(video))
        except VideoLost as error:
            lost[video] = str(error)
    return lost


def computable_shards(split: Split, lost: Collection[int], shards: Sequence[int]) -> list[int]:
    """Those of the shards that have rows of videos that are not lost."""
    return [shard for shard in shards if not set(videos_of(split, [shard])).issubset(lost)]


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
        drop = committed.drop_command(split, folder)
        raise PipelineError(
            f"{split.name}: {len(lost)} of {len(videos)} videos are missing from {folder}, "
            f"first {split.videos[number].name}: {why}. Restore them (is the disk mounted?), "
            f"or delete their rows: {drop}"
        )
