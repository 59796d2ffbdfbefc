"""SMPL bodies that 4D-Humans or CameraHMR has fitted to pictures: into one SQLite file, from there to a reader's rows.

`hmr2_training_data/dataset_tars/<data set>/000000.tar`: of each picture `<key>.jpg` and `<key>.data.pyd`, the pickle
of a list of dicts, one a person (Goel et al., ICCV 2023). CameraHMR's `insta1-release.npz` and `insta2-release.npz`:
fits to the same pictures, by name (Patel and Black, 3DV 2025). Tars are streamed; pickles have a list of names.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError, RawDataError
from pipeline.files.formats.arrays import load_npz, numbers, reading, refuse
from pipeline.files.formats.pickles import load_fits
from pipeline.files.raw.files import open_regular
from pipeline.skeletons import LARGEST

Doubles = NDArray[np.float64]

FILE: Final = "fits.sqlite"
ENDING: Final = ".data.pyd"
END: Final = 1024  # zero bytes at a tar's end
AGAIN: Final = "Download this file again, and run the same command: the others stay."
MOST_BYTES: Final = 1 << 24  # of one picture's pickle, which has some kilobytes
N_POSE, N_BETAS, N_JOINTS = 72, 10, 25  # joints: OpenPose's, the first of spin49; 19 more follow them in the files
N_STORED: Final = 44
KEYS: Final = ("body_pose", "betas", "keypoints_2d", "has_body_pose", "has_betas")
SHAPES: Final[Mapping[str, tuple[int, ...]]] = {
    "body_pose": (N_POSE,),
    "betas": (N_BETAS,),
    "keypoints_2d": (N_STORED, 3),
}
SIZE: Final = 4 * (N_POSE + N_BETAS + 3 * N_JOINTS)  # bytes of a stored fit
LIMIT: Final = 0.1  # of the person's larger side: what joints may be off, on average (root mean square)
FEWEST: Final = 8  # joints that both have
MATCHED, ABSENT, ELSEWHERE, AMBIGUOUS = "matched", "without a fit", "refused by reprojection", "ambiguous"


class Fit(NamedTuple):
    """One person of one picture."""

    pose: Doubles  # (72,) axis-angle, rad, the global orientation in the camera
    betas: Doubles  # (10,)
    kp_2d: Doubles  # (25, 3) px of the picture that it was fitted to, confidence


class FitsRead(NamedTuple):
    """What was found of a file."""

    fits: list[tuple[str, bytes]]  # the picture's name, and a stored fit
    skipped: Counter[str]  # why -> persons
    digest: str


# ------------------------------------------------------------------------------------------------------ tars


def picture_name(path: str, key: re.Pattern[str] | None = None) -> str:
    """What a picture is called on both sides: its path without an extension.

    `key`: its first group, or all that it matches, is the name; "" where it does not match.

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
    return "" if match is None else match[1 if key.groups else 0] or ""


def read(file: Path, key: re.Pattern[str] | None = None) -> FitsRead:
    """All fits of a file: 4D-Humans' tar, or CameraHMR's npz where it is called so.

    Raises RawDataError for one that is none or ends early, a pickle or an array that cannot be read, and UnsafePickle
    for a pickle that names anything but arrays.
    """
    fits, skipped, digest = [], Counter[str](), hashlib.sha256()
    for path, person in _of_npz(file) if file.suffix == ".npz" else _of_tar(file):
        stored = _stored(person) if (name := picture_name(path, key)) else "no name by --key"
        if isinstance(stored, str):
            skipped[stored] += 1
            continue
        fits.append((name, stored))
        digest.update(name.encode() + b"\0" + stored)
    return FitsRead(fits, skipped, digest.hexdigest())


def _of_tar(file: Path) -> Iterator[tuple[str, Any]]:
    """Key and person, of a tar that is read once from its beginning to its end."""
    with reading(file, "a whole tar", do=AGAIN), open_regular(file) as stream:
        stream.seek(-min(END, os.fstat(stream.fileno()).st_size), os.SEEK_END)
        if len(end := stream.read()) < END or any(end):  # the library takes a missing end for one
            refuse("a file without a tar's end, as of a download that stopped")
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if not member.name.endswith(ENDING) or not member.isfile():
                    continue
                content = tar.extractfile(member) if member.size <= MOST_BYTES else None
                if content is None:
                    refuse(f"{member.name} of {member.size} bytes")
                for person in load_fits(file / member.name, content.read()):
                    yield member.name, person


def _of_npz(file: Path) -> Iterator[tuple[str, Any]]:
    """Name and person, of CameraHMR's file, whose bodies are all known: imgname, pose_cam, shape, gtkps."""
    arrays = load_npz(file, ("imgname", "pose_cam", "shape", "gtkps"))
    n, known = len(arrays["imgname"]), np.ones(1)
    pose = numbers(file, "pose_cam", arrays["pose_cam"].reshape(n, -1), (n, N_POSE), do=AGAIN)
    betas = numbers(file, "shape", arrays["shape"], (n, None), do=AGAIN)[:, :N_BETAS]
    keypoints = numbers(file, "gtkps", arrays["gtkps"], (n, None, 3), do=AGAIN)[:, :N_STORED]
    for name, *person in zip(arrays["imgname"].tolist(), pose, betas, keypoints, strict=True):
        yield str(name), dict(zip(KEYS, (*person, known, known), strict=True))


def _stored(person: Any) -> bytes | str:
    """A person of a pickle as it is stored, or why not."""
    if not isinstance(person, dict) or (missing := [key for key in KEYS if key not in person]):
        return f"no {missing[0]}" if isinstance(person, dict) else "no dict"
    arrays = {}
    for key, shape in SHAPES.items():
        try:
            array = np.asarray(person[key])
        except ValueError:
            return f"{key} is no array"
        if array.dtype.kind not in "biuf" or array.size != np.prod(shape):
            return f"{key} of another shape"
        arrays[key] = array.astype(np.float64).reshape(shape)
        if not (np.abs(arrays[key]) < LARGEST).all():  # comparisons with NaN are false
            return f"{key} is not finite"
    if not all(np.asarray(person[key]).size == 1 and bool(np.asarray(person[key]).item()) for key in KEYS[-2:]):
        return "has no body"
    arrays["keypoints_2d"] = arrays["keypoints_2d"][:N_JOINTS]
    return b"".join(array.astype("<f4").tobytes() for array in arrays.values())


# ------------------------------------------------------------------------------------------------------ the store


class FitStore:
    """Fits by the names of their pictures, in one SQLite file."""

    def __init__(self, database: sqlite3.Connection, file: Path) -> None:
        self._database, self._file = database, file

    @classmethod
    def create(cls, file: Path, key: str = "") -> Self:
        """Open for writing; made where it is not there. Raises PipelineError where it was made with another `key`."""
        database = sqlite3.connect(file)
        with database:
            database.execute("CREATE TABLE IF NOT EXISTS tars (name TEXT PRIMARY KEY, size INT, digest TEXT)")
            database.execute("CREATE TABLE IF NOT EXISTS fits (tar TEXT, name TEXT, fit BLOB)")
            database.execute("CREATE TABLE IF NOT EXISTS options (key TEXT)")
            database.execute("CREATE INDEX IF NOT EXISTS by_name ON fits (name)")
            if not (before := database.execute("SELECT key FROM options").fetchone()):
                database.execute("INSERT INTO options VALUES (?)", (key,))
            elif before[0] != key:
                raise PipelineError(f"{file}: was made with --key {before[0]!r}, not {key!r}: remove it to begin again")
        return cls(database, file)

    @classmethod
    def open(cls, file: Path) -> Self:
        """Open for reading. Raises RawDataError where it is not there, or no such file."""
        do = "Make it of 4D-Humans' tars or CameraHMR's npz: python -m pipeline fits FILE... --raw DIR"
        if not file.is_file():
            raise RawDataError(file, "file", expected="fits to pictures", found="no such file", do=do)
        database = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        with reading(file, "fits to pictures", do=do):
            database.execute("SELECT tar, name, fit FROM fits LIMIT 1").fetchone()
        return cls(database, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def has(self, tar: Path) -> bool:
        """Whether a tar of this name and size has been read."""
        row = self._database.execute("SELECT size FROM tars WHERE name = ?", (_called(tar),)).fetchone()
        return row is not None and row[0] == tar.stat().st_size

    def put(self, tar: Path, content: FitsRead) -> None:
        """Add a tar's fits, all or none, in place of those of an earlier tar of its name."""
        name = _called(tar)
        with self._database:
            self._database.execute("DELETE FROM fits WHERE tar = ?", (name,))
            self._database.executemany("INSERT INTO fits VALUES (?, ?, ?)", ((name, *fit) for fit in content.fits))
            record = (name, tar.stat().st_size, content.digest)
            self._database.execute("INSERT OR REPLACE INTO tars VALUES (?, ?, ?)", record)

    @property
    def digest(self) -> str:
        """sha256 over what was read of all tars, whatever they are called and in whatever order they came."""
        rows = self._database.execute("SELECT digest FROM tars ORDER BY digest")
        return hashlib.sha256("".join(digest for (digest,) in rows).encode()).hexdigest()

    def of(self, name: str) -> list[Fit]:
        """The fits to a picture, each once. Raises RawDataError for a stored one of another size."""
        rows = self._database.execute("SELECT DISTINCT fit FROM fits WHERE name = ? ORDER BY fit", (name,))
        fits = []
        for (stored,) in rows:
            if len(stored) != SIZE:
                expected = f"{SIZE} bytes"
                raise RawDataError(self._file, name, expected=expected, found=str(len(stored)), do="Make it again.")
            values = np.frombuffer(stored, "<f4").astype(np.float64)
            pose, betas, kp_2d = np.split(values, [N_POSE, N_POSE + N_BETAS])
            fits.append(Fit(pose, betas, kp_2d.reshape(N_JOINTS, 3)))
        return fits


def _called(tar: Path) -> str:
    """Its folder tells data sets apart, whose tars have the same numbers."""
    return PurePosixPath(*tar.absolute().parts[-2:]).as_posix()


def digest_of(file: Path) -> str:
    """`FitStore.digest` of a file. Raises as `FitStore.open`."""
    with FitStore.open(file) as store:
        return store.digest


# ------------------------------------------------------------------------------------------------------ matching


def joined(
    file: Path, names: Sequence[str], kp_2d: NDArray[np.floating[Any]]
) -> tuple[dict[str, NDArray[Any]], Counter[str]]:
    """The fits of T rows: `pose` (T, 72), `betas` (T, 10), `has_smpl` (T,), fields of a Track; what became of them.

    names: of the rows' pictures. kp_2d: (T, 49, 3) spin49 px, confidence. A name without a folder says nothing of its
    video, and has no fit. Rows without exactly one fit whose keypoints are the row's, moved and magnified, have zeros.
    """
    fields, counts = none(len(names)), Counter[str]()
    with FitStore.open(file) as store:
        for row, name in enumerate(names):
            fits = store.of(name) if "/" in name else []
            near = [fit for fit in fits if reprojection(fit.kp_2d, kp_2d[row, :N_JOINTS].astype(np.float64)) <= LIMIT]
            what = MATCHED if len(near) == 1 else AMBIGUOUS if near else ELSEWHERE if fits else ABSENT
            counts[what] += 1
            if what == MATCHED:
                fields["pose"][row], fields["betas"][row], fields["has_smpl"][row] = near[0].pose, near[0].betas, True
    return fields, counts


def none(n_rows: int) -> dict[str, NDArray[Any]]:
    """The same of rows without a fit."""
    pose, betas = np.zeros((n_rows, N_POSE), np.float32), np.zeros((n_rows, N_BETAS), np.float32)
    return {"pose": pose, "betas": betas, "has_smpl": np.zeros(n_rows, np.bool_)}


def reprojection(points: Doubles, target: Doubles) -> float:
    """How far joints (J, 3) px are from others, at best, when they are moved and magnified; infinity where too few are.

    The root mean square distance over the larger side of the target's box, of joints that both have (confidence above
    0). Pictures may be cut and magnified differently; a mirrored or an upside down person does not fit.
    """
    both = (points[:, 2] > 0) & (target[:, 2] > 0)
    if both.sum() < FEWEST:
        return float("inf")
    moved, onto = (p[both, :2] - p[both, :2].mean(axis=0) for p in (points, target))
    size, spread = float(np.ptp(onto, axis=0).max()), float((moved**2).sum())
    scale = float((moved * onto).sum()) / spread if spread > 0 else 0.0
    if scale <= 0 or size <= 0:
        return float("inf")
    return float(np.sqrt(((scale * moved - onto) ** 2).sum(axis=1).mean()) / size)


def read_all(tars: Iterable[Path], file: Path, key: str = "") -> Iterator[tuple[Path, FitsRead | RawDataError | None]]:
    """Each file, and what was read of it into the store `file`: None where it was there, or why it cannot be read.

    Each is committed by itself: an interrupted run is gone on with. Raises UnsafePickle, and PipelineError for a `key`
    that is no regular expression or another one than before.
    """
    try:
        pattern = re.compile(key) if key else None
    except re.error as error:
        raise PipelineError(f"--key {key!r}: expected a regular expression: {error}") from error
    try:
        with FitStore.create(file, key) as store:
            for tar in tars:
                content: FitsRead | RawDataError | None = None
                if not store.has(tar):
                    try:
                        content = read(tar, pattern)
                    except RawDataError as error:
                        content = error
                    else:
                        store.put(tar, content)
                yield tar, content
    except sqlite3.Error as error:
        do = "Is its folder there and writable, has its disk room, and does no other `fits` run?"
        raise PipelineError(f"{file}: cannot be written: {error}. {do}") from error
