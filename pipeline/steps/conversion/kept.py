"""Why committed videos keep rows that their raw files do not give now.  [raw -> tracks]

Files that were lost, cut off or damaged in part look like corrected ones, and a disk that is not
mounted looks like deleted videos. So rows stay until their files are restored, or until the user
lets them go. One record says so of a split: `kept`, a mapping of videos to `Kept`. The first line
that holds decides; lines 1 and 2 without reading the video (`find_kept`), the others by what was
read of it now (`why_kept`, and `why_renamed_kept` for the last one):

    the raw folder has now                                      kept as     not if
    no file of the video, or not all of its files               MISSING     drop
    the files that were UNUSABLE when they were last read       UNUSABLE    drop, retry, reader
    files that cannot be read at the moment                     NOT_NOW
    other tracks than the list of `leave_out` names             NOT_NOW
    the content of the commit, which is rejected as it was      AS_BEFORE   reader
    files of which fewer rows are read than the cache has       UNUSABLE    drop, detected, settled
    a renamed video, of which no row is read                    MISSING     drop

    In lines 1, 2 and 5, nor if another split of the dataset has taken the video
    (`listing.OtherSplits`).

    drop        the user lets rows of missing and unusable videos go: `drop_removed`
    retry       the user has rejected and unusable videos read again
    reader      another reader reads all videos again. What it keeps, the next plan reads again
                (EARLIER_READER)
    detected    `detect` has found people again, by the user's settings
    settled     another reader drops, of the same content, what the old one accepted, for a reason
                that is not in UNSETTLED
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import cache
from cache.format.layout import UNDECODABLE
from cache.windows import intersect
from pipeline.accounting import (
    NOT_NOW,
    PASSING,
    UNSETTLED,
    VideoAccount,
    VideoState,
    describe_dropped,
)
from pipeline.cli.text import count
from pipeline.clips.files import read_detection
from pipeline.files.pixels.sources import file_part
from pipeline.files.raw import changes
from pipeline.steps.conversion.listing import OtherSplits
from pipeline.steps.conversion.selection import may_be_same, place_of, refuse_line

MISSING: Final = "missing"
UNUSABLE: Final = "unusable"
AS_BEFORE: Final = "rejected as before"
NEVER_SEEN: Final = (None, "", "")  # the fields of `changes.Seen`


class Kept(NamedTuple):
    """Why the cache keeps what it has of a committed video."""

    kind: str  # MISSING, UNUSABLE, NOT_NOW or AS_BEFORE
    why: str  # MISSING: the file that is gone, "" for all of them; else a sentence
    account: VideoAccount | None = None  # of what was read now; None: the video was not read


def reasons_of_kind(kept: Mapping[str, Kept], kind: str) -> dict[str, str]:
    """The videos of one kind -> why they are kept."""
    return {name: video.why for name, video in sorted(kept.items()) if video.kind == kind}


def find_kept(
    split: cache.Split, stamps: Mapping[str, changes.Stamp], seen: Mapping[str, changes.Seen]
) -> dict[str, Kept]:
    """The videos with rows that are missing, or as unusable as when they were last read.

    stamps: of all videos that the raw folder has now, by name. seen: `changes.read_stamps`. Where
    the earlier stamp of a video is not known, all of its files are taken to have been there.
    """
    kept = {}
    for name in split.videos.names:
        current = stamps.get(name)
        stamp, _, unusable = seen.get(name, NEVER_SEEN)
        if current is None:
            kept[name] = Kept(MISSING, "")
        elif stamp != current:
            file = changes.lost_input(stamp, current)
            if file:
                kept[name] = Kept(MISSING, file)
        elif unusable:
            kept[name] = Kept(UNUSABLE, unusable)
    if not kept:  # no look at the tracks, of which there may be millions
        return kept
    names = split.videos.names
    with_rows = {names[number] for number in np.unique(split.tracks.video).tolist()}
    return {name: why for name, why in kept.items() if name in with_rows}


def why_kept(
    committed: cache.VideoEntry,
    current: cache.VideoEntry,
    account: VideoAccount,
    labels: Path | None,
    others: OtherSplits,
    *,
    drop_removed: bool,
    is_other_reader: bool,
) -> Kept | None:
    """Why the cache keeps what it has of a committed video that was read again. None if it does
    not: it takes what was read.

    current, account: what was read now. Rows without an image count as dropped, if they are more
    than before (`n_undecodable`). labels: the video's labels now. others: the dataset's other
    splits. is_other_reader: whether the commit is by another reader.
    """
    if account.set_aside in PASSING:
        return Kept(NOT_NOW, account.rejection, account)
    before = VideoAccount.from_dict(committed.account)
    has_same_content = committed.fingerprint == current.fingerprint
    if account.read >= before.read:
        is_rejected_again = has_same_content and account.set_aside and not is_other_reader
        if is_rejected_again and account == before:
            return Kept(AS_BEFORE, account.rejection, account)
        return None
    is_settled = is_other_reader and has_same_content and account.set_aside not in UNSETTLED
    if drop_removed or is_settled:
        return None
    if account.other_split and current.fingerprint in others.digests:
        return None
    is_same_clip = file_part(current.pixels) == file_part(committed.pixels)
    has_other_images = current.pixels and not is_same_clip
    if has_other_images and others.took(committed, is_listed=True):
        return None  # its files have moved there, and others have taken their place
    if is_same_clip and not account.set_aside and labels is not None and read_detection(labels):
        return None  # `detect` has written other keypoints: by the user's settings
    return Kept(UNUSABLE, _describe_loss(account, before), account)


def refuse_other_tracks(
    split: cache.Split, committed: cache.VideoEntry, account: VideoAccount
) -> None:
    """Reject a committed video that was read again, if a track that the user leaves out is of
    somebody else than the commit's track of that name.
    """
    places = dict(committed.account.get("left_out", {}))
    if account.left_out.keys() - places.keys():
        for number in np.flatnonzero(split.tracks.video == split.videos.names.index(account.name)):
            track = split.tracks[int(number)]
            columns = {name: split.rows(name, track.start, track.stop) for name in split.columns}
            places[track.name] = place_of(columns)
    for name, place in account.left_out.items():
        before = places.get(name)
        if place and before and not may_be_same(place, before):
            refuse_line(account, name, "another track than at the last conversion")
            return


def n_undecodable(split: cache.Split, video: str) -> float:
    """The most rows of a committed video that a stream could not compute; infinite without any."""
    rows = split.tables.track_rows[split.tracks.video == split.videos.names.index(video)]
    if not split.streams:
        return math.inf
    numbers = [0]
    for name in split.streams:
        with contextlib.suppress(cache.CacheError):  # it is damaged, so the rows stay
            undecodable = split.open_stream(name).rows_with_flag(UNDECODABLE)
            numbers.append(int(np.diff(intersect(rows, undecodable)).sum()))
    return max(numbers)


def why_renamed_kept(name: str, account: VideoAccount, before: VideoAccount) -> Kept | None:
    """Why a renamed video keeps the rows under its old name: it has none under its new `name`, such
    as a clip that was renamed without its keypoint file. None if it does not.

    account, before: those under the new and the old name.
    """
    if account.tracks_kept or not before.tracks_kept:
        return None
    why = f": {account.set_aside}" if account.set_aside else ""
    return Kept(MISSING, f"rows under its new name {name}{why}")


def _describe_loss(account: VideoAccount, before: VideoAccount) -> str:
    """Why a video has fewer rows than the commit, by the account of what was read now."""
    if account.set_aside:
        return account.rejection
    reasons = describe_dropped(account.dropped)
    if account.other_split:
        reasons = VideoState.OTHER_SPLIT
    frames_text = f"{account.found:,} frames labelled, {before.found:,} before"
    rows_text = f"{account.kept:,} of {count(before.kept, 'row')} left"
    return f"{account.name}: {rows_text} ({', '.join(filter(None, [frames_text, reasons]))})."
