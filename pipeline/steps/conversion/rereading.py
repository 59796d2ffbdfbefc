"""What committed videos give that are read again: the facts for `keep`.  [raw -> tracks]"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

import cache
from cache.format.layout import HAS_VALUE, UNDECODABLE
from cache.windows import intersect
from pipeline.accounting import VideoAccount
from pipeline.clips.files import read_detection
from pipeline.files.pixels.sources import file_part
from pipeline.steps.conversion.keep import InOtherSplit, Reading
from pipeline.steps.conversion.listing import OtherSplits
from pipeline.steps.conversion.reading import ReadVideo


def describe_now(
    video: ReadVideo,
    split: cache.Split,
    committed: cache.VideoEntry,
    before: VideoAccount,
    labels: Path | None,
    others: OtherSplits,
) -> Reading | InOtherSplit:
    """What the raw folder has of a committed video, for `keep`.

    video: as it was read. committed, before: its entry and account in `split`. labels: its labels.
    others: the dataset's other splits.
    """
    n_before = _count_undecodable(split, committed.name) if video.lost else math.inf
    is_same_content = video.fingerprint == committed.fingerprint
    now = Reading(video.account, is_same_content, video.lost, n_before)
    if now.count_gone(before) <= 0:
        return now  # no look at other files
    images = file_part(video.pixels.pixels)
    has_same_images = images == file_part(committed.pixels)
    has_moved = video.account.other_split and video.fingerprint in others.digests
    if images and not has_same_images:  # others may have taken the place of its files
        has_moved |= others.took(committed, is_listed=True)
    if has_moved:
        return InOtherSplit()
    is_by_detect = has_same_images and labels is not None and read_detection(labels)
    return now._replace(by_detect=bool(is_by_detect))


def _count_undecodable(split: cache.Split, video: str) -> float:
    """The most rows of a committed video that a stream could not compute; infinite if none has
    tried any.
    """
    rows = split.tables.track_rows[split.tracks.video == split.videos.names.index(video)]
    numbers = []
    for name in split.streams:
        try:
            stream = split.open_stream(name)
            if len(intersect(rows, stream.rows_with_flag(UNDECODABLE, *HAS_VALUE))):
                undecodable = intersect(rows, stream.rows_with_flag(UNDECODABLE))
                numbers.append(int(np.diff(undecodable).sum()))
        except cache.CacheError:  # it is damaged, so the rows stay
            numbers.append(0)
    return max(numbers, default=math.inf)
