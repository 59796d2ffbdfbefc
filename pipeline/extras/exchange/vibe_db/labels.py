"""Labels of rows of an opened database file, as columns of the cache.  [database files -> tracks],
features

Joints that the dataset does not annotate have confidence 0; bodies and 3D joints that are all zeros
or not finite are unknown (`has_smpl` 0, `has_3d` 0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from cache.read.labels import COMMON_JOINTS
from pipeline.extras.exchange.vibe_db.database import PICTURE, Database, DatabaseLayout
from pipeline.people.skeletons import (
    HIP,
    Array,
    Bools,
    Float32s,
    add_confidence,
    are_usable_numbers,
    convert,
    correspondence,
    zero_invalid_joints,
)
from pipeline.people.smpl_files import N_POSE

Labels = dict[str, Array]  # column of the cache -> values of some rows

# m, the median absolute coordinate of the joints: in mm, any body has a larger one
_FARTHEST_JOINT: Final = 10.0
OTHER_UNIT: Final = "Take the file as VIBE's scripts write it, in m and rad."


@dataclass(frozen=True, slots=True)
class LabelReader:
    """Reads rows of a database file as the columns that it can fill."""

    database: Database
    layout: DatabaseLayout
    needs_evaluation: bool  # whether the split has kp_3d_eval, besides kp_3d

    @property
    def columns(self) -> tuple[str, ...]:
        """The cache's columns that the file can fill, besides frame_index."""
        return sum(self._readers(), ())

    def read(self, rows: range) -> Labels:
        """Rows of the file as columns. Raises RawDataError for values that violate the layout."""
        labels: Labels = {}
        for read_columns in self._readers().values():
            labels |= read_columns(rows)
        return labels

    def _readers(self) -> dict[tuple[str, ...], Callable[[range], Labels]]:
        """Columns -> the method that reads them, in the order of the columns."""
        fields = self.database.fields
        readers: dict[tuple[str, ...], Callable[[range], Labels]] = {}
        if "joints2D" in fields:
            readers["bbox", "kp_2d"] = self._keypoints
        if "joints3D" in fields:
            if self.layout.joints_3d == "common14":
                readers["has_3d", "kp_3d_eval"] = self._common_joints
            elif self.needs_evaluation:
                readers["has_3d", "kp_3d", "kp_3d_eval"] = self._joints_and_common_joints
            else:
                readers["has_3d", "kp_3d"] = self._joints
        if "theta" in fields or {"pose", "shape"} <= fields.keys():
            readers["pose", "betas", "has_smpl"] = self._bodies
        if "valid" in fields or "valid_i" in fields:
            readers[("valid",)] = self._valid
        return readers

    def _keypoints(self, rows: range) -> Labels:
        stored = self.database.read("joints2D", rows)
        joints = stored.astype(np.float64)
        in_spin49 = convert(joints, source=self.layout.joints_2d, target="spin49")
        kp_2d, _ = zero_invalid_joints(in_spin49)
        kp_2d[..., 2] = np.clip(kp_2d[..., 2], 0, 1)
        return {"kp_2d": kp_2d.astype(np.float32), "bbox": self._boxes(rows)}

    def _boxes(self, rows: range) -> Float32s:
        """Boxes (n, 4) px; the whole image where images are crops. Raises RawDataError for boxes
        that are not square.
        """
        if self.layout.in_crops:
            centre = PICTURE / 2
            box = np.array([centre, centre, PICTURE, PICTURE], np.float32)
            return np.tile(box, (len(rows), 1))
        bbox = self.database.read("bbox", rows).astype(np.float32)
        is_finite = np.isfinite(bbox).all(axis=1)
        is_oblong = is_finite & (bbox[:, 2] != bbox[:, 3])
        if is_oblong.any():
            row = int(is_oblong.argmax())
            expected = "square boxes: centre x, centre y, width, height in px"
            actual = f"{bbox[row].tolist()} in row {rows[row]}"
            raise self.database.error("bbox", expected, actual)
        return bbox

    def _common_joints(self, rows: range) -> Labels:
        joints = self._read_3d(rows)
        has_3d = _have_body(joints)
        return {"kp_3d_eval": _nan_unless(has_3d, joints), "has_3d": has_3d.astype(np.uint8)}

    def _joints_and_common_joints(self, rows: range) -> Labels:
        labels = self._joints(rows)
        common = convert(labels["kp_3d"][..., :3], source="spin49", target="common14")
        return labels | {"kp_3d_eval": _nan_unless(labels["has_3d"] == 1, common)}

    def _joints(self, rows: range) -> Labels:
        """The columns of 3D joints in spin49, about the pelvis."""
        joints = self._read_3d(rows)
        joints = joints - joints[:, HIP : HIP + 1]
        annotated = correspondence(self.layout.known_3d, "spin49")[1]  # joints of the dataset
        is_annotated = np.isin(np.arange(joints.shape[1]), annotated)  # (49,)
        are_finite = np.isfinite(joints[:, annotated]).all(axis=(1, 2))
        has_3d = _have_body(joints[:, COMMON_JOINTS]) & are_finite  # (n,) rows
        # A joint exactly at the pelvis is not annotated in this row.
        is_present: Bools = np.asarray(joints.any(axis=-1))  # (n, 49)
        is_present[:, HIP] = True
        is_labelled = is_annotated & is_present & has_3d[:, None]  # (n, 49)
        kp_3d = np.where(is_labelled[..., None], add_confidence(joints), 0)
        return {"kp_3d": kp_3d.astype(np.float32), "has_3d": has_3d.astype(np.uint8)}

    def _read_3d(self, rows: range) -> Array:
        """joints3D, (n, J, 3) m. Raises RawDataError if the joints of a row are so far from the
        pelvis that they must be in mm.
        """
        joints = self.database.read("joints3D", rows).astype(np.float64)
        flat = joints.reshape(len(joints), -1)
        coordinates = np.abs(flat)
        is_labelled = np.isfinite(coordinates) & (coordinates != 0)
        labelled_rows = np.flatnonzero(is_labelled.any(axis=1))
        labelled = np.where(is_labelled, coordinates, np.nan)[labelled_rows]
        distances = np.nanmedian(labelled, axis=1)
        is_far = distances > _FARTHEST_JOINT
        if is_far.any():
            first = int(np.argmax(is_far))
            row = rows[labelled_rows[first]]
            expected = "joints in m, relative to the pelvis"
            actual = f"{distances[first]:.0f}, as in mm, in row {row}"
            raise self.database.error("joints3D", expected, actual, OTHER_UNIT)
        return joints

    def _bodies(self, rows: range) -> Labels:
        """The columns of SMPL's parameters: theta, or its parts, pose and betas."""
        fields = ("theta",) if "theta" in self.database.fields else ("pose", "shape")
        parts = [self.database.read(field, rows) for field in fields]
        theta = np.concatenate(parts, axis=1)
        is_in_range = are_usable_numbers(theta).all(axis=1)
        has_smpl = np.asarray(is_in_range & theta.any(axis=1))
        theta = _nan_unless(has_smpl, theta)
        return {
            "pose": theta[:, :N_POSE],
            "betas": theta[:, N_POSE:],
            "has_smpl": has_smpl.astype(np.uint8),
        }

    def _valid(self, rows: range) -> Labels:
        field = "valid" if "valid" in self.database.fields else "valid_i"
        stored = self.database.read(field, rows).reshape(len(rows))
        with np.errstate(invalid="ignore"):
            is_valid = stored > 0
        return {"valid": is_valid.astype(np.uint8)}


def _have_body(joints: Array) -> Bools:
    """Joints (n, J, 3) -> (n,) whether they are finite, in range, and not all at one point."""
    with np.errstate(invalid="ignore"):
        are_in_range = are_usable_numbers(joints).all(axis=(1, 2))
        are_apart = (joints != joints[:, :1]).any(axis=(1, 2))
    return np.asarray(are_in_range & are_apart)


def _nan_unless(is_known: Bools, values: Array) -> Float32s:
    """Values (n, ...) with NaN in rows that are not known. is_known: (n,)."""
    n_trailing = values.ndim - 1
    row_is_known = is_known.reshape(-1, *[1] * n_trailing)
    return np.where(row_is_known, values, np.nan).astype(np.float32)
