"""Read the body model's files as plain arrays.  raw -> tracks: labels derived through SMPL;
training: the body itself

    SMPL_NEUTRAL.pkl, or .npz          the model of a gender: template, shape and pose blend shapes,
                                       skinning, joints
    J_regressor_extra.npy              9 further joints of SPIN
    J_regressor_h36m.npy               Human3.6M's joints
    smpl_mean_params.npz               the pose, shape and camera that regressors begin with
    SMPLX_MALE.npz                     SMPL-X of a gender, as SMPL's, with hands

`load` reads SMPL's, `load_smplx` SMPL-X's; `body_files` only identifies them by a digest.

This module does not import torch, because planning a conversion hashes these files and must be
quick. The folder of the demo body (`pipeline.extras.demo.writing.write_body`) has the same files
and keys; both the folder and the model file are marked as demo data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile

from cache import GENDERS
from cache.arrays import Array, Doubles, Ints
from pipeline.errors import MissingAssets, RawDataError
from pipeline.files.formats.arrays import StoredArrays, load_npz, numbers
from pipeline.files.formats.pickles import load_pickle
from pipeline.files.numbers import Floats
from pipeline.files.raw import is_demo_data
from pipeline.files.raw.files import remembered_digest
from pipeline.people.skeletons import JOINTS, SIDED_JOINTS

N_VERTICES: Final = 6890
N_FACES: Final = 13776
N_JOINTS: Final = 24
N_EXTRA: Final = 9  # joints of J_regressor_extra, the last ones of smpl54
N_POSE: Final = 72  # numbers of a pose
N_BETAS: Final = 10  # VIBE and 3DPW use so many of the up to 300 in the official files
SMPLX_N_JOINTS: Final = 55
SMPLX_N_POSE: Final = 165
SMPLX_N_EXPRESSION: Final = 10
SMPLX_N_BETAS: Final = 16  # further ones are left out
# Number of joints (24: SMPL, 55: SMPL-X) -> position of the pelvis in the rest pose, in m. It
# varies by some cm with the body's shape.
PELVIS_M: Final = {24: (0.0, -0.23, 0.03), 55: (0.0, -0.35, 0.01)}

REGRESSOR_EXTRA: Final = "J_regressor_extra.npy"
REGRESSOR_H36M: Final = "J_regressor_h36m.npy"
MEAN_PARAMS: Final = "smpl_mean_params.npz"
_SMPLX_SHAPES: Final[dict[str, tuple[int | None, ...]]] = {
    "v_template": (None, 3),
    "shapedirs": (None, 3, None),
    "posedirs": (None, 3, 9 * (SMPLX_N_JOINTS - 1)),
    "J_regressor": (SMPLX_N_JOINTS, None),
    "weights": (None, SMPLX_N_JOINTS),
    **{f"hands_mean{side}": (45,) for side in "lr"},
    **{f"hands_components{side}": (45, 45) for side in "lr"},
}
_SMPLX_AS_DISTRIBUTED: Final = "Take SMPL-X's file as its authors distribute it (v1.0 or v1.1)."
AS_DISTRIBUTED: Final = (
    "Take the file as its authors distribute it (SMPL v1.0 or v1.1, 10 or 300 shape components)."
)


Model = Literal["smpl", "smplx"]


@dataclass(frozen=True, eq=False)  # eq=False: == of arrays is ambiguous
class SmplArrays:
    """The arrays of one SMPL body model (Loper et al. 2015), and of the files that VIBE uses with
    it. In metres; y is up, the body faces +z, its left is at +x. All are float64 but posedirs.
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
    stand_in: bool  # whether it is the procedural demo body, not SMPL
    digest: str  # sha256 over the content of the files


class _BodyIdentity(NamedTuple):
    """Identity of the files that `load` or `load_smplx` reads."""

    digest: str  # sha256 over their content
    stand_in: bool  # their folder is marked as the procedural body


def load(folder: Path | str, gender: str = "neutral") -> SmplArrays:
    """Read one gender's body model from `folder`.

    Raises MissingAssets for missing files, RawDataError for other content, and UnsafePickle if a
    model file asks for anything except arrays.
    """
    folder = Path(folder)
    if gender not in GENDERS:
        raise ValueError(f"gender: expected one of {', '.join(GENDERS)}, found {gender!r}")
    model = _open(_require_model_file(folder, gender))
    extra = _open(folder / REGRESSOR_EXTRA)
    h36m = _open(folder / REGRESSOR_H36M)
    mean = _open(folder / MEAN_PARAMS)
    files = body_files(folder, gender)
    arrays = SmplArrays(
        v_template=_take(model, "v_template", N_VERTICES, 3),
        shapedirs=_take(model, "shapedirs", N_VERTICES, 3, N_BETAS, first=True),
        posedirs=_take(model, "posedirs", N_VERTICES, 3, 9 * (N_JOINTS - 1)).astype(np.float32),
        J_regressor=_take(model, "J_regressor", N_JOINTS, N_VERTICES),
        weights=_take(model, "weights", N_VERTICES, N_JOINTS),
        parents=_parents(model),
        faces=_faces(model),
        J_regressor_extra=_take(extra, REGRESSOR_EXTRA, N_EXTRA, N_VERTICES),
        J_regressor_h36m=_take(h36m, REGRESSOR_H36M, 17, N_VERTICES),
        mean_pose=_take(mean, "pose", 6 * N_JOINTS, flat=True),
        mean_shape=_take(mean, "shape", N_BETAS, flat=True),
        mean_cam=_take(mean, "cam", 3, flat=True),
        stand_in=files.stand_in or bool(np.any(model.content.get("stand_in", False))),
        digest=files.digest,
    )
    points = JOINTS["smpl54"]
    for file, key, regressor, names in (
        (model.file, "J_regressor", arrays.J_regressor, points[:N_JOINTS]),
        (extra.file, REGRESSOR_EXTRA, arrays.J_regressor_extra, points[-N_EXTRA:]),
        (h36m.file, REGRESSOR_H36M, arrays.J_regressor_h36m, JOINTS["h36m"]),
    ):
        _require_sides(file, key, names, regressor @ arrays.v_template)
    return arrays


def load_smplx(folder: Path | str, gender: str) -> dict[str, Array]:
    """Read SMPL-X of one gender: arrays by their keys, in metres, and `parents` (55,), -1 for the
    root. `shapedirs` is (V, 3, 20): 10 betas, 10 of the expression. Raises MissingAssets, and
    RawDataError for other content.
    """
    file = _require_smplx_file(Path(folder), gender)
    model = StoredArrays(
        file, load_npz(file, ("kintree_table", *_SMPLX_SHAPES)), _SMPLX_AS_DISTRIBUTED
    )
    arrays: dict[str, Array] = {"parents": _parents(model, SMPLX_N_JOINTS)}
    for key, shape in _SMPLX_SHAPES.items():
        arrays[key] = model.take(key, *shape, finite=True)
    directions = arrays["shapedirs"]
    # the official files have 300 shape and 100 expression components, or 10 of each
    expression = 300 if directions.shape[-1] > 300 else N_BETAS
    used = [*range(N_BETAS), *range(expression, expression + SMPLX_N_EXPRESSION)]
    if directions.shape[-1] <= used[-1]:
        raise model.error("shapedirs", "20 or 400 components", str(directions.shape[-1]))
    arrays["shapedirs"] = directions[..., used]
    return arrays


def _require_sides(file: Path, key: str, names: Sequence[str], joints: Floats) -> None:
    """Raise RawDataError unless the template's joints (J, 3) m are on the correct sides, and ankles
    below knees below hips.

    This finds regressors of the same shape with another joint order, for example with left and
    right legs exchanged.
    """
    plain_names = [name.removeprefix("smpl_").removeprefix("extra_") for name in names]
    x_of = dict(zip(plain_names, joints[:, 0], strict=True))
    y_of = dict(zip(plain_names, joints[:, 1].tolist(), strict=True))
    wrong = []
    for part in SIDED_JOINTS:
        for side, sign in (("l", 1), ("r", -1)):
            name = side + part
            if name in x_of and not sign * x_of[name] > 0:
                wrong.append(f"{name} at x = {x_of[name]:+.3f} m")
    tops = [name for name in ("neck", "headtop", "head") if name in y_of]
    first_present = tops[:1]
    for side in "lr":
        upwards = [side + part for part in ("ankle", "knee", "hip")] + first_present
        chain = [name for name in upwards if name in y_of]
        heights = [y_of[name] for name in chain]
        if heights != sorted(heights):
            wrong.append(f"{chain} at y = {np.round(heights, 3).tolist()} m")
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


def body_files(folder: Path | str, gender: str = "neutral", model: Model = "smpl") -> _BodyIdentity:
    """Identify the files in `folder` that `load` (or `load_smplx`) reads for `gender`.

    Reads no pickle. A file is hashed once per process, size and time. Raises MissingAssets for
    missing files.
    """
    folder = Path(folder)
    names: tuple[str, ...]
    if model == "smplx":
        names = (_require_smplx_file(folder, gender).name,)
    else:
        model_file = _require_model_file(folder, gender)
        names = (model_file.name, REGRESSOR_EXTRA, REGRESSOR_H36M, MEAN_PARAMS)
    total = hashlib.sha256()
    for name in names:
        content = remembered_digest(folder.resolve() / name)
        total.update(f"{name} {content}\n".encode())
    return _BodyIdentity(total.hexdigest(), is_demo_data(folder))


def missing(folder: Path | str, gender: str = "neutral") -> list[str]:
    """Names of missing files for a body of this gender."""
    folder = Path(folder)
    names = []
    if _model_file(folder, gender) is None:
        names.append(f"SMPL_{gender.upper()}.pkl (or .npz)")
    for name in (REGRESSOR_EXTRA, REGRESSOR_H36M, MEAN_PARAMS):
        if not (folder / name).is_file():
            names.append(name)
    return names


def gender_of(stored: object) -> str:
    """The one of `GENDERS` that a label file means; "" for any other content.

    >>> [gender_of(stored) for stored in ("Female", b"m", "b'male'", "NEUTRAL", "unknown")]
    ['female', 'male', 'male', 'neutral', '']
    """
    if isinstance(stored, bytes):
        stored = stored.decode("latin1")
    # some files hold the text of a bytes object
    text = str(stored).removeprefix("b'").removesuffix("'").strip().lower()
    for gender in GENDERS:
        if text in (gender, gender[0]):
            return gender
    return ""


def _model_file(folder: Path, gender: str) -> Path | None:
    """The model file of a gender; None if there is none. A .pkl takes precedence."""
    for suffix in (".pkl", ".npz"):
        file = folder / f"SMPL_{gender.upper()}{suffix}"
        if file.is_file():
            return file
    return None


def _require_model_file(folder: Path, gender: str) -> Path:
    """The model file of a gender. Raises MissingAssets unless it and the other files exist."""
    if folder.is_file():
        raise MissingAssets(f"{folder}: this is a file. Name the folder of SMPL's files.")
    model_file = _model_file(folder, gender)
    names = missing(folder, gender)
    if model_file is None or names:
        raise MissingAssets(
            f"{folder}: missing {', '.join(names)}. The SMPL model is at "
            f"smpl.is.tue.mpg.de (registration; rename its file for {gender} to "
            f"SMPL_{gender.upper()}.pkl); the regressors and mean parameters come with "
            "fetch_data.sh of github.com/nkolot/SPIN. Put them into this folder, or use the "
            "procedural body: `python -m pipeline synthesize --out DIR` writes it to DIR/body."
        )
    return model_file


def _require_smplx_file(folder: Path, gender: str) -> Path:
    """The file of SMPL-X of a gender. Raises MissingAssets."""
    file = folder / f"SMPLX_{gender.upper()}.npz"
    if not file.is_file():
        raise MissingAssets(
            f"{folder}: missing {file.name}. The SMPL-X model is at smpl-x.is.tue.mpg.de "
            "(registration; SMPL-X v1.1 as npz). Put it into this folder, or use the procedural "
            "body: `python -m pipeline synthesize --out DIR` writes it to DIR/body."
        )
    return file


def _open(file: Path) -> StoredArrays:
    """The arrays in a file: those of an .npz or a pickle by key, that of an .npy by the file's
    name. Raises RawDataError.
    """
    if file.suffix == ".pkl":
        return StoredArrays(file, load_pickle(file, kind="smpl"), AS_DISTRIBUTED)
    try:
        with file.open("rb") as stream:  # opened here: NumPy leaves a broken archive open
            loaded = np.load(stream, allow_pickle=False)
            if not isinstance(loaded, NpzFile):
                loaded = {file.name: loaded}
            return StoredArrays(file, dict(loaded), AS_DISTRIBUTED)
    except Exception as error:  # also MemoryError: a damaged header may claim anything
        actual = f"{type(error).__name__}: {error}"
        do = "Download it again, or save it again without Python objects."
        raise RawDataError(file, file.suffix, "plain NumPy arrays", actual, do) from error


def _take(
    stored: StoredArrays, key: str, *shape: int, flat: bool = False, first: bool = False
) -> Doubles:
    """Take an array of finite numbers in this shape. Raises RawDataError for anything else.

    Args:
        flat: flatten the stored array first.
        first: the last axis may be longer; its first numbers are taken.
    """
    value: Any = stored.value(key)
    # SciPy's sparse matrix; one of another shape might fill the memory.
    if hasattr(value, "toarray") and value.shape == shape:
        value = value.toarray()
    if flat:
        value = np.reshape(value, -1)
    if first and np.ndim(value) == len(shape):
        value = value[..., : shape[-1]]
    array = numbers(stored.file, key, value, shape, do=stored.do)
    if not np.isfinite(array).all():
        raise stored.error(key, "finite numbers", "NaN or infinity")
    return np.ascontiguousarray(array)


def _parents(model: StoredArrays, n_joints: int = N_JOINTS) -> Ints:
    """The parent of each joint, from the first row of kintree_table; -1 for the root, for which
    2^32 - 1 is stored.
    """
    parents: Ints = _take(model, "kintree_table", 2, n_joints)[0].astype(np.int64)
    parents[0] = -1
    if (parents[1:] < 0).any() or (parents[1:] >= np.arange(1, n_joints)).any():
        raise model.error("kintree_table", "parents before children", f"{parents}")
    return parents


def _faces(model: StoredArrays) -> Ints:
    faces: Ints = _take(model, "f", N_FACES, 3).astype(np.int64)
    lowest = faces.min()
    highest = faces.max()
    if lowest < 0 or highest >= N_VERTICES:
        raise model.error("f", f"vertex indices 0..{N_VERTICES - 1}", f"{lowest}..{highest}")
    return faces
