"""HMMR's losses.  features -> windows -> [training] -> evaluation

Kanazawa et al., CVPR 2019, equations 1 to 4, with the authors' weights. Six sets of bodies are
compared with labels: now, 5 frames before and after, and the same three from the hallucinated
strip. A term without labels is 0.

`HMMRTrainer` adds two terms to those of `supervised`: the generator's and the discriminator's, from
the scores of all `Sets.rotations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

import torch
from torch import Tensor

from cache.read.labels import BETAS
from pipeline.errors import require_option
from vibe_model import cameras
from vibe_model.cameras import LIMITS, Method
from vibe_model.hmmr.config import HMMRConfig
from vibe_model.hmmr.generator import Sets
from vibe_model.losses import (
    Batch,
    joint_weights,
    keypoints_3d,
    labels_of,
    mean_where,
    pair_step,
)

WEIGHTS: Final[Mapping[str, float]] = HMMRConfig().weights
Target = Literal["joint", "detached"]  # of the hallucinator's loss
Body = Mapping[str, Tensor]  # predictions or labels of frames, (B, n, ...)


def supervised(
    sets: Sets,
    batch: Batch,
    *,
    optimal_camera: Method = "least_squares",
    limits: tuple[float, float] = LIMITS,
    hallucinator_target: Target = "joint",
    weights: Mapping[str, float] = WEIGHTS,
) -> dict[str, Tensor]:
    """The weighted terms that need no discriminator, scalars by name: kp, joints, smpl, const,
    hallucinate, shape.

    Args:
        sets: HMMR's predictions.
        batch: kp_2d (B, T, 49, 3) in the crop with confidence, kp_3d (B, T, 49, 3) m, theta (B, T,
            85), and w_3d, w_smpl (B, T), 0 for frames without such labels; for frames that lack
            some 3D joints, w_kp_3d (B, T, 49), too.
        optimal_camera, limits: Arguments of `cameras.optimal_camera` for past and future frames.
        hallucinator_target: With "joint", the loss also trains the movie strip; not with
            "detached".
    """
    require_option("optimal_camera", optimal_camera, Method)
    require_option("hallucinator_target", hallucinator_target, Target)
    zero = sets.strip.new_zeros(())
    kp = zero
    joints = zero
    smpl = zero
    for pred, true, is_moved in _pair_sets(sets, labels_of(batch, sets.strip)):
        kp = kp + _keypoints(pred, true, is_moved, optimal_camera, limits)
        squared = keypoints_3d(pred["kp_3d"], true["kp_3d"], joint_weights(true))
        joints = joints + 0.5 * squared
        smpl = smpl + _smpl(pred, true)
    losses = {
        "kp": kp,
        "joints": joints,
        "smpl": smpl,
        "const": _constancy(sets.real["theta"][..., BETAS]),
        "hallucinate": zero,
        "shape": _shape_prior(sets),
    }
    if sets.hallucination is not None:
        strip = sets.strip
        if hallucinator_target == "detached":
            strip = strip.detach()
        losses["hallucinate"] = (strip - sets.hallucination).square().mean()  # equation 3
    return {name: weights[name] * term for name, term in losses.items()}


def adversarial(fake_scores: Tensor) -> Tensor:
    """Least squares GAN loss of the generator: scores (N, 24) -> scalar.

    Sums over the 24 outputs, and takes the mean over bodies.
    """
    return (fake_scores - 1).square().sum(-1).mean()


def discriminator(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Discriminator's least squares GAN loss: (N, 24) and (M, 24) -> scalar."""
    return (real_scores - 1).square().sum(-1).mean() + fake_scores.square().sum(-1).mean()


def _pair_sets(sets: Sets, label: Body) -> Iterator[tuple[Body, Body, bool]]:
    """Yield each set of predictions, its labels, and whether it predicts past or future frames.

    For a step dt, the prediction made at frame t is paired with the label of frame t + dt.
    """
    n_frames = sets.strip.shape[1]
    for pred in (sets.real, sets.hallucinated):
        if pred is None:
            continue
        yield pred, label, False
        for dt, step_pred in pred["deltas"].items():
            if abs(dt) < n_frames:  # else no frame has a label
                paired_pred, paired_label = pair_step(step_pred, label, dt)
                yield paired_pred, paired_label, True


def _keypoints(
    pred: Body, true: Body, is_moved: bool, optimal_camera: Method, limits: tuple[float, float]
) -> Tensor:
    """Mean absolute error of the visible keypoints (B, n, 49) -> scalar.

    The camera of past and future frames (`is_moved`) is unknown: they are compared by the camera
    that fits best (`cameras.apply_optimal_camera`).
    """
    points = pred["kp_2d"]
    label = true["kp_2d"]
    if is_moved:
        points, label = cameras.apply_optimal_camera(points, label, optimal_camera, limits)
    target = label[..., :2]
    visible = label[..., 2] > 0
    error = torch.where(visible[..., None], points - target, 0.0).abs().sum()
    return error / (2 * visible.sum()).clamp(min=1)


def _smpl(pred: Body, true: Body) -> Tensor:
    """Half the squared errors of the rotations (..., 24, 3, 3) and of the betas -> scalar."""
    pose = (pred["rotmat"] - true["rotmat"]).square()
    shape = (pred["theta"][..., BETAS] - true["theta"][..., BETAS]).square()
    return 0.5 * mean_where(pose, true["w_smpl"]) + 0.5 * mean_where(shape, true["w_smpl"])


def _constancy(betas: Tensor) -> Tensor:
    """Change of the betas (B, T, 10) between frames -> scalar (equation 1)."""
    if betas.shape[1] == 1:
        return betas.new_zeros(())
    change = betas[:, 1:] - betas[:, :-1]
    return 0.5 * change.square().mean()


def _shape_prior(sets: Sets) -> Tensor:
    """Mean squared betas of all sets -> scalar."""
    squares = [pred["theta"][..., BETAS].square().mean() for pred in sets.bodies]
    return torch.stack(squares).mean()
