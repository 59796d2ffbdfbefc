"""WHAM's world metrics and its protocol on EMDB (Shin et al., CVPR 2024).  training ->
[evaluation]

The world metrics compare a whole track in world coordinates. They are for your own models: those
here predict bodies in camera coordinates, which the protocol `EMDB` evaluates.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vibe_model.evaluation.protocols import Protocol
from vibe_model.metrics import METRICS, Metric, position_error, procrustes_align

Floats = NDArray[np.floating[Any]]
Float64s = NDArray[np.float64]

CHUNK_FRAMES: Final = 100  # aligned together
FOOT_VERTICES: Final = (3216, 3387, 6617, 6787)  # SMPL's left toe and heel, right toe and heel
STANDS_M: Final = 0.01  # a foot that moves less between two frames is at rest
MM: Final = 1000.0  # per m
JITTER_UNIT: Final = 10.0  # m/s^3, of the published numbers
FPS: Final = 30.0  # at which jitter and EMDB's accelerations are given


def w_mpjpe(pred: Floats, target: Floats) -> Float64s:
    """World MPJPE: in chunks of 100 frames, each aligned by the similarity of its first two frames'
    joints.

    pred, target: (F, J, 3) m in two worlds, of successive frames -> (F,) mm (WHAM's
    lib/eval/eval_utils.py).
    """
    return _chunk_errors(pred, target, n_fitted=2)


def wa_mpjpe(pred: Floats, target: Floats) -> Float64s:
    """World-aligned MPJPE: as `w_mpjpe`, with each chunk aligned by all its frames. (F, J, 3) m ->
    (F,) mm.
    """
    return _chunk_errors(pred, target, n_fitted=CHUNK_FRAMES)


def rte(pred_root: Floats, target_root: Floats) -> Float64s:
    """Root translation error: (F, 3) m in two worlds -> (F,) % of the length of the target's path.

    Paths are aligned by rotation and translation, without scale (WHAM). NaN if the target does not
    move.
    """
    target_root = target_root.astype(np.float64)
    aligned = procrustes_align(pred_root, target_root, rigid=True)
    errors = np.linalg.norm(aligned - target_root, axis=-1)
    length = np.linalg.norm(np.diff(target_root, axis=0), axis=-1).sum()
    if not length > 0:
        return np.full(len(errors), np.nan)
    percent: Float64s = 100 * (errors / length)
    return percent


def jitter(joints: Floats, fps: float = FPS) -> Float64s:
    """Mean norm of the joints' third differences by time. (F, J, 3) m in the world -> (F - 3,) in
    10 m/s^3 (WHAM).
    """
    if len(joints) <= 3:
        return np.zeros(0)
    third = np.diff(joints.astype(np.float64), n=3, axis=0)
    jerk = np.linalg.norm(third, axis=-1) * fps**3  # (F - 3, J) m/s^3
    mean: Float64s = (jerk / JITTER_UNIT).mean(-1)
    return mean


def foot_sliding(pred_vertices: Floats, target_vertices: Floats) -> Float64s:
    """Motion of predicted feet while the target's are at rest: (F, 6890, 3) m in the world -> (N,)
    mm per frame.

    N counts, over FOOT_VERTICES, pairs of successive frames between which the target's vertex moves
    by less than 1 cm (WHAM).
    """
    is_at_rest = _foot_steps(target_vertices) < STANDS_M
    sliding: Float64s = MM * _foot_steps(pred_vertices)[is_at_rest]
    return sliding


def _foot_steps(vertices: Floats) -> Float64s:
    """How far each of FOOT_VERTICES moves to the next frame: (F, 6890, 3) m -> (F - 1, 4) m."""
    feet = vertices[:, FOOT_VERTICES].astype(np.float64)
    steps: Float64s = np.linalg.norm(np.diff(feet, axis=0), axis=-1)
    return steps


def _chunk_errors(pred: Floats, target: Floats, n_fitted: int) -> Float64s:
    """Errors (F,) mm of (F, J, 3) m. Each chunk is aligned by all joints of its first `n_fitted`
    frames, at once.
    """
    errors = [np.zeros(0)]
    for start in range(0, len(pred), CHUNK_FRAMES):
        chunk = pred[start : start + CHUNK_FRAMES]
        goal = target[start : start + CHUNK_FRAMES]
        n_joints = pred.shape[1]
        aligned = procrustes_align(
            chunk.reshape(-1, 3), goal.reshape(-1, 3), n_fitted=n_fitted * n_joints
        )
        errors.append(position_error(aligned.reshape(chunk.shape), goal))
    return np.concatenate(errors)


def _inner_accel_error(pred: Floats, target: Floats) -> Floats:
    """Acceleration error at FPS without the first and last (WHAM). (N, J, 3) m -> (N - 4,)
    m/s^2.
    """
    return METRICS["accel_error"].of(pred, target)[1:-1] * (FPS**2 / MM)


EMDB: Final = Protocol(
    name="emdb",
    meaning="WHAM's evaluation on EMDB: SMPL's 24 joints of the body of the actor's gender, "
    "relative to the middle of the hips; accelerations at 30 frames per second over the "
    "evaluated frames of a sequence without gaps, except its first and last.",
    metrics={
        **{name: METRICS[name] for name in ("pa_mpjpe", "mpjpe", "pve")},
        "accel_error_m_s2": Metric(
            title="accel error, m/s²",
            unit="m/s²",
            lower_is_better=True,
            of=_inner_accel_error,
            span=5,
        ),
    },
    joints="smpl",
    truth="body",
    body="own",
    root=("smpl_lhip", "smpl_rhip"),
    root_vertices=True,
    successive="track",
    compares_with="WHAM's numbers (lib/eval/evaluate_emdb.py). GVHMR's differ: they use the "
    "neutral body's regressor for all labels, and all accelerations. Both use every frame of "
    "good_frames_mask; here frames without a valid box are not evaluated",
    splits="emdb/*",
)
