"""Detections of a video that became no track, with the reason.  raw -> [tracks] -> page

The reader names the reasons while it reads the recorded keypoint files again, so that they are the
accounting's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

import cache
from pipeline import datasets
from pipeline.accounting import VideoAccount
from pipeline.boxes import extents
from pipeline.clips.files import EXTENSIONS
from pipeline.conversion.committed import recorded_reader
from pipeline.errors import PipelineError
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import FrameSource, Image, Video
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import caching
from pipeline.show.drawing import CAPTION_FOR, draw_label, rgb

Array = NDArray[Any]

# by reason, in the accounting's order
COLOURS: Final = ("#ff4fd8", "#ffd60a", "#30e3ca", "#ff6b6b")
FURTHEST: Final = 2.0**13  # px, largest coordinate that is drawn
MARGIN: Final = 0.1  # of a box's longer side, around joints


@dataclass(slots=True)
class DrawnAccount(VideoAccount):
    """An account that keeps dropped detections."""

    # reason, frame_index, keypoints
    detections: list[tuple[str, Array, Array]] = field(default_factory=list)

    def drop(self, reason: str, frames: int, *people: Array) -> None:
        VideoAccount.drop(self, reason, frames)
        if people and frames:
            frame_index, keypoints = people
            self.detections.append((reason, frame_index, keypoints))


class Untracked(NamedTuple):
    """N detections of a video that became no track."""

    video: str
    source: FrameSource
    dropped: Mapping[str, int]  # reason -> person-frames, as in the accounting
    frame_index: NDArray[np.int64]  # (N,)
    boxes: NDArray[np.float64]  # (N, 2, 2) upper left and lower right corner, px
    reasons: tuple[str, ...]  # of each detection

    @classmethod
    def from_account(
        cls, account: VideoAccount | None, raw: Path, video: RawVideo, spec: str
    ) -> Untracked | None:
        """The detections of an account; None if there are none. spec: the video's source in the
        cache, or "".
        """
        clips = [path for path in video.files if path.suffix.lower() in EXTENSIONS]
        if (
            not isinstance(account, DrawnAccount)
            or not account.detections
            or account.set_aside
            or not (spec or clips)
        ):
            return None
        source = sources.parse(raw, spec) if spec else Video(raw, clips[0].as_posix())
        reasons = [reason for reason, frames, _ in account.detections for _ in frames]
        frames, people = (np.concatenate([part[i] for part in account.detections]) for i in (1, 2))
        unseen = ~people[..., 2].any(axis=1)
        # a box around all places, if no joint is seen
        people[unseen, :, 2] = people[unseen, :, :2].any(axis=-1)
        low, high = np.moveaxis(extents(people)[0], 1, 0)
        # corners need none
        margin = MARGIN * (high - low).max(axis=1, keepdims=True) * (people.shape[1] > 2)
        boxes = np.stack([low - margin, high + margin], axis=1).clip(-FURTHEST, FURTHEST)
        return cls(account.name, source, dict(account.dropped), frames, boxes, tuple(reasons))

    def colour(self, reason: str) -> str:
        """#rrggbb of a reason."""
        return COLOURS[list(self.dropped).index(reason) % len(COLOURS)]

    def draw(self, image: Image, frame: int, taken: list[Array]) -> None:
        """Draw the boxes of a frame, dashed, with their reasons, in place. taken: see
        `draw_label`.
        """
        size = max(1.0, min(image.shape[:2]) / CAPTION_FOR)
        for i in np.flatnonzero(self.frame_index == frame).tolist():
            (left, top), (right, bottom) = self.boxes[i]
            colour = rgb(self.colour(self.reasons[i]))
            corners = np.array(
                [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
            )
            # px from the first one
            along = np.append(0, np.abs(np.diff(corners, axis=0)).sum(axis=1).cumsum())
            stops = np.linspace(0, along[-1], 2 * max(4, round(along[-1] / (16 * size))))
            ends = (
                np.rint([np.interp(stops, along, axis) for axis in corners.T])
                .astype(int)
                .T.tolist()
            )
            cv2.polylines(
                image,
                [np.rint(corners).astype(np.int32)],
                True,
                (0, 0, 0),
                round(3 * size),
                cv2.LINE_AA,
            )
            for first, last in zip(ends[::2], ends[1::2], strict=True):
                cv2.line(image, first, last, colour, round(2 * size), cv2.LINE_AA)
            draw_label(image, self.reasons[i], left, top - 3 * size, size, colour, taken)


def read_untracked(
    split: cache.Split, entry: cache.VideoEntry, raw: Path | None
) -> Untracked | None:
    """The untracked detections of a committed video; None if its reader has no detections, or all
    are in tracks.

    Raises PipelineError if the raw files are missing, or give another accounting than the
    conversion's.
    """
    dataset = datasets.find_installed(split.name.partition("/")[0])
    if dataset is None or dataset.keypoints_from != "detected" or dataset.uses_body:
        return None  # its labels are no detections that a reader links
    if not entry.account.get("dropped") or entry.account.get("set_aside"):
        return None
    (reader, folder, _), account = recorded_reader(split, raw, None), DrawnAccount(entry.name)
    of_split = split.name.partition("/")[2]
    video = next(
        (video for video in reader.videos(folder, of_split) if video.name == entry.name), None
    )
    if video is not None:
        with caching():
            reader.read_accounted(folder, of_split, video, None, account)
    if video is None or account.dropped != entry.account["dropped"]:
        raise PipelineError(
            f"{entry.name}: detections without a track are not drawn, because its files have "
            f"changed since conversion. Convert {split.name} again."
        )
    return Untracked.from_account(account, folder, video, entry.source)
