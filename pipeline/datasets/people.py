"""People in a detector's results: who is who over time, their boxes, what is kept.  [raw -> tracks] -> features

For Kinetics and for a user's own video alike. The files are read by `pipeline.formats.labels.detections`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.boxes import smooth_boxes
from pipeline.cleaning import Cleaning, clean
from pipeline.cli.text import count
from pipeline.formats.labels.detections import Detections
from pipeline.linking import MAX_GAP, link, split_at_gaps
from pipeline.skeletons import convert, joint_names, without_non_finite

MIN_CONFIDENCE: Final = 0.3
MIN_VISIBLE: Final = 6  # joints
BOX_FACTOR: Final = 1.1


class Person(NamedTuple):
    """The kept frames of one person, T of them: fields as `Dataset.track` takes them."""

    person: str  # the detector's identity, or a number by order of appearance
    frame_index: NDArray[np.int64]  # (T,)
    bbox: NDArray[np.float32]  # (T, 4)
    kp_2d: NDArray[np.float32]  # (T, 49, 3)


def people(
    detections: Detections,
    account: VideoAccount,
    min_frames: int,
    *,
    max_gap: int = MAX_GAP,
    cuts: Sequence[int] = (),
    cleaning: Cleaning | None = None,
) -> Iterator[Person]:
    """Everybody of whom `min_frames` frames are left; all others are counted as dropped in `account`.

    A person who is missing for more than `max_gap` frames is a new one afterwards, and so is everybody at `cuts`, the
    frames that begin another scene. Frames of fewer than MIN_VISIBLE joints are dropped, or what `cleaning` drops:
    then one person may become several, `<name>`, `<name>.1`, ...
    """
    detections = _with_confidence(detections, account)
    joints = joint_names(detections.skeleton)
    for name, members in _identified(detections, account, max_gap, cuts):
        kp_2d = np.stack([detections.keypoints[t][p] for t, p in members])
        frame_index = detections.frame_index[members[:, 0]]
        if cleaning is None:
            parts = [np.arange(len(members))]
        else:
            parts, dropped = clean(kp_2d[..., 2] > 0, joints, cleaning)
            for reason, rows in dropped.items():
                account.drop(reason, len(rows))
            if not parts:
                account.drop_track(max(dropped, key=lambda reason: len(dropped[reason])), 0)
        for k, rows in enumerate(parts):
            few = np.zeros(len(rows), np.bool_) if cleaning else (kp_2d[rows, :, 2] > 0).sum(axis=1) < MIN_VISIBLE
            part = f"{name}.{k}" if k else name
            if person := _boxed(part, frame_index[rows], kp_2d[rows], few, account, min_frames):
                in_spin49 = convert(person.kp_2d, source=detections.skeleton, target="spin49").astype(np.float32)
                yield person._replace(kp_2d=in_spin49)


def _boxed(
    name: str,
    frame_index: NDArray[np.int64],
    kp_2d: NDArray[np.float64],
    few: NDArray[np.bool_],
    account: VideoAccount,
    min_frames: int,
) -> Person | None:
    """One person with smoothed boxes, `kp_2d` in the detector's joint order; None, and counted, when too short.

    few: (T,) frames that show too few joints.
    """
    dense = frame_index - frame_index[0]  # boxes are smoothed over time, missing frames included
    over_time = np.zeros((dense[-1] + 1, *kp_2d.shape[1:]))
    over_time[dense] = kp_2d
    boxes, first, stop = smooth_boxes(over_time, threshold=MIN_CONFIDENCE)
    kept = account.drop_rows({"no_box": (dense < first) | (dense >= stop), "too_few_visible_joints": few})
    if kept.sum() < min_frames:
        account.drop_track("track_too_short", int(kept.sum()))
        return None
    account.keep_track(int(kept.sum()))
    bbox = boxes[dense[kept] - first] * np.array([1, 1, BOX_FACTOR, BOX_FACTOR], np.float32)
    return Person(name, frame_index[kept], bbox, kp_2d[kept].astype(np.float32))


def with_bridges(person: Person, max_gap: int, account: VideoAccount) -> Person:
    """The person with frames in gaps of up to `max_gap` frames, as `bridged` has them; no joint is seen there."""
    every, bbox = bridged(person.frame_index, person.bbox, max_gap, account)
    kp_2d = np.zeros((len(every), *person.kp_2d.shape[1:]), np.float32)
    kp_2d[np.searchsorted(every, person.frame_index)] = person.kp_2d
    return Person(person.person, every, bbox, kp_2d)


def bridged(
    frame_index: NDArray[np.int64], bbox: NDArray[np.float32], max_gap: int, account: VideoAccount
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A person's frames and boxes without gaps of up to `max_gap` frames: there the box is interpolated.

    A detector misses a person now and then; otherwise a model would see windows cut into segments. Added frames count
    as found and kept, and are noted.
    """
    short = np.diff(frame_index) <= max_gap + 1
    between = [np.arange(a + 1, b) for a, b in zip(frame_index[:-1][short], frame_index[1:][short], strict=True)]
    added = np.concatenate([*between, np.empty(0, np.int64)]).astype(np.int64)
    if not len(added):
        return frame_index, bbox
    account.found += len(added)
    account.kept += len(added)
    account.notes.append(f"{count(len(added), 'frame')} between detections are predicted with interpolated boxes")
    every = np.sort(np.concatenate([frame_index, added]))
    return every, np.column_stack([np.interp(every, frame_index, column) for column in bbox.T]).astype(np.float32)


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


def _identified(
    detections: Detections, account: VideoAccount, max_gap: int, cuts: Sequence[int]
) -> list[tuple[str, NDArray[np.int64]]]:
    """Name and (n, 2) rows (t, p) of every person, by the detector's identities or by linking."""
    if detections.identity is None:
        linked = link(detections.keypoints, detections.frame_index, max_gap, cuts=cuts)
        return [(str(k), rows) for k, rows in enumerate(linked)]
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
        for k, segment in enumerate(split_at_gaps(detections.frame_index[rows[:, 0]], max_gap, cuts)):
            named.append((f"{identity}" if k == 0 else f"{identity}-{k}", rows[segment]))
    return named
