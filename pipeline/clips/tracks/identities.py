"""Find identities that are places in a list, not people.  raw -> [tracks] -> features -> windows

Some tools number the people of a frame, by score or from left to right, where others track them.
Then an identity jumps from person to person, farther than people move from one frame to the next,
in the image and also relative to the others of the frame, who move alike with the camera. From left
to right, an identity is exchanged where people cross, too, without a jump: then the order is the
same in every frame, but people who are linked by their motion change it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.clips.labels.detections import Detections
from pipeline.clips.labels.people_table import ByFrame
from pipeline.clips.tracks.linking import link
from pipeline.people.boxes import extents
from pipeline.people.skeletons import Bools, Doubles

LONGEST_S: Final = 0.101  # longer steps from a frame to the next one are not counted
SHORT_S: Final = 0.041  # up to this, a step may be JUMP long, else JUMP_LATER
JUMP: Final = 0.35  # diagonals of the person's box
JUMP_LATER: Final = 0.7
MOST_JUMPS: Final = 0.02  # share of the steps
FEWEST: Final = 10  # frames with several people, of a list from left to right
ORDERED: Final = 0.9  # least share of these frames in which a list is from left to right
MIN_STEPS: Final = 100  # with fewer, identities are used as they are
UNCHECKED: Final = (
    "the file's identities, of which too few steps can be checked (without them, people are linked)"
)


def used_identities(
    detections: Detections, seconds: Doubles, account: VideoAccount, cuts: Sequence[int] = ()
) -> Detections:
    """Return the detections, without identities if these are places in a list, which a note says.

    If there are too few steps to tell, that is an assumption in the account. seconds: (T,) times of
    the frames. cuts: first frames of new scenes.
    """
    identity = detections.identity
    if identity is None or max(map(len, identity), default=0) < 2:
        return detections
    is_jump = np.concatenate([[], *_jumps(detections, identity, seconds)])
    n_steps = len(is_jump)
    n_jumps = int(is_jump.sum())
    problem = ""
    if n_steps >= MIN_STEPS and n_jumps > MOST_JUMPS * n_steps:
        problem = f"{n_jumps:,} jumps in {n_steps:,} steps"
    elif _are_from_left(detections, identity) and _do_people_exchange(
        detections, identity, seconds, cuts
    ):
        problem = "from left to right, and people cross"
    if problem:
        note = f"identities are not used: they are places in a list ({problem}). People are linked"
        account.note(note)
        return replace(detections, identity=None, names=())
    if n_steps < MIN_STEPS:
        account.assume(UNCHECKED)
    return detections


def _jumps(detections: Detections, identity: ByFrame, seconds: Doubles) -> Iterator[Bools]:
    """Yield, from each frame to the next one, whether each identity that both have jumps: (P,)."""
    for t in np.flatnonzero(np.diff(seconds) < LONGEST_S).tolist():
        _, before, after = np.intersect1d(identity[t], identity[t + 1], return_indices=True)
        if len(before) < 2:
            continue
        old = detections.keypoints[t][before]
        new = detections.keypoints[t + 1][after]
        is_shared = (old[..., 2:] > 0) & (new[..., 2:] > 0)
        n_shared = np.maximum(is_shared.sum(axis=1), 1)
        offsets = (new - old)[..., :2] * is_shared
        way = offsets.sum(axis=1) / n_shared  # (P, 2) px

        relative = way - np.median(way, axis=0)
        length = np.linalg.norm([way, relative], axis=-1).min(axis=0)
        corners, _ = extents(new)
        size = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1)
        jump = JUMP_LATER
        if seconds[t + 1] - seconds[t] <= SHORT_S:
            jump = JUMP
        yield length > jump * size


def _are_from_left(detections: Detections, identity: ByFrame) -> bool:
    """Whether the identities of each frame are the first ones, as those of a list are, and rise
    from left to right in nearly all frames with several people: by the left side of the boxes, by
    their right side, or by their middle.
    """
    first = min(of_frame.min() for of_frame in identity if len(of_frame))
    rises = []  # in each frame, by each of the three
    for persons, of_frame in zip(detections.keypoints, identity, strict=True):
        if (np.sort(of_frame) != first + np.arange(len(of_frame))).any():
            return False
        if len(persons) > 1:
            sides = extents(persons)[0][np.argsort(of_frame), :, 0]  # (P, 2) px
            places = np.column_stack([sides, sides.mean(axis=1)])
            rises.append((np.diff(places, axis=0) >= 0).all(axis=0))
    return len(rises) >= FEWEST and float(np.mean(rises, axis=0).max()) >= ORDERED


def _do_people_exchange(
    detections: Detections, identity: ByFrame, seconds: Doubles, cuts: Sequence[int]
) -> bool:
    """Whether a person, linked by motion, gets an identity that another person has, too. A person
    who is lost for a while gets a new one. seconds: of the frames.
    """
    frames = detections.frame_index
    fps = float((frames[-1] - frames[0]) / (seconds[-1] - seconds[0]))
    people = link(detections.keypoints, frames, cuts=cuts, camera=detections.camera, fps=fps)
    numbers = [{int(identity[t][p]) for t, p in person} for person in people]
    n_people = Counter(number for of_person in numbers for number in of_person)
    for of_person in numbers:
        if len(of_person) > 1 and max(n_people[number] for number in of_person) > 1:
            return True
    return False
