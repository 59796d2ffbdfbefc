"""3D poses of a cache, and frames seen by several cameras.  windows -> [training, evaluation]"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.rotations import axis_angle_to_matrix
from pipeline.skeletons import KEYPOINTS_13, convert, keypoints_13
from vibe_model.metrics import normalise_13
from vibe_model.part_dynamics.pr_vipe.network import TORSO

if TYPE_CHECKING:
    from cache import Split
    from pipeline.body import Body

AT_ONCE: Final = 4096  # frames
FIELDS: Final = ("theta", "w_smpl", "kp_3d", "w_3d", "kp_2d", "frame_index")
NOSE: Final = KEYPOINTS_13.index("nose")
CAMERAS: Final = {  # dataset -> pattern of a track's name: recording, camera
    "h36m": re.compile(r"(S\d+/.+)\.(\d+)/\d+"),
    "mpi_inf_3dhp": re.compile(r"(S\d+/Seq\d+)/video_(\d+)/\d+"),
}


def same_instant(split: str, track: str) -> tuple[str, str] | None:
    """(recording, camera) of a track; equal frames of a recording are the same instant. None: a
    single camera.

    >>> same_instant("h36m/train", "S1/Walking 1.54138969/0")
    ('S1/Walking 1', '54138969')
    """
    pattern = CAMERAS.get(split.partition("/")[0])
    match = None if pattern is None else pattern.fullmatch(track)
    return None if match is None else (match[1], match[2])


@dataclass(frozen=True, eq=False)
class PoseSet:
    """N poses: x right, y down, in torso sizes relative to the hips; only the nose can be
    unknown.
    """

    poses: NDArray[np.float32]  # (N, 13, 3)
    shown: NDArray[np.bool_]  # (N, 13)
    kp_2d: NDArray[np.float32]  # (N, 13, 3) labelled x, y, confidence; 0 without images
    instants: NDArray[np.int64]  # (I, C) rows of C cameras at the same instant, -1 for none

    def __len__(self) -> int:
        return len(self.poses)

    def draw(self, n: int, real: float, seed: int, step: int) -> dict[str, NDArray[Any]]:
        """Draw the pairs of a step, real ones first; depends on seed and step only.

        Returns:
            poses (n, 13, 3), shown (n, 13), and kp_2d (R, 2, 13, 3) of the real pairs.
        """
        random = np.random.default_rng([seed, step])
        n_instants = len(self.instants)
        # (R, C)
        drawn = self.instants[
            random.integers(n_instants, size=round(real * n)) if n_instants else []
        ]
        keys = np.where(drawn >= 0, random.random(drawn.shape), 2.0)
        pairs = np.take_along_axis(drawn, np.argsort(keys, axis=1)[:, :2], axis=1)  # (R, 2)
        rows = np.concatenate([pairs[:, 0], random.integers(len(self), size=n - len(pairs))])
        return {"poses": self.poses[rows], "shown": self.shown[rows], "kp_2d": self.kp_2d[pairs]}


def concatenate(parts: list[PoseSet]) -> PoseSet:
    """Concatenate pose sets."""
    starts = np.cumsum([0, *(len(part) for part in parts)])
    width = max(part.instants.shape[1] for part in parts)
    instants = [
        np.pad(
            np.where(part.instants >= 0, part.instants + start, -1),
            ((0, 0), (0, width - part.instants.shape[1])),
            constant_values=-1,
        )
        for part, start in zip(parts, starts, strict=False)
    ]
    poses, shown, kp_2d = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("poses", "shown", "kp_2d")
    )
    return PoseSet(poses, shown, kp_2d, np.concatenate(instants))


def read_poses(
    split: Split, name: str, body: Body, *, stride: int, z_up: bool, tracks: NDArray[np.bool_]
) -> PoseSet:
    """Read every `stride`-th frame with SMPL or 3D labels.

    tracks: (tracks,) whether to read each track. z_up: AMASS's axes instead of camera axes.
    """
    every = split.windows(1, 1)[:, 0]
    track_of = split.track_of(every)
    chosen = list(split.tracks)
    steps = np.array([track.step for track in split.tracks])
    parts = []
    places = []
    for start in range(0, len(every), AT_ONCE):
        rows = every[start : start + AT_ONCE]
        row_tracks = track_of[start : start + AT_ONCE]
        frames = split.read(
            np.stack([rows, rows + 1], axis=1), stream=None, fields=("frame_index",)
        )["frame_index"]
        numbers = frames[:, 0].astype(np.int64) // steps[row_tracks]
        chosen_rows = tracks[row_tracks] & (numbers % stride == 0)
        rows = rows[chosen_rows]
        if not len(rows):
            continue
        labels = split.read(np.stack([rows, rows + 1], axis=1), stream=None, fields=FIELDS)
        part, usable = _poses({field: array[:, 0] for field, array in labels.items()}, body, z_up)
        parts.append(part)
        places += list(
            zip(row_tracks[chosen_rows][usable], labels["frame_index"][usable, 0], strict=True)
        )
    parts.append(
        (
            np.empty((0, 13, 3), np.float32),
            np.empty((0, 13), np.bool_),
            np.empty((0, 13, 3), np.float32),
        )
    )
    poses, shown, kp_2d = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    cameras = [same_instant(name, track.name) for track in chosen]
    return PoseSet(
        poses,
        shown,
        kp_2d,
        _instants([(cameras[track], int(frame)) for track, frame in places], kp_2d),
    )


def _poses(
    labels: Mapping[str, NDArray[Any]], body: Body, z_up: bool
) -> tuple[tuple[NDArray[Any], ...], Any]:
    """(poses, shown, kp_2d) of usable frames, and (N,) whether each is usable. Prefers SMPL's
    labels.
    """
    theta = torch.as_tensor(labels["theta"])
    rotmat = axis_angle_to_matrix(theta[:, 3:75].reshape(-1, 24, 3))
    with torch.no_grad():
        joints = body.joints(betas=theta[:, 75:], rotmat=rotmat).numpy()  # (N, 49, 3)
    smpl = labels["w_smpl"] > 0
    by_body = keypoints_13(np.concatenate([joints, np.ones_like(joints[..., :1])], axis=-1))
    kp_3d = labels["kp_3d"]
    # a joint at 0 is not labelled
    kp_3d = np.concatenate([kp_3d, kp_3d.any(-1, keepdims=True)], axis=-1)
    if kp_3d.shape[1] == 14:
        kp_3d = convert(kp_3d, source="common14", target="spin49")
    points = np.where(smpl[:, None, None], by_body, keypoints_13(kp_3d))  # (N, 13, 4)
    shown = points[..., 3] > 0
    usable = (smpl | (labels["w_3d"] > 0)) & np.delete(shown, NOSE, axis=1).all(1)
    usable &= np.isfinite(points).all((1, 2))
    xyz = points[usable, :, :3]
    if z_up:
        xyz = np.stack([xyz[..., 0], -xyz[..., 2], xyz[..., 1]], axis=-1)
    poses = np.where(shown[usable][..., None], normalise_13(xyz), 0).astype(np.float32)
    return (poses, shown[usable], keypoints_13(labels["kp_2d"])[usable].astype(np.float32)), usable


def _instants(
    places: list[tuple[tuple[str, str] | None, int]], kp_2d: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Rows (I, C) of instants seen by at least two cameras with the whole torso visible."""
    torso = np.all(kp_2d[:, TORSO, 2] > 0, axis=1)
    cameras = sorted({filmed[1] for filmed, _ in places if filmed is not None})
    table: dict[tuple[str, int], NDArray[np.int64]] = {}
    for row, (filmed, frame) in enumerate(places):
        if filmed is not None and torso[row]:
            cameras_rows = table.setdefault((filmed[0], frame), np.full(len(cameras), -1, np.int64))
            cameras_rows[cameras.index(filmed[1])] = row
    several = [cameras_rows for cameras_rows in table.values() if (cameras_rows >= 0).sum() > 1]
    return np.stack(several) if several else np.empty((0, max(len(cameras), 2)), np.int64)
