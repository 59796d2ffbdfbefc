"""Whether a committed video that was read again keeps what the cache has of it: the last four lines
of `pipeline.conversion.kept`, which ask what was read.  [raw -> tracks]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cache
from pipeline.accounting import NOT_NOW, UNSETTLED, VideoAccount
from pipeline.cli.text import count
from pipeline.clips.files import read_detection
from pipeline.clips.labels import labels_of
from pipeline.conversion.committed import OTHER_SPLIT
from pipeline.conversion.kept import AS_BEFORE, MISSING, UNUSABLE, Kept
from pipeline.conversion.plan import ConversionPlan
from pipeline.conversion.reading import ReadVideo
from pipeline.files.pixels.sources import file_part
from pipeline.files.raw import RawVideo


def why_kept(
    plan: ConversionPlan, raw_video: RawVideo, video: ReadVideo, committed: cache.VideoEntry
) -> Kept | None:
    """Why the cache keeps what it has of a committed video, instead of `video`, which was read now.
    None if it does not.
    """
    account = video.account_with_images
    has_same_content = committed.fingerprint == video.fingerprint
    if account.set_aside == NOT_NOW:
        return Kept(NOT_NOW, account.rejection, account)
    is_settled = has_same_content and account.set_aside not in UNSETTLED
    if account.read >= VideoAccount.from_dict(committed.account).read:
        is_rejected_again = has_same_content and account.set_aside and not plan.differs
        if is_rejected_again and VideoAccount.from_dict(committed.account) == account:
            return Kept(AS_BEFORE, account.rejection, account)
        return None
    if plan.drop_removed or (plan.differs and is_settled):
        return None
    if not account.set_aside and _is_detected_again(plan, raw_video, video, committed):
        return None
    return Kept(UNUSABLE, _describe_loss(account, committed), account)


def why_renamed_kept(name: str, now: VideoAccount, before: Mapping[str, Any]) -> Kept | None:
    """Why a renamed video keeps the rows under its old name: it has none under its new `name`, such
    as a clip that was renamed without its keypoint file. None if it does not.

    now, before: the accounts under the new and the old name.
    """
    if now.tracks_kept or not before["tracks_kept"]:
        return None
    why = f": {now.set_aside}" if now.set_aside else ""
    return Kept(MISSING, f"rows under its new name {name}{why}")


def _is_detected_again(
    plan: ConversionPlan, raw_video: RawVideo, video: ReadVideo, committed: cache.VideoEntry
) -> bool:
    """Whether `detect` has written other keypoints for the same clip: by the user's settings."""
    if file_part(video.pixels.pixels) != file_part(committed.pixels):
        return False
    labels = labels_of(plan.raw, raw_video)
    return labels is not None and read_detection(labels) is not None


def _describe_loss(account: VideoAccount, committed: cache.VideoEntry) -> str:
    """Why a video has fewer rows than the commit, by the account of what was read now."""
    if account.set_aside:
        return account.rejection
    reasons = [f"{n:,} {reason}" for reason, n in account.dropped.items()]
    if account.other_split:
        reasons = [OTHER_SPLIT]
    before = committed.account
    frames_text = f"{account.found:,} frames labelled, {before['found']:,} before"
    rows_text = f"{account.kept:,} of {count(before['kept'], 'row')} left"
    return f"{account.name}: {rows_text} ({', '.join([frames_text, *reasons])})."
