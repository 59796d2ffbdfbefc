"""Read files of motions: a body over time, without images.  [raw] -> tracks -> windows

| file | source | arrays |
|---|---|---|
| .npz | AMASS (Mahmood et al., ICCV 2019), BEAT2 | `poses`, `betas`, `trans`, the rate |
| .npz | NymeriaPlus | `global_orient`, `body_pose`, `betas`, `transl`, `timestamps` in us |
| .pkl | AIST++ (Li et al., ICCV 2021), 60 fps | `smpl_poses`, `smpl_trans`, `smpl_scaling` |
| .npy | Motion-X (Lin et al., NeurIPS 2023), 30 fps | 322 numbers a frame |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import (
    TAKE_AWAY,
    StoredArrays,
    load_npz,
    numbers,
    reading,
    refuse,
    refuse_other,
)
from pipeline.files.formats.names import shown_names
from pipeline.files.formats.other_formats import owner_of
from pipeline.files.formats.pickles import load_labels
from pipeline.files.raw.files import open_regular
from pipeline.people.skeletons import LARGEST, Array, Doubles, are_usable_numbers
from pipeline.people.smpl_files import N_BETAS, SMPLX_N_BETAS, SMPLX_N_POSE

_BODY: Final = tuple(range(22))  # pelvis to wrists: the same in SMPL, SMPL-H and SMPL-X
# Which joints of SMPL, SMPL-H (156 numbers of a pose) and SMPL-X are SMPL's 24. SMPL's hand joints
# are the roots of the index fingers.
SMPL_JOINTS: Final = {72: (*_BODY, 22, 23), 156: (*_BODY, 22, 37), SMPLX_N_POSE: (*_BODY, 25, 40)}
RATE_KEYS: Final = ("mocap_framerate", "mocap_frame_rate", "fps")  # of the rate in an .npz
MAX_BETAS: Final = 16  # in the files of the releases
AIST_FPS: Final = 60.0
MOTION_X_FPS: Final = 30.0
NYMERIA: Final = ("global_orient", "body_pose", "betas", "transl", "timestamps")
MOST_UNEVEN_S: Final = 0.04  # of a frame's time from that of an even rate
# How many numbers each part has in a frame of Motion-X, in this order.
MOTION_X: Final[Mapping[str, int]] = {
    "root": 3,
    "body": 63,
    "hands": 90,
    "jaw": 3,
    "expression": 50,
    "face_shape": 100,
    "trans": 3,
    "betas": 10,
}
UNPACK_AGAIN: Final = "Unpack this subset again."
OTHER_BODY: Final = (
    "Take the SMPL, SMPL-H or SMPL-X files of the release: other bodies are not read. A pose "
    "begins with the root's rotation, 3 numbers, which 63 or 69 numbers lack."
)


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """N frames of one person."""

    pose: Doubles  # axis-angle in rad: (N, 24, 3), SMPL's joints; or (N, 55, 3), all of SMPL-X
    trans: Doubles  # (N, 3) m
    betas: Doubles  # (10,) of SMPL, or up to (16,) of SMPL-X
    rate: float  # frames per second
    gender: str  # as stored: neutral, male, female, or any other text
    # what was assumed because the file does not state it, and what of it is not used
    notes: Sequence[str] = ()
    is_y_up: bool = False  # by its format; other motions may have y up, too

    @staticmethod
    def read(file: Path) -> Motion:
        """Read one file. Raises RawDataError for files of other programs, damaged files, and
        numbers that are not finite.
        """
        motion = _READERS[file.suffix](file)
        parts = {"poses": motion.pose, "trans": motion.trans, "betas": motion.betas}
        for key, values in parts.items():
            if not are_usable_numbers(values).all():
                actual = f"NaN, infinity or numbers over {LARGEST:.0e}"
                raise RawDataError(file, key, "finite numbers", actual, UNPACK_AGAIN)
        return motion


def _load_npz(file: Path) -> Motion:
    """Read a motion of AMASS or BEAT2: SMPL, SMPL-H, whose joints become SMPL's, or SMPL-X."""
    content = load_npz(file, (), NYMERIA)
    if len(content) == len(NYMERIA):
        content = _convert_nymeria(file, content)
    else:
        content = load_npz(file, ("poses", "betas", "trans"), ("gender", *RATE_KEYS))
    data = StoredArrays(file, content)
    shape = data.value("poses").shape
    width = shape[-1] if shape else 0
    if width not in SMPL_JOINTS:
        expected = "(N, 72) SMPL, (N, 156) SMPL-H or (N, 165) SMPL-X"
        raise RawDataError(file, "poses", expected, str(shape), OTHER_BODY)
    poses = data.take("poses", None, width).reshape(-1, width // 3, 3)
    trans = data.take("trans", len(poses), 3)
    betas = data.take("betas", None)
    n_betas = len(betas)
    if n_betas < N_BETAS:
        raise RawDataError(file, "betas", f"at least {N_BETAS}", str(n_betas), UNPACK_AGAIN)
    if width == SMPLX_N_POSE:
        betas = betas[:SMPLX_N_BETAS]
    else:
        betas = betas[:N_BETAS]
        poses = poses[:, SMPL_JOINTS[width]]
    notes = []
    if n_betas > MAX_BETAS:
        notes.append(f"betas has {n_betas} numbers: the first {len(betas)} are used")
    return Motion(
        pose=poses,
        trans=trans,
        betas=betas,
        rate=_rate(data),
        gender=_gender(data.content),
        notes=notes,
    )


def _gender(data: Mapping[str, Any]) -> str:
    """The gender as stored; "" if there is none."""
    stored = data.get("gender", np.empty(0)).reshape(-1)
    if stored.size != 1:
        return ""
    return str(stored[0])


def _rate(data: StoredArrays) -> float:
    """Frames per second, from the first of RATE_KEYS that the file has. Raises RawDataError."""
    keys = [key for key in RATE_KEYS if key in data.content]
    if not keys:
        raise RawDataError(
            data.file, RATE_KEYS[0], "frames per second", "no such key", UNPACK_AGAIN
        )
    rate = data.scalar(keys[0])
    if not 1 <= rate <= 10_000:
        expected = "1 to 10,000 frames per second"
        raise RawDataError(data.file, keys[0], expected, str(rate), UNPACK_AGAIN)
    return rate


def _convert_nymeria(file: Path, stored: Mapping[str, Array]) -> dict[str, Array]:
    """Convert a motion of NymeriaPlus, of SMPL, to the arrays of AMASS. The betas are averaged over
    the frames, and the times give the rate. Raises RawDataError unless they are even.
    """
    expected = f"NymeriaPlus's, with rising times in us of an even rate, to {MOST_UNEVEN_S:g} s"
    do = "Split the motion where frames are missing."
    with reading(file, expected, key="timestamps", do=do):
        poses = np.hstack([stored["global_orient"], stored["body_pose"]])
        times = stored["timestamps"].reshape(len(poses)) / 1e6
        even_times = np.linspace(times[0], times[-1], len(times))
        uneven = np.abs(times - even_times).max()
        if not uneven <= MOST_UNEVEN_S:  # also NaN
            refuse(f"{uneven:.3g} s off it")
        rate = (len(times) - 1) / float(times[-1] - times[0])
        betas = stored["betas"].mean(axis=0)
    return {
        "poses": poses,
        "trans": stored["transl"],
        "betas": betas,
        "fps": np.array(rate),
        "gender": np.array("neutral"),
    }


def _load_aist(file: Path) -> Motion:
    """Read a motion of AIST++: SMPL with the mean shape. The file's body and its `smpl_trans` are
    larger by the factor `smpl_scaling`, which is divided out.
    """
    keys = ("smpl_poses", "smpl_trans", "smpl_scaling")
    data = load_labels(file)
    missing = [key for key in keys if key not in data]
    if missing:
        owner = owner_of(data) or f"only {shown_names(data)}"
        raise RawDataError(file, missing[0], "a motion of AIST++", owner, TAKE_AWAY)

    stored = StoredArrays(file, data)
    poses = stored.take("smpl_poses", None, 72)
    trans = stored.take("smpl_trans", len(poses), 3)
    scaling = stored.scalar("smpl_scaling")
    if not scaling > 0:
        raise RawDataError(file, "smpl_scaling", "a number over 0", str(scaling), UNPACK_AGAIN)
    return Motion(
        pose=poses.reshape(-1, 24, 3),
        trans=trans / scaling,
        betas=np.zeros(N_BETAS),
        rate=AIST_FPS,
        gender="neutral",
        notes=[
            f"AIST++ states no rate and no shape: {AIST_FPS:g} Hz and the average body are taken"
        ],
        is_y_up=True,
    )


def _load_motion_x(file: Path) -> Motion:
    """Read a motion of Motion-X: SMPL-X. The betas are averaged over the frames."""
    expected = f"(N, {sum(MOTION_X.values())}) numbers, a motion of Motion-X"
    with reading(file, expected, do=TAKE_AWAY), open_regular(file) as stream:
        start = stream.read(16)
        if not start.startswith(b"\x93NUMPY"):
            refuse_other(start)
        stream.seek(0)
        stored = np.load(stream, allow_pickle=False)
        if stored.shape[1:] != (sum(MOTION_X.values()),):
            owner = owner_of({".npy", *map(str, stored.shape[1:])})
            refuse(owner or f"an array of shape {stored.shape}")

    rows = numbers(file, "array", stored, (None, sum(MOTION_X.values())))
    stops = np.cumsum(list(MOTION_X.values()))
    part = dict(zip(MOTION_X, np.split(rows, stops[:-1], axis=1), strict=True))
    eyes = np.zeros((len(rows), 6))
    pose = np.hstack([part["root"], part["body"], part["jaw"], eyes, part["hands"]])
    return Motion(
        pose=pose.reshape(-1, SMPLX_N_POSE // 3, 3),
        trans=part["trans"],
        betas=part["betas"].sum(axis=0) / max(len(rows), 1),
        rate=MOTION_X_FPS,
        gender="neutral",
        notes=[f"Motion-X states no rate: {MOTION_X_FPS:g} Hz is taken"],
    )


_READERS: Final = {".npz": _load_npz, ".pkl": _load_aist, ".npy": _load_motion_x}
ENDINGS: Final = frozenset(_READERS)
