"""Published figures of VIBE, HMMR and part dynamics on the real test sets.  training ->
[evaluation]

Kocabas et al., "VIBE: Video Inference for Human Body Pose and Shape Estimation", CVPR 2020: the
paper's results, and the scores of its published checkpoint, by `protocol = "published"`. Kanazawa
et al., "Learning 3D Human Dynamics from Video", CVPR 2019: tables 2, 5, 6 and 7, and the scores of
its released models (doc/eval.md of human_dynamics), by `protocol = "hmmr"`. Lee and Lee,
"Uncertainty-Aware Human Mesh Recovery from Video by Learning Part-Based 3D Dynamics", ICCV 2021:
its table, which quotes VIBE and TCMR.

Reports print them beside a run's own errors: `figures_of` a split, `ABLATION` and `DYNAMICS`. The
private tables are as in the papers; `_all_figures` makes `FIGURES` of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PAPER: Final = "Kocabas et al., CVPR 2020"
CHECKPOINT: Final = "the published checkpoint vibe_model_wo_3dpw.pth.tar"
PARTDYN_PAPER: Final = "Lee and Lee, ICCV 2021"
HMMR_PAPER: Final = "Kanazawa et al., CVPR 2019"
HMMR_RELEASED: Final = "doc/eval.md of github.com/akanazawa/human_dynamics"


@dataclass(frozen=True, slots=True)
class PublishedFigures:
    """One model's published errors on one split: mm, accelerations mm per frame^2, PCK %."""

    model: str
    with_3dpw: bool  # trained on 3DPW's training set
    source: str
    split: str
    errors: Mapping[str, float]  # by the names in metrics.json
    protocol: str = "published"


# model, whether it was trained on 3DPW's training set, source
_WITHOUT: Final = ("VIBE, paper, no 3DPW train", False, PAPER)
_WITH: Final = ("VIBE, paper, with 3DPW train", True, PAPER)
_CHECKPOINT: Final = ("VIBE, checkpoint, no 3DPW train", False, CHECKPOINT)
_SCORES: Final = {
    "pa_mpjpe": 56.5608,
    "mpjpe": 93.5881,
    "pve": 113.4118,
    "accel": 27.1242,
    "accel_error": 27.9877,
}
_ROWS: Final = (  # model, split, errors
    (_WITHOUT, "3dpw/test", {"pa_mpjpe": 56.5, "mpjpe": 93.5, "pve": 113.4, "accel": 27.1}),
    (_WITHOUT, "mpi_inf_3dhp/test", {"pa_mpjpe": 63.4, "mpjpe": 97.7, "pck": 89.0}),
    (_WITHOUT, "h36m/val", {"pa_mpjpe": 41.5, "mpjpe": 65.9}),
    (_WITH, "3dpw/test", {"pa_mpjpe": 51.9, "mpjpe": 82.9, "pve": 99.1, "accel": 23.4}),
    (_WITH, "mpi_inf_3dhp/test", {"pa_mpjpe": 64.6, "mpjpe": 96.6, "pck": 89.3}),
    (_WITH, "h36m/val", {"pa_mpjpe": 41.4, "mpjpe": 65.6}),
    (_CHECKPOINT, "3dpw/test", _SCORES),
)
# Model -> split -> errors. VIBE's acceleration on 3DPW is the prediction's own, as in VIBE's paper.
_PARTDYN: Final = {
    "part dynamics, paper": {
        "3dpw/test": {"pa_mpjpe": 52.2, "mpjpe": 92.8, "pve": 106.1, "accel_error": 6.8},
        "mpi_inf_3dhp/test": {"pa_mpjpe": 59.4, "mpjpe": 93.5, "accel_error": 9.4},
        "h36m/val": {"pa_mpjpe": 38.4, "mpjpe": 58.4, "accel_error": 6.1},
    },
    "TCMR, quoted by Lee and Lee": {
        "3dpw/test": {"pa_mpjpe": 55.8, "mpjpe": 95.0, "pve": 111.5, "accel_error": 7.0},
        "mpi_inf_3dhp/test": {"pa_mpjpe": 62.8, "mpjpe": 97.4, "accel_error": 8.0},
        "h36m/val": {"pa_mpjpe": 41.1, "mpjpe": 62.3, "accel_error": 5.3},
    },
    "VIBE, quoted by Lee and Lee": {
        "3dpw/test": {"pa_mpjpe": 56.5, "mpjpe": 95.8, "pve": 113.4, "accel": 27.1},
        "mpi_inf_3dhp/test": {"pa_mpjpe": 63.4, "mpjpe": 97.7, "accel_error": 29.0},
        "h36m/val": {"pa_mpjpe": 41.5, "mpjpe": 65.9, "accel_error": 18.3},
    },
}
# VIBE's ablation on 3DPW, by protocol "published": by variant, or by name for features other than
# ours
ABLATION_OF: Final = ("3dpw/test", "published")
ABLATION: Final[Mapping[str, Mapping[str, float]]] = {
    "per frame, features of Kanazawa et al.": {
        "pa_mpjpe": 73.6,
        "mpjpe": 120.1,
        "pve": 142.7,
        "accel": 34.3,
    },
    "only G, features of Kanazawa et al.": {
        "pa_mpjpe": 75.8,
        "mpjpe": 126.1,
        "pve": 147.5,
        "accel": 28.3,
    },
    "G + D_M, features of Kanazawa et al.": {
        "pa_mpjpe": 72.4,
        "mpjpe": 116.7,
        "pve": 132.4,
        "accel": 27.8,
    },
    "per-frame": {"pa_mpjpe": 60.1, "mpjpe": 102.4, "pve": 129.2, "accel": 29.2},
    "generator-only": {"pa_mpjpe": 56.9, "mpjpe": 90.2, "pve": 109.5, "accel": 28.0},
    "mposer": {"pa_mpjpe": 54.1, "mpjpe": 87.0, "pve": 103.9, "accel": 28.2},
    "concat": {"pa_mpjpe": 53.7, "mpjpe": 85.9},
    "attention-2x512": {"pa_mpjpe": 54.2, "mpjpe": 86.6},
    "attention-2x1024": {"pa_mpjpe": 51.9, "mpjpe": 82.9, "pve": 99.1, "accel": 23.4},
    "attention-3x512": {"pa_mpjpe": 53.6, "mpjpe": 85.3},
    "attention-3x1024": {"pa_mpjpe": 52.4, "mpjpe": 82.7},
}
_COLUMNS: Final = (  # of `_HMMR`: split and error
    *(
        ("3dpw/test", name)
        for name in ("pck_aligned", "mpjpe", "pa_mpjpe", "accel_error", "pve", "pve_unposed")
    ),
    *(("h36m/val", name) for name in ("mpjpe", "pa_mpjpe", "accel_error")),
    *(("penn_action/test", name) for name in ("pck_aligned", "accel")),
)
# (model, source) -> numbers in the order of _COLUMNS; None: not published. On 3DPW and Human3.6M,
# the released models' column "accel_error" is the prediction's own acceleration, not an error.
_HMMR: Final[Mapping[tuple[str, str], tuple[float | None, ...]]] = {
    ("paper", HMMR_PAPER): (86.4, 127.1, 80.1, 16.4, 144.4, 25.8, 87.0, 58.1, 9.3, 77.9, 29.7),
    ("paper, + VLOG", HMMR_PAPER): (
        91.7,
        126.7,
        77.7,
        15.7,
        147.4,
        29.7,
        85.9,
        58.3,
        9.3,
        78.6,
        None,
    ),
    ("paper, + InstaVariety", HMMR_PAPER): (
        92.9,
        116.5,
        72.6,
        14.3,
        138.6,
        26.7,
        83.7,
        56.9,
        9.3,
        78.7,
        None,
    ),
    ("paper, single-view", HMMR_PAPER): (
        84.1,
        130.0,
        76.7,
        37.4,
        144.9,
        24.4,
        94.0,
        59.3,
        23.9,
        73.2,
        79.9,
    ),
    ("paper, single-view, + InstaVariety", HMMR_PAPER): (
        *(88.6, 126.5, 73.0, None, None, None),
        *(93.5, 59.5, None, 73.2, None),
    ),
    ("paper, no dynamics", HMMR_PAPER): (
        82.6,
        139.2,
        78.4,
        15.2,
        155.2,
        24.8,
        88.6,
        58.3,
        9.1,
        71.2,
        29.3,
    ),
    ("paper, no const", HMMR_PAPER): (
        86.5,
        128.3,
        78.2,
        16.6,
        145.9,
        27.5,
        83.5,
        57.8,
        9.3,
        78.1,
        None,
    ),
    ("released", HMMR_RELEASED): (
        *(92.961, 116.88, 72.66, 15.32, 139.34, 26.80),
        *(83.71, 56.92, 8.82, 79.553, 27.96),
    ),
    ("released, no MoSh", HMMR_RELEASED): (
        *(91.890, 128.03, 77.31, 16.35, 148.52, 27.56),
        *(88.95, 59.39, 8.51, 78.622, 28.94),
    ),
}


def _hmmr_figures(split: str) -> list[PublishedFigures]:
    """The figures of HMMR's models on one split, from the columns of `_HMMR`."""
    figures = []
    for (model, source), numbers in _HMMR.items():
        errors = {}
        for (column_split, name), value in zip(_COLUMNS, numbers, strict=True):
            if column_split == split and value is not None:
                errors[name] = value
        if source == HMMR_RELEASED and "accel_error" in errors:
            errors["accel"] = errors.pop("accel_error")
        figures.append(PublishedFigures(f"HMMR, {model}", False, source, split, errors, "hmmr"))
    return figures


def _all_figures() -> tuple[PublishedFigures, ...]:
    """The rows of all tables above, in the order in which reports print them."""
    figures = [PublishedFigures(*model, split, errors) for model, split, errors in _ROWS]
    for model, by_split in _PARTDYN.items():
        for split, errors in by_split.items():
            figures.append(PublishedFigures(model, False, PARTDYN_PAPER, split, errors))
    for split in dict.fromkeys(split for split, _ in _COLUMNS):
        figures += _hmmr_figures(split)
    return tuple(figures)


FIGURES: Final = _all_figures()
# PA-MPJPE by step in frames, of table 5, on Human3.6M. The paper does not explain its two rows of
# HMMR.
DYNAMICS: Final[Mapping[str, Mapping[str, Mapping[str, float]]]] = {
    "h36m/val": {
        "N.N., paper": {"-5": 71.6, "0": 50.9, "5": 70.7},
        "Const, paper": {"-5": 68.6, "0": 58.1, "5": 69.3},
        "HMMR 1, paper": {"-5": 65.0, "0": 58.1, "5": 65.3},
        "HMMR 2, paper": {"-5": 65.7, "0": 60.7, "5": 66.3},
    }
}


def figures_of(split: str) -> list[PublishedFigures]:
    """Published figures of a split.

    >>> published = [row for row in figures_of("h36m/val") if row.protocol == "published"]
    >>> [row.errors["pa_mpjpe"] for row in published]
    [41.5, 41.4, 38.4, 41.1, 41.5]
    """
    return [figures for figures in FIGURES if figures.split == split]
