"""WHAM's protocol on EMDB (Shin et al., CVPR 2024).  training -> [evaluation]"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vibe_model.evaluation.protocols import Protocol
from vibe_model.metrics import METRICS, Metric

Floats = NDArray[np.floating[Any]]

MM: Final = 1000.0  # per m
FPS: Final = 30.0  # at which accelerations are given


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
