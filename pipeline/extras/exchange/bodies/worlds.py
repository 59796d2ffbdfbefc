"""One world for the people of a clip.  [files of other programs] -> tracks"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from pipeline.extras.exchange.bodies.matching import TrackMatch
from pipeline.people.cameras import rigid
from pipeline.people.skeletons import JOINTS, PELVIS, Doubles

HIPS: Final = [JOINTS["spin49"].index(joint) for joint in ("lhip", "rhip")]


Path = dict[int, Doubles]  # frame -> (4, 4) m, from a world to the camera


class World(NamedTuple):
    """The world of a person: all people with the same number are in one."""

    path: Path
    number: int  # from 1


def find_worlds(matches: Sequence[TrackMatch]) -> list[World | None]:
    """The world of each person; None without one.

    A tool that gives each person a world of its own gives as many paths of the one camera. The
    longest, and of these the one that jumps least, is kept. Another person, who is seen with it in
    a frame, gets its extrinsics, and continues it in the frames that it lacks, by the motion
    between the two worlds in the nearest frame that both have.
    """
    found: list[World | None] = [None] * len(matches)
    own: dict[int, Path] = {}  # by the number of the match
    for number, match in enumerate(matches):
        frames = match.estimate.frames.tolist()
        if match.estimate.world_root is not None:
            extrinsics = _extrinsics_of(match)
            own[number] = dict(zip(frames, extrinsics, strict=True))
        elif match.estimate.extrinsics is not None:
            found[number] = World(dict(zip(frames, match.estimate.extrinsics, strict=True)), 1)

    remaining = sorted(own, key=lambda number: (-len(own[number]), _largest_jump(own[number])))
    n_worlds = 0
    while remaining:
        n_worlds += 1
        path: Path = {}
        seen_together = remaining[:1]
        while seen_together:
            number = seen_together[0]
            _continue(path, own[number])
            found[number] = World(path, n_worlds)
            remaining.remove(number)
            seen_together = [k for k in remaining if not path.keys().isdisjoint(own[k])]
    return found


def _continue(path: Path, other: Path) -> None:
    """Add the frames of another path of the camera, from another world, to a path, in place."""
    common = np.array(sorted(path.keys() & other.keys()))
    for frame in other.keys() - path.keys():
        path[frame] = other[frame]
        if len(common):
            near = int(common[np.abs(common - frame).argmin()])
            to_other = np.linalg.inv(other[near]) @ path[near]
            path[frame] = other[frame] @ to_other


def _largest_jump(path: Path) -> float:
    """The largest change (m, and of a rotation's numbers) from one row of a path to the next."""
    matrices = np.array([*path.values()])
    steps = np.diff(matrices, axis=0)
    return float(np.abs(steps).max(initial=0))


def _extrinsics_of(match: TrackMatch) -> Doubles:
    """Extrinsics (N, 4, 4) m of a person, from its own world to the camera.

    Some tools give the same body twice: in the camera, and in a world of the person's own. Then the
    extrinsics follow: R from R R_w = R_c, and t = p_c - R p_w, for a point of the body that is at
    p_w in the world and at p_c in the camera.
    """
    from scipy.spatial.transform import Rotation  # takes 0.4 s

    estimate = match.estimate
    assert estimate.world_root is not None and estimate.world_place is not None
    in_camera = Rotation.from_rotvec(estimate.pose[:, :3])
    rotation = in_camera * Rotation.from_rotvec(estimate.world_root).inv()
    point = match.joints[:, PELVIS]
    in_world = estimate.world_place + point
    if estimate.is_place_of_hips:
        point = match.joints[:, HIPS].mean(axis=1)
        in_world = estimate.world_place
    shift = point + match.trans - rotation.apply(in_world)
    return rigid(rotation.as_matrix(), shift)
