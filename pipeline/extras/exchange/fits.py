"""`python -m pipeline fits`: SMPL fits of 4D-Humans or CameraHMR -> an SQLite file in a raw folder
(the store), for conversion.

Dataset readers look fits up in the store by the names of images.

`hmr2_training_data/dataset_tars/<dataset>/000000.tar` has for each image `<key>.jpg` and
`<key>.data.pyd`, a pickle with a list of dicts, one per person (Goel et al., ICCV 2023).
CameraHMR's `insta1-release.npz` and `insta2-release.npz` have fits to the same images (Patel and
Black, 3DV 2025). Pickles may only name arrays.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import re
import sqlite3
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from pipeline.cli.command_line import WORK_KEPT, Command
from pipeline.cli.console import DOUBT, err, out, plain
from pipeline.cli.progress import Progress, bar, silent
from pipeline.cli.text import count
from pipeline.datasets.labels.fits import FILE, N_JOINTS, picture_name
from pipeline.errors import PipelineError, RawDataError
from pipeline.files.formats.arrays import load_npz, numbers, reading, refuse
from pipeline.files.formats.pickles import ARRAYS, ArrayUnpickler
from pipeline.files.raw.files import open_regular
from pipeline.people.skeletons import are_usable_numbers
from pipeline.people.smpl_files import N_BETAS, N_POSE

ENDING: Final = ".data.pyd"
_PICKLE: Final = "a list of fits: NumPy arrays in dicts and lists"
END: Final = 1024  # zero bytes at a tar's end
AGAIN: Final = "Download this file again, and run the same command."
_MOST_BYTES: Final = 1 << 24  # of one image's pickle, which usually has some kilobytes
_N_STORED: Final = 44  # keypoints of a person in a file, of which the first N_JOINTS are taken
SHAPES: Final[Mapping[str, tuple[int, ...]]] = {  # arrays of a person in a pickle
    "body_pose": (N_POSE,),
    "betas": (N_BETAS,),
    "keypoints_2d": (_N_STORED, 3),
}
FLAGS: Final = ("has_body_pose", "has_betas")  # which must be set


def _run(args: argparse.Namespace) -> int:
    """Read new files. Returns 1 if one cannot be read."""
    with bar(f"fits {args.raw.name}", err, unit="file") as progress:
        collected = collect(sorted(args.files), args.raw / FILE, args.key, progress)
    text = f"{count(collected.n_fits, 'fit')} read of {count(collected.n_read, 'file')}"
    if collected.n_known:
        text += f", {count(collected.n_known, 'file')} read before"
    out.print(text)
    for why, n in sorted(collected.skipped.items()):
        out.print(f"  {DOUBT} skipped {count(n, 'person')}: {plain(why)}")
    for error in collected.errors:
        out.print(f"  {DOUBT} {plain(str(error))}")
    return 1 if collected.errors else 0


@dataclass(slots=True)
class _FitTally:
    """What was read into a store."""

    n_fits: int = 0
    n_read: int = 0  # files
    n_known: int = 0  # files that an earlier run has read
    skipped: Counter[str] = field(default_factory=Counter)  # reason -> number of persons
    errors: list[RawDataError] = field(default_factory=list)  # of files that cannot be read


def collect(
    files: Sequence[Path], store: Path, key: str = "", progress: Progress = silent
) -> _FitTally:
    """Read tars and .npz files into `store`. key: `--key`.

    Each file is committed separately, so an interrupted run can be continued. Raises UnsafePickle,
    and PipelineError for an invalid `key`, or one that differs from the store's.
    """
    pattern = None
    try:
        if key:
            pattern = re.compile(key)
    except re.error as error:
        raise PipelineError(f"--key {key!r}: expected a regular expression: {error}") from error
    collected = _FitTally()
    try:
        with contextlib.closing(sqlite3.connect(store)) as database:
            _begin(database, store, key)
            for n_done, file in enumerate(files, 1):
                try:
                    _read_into(database, file, pattern, collected)
                except RawDataError as error:
                    collected.errors.append(error)
                progress(n_done, len(files))
    except sqlite3.Error as error:
        do = (
            "Check that its folder exists and is writable, the disk is not full, and no other "
            "`fits` is running."
        )
        raise PipelineError(f"{store}: cannot be written: {error}. {do}") from error
    return collected


class _Skipped(Exception):
    """A person is not stored; its text is the reason."""


def _encoded_fits(
    file: Path, pattern: re.Pattern[str] | None, skipped: Counter[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield image name and encoded fit (`_encode_person`) of each person in a file: CameraHMR's
    .npz, or else 4D-Humans' tar. Counts the other persons by their reason.

    Raises RawDataError for an invalid or truncated file, UnsafePickle for a pickle that names
    anything but arrays.
    """
    people = _read_npz(file) if file.suffix == ".npz" else _read_tar(file)
    for path, person in people:
        name = picture_name(path, pattern)
        if not name:
            skipped["no name by --key"] += 1
            continue
        try:
            yield name, _encode_person(person)
        except _Skipped as reason:
            skipped[str(reason)] += 1


def _read_tar(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield key and person of a tar."""
    with reading(file, "a whole tar", do=AGAIN), open_regular(file) as stream:
        stream.seek(-min(END, os.fstat(stream.fileno()).st_size), os.SEEK_END)
        if stream.read() != bytes(END):  # tarfile accepts a missing end
            refuse("a tar without its end, as after an interrupted download")
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if not member.name.endswith(ENDING) or not member.isfile():
                    continue
                content = tar.extractfile(member)
                if content is None or member.size > _MOST_BYTES:
                    refuse(f"{member.name} of {member.size} bytes")
                path = file / member.name
                with reading(path, _PICKLE, key="pickle", do="Download its tar again."):
                    data = io.BytesIO(content.read())
                    people = ArrayUnpickler(path, data, ARRAYS, _PICKLE).load()
                    if not isinstance(people, list):
                        refuse(f"{type(people).__name__} at the top")
                for person in people:
                    yield member.name, person


def _read_npz(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield name and person of CameraHMR's file, whose bodies are all known."""
    arrays = load_npz(file, ("imgname", "pose_cam", "shape", "gtkps"))
    names = arrays["imgname"].ravel().tolist()
    n = len(names)
    pose = arrays["pose_cam"]
    if pose.ndim == 3:  # a row of three numbers for each joint
        pose = pose.reshape(len(pose), pose.shape[1] * pose.shape[2])
    pose = numbers(file, "pose_cam", pose, (n, N_POSE), do=AGAIN)
    betas = numbers(file, "shape", arrays["shape"], (n, None), do=AGAIN)
    keypoints = numbers(file, "gtkps", arrays["gtkps"], (n, None, 3), do=AGAIN)
    for number, name in enumerate(names):
        person = {
            "body_pose": pose[number],
            "betas": betas[number, :N_BETAS],
            "keypoints_2d": keypoints[number, :_N_STORED],
        }
        yield str(name), person | dict.fromkeys(FLAGS, 1)


def _encode_person(person: Any) -> bytes:
    """Encode a person for storage: the numbers of SHAPES as float32, one after the other. Raises
    _Skipped.
    """
    if not isinstance(person, dict):
        raise _Skipped("no dict")
    for name in (*SHAPES, *FLAGS):
        if name not in person:
            raise _Skipped(f"no {name}")
    arrays = {}
    for name, shape in SHAPES.items():
        try:
            array = np.asarray(person[name])
        except ValueError as error:
            raise _Skipped(f"{name} is no array") from error
        if array.dtype.kind not in "biuf" or array.size != np.prod(shape):
            raise _Skipped(f"{name} has another shape")
        arrays[name] = array.astype(np.float64).reshape(shape)
        if not are_usable_numbers(arrays[name]).all():
            raise _Skipped(f"{name} is not finite")
    for name in FLAGS:
        flag = np.asarray(person[name])
        if flag.size != 1 or not flag.item():
            raise _Skipped("has no body")
    arrays["keypoints_2d"] = arrays["keypoints_2d"][:N_JOINTS]
    return b"".join(array.astype("<f4").tobytes() for array in arrays.values())


def _begin(database: sqlite3.Connection, file: Path, key: str) -> None:
    """Create the store's tables, or raise PipelineError if they were created with another `key`."""
    with database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS tars (name TEXT PRIMARY KEY, size INT, digest TEXT)"
        )
        database.execute("CREATE TABLE IF NOT EXISTS fits (tar TEXT, name TEXT, fit BLOB)")
        database.execute("CREATE TABLE IF NOT EXISTS options (key TEXT)")
        database.execute("CREATE INDEX IF NOT EXISTS by_name ON fits (name)")
        before = database.execute("SELECT key FROM options").fetchone()
        if before is None:
            database.execute("INSERT INTO options VALUES (?)", (key,))
        elif before[0] != key:
            raise PipelineError(
                f"{file}: was made with --key {before[0]!r}, not {key!r}. Delete it to restart."
            )


def _read_into(
    database: sqlite3.Connection,
    file: Path,
    pattern: re.Pattern[str] | None,
    collected: _FitTally,
) -> None:
    """Read a tar or .npz into the store, in one transaction that replaces its earlier fits. A file
    whose name and size have been read before is not read.
    """
    # with its folder: datasets' tars have equal numbers
    name = PurePosixPath(*file.absolute().parts[-2:]).as_posix()
    before = database.execute("SELECT size FROM tars WHERE name = ?", (name,)).fetchone()
    if before is not None and before[0] == file.stat().st_size:
        collected.n_known += 1
        return
    skipped = Counter[str]()
    fits = list(_encoded_fits(file, pattern, skipped))
    digest = hashlib.sha256()
    for image, fit in fits:
        digest.update(image.encode() + b"\0" + fit)
    with database:
        database.execute("DELETE FROM fits WHERE tar = ?", (name,))
        database.executemany("INSERT INTO fits VALUES (?, ?, ?)", ((name, *fit) for fit in fits))
        record = (name, file.stat().st_size, digest.hexdigest())
        database.execute("INSERT OR REPLACE INTO tars VALUES (?, ?, ?)", record)
    collected.n_read += 1
    collected.n_fits += len(fits)
    collected.skipped += skipped


COMMAND: Final = Command(_run, kept=WORK_KEPT)
