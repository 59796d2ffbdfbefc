"""People whom several calibrated cameras see: which are the same, their sides, and their joints in
space, for benchmarks/accuracy.py.

12 joints, from shoulders to ankles, each left, then right; (12, 2) are points in the plane at
distance 1 of a camera, (12, 3) in m.
"""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.grades import tracks_of
from pipeline.people.skeletons import COCO_12, convert

Doubles = NDArray[np.float64]

OTHER_SIDE: Final = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]
# as OpenCV orders them; "tangental" is Qualisys' spelling
DISTORTION: Final = (
    "radialDistortion1",
    "radialDistortion2",
    "tangentalDistortion1",
    "tangentalDistortion2",
    "radialDistortion3",
)
ROTATION: Final = (11, 12, 13, 21, 22, 23, 31, 32, 33)
SUBPIXELS: Final = 64.0  # of Qualisys' intrinsics, in a pixel
# px of limbs' middles: with a larger one, people are not the same; and of a joint that cameras see
LARGEST_RESIDUAL: Final = 40.0
# of a joint that counts as seen, and of a person's 12 joints on average
LEAST_CONFIDENCE: Final = 0.5
FARTHEST_STEP: Final = 0.5  # m that a person moves from frame to frame at most


class Camera(NamedTuple):
    """A calibrated camera; the world's axes are in m."""

    matrix: Doubles  # (3, 3) intrinsics, px
    distortion: Doubles  # (5,) as OpenCV orders them
    world_to_camera: Doubles  # (3, 4)


class Seen(NamedTuple):
    """A person in one camera's frame."""

    row: int  # of the split
    points: Doubles  # (12, 2) in the plane at distance 1, distortion undone
    weights: Doubles  # (12,) confidences


class _Person(NamedTuple):
    """A person in one frame of a recording."""

    seen: Mapping[int, Seen]  # camera -> the person in its frame
    exchanged: Mapping[int, bool]  # whether the camera's network exchanged left and right
    joints: Doubles  # (12, 3) m, from all cameras


def cameras_of(calibration: bytes) -> list[Camera]:
    """The cameras of Qualisys' calibration: positions in mm, intrinsics in 1/64 px, axes that are
    turned by 180 degrees about x.
    """
    cameras = []
    for camera in ET.fromstring(calibration).iterfind("cameras/camera"):
        place = _numbers_of(camera, "transform")
        lens = _numbers_of(camera, "intrinsic")
        axes = np.array([place[f"r{number}"] for number in ROTATION]).reshape(3, 3)
        rotation = np.diag([1.0, -1.0, -1.0]) @ axes
        position = np.array([place["x"], place["y"], place["z"]]) / 1000
        matrix = np.array(
            [
                [lens["focalLengthU"], lens["skew"], lens["centerPointU"]],
                [0, lens["focalLengthV"], lens["centerPointV"]],
                [0, 0, SUBPIXELS],
            ]
        )
        distortion = np.array([lens[name] for name in DISTORTION])
        world_to_camera = np.column_stack([rotation, -rotation @ position])
        cameras.append(Camera(matrix / SUBPIXELS, distortion, world_to_camera))
    return cameras


def _numbers_of(camera: ET.Element, name: str) -> dict[str, float]:
    """The numbers among the attributes of an element."""
    element = camera.find(name)
    assert element is not None
    return {key: float(value) for key, value in element.attrib.items()}


def _triangulate(cameras: Sequence[Camera], points: Doubles, weights: Doubles) -> Doubles:
    """The points (12, 3) m in the world nearest to C cameras' rays (C, 12, 2), by weights (C, 12):
    the direct linear transform.
    """
    matrices = np.stack([camera.world_to_camera for camera in cameras])
    across = points[..., :1] * matrices[:, None, 2] - matrices[:, None, 0]
    down = points[..., 1:] * matrices[:, None, 2] - matrices[:, None, 1]
    equations = np.concatenate([weights[..., None] * across, weights[..., None] * down])
    homogeneous = np.linalg.svd(equations.transpose(1, 0, 2))[2][:, -1]
    joints: Doubles = homogeneous[:, :3] / homogeneous[:, 3:]
    return joints


def to_camera(camera: Camera, joints: Doubles) -> Doubles:
    """Points (..., 3) of the world, m, in the camera's axes: x right, y down, z away."""
    return joints @ camera.world_to_camera[:, :3].T + camera.world_to_camera[:, 3]


def offsets(camera: Camera, joints: Doubles, points: Doubles) -> Doubles:
    """What a camera sees (12, 2), less the images of joints (12, 3), px."""
    in_camera = to_camera(camera, joints)
    return (points - in_camera[:, :2] / in_camera[:, 2:]) * camera.matrix[[0, 1], [0, 1]]


def _residuals(cameras: Sequence[Camera], joints: Doubles, points: Doubles) -> Doubles:
    """Distances (C, 12) px between the images of joints (12, 3) and what C cameras see."""
    pairs = zip(cameras, points, strict=True)
    return np.stack(
        [np.linalg.norm(offsets(camera, joints, seen), axis=1) for camera, seen in pairs]
    )


def seen_by(split: cache.Split, video: int, camera: Camera) -> dict[int, list[Seen]]:
    """The people in each frame of a clip."""
    seen = defaultdict(list)
    for number in tracks_of(split, video):
        track = split.tracks[number]
        frames = split.rows("frame_index", track.start, track.stop)
        kp_2d = split.rows("kp_2d", track.start, track.stop).astype(np.float64)
        coco = convert(kp_2d, source="spin49", target="coco")[:, COCO_12]
        for row, frame, keypoints in zip(range(track.start, track.stop), frames, coco, strict=True):
            pixels = np.ascontiguousarray(keypoints[:, None, :2])
            undistorted: Any = cv2.undistortPoints(pixels, camera.matrix, camera.distortion)
            points = np.asarray(undistorted[:, 0], np.float64)
            if keypoints[:, 2].mean() >= LEAST_CONFIDENCE:
                seen[int(frame)].append(Seen(row, points, keypoints[:, 2]))
    return seen


def people_of(
    cameras: Sequence[Camera], seen: Sequence[Sequence[Seen]], earlier: Sequence[Doubles]
) -> list[_Person]:
    """The people whom three or more cameras see in a frame, those with the least error first.

    seen: by camera. earlier: joints (12, 3) of the people of the frame before. They decide whether
    the sides of all cameras are exchanged together, which changes no error.
    """
    left = [list(people) for people in seen]
    found = list[_Person]()
    while True:
        chosen = _best_group(cameras, left)
        if chosen is None:
            return found
        found.append(_with_sides(cameras, chosen, earlier))
        for camera, person in chosen.items():
            left[camera].remove(person)


def _best_group(
    cameras: Sequence[Camera], seen: Sequence[Sequence[Seen]]
) -> dict[int, Seen] | None:
    """The people of four cameras, else of three, whose limbs' middles are nearest to being one
    person's; None if none are near enough.
    """
    best = None
    choices: list[list[Seen | None]] = [[None, *people] for people in seen]
    for choice in itertools.product(*choices):
        group = {camera: person for camera, person in enumerate(choice) if person is not None}
        if len(group) < len(cameras) - 1:
            continue
        error = _error_of_middles(cameras, group)
        order = (-len(group), error)
        if error < LARGEST_RESIDUAL and (best is None or order < best[0]):
            best = (order, group)
    return best[1] if best else None


def _error_of_middles(cameras: Sequence[Camera], group: Mapping[int, Seen]) -> float:
    """The median reprojection error, px, of the middles of left and right joints."""
    chosen = [cameras[camera] for camera in group]
    points = np.stack([person.points.reshape(6, 2, 2).mean(axis=1) for person in group.values()])
    weights = np.stack([person.weights.reshape(6, 2).min(axis=1) for person in group.values()])
    return float(np.median(_residuals(chosen, _triangulate(chosen, points, weights), points)))


def _with_sides(
    cameras: Sequence[Camera], group: Mapping[int, Seen], earlier: Sequence[Doubles]
) -> _Person:
    """The person, with the cameras' sides that agree best."""
    chosen = [cameras[camera] for camera in group]
    best = None
    for others in itertools.product((False, True), repeat=len(group) - 1):
        states = (False, *others)
        points, weights = _turned(group, states)
        joints = _triangulate(chosen, points, weights)
        error = float((weights * _residuals(chosen, joints, points)).sum())
        if best is None or error < best[0]:
            best = (error, states, joints)
    assert best is not None
    _, states, joints = best
    if _is_other_way(joints, sum(states), len(states), earlier):
        states = tuple(not state for state in states)
        joints = joints[OTHER_SIDE]
    return _Person(group, dict(zip(group, states, strict=True)), joints)


def _is_other_way(
    joints: Doubles, n_exchanged: int, n_cameras: int, earlier: Sequence[Doubles]
) -> bool:
    """Whether left and right of all cameras are to be exchanged: as the frame before has them, else
    as most cameras have them.
    """
    middle = joints.mean(axis=0)
    for before in earlier:
        if np.linalg.norm(before.mean(axis=0) - middle) < FARTHEST_STEP:
            stays = np.linalg.norm(before - joints)
            return bool(np.linalg.norm(before - joints[OTHER_SIDE]) < stays)
    return 2 * n_exchanged > n_cameras


def _turned(group: Mapping[int, Seen], states: Sequence[bool]) -> tuple[Doubles, Doubles]:
    """What the cameras see, (C, 12, 2) and its weights (C, 12), with sides exchanged by state."""
    orders = [OTHER_SIDE if state else range(12) for state in states]
    pairs = [*zip(group.values(), orders, strict=True)]
    points = np.stack([person.points[order] for person, order in pairs])
    weights = np.stack([person.weights[order] for person, order in pairs])
    return points, weights


def truth_for(cameras: Sequence[Camera], person: _Person, own: int) -> Doubles | None:
    """The person's joints (12, 3) m in the world by all cameras but `own`; None if these do not
    agree on each joint: a joint that is hidden from most of them has no truth.
    """
    others = {camera: seen for camera, seen in person.seen.items() if camera != own}
    points, weights = _turned(others, [person.exchanged[camera] for camera in others])
    chosen = [cameras[camera] for camera in others]
    joints = _triangulate(chosen, points, weights)
    apart = _residuals(chosen, joints, points)
    n_agreeing = ((apart < LARGEST_RESIDUAL) & (weights >= LEAST_CONFIDENCE)).sum(axis=0)
    return joints if (n_agreeing >= 2).all() else None
