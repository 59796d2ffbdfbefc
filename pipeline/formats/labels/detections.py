"""Files of keypoint detectors: OpenPose's, AlphaPose's and COCO's.  [raw] -> tracks -> features -> windows"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError, refuse
from pipeline.formats.joint_orders import LONGEST, MIDPOINT, ORDERS, order_of
from pipeline.formats.json_files import kind, load_json, records, whole
from pipeline.raw.digests import names_in
from pipeline.raw.files import open_regular
from pipeline.skeletons import joint_names

BODY: Final = {136: 26, 133: 23}  # joints of Halpe-136 and COCO-WholeBody -> those before face and hands
NUMBERS: Final = tuple(3 * n_joints for n_joints in (*ORDERS, *sorted(BODY)))  # a person, in files of either detector
MAX_COCO: Final = 1 << 28  # bytes of one clip: about half a million person-frames of `detect`
AGAIN: Final = "Run the detector on this video again."
EXPORT: Final = "Export one of the joint orders in docs/datasets/kinetics.md: x, y and score of each joint in pixels."
ALPHAPOSE_NAMES: Final = ("alphapose-results.json",)  # its own; or as the video is called
ONE_VIDEO: Final = "Have the files of one video, and of one run of the detector, in a folder."
COCO_FORMAT: Final = "Export a list of results, as AlphaPose does without --format."
_NUMBERED: Final = re.compile(r"(?P<name>(?:.*\D)?)(?P<number>[0-9]{1,18})(?:_keypoints)?\.json", re.DOTALL)
_PICTURE: Final = re.compile(r"(?P<name>(?:.*\D)?)(?P<number>[0-9]{1,18})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Detections:
    """Everybody found in one video."""

    skeleton: str  # a name in skeletons.JOINTS
    frame_index: NDArray[np.int64]  # (T,) strictly increasing, the frames with a person in them
    keypoints: Sequence[NDArray[np.float64]]  # T times (P, J, 3) px px, the detector's score
    identity: Sequence[NDArray[np.int64]] | None  # T times (P,), where the detector tracked
    frames: Sequence[int]  # ascending, those that the detector has written something of, also without a person

    @property
    def n_persons(self) -> int:
        """Person-frames in all."""
        return sum(len(persons) for persons in self.keypoints)


def openpose_files(folder: Path, video: str = "") -> list[tuple[int, Path]]:
    """(frame, file) for OpenPose's `<video>_<12 digits>_keypoints.json`, in order; empty where there is nothing.

    Other names that end in a number are read too, if all files have the same: `000.json`, `cam01.0000.json`. Files of
    AlphaPose are passed over. Raises RawDataError where the folder has files or folders of which none is OpenPose's of
    this video, or files of several names.
    """
    numbered: dict[str, list[tuple[int, Path]]] = {}
    odd = []
    for name in names_in(folder):
        if name in ALPHAPOSE_NAMES or name.startswith("."):
            continue
        if match := _NUMBERED.fullmatch(name):
            numbered.setdefault(match["name"], []).append((int(match["number"]), folder / name))
        else:
            odd.append(name)
    for own in numbered.values():  # AlphaPose's results are called as the video, which may end in a number
        if [file.name for _, file in own] == [f"{video}.json"]:
            own.clear()
    numbered = {name: files for name, files in numbered.items() if files}
    alphapose = any((folder / name).is_file() for name in (f"{video}.json", *ALPHAPOSE_NAMES))
    found = numbered.get(f"{video}_") or (numbered.popitem()[1] if len(numbered) == 1 else [])
    if not found and (numbered or odd) and not alphapose:
        names = sorted([files[0][1].name for files in numbered.values()] + odd)
        expected = f"{video}_<12 digits>_keypoints.json, or any one name that ends in the frame's number"
        found_names = f"several: {', '.join(names[:3])}" if len(names) > 1 else names[0]
        raise RawDataError(folder, "keypoints", expected=expected, found=found_names, do=ONE_VIDEO)
    numbers = Counter(number for number, _ in found)
    if twice := sorted(number for number, times in numbers.items() if times > 1):
        do = "Keep the files of one run."
        raise RawDataError(folder, "keypoints", expected="one file a frame", found=f"frame {twice[0]} twice", do=do)
    return sorted(found)


def read_openpose(files: Sequence[tuple[int, Path]]) -> Detections:
    """All frames of one video. Raises RawDataError for a file that is not OpenPose's `--write_json` output."""
    frames, keypoints, lengths = [], [], set[int]()
    for frame, file in files:
        persons = [_openpose_person(file, person) for person in _people(file)]
        lengths |= {len(person) for person in persons}
        _require_one_length(file, "pose_keypoints_2d", lengths)
        if persons:
            frames.append(frame)
            keypoints.append(_by_joint(persons))
    order = _order(files[0][1].parent if files else Path(), keypoints)
    return Detections(order, np.array(frames, np.int64), keypoints, None, [frame for frame, _ in files])


def read_alphapose(file: Path) -> Detections:
    """A video's results in one list. Raises RawDataError when it is not AlphaPose's format."""
    results = load_json(file, do=AGAIN)
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        do = COCO_FORMAT if isinstance(results, dict) else AGAIN
        raise RawDataError(file, "file", expected="a list of results", found=kind(results), do=do)
    by_frame: dict[int, list[dict[str, Any]]] = {}
    before = ""
    for i, result in enumerate(results):
        name, frame = _picture_of(file, result)
        before = name if i == 0 else before
        if name != before:
            expected, found = (
                "pictures of one name but for the frame's number",
                f"{before[:40]!r} and {name[:40]!r} before it",
            )
            raise RawDataError(file, "image_id", expected=expected, found=found, do=ONE_VIDEO)
        by_frame.setdefault(frame, []).append(result)
    frames = sorted(by_frame)
    keypoints = [
        [_floats(file, "keypoints", result.get("keypoints")) for result in by_frame[frame]] for frame in frames
    ]
    _require_one_length(file, "keypoints", {len(person) for persons in keypoints for person in persons})
    tracked = bool(results) and all("idx" in result for result in results)
    identity = (
        [np.array([_identity(file, r["idx"]) for r in by_frame[f]], np.int64) for f in frames] if tracked else None
    )
    if identity is not None and not any(numbers.any() for numbers in identity):
        identity = None  # where it did not track, all are 0; its trackers count from 1
    by_joint = [_by_joint(persons) for persons in keypoints]
    order = _order(file, by_joint) if by_joint else "coco"
    return Detections(order, np.array(frames, np.int64), by_joint, identity, frames)


def read_results(file: Path) -> Detections:
    """A clip's results in one file: AlphaPose's or COCO's list of people, or COCO's object, by its first character."""
    with open_regular(file) as stream:
        start = stream.read(64).lstrip()
    return read_alphapose(file) if start.startswith(b"[") else read_coco(file)


def read_coco(file: Path) -> Detections:
    """A clip's people in COCO's JSON: `images`, `annotations`, and `categories`, whose first names the joints.

    A picture's frame is its `frame_index`, or else the number in which its `file_name` ends. A joint's score is its
    `keypoint_scores`, or else 1 where it is labelled. Identities are `track_id`, where every annotation has one.

    Raises RawDataError when it is not COCO's format, or of other joints than COCO's 17.
    """
    content = load_json(file, do=AGAIN, max_bytes=MAX_COCO)
    if not isinstance(content, dict):
        raise RawDataError(
            file, "file", expected="an object with images and annotations", found=kind(content), do=AGAIN
        )
    frame_of: dict[int, int] = {}
    for i, image in enumerate(records(file, "images", content.get("images"), do=AGAIN)):
        frame_of[whole(file, f"images[{i}].id", image.get("id"), do=AGAIN)] = _picture_frame(file, i, image)
    if len(set(frame_of.values())) != len(frame_of):
        raise RawDataError(file, "images", expected="each frame once", found="one twice", do=ONE_VIDEO)
    by_frame: dict[int, list[dict[str, Any]]] = {}
    for i, entry in enumerate(records(file, "annotations", content.get("annotations"), do=AGAIN)):
        key = f"annotations[{i}].image_id"
        image_id = whole(file, key, entry.get("image_id"), do=AGAIN)
        if image_id not in frame_of:
            raise RawDataError(file, key, expected="the id of one of images", found=str(image_id), do=AGAIN)
        by_frame.setdefault(frame_of[image_id], []).append(entry)
    frames = sorted(by_frame)
    keypoints = [np.stack([_coco_person(file, entry) for entry in by_frame[frame]]) for frame in frames]
    everyone = [entry for entries in by_frame.values() for entry in entries]
    identity = None
    if everyone and all("track_id" in entry for entry in everyone):
        numbers = ([whole(file, "track_id", e["track_id"], do=AGAIN) for e in by_frame[frame]] for frame in frames)
        identity = [np.array(of_frame, np.int64) for of_frame in numbers]
    return Detections("coco", np.array(frames, np.int64), keypoints, identity, sorted(frame_of.values()))


def _picture_frame(file: Path, i: int, image: dict[str, Any]) -> int:
    if "frame_index" in image:
        return whole(file, f"images[{i}].frame_index", image["frame_index"], do=AGAIN)
    name = image.get("file_name")
    match = _PICTURE.fullmatch(Path(name).stem) if isinstance(name, str) else None
    if match is None:
        expected = "a name that ends in the frame's number"
        raise RawDataError(file, f"images[{i}].file_name", expected=expected, found=kind(name), do=AGAIN)
    return int(match["number"])


def _coco_person(file: Path, entry: dict[str, Any]) -> NDArray[np.float64]:
    """(17, 3) px px score."""
    person = _floats(file, "keypoints", entry.get("keypoints")).reshape(-1, 3)
    if len(person) != len(joint_names("coco")):
        raise RawDataError(file, "keypoints", expected="COCO's 17 joints", found=f"{len(person)}", do=EXPORT)
    labelled = person[:, 2] > 0
    scores = entry.get("keypoint_scores")
    if scores is None:
        person[:, 2] = labelled
    elif isinstance(scores, list) and len(scores) == len(person) and all(type(s) in (int, float) for s in scores):
        person[:, 2] = np.where(labelled, np.array(scores, np.float64), 0)
    else:
        raise RawDataError(file, "keypoint_scores", expected="17 numbers", found=kind(scores), do=AGAIN)
    return person


def _people(file: Path) -> list[dict[str, Any]]:
    content = load_json(file, do=AGAIN)
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise RawDataError(file, "people", expected="a list of persons", found=kind(people), do=AGAIN)
    return people


def _openpose_person(file: Path, person: dict[str, Any]) -> NDArray[np.float64]:
    key = "pose_keypoints" if "pose_keypoints" in person else "pose_keypoints_2d"  # the first is version 1.0's
    return _floats(file, key, person.get(key))


def _by_joint(persons: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(P, J, 3) of the body's joints, without face and hands."""
    joints = np.array(persons, np.float64).reshape(len(persons), -1, 3)
    return joints[:, : BODY.get(joints.shape[1])]


def _require_one_length(file: Path, key: str, lengths: set[int]) -> None:
    if len(lengths) > 1:
        expected, found = "one joint order in all frames", f"{sorted(lengths)} numbers a person"
        raise RawDataError(file, key, expected=expected, found=found, do=AGAIN)


def _order(place: Path, keypoints: Sequence[NDArray[np.float64]]) -> str:
    """The joint order by geometry. Raises RawDataError where persons are tangled in every known order."""
    order, fits = order_of(keypoints)
    if order is not None:
        return order
    tried = "; ".join(
        f"as {fit.order}, bones are {fit.bone:.2f} of a person's size on average, midpoints {fit.midpoint:.2f} off"
        for fit in fits
    )
    expected = f"a joint order in which bones are at most {LONGEST} of a person's size, and midpoints {MIDPOINT} off"
    found = f"{fits[0].n_joints} joints in an order that is not known: {tried}"
    refuse(RawDataError(place, "joints", expected=expected, found=found, do=EXPORT, reason="unknown_joint_order"))
    return fits[0].order


def _floats(file: Path, key: str, numbers: object) -> NDArray[np.float64]:
    """A person's list of numbers, as float64."""
    expected = f"{', '.join(map(str, NUMBERS[:-1]))} or {NUMBERS[-1]} numbers a person"
    if not isinstance(numbers, list) or len(numbers) not in NUMBERS:
        raise RawDataError(file, key, expected=expected, found=kind(numbers), do=EXPORT)
    try:
        array = np.array(numbers)
    except ValueError:  # lists of unequal lengths
        array = np.empty(0, object)
    if array.ndim == 1 and array.dtype.kind in "biuf":
        return array.astype(np.float64)
    if not all(isinstance(number, int | float) for number in numbers):
        raise RawDataError(file, key, expected=expected, found="something else among them", do=AGAIN)
    try:
        return np.array(numbers, np.float64)
    except OverflowError as error:  # JSON's integers have no largest
        raise RawDataError(file, key, expected=expected, found="one out of range", do=AGAIN) from error


def _picture_of(file: Path, result: dict[str, Any]) -> tuple[str, int]:
    """AlphaPose names the frame by a picture, which it did not write for a video: "35.jpg" is frame 35.

    Returns what is before the number, and the number.
    """
    image = result.get("image_id")
    match = _PICTURE.fullmatch(Path(str(image)).stem) if isinstance(image, str | int) else None
    if match is None:
        expected = "a picture's name that ends in the frame's number, such as '35.jpg'"
        raise RawDataError(file, "image_id", expected=expected, found=kind(image), do=AGAIN)
    return match["name"], int(match["number"])


def _identity(file: Path, idx: object) -> int:
    """AlphaPose writes 3, 3.0, [3] or, for detections that it merged, [[3.0], [3.0]], by version: the first counts."""
    for _ in range(2):
        if isinstance(idx, list) and idx:
            idx = idx[0]
    return whole(file, "idx", idx, do=AGAIN)
