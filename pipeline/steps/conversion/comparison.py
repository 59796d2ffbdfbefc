"""A committed split beside its raw folder now: what is new, changed, touched, renamed or gone.
[raw -> tracks] -> features -> windows

Names, sizes and times of the raw files are compared with the cache's records; contents are read
only where sizes or times differ.

    stamp       sizes and times of a video's files, as text: equal stamps, unchanged files
    digest      hash of a video's contents and paths: it tells a changed video from a touched one
    touched     a committed video with another stamp, but the same digest
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import cache
from pipeline.accounting import VideoAccount, VideoState
from pipeline.files.raw import RawVideo, RawVideos, changes, texts_of
from pipeline.steps.conversion.keep import Loss, unusable
from pipeline.steps.conversion.listing import renamed_videos
from pipeline.steps.conversion_record import CORRECTIONS, ConversionRecord
from pipeline.steps.recipe import Recipe


class ReadReason(StrEnum):
    """Why a video is read."""

    NEW = "new"
    CHANGED = "changed"
    RENAMED = "renamed"
    # rejected for a passing reason, or to be retried; or an earlier reader made its rows
    UNREADABLE = "unreadable"
    CORRECTED = "other corrections"
    OTHER_READER = "another reader"


class Comparison(NamedTuple):
    """What differs between a committed split and its raw folder."""

    digests: Mapping[str, str]  # of the committed videos
    losses: Mapping[str, Loss]  # of committed videos that keep their rows and are not read
    reasons: Mapping[str, ReadReason]  # why each video is read, by its name
    n_not_compared: int  # others with other sizes or times: contents are not read
    touched: Sequence[str]
    renamed: Mapping[str, str]  # new name -> old name
    removed: Collection[str]  # committed ones that are gone, not renamed, and whose rows may go


def compare(
    recipe: Recipe,
    committed: cache.Split,
    listed: Sequence[RawVideo],
    stamps: Mapping[str, changes.Stamp],
    seen: Mapping[str, changes.LastReading],
    *,
    differs: bool,
    reads_contents: bool,
) -> Comparison:
    """Compare a committed split with all videos of the raw folder, whose stamps are given.

    seen: as recorded at the last commit. differs: whether another reader reads all videos.
    reads_contents: whether digests of restamped and new videos are computed; without, none is
    touched, changed or renamed.
    """
    raw = recipe.raw
    record = ConversionRecord(committed)
    before = record.digests(seen)
    losses = _find_losses(recipe, committed, before, stamps, seen, differs=differs)
    # those that miss a file are compared, too: at the commit, it may have been missing
    skipped = unusable(losses)
    restamped = set()
    for name, digest in before.items():  # in one pass: a set of all names would take memory
        if name in stamps and name not in skipped:
            if recorded_stamp(seen.get(name), digest) != stamps[name]:
                restamped.add(name)
    digests = {}
    # Another reader reads all videos again anyway. Then contents only matter in a moved folder, to
    # tell whether it has the same videos.
    if reads_contents and (record.has_moved(raw) or not differs):
        videos = find_videos(listed, restamped)
        digests = {video.name: changes.video_digest(raw, video) for video in videos}
    same = {name for name, digest in digests.items() if digest == before[name]}
    for name in same & losses.keys():
        del losses[name]
    unreadable = record.names_to_retry(retry=recipe.retry) | record.earlier_reader
    reasons = dict.fromkeys(digests.keys() - same, ReadReason.CHANGED)
    reasons |= dict.fromkeys(_find_corrected(committed, listed), ReadReason.CORRECTED)
    reasons |= dict.fromkeys(unreadable, ReadReason.UNREADABLE)
    reasons |= {name: ReadReason.NEW for name in stamps if name not in before}
    reasons = {name: why for name, why in reasons.items() if name in stamps and name not in losses}
    gone = {name: digest for name, digest in before.items() if name not in stamps}
    renamed = {}
    if reads_contents and gone:
        renamed = renamed_videos(committed, raw, gone, find_videos(listed, reasons), digests)
    reasons |= dict.fromkeys(renamed, ReadReason.RENAMED)
    for name in renamed.values():
        losses.pop(name, None)
    return Comparison(
        before,
        losses,
        reasons,
        0 if reads_contents else len(restamped - losses.keys()),
        touched=sorted(same - reasons.keys()),
        renamed=renamed,
        removed=gone.keys() - losses.keys() - {*renamed.values()},
    )


def find_videos(listed: Sequence[RawVideo], names: Collection[str]) -> list[RawVideo]:
    """The listed videos with these names. The others, which may be half a million, are not made."""
    if not names:
        return []
    texts = enumerate(texts_of(listed))
    return [listed[number] for number, video in texts if video.name in names]


def recorded_stamp(seen: changes.LastReading | None, digest: str | None) -> changes.Stamp | None:
    """The recorded stamp of a video whose committed content has this digest; None: not known."""
    return None if seen is None or seen.digest != digest else seen.stamp


def _find_losses(
    recipe: Recipe,
    committed: cache.Split,
    names: Iterable[str],
    stamps: Mapping[str, changes.Stamp],
    seen: Mapping[str, changes.LastReading],
    *,
    differs: bool,
) -> dict[str, Loss]:
    """What committed videos would lose, by what is known without reading them: they are missing, or
    have the files that gave fewer rows when they were last read.

    Where the earlier stamp of a video is not known, all of its files are taken to have been there.
    names: of the committed videos.
    """
    losses: dict[str, Loss] = {}
    if recipe.drop_removed:
        return losses
    others = recipe.others
    for number, name in enumerate(names):
        current = stamps.get(name)
        last = seen.get(name, changes.NEVER_SEEN)
        lost_file = ""
        if current is not None and current != last.stamp:
            lost_file = changes.lost_input(last.stamp, current)
        known = None
        if current == last.stamp and not (recipe.retry or differs):
            known = last.loss
        if current is not None and not lost_file and known is None:
            continue
        video = committed.videos[number]
        before = VideoAccount.from_dict(video.account)
        # of a video that is listed, reading it decides
        n_moved = others.count_rows(video, last.digest, is_listed=current is not None)
        if n_moved >= before.read:
            continue
        if known is not None:
            losses[name] = Loss(*known)
        elif current is None and n_moved:
            losses[name] = Loss(before.kept, n_moved, VideoState.OTHER_SPLIT)
        elif before.kept:
            losses[name] = Loss.from_missing(before, lost_file)
    return losses


def _find_corrected(committed: cache.Split, videos: Iterable[RawVideo]) -> set[str]:
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
