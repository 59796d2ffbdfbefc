"""A protocol of SMPL's 24 joints, with an additional metric: the error of the jerk."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vibe_model.api import METRICS, Metric, Protocol


def jerk_error(pred: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Mean distance of third differences over time: (N, J, 3) m -> (N - 3,) mm per frame^3."""
    distances = 1000 * np.linalg.norm(np.diff(pred - target, n=3, axis=0), axis=-1)  # (N - 3, J)
    return np.asarray(distances.mean(axis=-1))


JERK_ERROR = Metric(
    title="jerk error", unit="mm per frame³", lower_is_better=True, of=jerk_error, span=4
)
SMPL24 = Protocol(
    name="smpl24",
    meaning="SMPL's 24 joints, relative to the pelvis. Labels are bodies of each person's gender.",
    joints="smpl",
    truth="body",
    body="own",
    root=("smpl_pelvis",),
    root_vertices=True,
    metrics={name: METRICS[name] for name in ("pa_mpjpe", "mpjpe", "pve")}
    | {"jerk_error": JERK_ERROR},
)
