"""Losses of VIBE and of other models.  features -> windows -> [training]

Kocabas et al., CVPR 2020: `generator_losses` are L_3D, L_2D and L_SMPL of equation 1 (section 3.1),
`adversarial_terms` are L_adv and the discriminator's loss (section 3.2). Weights and the exact
means are those of the published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from cache.read.labels import BETAS, JOINT_WEIGHTS, POSE
from pipeline.people.rotations import axis_angle_to_matrix
from pipeline.people.skeletons import Array, correspondence
from vibe_model.devices import constant
from vibe_model.metrics import HIPS

Batch = Mapping[str, Tensor | Array]  # arrays or tensors as of `cache.Split.read`

PUBLISHED_WEIGHTS: Final[Mapping[str, float]] = {
    "kp_2d": 300.0,
    "kp_3d": 300.0,
    "pose": 60.0,
    "shape": 0.06,
    "adversarial": 0.5,
    "discriminator": 0.5,
}
COMMON14: Final = correspondence("spin49", "common14")[0]  # joints that all 3D datasets have


def generator_losses(
    pred: Mapping[str, Tensor], batch: Batch, weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """The supervised terms of a batch, weighted: scalars "kp_2d", "kp_3d", "pose", "shape".

    pred: VIBE's output. batch: kp_2d (B, T, 49, 3), kp_3d (B, T, 49, 3) m, theta (B, T, 85), and
    w_3d, w_smpl (B, T), 0 for frames without such labels; for frames that lack some 3D joints,
    w_kp_3d (B, T, 49), too. weights: a factor for each term.
    """
    label = labels_of(batch, pred["theta"])
    # Compared as matrices. The published code converts the prediction to axis-angle and back first.
    rotation_error = pred["rotmat"] - label["rotmat"]
    shape_error = pred["theta"][..., BETAS] - label["theta"][..., BETAS]
    terms = {
        "kp_2d": keypoints_2d(pred["kp_2d"], label["kp_2d"]),
        "kp_3d": keypoints_3d(pred["kp_3d"], label["kp_3d"], joint_weights(label)),
        "pose": mean_where(rotation_error.square(), label["w_smpl"]),
        "shape": mean_where(shape_error.square(), label["w_smpl"]),
    }
    return {name: weights[name] * term for name, term in terms.items()}


def labels_of(batch: Batch, like: Tensor) -> dict[str, Tensor]:
    """Labels of a batch as tensors like `like`, with theta's pose as rotmat (B, T, 24, 3, 3)."""
    names = ["kp_2d", "kp_3d", "theta", "w_3d", "w_smpl"]
    if JOINT_WEIGHTS in batch:
        names.append(JOINT_WEIGHTS)
    label = {}
    for name in names:
        label[name] = torch.as_tensor(batch[name], dtype=like.dtype, device=like.device)
    pose = label["theta"][..., POSE].reshape(*label["w_smpl"].shape, 24, 3)
    return {**label, "rotmat": axis_angle_to_matrix(pose)}


def keypoints_2d(pred: Tensor, target: Tensor) -> Tensor:
    """Mean of confidence times squared error. pred: (B, T, J, 2), target: (B, T, J, 3), in [-1, 1]
    over the crop.
    """
    confidence = target[..., 2:]
    error = pred - target[..., :2]
    return (confidence * error.square()).mean()


def keypoints_3d(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the squared errors of common14, each body centred on its hip midpoint. 0 if
    all weights are 0.

    pred, target: (B, T, 49, 3) m; weight: (B, T) of frames, or (B, T, 14) of their joints.
    """
    if weight.ndim == 2:
        weight = _expand_to_joints(weight)
    common = constant(COMMON14, pred)
    centred = _centre_on_hips(pred[..., common, :])
    expected = _centre_on_hips(target[..., common, :])
    error = centred - expected  # (B, T, 14, 3)
    # In this order, frames of which all joints have weight 1 give the bits of `mean_where`.
    weighted = weight[..., None] * error.square()
    per_frame = weighted.flatten(2).mean(-1)
    n_frames = weight.sum() / len(COMMON14)
    return _divide(per_frame.sum(), n_frames)


def joint_weights(labels: Mapping[str, Tensor]) -> Tensor:
    """Weights of the 3D joints of common14, (B, T, 14), from labels of a batch: `w_kp_3d` in frames
    with both hips, 0 in others; without that field, `w_3d`.
    """
    if JOINT_WEIGHTS not in labels:
        return _expand_to_joints(labels["w_3d"])
    of_49 = labels[JOINT_WEIGHTS]
    weight = of_49[..., constant(COMMON14, of_49)]
    hips = weight[..., constant(HIPS, weight)]
    has_hips = (hips > 0).all(dim=-1, keepdim=True)
    return weight * has_hips


def _expand_to_joints(weight: Tensor) -> Tensor:
    """Weights of frames (B, T) as those of their joints (B, T, 14)."""
    return weight[..., None].expand(*weight.shape, len(COMMON14))


def _centre_on_hips(joints: Tensor) -> Tensor:
    """Joints (..., 14, 3) relative to the midpoint of both hips."""
    hips = joints[..., constant(HIPS, joints), :]
    return joints - hips.mean(dim=-2, keepdim=True)


def pair_step(
    pred: Mapping[str, Tensor], label: Mapping[str, Tensor], step: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Pair predictions of frames `step` away with those frames' labels, (B, T - |step|, ...) each.

    pred: (B, T, ...), at the index of the frame from which each was predicted. Frames whose
    neighbour is outside the window are left out.
    """
    n_frames = label["kp_2d"].shape[1]
    first = max(-step, 0)
    stop = n_frames - max(step, 0)
    predicting = slice(first, stop)
    predicted = slice(first + step, stop + step)
    paired_pred = {name: values[:, predicting] for name, values in pred.items()}
    paired_label = {name: values[:, predicted] for name, values in label.items()}
    return paired_pred, paired_label


def adversarial_generator(fake_scores: Tensor) -> Tensor:
    """Least squares GAN, the generator's side (Mao et al., ICCV 2017). fake_scores: (B, 1) ->
    scalar.
    """
    return _score_error(fake_scores, 1)


def adversarial_discriminator(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Least squares GAN, the discriminator's side. Scores: (B, 1) each, of batches of any size ->
    scalar.
    """
    return _score_error(real_scores, 1) + _score_error(fake_scores, 0)


def adversarial_terms(
    fake_scores: Tensor,
    real_scores: Tensor,
    detached_fake_scores: Tensor,
    weights: Mapping[str, float],
) -> dict[str, Tensor]:
    """The weighted terms of a least squares GAN: "adversarial" for the generator, and both terms of
    `adversarial_discriminator` apart, "discriminator_real" and "discriminator_fake".

    Args:
        fake_scores: Scores (B, 1) of generated motions, with gradients to the generator.
        real_scores: Scores (B, 1) of real motions.
        detached_fake_scores: Scores (B, 1) of the same generated motions, with gradients to the
            discriminator alone.
        weights: Of "adversarial" and "discriminator" (default: published).
    """
    factors = {**PUBLISHED_WEIGHTS, **weights}
    return {
        "adversarial": factors["adversarial"] * adversarial_generator(fake_scores),
        "discriminator_real": factors["discriminator"] * _score_error(real_scores, 1),
        "discriminator_fake": factors["discriminator"] * _score_error(detached_fake_scores, 0),
    }


def _score_error(scores: Tensor, expected: int) -> Tensor:
    """Mean squared error of scores, 1 for real and 0 for fake: (B, 1) -> scalar."""
    return (scores - expected).square().sum() / len(scores)


def mean_where(error: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of errors: of each frame's mean over (B, T, ...), by weights (B, T).

    0 if all weights are 0.
    """
    per_frame = error.flatten(2).mean(-1)  # (B, T)
    return _divide((weight * per_frame).sum(), weight.sum())


def _divide(total: Tensor, weight: Tensor) -> Tensor:
    """The quotient of scalars; `total` if the weight is 0."""
    divisor = torch.where(weight > 0, weight, torch.ones_like(weight))
    return total / divisor
