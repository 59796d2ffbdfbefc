"""Files of keypoint detectors: OpenPose's and AlphaPose's JSON.  [raw] -> tracks -> features -> windows"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.formats.json_files import kind, load_json, whole
from pipeline.raw.digests import names_in

OPENPOSE: Final[Mapping[int, str]] = {75: "body_25", 54: "openpose_coco"}  # numbers a person -> skeleton
ALPHAPOSE_NUMBERS: Final = 51
AGAIN: Final = "Run the detector on this video again."
_FRAME_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Detections:
    """Everybody found in one video."""

    skeleton: str  # a name in skeletons.JOINTS
    frame_index: NDArray[np.int64]  # (T,) strictly increasing, the frames with a person in them
    keypoints: Sequence[NDArray[np.float64]]  # T times (P, J, 3) px px, the detector's score
    identity: Sequence[NDArray[np.int64]] | None  # T times (P,), where the detector tracked

    @property
    def n_persons(self) -> int:
        """Person-frames in all."""
        return sum(len(persons) for persons in self.keypoints)


def openpose_files(folder: Path, video: str) -> list[tuple[int, Path]]:
    """(frame, file) for OpenPose's `<video>_<12 digits>_keypoints.json`, in order."""
    name = re.compile(re.escape(video) + r"_(\d{12})_keypoints\.json")
    matches = filter(None, map(name.fullmatch, names_in(folder)))
    return sorted((int(found[1]), folder / found[0]) for found in matches)


def read_openpose(files: Sequence[tuple[int, Path]]) -> Detections:
    """All frames of one video. Raises RawDataError for a file that is not OpenPose's `--write_json` output."""
    frames, keypoints, lengths = [], [], set[int]()
    for frame, file in files:
        persons = [_openpose_person(file, person) for person in _people(file)]
        lengths |= {len(person) for person in persons}
        if len(lengths) > 1:
            expected = "one body model in all frames"
            raise RawDataError(
                file, "pose_keypoints_2d", expected=expected, found=f"{sorted(lengths)} numbers", do=AGAIN
            )
        if persons:
            frames.append(frame)
            keypoints.append(np.array(persons, np.float64).reshape(len(persons), -1, 3))
    skeleton = OPENPOSE[lengths.pop()] if lengths else "body_25"
    return Detections(skeleton, np.array(frames, np.int64), keypoints, None)


def read_alphapose(file: Path) -> Detections:
    """A video's results in one list. Raises RawDataError when it is not AlphaPose's format."""
    results = load_json(file, do=AGAIN)
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise RawDataError(file, "file", expected="a list of results", found=type(results).__name__, do=AGAIN)
    by_frame: dict[int, list[dict[str, Any]]] = {}
    for result in results:
        by_frame.setdefault(_frame_of(file, result), []).append(result)
    frames = sorted(by_frame)
    keypoints = [
        np.array([_floats(file, "keypoints", r.get("keypoints"), (ALPHAPOSE_NUMBERS,)) for r in by_frame[f]])
        for f in frames
    ]
    tracked = bool(results) and all("idx" in result for result in results)
    identity = (
        [np.array([_identity(file, r["idx"]) for r in by_frame[f]], np.int64) for f in frames] if tracked else None
    )
    if identity is not None and not any(numbers.any() for numbers in identity):
        identity = None  # where it did not track, all are 0; its trackers count from 1
    by_joint = [persons.reshape(len(persons), -1, 3) for persons in keypoints]
    return Detections("coco", np.array(frames, np.int64), by_joint, identity)


def _people(file: Path) -> list[dict[str, Any]]:
    content = load_json(file, do=AGAIN)
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise RawDataError(file, "people", expected="a list of persons", found=kind(people), do=AGAIN)
    return people


def _openpose_person(file: Path, person: dict[str, Any]) -> NDArray[np.float64]:
    return _floats(file, "pose_keypoints_2d", person.get("pose_keypoints_2d"), tuple(OPENPOSE))


def _floats(file: Path, key: str, numbers: object, lengths: tuple[int, ...]) -> NDArray[np.float64]:
    """A list of numbers of one of these lengths, as float64."""
    wanted = " or ".join(map(str, lengths))
    if not isinstance(numbers, list) or len(numbers) not in lengths:
        raise RawDataError(file, key, expected=f"{wanted} numbers", found=kind(numbers), do=AGAIN)
    try:
        array = np.array(numbers)
    except ValueError:  # lists of unequal lengths
        array = np.empty(0, object)
    if array.ndim == 1 and array.dtype.kind in "biuf":
        return array.astype(np.float64)
    if not all(isinstance(number, int | float) for number in numbers):
        raise RawDataError(file, key, expected=f"{wanted} numbers", found="something else among them", do=AGAIN)
    try:
        return np.array(numbers, np.float64)
    except OverflowError as error:  # JSON's integers have no largest
        raise RawDataError(file, key, expected=f"{wanted} numbers", found="one out of range", do=AGAIN) from error


def _frame_of(file: Path, result: dict[str, Any]) -> int:
    """AlphaPose names the frame by a picture it never wrote: "35.jpg" is frame 35."""
    image = result.get("image_id")
    digits = _FRAME_NUMBER.findall(Path(str(image)).stem) if isinstance(image, str | int) else []
    if len(digits) != 1 or len(digits[0]) > 12:
        raise RawDataError(file, "image_id", expected="a frame number such as '35.jpg'", found=kind(image), do=AGAIN)
    return int(digits[0])


def _identity(file: Path, idx: object) -> int:
    """AlphaPose writes 3, 3.0, [3] or, for detections that it merged, [[3.0], [3.0]], by version: the first counts."""
    for _ in range(2):
        if isinstance(idx, list) and idx:
            idx = idx[0]
    return whole(file, "idx", idx, do=AGAIN)
