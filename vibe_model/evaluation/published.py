"""What was published of VIBE, to stand beside one's own numbers.  training -> [evaluation]

Kocabas et al., "VIBE: Video Inference for Human Body Pose and Shape Estimation", CVPR 2020: the paper's results, and
the scores of its published checkpoint. All of them are by `protocol = "published"`, on the real test sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

NOT_COMPARABLE: Final = "not comparable: measured on stand-in data"
PAPER: Final = "Kocabas et al., CVPR 2020"
CHECKPOINT: Final = "the published checkpoint vibe_model_wo_3dpw.pth.tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigures:
    """One model's errors on one split: mm, accelerations mm per frame^2, PCK %. An error not published is absent."""

    model: str
    with_3dpw: bool  # 3DPW's training set was trained on
    split: str  # of the cache
    errors: Mapping[str, float]  # by the names of metrics.json
    source: str


def _row(model: str, with_3dpw: bool, source: str, **splits: dict[str, float]) -> list[PublishedFigures]:
    return [
        PublishedFigures(model=model, with_3dpw=with_3dpw, split=_SPLITS[name], errors=errors, source=source)
        for name, errors in splits.items()
    ]


_SPLITS: Final = {"pw3d": "3dpw/test", "mpii3d": "mpi_inf_3dhp/test", "h36m": "h36m/val"}

FIGURES: Final[tuple[PublishedFigures, ...]] = (
    *_row(
        "VIBE, paper, no 3DPW train",
        False,
        PAPER,
        pw3d={"pa_mpjpe": 56.5, "mpjpe": 93.5, "pve": 113.4, "accel": 27.1},
        mpii3d={"pa_mpjpe": 63.4, "mpjpe": 97.7, "pck": 89.0},
        h36m={"pa_mpjpe": 41.5, "mpjpe": 65.9},
    ),
    *_row(
        "VIBE, paper, with 3DPW train",
        True,
        PAPER,
        pw3d={"pa_mpjpe": 51.9, "mpjpe": 82.9, "pve": 99.1, "accel": 23.4},
        mpii3d={"pa_mpjpe": 64.6, "mpjpe": 96.6, "pck": 89.3},
        h36m={"pa_mpjpe": 41.4, "mpjpe": 65.6},
    ),
    *_row(
        "VIBE, checkpoint, no 3DPW train",
        False,
        CHECKPOINT,
        pw3d={"pa_mpjpe": 56.5608, "mpjpe": 93.5881, "pve": 113.4118, "accel": 27.1242, "accel_error": 27.9877},
    ),
)


def figures_of(split: str, *, with_3dpw: bool | None = None) -> list[PublishedFigures]:
    """What was published of a split of the cache, of models trained with 3DPW's training set, without it, or of all.

    >>> [found.errors["pa_mpjpe"] for found in figures_of("h36m/val")]
    [41.5, 41.4]
    """
    kinds = (True, False) if with_3dpw is None else (with_3dpw,)
    return [figures for figures in FIGURES if figures.split == split and figures.with_3dpw in kinds]


def caption(figures: PublishedFigures, *, stand_in: bool) -> str:
    """The model's name for a line of a table; beside results on stand-in data it says that they do not compare.

    >>> caption(FIGURES[0], stand_in=True)
    'VIBE, paper, no 3DPW train (not comparable: measured on stand-in data)'
    """
    return f"{figures.model} ({NOT_COMPARABLE})" if stand_in else figures.model
