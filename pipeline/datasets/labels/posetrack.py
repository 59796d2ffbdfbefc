"""PoseTrack's label files: COCO's JSON with more keys, of one video each.  [raw] -> tracks

The reader (`pipeline.datasets.posetrack`) calls `VideoLabels.load`, and gets the people in the
labelled images as arrays (`AnnotatedPeople`). A file, shortened:

    {"images": [{"id": 10003420000, "file_name": "images/val/000342_mpii_test/000000.jpg",
                 "is_labeled": true, "width": 1280, "height": 720}, ...],
     "annotations": [{"image_id": 10003420000, "track_id": 0, "bbox": [x, y, w, h],
                      "keypoints": [x, y, visible, x, ...]}, ...],
     "categories": [{"name": "person", "keypoints": ["nose", "head_bottom", ...]}]}

PoseTrack21's annotations also have a "person_id", and some have a box alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.boxes import corner_boxes_with_margin
from pipeline.datasets.checks import finite_joints
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import load_json, number_rows, records, whole_number
from pipeline.files.formats.names import kind, shown
from pipeline.skeletons import Doubles, Ints

LABELS: Final = "posetrack21_annotations.zip (or 2018's posetrack18_v0.45_public_labels.tar.gz)"
PICTURES: Final = "posetrack18_images.tar.aa to .ar"
TODAY: Final = (
    "posetrack.net has been offline since 2022: sign the agreement of github.com/anDoer/"
    "PoseTrack21. Its download_dataset.py then fetches its labels and 2018's images, unchanged."
)
UNPACK: Final = f"Unpack {LABELS} and {PICTURES} again. {TODAY}"
MISSING: Final[tuple[object, ...]] = (None, [])  # how the release writes an unknown value
BOX_MARGIN: Final = 0.15  # of the joints' extent, on every side: 2018's `bbox`
SPIN49_NAMES: Final[Mapping[str, str]] = {  # the release's names of joints -> spin49's
    "nose": "nose",
    "head_bottom": "neck",
    "head_top": "headtop",
    **{
        f"{side}_{joint}": f"{side[0]}{joint}"
        for joint in ("ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    },
}


class AnnotatedPeople(NamedTuple):
    """N annotations, each of one person in one image, in the file's order."""

    picture: Ints  # (N,) the labelled image, 0..F-1
    track_id: Ints  # (N,) the person within this video
    person_id: list[str | None]  # N: the person by one name in all of PoseTrack21; None in 2018's
    joints: tuple[str, ...]  # J names in spin49
    kp_2d: Doubles  # (N, J, 3) px px confidence: 1, or 0 at (0, 0), where there is no joint
    boxes: Doubles  # (N, 4) x y of the upper left corner, w h, px; NaN if missing

    @property
    def n_joints(self) -> Ints:
        """Number of joints of each annotation, (N,)."""
        n_joints: Ints = (self.kp_2d[..., 2] > 0).sum(axis=1)
        return n_joints


@dataclass(frozen=True, slots=True, eq=False)
class VideoLabels:
    """The F labelled images of a video, and their N annotations, as stored."""

    file: Path
    file_names: list[str]  # F, as stored: not to be trusted
    n_images: int  # of the video: as many as `nframes` states, or as are listed
    size: tuple[float, float] | None  # px, of the first labelled image that states it
    picture: Ints  # (N,) the annotation's image, 0..F-1
    annotations: Mapping[str, Mapping[str, Any]]  # N: "annotations[3]" -> annotation
    categories: object
    of_21: bool  # of PoseTrack21, which also has people with a box alone
    notes: list[str]  # messages about unused entries

    @classmethod
    def load(cls, file: Path, *, in_folder_of_21: bool) -> VideoLabels:
        """Read a video's labels.

        They are PoseTrack21's if they name the people (`person_id`), or lie in the folder of its
        labels (`in_folder_of_21`).

        Raises RawDataError for a file that is not COCO's JSON, and for an annotation of PoseTrack21
        on an image that is not listed; 2018's are noted.
        """
        content = load_json(file, do=UNPACK)
        if not isinstance(content, dict):
            raise RawDataError(file, "file", "an object", kind(content), UNPACK)
        images = _read_images(file, content.get("images"))
        listed = records(file, "annotations", content.get("annotations", []), do=UNPACK)
        of_21 = in_folder_of_21 or any("person_id" in annotation for annotation in listed)
        image_of: dict[int, int] = {}  # index of an annotation -> index of its labelled image
        for i, entry in enumerate(listed):
            key = f"annotations[{i}].image_id"
            image_id = _id(file, key, entry.get("image_id"))
            if of_21 and image_id not in images.index_of:
                expected = f"the id of one of its {len(images.index_of)} images"
                raise RawDataError(file, key, expected, str(image_id), UNPACK)
            image = images.index_of.get(image_id)
            if image is not None:
                image_of[i] = image
        notes = []
        if images.n_repeated:
            notes.append(f"{images.n_repeated} pictures have the id of an earlier one: not used")
        n_unused = len(listed) - len(image_of)
        if n_unused:
            problem = "annotations are on pictures that are not labelled, or not listed: not used"
            notes.append(f"{n_unused} {problem}")
        return cls(
            file=file,
            file_names=images.file_names,
            n_images=max(images.n_stated, len(images.index_of)),
            size=images.size,
            picture=np.array(list(image_of.values()), np.int64),
            annotations={f"annotations[{i}]": listed[i] for i in image_of},
            categories=content.get("categories"),
            of_21=of_21,
            notes=notes,
        )

    @property
    def has_people(self) -> bool:
        """Whether any annotation can be used; in a test set of 2018, none has keypoints."""
        stored = [annotation.get("keypoints") for annotation in self.annotations.values()]
        has_keypoints = not all(keypoints in MISSING for keypoints in stored)
        return has_keypoints or (self.of_21 and bool(stored))

    def people(self, account: VideoAccount) -> AnnotatedPeople:
        """Convert the annotations. Raises RawDataError for invalid content. Joints that are not
        finite are noted.
        """
        track_ids = []
        person_ids: list[str | None] = []
        for key, annotation in self.annotations.items():
            track_ids.append(_id(self.file, f"{key}.track_id", annotation.get("track_id")))
            person = annotation.get("person_id")
            if person is not None:
                person = str(_id(self.file, f"{key}.person_id", person))
            person_ids.append(person)
        joints = self._joint_names()
        no_joints = [0] * 3 * len(joints)
        kp_2d = self._numbers("keypoints", no_joints).reshape(-1, len(joints), 3)
        kp_2d[..., 2] = (kp_2d[..., :2] != 0).any(axis=-1)  # VIBE's rule: not the third number
        kp_2d = finite_joints(kp_2d, account)
        if self.of_21:
            boxes = corner_boxes_with_margin(kp_2d, BOX_MARGIN)
        else:
            boxes = self._numbers("bbox", [np.nan] * 4)
        track_id = np.array(track_ids, np.int64)
        return AnnotatedPeople(self.picture, track_id, person_ids, joints, kp_2d, boxes)

    def _joint_names(self) -> tuple[str, ...]:
        """The J joints' names in spin49, each once, in the file's order."""
        key = "categories[0].keypoints"
        categories = records(self.file, "categories", self.categories, do=UNPACK)
        names = categories[0].get("keypoints") if categories else None
        if not isinstance(names, list) or not names:
            raise RawDataError(self.file, key, "the names of the joints", kind(names), UNPACK)
        joints = list[str]()
        for name in names:
            joint = SPIN49_NAMES.get(name) if isinstance(name, str) else None
            if joint is None or joint in joints:
                expected = f"none but {', '.join(SPIN49_NAMES)}, each once"
                raise RawDataError(self.file, key, expected, shown(name), UNPACK)
            joints.append(joint)
        return tuple(joints)

    def _numbers(self, name: str, absent: list[Any]) -> Doubles:
        """The lists under a key of each annotation, (N, len(absent)); `absent` if it has none."""
        stored = [annotation.get(name) for annotation in self.annotations.values()]
        rows = [absent if row in MISSING else row for row in stored]
        keys = [f"{key}.{name}" for key in self.annotations]
        return number_rows(self.file, keys, rows, len(absent), do=UNPACK)


def _id(file: Path, key: str, value: object) -> int:
    """A whole number, or a text of its digits. Raises RawDataError for anything else."""
    digits = isinstance(value, str) and re.fullmatch("[0-9]{1,15}", value)
    return whole_number(file, key, int(digits[0]) if digits else value, do=UNPACK)


@dataclass(slots=True)
class _ListedImages:
    """The `images` of a label file, collected one by one."""

    # id of an image -> its index among the labelled images; None for an image without labels
    index_of: dict[int, int | None] = field(default_factory=dict)
    file_names: list[str] = field(default_factory=list)  # of the labelled images
    size: tuple[float, float] | None = None  # of the first labelled image that states it
    n_stated: int = 0  # the largest `nframes`
    n_repeated: int = 0  # images with the id of an earlier one


def _read_images(file: Path, stored: object) -> _ListedImages:
    """Read a label file's `images`. Raises RawDataError for invalid ones."""
    listed = _ListedImages()
    for i, image in enumerate(records(file, "images", stored, do=UNPACK)):
        # `image_id`, in 2018 `frame_id`, is the same number
        key = f"images[{i}]"
        image_id = _id(file, f"{key}.id", image.get("id"))
        labelled = image.get("is_labeled")
        name = image.get("file_name")
        n_frames = image.get("nframes")
        if isinstance(n_frames, int):
            listed.n_stated = max(listed.n_stated, n_frames)
        if not isinstance(labelled, bool) and labelled not in (0, 1):
            raise RawDataError(file, f"{key}.is_labeled", "true or false", kind(labelled), UNPACK)
        if image_id in listed.index_of:
            listed.n_repeated += 1
        elif not labelled:
            listed.index_of[image_id] = None
        elif not isinstance(name, str):
            raise RawDataError(file, f"{key}.file_name", "text", kind(name), UNPACK)
        else:
            listed.index_of[image_id] = len(listed.file_names)
            listed.file_names.append(name)
            listed.size = listed.size or _stated_size(image)
    return listed


def _stated_size(image: Mapping[str, Any]) -> tuple[float, float] | None:
    """Width and height px of an image, if it states them."""
    width = image.get("width")
    height = image.get("height")
    if not isinstance(width, int | float) or not isinstance(height, int | float):
        return None
    if width > 0 and height > 0:
        return width, height
    return None
