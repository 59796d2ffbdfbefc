"""Columns of MHR bodies (Momentum Human Rig), as SAM 3D Body estimates them.  raw -> [tracks]

Ferguson et al.: MHR: Momentum Human Rig, 2025. Parameters are kept as a file has them: nothing here
poses the body.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import cache
from pipeline.clips.labels.sam_3d_body import MHR, NAMES, TOOL
from pipeline.people.cameras import mirrored_axis
from pipeline.people.skeletons import Floats, opposite_joints

_OPPOSITE: Final = opposite_joints(NAMES)


def _mirror_joints(joints: Floats) -> Floats:
    """Mirror joints (N, 70, 3) m."""
    return mirrored_axis(joints[:, _OPPOSITE])


def _refuse_mirror(_parameters: Floats) -> Floats:
    raise cache.CacheError(
        "mhr_*_params: MHR's parameters cannot be mirrored. Leave them out of `fields`, or read "
        "them with stream=None or a stream without mirrored crops."
    )


MHR_JOINTS: Final = cache.ExtraColumn(
    name="mhr_joints",
    about=f"{TOOL}'s {len(NAMES)} joints: camera axes, about the middle of the hips",
    unit="m",
    shape=(len(NAMES), 3),
    mirror=_mirror_joints,
    gaps=True,
)
#: by the key of a person's dict
MHR_COLUMNS: Final = {
    key: replace(
        MHR_JOINTS,
        name=f"mhr_{key.removeprefix('mhr_')}",
        about=f"{TOOL}'s {key}, of MHR's body",
        unit="",
        shape=(n,),
        mirror=_refuse_mirror,
    )
    for key, n in MHR.items()
}
MHR_MIRRORS: Final[dict[str, Any]] = {
    column.name: column.mirror for column in (MHR_JOINTS, *MHR_COLUMNS.values())
}
