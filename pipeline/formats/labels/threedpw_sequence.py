"""A sequence of 3DPW, with all of its actors.  [raw] -> tracks -> features -> windows

A Python 2 pickle of arrays and lists: it is read without running anything (`pipeline.formats.pickles`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError, UnsafePickle
from pipeline.formats.arrays import numbers
from pipeline.formats.pickles import load_pickle
from pipeline.skeletons import LARGEST, without_non_finite

Doubles = NDArray[np.float64]

N_BETAS: Final = 10
GENDERS: Final = {"m": "male", "f": "female", "male": "male", "female": "female"}
PER_ACTOR: Final = ("poses", "betas", "trans", "poses2d", "campose_valid", "genders")
UNPACK: Final = "Unpack sequenceFiles.zip and imageFiles.zip again."


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """One person of a sequence, N frames, as stored but for the types."""

    pose: Doubles  # (N, 72) rad, global orientation in the world
    betas: Doubles  # (10,)
    trans: Doubles  # (N, 3) m, in the world
    kp_18: Doubles  # (N, 18, 3) px px score
    valid: NDArray[np.bool_]  # (N,) the camera fits the picture
    gender: str
    to_camera: Doubles  # (N, 4, 4) from the world, m
    intrinsics: Doubles | None  # (3, 3) px


def load_sequence(file: Path) -> tuple[list[Actor], list[str]]:
    """Every actor of a sequence, and notes on numbers that are not used.

    Raises RawDataError; `unsafe_pickle` for a file that would run code.
    """
    try:
        sequence, notes = load_pickle(file, kind="sequence"), []
    except UnsafePickle as error:
        expected, do = "a 3DPW sequence: arrays and nothing else", "Do not open it; download it from the official page."
        found = f"that it asks for {error.asks_for}: not read"
        raise RawDataError(file, "pickle", expected=expected, found=found, do=do, reason="unsafe_pickle") from error
    for key in (*PER_ACTOR, "cam_poses", "cam_intrinsics"):
        if key not in sequence:
            raise RawDataError(file, key, expected="this key", found=f"only {sorted(sequence)}", do=UNPACK)
    counts = {key: len(sequence[key]) if isinstance(sequence[key], list) else -1 for key in PER_ACTOR}
    n_actors = counts["poses"]
    if n_actors < 1 or set(counts.values()) != {n_actors}:
        raise RawDataError(file, "poses", expected="lists with one entry an actor", found=str(counts), do=UNPACK)
    to_camera = numbers(file, "cam_poses", sequence["cam_poses"], (None, 4, 4))
    stored = numbers(file, "cam_intrinsics", sequence["cam_intrinsics"], (3, 3))
    intrinsics = stored if (np.abs(stored) < LARGEST).all() else None  # no other label depends on them
    if intrinsics is None:
        notes.append("cam_intrinsics are not finite: not used")
    n_frames = len(to_camera)

    def array(key: str, p: int, *shape: int | None) -> Doubles:
        return numbers(file, f"{key}[{p}]", sequence[key][p], shape)

    actors = []
    for p in range(n_actors):
        gender = str(sequence["genders"][p])
        if gender not in GENDERS:
            raise RawDataError(file, f"genders[{p}]", expected="m or f", found=repr(gender), do=UNPACK)
        betas = array("betas", p, None)
        if len(betas) < N_BETAS or not (np.abs(betas[:N_BETAS]) < LARGEST).all():
            expected = f"at least {N_BETAS} finite numbers"
            raise RawDataError(file, f"betas[{p}]", expected=expected, found=str(betas[:N_BETAS]), do=UNPACK)
        kp_18, n_bad = without_non_finite(array("poses2d", p, n_frames, 3, 18).transpose(0, 2, 1))
        if n_bad:
            notes.append(f"poses2d[{p}]: {n_bad} joints are not finite: not used")
        actors.append(
            Actor(
                pose=array("poses", p, n_frames, 72),
                betas=betas[:N_BETAS],
                trans=array("trans", p, n_frames, 3),
                kp_18=kp_18,
                valid=array("campose_valid", p, n_frames) > 0,
                gender=GENDERS[gender],
                to_camera=to_camera,
                intrinsics=intrinsics,
            )
        )
    return actors, notes
