"""What the rows and columns of the results are, in a sentence each.  training -> evaluation -> report: [definitions]

The measures are those of `vibe_model.metrics`, the baselines those of `vibe_model.evaluation.evaluate` and
`tasks.evaluate`.
"""

from __future__ import annotations

from typing import Final

from vibe_model.metrics import PCK_2D_SHARE, PCK_THRESHOLD_MM

JOINTS_14: Final = "both ankles, knees, hips, wrists, elbows and shoulders, the neck and the top of the head"

MODELS: Final = {
    "per frame": "the same regressor, trained on the same windows, without temporal encoder and discriminator: each "
    "frame by itself. What VIBE has beyond it is what time is worth.",
    "per frame, smoothed": "its predictions smoothed over time by a Gaussian, of the width that had the least PA-MPJPE "
    "in validation. It is the cheapest way to use time.",
    "mean body": "one and the same pose and shape in every frame, SMPL's mean: what looks at nothing reaches this.",
}

MEASURES: Final = {  # by the names of metrics.json
    "pa_mpjpe": f"mean distance of 14 joints ({JOINTS_14}) from the labels', after the rotation, scale and shift of "
    "each frame that fit best: the error of the pose alone.",
    "mpjpe": "the same distance, with both bodies centred on the midpoint of their hips and neither turned nor scaled.",
    "pve": "mean distance of all vertices of the body's surface, not centred.",
    "accel": "how much the prediction itself accelerates: the second difference of the joints over frames. It is to "
    "be near that of the labels, neither low nor high: a body that never moves has 0.",
    "accel_error": "mean distance of the prediction's acceleration from that of the labels. Jitter makes it high.",
    "pck": f"share of joints that are within {PCK_THRESHOLD_MM:.0f} mm, with both bodies centred on the hips.",
    "auc": f"mean of that share over thresholds of 0, 5, ..., {PCK_THRESHOLD_MM:.0f} mm.",
    "pck_2d": f"share of labelled 2D keypoints that are within {PCK_2D_SHARE:g} of the larger side of the tight box "
    "about the frame's keypoints.",
}
BETTER: Final = (
    "Lower is better for PA-MPJPE, MPJPE, PVE and accel error, higher for PCK, AUC and PCK 2D. accel is to be near "
    "that of the labels."
)
