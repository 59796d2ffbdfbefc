"""SMPL bodies fitted to Human3.6M, as they are passed around beside it.  [raw] -> tracks -> features -> windows

    Human36M_subject<k>_smpl_param.json     action id -> subaction id -> frame -> pose 72, shape 10, trans 3
    Human36M_subject<k>_camera.json         camera "1" to "4" -> R (3, 3)

A file of fits has hundreds of MB, so it is streamed into arrays of float32 (20 MB a subject), and each process keeps
those of the last subject only: videos come subject by subject.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final, NamedTuple

import ijson
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.formats.arrays import numbers
from pipeline.formats.json_files import load_json
from pipeline.formats.labels.h36m_metadata import CAMERAS, is_number, state_of
from pipeline.raw.files import open_regular

LENGTHS: Final = {"pose": 72, "shape": 10}
MAX_DEPTH: Final = 16  # maps and lists in each other; the format has five
AGAIN: Final = "Download the fits again."


class Fit(NamedTuple):
    """The fitted frames of one sequence, N of them."""

    frame_index: NDArray[np.int64]  # (N,) strictly increasing
    pose: NDArray[np.float32]  # (N, 72) rad, global orientation in the world
    betas: NDArray[np.float32]  # (N, 10)


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
            for action, subaction, frame, values in _frames(file, stream):
                frames, poses, betas = rows.setdefault((action, subaction), (array("q"), array("f"), array("f")))
                frames.append(frame)
                poses.extend(values["pose"])
                betas.extend(values["shape"])
    except RawDataError as error:
        return error
    except Exception as error:  # the parser has a choice of implementations, each with errors of its own
        found = f"{type(error).__name__}: {error}"
        return RawDataError(file, "file", expected="a JSON file of fits", found=found, do=AGAIN)
    return {action: _fit(*arrays) for action, arrays in rows.items()}


def _fit(frames: array[int], *values: array[float]) -> Fit:
    """In the order of frames; of a frame that is there twice, the last."""
    stored = np.frombuffer(frames, np.int64)
    index, last = np.unique(stored[::-1], return_index=True)
    row = len(stored) - 1 - last
    return Fit(index, *(np.frombuffer(v, np.float32).reshape(len(stored), -1)[row] for v in values))


def _frames(file: Path, stream: IO[bytes]) -> Iterator[tuple[int, int, int, dict[str, list[float]]]]:
    """action, subaction, frame, and the lists of LENGTHS, of every fitted frame, in the file's order."""
    path: list[str] = []  # the key that each of the open maps is at
    n_lists = 0  # open ones
    values: dict[str, list[float]] = {name: [] for name in LENGTHS}
    for event, value in ijson.basic_parse(stream, use_float=True):
        if event == "number":
            if len(path) == 4 and path[3] in values:
                values[path[3]].append(value)
                if len(values[path[3]]) > LENGTHS[path[3]]:
                    _require_whole(file, path, values)
        elif event == "map_key":
            path[-1] = value
        elif event == "start_map":
            path.append("")
        elif event == "end_map":
            path.pop()
            if len(path) == 3 and any(values.values()):
                if not all(map(is_number, path)):
                    expected = "action, subaction and frame as numbers"
                    raise RawDataError(file, "/".join(path), expected=expected, found="other keys", do=AGAIN)
                _require_whole(file, path, values)
                action, subaction, frame = map(int, path)
                yield action, subaction, frame, values
                values = {name: [] for name in LENGTHS}
        elif event in ("start_array", "end_array"):
            n_lists += 1 if event == "start_array" else -1
        if len(path) + n_lists > MAX_DEPTH or (n_lists and not path):
            where = "/".join(path[:3])
            raise RawDataError(file, where, expected="maps, and lists of numbers", found="other lists", do=AGAIN)


def _require_whole(file: Path, path: list[str], values: Mapping[str, list[float]]) -> None:
    for name, n in LENGTHS.items():
        if len(values[name]) != n:
            key, found = "/".join([*path[:3], name]), f"{len(values[name])}"
            raise RawDataError(file, key, expected=f"{n} numbers", found=found, do=AGAIN)


def load_rotations(file: Path) -> Mapping[str, NDArray[np.float64]]:
    """Camera id -> (3, 3), from the world into the camera if it is a rotation. Raises RawDataError for another file."""
    stored = load_json(file, do=AGAIN)
    rotations = {}
    for number, camera in enumerate(CAMERAS, start=1):
        entry = stored.get(str(number)) if isinstance(stored, dict) else None
        if not isinstance(entry, dict) or "R" not in entry:
            raise RawDataError(file, f"{number}/R", expected="a rotation", found="none", do=AGAIN)
        rotation = numbers(file, f"{number}/R", entry["R"], (3, 3))
        rotations[camera] = rotation
    return rotations
