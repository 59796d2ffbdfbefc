"""Find identities that are places in a list, not people.  raw -> [tracks] -> features -> windows

Some tools number the people of a frame, by score or from left to right, where others track them.
Then an identity jumps from person to person. `identities_used` counts, between two detections of
one identity,

    jumps       steps that are longer than people move, relative to the other people of the frame,
                who move alike with the camera
    exchanges   pairs of identities which both have a far shorter way if they are exchanged

The limits hold for people who run, at 10 to 60 frames a second, and cameras held by hand; the
tests have the scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.boxes import extents
from pipeline.cli.text import count
from pipeline.files.formats.people.detections import Detections
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.linking import SECOND
from pipeline.skeletons import Bools, Doubles, Ints

MIN_SCORE: Final = 0.3  # of joints
LONGEST_S: Final = 0.1  # longer steps are not counted
SHORT_S: Final = 0.041  # up to this, a step may be JUMP long, else JUMP_LATER
JUMP: Final = 0.35  # diagonals of the person's box
JUMP_LATER: Final = 0.7
# way of an exchanged person / way of one who is not: people who run past each other between two
# frames have 0.5, exchanged ones less
SHORTER: Final = 0.25
MOST_JUMPS: Final = 0.02  # share of the steps
MOST_EXCHANGES: Final = 0.01
MIN_STEPS: Final = 100  # with fewer, identities are used as they are
UNCHECKED: Final = (
    "that identities in the file are those of people, in too few frames to check it (leave them "
    "out if they are places in a list, and people are linked)"
)


class _Steps(NamedTuple):
    """S steps from one detection of an identity to its next one."""

    before: Ints  # (S,) frame
    after: Ints  # (S,) frame
    place: Doubles  # (S, 2, 2) px, before and after
    way: Doubles  # (S, 2) px
    limit: Doubles  # (S,) px, of a jump


def identities_used(
    detections: Detections, record: ClipRecord, account: VideoAccount
) -> Detections:
    """Return the detections, without identities if these are places in a list; then a note says
    so.

    If there are too few steps to tell, that is an assumption in the account.
    """
    identity = detections.identity
    if identity is None or max(map(len, identity), default=0) < 2:
        return detections
    steps = _collect_steps(detections, identity, record)
    n_steps = len(steps.way)
    if n_steps < MIN_STEPS:
        account.assume(UNCHECKED)
        return detections

    n_jumps = 0
    n_exchanges = 0
    pairs = np.column_stack([steps.before, steps.after])
    order = np.lexsort(pairs.T)
    is_new = (np.diff(pairs[order], axis=0) != 0).any(axis=1)
    for rows in np.split(order, np.flatnonzero(is_new) + 1):
        n_jumps += _count_jumps(steps.way[rows], steps.limit[rows])
        n_exchanges += _count_exchanges(steps.place[rows])
    if n_jumps <= MOST_JUMPS * n_steps and n_exchanges <= MOST_EXCHANGES * n_steps:
        return detections
    actual = f"{count(n_jumps, 'jump')} and {count(n_exchanges, 'exchange')} in {n_steps:,} steps"
    account.note(
        f"identities are not used: they are places in a list ({actual}). People are linked"
    )
    return replace(detections, identity=None, names=())


def _collect_steps(detections: Detections, identity: Sequence[Ints], record: ClipRecord) -> _Steps:
    """The steps of up to LONGEST_S, from or to a frame with several people."""
    n_people = np.array([len(persons) for persons in detections.keypoints])
    frame = np.repeat(detections.frame_index, n_people)
    is_alone = np.repeat(n_people < 2, n_people)
    points = np.concatenate(detections.keypoints)
    is_shown = np.isfinite(points).all(axis=-1) & (points[..., 2] >= MIN_SCORE)
    points = np.where(is_shown[..., None], points, 0)
    fps = record.usual_fps if np.isfinite(record.usual_fps) else SECOND
    seconds = record.clock()[frame] / fps

    who = np.concatenate(identity)
    order = np.lexsort((frame, who))
    order = order[is_shown[order].any(axis=1)]
    first = order[:-1]
    second = order[1:]
    duration = seconds[second] - seconds[first]
    is_step = (who[first] == who[second]) & (duration > 0) & (duration < 1.01 * LONGEST_S)
    is_step &= ~(is_alone[first] & is_alone[second])
    is_shared = is_shown[first] & is_shown[second]
    is_step &= is_shared.any(axis=1)
    first = first[is_step]
    second = second[is_step]

    boxes, _ = extents(points)
    diagonal = np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=-1)
    jump = np.where(duration[is_step] <= SHORT_S, JUMP, JUMP_LATER)
    way = _mean(points[second] - points[first], is_shared[is_step])
    place = _mean(points, is_shown)
    return _Steps(
        frame[first],
        frame[second],
        np.stack([place[first], place[second]], axis=1),
        way,
        jump * np.maximum(diagonal[first], diagonal[second]),
    )


def _mean(points: Doubles, is_used: Bools) -> Doubles:
    """Mean x and y (N, 2) of the points (N, J, 3) that are used (N, J)."""
    n_used = np.maximum(is_used.sum(axis=1), 1)
    return np.asarray((points[..., :2] * is_used[..., None]).sum(axis=1) / n_used[:, None])


def _count_jumps(way: Doubles, limit: Doubles) -> int:
    """How many ways (P, 2) of the people of two frames are jumps, both in the image and relative to
    the median of the other people, which is the camera's.
    """
    is_jump = np.linalg.norm(way, axis=1) > limit
    if len(way) > 1 and is_jump.any():
        camera = [np.median(np.delete(way, p, axis=0), axis=0) for p in range(len(way))]
        is_jump &= np.linalg.norm(way - camera, axis=1) > limit
    return int(is_jump.sum())


def _count_exchanges(place: Doubles) -> int:
    """How many pairs of people, at places (P, 2, 2) px before and after, have far shorter ways if
    they are exchanged.
    """
    distance = np.linalg.norm(place[:, None, 0] - place[None, :, 1], axis=-1)  # (P, P)
    is_shorter = distance < SHORTER * np.diagonal(distance)[:, None]
    return int((is_shorter & is_shorter.T).sum()) // 2
