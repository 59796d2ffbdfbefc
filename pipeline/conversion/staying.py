"""Which committed videos keep the rows that the cache has of them, after they were read again.
[raw -> tracks]

Files that were lost, cut off or damaged in part look like corrected ones. So a video that would
lose rows keeps them, until its files are restored or the user lets the rows go.
"""

from __future__ import annotations

import cache
from pipeline.accounting import NOT_NOW, VideoAccount
from pipeline.cli.text import count
from pipeline.clips.files import MADE_BY, read_info
from pipeline.clips.labels import labels_of
from pipeline.conversion.committed import OTHER_SPLIT
from pipeline.conversion.plan import ConversionPlan
from pipeline.conversion.reading import UNSETTLED, ReadVideo
from pipeline.files.pixels.sources import file_part
from pipeline.files.raw import RawVideo


def stays(
    plan: ConversionPlan, raw_video: RawVideo, video: ReadVideo, committed: cache.VideoEntry
) -> bool:
    """Whether the cache keeps what it has of a committed video, instead of what was read now.

    The first row that holds decides:

        what was read now                           same reader   another reader (plan.differs)
        same content, rejected as before            stay          write
        not readable at the moment                  stay          stay
        no row fewer                                write         write
        the user lets rows go (drop_removed)        write         write
        people whom `detect` found again            write         write
        failure for a reason in UNSETTLED           stay          stay
        rows fewer, other content                   stay          stay
        rows fewer, same content                    stay          write

    In the last row, another reader drops what the old one accepted: the new one is right. What
    stays when the reader differs is read again by every plan (EARLIER_READER).
    """
    account = video.account_with_images
    has_same_content = committed.fingerprint == video.fingerprint
    if account.set_aside and has_same_content:
        if VideoAccount.from_dict(committed.account) == account:
            return not plan.differs
    if account.set_aside == NOT_NOW:
        return True
    if plan.drop_removed or not loses_rows(account, committed):
        return False
    if not account.set_aside and _is_detected_again(plan, raw_video, video, committed):
        return False
    is_settled = account.set_aside not in UNSETTLED
    return not (plan.differs and has_same_content and is_settled)


def loses_rows(account: VideoAccount, committed: cache.VideoEntry) -> bool:
    """Whether fewer rows were read now than the commit has of the video."""
    return account.kept < int(committed.account.get("kept", 0))


def _is_detected_again(
    plan: ConversionPlan, raw_video: RawVideo, video: ReadVideo, committed: cache.VideoEntry
) -> bool:
    """Whether `detect` has written other keypoints for the same clip: by the user's settings."""
    if file_part(video.pixels.pixels) != file_part(committed.pixels):
        return False
    labels = labels_of(plan.raw, raw_video)
    return labels is not None and read_info(labels).get("description") == MADE_BY


def why_kept(account: VideoAccount, committed: cache.VideoEntry) -> str:
    """Why the rows of a committed video stay, by the account of what was read now."""
    if account.set_aside:
        return account.rejection
    reasons = [f"{n:,} {reason}" for reason, n in account.dropped.items()]
    if account.other_split:
        reasons = [OTHER_SPLIT]
    before = committed.account
    found = f"{account.found:,} frames labelled, {before['found']:,} before"
    left = f"{account.kept:,} of {count(before['kept'], 'row')} left"
    return f"{account.name}: {left} ({', '.join([found, *reasons])})."
