"""Why committed videos keep rows that their raw files do not give now.  [raw -> tracks]

Files that were lost, cut off or damaged in part look like corrected ones, and a disk that is not
mounted looks like deleted videos. So rows stay until their files are restored, or until the user
lets them go. One record says so of a split: `kept`, a mapping of videos to `Kept`. The first line
that holds decides; lines 1 and 2 without reading the video (`find_kept`), the others by what was
read of it now (`pipeline.conversion.staying`):

    the raw folder has now                                      kept as     not if
    no file of the video, or not all of its files               MISSING     drop
    the files that were UNUSABLE when they were last read       UNUSABLE    drop, retry, reader
    files that cannot be read at the moment                     NOT_NOW
    the content of the commit, which is rejected as it was      AS_BEFORE   reader
    files of which fewer rows are read than the cache has       UNUSABLE    drop, detected, settled
    a renamed video, of which no row is read                    MISSING     drop

    drop        the user lets rows of missing and unusable videos go: `drop_removed`
    retry       the user has rejected and unusable videos read again
    reader      another reader reads all videos again. What it keeps, the next plan reads again
                (EARLIER_READER)
    detected    `detect` has found people again, by the user's settings
    settled     another reader drops, of the same content, what the old one accepted, for a reason
                that is not in UNSETTLED
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

import cache
from pipeline.accounting import VideoAccount
from pipeline.files.raw import changes

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
    with_rows = _names_with_rows(split)
    return {name: why for name, why in kept.items() if name in with_rows}


def _names_with_rows(split: cache.Split) -> frozenset[str]:
    """Names of the committed videos that have at least one track."""
    names = split.videos.names
    return frozenset(names[number] for number in np.unique(split.tracks.video).tolist())
