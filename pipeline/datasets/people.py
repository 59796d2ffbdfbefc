"""People in a detector's results: who is who over time, their boxes, what is kept.  [raw -> tracks] -> features

For Kinetics and for a user's own video alike. The files are read by `pipeline.formats.labels.detections`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.boxes import smooth_boxes
from pipeline.formats.labels.detections import Detections
from pipeline.linking import MAX_GAP, link
from pipeline.skeletons import convert, joint_names, without_non_finite

MIN_CONFIDENCE: Final = 0.3
MIN_VISIBLE: Final = 6  # joints
BOX_FACTOR: Final = 1.1


class Person(NamedTuple):
    """The kept frames of one person, T of them."""

    name: str  # the detector's identity, or a number by order of appearance
    frame_index: NDArray[np.int64]  # (T,)
    bbox: NDArray[np.float32]  # (T, 4)
    kp_2d: NDArray[np.float32]  # (T, 49, 3)


def people(detections: Detections, account: VideoAccount, min_frames: int) -> Iterator[Person]:
    """Everybody of whom `min_frames` frames are left; all others are counted as dropped in `account`."""
    detections = _with_confidence(detections, account)
    for name, members in _identified(detections, account):
        frame_index = detections.frame_index[members[:, 0]]
        kp_2d = np.stack([detections.keypoints[t][p] for t, p in members])
        dense = frame_index - frame_index[0]  # boxes are smoothed over time, missing frames included
        over_time = np.zeros((dense[-1] + 1, *kp_2d.shape[1:]))
        over_time[dense] = kp_2d
        boxes, first, stop = smooth_boxes(over_time, threshold=MIN_CONFIDENCE)
        kept = account.drop_rows(
            {
                "no_box": (dense < first) | (dense >= stop),
                "too_few_visible_joints": (kp_2d[..., 2] > 0).sum(axis=1) < MIN_VISIBLE,
            }
        )
        if kept.sum() < min_frames:
            account.drop_track("track_too_short", int(kept.sum()))
            continue
        account.keep_track(int(kept.sum()))
        bbox = boxes[dense[kept] - first] * np.array([1, 1, BOX_FACTOR, BOX_FACTOR], np.float32)
        in_spin49 = convert(kp_2d[kept], source=detections.skeleton, target="spin49").astype(np.float32)
        yield Person(name, frame_index[kept], bbox, in_spin49)


def confident(detections: Detections) -> NDArray[np.float64]:
    """(N, J, 3) all persons of all frames; the score of joints that do not count is 0."""
    persons, _ = without_non_finite(np.concatenate([*detections.keypoints, np.empty((0, *_shape(detections)))]))
    persons[persons[..., 2] < MIN_CONFIDENCE] = 0
    return persons


def _shape(detections: Detections) -> tuple[int, int]:
    return len(joint_names(detections.skeleton)), 3


def _with_confidence(detections: Detections, account: VideoAccount) -> Detections:
    """Scores become confidences (0 under 0.3, at most 1); persons without a visible joint are dropped."""
    if not detections.keypoints:
        return detections
    everyone, n_bad = without_non_finite(np.concatenate(detections.keypoints))
    if n_bad:
        account.notes.append(f"{n_bad} joints are not finite: not used")
    score = everyone[..., 2]
    everyone[..., 2] = np.where(score < MIN_CONFIDENCE, 0, np.minimum(score, 1))
    visible = account.drop_rows({"no_visible_joint": ~(everyone[..., 2] > 0).any(axis=1)})
    stops = np.cumsum([len(persons) for persons in detections.keypoints])[:-1]
    seen = np.split(visible, stops)
    keypoints = [persons[kept] for persons, kept in zip(np.split(everyone, stops), seen, strict=True)]
    if detections.identity is None:
        return replace(detections, keypoints=keypoints)
    identity = [numbers[kept] for numbers, kept in zip(detections.identity, seen, strict=True)]
    return replace(detections, keypoints=keypoints, identity=identity)


def _identified(detections: Detections, account: VideoAccount) -> list[tuple[str, NDArray[np.int64]]]:
    """Name and (n, 2) rows (t, p) of every person, by the detector's identities or by linking."""
    if detections.identity is None:
        return [(str(k), rows) for k, rows in enumerate(link(detections.keypoints, detections.frame_index))]
    members: dict[int, dict[int, int]] = {}  # identity -> t -> p
    for t, identities in enumerate(detections.identity):
        confidence = detections.keypoints[t][..., 2].sum(axis=1)
        for p in np.argsort(-confidence, kind="stable"):
            seen = members.setdefault(int(identities[p]), {})
            if t in seen:  # two persons of a frame have the same identity: it belongs to the one of higher confidence
                account.drop("duplicate_person", 1)
            else:
                seen[t] = int(p)
    named = []
    for identity in sorted(members):
        rows = np.array(sorted(members[identity].items()), np.int64)
        gaps = np.flatnonzero(np.diff(detections.frame_index[rows[:, 0]]) > MAX_GAP + 1) + 1
        for k, segment in enumerate(np.split(rows, gaps)):
            named.append((f"{identity}" if k == 0 else f"{identity}-{k}", segment))
    return named
