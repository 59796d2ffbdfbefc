"""How the camera turns, and which points of the feet are at rest in the world.  labels -> [streams] -> features

What WHAM (Shin et al., CVPR 2024) and GVHMR (Shen et al., SIGGRAPH Asia 2024) are trained with beside pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pipeline import cameras
from pipeline.errors import ConfigError
from pipeline.features.streams.base import ROW_RATE, LabelStream, Machine, Reads
from pipeline.files.formats import smpl_files
from pipeline.files.raw.stand_in import is_stand_in
from pipeline.skeletons import JOINTS

if TYPE_CHECKING:
    from pipeline.body import Body

Doubles = NDArray[np.float64]
Known = tuple[NDArray[np.float32], NDArray[np.bool_]]

# SMPL's vertices 3216, 3387, 6617, 6787, by whose motion foot sliding is measured, too: toe before heel, left first.
POINTS: Final = tuple(JOINTS["spin49"].index(f"OP {name}") for name in ("LBigToe", "LHeel", "RBigToe", "RHeel"))
OTHER_SIDE: Final = [2, 3, 0, 1]
AT_REST_M: Final = 0.01  # a frame of 30 a second: half a contact (WHAM's lib/data/datasets/amass.py)
STEEPNESS: Final = 5 / AT_REST_M
RATE: Final = 30.0  # rows a second
MIN_RATE: Final = 20.0  # below, two rows are so far apart that a foot has left the ground between them
LARGEST_EXPONENT: Final = 700.0  # of a float64
MIRRORED_6D: Final = np.array([1, -1, -1, -1, 1, 1])  # of S M S, S = diag(-1, 1, 1): its first two rows
GENDERS: Final = {f"SMPL_{gender.upper()}": gender for gender in smpl_files.GENDERS}
WORLDS: Final = {  # what places the labels in a world -> the columns that are read for it
    "extrinsics": ("pose", "betas", "trans", "has_smpl", "extrinsics", ROW_RATE),
    "labels": ("pose", "betas", "trans", "has_smpl", ROW_RATE),
}


class _WithoutWeights:
    """What a stream computes, without weights of a network."""

    def __init__(self, *, stand_in: bool = False) -> None:
        self.provenance: Mapping[str, Any] = {"stand_in": stand_in}


@dataclass(frozen=True, kw_only=True)
class CamAngvel(LabelStream):
    """`cameras.angular_velocity` of each row: six numbers of the camera's turn.

    `convention`: "gvhmr" is the turn to the next row, where the last row of a run repeats the one before it. "wham" is
    the inverse of the turn from the previous row, minus the identity's and times 30. A row without that other row, or
    where one of the two cameras is not a rigid motion, has the numbers of a camera at rest and flag 0.
    """

    convention: str = "gvhmr"  # the turn of the camera as gvhmr or wham defines it

    kind: ClassVar[str] = "cam_angvel"
    version: ClassVar[int] = 2
    dim: ClassVar[int] = 6
    columns: ClassVar[tuple[str, ...]] = ("extrinsics",)
    history: ClassVar[int] = 1
    future: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.convention not in cameras.CONVENTIONS:
            known = " or ".join(cameras.CONVENTIONS)
            raise ConfigError(f"convention {self.convention!r}: expected {known}")

    def __str__(self) -> str:
        return f"turns of the camera as {self.convention}'s"

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> _Turns:  # noqa: ARG002 - no weights
        return _Turns(self)

    def mirrored(self, values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Its numbers (..., 6) of the mirrored video, whose camera is `cameras.mirrored`."""
        return np.asarray(values * MIRRORED_6D.astype(values.dtype) + 0)  # 0 for -0


class _Turns(_WithoutWeights):
    def __init__(self, stream: CamAngvel) -> None:
        super().__init__()
        self._convention = stream.convention
        self._at_rest = cameras.angular_velocity(np.eye(4)[None], stream.convention)[0]

    def __call__(self, labels: Mapping[str, NDArray[Any]]) -> Known:
        """extrinsics (n, 3, 4, 4), in_run (n, 3) -> (n, 6), (n,) whether the row has a turn."""
        wham = self._convention == "wham"
        row, next_ = np.arange(len(labels["in_run"])), np.where(labels["in_run"][:, 2] & (not wham), 2, 1)
        pairs = np.stack([labels["extrinsics"][row, next_ - 1], labels["extrinsics"][row, next_]], axis=1)
        known = labels["in_run"][row, next_ - 1] & cameras.is_rigid(pairs.reshape(-1, 4, 4)).reshape(-1, 2).all(axis=1)
        pairs = np.where(known[:, None, None, None], pairs, np.eye(4))
        turns = cameras.angular_velocity(pairs.reshape(-1, 4, 4), self._convention)[int(wham) :: 2]
        return np.where(known[:, None], turns, self._at_rest).astype(np.float32), known


@dataclass(frozen=True, kw_only=True)
class Stationary(LabelStream):
    """How much each of four points of the feet is at rest in the world, 0 to 1: left toe and heel, right toe and heel.

    1 / (1 + exp(5 / 0.01 (v - 0.01))) of v = |p[i + 1] - p[i - 1]| / 2, the point's way in m, within a 30th of a
    second; the first and the last row of a run have that of their neighbour (WHAM). Of other frame rates than 30, v is
    turned into that of 30 by the rate of the track's rows. The points are vertices of the body whose file is `body`:
    SMPL_NEUTRAL, SMPL_MALE or SMPL_FEMALE, as the labels are of. `world`: "extrinsics" takes the labels from the camera
    to the world by that column; "labels" is for those that are in a world already, as AMASS's.

    A row without a body or a camera that is known, in it or in the two that it is computed from, in a run of fewer than
    three rows, or of rows below 20 a second, is -1, and its flag says so.
    """

    body: Path = Path()  # file of the labels' body: SMPL_NEUTRAL.pkl, SMPL_MALE.pkl or SMPL_FEMALE.pkl
    world: str = "extrinsics"  # extrinsics: that column takes labels to the world; labels: they are in a world (AMASS)

    kind: ClassVar[str] = "stationary"
    dim: ClassVar[int] = len(POINTS)
    history: ClassVar[int] = 2
    future: ClassVar[int] = 2
    where: ClassVar[str] = "SMPL's are at smpl.is.tue.mpg.de"

    def __post_init__(self) -> None:
        if self.body.stem not in GENDERS:
            expected = ", ".join(f"{stem}.pkl" for stem in GENDERS)
            raise ConfigError(f"body {str(self.body)!r}: expected one of SMPL's files, as --set body=DIR/{expected}")
        if self.world not in WORLDS:
            raise ConfigError(f"world {self.world!r}: expected one of {', '.join(WORLDS)}")

    def __str__(self) -> str:
        return f"{self.body.name}, world of {self.world}"

    @property
    def reads(self) -> Reads:
        return Reads(labels=WORLDS[self.world], history=self.history, future=self.future)

    @property
    def stand_in(self) -> bool:
        """Whether it is the procedural body."""
        return is_stand_in(self.body.parent)

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> _Contacts:  # noqa: ARG002 - on the CPU
        """The body in float64. Raises as `Body.load`, and ConfigError for a file that it would not take."""
        from pipeline.body import Body

        if self.body.suffix == ".npz" and self.body.with_suffix(".pkl").exists():
            raise ConfigError(
                f"body {self.body}: {self.body.stem}.pkl is beside it, which is read first: name that one"
            )
        return _Contacts(Body.load(self.body.parent, GENDERS[self.body.stem]).double())

    @staticmethod
    def mirrored(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Its numbers (..., 4) of the mirrored video: left and right are exchanged."""
        return values[..., OTHER_SIDE]


class _Contacts(_WithoutWeights):
    def __init__(self, body: Body) -> None:
        super().__init__(stand_in=body.is_stand_in)
        self._body = body

    def __call__(self, labels: Mapping[str, NDArray[Any]]) -> Known:
        """Labels (n, 5, ...), in_run (n, 5) -> (n, 4), (n,)."""
        in_run, row = labels["in_run"], np.arange(len(labels["in_run"]))
        begins, ends = ~in_run[:, 1], ~in_run[:, 3]
        first = np.where(begins, 2, np.where(ends, 0, 1))  # of the row beside it, where a run begins or ends
        last = np.where(ends, 2, np.where(begins, 4, 3))
        rate = labels[ROW_RATE][:, 2]
        usable = in_run & (labels["has_smpl"] == 1)
        known = (first < last) & usable[row, first] & usable[:, 2] & usable[row, last] & (rate >= MIN_RATE)
        contacts = np.full((len(row), len(POINTS)), -1, np.float32)
        of = np.flatnonzero(known)
        if len(of):
            start, stop = (
                self._points({name: values[of, at[of]] for name, values in labels.items()}) for at in (first, last)
            )
            way = np.linalg.norm(stop - start, axis=-1) / 2 * (rate[of, None] / RATE)  # NaN where a label is
            soft = 1 / (1 + np.exp(np.minimum(STEEPNESS * (way - AT_REST_M), LARGEST_EXPONENT)))
            known[of] = np.isfinite(soft).all(axis=1)
            contacts[known] = soft[known[of]]
        return contacts, known

    def _points(self, labels: Mapping[str, NDArray[Any]]) -> Doubles:
        """Labels of (n,) rows -> (n, 4, 3) m in the world."""
        import torch
        from scipy.spatial.transform import Rotation

        pose = np.nan_to_num(labels["pose"].astype(np.float64)).reshape(-1, 3)
        rotmat = Rotation.from_rotvec(pose).as_matrix().reshape(-1, smpl_files.N_JOINTS, 3, 3)
        with torch.inference_mode():
            betas = torch.from_numpy(labels["betas"].astype(np.float64))
            joints = self._body.joints(betas=betas, rotmat=torch.from_numpy(rotmat))[:, list(POINTS)].numpy()
        finite = np.isfinite(labels["pose"]).all(axis=1)
        points: Doubles = np.where(finite[:, None, None], joints + labels["trans"][:, None], np.nan)
        if "extrinsics" not in labels:
            return points
        camera = labels["extrinsics"].astype(np.float64)
        camera[~cameras.is_rigid(camera)] = np.nan
        return (points - camera[:, None, :3, 3]) @ camera[:, :3, :3]  # R^T (p - t), of rows
