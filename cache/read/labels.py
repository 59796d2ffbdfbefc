"""Compute the label fields of a batch from the stored columns.  tracks -> features -> [windows] ->
training

`cache/read/batches.py` makes one `LabelFields` per batch, asks it to fill arrays with fields such
as `kp_2d`, and mirrors rows whose crops are mirrored (`mirror`).

Columns hold NaN where a label is unknown; a batch has 0 there, with weight 0, and never NaN.
Keypoints are normalised to the crop that the network saw. For speed, x, y and z are computed
separately, with joints as the last axis, and unknown values are set to 0 with a bit mask.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Array, Bools, Doubles, Floats, Keys
from cache.crop_policy import CropPolicy

# Takes a column's name. Returns its rows (B, T, *trailing) as stored, or None if the split has no
# such column.
_ReadColumn = Callable[[str], Array | None]

N_JOINTS: Final = 49
COMMON_JOINTS: Final = slice(25, 39)  # the 14 joints that 3D losses and metrics compare
_N_EVAL_JOINTS: Final = 14
_N_THETA: Final = 85  # camera 3, pose 72, betas 10
# Parts of theta, whose first three numbers are the camera: scale, tx, ty.
POSE: Final = slice(3, 75)  # axis-angle of 24 joints, rad; the first one is the global orientation
BETAS: Final = slice(75, 85)  # SMPL's shape
FIELDS: Final = ("kp_2d", "kp_3d", "theta", "w_3d", "w_smpl", "valid")
# the sum of rows with some of COMMON_JOINTS, in the manifests of splits with such rows
SOME_3D: Final = "rows_some_3d"
# Splits with this column have a field of the same name, and return it as `kp_3d`, too.
EVAL_JOINTS: Final = "kp_3d_eval"
JOINTS_49: Final = "kp_3d_49"  # the column kp_3d, also in those splits
JOINT_WEIGHTS: Final = "w_kp_3d"  # which of these 49 joints are known
HANDS: Final = "kp_2d_hands"  # the column in crop coordinates
# fields and columns that depend on the crop or on mirroring
IN_CROP: Final = frozenset(
    {"kp_2d", HANDS, "kp_3d", EVAL_JOINTS, JOINTS_49, JOINT_WEIGHTS, "theta", "pose", "trans"}
)

# Left-right permutations: joint i of a mirrored image is joint MIRRORED[i] of the original.
MIRRORED_14: Final = (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13)
MIRRORED_49: Final = (
    # BODY_25
    *(0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, 22, 23, 24, 19, 20, 21),
    *(25 + joint for joint in MIRRORED_14),
    *(39, 40, 41, 42, 43, 44, 46, 45, 48, 47),
)
MIRRORED_HANDS: Final = (*range(21, 42), *range(21))
MIRRORED_SMPL: Final = (
    *(0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22),
)

# number of joints -> their order in a mirrored image
_MIRRORED: Final = {len(joints): joints for joints in (MIRRORED_14, MIRRORED_49, MIRRORED_HANDS)}
_NOT_MIRRORED: Final = np.zeros((), bool)  # broadcasts to (B, T): no row is mirrored


class StreamCrops(NamedTuple):
    """How a stream's crops differ from the boxes of the B windows' tracks."""

    policy: CropPolicy
    seeds: Keys  # (B,) random seeds of the tracks, from `CropPolicy.seeds`


class _NetworkCrops(NamedTuple):
    """The crops that the network saw."""

    bbox: Floats | None  # (B, T, 4); None when the split has no boxes
    mirrored: Bools  # (B, T), or _NOT_MIRRORED


class LabelFields:
    """The fields of one batch of B windows of T frames.

    Args:
        read_column: called once for each column that the wanted fields need.
        crop_scale: (B,) crop side / box side of the windows' tracks.
        find_crops: called if a field depends on the crop. Returns how the network's crops were cut;
            None if they are the tracks' boxes.
    """

    def __init__(
        self,
        read_column: _ReadColumn,
        crop_scale: Doubles,
        find_crops: Callable[[], StreamCrops | None],
    ) -> None:
        self._column = functools.cache(read_column)
        self._crop_scale = crop_scale
        self._find_crops = find_crops

    def trailing(self, name: str) -> tuple[int, ...]:
        """The shape of a field behind (B, T)."""
        if name == "theta":
            return (_N_THETA,)
        if name == EVAL_JOINTS:
            return (_N_EVAL_JOINTS, 3)
        if name == "kp_3d" and self._column(EVAL_JOINTS) is not None:
            return (_N_EVAL_JOINTS, 3)
        if name == HANDS:
            return (len(MIRRORED_HANDS), 3)
        if name == JOINT_WEIGHTS:
            return (N_JOINTS,)
        return (N_JOINTS, 3) if name in ("kp_2d", "kp_3d", JOINTS_49) else ()

    def fill(self, name: str, out: Floats) -> None:
        """Fill out (B, T, *trailing(name)) with one of FIELDS, EVAL_JOINTS, JOINTS_49,
        JOINT_WEIGHTS or HANDS.
        """
        if name in ("kp_2d", HANDS):
            self._kp_2d(name, out)
        elif name in ("kp_3d", EVAL_JOINTS, JOINTS_49):
            self._kp_3d(out)
        elif name == "theta":
            self._theta(out)
        elif name == "w_3d":
            out[...] = self._known_3d()
        elif name == JOINT_WEIGHTS:
            out[...] = False if self._known_joints is None else self._known_joints
        elif name == "w_smpl":
            out[...] = self._known_smpl
        else:
            self._valid(out)

    @property
    def mirrored_rows(self) -> Bools:
        """Whether the crop of each row was mirrored: (B, T), or () False if no crop was."""
        if self._stream_crops is None:
            return _NOT_MIRRORED
        return self._crops.mirrored

    @cached_property
    def _stream_crops(self) -> StreamCrops | None:
        return self._find_crops()

    def _kp_2d(self, name: str, out: Floats) -> None:
        kp_2d = self._column(name)
        bbox = self._crops.bbox
        if kp_2d is None or bbox is None:
            out.fill(0)
        else:
            normalise_keypoints(kp_2d, bbox, self._crop_scale, out)

    @cached_property
    def _crops(self) -> _NetworkCrops:
        bbox = self._column("bbox")
        if self._stream_crops is not None and bbox is not None:
            frame = self._column("frame_index")
            if frame is not None:
                policy, seeds = self._stream_crops
                scale = self._crop_scale[:, None]
                return _NetworkCrops(*policy.boxes(bbox, scale, seeds[:, None], frame))
        return _NetworkCrops(bbox, _NOT_MIRRORED)

    def _kp_3d(self, out: Floats) -> None:
        evaluation = self._column(EVAL_JOINTS)
        kp_3d = self._column("kp_3d")
        if evaluation is not None and out.shape[2] == _N_EVAL_JOINTS:
            out[...] = evaluation
            finite = np.isfinite(evaluation)
            if not finite.all():
                out[~finite] = 0
        elif kp_3d is None or self._known_joints is None:
            out.fill(0)
        else:
            keep = _bits_to_keep(self._known_joints)
            for axis in range(3):
                _keep(kp_3d[..., axis], keep, out[..., axis])

    def _theta(self, out: Floats) -> None:
        """Fill (B, T, 85) with camera (1, 0, 0), pose and betas. Pose and betas are 0 in rows where
        either is unknown.
        """
        pose = self._column("pose")
        betas = self._column("betas")
        out[..., 0] = 1
        if pose is None or betas is None:
            out[..., 1:] = 0
            return
        out[..., 1 : POSE.start] = 0
        keep = _bits_to_keep(self._known_smpl)[..., None]
        _keep(pose, keep, out[..., POSE])
        _keep(betas, keep, out[..., BETAS])

    def _valid(self, out: Floats) -> None:
        valid = self._column("valid")
        out[...] = 1
        if valid is not None:
            np.not_equal(valid, 0, out=out, casting="unsafe")

    @cached_property
    def _known_joints(self) -> Bools | None:
        """Which joints of kp_3d are known (B, T, 49); None if the split has no kp_3d or has_3d."""
        kp_3d = self._column("kp_3d")
        flag = self._column("has_3d")
        if kp_3d is None or flag is None:
            return None
        is_known: Bools = np.greater(kp_3d[..., 3], 0)
        is_known &= (flag == 1)[..., None]
        return is_known

    def _known_3d(self) -> Bools | bool:
        """Whether all 14 joints that a 3D loss compares are known (B, T); False: in no row."""
        evaluation = self._column(EVAL_JOINTS)
        flag = self._column("has_3d")
        if evaluation is not None:
            complete = _finite_rows(evaluation.reshape(*evaluation.shape[:2], _N_EVAL_JOINTS * 3))
            if flag is not None:
                complete &= flag != 0
            return complete
        if self._known_joints is None:
            return False
        return np.asarray(self._known_joints[..., COMMON_JOINTS].all(axis=-1))

    @cached_property
    def _known_smpl(self) -> Bools | bool:
        """Whether pose and betas are known (B, T); False: in no row."""
        pose = self._column("pose")
        betas = self._column("betas")
        flag = self._column("has_smpl")
        if pose is None or betas is None or flag is None:
            return False
        return np.equal(flag, 1) & _finite_rows(pose) & _finite_rows(betas)


def used_in_3d(columns: Mapping[str, Array]) -> Bools:
    """Whether 3D losses and metrics use each of T rows, (T,): all 14 COMMON_JOINTS are known.

    columns: (T, ...) by name.
    """

    def read_column(name: str) -> Array | None:
        return columns[name][None] if name in columns else None

    weights = np.zeros((1, len(columns["frame_index"])), np.float32)
    LabelFields(read_column, np.ones(1), lambda: None).fill("w_3d", weights)
    return np.asarray(weights[0] > 0)


def missing_in_3d(columns: Mapping[str, Array]) -> Bools:
    """Which of the COMMON_JOINTS are missing in the rows with 3D joints, (N, 14). N is 0 in splits
    with evaluation joints.

    columns: (T, ...) by name.
    """
    if EVAL_JOINTS in columns or not {"kp_3d", "has_3d"} <= columns.keys():
        return np.empty((0, _N_EVAL_JOINTS), bool)
    joints = columns["kp_3d"][columns["has_3d"] == 1]
    return np.asarray(~(joints[:, COMMON_JOINTS, 3] > 0))


def count_some_in_3d(columns: Mapping[str, Array]) -> int:
    """The number of rows with some of the COMMON_JOINTS, but not all. columns: (T, ...) by name."""
    share = missing_in_3d(columns).mean(axis=1)
    return int(((share > 0) & (share < 1)).sum())


def mirror(name: str, values: Floats) -> Floats:
    """Mirror rows (..., *shape) of a field or column in IN_CROP: swap left and right joints,
    reflect at x = 0.

    Points and trans change the sign of x. A rotation R becomes S R S with S = diag(-1, 1, 1), so
    axis-angle (a, b, c) becomes (a, -b, -c). Camera and betas do not change: a mirrored body has
    the same shape.
    """
    if name == "theta":
        mirrored = values.copy()
        mirrored[..., POSE] = mirror("pose", values[..., POSE])
        return mirrored
    if name == "pose":
        pose = values.reshape(*values.shape[:-1], -1, 3)[..., MIRRORED_SMPL, :]
        pose[..., 1:] = 0 - pose[..., 1:]
        return pose.reshape(values.shape)
    if name == JOINT_WEIGHTS:
        return values[..., MIRRORED_49]
    if name == "trans":
        mirrored = values.copy()
    else:
        mirrored = values[..., _MIRRORED[values.shape[-2]], :]
    mirrored[..., 0] = 0 - mirrored[..., 0]  # 0 stays 0, without a sign
    return mirrored


def normalise_keypoints(kp_2d: Floats, bbox: Floats, crop_scale: Doubles, out: Floats) -> None:
    """Normalise keypoints from px to [-1, 1] across the crop, and write them to `out` (B, T, J, 3).

    The crop has the centre c of the box (B, T, 4) and `crop_scale` (B,) times its sides, so x
    becomes 2 (x - c) / (side * crop_scale). Confidence is copied. Keypoints without confidence, or
    without a finite position, become 0.
    """
    side = bbox[..., 2:] * crop_scale.astype(np.float32)[:, None, None]
    is_known: Bools = np.greater(kp_2d[..., 2], 0)
    coordinates = []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for axis in range(2):
            coordinate = kp_2d[..., axis] - bbox[..., axis, None]
            coordinate *= 2
            coordinate /= side[..., axis, None]
            is_known &= np.isfinite(coordinate)
            coordinates.append(coordinate)
    keep = _bits_to_keep(is_known)
    for axis, values in enumerate((*coordinates, kp_2d[..., 2])):
        _keep(values, keep, out[..., axis])


def _finite_rows(values: Floats) -> Bools:
    """Whether all N values (B, T, N) of a row are finite (B, T)."""
    finite = np.isfinite(values)
    if finite.all():  # nearly always, and much faster
        return np.ones(values.shape[:2], bool)
    return np.asarray(finite.all(axis=-1))


def _bits_to_keep(known: Bools | bool) -> NDArray[np.int32]:
    """A bit mask of the same shape: all 32 bits set where a label is known, none elsewhere."""
    return np.negative(known, dtype=np.int32)


def _keep(values: Floats, keep: NDArray[np.int32], out: Floats) -> None:
    """Copy float32 values to `out` where the mask's bits are set, and write 0 elsewhere.

    A number and the mask are joined by a bitwise "and", so a masked NaN becomes 0, too.
    """
    np.bitwise_and(values.view(np.int32), keep, out=out.view(np.int32))
