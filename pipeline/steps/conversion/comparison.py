"""A committed split beside its raw folder now: what is new, changed, touched, renamed or gone.
[raw -> tracks] -> features -> windows

Names, sizes and times of the raw files are compared with the cache's records; contents are read
only where sizes or times differ.

    stamp       sizes and times of a video's files, as text: equal stamps, unchanged files
    digest      hash of a video's contents and paths: it tells a changed video from a touched one
    touched     a committed video with another stamp, but the same digest
    kept        why committed videos keep rows that their files do not give now
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cache
from pipeline.accounting import LEFT_OUT
from pipeline.datasets.conversion_record import ConversionRecord
from pipeline.files.raw import RawVideo, changes
from pipeline.steps.conversion.kept import (
    MISSING,
    NEVER_SEEN,
    UNUSABLE,
    Kept,
    find_kept,
    reasons_of_kind,
)
from pipeline.steps.conversion.listing import OtherSplits, renamed_videos


class ByStamps(NamedTuple):
    """What sizes and times of files tell about the committed videos."""

    seen: Mapping[str, changes.Seen]  # as recorded at the last commit
    recorded: Mapping[str, changes.Stamp]  # recorded stamps of those with their committed content
    kept: Mapping[str, Kept]  # those that stay, if none turns out to be touched or renamed
    restamped: Sequence[RawVideo]  # usable ones, with other sizes or times
    unreadable: set[str]  # to read again: they could not be read, or an earlier reader read them
    reselected: set[str]  # to read again: the user leaves out other tracks

    @classmethod
    def compare(
        cls,
        committed: cache.Split,
        listed: Sequence[RawVideo],
        stamps: Mapping[str, changes.Stamp],
        others: OtherSplits,
        *,
        drop_removed: bool,
        retry: bool,
    ) -> ByStamps:
        """Compare a committed split with all videos of the raw folder, whose stamps are given.

        others: the dataset's other splits; videos that they took do not stay. drop_removed: the
        user lets the rows of missing and unusable videos go. retry: rejected and unusable videos
        are read again.
        """
        seen = changes.read_stamps(committed.root, committed.name)
        kept = {} if drop_removed else find_kept(committed, stamps, seen)
        names = committed.videos.names if kept else []
        for number, name in enumerate(names):
            if name in kept:  # no look at every video, of which there may be 400,000
                # of a video that is listed, reading it decides
                _, digest, _ = seen.get(name, NEVER_SEEN)
                if others.took(committed.videos[number], digest, is_listed=name in stamps):
                    del kept[name]
        if retry:
            kept = {name: video for name, video in kept.items() if video.kind == MISSING}
        usable = stamps.keys() - reasons_of_kind(kept, UNUSABLE).keys()
        record = ConversionRecord(committed)
        recorded = record.stamps(seen)
        compared = record.digests().keys() & usable
        restamped = [
            video
            for video in listed
            if video.name in compared and recorded.get(video.name) != stamps[video.name]
        ]
        unreadable = record.names_to_retry(retry=retry) | (record.earlier_reader & usable)
        reselected = _with_other_tracks(committed, listed) & usable
        return cls(seen, recorded, kept, restamped, unreadable, reselected)


def _with_other_tracks(committed: cache.Split, videos: Iterable[RawVideo]) -> set[str]:
    """Names of the committed videos of which other tracks were left out than the list has now."""
    marked = {video.name: sorted(video.left_out) for video in videos if video.left_out}
    dropped = committed.manifest["accounting"]["tracks"]["dropped"]
    if not marked and LEFT_OUT not in dropped:
        return set()  # no look at every video, of which there may be 400,000
    return {
        video.name
        for video in committed.videos
        if sorted(video.account.get("left_out", ())) != marked.get(video.name, [])
    }


class ByContents(NamedTuple):
    """What the contents of files tell about the listed and the committed videos."""

    coming: Sequence[RawVideo]  # not committed under this name
    new: Sequence[RawVideo]  # those of them that are not renamed
    changed: Sequence[RawVideo]  # committed ones to read again, of which no file is missing
    touched: Sequence[str]
    renamed: Mapping[str, str]  # new name -> old name
    removed: set[str]  # committed ones that are gone and do not stay
    kept: Mapping[str, Kept]  # those that stay

    @classmethod
    def compare(
        cls,
        committed: cache.Split,
        raw: Path,
        listed: Sequence[RawVideo],
        by_stamps: ByStamps,
        digests: Mapping[str, str],
        *,
        find_renamed: bool,
    ) -> ByContents:
        """Compare a committed split with all videos of the raw folder.

        digests: of restamped videos, as they are now; those without one are neither touched nor
        changed. find_renamed: compute the digests of new videos, if committed ones are gone.
        """
        before = ConversionRecord(committed).digests()
        same = {name for name, digest in digests.items() if digest == before[name]}
        asked = by_stamps.unreadable | by_stamps.reselected
        again = (digests.keys() - same) | asked
        coming = [video for video in listed if video.name not in before]
        changed = [video for video in listed if video.name in again]
        present = {video.name for video in listed}
        gone = {name: digest for name, digest in before.items() if name not in present}
        renamed = {}
        if find_renamed:
            renamed = renamed_videos(committed, raw, gone, [*coming, *changed], digests)
        found = same.union(renamed.values())
        kept = {name: video for name, video in by_stamps.kept.items() if name not in found}
        return cls(
            coming=coming,
            new=[video for video in coming if video.name not in renamed],
            changed=[video for video in changed if video.name not in kept],
            touched=[name for name in digests if name in same - asked],
            renamed=renamed,
            removed=gone.keys() - kept.keys(),
            kept=kept,
        )
