"""HMMR's evaluation protocol (Kanazawa et al., CVPR 2019).  training -> [evaluation]"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from pipeline.skeletons import JOINTS, correspondence
from vibe_model import metrics
from vibe_model.evaluation.protocols import DEFAULT, Bools, Labels
from vibe_model.metrics import METRICS

_COMMON_14: Final = correspondence("spin49", "common14")[0]
# OpenPose's joints in common14's order, -1 for the top of the head.
_OPENPOSE_14: Final = np.array(
    [JOINTS["spin49"].index(f"OP {name[:2].upper()}{name[2:]}") for name in JOINTS["common14"][:12]]
    + [JOINTS["spin49"].index("OP Neck"), -1]
)


def _enough_seen(labels: Labels) -> Bools:
    """(F,) whether more than 6 of the 14 joints are visible; always true for tracks without 2D
    labels.
    """
    visible = (labels.kp_2d[..., 2] > 0) & labels.valid[:, None]  # (F, 49)
    by_openpose = visible[:, _OPENPOSE_14] & (_OPENPOSE_14 >= 0)
    n_visible = (visible[:, _COMMON_14] | by_openpose).sum(-1)
    is_enough = n_visible > metrics.FEWEST_VISIBLE
    counted: Bools = labels.valid & (is_enough | (not visible.any()))
    return counted


def _enough_keypoints(labels: Labels) -> Bools:
    """(F,) whether at least 6 keypoints are visible."""
    n_visible = (labels.kp_2d[..., 2] > 0).sum(-1)
    counted: Bools = labels.valid & (n_visible >= metrics.FEWEST_VISIBLE)
    return counted


_OF_HMMR: Final = {
    name: METRICS[name] for name in ("pa_mpjpe", "mpjpe", "pve", "pve_unposed", "accel_error")
} | {
    "accel": replace(METRICS["accel"], reads="prediction"),
    "pck_aligned": METRICS["pck_aligned"],
}
HMMR: Final = replace(
    DEFAULT,
    name="hmmr",
    meaning="HMMR's evaluation: frames with enough visible joints, and the mean over videos of "
    "each video's mean.",
    metrics=_OF_HMMR,
    rows=_enough_seen,
    rows_2d=_enough_keypoints,
    mean="videos",
    dynamics="vibe_model.hmmr.dynamics:bind_dynamics",
)
