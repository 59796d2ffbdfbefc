"""A committed split beside its raw folder now: what is new, changed, touched, renamed or gone.
[raw -> tracks] -> features -> windows

Names, sizes and times of the raw files are compared with the cache's records; contents are read
only where sizes or times differ.

    stamp       sizes and times of a video's files, as text: equal stamps, unchanged files
    digest      hash of a video's contents and paths: it tells a changed video from a touched one
    touched     a committed video with another stamp, but the same digest
    kept        the committed videos that keep their rows, whatever their files give now
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import cache
from pipeline.accounting import VideoAccount
from pipeline.files.raw import RawVideo, RawVideos, changes, texts_of
from pipeline.steps.conversion.keep import (
    InOtherSplit,
    Kind,
    MayGo,
    NotThere,
    Now,
    RowsBefore,
    Unusable,
    keep,
    reasons_of_kind,
)
from pipeline.steps.conversion.listing import OtherSplits, renamed_videos
from pipeline.steps.conversion_record import CORRECTIONS, ConversionRecord

NEVER_SEEN: Final = changes.Seen(None, "")


class Comparison(NamedTuple):
    """What differs between a committed split and its raw folder."""

    recorded: Mapping[str, changes.Stamp]  # recorded stamps of those with their committed content
    kept: Mapping[str, RowsBefore]
    not_compared: Sequence[RawVideo]  # others with other sizes or times: contents are not read
    unreadable: set[str]  # to read again: they could not be read, or an earlier reader read them
    corrected: set[str]  # to read again: the user corrects them otherwise
    coming: Sequence[RawVideo]  # not committed under this name
    new: Sequence[RawVideo]  # those of them that are not renamed
    changed: Sequence[RawVideo]  # committed ones to read again, of which no file is missing
    touched: Sequence[str]
    renamed: Mapping[str, str]  # new name -> old name
    removed: set[str]  # committed ones that are gone and do not stay


def compare(
    committed: cache.Split,
    listed: Sequence[RawVideo],
    stamps: Mapping[str, changes.Stamp],
    seen: Mapping[str, changes.Seen],
    others: OtherSplits,
    may_go: MayGo,
    *,
    reads_contents: bool,
) -> Comparison:
    """Compare a committed split with all videos of the raw folder, whose stamps are given.

    seen: as recorded at the last commit.
    others: the dataset's other splits; videos that they took do not stay. reads_contents: whether
    digests of restamped and new videos are computed; without, none is touched, changed or renamed.
    """
    raw = others.raw
    record = ConversionRecord(committed)
    before = record.digests()
    kept = _keep_unread(committed, stamps, seen, others, may_go)
    usable = stamps.keys() - reasons_of_kind(kept, Kind.UNUSABLE).keys()
    recorded = record.stamps(seen)
    compared = before.keys() & usable
    restamped = named(listed, {name for name in compared if recorded.get(name) != stamps[name]})
    digests = {}
    # Another reader reads all videos again anyway. Then contents only matter in a moved folder, to
    # tell whether it has the same videos.
    if reads_contents and (record.has_moved(raw) or not may_go.other_reader):
        digests = {video.name: changes.video_digest(raw, video) for video in restamped}
    same = {name for name, digest in digests.items() if digest == before[name]}
    unreadable = record.names_to_retry(retry=may_go.retry) | (record.earlier_reader & usable)
    corrected = _with_other_corrections(committed, listed) & usable
    asked = unreadable | corrected
    again = (digests.keys() - same) | asked
    coming = named(listed, stamps.keys() - before.keys())
    changed = named(listed, again)
    gone = {name: digest for name, digest in before.items() if name not in stamps}
    renamed = {}
    if reads_contents:
        renamed = renamed_videos(committed, raw, gone, [*coming, *changed], digests)
    for name in same.union(renamed.values()):
        kept.pop(name, None)
    return Comparison(
        recorded,
        kept,
        [video for video in restamped if video.name not in kept and not reads_contents],
        unreadable,
        corrected,
        coming,
        new=[video for video in coming if video.name not in renamed],
        changed=[video for video in changed if video.name not in kept],
        touched=sorted(same - asked),
        renamed=renamed,
        removed=gone.keys() - kept.keys(),
    )


def named(listed: Sequence[RawVideo], names: Collection[str]) -> list[RawVideo]:
    """The listed videos with these names. The others, which may be half a million, are not made."""
    if not names:
        return []
    texts = texts_of(listed)
    return [listed[number] for number, video in enumerate(texts) if video.name in names]


def _keep_unread(
    committed: cache.Split,
    stamps: Mapping[str, changes.Stamp],
    seen: Mapping[str, changes.Seen],
    others: OtherSplits,
    may_go: MayGo,
) -> dict[str, RowsBefore]:
    """The committed videos that keep their rows by what is known without reading them: they are
    missing, or as unusable as when they were last read.

    Where the earlier stamp of a video is not known, all of its files are taken to have been there.
    """
    kept = {}
    for number, name in enumerate(committed.videos.names):
        current = stamps.get(name)
        before = seen.get(name, NEVER_SEEN)
        lost_file = ""
        if current is not None and current != before.stamp:
            lost_file = changes.lost_input(before.stamp, current)
        now: Now
        if current is None or lost_file:
            now = NotThere(lost_file)
        elif before.unusable and current == before.stamp:
            now = Unusable(before.unusable, before.is_of_other_split)
        else:
            continue
        video = committed.videos[number]
        # of a video that is listed, reading it decides
        if others.took(video, before.digest, is_listed=current is not None):
            now = InOtherSplit()
        answer = keep(VideoAccount.from_dict(video.account), now, may_go)
        if isinstance(answer, RowsBefore):
            kept[name] = answer
    return kept


def _with_other_corrections(committed: cache.Split, videos: Iterable[RawVideo]) -> set[str]:
    """Names of the committed videos that other lines have corrected than the file has now."""
    marked = {}
    if not isinstance(videos, RawVideos):
        marked = {video.name: {line.text for line in video.corrections} for video in videos}
    if not any(marked.values()) and not committed.provenance.get(CORRECTIONS):
        return set()  # no look at every video, of which there may be 400,000
    return {
        video.name
        for video in committed.videos
        if {*video.account.get("corrections", ())} != marked.get(video.name, set())
    }
