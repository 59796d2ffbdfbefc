"""PoseTrack's label files: COCO's JSON with more keys, of one video each.  [raw] -> tracks

The reader (`pipeline.datasets.posetrack`) calls `StoredLabels.read`, which returns the labelled
images and their annotations as stored (one class for each release), and then `people`, which
converts the annotations to arrays (`AnnotatedPeople`). A file, shortened:

    {"images": [{"id": 10003420000, "file_name": "images/val/000342_mpii_test/000000.jpg",
                 "is_labeled": true, "width": 1280, "height": 720}, ...],
     "annotations": [{"image_id": 10003420000, "track_id": 0, "bbox": [x, y, w, h],
                      "keypoints": [x, y, visible, x, ...]}, ...],
     "categories": [{"name": "person", "keypoints": ["nose", "head_bottom", ...]}]}

PoseTrack21's annotations also have a "person_id", and some have a box alone.
"""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.datasets.shared.checks import finite_joints
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import load_json, number_rows, records, whole_number
from pipeline.files.formats.names import kind, quote_name
from pipeline.people.boxes import corner_boxes_with_margin
from pipeline.people.skeletons import Doubles, Ints

# archives of the release, and how to get them today, as errors and advice name them
LABEL_ARCHIVE: Final = (
    "posetrack21_annotations.zip (or 2018's posetrack18_v0.45_public_labels.tar.gz)"
)
IMAGE_ARCHIVES: Final = "posetrack18_images.tar.aa to .ar"
DOWNLOAD_ADVICE: Final = (
    "posetrack.net has been offline since 2022: sign the agreement of github.com/anDoer/"
    "PoseTrack21. Its download_dataset.py then fetches its labels and 2018's images, unchanged."
)
UNPACK_ADVICE: Final = f"Unpack {LABEL_ARCHIVE} and {IMAGE_ARCHIVES} again. {DOWNLOAD_ADVICE}"
UNKNOWN_VALUES: Final[tuple[object, ...]] = (None, [])  # how the release writes an unknown value
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

    image_index: Ints  # (N,) the labelled image, 0..F-1
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


class _ListedImages(NamedTuple):
    """The images of a video that its label file lists, F of them labelled."""

    # id of an image -> its index among the labelled images; None for an image without labels
    index_of: Mapping[int, int | None]
    file_names: Sequence[str]  # F, as stored: not to be trusted
    n_images: int  # of the video: as many as `nframes` states, or as are listed
    size: tuple[float, float] | None  # px, of the first labelled image that states it
    reach: Doubles  # (2,) px, largest x and y of all regions to ignore; they end at image edges
    n_repeated: int  # images with the id of an earlier one, which are not used


class _StoredAnnotation(NamedTuple):
    """An annotation of a labelled image, as stored."""

    key: str  # its place in the file, such as "annotations[3]"
    image_index: int  # 0..F-1
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class StoredLabels(ABC):
    """A label file whose images are checked, and whose N annotations are as stored."""

    file: Path
    images: _ListedImages
    annotations: Sequence[_StoredAnnotation]
    n_unused: int  # annotations of images that are not labelled, or not listed
    categories: object

    names_people: ClassVar[bool]  # whether annotations have a `person_id`
    may_have_unlisted_images: ClassVar[bool]  # annotations of images that are not listed
    reason_without_joints: ClassVar[str]  # why an annotation without joints is dropped

    @property
    @abstractmethod
    def has_people(self) -> bool:
        """Whether any annotation can be used."""

    @abstractmethod
    def _boxes(self, kp_2d: Doubles) -> Doubles:
        """Boxes of the annotations (`AnnotatedPeople.boxes`), whose joints are `kp_2d`."""

    @property
    def notes(self) -> list[str]:
        """Messages about unused entries."""
        notes = []
        n_repeated = self.images.n_repeated
        if n_repeated:
            notes.append(f"{n_repeated} pictures have the id of an earlier one: not used")
        if self.n_unused:
            problem = "annotations are on pictures that are not labelled, or not listed: not used"
            notes.append(f"{self.n_unused} {problem}")
        return notes

    def people(self, account: VideoAccount) -> AnnotatedPeople:
        """Convert the annotations. Raises RawDataError for invalid content. Joints that are not
        finite are noted.
        """
        track_ids = []
        person_ids: list[str | None] = []
        for annotation in self.annotations:
            content = annotation.content
            key = annotation.key
            track_ids.append(_id(self.file, f"{key}.track_id", content.get("track_id")))
            person = content.get("person_id")
            if person is not None:
                person = str(_id(self.file, f"{key}.person_id", person))
            person_ids.append(person)
        joints = self._joint_names()
        no_joints = [0] * 3 * len(joints)
        kp_2d = self._numbers("keypoints", no_joints).reshape(-1, len(joints), 3)
        kp_2d[..., 2] = (kp_2d[..., :2] != 0).any(axis=-1)  # VIBE's rule: not the third number
        kp_2d = finite_joints(kp_2d, account)
        return AnnotatedPeople(
            image_index=np.array([each.image_index for each in self.annotations], np.int64),
            track_id=np.array(track_ids, np.int64),
            person_id=person_ids,
            joints=joints,
            kp_2d=kp_2d,
            boxes=self._boxes(kp_2d),
        )

    def _joint_names(self) -> tuple[str, ...]:
        """The J joints' names in spin49, each once, in the file's order."""
        key = "categories[0].keypoints"
        categories = records(self.file, "categories", self.categories, do=UNPACK_ADVICE)
        names = categories[0].get("keypoints") if categories else None
        if not isinstance(names, list) or not names:
            raise _invalid(self.file, key, "the names of the joints", kind(names))
        joints = list[str]()
        for name in names:
            joint = SPIN49_NAMES.get(name) if isinstance(name, str) else None
            if joint is None or joint in joints:
                expected = f"none but {', '.join(SPIN49_NAMES)}, each once"
                raise _invalid(self.file, key, expected, quote_name(name))
            joints.append(joint)
        return tuple(joints)

    def _numbers(self, name: str, default: list[Any]) -> Doubles:
        """The lists under a key of each annotation, (N, len(default)); `default` if unknown."""
        stored = [annotation.content.get(name) for annotation in self.annotations]
        rows = [default if row in UNKNOWN_VALUES else row for row in stored]
        keys = [f"{annotation.key}.{name}" for annotation in self.annotations]
        return number_rows(self.file, keys, rows, len(default), do=UNPACK_ADVICE)

    @staticmethod
    def read(file: Path, *, in_folder_of_21: bool) -> StoredLabels:
        """Read a video's labels.

        They are PoseTrack21's if they name the people (`person_id`), or lie in the folder of its
        labels (`in_folder_of_21`).

        Raises RawDataError for a file that is not COCO's JSON, and for an annotation of PoseTrack21
        on an image that is not listed; 2018's are noted.
        """
        content = load_json(file, do=UNPACK_ADVICE)
        if not isinstance(content, dict):
            raise _invalid(file, "file", "an object", kind(content))
        images = _read_images(file, content.get("images"))
        stored = records(file, "annotations", content.get("annotations", []), do=UNPACK_ADVICE)
        names_people = any("person_id" in annotation for annotation in stored)
        labels = _Labels21 if in_folder_of_21 or names_people else _Labels2018
        annotations = []
        for i, annotation in enumerate(stored):
            key = f"annotations[{i}]"
            image_key = f"{key}.image_id"
            image_id = _id(file, image_key, annotation.get("image_id"))
            if image_id not in images.index_of and not labels.may_have_unlisted_images:
                expected = f"the id of one of its {len(images.index_of)} images"
                raise _invalid(file, image_key, expected, str(image_id))
            image_index = images.index_of.get(image_id)
            if image_index is not None:
                annotations.append(_StoredAnnotation(key, image_index, annotation))
        return labels(
            file=file,
            images=images,
            annotations=annotations,
            n_unused=len(stored) - len(annotations),
            categories=content.get("categories"),
        )


class _Labels2018(StoredLabels):
    """Labels of PoseTrack 2018, where every person has joints; in a test set, none has."""

    names_people = False
    may_have_unlisted_images = True
    reason_without_joints = "no_visible_joint"

    @property
    def has_people(self) -> bool:
        stored = [annotation.content.get("keypoints") for annotation in self.annotations]
        return not all(keypoints in UNKNOWN_VALUES for keypoints in stored)

    def _boxes(self, kp_2d: Doubles) -> Doubles:
        return self._numbers("bbox", [np.nan] * 4)


class _Labels21(StoredLabels):
    """Labels of PoseTrack21, which also has people with a box alone. Its boxes are drawn by hand,
    so those of the joints are used.
    """

    names_people = True
    may_have_unlisted_images = False
    reason_without_joints = "no_keypoints"

    @property
    def has_people(self) -> bool:
        return bool(self.annotations)

    def _boxes(self, kp_2d: Doubles) -> Doubles:
        return corner_boxes_with_margin(kp_2d, BOX_MARGIN)


def _read_images(file: Path, stored: object) -> _ListedImages:
    """Read a label file's `images`. Raises RawDataError for invalid ones."""
    index_of: dict[int, int | None] = {}
    file_names: list[str] = []
    size: tuple[float, float] | None = None
    reach = np.zeros(2)
    n_stated = 0  # the largest `nframes`
    n_repeated = 0
    for i, image in enumerate(records(file, "images", stored, do=UNPACK_ADVICE)):
        # `image_id`, in 2018 `frame_id`, is the same number
        key = f"images[{i}]"
        image_id = _id(file, f"{key}.id", image.get("id"))
        is_labelled = image.get("is_labeled")
        name = image.get("file_name")
        n_frames = image.get("nframes")
        if isinstance(n_frames, int):
            n_stated = max(n_stated, n_frames)
        if not isinstance(is_labelled, bool) and is_labelled not in (0, 1):
            raise _invalid(file, f"{key}.is_labeled", "true or false", kind(is_labelled))
        if image_id in index_of:
            n_repeated += 1
        elif not is_labelled:
            index_of[image_id] = None
        elif not isinstance(name, str):
            raise _invalid(file, f"{key}.file_name", "text", kind(name))
        else:
            index_of[image_id] = len(file_names)
            file_names.append(name)
            size = size or _stated_size(image)
            furthest = [_furthest(image.get(f"ignore_regions_{axis}")) for axis in "xy"]
            reach = np.fmax(reach, furthest)
    return _ListedImages(
        index_of=index_of,
        file_names=file_names,
        n_images=max(n_stated, len(index_of)),
        size=size,
        reach=reach,
        n_repeated=n_repeated,
    )


def _furthest(regions: Any) -> float:
    """The largest number of the lists in a list; 0 for other content, which nothing needs."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return float(max(map(max, regions)))
    return 0.0


def _stated_size(image: Mapping[str, Any]) -> tuple[float, float] | None:
    """Width and height px of an image, if it states them."""
    width = image.get("width")
    height = image.get("height")
    if not isinstance(width, int | float) or not isinstance(height, int | float):
        return None
    if width > 0 and height > 0:
        return width, height
    return None


def _id(file: Path, key: str, value: object) -> int:
    """A whole number, or a text of its digits. Raises RawDataError for anything else."""
    digits = isinstance(value, str) and re.fullmatch("[0-9]{1,15}", value)
    return whole_number(file, key, int(digits[0]) if digits else value, do=UNPACK_ADVICE)


def _invalid(file: Path, key: str, expected: str, found: str) -> RawDataError:
    """The error for invalid content of a label file."""
    return RawDataError(file, key, expected, found, UNPACK_ADVICE)
