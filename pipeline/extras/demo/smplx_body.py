"""The procedural body in SMPL-X's file format.  [body files] -> raw

It has the surface and the first 22 joints of the procedural SMPL body, whose hands move with the
wrists. Further joints (jaw, eyes, fingers) rest in the head and the hands, and move nothing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pipeline.extras.demo.body import procedural
from pipeline.people.skeletons import Array
from pipeline.people.smpl_files import N_BETAS, SMPLX_N_EXPRESSION, SMPLX_N_JOINTS

N_BODY: Final = 22  # joints that both models have
HEAD: Final = 15
WRISTS: Final = [20, 21]  # left, right
HANDS: Final = [22, 23]  # SMPL's, at the fingers
N_HAND: Final = 15  # joints of a hand
BEND: Final = 0.1  # rad of the mean hands, about every axis


def procedural_smplx(gender: str) -> dict[str, Any]:
    """The arrays of a gender's file, by SMPL-X's keys."""
    body = procedural(gender)
    # where SMPL's joints are, and the parents, of jaw and eyes, and of both hands
    rests = [*range(N_BODY), *[HEAD] * 3, *np.repeat(HANDS, N_HAND)]
    parents = [*body.parents[:N_BODY], *[HEAD] * 3, *np.repeat(WRISTS, N_HAND)]
    weights = _widen(body.weights[:, :N_BODY], SMPLX_N_JOINTS)
    weights[:, WRISTS] += body.weights[:, HANDS]
    n_shared = 9 * (N_BODY - 1)  # correctives of the joints that both models have
    kintree = np.stack([parents, np.arange(SMPLX_N_JOINTS)])
    hands: dict[str, Any] = {f"hands_mean{side}": np.full(3 * N_HAND, BEND) for side in "lr"}
    hands |= {f"hands_components{side}": np.eye(3 * N_HAND) for side in "lr"}
    return {
        "v_template": body.v_template,
        "shapedirs": _widen(body.shapedirs, N_BETAS + SMPLX_N_EXPRESSION),
        "posedirs": _widen(body.posedirs[..., :n_shared], 9 * (SMPLX_N_JOINTS - 1)),
        "J_regressor": body.J_regressor[rests],
        "weights": weights,
        "kintree_table": (kintree % 2**32).astype(np.uint32),
        "f": body.faces.astype(np.uint32),
        **hands,
    }


def _widen(array: Array, n_columns: int) -> Array:
    """An array with zeros behind its last axis, up to so many columns."""
    before = [(0, 0)] * (array.ndim - 1)
    return np.pad(array, [*before, (0, n_columns - array.shape[-1])])
