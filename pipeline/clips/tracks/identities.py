"""Find identities that are places in a list, not people.  raw -> [tracks] -> features -> windows

Some tools number the people of a frame, by score or from left to right, where others track them.
Then an identity jumps from person to person, farther than people move from one frame to the next,
in the image and also relative to the others of the frame, who move alike with the camera.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.clips.labels.detections import Detections
from pipeline.people.boxes import extents
from pipeline.people.skeletons import Doubles

LONGEST_S: Final = 0.101  # longer steps from a frame to the next one are not counted
SHORT_S: Final = 0.041  # up to this, a step may be JUMP long, else JUMP_LATER
JUMP: Final = 0.35  # diagonals of the person's box
JUMP_LATER: Final = 0.7
MOST_JUMPS: Final = 0.02  # share of the steps
MIN_STEPS: Final = 100  # with fewer, identities are used as they are
UNCHECKED: Final = (
    "the file's identities, of which too few steps can be checked (without them, people are linked)"
)


def used_identities(detections: Detections, seconds: Doubles, account: VideoAccount) -> Detections:
    """Return the detections, without identities if these are places in a list, which a note says.

    If there are too few steps to tell, that is an assumption in the account. seconds: (T,) times of
    the frames.
    """
    identity = detections.identity
    if identity is None or max(map(len, identity), default=0) < 2:
        return detections
    n_steps = 0
    n_jumps = 0
    for t in np.flatnonzero(np.diff(seconds) < LONGEST_S).tolist():
        _, before, after = np.intersect1d(identity[t], identity[t + 1], return_indices=True)
        if len(before) < 2:
            continue
        old = detections.keypoints[t][before]
        new = detections.keypoints[t + 1][after]
        is_shared = (old[..., 2:] > 0) & (new[..., 2:] > 0)
        n_shared = np.maximum(is_shared.sum(axis=1), 1)
        way = ((new - old)[..., :2] * is_shared).sum(axis=1) / n_shared  # (P, 2) px
        size = np.linalg.norm(np.diff(extents(new)[0], axis=1)[:, 0], axis=-1)
        relative = way - np.median(way, axis=0)
        jump = JUMP if seconds[t + 1] - seconds[t] <= SHORT_S else JUMP_LATER
        length = np.linalg.norm([way, relative], axis=-1).min(axis=0)
        n_steps += len(way)
        n_jumps += int((length > jump * size).sum())
    if n_steps < MIN_STEPS:
        account.assume(UNCHECKED)
    elif n_jumps > MOST_JUMPS * n_steps:
        problem = f"they are places in a list ({n_jumps:,} jumps in {n_steps:,} steps)"
        account.note(f"identities are not used: {problem}. People are linked")
        return replace(detections, identity=None, names=())
    return detections
