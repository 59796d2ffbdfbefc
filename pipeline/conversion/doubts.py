"""Labels that may not belong to their images, though no single video shows it.  [raw -> tracks] -> features"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.conversion.plan import ConversionPlan
from pipeline.detect.clips import labels_of
from pipeline.errors import PipelineError
from pipeline.files.raw import changes
from pipeline.track import Track

FEWEST: Final = 5  # videos; fewer prove nothing
SAMPLED: Final = 64  # about so many frames of a track
LEAST_REACH: Final = 0.7  # of an image's width or height: joints of some video reach further
MOST_REACH: Final = 1.1
BEYOND: Final = 0.1  # of the videos


class Doubts:
    """Notes of one conversion: on clips with the keypoints of an earlier clip, and on the sizes of all images."""

    def __init__(self, plan: ConversionPlan, *, strict: bool) -> None:
        """Raise PipelineError for `strict` if a clip has changed and its keypoints have not."""
        self._stale, self._reaches = dict[str, str](), list[float]()
        recorded, changed = plan.recorded_stamps(), {*plan.changed}
        for video in plan.append:
            if video.name in changed and (labels := labels_of(plan.raw, video)) is not None:
                same = changes.unchanged(recorded.get(video.name), plan.stamps[video.name])
                path, clip = (changes.utf8(str(file)) for file in (labels.relative_to(plan.raw), video.files[0]))
                if path in same and clip not in same and video.name in recorded:
                    self._stale[video.name] = f"the clip has changed, and {path} has not: are these its keypoints?"
        if strict and self._stale:
            name, text = next(iter(self._stale.items()))
            do = "Replace them, or, if they belong to this clip, touch the file."
            raise PipelineError(f"{plan.name}: {name}: {text} {do} (--strict: nothing was committed)")

    def look(self, account: VideoAccount, tracks: Sequence[Track], pixels: Mapping[str, Any]) -> None:
        """Note doubts about one video in its account."""
        size = [pixels.get(side) for side in ("width", "height")]
        if account.name in self._stale and not account.set_aside:
            account.notes.insert(0, self._stale[account.name])
        keypoints = [track.kp_2d for track in tracks if track.kp_2d is not None]
        joints = [kp_2d[:: len(kp_2d) // SAMPLED + 1] for kp_2d in keypoints]
        points = [frames[frames[..., 2] > 0][:, :2] for frames in joints] if None not in size else []
        if sum(map(len, points)):
            self._reaches.append(float((np.quantile(np.concatenate(points), 0.98, axis=0) / size).max()))

    def notes(self, accounts: Iterable[VideoAccount]) -> dict[str, tuple[str, ...]]:
        """Notes of these videos, `<video>: <note>`: `doubts`, which every command shows, and other `notes`."""
        notes: dict[bool, list[str]] = {True: self._size_note(), False: []}
        for account in accounts:
            notes[account.name in self._stale] += [f"{account.name}: {note}" for note in account.notes]
        return {"doubts": (*notes[True],), "notes": (*notes[False],)}

    def _size_note(self) -> list[str]:
        reaches, of = np.array(self._reaches), f"of {len(self._reaches)} videos"
        if len(reaches) < FEWEST:
            return []
        beyond, side = reaches > MOST_REACH, "of an image's width or height"
        if reaches.max() < LEAST_REACH:
            what = f"joints {of} reach at most {reaches.max():.0%} {side}: were the images enlarged?"
        elif beyond.mean() > BEYOND:
            reach = np.median(reaches[beyond])
            what = f"joints of {beyond.sum()} {of} reach {reach:.0%} {side}: were the images made smaller?"
        else:
            return []
        return [f"all videos: {what} Compare them with `python -m pipeline show`."]
