"""SMPL bodies fitted to Human3.6M, as they are passed around beside it.  [raw] -> tracks -> features -> windows

    smpl_param/Human36M_subject<k>_smpl_param.json    action id -> subaction id -> frame -> pose 72, shape 10, trans 3
    annotations/ or smpl_param/Human36M_subject<k>_camera.json    camera "1" to "4" -> R (3, 3), t, f, c

Fits are in the world's axes. A file has hundreds of MB, so it is streamed into arrays of float32 (20 MB a subject), and
each process keeps those of the last subject only: videos come subject by subject.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import ijson
import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.h36m_metadata import CAMERAS, is_number, state_of
from pipeline.errors import RawDataError
from pipeline.formats.arrays import numbers
from pipeline.formats.json_files import load_json
from pipeline.raw.files import open_regular
from pipeline.smpl.rotations import is_rotation

Floats = NDArray[np.float32]

LENGTHS: Final = {"pose": 72, "shape": 10}
MAX_DEPTH: Final = 16  # maps and lists in each other; the format has five
MAX_SILENCE: Final = 1 << 20  # bytes without a token: no number or name is that long
MAX_CAMERA_BYTES: Final = 1 << 20
AGAIN: Final = "Download the fits again."


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The fitted frames of one sequence, N of them."""

    frame_index: NDArray[np.int64]  # (N,) strictly increasing
    pose: Floats  # (N, 72) rad, global orientation in the world
    betas: Floats  # (N, 10)

    def of(self, frame_index: NDArray[np.int64]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """pose (T, 72), betas (T, 10) and whether there is a fit (T,), for the given frames; NaN where there is not."""
        at = np.searchsorted(self.frame_index, frame_index)
        at[at == len(self.frame_index)] = 0
        known = self.frame_index[at] == frame_index
        known &= np.isfinite(self.pose[at]).all(axis=1) & np.isfinite(self.betas[at]).all(axis=1)
        pose, betas = (np.where(known[:, None], rows[at], np.float32(np.nan)) for rows in (self.pose, self.betas))
        return pose, betas, known


def load_fits(file: Path) -> Mapping[tuple[int, int], Fit]:
    """(action, subaction) -> fit, of one subject. Raises RawDataError for a file that holds something else."""
    found = _cached(file, state_of(file))
    if isinstance(found, RawDataError):
        raise found
    return found


@functools.lru_cache(maxsize=1)
def _cached(file: Path, state: tuple[int, int]) -> Mapping[tuple[int, int], Fit] | RawDataError:  # noqa: ARG001
    """The fits, or why not: that is kept too, since a subject has 120 videos and a damaged file may be long."""
    rows: dict[tuple[int, int], tuple[array[int], array[float], array[float]]] = {}
    try:
        with open_regular(file) as stream:
            for action, subaction, frame, pose, shape in _frames(file, stream):
                kept = rows.setdefault((action, subaction), (array("q"), array("f"), array("f")))
                kept[0].append(frame)
                kept[1].extend(pose)
                kept[2].extend(shape)
    except RawDataError as error:
        return error
    except Exception as error:  # the parser has a choice of implementations, each with errors of its own
        found = f"{type(error).__name__}: {error}"
        return RawDataError(file, "file", expected="a JSON file of fits", found=found, do=AGAIN)
    return {key: _fit(*kept) for key, kept in rows.items()}


def _fit(frames: array[int], pose: array[float], shape: array[float]) -> Fit:
    """In the order of frames; of a frame that is there twice the last."""
    stored = np.frombuffer(frames, np.int64)
    index, last = np.unique(stored[::-1], return_index=True)
    row = len(stored) - 1 - last
    return Fit(index, *(np.frombuffer(v, np.float32).reshape(len(stored), -1)[row] for v in (pose, shape)))


class _Watched:
    """A file that is read only while something is found in it: a token without end would be kept whole."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.silence = 0  # bytes since the last token

    def read(self, n: int = -1) -> bytes:
        if self.silence > MAX_SILENCE:
            raise ValueError(f"a number or name of over {MAX_SILENCE} bytes")
        data = self._stream.read(n)
        self.silence += len(data)
        return data


def _frames(file: Path, stream: IO[bytes]) -> Iterator[tuple[int, int, int, list[float], list[float]]]:
    """action, subaction, frame, pose and shape of every fitted frame, in the file's order."""
    watched = _Watched(stream)
    path: list[str] = []  # the key that each of the open maps is at
    lists = 0  # open ones
    values: dict[str, list[float]] = {name: [] for name in LENGTHS}
    for event, value in ijson.basic_parse(watched, use_float=True):
        watched.silence = 0
        if event == "number":
            if len(path) == 4 and path[3] in values:
                values[path[3]].append(value)
                if len(values[path[3]]) > LENGTHS[path[3]]:
                    _complete(file, path, values)
        elif event == "map_key":
            path[-1] = value
        elif event == "start_map":
            path.append("")
        elif event == "end_map":
            path.pop()
            if len(path) == 3 and any(values.values()):
                yield (*_numbers(file, path), *_complete(file, path, values))
                values = {name: [] for name in LENGTHS}
        elif event in ("start_array", "end_array"):
            lists += 1 if event == "start_array" else -1
        if len(path) + lists > MAX_DEPTH or (lists and not path):
            where = "/".join(path[:3])
            raise RawDataError(file, where, expected="maps, and lists of numbers", found="other lists", do=AGAIN)


def _numbers(file: Path, path: list[str]) -> tuple[int, int, int]:
    if not all(map(is_number, path)):
        expected = "action, subaction and frame as numbers"
        raise RawDataError(file, "/".join(path), expected=expected, found="other keys", do=AGAIN)
    action, subaction, frame = map(int, path)
    return action, subaction, frame


def _complete(file: Path, path: list[str], values: Mapping[str, list[float]]) -> tuple[list[float], list[float]]:
    for name, n in LENGTHS.items():
        if len(values[name]) != n:
            key, found = "/".join([*path[:3], name]), f"{len(values[name])}"
            raise RawDataError(file, key, expected=f"{n} numbers", found=found, do=AGAIN)
    return values["pose"], values["shape"]


def load_rotations(file: Path) -> Mapping[str, NDArray[np.float64]]:
    """Camera id -> (3, 3) from the world into the camera. Raises RawDataError for a file that holds something else."""
    stored = load_json(file, do=AGAIN, max_bytes=MAX_CAMERA_BYTES)
    rotations = {}
    for number, camera in enumerate(CAMERAS, start=1):
        entry = stored.get(str(number)) if isinstance(stored, dict) else None
        if not isinstance(entry, dict) or "R" not in entry:
            raise RawDataError(file, f"{number}/R", expected="a rotation", found="none", do=AGAIN)
        rotation = numbers(file, f"{number}/R", entry["R"], (3, 3))
        if not is_rotation(rotation[None])[0]:
            raise RawDataError(file, f"{number}/R", expected="a rotation", found=str(rotation.tolist()), do=AGAIN)
        rotations[camera] = rotation
    return rotations
