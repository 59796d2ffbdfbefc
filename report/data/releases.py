"""On which terms each dataset is given out, and whom to cite.  [report]

In full: docs/licences.md, and each dataset's own page, which `doctor` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

YOUTUBE: Final = "the videos are their owners'"
REGISTERED: Final = "for research, after registration"

RELEASES: Final[Mapping[str, tuple[str, str]]] = {  # dataset -> terms, work to cite
    "penn_action": (
        "none stated",
        "Zhang, Zhu, Derpanis: From Actemes to Action, ICCV 2013",
    ),
    "posetrack": (
        REGISTERED,
        "Andriluka et al.: PoseTrack: A Benchmark for Human Pose Estimation and Tracking, CVPR 2018",
    ),
    "insta_variety": (
        YOUTUBE,
        "Kanazawa, Zhang, Felsen, Malik: Learning 3D Human Dynamics from Video, CVPR 2019",
    ),
    "kinetics": (
        YOUTUBE,
        "Kay et al.: The Kinetics Human Action Video Dataset, arXiv:1705.06950, 2017",
    ),
    "mpi_inf_3dhp": (
        REGISTERED,
        "Mehta et al.: Monocular 3D Human Pose Estimation in the Wild Using Improved CNN Supervision, 3DV 2017",
    ),
    "h36m": (
        "for research, after registration and a signed licence",
        "Ionescu, Papava, Olaru, Sminchisescu: Human3.6M, TPAMI 36(7), 2014",
    ),
    "3dpw": (
        REGISTERED,
        "von Marcard et al.: Recovering Accurate 3D Human Pose in the Wild Using IMUs and a Moving Camera, ECCV 2018",
    ),
    "amass": (
        f"{REGISTERED}; of each subset besides",
        "Mahmood et al.: AMASS: Archive of Motion Capture as Surface Shapes, ICCV 2019, and its subsets",
    ),
    "videos": ("those of the clips", "the detector that found the people in them"),
}
