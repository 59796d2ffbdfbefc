"""Published figures of VIBE, HMMR and part dynamics on the real test sets.  training ->
[evaluation]

Kocabas et al., "VIBE: Video Inference for Human Body Pose and Shape Estimation", CVPR 2020: the
paper's results, and the scores of its published checkpoint, by `protocol = "published"`. Kanazawa
et al., "Learning 3D Human Dynamics from Video", CVPR 2019: tables 2, 5, 6 and 7, and the scores of
its released models (doc/eval.md of human_dynamics), by `protocol = "hmmr"`. Lee and Lee,
"Uncertainty-Aware Human Mesh Recovery from Video by Learning Part-Based 3D Dynamics", ICCV 2021:
its table, which quotes VIBE and TCMR.

Reports print them beside a run's own errors: `FIGURES`, `ABLATION` and `DYNAMICS`. The
columns of their tables are named as in metrics.json; `-` is a number that was not published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

PAPER: Final = "Kocabas et al., CVPR 2020"
CHECKPOINT: Final = "the published checkpoint vibe_model_wo_3dpw.pth.tar"
PARTDYN_PAPER: Final = "Lee and Lee, ICCV 2021"
HMMR_PAPER: Final = "Kanazawa et al., CVPR 2019"
HMMR_RELEASED: Final = "doc/eval.md of github.com/akanazawa/human_dynamics"


@dataclass(frozen=True, slots=True)
class _PublishedFigures:
    """One model's published errors on one split: mm, accelerations mm per frame^2, PCK %."""

    model: str
    source: str
    split: str
    errors: Mapping[str, float]  # by the names in metrics.json
    protocol: str = "published"


def _rows(table: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the label of each row of a table, and its numbers by column."""
    header, *lines = table.strip().splitlines()
    columns = header.rpartition("|")[2].split()
    for line in lines:
        label, _, numbers = line.rpartition("|")
        by_column = zip(columns, numbers.split(), strict=True)
        yield label.strip(), {name: float(number) for name, number in by_column if number != "-"}


def _figures(source: str, table: str, protocol: str = "published") -> Iterator[_PublishedFigures]:
    """Yield the rows of a table of splits and models."""
    for label, errors in _rows(table):
        split, model = map(str.strip, label.split("|"))
        yield _PublishedFigures(model, source, split, errors, protocol)


_VIBE: Final = """
split             | model                        | pa_mpjpe mpjpe pve accel pck
3dpw/test         | VIBE, paper, no 3DPW train   | 56.5 93.5 113.4 27.1    -
mpi_inf_3dhp/test | VIBE, paper, no 3DPW train   | 63.4 97.7     -    - 89.0
h36m/val          | VIBE, paper, no 3DPW train   | 41.5 65.9     -    -    -
3dpw/test         | VIBE, paper, with 3DPW train | 51.9 82.9  99.1 23.4    -
mpi_inf_3dhp/test | VIBE, paper, with 3DPW train | 64.6 96.6     -    - 89.3
h36m/val          | VIBE, paper, with 3DPW train | 41.4 65.6     -    -    -
"""
_CHECKPOINT: Final = """
split     | model                           | pa_mpjpe mpjpe pve accel accel_error
3dpw/test | VIBE, checkpoint, no 3DPW train | 56.5608 93.5881 113.4118 27.1242 27.9877
"""
# VIBE's acceleration on 3DPW is the prediction's own, as in VIBE's paper.
_PARTDYN: Final = """
split             | model                       | pa_mpjpe mpjpe pve accel accel_error
3dpw/test         | part dynamics, paper        | 52.2 92.8 106.1    -  6.8
mpi_inf_3dhp/test | part dynamics, paper        | 59.4 93.5     -    -  9.4
h36m/val          | part dynamics, paper        | 38.4 58.4     -    -  6.1
3dpw/test         | TCMR, quoted by Lee and Lee | 55.8 95.0 111.5    -  7.0
mpi_inf_3dhp/test | TCMR, quoted by Lee and Lee | 62.8 97.4     -    -  8.0
h36m/val          | TCMR, quoted by Lee and Lee | 41.1 62.3     -    -  5.3
3dpw/test         | VIBE, quoted by Lee and Lee | 56.5 95.8 113.4 27.1    -
mpi_inf_3dhp/test | VIBE, quoted by Lee and Lee | 63.4 97.7     -    - 29.0
h36m/val          | VIBE, quoted by Lee and Lee | 41.5 65.9     -    - 18.3
"""
_HMMR: Final = """
split | model | pa_mpjpe mpjpe pve pve_unposed accel accel_error pck_aligned
3dpw/test        | HMMR, paper                              | 80.1 127.1 144.4 25.8    - 16.4 86.4
3dpw/test        | HMMR, paper, + VLOG                      | 77.7 126.7 147.4 29.7    - 15.7 91.7
3dpw/test        | HMMR, paper, + InstaVariety              | 72.6 116.5 138.6 26.7    - 14.3 92.9
3dpw/test        | HMMR, paper, single-view                 | 76.7 130.0 144.9 24.4    - 37.4 84.1
3dpw/test        | HMMR, paper, single-view, + InstaVariety | 73.0 126.5     -    -    -    - 88.6
3dpw/test        | HMMR, paper, no dynamics                 | 78.4 139.2 155.2 24.8    - 15.2 82.6
3dpw/test        | HMMR, paper, no const                    | 78.2 128.3 145.9 27.5    - 16.6 86.5
h36m/val         | HMMR, paper                              | 58.1  87.0     -    -    -  9.3    -
h36m/val         | HMMR, paper, + VLOG                      | 58.3  85.9     -    -    -  9.3    -
h36m/val         | HMMR, paper, + InstaVariety              | 56.9  83.7     -    -    -  9.3    -
h36m/val         | HMMR, paper, single-view                 | 59.3  94.0     -    -    - 23.9    -
h36m/val         | HMMR, paper, single-view, + InstaVariety | 59.5  93.5     -    -    -    -    -
h36m/val         | HMMR, paper, no dynamics                 | 58.3  88.6     -    -    -  9.1    -
h36m/val         | HMMR, paper, no const                    | 57.8  83.5     -    -    -  9.3    -
penn_action/test | HMMR, paper                              |    -     -     -    - 29.7    - 77.9
penn_action/test | HMMR, paper, + VLOG                      |    -     -     -    -    -    - 78.6
penn_action/test | HMMR, paper, + InstaVariety              |    -     -     -    -    -    - 78.7
penn_action/test | HMMR, paper, single-view                 |    -     -     -    - 79.9    - 73.2
penn_action/test | HMMR, paper, single-view, + InstaVariety |    -     -     -    -    -    - 73.2
penn_action/test | HMMR, paper, no dynamics                 |    -     -     -    - 29.3    - 71.2
penn_action/test | HMMR, paper, no const                    |    -     -     -    -    -    - 78.1
"""
# On 3DPW and Human3.6M, its column "accel_error" has the prediction's own acceleration.
_HMMR_RELEASED: Final = """
split            | model                   | pa_mpjpe mpjpe pve pve_unposed accel pck_aligned
3dpw/test        | HMMR, released          | 72.66 116.88 139.34  26.8 15.32 92.961
3dpw/test        | HMMR, released, no MoSh | 77.31 128.03 148.52 27.56 16.35  91.89
h36m/val         | HMMR, released          | 56.92  83.71      -     -  8.82      -
h36m/val         | HMMR, released, no MoSh | 59.39  88.95      -     -  8.51      -
penn_action/test | HMMR, released          |     -      -      -     - 27.96 79.553
penn_action/test | HMMR, released, no MoSh |     -      -      -     - 28.94 78.622
"""
FIGURES: Final = (  # in the order in which reports print them
    *_figures(PAPER, _VIBE),
    *_figures(CHECKPOINT, _CHECKPOINT),
    *_figures(PARTDYN_PAPER, _PARTDYN),
    *_figures(HMMR_PAPER, _HMMR, "hmmr"),
    *_figures(HMMR_RELEASED, _HMMR_RELEASED, "hmmr"),
)

# VIBE's ablation on 3DPW, by protocol "published": by variant, or by name for features other than
# ours
ABLATION_OF: Final = ("3dpw/test", "published")
_ABLATION: Final = """
variant                                | pa_mpjpe mpjpe pve accel
per frame, features of Kanazawa et al. | 73.6 120.1 142.7 34.3
only G, features of Kanazawa et al.    | 75.8 126.1 147.5 28.3
G + D_M, features of Kanazawa et al.   | 72.4 116.7 132.4 27.8
per-frame                              | 60.1 102.4 129.2 29.2
generator-only                         | 56.9  90.2 109.5 28.0
mposer                                 | 54.1  87.0 103.9 28.2
concat                                 | 53.7  85.9     -    -
attention-2x512                        | 54.2  86.6     -    -
attention-2x1024                       | 51.9  82.9  99.1 23.4
attention-3x512                        | 53.6  85.3     -    -
attention-3x1024                       | 52.4  82.7     -    -
"""
ABLATION: Final = dict(_rows(_ABLATION))
# PA-MPJPE by step in frames, of table 5, on Human3.6M. The paper does not explain its two rows of
# HMMR.
_DYNAMICS: Final = """
model         |   -5    0    5
N.N., paper   | 71.6 50.9 70.7
Const, paper  | 68.6 58.1 69.3
HMMR 1, paper | 65.0 58.1 65.3
HMMR 2, paper | 65.7 60.7 66.3
"""
DYNAMICS: Final = {"h36m/val": dict(_rows(_DYNAMICS))}
