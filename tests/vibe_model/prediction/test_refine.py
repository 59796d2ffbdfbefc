"""Refinement of planted bodies: a motion of the procedural body, its noisy keypoints, and a wrong
prediction of it.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from pipeline.body import Body
from pipeline.demo.motion import perform, random_betas
from pipeline.rotations import axis_angle_to_matrix
from pipeline.skeletons import JOINTS
from vibe_model.cameras import crop_to_image, project
from vibe_model.prediction import refine

FRAMES = 16
CROP = 1.1
COCO = [joint for joint, name in enumerate(JOINTS["spin49"]) if name in JOINTS["coco"]]

the_body = functools.cache(Body.stand_in)


class Planted(NamedTuple):
    truth: np.ndarray  # (T, 85)
    predicted: np.ndarray
    kp_2d: np.ndarray
    bbox: np.ndarray

    def refined(
        self, theta: np.ndarray, kp_2d: np.ndarray | None = None, **options
    ) -> refine.Refined:
        joints = self.kp_2d if kp_2d is None else kp_2d
        return refine.refine_bodies(
            theta, joints, self.bbox, the_body(), crop_scale=CROP, **options
        )

    def error_mm(self, theta: np.ndarray) -> float:
        """Mean distance of the joints to the true ones, about the pelvis."""
        a, b = (joints - joints[:, 39:40] for joints in (posed(theta)[0], posed(self.truth)[0]))
        return 1000 * float(np.linalg.norm(a - b, axis=-1).mean())


def posed(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints (T, 49, 3) m, and in the crop."""
    camera, pose, betas = torch.split(torch.from_numpy(theta), [3, 72, 10], dim=1)
    joints = the_body().joints(betas=betas, rotmat=axis_angle_to_matrix(pose.reshape(-1, 24, 3)))
    return joints.numpy(), project(joints, camera).numpy()


def plant(seed: int, noise_px: float = 3.0) -> Planted:
    """A person 150 px high. The prediction is wrong in all parts, in one way over time and from
    frame to frame.
    """
    rng = np.random.default_rng(seed)
    betas = random_betas(rng)
    motion = perform(rng, betas, rng.uniform(0, 6), FRAMES, 25.0)
    pose = motion.pose.copy()
    pose[:, :3] = (
        Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec(pose[:, :3])
    ).as_rotvec()
    t = np.arange(FRAMES)
    camera = np.stack(
        [0.8 + 0.05 * np.sin(t / 20), 0.05 * np.sin(t / 15), 0.25 + 0.03 * np.cos(t / 9)], axis=1
    )
    truth = np.concatenate([camera, pose, np.tile(betas, (FRAMES, 1))], axis=1).astype(np.float32)
    bbox = np.stack([300.0 + 2 * t, *np.full((3, FRAMES), 200.0)], axis=1).astype(np.float32)
    drift = gaussian_filter1d(rng.normal(size=(FRAMES, 24, 3)), 3, axis=0)
    turn = 0.1 * rng.normal(size=(24, 3)) + 0.2 * drift + 0.03 * rng.normal(size=drift.shape)
    turned = Rotation.from_rotvec(pose.reshape(-1, 3)) * Rotation.from_rotvec(turn.reshape(-1, 3))
    wrong = truth.copy()
    wrong[:, 3:75] = turned.as_rotvec().reshape(FRAMES, 72)
    wrong[:, :3] += 0.05 * rng.normal(size=3) + 0.01 * rng.normal(size=(FRAMES, 3))
    wrong[:, 75:] += 0.5 * rng.normal(size=10)
    kp_2d = np.zeros((FRAMES, 49, 3), np.float32)
    pixels = crop_to_image(posed(truth)[1], bbox, crop_scale=CROP)[:, COCO]
    kp_2d[:, COCO, :2] = pixels + noise_px * rng.normal(size=pixels.shape)
    kp_2d[:, COCO, 2] = rng.uniform(0.5, 1, pixels.shape[:2])
    return Planted(truth, wrong, kp_2d, bbox)


@pytest.fixture(autouse=True)
def fewer_iterations(monkeypatch) -> None:
    """Half the time, and nearly the same bodies."""
    monkeypatch.setattr(refine, "ITERATIONS", 60)


def jerkiness(theta: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(posed(theta)[0], 2, axis=0), axis=-1).mean())


def test_wrong_predictions_come_nearer_to_the_truth_and_become_smooth() -> None:
    ratios = []
    for seed in range(10):
        planted = plant(seed)
        theta, before, after = planted.refined(planted.predicted)
        ratios.append(planted.error_mm(theta) / planted.error_mm(planted.predicted))
        assert after < 5 < before  # the keypoints' own error has a median of 3.5 px
        assert jerkiness(theta) < jerkiness(planted.predicted) / 5
        assert np.ptp(theta[:, 75:], axis=0).max() == 0  # one shape
    assert np.mean(np.array(ratios) < 1) >= 0.9
    assert max(ratios) < 2
    assert np.median(ratios) < 0.6


@pytest.mark.parametrize(("noise_px", "most_mm"), [(0.0, 0.1), (1.0, 12.0)])
def test_bodies_that_fit_stay(noise_px, most_mm) -> None:
    planted = plant(0, noise_px)
    assert planted.error_mm(planted.refined(planted.truth).theta) < most_mm


def test_keypoints_that_are_swapped_or_not_used_do_not_pull() -> None:
    planted = plant(3)
    expected = planted.error_mm(planted.refined(planted.predicted).theta)
    swapped = planted.kp_2d.copy()
    left, right = (
        [JOINTS["spin49"].index(f"{side}{name}") for name in ("knee", "ankle")] for side in "lr"
    )
    swapped[5:8, left + right] = swapped[5:8, right + left]
    swapped[:, [j for j, name in enumerate(JOINTS["spin49"]) if name in refine.UNUSED]] = (
        1e4,
        1e4,
        1.0,
    )
    assert planted.error_mm(planted.refined(planted.predicted, swapped).theta) < 1.15 * expected


def test_without_a_keypoint_the_prediction_is_returned() -> None:
    planted = plant(0)
    theta, before, after = planted.refined(planted.predicted, np.zeros_like(planted.kp_2d))
    np.testing.assert_array_equal(theta, planted.predicted)
    assert math.isnan(before)
    assert math.isnan(after)


def test_long_tracks_are_fitted_in_parts_without_seams(monkeypatch) -> None:
    planted = plant(1)
    whole = planted.refined(planted.predicted)
    monkeypatch.setattr(refine, "CHUNK", FRAMES // 2 - 1)  # the last part has two frames
    parts = planted.refined(planted.predicted)
    assert np.ptp(parts.theta[:, 75:], axis=0).max() == 0
    assert planted.error_mm(parts.theta) < planted.error_mm(planted.predicted) * 0.7
    assert jerkiness(parts.theta) < 1.5 * jerkiness(whole.theta)


def test_frames_after_a_gap_are_not_smoothed_with_those_before() -> None:
    still, moved = plant(2), plant(4)
    kp_2d = np.concatenate([still.kp_2d[:8], moved.kp_2d[:8]])
    planted = still._replace(
        predicted=np.concatenate([still.predicted[:8], moved.predicted[:8]]), kp_2d=kp_2d
    )
    apart = planted.refined(planted.predicted, run=np.repeat([0, 1], 8))
    assert apart.after < 4.5 < planted.refined(planted.predicted).after


def test_frames_without_a_box_keep_their_pose_and_joints_that_are_not_finite_are_not_seen() -> None:
    planted, bad = plant(1), [4, 9]
    planted.bbox[4, 2], planted.bbox[9] = 0, np.nan
    planted.kp_2d[2, COCO[:3]], planted.kp_2d[3, COCO[5], 0] = np.nan, np.inf
    refined = planted.refined(planted.predicted)
    np.testing.assert_allclose(refined.theta[bad, :75], planted.predicted[bad, :75], atol=1e-5)
    assert np.isfinite(refined.theta).all()
    assert refined.after < refined.before / 2
