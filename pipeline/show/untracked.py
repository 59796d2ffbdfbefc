"""Detections of a video that became no track, with the reason.  raw -> [tracks] -> page

A reader counts what it drops, by reason, in a `VideoAccount`. `DrawnAccount` also keeps the dropped
detections, and `Untracked` draws them. `raw_tracks` reads a raw video with such an account; for a
video of the cache, `read_untracked` reads the recorded keypoint files again, so that the reasons
are the accounting's own.
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
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.files.pixels import sources
from pipeline.files.pixels.frames import FrameSource, Image, Video
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import caching
from pipeline.show.drawing import CAPTION_FOR, draw_label, rgb

Array = NDArray[Any]

# colours of the reasons, in the order of the accounting
COLOURS: Final = ("#ff4fd8", "#ffd60a", "#30e3ca", "#ff6b6b")
FURTHEST: Final = 2.0**13  # px, largest coordinate that is drawn
MARGIN: Final = 0.1  # of a box's longer side, around joints


class _DroppedPerson(NamedTuple):
    """Dropped detections of one person."""

    reason: str
    frame_index: Array  # (N,)
    keypoints: Array  # (N, J, 3) px, px, confidence


@dataclass
class DrawnAccount(VideoAccount):
    """An account that keeps dropped detections, to draw them."""

    detections: list[_DroppedPerson] = field(default_factory=list)

    def drop(self, reason: str, frames: int, *people: Array) -> None:
        """Count dropped person-frames, and keep them. people: of detections, their two arrays, as
        in `VideoAccount.drop`; empty for other labels.
        """
        super().drop(reason, frames)
        if people and frames:
            frame_index, keypoints = people
            self.detections.append(_DroppedPerson(reason, frame_index, keypoints))


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
        cls, account: VideoAccount, raw: Path, video: RawVideo, recorded_source: str
    ) -> Untracked | None:
        """The detections of an account; None if there are none, or it did not keep them.

        recorded_source: the video's images as the cache records them (`VideoEntry.source`), such as
        "video:clips/a.mp4"; "" for a video that is not in a cache.
        """
        if not isinstance(account, DrawnAccount):
            return None
        if account.set_aside or not account.detections:
            return None
        source = _find_source(raw, video, recorded_source)
        if source is None:
            return None
        reasons: list[str] = []
        frame_index = []
        keypoints = []
        for person in account.detections:
            reasons += [person.reason] * len(person.frame_index)
            frame_index.append(person.frame_index)
            keypoints.append(person.keypoints)
        return cls(
            video=account.name,
            source=source,
            dropped=dict(account.dropped),
            frame_index=np.concatenate(frame_index),
            boxes=_boxes(np.concatenate(keypoints)),
            reasons=tuple(reasons),
        )

    def colour(self, reason: str) -> str:
        """#rrggbb of a reason."""
        return COLOURS[list(self.dropped).index(reason) % len(COLOURS)]

    def draw(self, image: Image, frame: int, taken: list[Array]) -> None:
        """Draw the boxes of a frame, dashed, with their reasons, in place. taken: see
        `draw_label`.
        """
        size = max(1.0, min(image.shape[:2]) / CAPTION_FOR)
        for i in np.flatnonzero(self.frame_index == frame).tolist():
            reason = self.reasons[i]
            colour = rgb(self.colour(reason))
            _draw_dashed(image, self.boxes[i], colour, size)
            left, top = self.boxes[i, 0].tolist()
            draw_label(image, reason, left, top - 3 * size, size, colour, taken)


def _find_source(raw: Path, video: RawVideo, recorded_source: str) -> FrameSource | None:
    """The images of a video: the recorded ones, else its first clip; None without any."""
    if recorded_source:
        return sources.parse(raw, recorded_source)
    for path in video.files:
        if path.suffix.lower() in EXTENSIONS:
            return Video(raw, path.as_posix())
    return None


def _boxes(keypoints: Array) -> NDArray[np.float64]:
    """Boxes (N, 2, 2) around the visible joints of (N, J, 3), with a margin; of people without
    visible joints, around all joints that have a position.

    Two points (J = 2) are the corners of a box, which gets no margin.
    """
    confidence = keypoints[..., 2]
    has_visible = confidence.any(axis=1, keepdims=True)
    has_position = keypoints[..., :2].any(axis=-1)
    enclosed = keypoints.copy()
    enclosed[..., 2] = np.where(has_visible, confidence, has_position)  # `extents` takes those > 0
    corners, _ = extents(enclosed)
    are_boxes = keypoints.shape[1] == 2
    if not are_boxes:
        low, high = np.moveaxis(corners, 1, 0)
        margin = MARGIN * (high - low).max(axis=1, keepdims=True)
        corners = np.stack([low - margin, high + margin], axis=1)
    return corners.clip(-FURTHEST, FURTHEST)


def _draw_dashed(image: Image, box: Array, colour: tuple[int, int, int], size: float) -> None:
    """Draw a box (2, 2) in place: black, with dashes in its colour. size: scale of lines.

    Dashes and gaps are each about 8 px times `size`, and run around the corners of the box.
    """
    (left, top), (right, bottom) = box
    path = np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
    outline = np.rint(path).astype(np.int32)
    black = (0, 0, 0)
    cv2.polylines(image, [outline], True, black, round(3 * size), cv2.LINE_AA)

    sides = np.abs(np.diff(path, axis=0)).sum(axis=1)
    distance = np.append(0, sides.cumsum())  # (5,) px along the path, from the first corner
    length = distance[-1]
    n_dashes = max(4, round(length / (16 * size)))
    stops = np.linspace(0, length, 2 * n_dashes)  # start and end of each dash, along the path
    points = np.column_stack([np.interp(stops, distance, axis) for axis in path.T])
    dashes = np.rint(points).astype(int).reshape(n_dashes, 2, 2)
    for start, end in dashes.tolist():
        cv2.line(image, start, end, colour, round(2 * size), cv2.LINE_AA)


def read_untracked(
    split: cache.Split, entry: cache.VideoEntry, raw: Path | None
) -> Untracked | None:
    """The untracked detections of a committed video; None if its reader has no detections, or all
    are in tracks.

    Raises PipelineError if the raw files are missing, or give another accounting than the
    conversion's.
    """
    dataset_name, _, split_name = split.name.partition("/")
    dataset = datasets.find_installed(dataset_name)
    if dataset is None or dataset.keypoints_from != "detected" or dataset.uses_body:
        return None  # its labels are no detections that a reader links
    if not entry.account.get("dropped") or entry.account.get("set_aside"):
        return None
    reader, folder, _ = recorded_reader(split, raw, None)
    account = DrawnAccount(entry.name)
    video = _find_video(reader, folder, split_name, entry.name)
    if video is not None:
        with caching():
            reader.read_accounted(folder, split_name, video, None, account)
    if video is None or account.dropped != entry.account["dropped"]:
        raise PipelineError(
            f"{entry.name}: detections without a track are not drawn, because its files have "
            f"changed since conversion. Convert {split.name} again."
        )
    return Untracked.from_account(account, folder, video, entry.source)


def _find_video(reader: Dataset, folder: Path, split: str, name: str) -> RawVideo | None:
    for video in reader.videos(folder, split):
        if video.name == name:
            return video
    return None
