"""The rule by which a committed video keeps its rows.  [raw -> tracks]

Files that were lost, cut off or damaged in part look like corrected ones, and a disk that is not
mounted looks like deleted videos. So rows stay until their files are restored, or until the user
lets them go. `keep` decides. The plan asks it for what it knows without reading a video, the
conversion for the rest:

    now                                                       rows stay   but not for
    NotThere      not all files of the video are there        MISSING     drop, no rows before
    Unusable      the files are those that were unusable      UNUSABLE    drop, retry, other_reader,
                  when they were last read                                no rows before
    InOtherSplit  another split of the dataset has the rows   never
    Reading       rejected for a reason of PASSING            NOT_NOW
                  no fewer rows, nor fewer with an image      never
                  fewer                                       UNUSABLE    drop, by_user, settled

    by_user     `detect` has found people again in the committed images, by the user's settings; or
                the content is the same, and other lines correct it
    settled     another reader drops, of the same content, what the old one accepted, for a reason
                that is not in UNSETTLED. These rows are counted (`RowsNow.n_gone`)

The next plan reads again what another reader keeps (EARLIER_READER), but for unchanged files that
are UNUSABLE.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from pipeline.accounting import PASSING, UNSETTLED, VideoAccount, VideoState, describe_dropped
from pipeline.cli.text import count


class MayGo(NamedTuple):
    """What lets rows go that the raw files do not give now."""

    drop: bool = False  # the user lets rows of missing and unusable videos go
    retry: bool = False  # the user has rejected and unusable videos read again
    other_reader: bool = False  # another reader than that of the committed rows reads the video


NOTHING: Final = MayGo()


class NotThere(NamedTuple):
    """A video of which files are missing."""

    file: str  # the missing one; "": all of them


class Unusable(NamedTuple):
    """A video with the same files that could not be used when they were last read."""

    why: str
    is_of_other_split: bool


class InOtherSplit(NamedTuple):
    """A video whose rows another split of the dataset has."""


class Reading(NamedTuple):
    """A video that was read."""

    account: VideoAccount
    is_same_content: bool = False  # as at the commit
    # if its images have changed: why rows have no image now -> their number, and their number
    # before; infinite: unknown
    lost: Mapping[str, int] = {}
    n_lost_before: float = math.inf
    by_detect: bool = False  # `detect` made the labels, of the committed images

    def count_gone(self, before: VideoAccount) -> int:
        """Number of rows, or of rows with an image, that it has less than before; none: <= 0."""
        fewer = before.read - self.account.read
        return int(max(fewer, fewer + sum(self.lost.values()) - self.n_lost_before))


Now = NotThere | Unusable | InOtherSplit | Reading


class Kind(StrEnum):
    """What keeps the rows before."""

    MISSING = "missing"
    UNUSABLE = "unusable"
    NOT_NOW = "not readable now"


class RowsNow(NamedTuple):
    """The cache takes what the files give now."""

    n_gone: int = 0  # rows of the same content that another reader drops


class RowsBefore(NamedTuple):
    """The cache keeps what it has of the video."""

    kind: Kind
    why: str  # of a missing video: `NotThere.file`; else a sentence
    account: VideoAccount | None = None  # of what was read now; None: the video was not read
    may_have_moved: bool = False  # to another split, which is to be converted then


def keep(before: VideoAccount, now: Now, may_go: MayGo) -> RowsNow | RowsBefore:
    """Decide which rows of a committed video the next commit has.

    before: its committed account. now: what the raw folder has of it.
    """
    match now:
        case NotThere(file) if before.kept and not may_go.drop:
            return RowsBefore(Kind.MISSING, file, may_have_moved=not file)
        case Unusable(why, is_of_other_split) if before.read and may_go == NOTHING:
            return RowsBefore(Kind.UNUSABLE, why, may_have_moved=is_of_other_split)
        case Reading(account) if account.set_aside in PASSING:
            return RowsBefore(Kind.NOT_NOW, account.rejection, account)
        case Reading(account) if now.count_gone(before) > 0 and not may_go.drop:
            is_corrected = account.corrections.keys() != before.corrections.keys()
            by_user = now.by_detect or (now.is_same_content and is_corrected)
            if by_user and not account.set_aside:
                return RowsNow()
            is_settled = now.is_same_content and account.set_aside not in UNSETTLED
            if may_go.other_reader and is_settled:
                return RowsNow(now.count_gone(before))
            loss = _describe_loss(before, now)
            return RowsBefore(Kind.UNUSABLE, loss, account, account.other_split)
    return RowsNow()


def reasons_of_kind(kept: Mapping[str, RowsBefore], kind: Kind) -> dict[str, str]:
    """The videos of one kind -> why their rows stay."""
    return {name: stays.why for name, stays in sorted(kept.items()) if stays.kind == kind}


def _describe_loss(before: VideoAccount, now: Reading) -> str:
    """Why a video has fewer rows than the commit."""
    account = now.account
    if account.set_aside:
        return account.rejection
    reasons = describe_dropped(account.dropped + Counter(now.lost))
    if account.other_split:
        reasons = VideoState.OTHER_SPLIT
    frames_text = f"{account.found:,} frames labelled, {before.found:,} before"
    left = "left with a readable image" if now.lost else "left"
    rows_text = f"{account.kept - sum(now.lost.values()):,} of {count(before.kept, 'row')} {left}"
    return f"{account.name}: {rows_text} ({', '.join(filter(None, [frames_text, reasons]))})."
