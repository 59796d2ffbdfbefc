"""Streams of camera rotations, foot contacts, and HMR2.0's token.  crops, labels -> [streams] ->
features

WHAM (Shin et al., CVPR 2024) and GVHMR (Shen et al., SIGGRAPH Asia 2024) use these as inputs and
targets:

    CamAngvel    the camera's rotation between neighbouring rows, from extrinsics
    Stationary   the probability that toes and heels touch the ground, from poses
    Hmr2         the token of a network, from crops

The first two read a window of rows around each row (`LabelComputer` in `base`). Its positions 0 to
2 for `CamAngvel` are the previous row, the row itself and the next one; 0 to 4 for `Stationary` are
two rows before, the row itself (2), and two rows after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

import cache
from cache import CropPolicy
from cache.arrays import Array, Bools, Doubles, Floats, Ints
from pipeline.errors import ConfigError
from pipeline.features.streams.base import (
    ROW_RATE,
    LabelStream,
    Machine,
    Precision,
    Provenance,
    Reads,
)
from pipeline.features.streams.network import NetworkStream
from pipeline.files.raw import is_demo_data
from pipeline.people import cameras, smpl_files
from pipeline.people.skeletons import JOINTS

if TYPE_CHECKING:
    from pipeline.features.networks.base import Loaded
    from pipeline.people.body import Body


Known = tuple[Floats, Bools]  # numbers (n, dim), and which rows are known (n,)

# Joints that are SMPL's vertices 3216, 3387, 6617 and 6787.
POINTS: Final = tuple(
    JOINTS["spin49"].index(f"OP {name}") for name in ("LBigToe", "LHeel", "RBigToe", "RHeel")
)
OTHER_SIDE: Final = [2, 3, 0, 1]  # index of the same point of the other foot
# motion in m per frame at 30 fps at which a contact is 0.5 (WHAM's lib/data/datasets/amass.py)
AT_REST_M: Final = 0.01
STEEPNESS: Final = 5 / AT_REST_M
RATE: Final = 30.0  # rows per second, to which motion is scaled
MIN_RATE: Final = 20.0  # at lower rates, a foot can leave the ground between two rows
LARGEST_EXPONENT: Final = 700.0  # exp of more overflows a float64
# how mirroring changes the signs of a rotation's first two rows: S M S with S = diag(-1, 1, 1)
MIRRORED_6D: Final = np.array([1, -1, -1, -1, 1, 1])
GENDERS: Final = {f"SMPL_{gender.upper()}": gender for gender in cache.GENDERS}
WORLDS: Final = {  # value of the option `world` -> columns to read
    "extrinsics": ("pose", "betas", "trans", "has_smpl", "extrinsics", ROW_RATE),
    "labels": ("pose", "betas", "trans", "has_smpl", ROW_RATE),
}


@dataclass(frozen=True, kw_only=True)
class CamAngvel(LabelStream):
    """The camera's rotation between neighbouring rows, as six numbers
    (`cameras.angular_velocity`).

    With the convention "gvhmr", it is the rotation to the next row; the last row of a run repeats
    the row before it. With "wham", it is the inverse of the rotation from the previous row, minus
    the identity, times 30. If the other row is missing, or an `extrinsics` is not a rigid motion,
    the row has the values of a static camera and is unknown.
    """

    convention: str = "gvhmr"  # definition of the rotation, gvhmr or wham

    kind: ClassVar[str] = "cam_angvel"
    version: ClassVar[int] = 2
    dim: ClassVar[int] = 6
    columns: ClassVar[tuple[str, ...]] = ("extrinsics",)
    history: ClassVar[int] = 1
    future: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.convention not in cameras.CONVENTIONS:
            names = " or ".join(cameras.CONVENTIONS)
            raise ConfigError(f"convention {self.convention!r}: expected {names}", "convention")

    def __call__(self, labels: Mapping[str, Array]) -> Known:
        """Compute n rows from the labels `extrinsics` (n, 3, 4, 4) and `in_run` (n, 3): rotations
        (n, 6), and whether they are known (n,).
        """
        pairs, known = self._camera_pairs(labels["extrinsics"], labels["in_run"])
        turns = cameras.angular_velocity(pairs.reshape(-1, 4, 4), self.convention)
        # The turn of a pair is that of its first camera with "gvhmr", of its second with "wham".
        camera = 1 if self.convention == "wham" else 0
        rotations = turns.reshape(-1, 2, self.dim)[:, camera]
        return rotations.astype(np.float32), known

    def _camera_pairs(self, extrinsics: Array, in_run: Bools) -> tuple[Array, Bools]:
        """The two cameras of each row, in order of time (n, 2, 4, 4), and whether both are known
        (n,). The cameras of an unknown pair are equal, as those of a static camera.

        They are the row's and the next one's; with "wham", or in the last row of a run, the
        previous one's and the row's.
        """
        uses_next = in_run[:, 2] & (self.convention == "gvhmr")
        positions = np.where(uses_next[:, None], [1, 2], [0, 1])
        row = np.arange(len(in_run))[:, None]
        pairs = extrinsics[row, positions]
        is_rigid = cameras.is_rigid(pairs.reshape(-1, 4, 4)).reshape(-1, 2)
        are_usable = in_run[row, positions] & is_rigid
        is_known = np.asarray(are_usable.all(axis=1))
        return np.where(is_known[:, None, None, None], pairs, np.eye(4)), is_known

    def mirrored(self, values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Values (..., 6) of the mirrored video, whose cameras are by `cameras.mirrored`."""
        return np.asarray(values * MIRRORED_6D.astype(values.dtype) + 0)  # 0 for -0


@dataclass(frozen=True, kw_only=True)
class Stationary(LabelStream):
    """Contact probabilities (0 to 1) of four points of the feet: left toe and heel, right toe and
    heel.

    A probability is 1 / (1 + exp(5 / 0.01 (v - 0.01))) with v = |p[i + 1] - p[i - 1]| / 2, the
    point's motion in m per 30th of a second, as in WHAM. The first and last row of a run have the v
    of their neighbour. If a track's rate is not 30 rows per second, v is scaled to it.

    Points are vertices of the body model in the file `body`, which must be the one that the labels
    were made with. `world`: with "extrinsics", labels are transformed from camera to world
    coordinates by that column; "labels" is for labels in world coordinates (AMASS).

    A row is -1 and unknown if a pose or camera that it needs is unknown, its run has fewer than
    three rows, or its rate is below 20 per second.
    """

    # file of the labels' body: SMPL_NEUTRAL.pkl, SMPL_MALE.pkl or SMPL_FEMALE.pkl
    body: Path = Path()
    # extrinsics: transform labels by that column; labels: labels are in world coordinates
    world: str = "extrinsics"

    kind: ClassVar[str] = "stationary"
    dim: ClassVar[int] = len(POINTS)
    history: ClassVar[int] = 2
    future: ClassVar[int] = 2
    where: ClassVar[str] = "SMPL's are at smpl.is.tue.mpg.de"

    def __post_init__(self) -> None:
        if self.body.stem not in GENDERS:
            expected = ", ".join(f"{stem}.pkl" for stem in GENDERS)
            raise ConfigError(
                f"body {str(self.body)!r}: expected one of SMPL's files: "
                f"--set stationary.body=DIR/{expected}",
                "body",
            )
        if self.world not in WORLDS:
            raise ConfigError(f"world {self.world!r}: expected one of {', '.join(WORLDS)}", "world")

    @property
    def reads(self) -> Reads:
        return Reads(labels=WORLDS[self.world], history=self.history, future=self.future)

    @property
    def stand_in(self) -> bool:
        """Whether the body model is synthesized, for demo data only."""
        return is_demo_data(self.body.parent)

    def load(self, machine: Machine, recorded: Provenance | None) -> _Contacts:  # noqa: ARG002 - on the CPU
        """Load the body model in float64. Raises what `Body.load` raises, and ConfigError if
        `Body.load` would take another file than the one that `body` names.
        """
        from pipeline.people.body import Body

        if self.body.suffix == ".npz" and self.body.with_suffix(".pkl").exists():
            raise ConfigError(
                f"body {self.body}: {self.body.stem}.pkl in the same folder takes precedence. "
                "Name that file."
            )
        body = Body.load(self.body.parent, GENDERS[self.body.stem])
        return _Contacts(body.double())

    @staticmethod
    def mirrored(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Values (..., 4) as they are in the mirrored video: left and right are swapped."""
        return values[..., OTHER_SIDE]


class _Contacts:
    """The computer of `Stationary`, with its body model."""

    def __init__(self, body: Body) -> None:
        self.provenance: Provenance = {"stand_in": body.is_stand_in}
        self._body = body

    def __call__(self, labels: Mapping[str, Array]) -> Known:
        """Compute n rows from labels (n, 5, ...), of two rows before to two rows after each row,
        and `in_run` (n, 5): probabilities (n, 4), and whether they are known (n,).
        """
        in_run = labels["in_run"]
        is_first = ~in_run[:, 1]
        is_last = ~in_run[:, 3]
        # v is that of the row itself (2), or of its neighbour at a run's start (3) or end (1)
        middle = 2 + is_first - is_last
        before = middle - 1
        after = middle + 1

        row = np.arange(len(in_run))
        rate = labels[ROW_RATE][:, 2]
        usable = in_run & (labels["has_smpl"] == 1)
        are_usable = usable[row, before] & usable[:, 2] & usable[row, after]
        rows = np.flatnonzero(are_usable & (rate >= MIN_RATE))

        contacts = np.full((len(row), len(POINTS)), -1, np.float32)
        known = np.zeros(len(row), np.bool_)
        if len(rows):
            points_before = self._points(labels, rows, before[rows])
            moved = self._points(labels, rows, after[rows]) - points_before
            probabilities = _contact_probabilities(moved, rate[rows, None])
            is_finite = np.isfinite(probabilities).all(axis=1)
            computed_rows = rows[is_finite]
            contacts[computed_rows] = probabilities[is_finite]
            known[computed_rows] = True
        return contacts, known

    def _points(self, windows: Mapping[str, Array], rows: Ints, position: Ints) -> Doubles:
        """World coordinates (k, 4, 3) in m of the four points; NaN if pose or camera is unknown.

        They are those of k `rows` of the n windows, at a `position` (k,) in each.
        """
        import torch
        from scipy.spatial.transform import Rotation

        labels = {name: values[rows, position] for name, values in windows.items()}
        pose = np.nan_to_num(labels["pose"].astype(np.float64))
        turns = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix()
        rotmat = turns.reshape(-1, smpl_files.N_JOINTS, 3, 3)
        betas = torch.from_numpy(labels["betas"].astype(np.float64))
        with torch.inference_mode():
            joints = self._body.joints(betas=betas, rotmat=torch.from_numpy(rotmat))
        feet = joints[:, list(POINTS)].numpy()
        points: Doubles = feet + labels["trans"][:, None]
        is_known = np.isfinite(labels["pose"]).all(axis=1)
        points[~is_known] = np.nan
        if "extrinsics" not in labels:
            return points
        camera = labels["extrinsics"].astype(np.float64)
        camera[~cameras.is_rigid(camera)] = np.nan
        rotation = camera[:, :3, :3]
        translation = camera[:, None, :3, 3]
        return (points - translation) @ rotation  # R^T (p - t)


def _contact_probabilities(moved: Doubles, rate: Floats) -> Doubles:
    """Probabilities (n, 4) of points that move by (n, 4, 3) m in two rows; NaN if a motion is NaN.

    rate: rows per second (n, 1).
    """
    distance = np.linalg.norm(moved, axis=-1)
    motion = distance / 2 * (rate / RATE)
    exponent = np.minimum(STEEPNESS * (motion - AT_REST_M), LARGEST_EXPONENT)
    return np.asarray(1 / (1 + np.exp(exponent)))


# WHAM's crop is 1.2 times the joints' extent. In most datasets, a track's crop is 1.43 times that
# extent (box 1.1, crop scale 1.3), and 0.84 times 1.43 is 1.2. In other datasets, the crop differs
# by up to a tenth.
CROP: Final = CropPolicy(size=256, region=(256, 192), scale=0.84)


@dataclass(frozen=True, kw_only=True)
class Hmr2(NetworkStream):
    """The token of HMR2.0's decoder, 1024 numbers per crop, from which its heads regress pose and
    shape.

    WHAM was trained with HMR2.0a; HMR2.0b gives other numbers. `precision` is as in `resnet50`.
    """

    checkpoint: Path = Path()  # HMR2.0's .ckpt, of 4D-Humans or WHAM
    precision: Precision = "exact"
    crop: CropPolicy = CROP

    kind: ClassVar[str] = "hmr2"
    dim: ClassVar[int] = 1024
    where: ClassVar[str] = (
        "HMR2.0's .ckpt: hmr2_data.tar.gz of github.com/shubham-goel/4D-Humans, or WHAM's "
        "hmr2a.ckpt"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint == Path():
            raise ConfigError(
                f"checkpoint is not set: --set hmr2.checkpoint=FILE. {self.where}", "checkpoint"
            )
        if (self.crop.size, self.crop.region) != (CROP.size, CROP.region):
            raise ConfigError(
                "crop: HMR2.0 uses the centre of a 256 px crop. Set it to size:256 "
                "region:256x192 ...",
                "crop",
            )

    def load_network(self) -> Loaded:
        """Load the network. Raises what `hmr2_network.load` raises."""
        from pipeline.extras.streams import hmr2

        return hmr2.load(self.checkpoint)
