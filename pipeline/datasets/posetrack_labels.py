"""PoseTrack 2018's JSON of one sequence, as arrays.  [raw] -> tracks -> features -> windows

COCO's form with more keys: `images` (which of them are labelled), `annotations` (one person in one of them each),
`categories` (the names of the joints).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.errors import RawDataError
from pipeline.formats.arrays import table
from pipeline.formats.json_files import kind, load_json, records, whole
from pipeline.skeletons import without_non_finite

Doubles = NDArray[np.float64]

MAX_BYTES: Final = 1 << 25  # a sequence takes a few million
AGAIN: Final = "Unpack posetrack18_v0.45_public_labels.tar.gz again."
UNLABELLED, UNKNOWN = -1, -2  # in the place of a picture's number
OURS: Final[Mapping[str, str]] = {  # the release's names of joints -> spin49's
    "nose": "nose",
    "head_bottom": "neck",
    "head_top": "headtop",
    **{
        f"{side}_{joint}": f"{side[0]}{joint}"
        for joint in ("ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    },
}


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The F labelled pictures of a sequence, and the N annotations on them, in the file's order."""

    file_names: list[str]  # F, as stored: not to be trusted
    skeleton: tuple[str, ...]  # the J joints, in spin49's names
    picture: NDArray[np.int64]  # (N,) 0..F-1
    track_id: NDArray[np.int64]  # (N,)
    kp_2d: Doubles  # (N, J, 3) px px confidence; (0, 0) is no joint: confidence 0, else 1
    box: Doubles  # (N, 4) x y of the upper left corner, w h px; NaN where the file has none


def read_labels(file: Path, account: VideoAccount) -> Labels | None:
    """A sequence's labels; None where nobody in it has keypoints, as in test's annotations.

    Sets the account's `found` to the number of annotations on labelled pictures and notes what is not used. Raises
    RawDataError for a file that is not PoseTrack's.
    """
    content = load_json(file, do=AGAIN, max_bytes=MAX_BYTES)
    if not isinstance(content, dict):
        raise RawDataError(file, "file", expected="an object", found=kind(content), do=AGAIN)
    file_names, place_of = _pictures(file, content, account)
    every = records(file, "annotations", content.get("annotations", []), do=AGAIN)
    ids = [_whole(file, f"annotations[{i}].image_id", a.get("image_id")) for i, a in enumerate(every)]
    places = np.array([place_of.get(image_id, UNKNOWN) for image_id in ids], np.int64)
    for place, what in (
        (UNLABELLED, "on pictures that are not labelled"),
        (UNKNOWN, "on pictures that it does not list"),
    ):
        if n := int((places == place).sum()):
            account.notes.append(f"{n} annotations are {what}: not used")
    annotations = {f"annotations[{i}]": every[i] for i in np.flatnonzero(places >= 0).tolist()}
    account.found = len(annotations)
    if all(_is_empty(annotation.get("keypoints")) for annotation in annotations.values()):
        return None

    skeleton = _skeleton(file, content)
    stored = [annotation.get("keypoints") for annotation in annotations.values()]
    kp_2d, n_bad = without_non_finite(
        _keypoints(file, [f"{key}.keypoints" for key in annotations], stored, len(skeleton))
    )
    if n_bad:
        account.notes.append(f"{n_bad} joints are not finite: not used")
    return Labels(
        file_names=file_names,
        skeleton=skeleton,
        picture=places[places >= 0],
        track_id=np.array(
            [_whole(file, f"{key}.track_id", a.get("track_id")) for key, a in annotations.items()], np.int64
        ),
        kp_2d=kp_2d,
        box=_boxes(file, [f"{key}.bbox" for key in annotations], [a.get("bbox") for a in annotations.values()]),
    )


def _pictures(file: Path, content: Mapping[str, Any], account: VideoAccount) -> tuple[list[str], dict[int, int]]:
    """The labelled pictures' file names, and the place in that list of every picture's id, or UNLABELLED."""
    file_names: list[str] = []
    place_of: dict[int, int] = {}
    n_twice = 0
    for i, image in enumerate(records(file, "images", content.get("images"), do=AGAIN)):
        key = f"images[{i}]"
        image_id = _whole(file, f"{key}.id", image.get("id"))
        labelled = image.get("is_labeled")
        if not isinstance(labelled, bool) and labelled not in (0, 1):
            raise RawDataError(file, f"{key}.is_labeled", expected="true or false", found=kind(labelled), do=AGAIN)
        if image_id in place_of:
            n_twice += 1
        elif labelled:
            place_of[image_id] = len(file_names)
            file_names.append(_text(file, f"{key}.file_name", image.get("file_name")))
        else:
            place_of[image_id] = UNLABELLED
    if n_twice:
        account.notes.append(f"{n_twice} pictures have the id of an earlier one: not used")
    return file_names, place_of


def _skeleton(file: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    categories = records(file, "categories", content.get("categories"), do=AGAIN)
    key = "categories[0].keypoints"
    names = categories[0].get("keypoints") if categories else None
    if not isinstance(names, list) or not names:
        raise RawDataError(file, key, expected="the names of the joints", found=kind(names), do=AGAIN)
    skeleton: list[str] = []
    for name in names:
        ours = OURS.get(name) if isinstance(name, str) else None
        if ours is None or ours in skeleton:
            expected = f"each once, and none but {', '.join(OURS)}"
            raise RawDataError(file, key, expected=expected, found=kind(name), do=AGAIN)
        skeleton.append(ours)
    return tuple(skeleton)


def _keypoints(file: Path, keys: Sequence[str], stored: Sequence[object], n_joints: int) -> Doubles:
    """(N, J, 3) px px confidence. The third number that is stored says nothing more; without keypoints all are 0."""
    rows = [[0] * 3 * n_joints if _is_empty(row) else row for row in stored]
    joints = table(file, keys, rows, 3 * n_joints).reshape(-1, n_joints, 3)
    joints[..., 2] = (joints[..., :2] != 0).any(axis=-1)
    return joints


def _boxes(file: Path, keys: Sequence[str], stored: Sequence[object]) -> Doubles:
    """(N, 4) x y w h. The release leaves `bbox` empty where nobody drew one."""
    return table(file, keys, [[np.nan] * 4 if _is_empty(row) else row for row in stored], 4)


def _is_empty(stored: object) -> bool:
    """Where nobody marked anything, the release has an empty list, or nothing."""
    return stored is None or stored == []


def _whole(file: Path, key: str, value: object) -> int:
    return whole(file, key, value, do=AGAIN)


def _text(file: Path, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise RawDataError(file, key, expected="text", found=kind(value), do=AGAIN)
    return value
