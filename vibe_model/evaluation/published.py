"""What was published of VIBE, to compare with.  training -> [evaluation]

Kocabas et al., "VIBE: Video Inference for Human Body Pose and Shape Estimation", CVPR 2020: the paper's results, and
the scores of its published checkpoint. All of them are by `protocol = "published"`, on the real test sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PAPER: Final = "Kocabas et al., CVPR 2020"
CHECKPOINT: Final = "the published checkpoint vibe_model_wo_3dpw.pth.tar"


@dataclass(frozen=True, slots=True)
class PublishedFigures:
    """One model's errors on one split: mm, accelerations mm per frame^2, PCK %. An error not published is absent."""

    model: str
    with_3dpw: bool  # 3DPW's training set was trained on
    source: str
    split: str  # of the cache
    errors: Mapping[str, float]  # by the names of metrics.json


_WITHOUT: Final = ("VIBE, paper, no 3DPW train", False, PAPER)
_WITH: Final = ("VIBE, paper, with 3DPW train", True, PAPER)
_CHECKPOINT: Final = ("VIBE, checkpoint, no 3DPW train", False, CHECKPOINT)
_SCORES: Final = {"pa_mpjpe": 56.5608, "mpjpe": 93.5881, "pve": 113.4118, "accel": 27.1242, "accel_error": 27.9877}
_ROWS: Final = (
    (_WITHOUT, "3dpw/test", {"pa_mpjpe": 56.5, "mpjpe": 93.5, "pve": 113.4, "accel": 27.1}),
    (_WITHOUT, "mpi_inf_3dhp/test", {"pa_mpjpe": 63.4, "mpjpe": 97.7, "pck": 89.0}),
    (_WITHOUT, "h36m/val", {"pa_mpjpe": 41.5, "mpjpe": 65.9}),
    (_WITH, "3dpw/test", {"pa_mpjpe": 51.9, "mpjpe": 82.9, "pve": 99.1, "accel": 23.4}),
    (_WITH, "mpi_inf_3dhp/test", {"pa_mpjpe": 64.6, "mpjpe": 96.6, "pck": 89.3}),
    (_WITH, "h36m/val", {"pa_mpjpe": 41.4, "mpjpe": 65.6}),
    (_CHECKPOINT, "3dpw/test", _SCORES),
)
FIGURES: Final = tuple(PublishedFigures(*model, split, errors) for model, split, errors in _ROWS)


def figures_of(split: str) -> list[PublishedFigures]:
    """What was published of a split of the cache.

    >>> [found.errors["pa_mpjpe"] for found in figures_of("h36m/val")]
    [41.5, 41.4]
    """
    return [figures for figures in FIGURES if figures.split == split]
