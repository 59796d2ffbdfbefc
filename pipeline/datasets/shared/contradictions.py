"""Compare what the labels of a track state twice.  raw -> [tracks] -> features

A release may state one fact in two ways: a person by 3D joints and by 2D joints, a place in metres
and by the size in the image. A video in which the two contradict each other in most frames gets a
note, and its rows are kept. Copies that somebody repacked, resized or filtered get such notes.

A number that is NaN says nothing: too few joints, no camera, no place. Labels that are computed
from each other (2D joints of projected bodies, boxes around joints) always agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.cli.text import count
from pipeline.people.boxes import extents
from pipeline.people.cameras import fit_weak_perspective, project
from pipeline.people.skeletons import Array, Bools, Doubles, Floats, add_confidence, convert
from pipeline.people.smpl_files import PELVIS_M
from pipeline.people.track import Track

MIN_JOINTS: Final = 6  # to compare, of spin49, which has most joints of a release twice
APART: Final = 0.15  # of the person's size in the image: joints at this distance are elsewhere
AROUND: Final = 0.1  # of a box's size: joints that are outside by more are elsewhere


class Contradiction(NamedTuple):
    """A number of each row, and the limit beyond which its labels contradict each other."""

    text: str  # what is said of the rows beyond the limit
    limit: float
    least: int = 8  # rows with a number; fewer prove nothing


SHAPE: Final = Contradiction(
    "a number of betas is over 5",
    limit=5,
)
OUTSIDE: Final = Contradiction(
    "over 50% of the 2D joints are outside the bounding box",
    limit=0.5,
)
LARGE: Final = Contradiction(
    "the bounding box is over 5 times as large as the person",
    limit=5,
)
FAR: Final = Contradiction(
    "the person is over 50 m from the camera",
    limit=50,
)
ELSEWHERE: Final = Contradiction(
    "over 50% of the 2D joints are off the projected 3D joints",
    limit=0.5,
)
MISPLACED: Final = Contradiction(
    "the place in metres is over 30% off the one that the 2D joints show",
    limit=0.3,
)


def note_contradictions(
    track: Track, account: VideoAccount, root: Floats | None = None, boxes: Floats | None = None
) -> None:
    """Count in `account` the rows in which labels of a track contradict each other, if most do.

    root, boxes: as in `measure`.
    """
    for check, values in measure(track, root, boxes).items():
        n_known = np.isfinite(values).sum()
        n_beyond = (values > check.limit).sum()
        if n_known >= check.least and n_beyond > n_known / 2:
            account.contradictions[check.text] += int(n_beyond)


@np.errstate(all="ignore")  # of numbers that say nothing
def measure(
    track: Track, root: Floats | None = None, boxes: Floats | None = None
) -> dict[Contradiction, Array]:
    """Measure what a track states twice: the numbers (T,) of each check, of which NaN says nothing.

    Args:
        root: (T, 3) m in the camera, the root of the 3D joints; 0 where it is not stated. None: the
            pelvis by `trans`.
        boxes: (T, 4) px, centre and size. None: the track's `bbox`.
    """
    numbers = {}
    if track.betas is not None and track.has_smpl is not None:
        numbers[SHAPE] = np.where(track.has_smpl, np.abs(track.betas).max(axis=1), np.nan)
    if track.kp_2d is None or track.bbox is None:
        return numbers

    boxes = track.bbox if boxes is None else boxes
    is_seen = are_known(track.kp_2d)
    pixels = np.nan_to_num(track.kp_2d[..., :2])
    corners, _ = extents(track.kp_2d)
    size = np.ptp(corners, axis=1).max(axis=1) + 0 * _count(is_seen)
    reach = (0.5 + AROUND) * boxes[:, None, 2:]
    is_outside = (np.abs(pixels - boxes[:, None, :2]) > reach).any(axis=-1)
    numbers[OUTSIDE] = (is_outside & is_seen).sum(axis=1) / _count(is_seen)
    numbers[LARGE] = boxes[:, 2:].max(axis=1) / size

    if root is None and track.trans is not None:
        root = track.trans + PELVIS_M[24]
    if root is not None:
        root = np.where(root.any(axis=1, keepdims=True), root, np.nan)
        numbers[FAR] = np.linalg.norm(root, axis=1)
    joints = joints_about_root(track)
    camera = track.extra.get("intrinsics", track.intrinsics)
    if joints is None or track.has_3d is None or camera is None:
        return numbers

    is_known = is_seen & are_known(joints) & (track.has_3d == 1)[:, None]
    camera = np.reshape(camera, (-1, 1, 3, 3))
    points = np.nan_to_num(joints[..., :3])
    rays = (pixels - camera[..., :2, 2]) / camera[..., (0, 1), (0, 1)]
    # A point p, moved by t, is on the ray (x, y, 1) if p_x + t_x = x (p_z + t_z), and so for y:
    # t_x - t_z x = x p_z - p_x is a line over -x, and its slope t_z that of the line over -y.
    lines = rays * points[..., 2:] - points[..., :2]
    place = np.roll(fit_weak_perspective(-rays, lines, is_known), -1, axis=1)
    apart = np.linalg.norm(project(points + place[:, None], camera) - pixels, axis=-1)
    is_near = apart <= APART * size[:, None]  # not behind the camera
    n_known = _count(is_known)
    numbers[ELSEWHERE] = (is_known & ~is_near).sum(axis=1) / n_known
    if root is not None:
        off = np.linalg.norm(root - place, axis=1) + 0 * n_known
        numbers[MISPLACED] = off / np.linalg.norm(place, axis=1)
    return numbers


def are_known(joints: Array) -> Bools:
    """(T, J) whether joints (T, J, C), the last number a confidence, are known and finite."""
    return np.asarray((joints[..., -1] > 0) & np.isfinite(joints).all(axis=-1))


def _count(is_known: Bools) -> Doubles:
    """How many joints (T, J) are known, (T,); NaN for fewer than MIN_JOINTS."""
    n = is_known.sum(axis=1)
    return np.where(n < MIN_JOINTS, np.nan, n)


def joints_about_root(track: Track) -> Array | None:
    """3D joints (T, 49, 4), m and confidence; those for evaluation alone about the pelvis."""
    common14 = track.kp_3d_eval
    if track.kp_3d is not None or common14 is None:
        return track.kp_3d
    about_hips = common14 - common14[:, 2:4].mean(axis=1, keepdims=True)
    return convert(add_confidence(about_hips), source="common14", target="spin49")


def contradiction_lines(accounts: Iterable[VideoAccount]) -> list[str]:
    """A line about each contradiction of labels (`VideoAccount.contradictions`): in how many frames
    and videos, and the worst of these.
    """
    frames = defaultdict[str, Counter[str]](Counter)
    for account in accounts:
        for contradiction, n in account.contradictions.items():
            frames[contradiction][account.name] = n
    lines = []
    for contradiction, by_video in sorted(frames.items()):
        n_frames = count(by_video.total(), "frame")
        n_videos = count(len(by_video), "video")
        worst = max(by_video, key=by_video.__getitem__)
        lines.append(f"{contradiction} in {n_frames} of {n_videos}, most in {worst}")
    return lines
