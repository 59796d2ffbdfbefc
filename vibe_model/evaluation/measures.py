"""What errors are called and measured in, wherever they are shown.  training -> [evaluation] -> report"""

from __future__ import annotations

from typing import Final

ERRORS: Final = {  # metric -> its name in a table; mm, accelerations mm per frame^2, the last three in %
    "pa_mpjpe": "PA-MPJPE",
    "mpjpe": "MPJPE",
    "pve": "PVE",
    "accel": "accel",
    "accel_error": "accel error",
    "pck": "PCK",
    "auc": "AUC",
    "pck_2d": "PCK 2D",
}
UNITS: Final = "mean errors over frames in mm, accelerations in mm per frame², PCK and AUC in %"
PROTOCOLS: Final = ("default", "published")

SEQUENCES: Final = "sequences"  # results by track: a run's sequences.json and .csv
WORST_WINDOWS: Final = "worst_windows"
