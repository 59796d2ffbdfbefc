"""Rows of committed videos that the raw files do not give now.  [raw -> tracks]

Files that were lost, cut off or damaged in part look like corrected ones, and a disk that is not
mounted looks like deleted videos. So the cache keeps these rows until the files are restored, or
until the user lets them go. A `Loss` says what one video would lose. The plan finds those that it
knows without reading a video (`comparison`), the conversion those of the videos that it reads:

    the video                                               rows are kept, but not for
    has not all of its files, or fewer rows by a new name   drop_removed, moved
    has the files that gave fewer rows when last read       drop_removed, moved, retry, other reader
    is rejected for a reason of PASSING                     never
    has fewer rows, or fewer with an image                  drop_removed, moved, user, settled

    moved       another split of the dataset has as many rows of it
    user        `detect` has found people again in the committed images, by the user's settings; or
                the content is the same, and other lines correct it
    settled     another reader drops, of the same content, what the old one accepted, for a reason
                that is not in UNSETTLED. These rows are counted

The next plan reads again what another reader keeps (EARLIER_READER), but for unchanged files that
gave fewer rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

import cache
from cache.format.layout import HAS_VALUE, UNDECODABLE
from cache.windows import intersect
from pipeline.accounting import PASSING, VideoAccount, VideoState, describe_dropped
from pipeline.cli.text import count


class Loss(NamedTuple):
    """What a committed video would lose."""

    before: int  # rows in the cache
    now: int  # rows that its files give, without those whose image is lost
    why: str
    file: str | None = None  # the missing one, "" for all of them; None: none is missing

    @classmethod
    def from_missing(cls, before: VideoAccount, file: str) -> Self:
        """The loss of a video without this file; "": all of them."""
        return cls(before.kept, 0, f"without {file}" if file else "missing", file)

    @classmethod
    def from_reading(
        cls,
        before: VideoAccount,
        now: VideoAccount,
        lost: Mapping[str, int],
        n_lost_before: float,
    ) -> Self | None:
        """The loss of a video that was read; None: it loses nothing, and could be read.

        before, now: its accounts. lost: if its images have changed, why rows have no image now ->
        their number. n_lost_before: their number before; infinite: unknown.
        """
        n_lost = sum(lost.values())
        fewer = before.read - now.read
        if now.set_aside not in PASSING and max(fewer, fewer + n_lost - n_lost_before) <= 0:
            return None
        reasons = describe_dropped(now.dropped + Counter(lost))
        labelled = f"{now.found:,} frames labelled, {before.found:,} before"
        why = ", ".join(filter(None, [labelled, reasons]))
        if now.other_split:
            why = VideoState.OTHER_SPLIT
        elif now.set_aside:
            why = now.rejection.removeprefix(f"{now.name}: ").removesuffix(".")
        return cls(before.kept, now.kept - n_lost, why)

    @property
    def may_have_moved(self) -> bool:
        """Whether another split may list the video, which is to be converted then."""
        return self.file == "" or self.why == VideoState.OTHER_SPLIT

    def __str__(self) -> str:
        return f"{self.now:,} of {count(self.before, 'row')} left ({self.why})."


def missing(losses: Mapping[str, Loss]) -> dict[str, str]:
    """The missing videos -> the missing file; "": all of them."""
    return {name: loss.file for name, loss in sorted(losses.items()) if loss.file is not None}


def unusable(losses: Mapping[str, Loss]) -> dict[str, str]:
    """The videos whose files give fewer rows -> a sentence on what they would lose."""
    return {name: f"{name}: {loss}" for name, loss in sorted(losses.items()) if loss.file is None}


def as_json(losses: Mapping[str, Loss]) -> dict[str, Any]:
    """JSON values; docs/terminal.md describes the keys."""
    would_lose = {}
    for name, loss in sorted(losses.items()):
        would_lose[name] = {"before": loss.before, "now": loss.now, "why": loss.why}
    return {"would_lose": would_lose, "missing": missing(losses), "unusable": unusable(losses)}


def count_undecodable(split: cache.Split, video: str) -> float:
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
