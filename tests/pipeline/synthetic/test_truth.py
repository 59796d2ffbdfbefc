"""Demo data through the readers: what was played before the cameras comes back, and is where the pictures show it."""

from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline import datasets
from pipeline.skeletons import JOINTS

SPIN49 = JOINTS["spin49"]
HIP = SPIN49.index("hip")
LEFT_LEG = [SPIN49.index(name) for name in ("lhip", "lknee", "lankle")]
ARMS = [  # elbow, wrist, 1 for left ones, which are blue; right ones are orange
    ([SPIN49.index(name) for name in names.split(", ")], sign)
    for names, sign in (
        ("lelbow, lwrist", 1), ("relbow, rwrist", -1), ("OP LElbow, OP LWrist", 1), ("OP RElbow, OP RWrist", -1),
    )
]  # fmt: skip


def leg(joints: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(joints[LEFT_LEG], axis=0), axis=1).sum())


@pytest.mark.parametrize("name", ["posetrack", "insta_variety", "mpi_inf_3dhp", "h36m"])
def test_what_was_played_comes_back_to_float_precision(embedded: Any, name: str) -> None:
    reader, raw = datasets.get(name), embedded.raw(name)
    takes = {take.shot.name: take for take in embedded.takes(name)}
    tracks = [track for split in reader.splits for track in reader.tracks(raw, split)]
    n_fits, colours = 0, []
    for track in tracks:
        take, frames, seen = takes[track.video], track.frame_index, track.kp_2d[..., 2] > 0
        actor = take.actors[int(track.name.rpartition("/")[2])]
        assert track.frames.size() == (take.shot.width, take.shot.height)
        assert seen.sum(axis=1).mean() > 9
        np.testing.assert_allclose(track.kp_2d[seen][:, :2], actor.kp_2d[frames][seen], rtol=1e-6, atol=2e-5)
        if track.kp_3d is not None:
            joints = take.camera.to_camera(actor.spin49)[frames]
            universal = track.video.startswith("TS")  # all legs of 3DHP's test set are as long
            truth = (joints - joints[:, [HIP]]) * (0.83 / leg(actor.spin49[0]) if universal else 1)
            np.testing.assert_array_equal(track.kp_3d[..., 3] == 1, seen)
            np.testing.assert_allclose(track.kp_3d[seen][:, :3], truth[seen], atol=3e-6)
            assert (track.intrinsics is None) is universal
            assert universal or np.allclose(track.intrinsics, take.camera.intrinsics, rtol=1e-6)
        if track.has_smpl is not None and track.has_smpl.any():
            fitted = frames[track.has_smpl]
            world, ours = (
                Rotation.from_rotvec(pose[:, :3]).as_matrix()
                for pose in (actor.pose[fitted], track.pose[track.has_smpl])
            )
            np.testing.assert_allclose(ours, take.camera.extrinsics[fitted, :3, :3] @ world, atol=1e-6)
            np.testing.assert_allclose(track.pose[track.has_smpl, 3:], actor.pose[fitted, 3:], atol=1e-6)
            np.testing.assert_allclose(track.betas[track.has_smpl], np.tile(actor.betas, (len(fitted), 1)), atol=1e-6)
            n_fits += len(fitted)
        for row, frame in enumerate(track.frames.read(frames[:3].tolist())):
            for arm, sign in ARMS:
                if seen[row, arm].all():
                    x, y = track.kp_2d[row, arm, :2].mean(axis=0).round().astype(int)
                    red, _, blue = frame.image[y, x].astype(int)
                    colours.append(sign * (blue - red) > 25)
    sparse = {video for video, take in takes.items() if name == "posetrack" and take.shot.number % 4 == 3}  # 3 frames
    assert {track.video for track in tracks} == set(takes) - sparse
    assert (n_fits > 0) is (name == "h36m")
    assert len(colours) > 20
    assert np.mean(colours) > 0.75  # of the rest, the body or the other arm is in front
