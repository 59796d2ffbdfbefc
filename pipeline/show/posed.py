"""The 3D joints that a page draws, from labels or from the posed body.  tracks -> [3D joints] -> page"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.skeletons import JOINTS, convert

if TYPE_CHECKING:
    from pipeline.body import Body

PELVIS: Final = JOINTS["spin49"].index("hip")
HIPS: Final = [JOINTS["spin49"].index(name) for name in ("rhip", "lhip")]
WITHOUT_BODY: Final = "SMPL parameters only: name a body model (--body DIR) to see the body posed"


class Joints3D(NamedTuple):
    """Of n frames: (n, 49, 4) m m m confidence, pelvis at 0, or None; and in words what they are, or why not."""

    joints: NDArray[np.float64] | None
    what: str


def joints_3d(rows: Mapping[str, NDArray[Any]], body: Path | None) -> Joints3D:
    """`kp_3d` where there is such a column, else `kp_3d_eval`, else the neutral body in `pose` with `betas`."""
    n_frames = len(rows["frame_index"])
    if "kp_3d" in rows:
        joints = _known(rows["kp_3d"].astype(np.float64), rows.get("has_3d"))
        return Joints3D(joints, "kp_3d: 3D joints as labelled")
    if "kp_3d_eval" in rows:
        confident = np.concatenate([rows["kp_3d_eval"], np.ones((n_frames, 14, 1))], axis=-1)
        joints = convert(confident, source="common14", target="spin49")
        centre = joints[:, HIPS, :3].mean(axis=1, keepdims=True)  # common14 has no pelvis
        joints[..., :3] = np.where(joints[..., 3:] > 0, joints[..., :3] - centre, 0)
        return Joints3D(_known(joints, rows.get("has_3d")), "kp_3d_eval: the 14 joints that evaluation compares")
    if "pose" not in rows or "betas" not in rows:
        return Joints3D(None, "no 3D labels")
    if body is None:
        return Joints3D(None, WITHOUT_BODY)
    joints = np.ones((n_frames, 49, 4))
    joints[..., :3] = _posed(load_body(body), rows["pose"], rows["betas"])
    joints[..., :3] -= joints[:, PELVIS : PELVIS + 1, :3]
    return Joints3D(_known(joints, rows.get("has_smpl")), "the neutral body, posed by pose and betas")


@functools.lru_cache(maxsize=1)
def load_body(folder: Path) -> Body:
    """The neutral body model. Raises as `Body.load` does."""
    from pipeline.body import Body  # imports torch

    return Body.load(folder)


def _known(joints: NDArray[np.float64], flag: NDArray[Any] | None) -> NDArray[np.float64]:
    """The same, with confidence 0 in frames whose flag says that they are not known, and where a number is none."""
    out = joints.copy()
    out[~np.isfinite(out).all(axis=-1)] = 0
    if flag is not None:
        out[flag != 1, :, 3] = 0
    return out


def _posed(body: Body, pose: NDArray[Any], betas: NDArray[Any]) -> NDArray[np.float64]:
    """pose (n, 72) rad and betas (n, 10) -> (n, 49, 3) m. Frames that are not finite come out as NaN."""
    finite = np.isfinite(pose).all(axis=1) & np.isfinite(betas).all(axis=1)
    out = np.full((len(pose), 49, 3), np.nan)
    if finite.any():
        out[finite], _ = body.posed_joints(pose[finite], betas[finite])
    return out
