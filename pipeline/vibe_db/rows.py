"""What a database file's rows mean, as the cache has it.  [database files -> tracks], features

Nothing that the file does not say is filled in: a joint that its dataset does not annotate has confidence 0, a body
that is all zeros or not finite is unknown (`has_smpl` 0), and so are 3D joints (`has_3d` 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.skeletons import JOINTS, LARGEST, Skeleton, convert, correspondence, without_non_finite
from pipeline.vibe_db.layouts import COMMON, PICTURE, Layout
from pipeline.vibe_db.stored import Database

Columns = dict[str, NDArray[Any]]
Bools = NDArray[np.bool_]

PELVIS: Final = JOINTS["spin49"].index("hip")
N_POSE: Final = 72


def columns_of(database: Database, layout: Layout, *, evaluation: bool) -> tuple[str, ...]:
    """The cache's columns that the file can fill."""
    fields = database.fields
    columns = ["frame_index"]
    if "joints2D" in fields:
        columns += ["bbox", "kp_2d"]
    if "joints3D" in fields:
        columns += ["has_3d"]
        if layout.joints_3d == "spin49":
            columns += ["kp_3d"]
        if evaluation or layout.joints_3d == "common14":
            columns += ["kp_3d_eval"]
    if "theta" in fields or {"pose", "shape"} <= fields.keys():
        columns += ["pose", "betas", "has_smpl"]
    if "valid" in fields or "valid_i" in fields:
        columns += ["valid"]
    return tuple(columns)


def converted(database: Database, layout: Layout, columns: tuple[str, ...], start: int, stop: int) -> Columns:
    """Rows [start, stop) as the columns, frame_index aside. Raises RawDataError for what contradicts the layout."""
    out: Columns = {}
    if "kp_2d" in columns:
        out["kp_2d"] = _kp_2d(database.read("joints2D", start, stop), layout.joints_2d)
        out["bbox"] = _boxes(database, layout, start, stop)
    if "has_3d" in columns:
        out |= _labels_3d(database.read("joints3D", start, stop), layout, columns)
    if "has_smpl" in columns:
        out |= _smpl(database, start, stop)
    if "valid" in columns:
        field = "valid" if "valid" in database.fields else "valid_i"
        with np.errstate(invalid="ignore"):
            out["valid"] = (database.read(field, start, stop).reshape(stop - start) > 0).astype(np.uint8)
    return out


def dropped_rows(columns: Mapping[str, NDArray[Any]]) -> dict[str, Bools]:
    """Reason -> the rows that cannot be used, each under the first reason that applies."""
    if "bbox" not in columns:
        return {}
    bbox = columns["bbox"]
    bad_box = ~((np.abs(bbox) < LARGEST).all(axis=1) & (bbox[:, 2] > 0))
    invisible = ~(columns["kp_2d"][..., 2] > 0).any(axis=1)
    return {"degenerate_box": bad_box, "no_visible_joint": invisible & ~bad_box}


def _kp_2d(joints: NDArray[Any], skeleton: Skeleton) -> NDArray[np.float32]:
    """(n, 49, 3) px px confidence 0 to 1; (0, 0, 0) for a joint that is at no place."""
    kp_2d, _ = without_non_finite(convert(joints.astype(np.float64), source=skeleton, target="spin49"))
    kp_2d[..., 2] = np.clip(kp_2d[..., 2], 0, 1)
    return kp_2d.astype(np.float32)


def _boxes(database: Database, layout: Layout, start: int, stop: int) -> NDArray[np.float32]:
    if layout.in_crops:
        return np.tile(np.array([PICTURE / 2, PICTURE / 2, PICTURE, PICTURE], np.float32), (stop - start, 1))
    bbox = database.read("bbox", start, stop).astype(np.float32)
    if (bad := np.flatnonzero((bbox[:, 2] != bbox[:, 3]) & np.isfinite(bbox).all(axis=1))).size:
        found = f"{bbox[bad[0]].tolist()} in row {start + int(bad[0])}"
        raise database.error("bbox", "square boxes: centre x, centre y, width, height in px", found)
    return bbox


def _labels_3d(joints: NDArray[Any], layout: Layout, columns: tuple[str, ...]) -> Columns:
    joints = joints.astype(np.float64)
    if layout.joints_3d == "common14":
        known = _are_known(joints)
        return {"kp_3d_eval": _where(known, joints), "has_3d": known.astype(np.uint8)}
    joints = joints - joints[:, PELVIS : PELVIS + 1]
    named = np.zeros(len(JOINTS["spin49"]), bool)
    named[correspondence(layout.known_3d, "spin49")[1]] = True
    there = named & (joints.any(axis=-1) | (np.arange(len(named)) == PELVIS))  # a joint at the pelvis is none
    known = _are_known(joints[:, COMMON]) & np.isfinite(joints[:, named]).all(axis=(1, 2))
    kp_3d = np.concatenate([joints, np.ones((*joints.shape[:2], 1))], axis=2)
    kp_3d = np.where((there & known[:, None])[..., None], kp_3d, 0).astype(np.float32)
    out: Columns = {"kp_3d": kp_3d, "has_3d": known.astype(np.uint8)}
    if "kp_3d_eval" in columns:
        common = convert(kp_3d[..., :3], source="spin49", target="common14")
        out["kp_3d_eval"] = _where(known, common)
    return out


def _are_known(joints: NDArray[Any]) -> Bools:
    """(n, J, 3) -> rows whose joints are numbers, and not all at one place."""
    with np.errstate(invalid="ignore"):
        known: Bools = (np.abs(joints) < LARGEST).all(axis=(1, 2)) & (joints != joints[:, :1]).any(axis=(1, 2))
    return known


def _smpl(database: Database, start: int, stop: int) -> Columns:
    if "theta" in database.fields:
        theta = database.read("theta", start, stop)
    else:
        theta = np.concatenate([database.read("pose", start, stop), database.read("shape", start, stop)], axis=1)
    known = (np.abs(theta) < LARGEST).all(axis=1) & theta.any(axis=1)
    theta = _where(known, theta)
    return {"pose": theta[:, :N_POSE], "betas": theta[:, N_POSE:], "has_smpl": known.astype(np.uint8)}


def _where(known: Bools, values: NDArray[Any]) -> NDArray[np.float32]:
    """Unknown rows as NaN, which no datum is."""
    return np.where(known.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan).astype(np.float32)
