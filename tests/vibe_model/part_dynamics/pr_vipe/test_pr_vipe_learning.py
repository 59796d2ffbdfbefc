"""Pr-VIPE trained on made-up motions for 1,000 steps: what it finds again, and when it is
unsure.
"""

import math
from typing import Final

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

from pipeline.body import Body
from pipeline.demo.motion import perform, random_betas
from pipeline.skeletons import keypoints_13
from vibe_model.metrics import normalise_13
from vibe_model.part_dynamics import PrVIPE
from vibe_model.part_dynamics.pr_vipe import retrieval
from vibe_model.part_dynamics.pr_vipe.alignment import pose_distances
from vibe_model.part_dynamics.pr_vipe.config import PRESETS
from vibe_model.part_dynamics.pr_vipe.network import TORSO
from vibe_model.part_dynamics.pr_vipe.poses import PoseSet
from vibe_model.part_dynamics.pr_vipe.retrieval import has_foreshortened_limb
from vibe_model.part_dynamics.pr_vipe.training import PrVIPETrainer
from vibe_model.training.data import TrainingBatch

pytestmark = pytest.mark.slow

STEPS, BATCH, SAMPLES = 1000, 40, 8
DEPTH: Final = 2.0  # torso sizes
AROUND: Final = [math.radians(degrees) for degrees in range(0, 360, 30)]


def motions(seed, count):
    """Every fourth frame of so many motions of 64 frames, facing the camera."""
    rng, body, found = np.random.default_rng(seed), Body.stand_in(), []
    for _ in range(count):
        betas = random_betas(rng)
        pose = perform(rng, betas, 0.0, 64, 25.0).pose[::4]
        rotmat = torch.tensor(
            Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
        ).float()
        joints = body.joints(
            betas=torch.tensor(betas).float().expand(len(rotmat), -1), rotmat=rotmat
        ).numpy()
        points = keypoints_13(np.concatenate([joints, np.ones_like(joints[..., :1])], axis=-1))[
            ..., :3
        ]
        found.append(normalise_13(points * [1, -1, -1]))  # y down, as pictures have it
    poses = np.concatenate(found).astype(np.float32)
    return PoseSet(
        poses, np.ones(poses.shape[:2], bool), np.zeros_like(poses), np.empty((0, 2), np.int64)
    )


@pytest.fixture(scope="module")
def trained():
    """The averaged weights, after 40 s of one core's time."""
    poses, torch_threads = motions(0, 120), torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = {
        "batch_size": BATCH,
        "samples": SAMPLES,
        "iterations": STEPS,
        "epochs": 1,
        "average": 0.99,
        "threads": 1,
    }
    trainer = PrVIPETrainer(PRESETS["embedded"](**options))
    for step in range(STEPS):
        drawn = poses.draw(BATCH, 0.0, seed=0, step=step)
        labels = {name: torch.as_tensor(value) for name, value in drawn.items()}
        assert trainer.train_step(TrainingBatch(labels, None)).good
    torch.set_num_threads(torch_threads)
    return trainer.average


@pytest.fixture(scope="module")
def held_out():
    """Other motions, every eighth frame."""
    poses = motions(1, 40)
    return PoseSet(poses.poses[::2], poses.shown[::2], poses.kp_2d[::2], poses.instants)


def pictures(poses, azimuth):
    """Poses turned about the vertical by (N,) or one angle: keypoints (N, 13, 3), and as the camera
    has them.
    """
    turns = Rotation.from_rotvec(
        np.multiply.outer(np.broadcast_to(azimuth, len(poses)), [0.0, 1.0, 0.0])
    )
    turned = torch.from_numpy(poses @ turns.as_matrix().transpose(0, 2, 1)).float()
    z = turned[..., 2:] + DEPTH
    return torch.cat((turned[..., :2] / z, (z > 0.25).float()), dim=-1), turned


@torch.no_grad()
def embedded(network, keypoints):
    return network(PrVIPE.normalise(keypoints)[0])


def test_poses_are_found_again_more_often_the_nearer_the_cameras_are(trained, held_out) -> None:
    poses = held_out.poses
    between = pose_distances(*2 * [torch.from_numpy(poses)]).numpy()
    first = np.random.default_rng(0).uniform(0, 2 * np.pi, len(poses))
    queries = embedded(trained, pictures(poses, first)[0])
    found = {}
    for degrees in (15, 30, 60, 120, 180):
        gallery = embedded(trained, pictures(poses, first + math.radians(degrees))[0])
        distances = trained.distances(*queries, *gallery, 20, torch.Generator().manual_seed(0))
        found[degrees] = retrieval.hits(distances.detach().numpy(), between)["hit_1"]
    assert found[15] > found[30] + 5
    assert found[30] > found[60] + 5
    assert found[30] > max(found[120], found[180]) + 10


def test_cameras_anywhere_are_better_overcome_than_by_keypoints(trained, held_out) -> None:
    found = retrieval.evaluate(trained, held_out, most=320, depth=DEPTH, samples=20, seed=0)
    assert found["hit_10"] > found["procrustes_hit_10"] + 10


def test_it_is_less_sure_of_limbs_that_point_at_the_camera(trained, held_out) -> None:
    ratios = []
    for azimuth in AROUND:
        keypoints, turned = pictures(held_out.poses, azimuth)
        std, along = embedded(trained, keypoints)[1].mean(1), has_foreshortened_limb(turned, DEPTH)
        ratios.append(float(std[along].mean() / std[~along].mean()))
    assert np.mean(ratios) > 1.01


def test_it_is_less_sure_the_more_points_are_missing(trained, held_out) -> None:
    keypoints, _ = pictures(held_out.poses, 0.0)
    limbs, random = np.setdiff1d(np.arange(13), TORSO), np.random.default_rng(0)
    order = np.argsort(random.random((len(keypoints), len(limbs))), axis=1)
    means = []
    for n_missing in range(len(limbs) + 1):
        masked = keypoints.clone()
        masked[np.arange(len(masked))[:, None], limbs[order[:, :n_missing]], 2] = 0
        means.append(float(embedded(trained, masked)[1].mean()))
    assert spearmanr(np.arange(len(means)), means).statistic > 0.9
    assert means[-1] > 1.5 * means[0]
