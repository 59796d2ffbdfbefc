"""Read SMPL bodies that 4D-Humans or CameraHMR fitted to images, from a SQLite file.

`python -m pipeline fits` (the extension `world`) writes that file. A fit is a body for one person
in one image. It is assigned to a row of a track if the joints of both agree.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import reading
from pipeline.people.skeletons import Array, Doubles, Floats
from pipeline.people.smpl_files import N_BETAS, N_POSE

FILE: Final = "fits.sqlite"
N_JOINTS = 25  # OpenPose's joints, the first ones of spin49; other joints of a fit are not stored
SIZE: Final = 4 * (N_POSE + N_BETAS + 3 * N_JOINTS)  # bytes of a stored fit
# largest root mean square distance of the joints of a fit and a row, relative to the larger side of
# the person's box
LIMIT: Final = 0.1
FEWEST: Final = 8  # least number of joints that a fit and a row must both have
# what became of a row
MATCHED = "matched"
ABSENT = "without a fit"
ELSEWHERE = "refused by reprojection"
AMBIGUOUS = "ambiguous"


class _Fit(NamedTuple):
    """The body of one person in one image."""

    pose: Doubles  # (72,) axis-angle in rad; the global orientation is relative to the camera
    betas: Doubles  # (10,)
    kp_2d: Doubles  # (25, 3) px of the image that it was fitted to, confidence


def picture_name(path: str, key: re.Pattern[str] | None = None) -> str:
    """The name by which an image's fits are stored and looked up: its path without the extension.

    `key`: a pattern for the path without extension; its first group, or else the whole match, is
    the name. "" without a match.

    >>> picture_name("./tag/clip/frame000001.png")
    'tag/clip/frame000001'
    >>> picture_name("insta-00012_tag/clip/7.data.pyd", re.compile("_(.*)"))
    'tag/clip/7'
    """
    parent, slash, base = path.removeprefix("./").rpartition("/")
    name = f"{parent}{slash}{base.partition('.')[0]}"
    if key is None:
        return name
    match = key.search(name)
    if match is None:
        return ""
    return match[min(key.groups, 1)] or ""


class FitStore:
    """The fits in a SQLite file, which are looked up by the image's name."""

    def __init__(self, database: sqlite3.Connection, file: Path) -> None:
        self._database = database
        self._file = file

    @classmethod
    def open(cls, file: Path) -> Self:
        """Open a file for reading. Raises RawDataError if it is missing or invalid."""
        do = (
            "Make it of 4D-Humans' tars or CameraHMR's npz: python -m pipeline fits FILE... "
            "--raw DIR"
        )
        if not file.is_file():
            raise RawDataError(file, "file", "fits to images", "no such file", do)
        database = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        with contextlib.ExitStack() as on_error, reading(file, "fits to images", do=do):
            on_error.callback(database.close)
            database.execute("SELECT tar, name, fit FROM fits LIMIT 1").fetchone()
            on_error.pop_all()
        return cls(database, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    @property
    def digest(self) -> str:
        """SHA-256 of the content of all tars that the fits were read from. It does not depend on
        the tars' names and order.
        """
        rows = self._database.execute("SELECT digest FROM tars ORDER BY digest")
        return hashlib.sha256("".join(digest for (digest,) in rows).encode()).hexdigest()

    def find(self, name: str) -> list[_Fit]:
        """The different fits for an image, by its name. Raises RawDataError for a damaged fit."""
        rows = self._database.execute(
            "SELECT DISTINCT fit FROM fits WHERE name = ? ORDER BY fit", (name,)
        )
        fits = []
        for (stored,) in rows:
            size = len(stored)
            if size != SIZE:
                raise RawDataError(self._file, name, f"{SIZE} bytes", f"{size}", "Make it again.")
            values = np.frombuffer(stored, "<f4").astype(np.float64)
            pose, betas, kp_2d = np.split(values, [N_POSE, N_POSE + N_BETAS])
            fits.append(_Fit(pose, betas, kp_2d.reshape(N_JOINTS, 3)))
        return fits

    def match(self, names: Sequence[str], kp_2d: Floats) -> tuple[dict[str, Array], Counter[str]]:
        """Assign fits to T rows of a track.

        A row gets a fit if exactly one fit of its image has the row's keypoints, up to shift and
        scale. Other rows are zero.

        Args:
            names: the names of the rows' images. A name without a folder has no fit.
            kp_2d: the rows' keypoints, (T, 49, 3) spin49: x, y in px, confidence.

        Returns the fields `pose` (T, 72), `betas` (T, 10) and `has_smpl` (T,) of a Track, and how
        many rows had which outcome.
        """
        pose = np.zeros((len(names), N_POSE), np.float32)
        betas = np.zeros((len(names), N_BETAS), np.float32)
        has_smpl = np.zeros(len(names), np.bool_)
        counts = Counter[str]()
        for row, name in enumerate(names):
            fits = []
            if "/" in name:
                fits = self.find(name)
            joints = kp_2d[row, :N_JOINTS].astype(np.float64)
            near = [fit for fit in fits if reprojection(fit.kp_2d, joints) <= LIMIT]
            if len(near) == 1:
                counts[MATCHED] += 1
                pose[row] = near[0].pose
                betas[row] = near[0].betas
                has_smpl[row] = True
            elif near:
                counts[AMBIGUOUS] += 1
            elif fits:
                counts[ELSEWHERE] += 1
            else:
                counts[ABSENT] += 1
        return {"pose": pose, "betas": betas, "has_smpl": has_smpl}, counts


def reprojection(points: Doubles, target: Doubles) -> float:
    """The distance between two sets of joints (J, 3) px after the best shift and scale; infinity if
    too few joints can be compared.

    It is the root mean square over joints with confidence in both, relative to the larger side of
    the target's box. Mirrored or upside-down persons have a large distance.
    """
    in_both = (points[:, 2] > 0) & (target[:, 2] > 0)
    if in_both.sum() < FEWEST:
        return math.inf
    # the best shift: both means are at the origin
    source = points[in_both, :2]
    source = source - source.mean(axis=0)
    goal = target[in_both, :2]
    goal = goal - goal.mean(axis=0)

    size = float(np.ptp(goal, axis=0).max())
    spread = float((source**2).sum())
    overlap = float((source * goal).sum())
    if min(spread, overlap, size) <= 0:
        return math.inf
    scale = overlap / spread  # minimises |scale * source - goal|^2
    squared = ((scale * source - goal) ** 2).sum(axis=1)
    return float(np.sqrt(squared.mean()) / size)
