"""The body model's files as plain arrays.  raw -> tracks: labels derived through SMPL; training:
the body itself

Imports no torch: planning a conversion hashes these files and must stay quick. The demo body's
folder (`pipeline.demo.writing.write_body`) has the same files and keys, and is marked in two
places.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib.npyio import NpzFile

from pipeline.errors import MissingAssets, RawDataError
from pipeline.files.formats.pickles import load_pickle
from pipeline.files.raw import is_stand_in
from pipeline.files.raw.files import whole_file_digest
from pipeline.skeletons import JOINTS, Floats, Ints

N_VERTICES: Final = 6890
N_FACES: Final = 13776
N_JOINTS: Final = 24
N_BETAS: Final = 10  # of the official files' 300: what VIBE and 3DPW use

GENDERS: Final = ("neutral", "male", "female")
REGRESSOR_EXTRA: Final = "J_regressor_extra.npy"
REGRESSOR_H36M: Final = "J_regressor_h36m.npy"
LIMBS: Final = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
MEAN_PARAMS: Final = "smpl_mean_params.npz"
AS_DISTRIBUTED: Final = (
    "Take the file as its authors distribute it (SMPL v1.0 or v1.1, 10 or 300 shape components)."
)


@dataclass(frozen=True, eq=False)  # eq=False: == of arrays is ambiguous
class SmplArrays:
    """One SMPL body (Loper et al. 2015) and VIBE's files with it. Metres; y up, facing +z, left at
    +x; float64.
    """

    v_template: Floats  # (6890, 3)
    shapedirs: Floats  # (6890, 3, 10) m per unit of beta
    # (6890, 3, 207) m, over the 23 x 9 numbers of R - I; float32, since it is by far the largest
    posedirs: Floats
    J_regressor: Floats  # (24, 6890) dense; rows sum to 1
    weights: Floats  # (6890, 24) skinning; rows sum to 1
    parents: Ints  # (24,) the root's is -1
    faces: Ints  # (13776, 3) anticlockwise seen from outside
    J_regressor_extra: Floats  # (9, 6890) rhip lhip neck headtop pelvis thorax spine jaw head
    J_regressor_h36m: Floats  # (17, 6890) Human3.6M's joints, in its order
    mean_pose: Floats  # (144,) 24 rotations, each the first two columns of its matrix as (3, 2)
    mean_shape: Floats  # (10,)
    mean_cam: Floats  # (3,) scale, tx, ty of the weak-perspective camera
    stand_in: bool  # a procedural body, not SMPL
    digest: str  # sha256 over the content of the files read


def load(folder: Path | str, gender: str = "neutral") -> SmplArrays:
    """Read one gender's body from `folder`.

    Raises MissingAssets for missing files, RawDataError for other content, and UnsafePickle for a
    model file that names anything except arrays.
    """
    folder = Path(folder)
    if gender not in GENDERS:
        raise ValueError(f"gender: expected one of {', '.join(GENDERS)}, found {gender!r}")
    model_file = _require(folder, gender)
    model = (
        _read_arrays(model_file)
        if model_file.suffix == ".npz"
        else load_pickle(model_file, kind="smpl")
    )
    extra_file, h36m_file, mean_file = (
        folder / name for name in (REGRESSOR_EXTRA, REGRESSOR_H36M, MEAN_PARAMS)
    )
    extra = _read_arrays(extra_file)
    h36m = _read_arrays(h36m_file)
    mean = _read_arrays(mean_file)
    folder_digest, stand_in = digest(folder, gender)
    arrays = SmplArrays(
        v_template=_array(model_file, model, "v_template", (N_VERTICES, 3)),
        shapedirs=_shapedirs(model_file, model),
        posedirs=_array(
            model_file, model, "posedirs", (N_VERTICES, 3, 9 * (N_JOINTS - 1)), np.float32
        ),
        J_regressor=_array(model_file, model, "J_regressor", (N_JOINTS, N_VERTICES)),
        weights=_array(model_file, model, "weights", (N_VERTICES, N_JOINTS)),
        parents=_parents(model_file, model),
        faces=_faces(model_file, model),
        J_regressor_extra=_array(extra_file, extra, REGRESSOR_EXTRA, (9, N_VERTICES)),
        J_regressor_h36m=_array(h36m_file, h36m, REGRESSOR_H36M, (17, N_VERTICES)),
        mean_pose=_array(mean_file, mean, "pose", (6 * N_JOINTS,), flat=True),
        mean_shape=_array(mean_file, mean, "shape", (N_BETAS,), flat=True),
        mean_cam=_array(mean_file, mean, "cam", (3,), flat=True),
        stand_in=stand_in or bool(np.any(model.get("stand_in", False))),
        digest=folder_digest,
    )
    points = JOINTS["smpl54"]
    _require_sides(
        model_file, "J_regressor", points[:N_JOINTS], arrays.J_regressor @ arrays.v_template
    )
    _require_sides(
        extra_file, REGRESSOR_EXTRA, points[-9:], arrays.J_regressor_extra @ arrays.v_template
    )
    _require_sides(
        h36m_file, REGRESSOR_H36M, JOINTS["h36m"], arrays.J_regressor_h36m @ arrays.v_template
    )
    return arrays


def _require_sides(file: Path, key: str, names: Sequence[str], joints: Floats) -> None:
    """Raise RawDataError unless the template's joints (J, 3) m are on their sides, and ankles below
    knees below hips.

    Regressors of the same shape exist with another joint order, for example with legs exchanged.
    """
    at = {
        name.removeprefix("smpl_").removeprefix("extra_"): joint
        for name, joint in zip(names, joints, strict=True)
    }
    pairs = [("l" + part, "r" + part) for part in LIMBS if "l" + part in at]
    wrong = [
        f"{left} at x = {at[left][0]:+.3f} m"
        for left, right in pairs
        if not at[left][0] > 0 > at[right][0]
    ]
    for side in "lr":
        chain = [side + part for part in ("ankle", "knee", "hip") if side + part in at]
        chain += [name for name in ("neck", "headtop", "head") if name in at][:1]
        heights = [float(at[name][1]) for name in chain]
        wrong += (
            [f"{chain} at y = {np.round(heights, 3).tolist()} m"]
            if heights != sorted(heights)
            else []
        )
    if wrong:
        expected = (
            "left joints at x > 0, right ones at x < 0, and ankles below knees, hips and "
            "neck, on the template"
        )
        do = (
            "Take the file of SPIN's fetch_data.sh or SMPL's own; files of the same name and "
            "shape have other orders."
        )
        raise RawDataError(file, key, expected, "; ".join(wrong[:3]), do)


def digest(folder: Path | str, gender: str = "neutral") -> tuple[str, bool]:
    """(SHA-256 over the files in `folder` that `load` reads for `gender`, whether it is marked as
    the procedural body).

    Reads no pickle. A file is hashed once per process, size and time. Raises MissingAssets for
    missing files.
    """
    folder = Path(folder)
    names = (_require(folder, gender).name, REGRESSOR_EXTRA, REGRESSOR_H36M, MEAN_PARAMS)
    total = hashlib.sha256()
    for file in (folder.resolve() / name for name in names):
        stat = file.stat()
        total.update(f"{file.name} {_file_digest(file, stat.st_size, stat.st_mtime_ns)}\n".encode())
    return total.hexdigest(), is_stand_in(folder)


def missing(folder: Path | str, gender: str = "neutral") -> list[str]:
    """Names of missing files for a body of this gender."""
    folder = Path(folder)
    names = [] if _model_file(folder, gender) else [f"SMPL_{gender.upper()}.pkl (or .npz)"]
    return names + [
        name
        for name in (REGRESSOR_EXTRA, REGRESSOR_H36M, MEAN_PARAMS)
        if not (folder / name).is_file()
    ]


def gender_of(stored: object) -> str:
    """One of `GENDERS` for a gender as label files write it; "" for another.

    >>> [gender_of(stored) for stored in ("Female", b"m", "b'male'", "NEUTRAL", "unknown")]
    ['female', 'male', 'male', 'neutral', '']
    """
    text = stored.decode("latin1") if isinstance(stored, bytes) else str(stored)
    # some files hold the text of a bytes object
    text = text.removeprefix("b'").removesuffix("'").strip().lower()
    matching = [gender for gender in GENDERS if text in (gender, gender[0])]
    return matching[0] if matching else ""


def _model_file(folder: Path, gender: str) -> Path | None:
    candidates = [folder / f"SMPL_{gender.upper()}{suffix}" for suffix in (".pkl", ".npz")]
    return next((file for file in candidates if file.is_file()), None)


def _require(folder: Path, gender: str) -> Path:
    model_file = _model_file(folder, gender)
    if model_file is None or missing(folder, gender):
        raise MissingAssets(
            f"{folder}: missing {', '.join(missing(folder, gender))}. The SMPL model is at "
            f"smpl.is.tue.mpg.de (registration; rename its file for {gender} to "
            f"SMPL_{gender.upper()}.pkl); the regressors and mean parameters come with "
            "fetch_data.sh of github.com/nkolot/SPIN. Put them into this folder, or use the "
            "procedural body: `python -m pipeline synthesize --out DIR` writes it to DIR/body."
        )
    return model_file


@lru_cache(maxsize=64)
def _file_digest(file: Path, _size: int, _mtime_ns: int) -> str:
    return whole_file_digest(file)


def _read_arrays(file: Path) -> dict[str, Any]:
    """The arrays of an .npz by key, or that of an .npy under its file's name."""
    try:
        with file.open("rb") as stream:  # opened here: NumPy leaves a broken archive open
            content = np.load(stream, allow_pickle=False)
            return dict(content) if isinstance(content, NpzFile) else {file.name: content}
    except Exception as error:  # of a damaged file also MemoryError: its header may claim anything
        arrays = f"{type(error).__name__}: {error}"
        do = "Download it again, or save it again without Python objects."
        raise RawDataError(file, file.suffix, "plain NumPy arrays", arrays, do) from error


def _array(
    file: Path,
    content: Mapping[str, Any],
    key: str,
    shape: tuple[int, ...],
    dtype: type[np.floating[Any]] = np.float64,
    *,
    flat: bool = False,
) -> Floats:
    value = content.get(key)
    # SciPy's sparse matrix; one of another shape might fill the memory.
    if value is not None and hasattr(value, "toarray") and value.shape == shape:
        value = value.toarray()
    actual = f"{getattr(value, 'shape', '')} of {getattr(value, 'dtype', type(value).__name__)}"
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        value = value.reshape(-1) if flat else value
        if value.shape == shape and np.isfinite(value).all():
            return np.ascontiguousarray(value, dtype)
        actual += "" if value.shape != shape else " with nan or inf"
    actual = "nothing" if value is None else actual
    raise RawDataError(file, key, f"finite numbers of shape {shape}", actual, AS_DISTRIBUTED)


def _shapedirs(file: Path, model: Mapping[str, Any]) -> Floats:
    full = model.get("shapedirs")
    if isinstance(full, np.ndarray) and full.ndim == 3:
        full = full[..., :N_BETAS]
    return _array(file, {"shapedirs": full}, "shapedirs", (N_VERTICES, 3, N_BETAS))


def _parents(file: Path, model: Mapping[str, Any]) -> Ints:
    """First row of kintree_table; the root's parent is stored as 2^32 - 1."""
    parents: Ints = _array(file, model, "kintree_table", (2, N_JOINTS))[0].astype(np.int64)
    parents[0] = -1
    if (parents[1:] < 0).any() or (parents[1:] >= np.arange(1, N_JOINTS)).any():
        raise RawDataError(
            file, "kintree_table", "parents before children", f"{parents}", AS_DISTRIBUTED
        )
    return parents


def _faces(file: Path, model: Mapping[str, Any]) -> Ints:
    faces: Ints = _array(file, model, "f", (N_FACES, 3)).astype(np.int64)
    if faces.min() < 0 or faces.max() >= N_VERTICES:
        actual = f"{faces.min()}..{faces.max()}"
        raise RawDataError(file, "f", f"vertex indices 0..{N_VERTICES - 1}", actual, AS_DISTRIBUTED)
    return faces
