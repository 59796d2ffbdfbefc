"""3D poses of a cache, and frames seen by several cameras.  windows -> [training, evaluation]

`PoseSet.read` reads the poses of one split, `PoseSet.concatenate` joins those of several splits,
and `PoseSet.draw` draws the pairs of a training step. A pair is two views of one pose: by
two real cameras that filmed the same instant, or by two virtual ones.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from pipeline.people.rotations import axis_angle_to_matrix
from pipeline.people.skeletons import (
    KEYPOINTS_13,
    Array,
    Bools,
    Doubles,
    Floats,
    Ints,
    add_confidence,
    convert,
    keypoints_13,
)
from vibe_model.metrics import normalise_13
from vibe_model.part_dynamics.pr_vipe.network import TORSO

if TYPE_CHECKING:
    from cache import Split
    from pipeline.people.body import Body

AT_ONCE: Final = 4096  # frames
FIELDS: Final = ("theta", "w_smpl", "kp_3d", "w_3d", "kp_2d", "frame_index")
NOSE: Final = KEYPOINTS_13.index("nose")
CAMERAS: Final = {  # dataset -> pattern of a track's name: recording, camera
    "h36m": re.compile(r"(S\d+/.+)\.(\d+)/\d+"),
    "mpi_inf_3dhp": re.compile(r"(S\d+/Seq\d+)/video_(\d+)/\d+"),
}

_NO_INSTANTS: Final = np.empty((0, 2), np.int64)
Labels = Mapping[str, Array]  # (n, ...) of frames, by field


class _Filmed(NamedTuple):
    """The recording that a track belongs to, and the camera that filmed it."""

    recording: str
    camera: str


def _parse_recording(split: str, track: str) -> _Filmed | None:
    """Recording and camera of a track, by its name; None if only one camera filmed it.

    Equal frame numbers of a recording are the same instant, seen by different cameras.

    >>> tuple(_parse_recording("h36m/train", "S1/Walking 1.54138969/0"))
    ('S1/Walking 1', '54138969')
    """
    dataset, _, _ = split.partition("/")
    pattern = CAMERAS.get(dataset)
    if pattern is None:
        return None
    match = pattern.fullmatch(track)
    if match is None:
        return None
    return _Filmed(match[1], match[2])


@dataclass(frozen=True, eq=False)
class PoseSet:
    """N poses: x right, y down, in torso sizes relative to the hips; only the nose can be
    unknown.
    """

    poses: Floats  # (N, 13, 3) float32; 0 for unknown points
    shown: Bools  # (N, 13) whether a point is known
    kp_2d: Floats  # (N, 13, 3) float32 labelled x, y, confidence; 0 without images
    # (I, C) rows of C cameras at the same instant, at least two; -1: this camera did not see it.
    # Example: [[0, 90, -1], [1, 91, 181]]
    instants: Ints

    @classmethod
    def read(
        cls, split: Split, name: str, body: Body, *, stride: int, z_up: bool, tracks: Bools
    ) -> PoseSet:
        """Read every `stride`-th frame with SMPL or 3D labels.

        tracks: (tracks,) whether to read each track. z_up: AMASS's axes instead of camera axes.
        """
        all_rows = split.windows(1, 1)[:, 0]
        no_points = np.empty((0, 13, 3), np.float32)
        parts = [cls(no_points, np.empty((0, 13), np.bool_), no_points, _NO_INSTANTS)]
        cameras = [_parse_recording(name, track.name) for track in split.tracks]
        filmed: list[_Filmed | None] = []  # of each pose
        frames: list[int] = []  # number of each pose's frame
        for start in range(0, len(all_rows), AT_ONCE):
            rows = _choose_rows(split, all_rows[start : start + AT_ONCE], stride, tracks)
            if not len(rows):
                continue
            labels = _read_rows(split, rows, FIELDS)
            part, is_usable = _poses(labels, body, z_up)
            parts.append(part)
            filmed += [cameras[track] for track in split.track_of(rows[is_usable])]
            frames += labels["frame_index"][is_usable].tolist()
        poses = cls.concatenate(parts)
        return replace(poses, instants=_instants(filmed, frames, poses.kp_2d))

    @classmethod
    def concatenate(cls, parts: list[PoseSet]) -> PoseSet:
        """Concatenate pose sets; the rows of their instants move with the poses."""
        width = max(part.instants.shape[1] for part in parts)
        instants = []
        n_poses = 0
        for part in parts:
            rows = np.full((len(part.instants), width), -1)
            is_seen = part.instants >= 0
            cameras = rows[:, : is_seen.shape[1]]  # a view of the part's own cameras
            cameras[is_seen] = part.instants[is_seen] + n_poses
            instants.append(rows)
            n_poses += len(part)
        return cls(
            np.concatenate([part.poses for part in parts]),
            np.concatenate([part.shown for part in parts]),
            np.concatenate([part.kp_2d for part in parts]),
            np.concatenate(instants),
        )

    def __len__(self) -> int:
        return len(self.poses)

    def draw(self, n: int, real_share: float, seed: int, step: int) -> dict[str, Array]:
        """Draw the pairs of a step, real ones first; depends on seed and step only.

        real_share: of pairs by two real cameras.

        Returns:
            poses (n, 13, 3), shown (n, 13), and kp_2d (R, 2, 13, 3) of the real pairs.
        """
        random = np.random.default_rng([seed, step])
        n_instants = len(self.instants)
        n_real = 0
        if n_instants:
            n_real = round(real_share * n)
        drawn = self.instants[random.integers(n_instants, size=n_real)]  # (R, C)
        # two random cameras of each instant: those that did not see it sort last
        keys = np.where(drawn >= 0, random.random(drawn.shape), 2.0)
        order = np.argsort(keys, axis=1)
        pairs = np.take_along_axis(drawn, order[:, :2], axis=1)  # (R, 2)
        rendered = random.integers(len(self), size=n - n_real)  # to be seen by virtual cameras
        rows = np.concatenate([pairs[:, 0], rendered])
        return {
            "poses": self.poses[rows],
            "shown": self.shown[rows],
            "kp_2d": self.kp_2d[pairs],
        }


def _choose_rows(split: Split, rows: Ints, stride: int, tracks: Bools) -> Ints:
    """Choose the rows that are every `stride`-th frame of the tracks to read.

    Frame numbers decide, not rows, so that all cameras of a recording give the same instants.
    """
    steps = np.array([track.step for track in split.tracks])
    row_tracks = split.track_of(rows)
    labels = _read_rows(split, rows, ("frame_index",))
    frame_numbers = labels["frame_index"].astype(np.int64)
    is_due = frame_numbers // steps[row_tracks] % stride == 0
    chosen: Ints = rows[tracks[row_tracks] & is_due]
    return chosen


def _read_rows(split: Split, rows: Ints, fields: tuple[str, ...]) -> Labels:
    windows = np.stack([rows, rows + 1], axis=1)
    labels = split.read(windows, stream=None, fields=fields)
    return {field: array[:, 0] for field, array in labels.items()}


def _poses(labels: Labels, body: Body, z_up: bool) -> tuple[PoseSet, Bools]:
    """Poses of usable frames, and (n,) whether each frame is usable. Prefers SMPL's labels.

    A frame is usable if it has 3D labels of all points but the nose.
    """
    is_smpl = labels["w_smpl"] > 0
    body_points = _body_points(labels, body)
    points = np.where(is_smpl[:, None, None], body_points, _joint_points(labels))
    shown = points[..., 3] > 0
    is_labelled = is_smpl | (labels["w_3d"] > 0)
    is_whole = np.delete(shown, NOSE, axis=1).all(1)
    is_finite = np.isfinite(points).all((1, 2))
    is_usable = is_labelled & is_whole & is_finite

    shown = shown[is_usable]
    xyz = points[is_usable, :, :3]
    if z_up:  # to y down, z forward
        x, y, z = np.moveaxis(xyz, -1, 0)
        xyz = np.stack([x, -z, y], axis=-1)
    poses = np.where(shown[..., None], normalise_13(xyz), 0)
    poses = poses.astype(np.float32)
    kp_2d = keypoints_13(labels["kp_2d"])[is_usable]
    kp_2d = kp_2d.astype(np.float32)
    return PoseSet(poses, shown, kp_2d, _NO_INSTANTS), is_usable


def _body_points(labels: Labels, body: Body) -> Doubles:
    """Joints of SMPL's labels, (n, 13, 4): x, y, z, 1."""
    theta = torch.as_tensor(labels["theta"])
    axis_angle = theta[:, 3:75].reshape(-1, 24, 3)
    rotmat = axis_angle_to_matrix(axis_angle)
    with torch.no_grad():
        joints = body.joints(betas=theta[:, 75:], rotmat=rotmat)  # (n, 49, 3)
    return keypoints_13(add_confidence(joints.numpy()))


def _joint_points(labels: Labels) -> Floats:
    """Joints of 3D labels, (n, 13, 4): x, y, z, 1; all 0 for joints at 0, which have no label."""
    kp_3d = labels["kp_3d"]
    is_labelled = kp_3d.any(-1, keepdims=True)
    kp_3d = np.concatenate([kp_3d, is_labelled], axis=-1)
    if kp_3d.shape[1] == 14:
        kp_3d = convert(kp_3d, source="common14", target="spin49")
    return keypoints_13(kp_3d)


def _instants(filmed: list[_Filmed | None], frames: list[int], kp_2d: Floats) -> Ints:
    """Find the instants that at least two cameras saw with the whole torso visible, (I, C) rows.

    An instant is a recording and a frame number. filmed, frames: of each row.
    """
    is_visible = np.all(kp_2d[:, TORSO, 2] > 0, axis=1)
    names = set()
    rows_by_instant: dict[tuple[str, int], dict[str, int]] = defaultdict(dict)  # camera -> row
    for row, source in enumerate(filmed):
        if source is None:
            continue
        names.add(source.camera)
        if is_visible[row]:
            rows_by_instant[source.recording, frames[row]][source.camera] = row
    cameras = sorted(names)
    instants = []
    for rows in rows_by_instant.values():
        if len(rows) > 1:
            instants.append([rows.get(camera, -1) for camera in cameras])
    width = max(len(cameras), 2)
    return np.array(instants, np.int64).reshape(-1, width)
