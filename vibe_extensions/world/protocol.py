"""The protocol by which WHAM is evaluated on EMDB.  training -> [evaluation]"""

from __future__ import annotations

from typing import Final

from vibe_model import metrics
from vibe_model.evaluation.protocols import Protocol
from vibe_model.metrics import METRICS, Metric

EMDB: Final = Protocol(
    name="emdb",
    meaning="As WHAM is evaluated on EMDB: SMPL's 24 joints of the body of the actor's gender about the middle of the "
    "hips; accelerations at 30 frames a second over the frames that count, closed up, but for a sequence's first and "
    "last.",
    metrics={
        **{name: METRICS[name] for name in ("pa_mpjpe", "mpjpe", "pve")},
        "accel_error_m_s2": Metric(
            title="accel error, m/s²", unit="m/s²", lower_is_better=True, of=metrics.inner_accel_error_m_s2, span=5
        ),
    },
    joints="smpl",
    truth="body",
    body="own",
    root=("smpl_lhip", "smpl_rhip"),
    root_vertices=True,
    successive="track",
    compares_with="numbers as WHAM has them (lib/eval/evaluate_emdb.py); GVHMR's are others: of joints by the neutral "
    "body's regressor for all labels, and of all accelerations. Both take every frame of good_frames_mask; here those "
    "without a valid box have no crop, and are not evaluated",
    splits="emdb/*",
)
