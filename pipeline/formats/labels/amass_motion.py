"""A motion of AMASS: SMPL-H's or SMPL-X's numbers as SMPL's.  [raw] -> tracks -> windows -> discriminator"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.formats.arrays import load_npz, numbers
from pipeline.skeletons import LARGEST

Doubles = NDArray[np.float64]

N_BETAS: Final = 10
_BODY: Final = tuple(range(22))  # pelvis to wrists: the same in SMPL, SMPL-H and SMPL-X
# SMPL's hand joints are the roots of the index fingers. Key: numbers a frame, 3 a joint.
SMPL_JOINTS: Final = {156: (*_BODY, 22, 37), 165: (*_BODY, 25, 40)}
AGAIN: Final = "Unpack this subset again."


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """N frames of one person."""

    pose: Doubles  # (N, 24, 3) axis-angle rad, SMPL's joints
    trans: Doubles  # (N, 3) m
    betas: Doubles  # (10,)
    rate: float  # frames per second
    gender: str  # as stored: neutral, male, female, or anything else


def load_motion(file: Path) -> Motion:
    """One .npz file. Raises RawDataError, also for numbers that are not finite."""
    data = load_npz(file, ("poses", "betas", "trans"), ("gender", "mocap_framerate", "mocap_frame_rate"))
    width = data["poses"].shape[-1] if data["poses"].ndim else 0
    if width not in SMPL_JOINTS:
        found = str(data["poses"].shape)
        raise RawDataError(file, "poses", expected="(N, 156) SMPL-H or (N, 165) SMPL-X", found=found, do=AGAIN)
    poses = numbers(file, "poses", data["poses"], (None, width)).reshape(-1, width // 3, 3)[:, SMPL_JOINTS[width]]
    trans = numbers(file, "trans", data["trans"], (len(poses), 3))
    betas = numbers(file, "betas", data["betas"], (None,))
    if len(betas) < N_BETAS:
        raise RawDataError(file, "betas", expected=f"at least {N_BETAS}", found=str(len(betas)), do=AGAIN)
    for key, values in (("poses", poses), ("trans", trans), ("betas", betas[:N_BETAS])):
        if not (np.abs(values) < LARGEST).all():  # comparisons with NaN are false
            found = f"NaN, infinity or numbers over {LARGEST:.0e}"
            raise RawDataError(file, key, expected="finite numbers", found=found, do=AGAIN)
    stored = data.get("gender", np.empty(0)).reshape(-1)
    gender = stored[0] if stored.size == 1 else ""
    gender = gender.decode("latin1") if isinstance(gender, bytes) else str(gender)
    gender = gender.removeprefix("b'").removesuffix("'")  # some files hold the text of a bytes object
    return Motion(poses, trans, betas[:N_BETAS], _rate(file, data), gender)


def _rate(file: Path, data: dict[str, NDArray[Any]]) -> float:
    keys = [key for key in ("mocap_framerate", "mocap_frame_rate") if key in data]
    if not keys:
        raise RawDataError(file, "mocap_framerate", expected="frames per second", found="no such key", do=AGAIN)
    rate = float(numbers(file, keys[0], data[keys[0]].reshape(-1), (1,))[0])
    if not 1 <= rate <= 10_000:
        raise RawDataError(file, keys[0], expected="1 to 10,000 frames per second", found=str(rate), do=AGAIN)
    return rate
