"""PoseTrack's label files: COCO's JSON with more keys, of one video each.  [raw] -> tracks

The reader (`pipeline.datasets.posetrack`) calls `load_coco`, and gets the annotations of the
labelled images as arrays. A file, shortened:

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
from typing import Any, Final

import numpy as np

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


@dataclass(frozen=True, slots=True, eq=False)
class Coco:
    """The F labelled images of a video, and their N annotations, in the file's order.

    Methods raise RawDataError for invalid content.
    """

    file: Path
    file_names: list[str]  # F, as stored: not to be trusted
    n_images: int  # of the video: as many as `nframes` states, or as are listed
    picture: Ints  # (N,) the annotation's image, 0..F-1
    annotations: Mapping[str, Mapping[str, Any]]  # N: "annotations[3]" -> annotation
    categories: object  # as stored
    notes: list[str]  # messages about unused entries
    size: tuple[float, float] | None  # px, of the first labelled image that states it
    of_21: bool  # of PoseTrack21, which also has people with a box alone

    @property
    def has_keypoints(self) -> bool:
        """Whether any annotation has keypoints; those of a test set have none."""
        stored = [annotation.get("keypoints") for annotation in self.annotations.values()]
        return not all(keypoints in MISSING for keypoints in stored)

    def joint_names(self) -> list[str]:
        """The file's J joint names in order, each once."""
        key = "categories[0].keypoints"
        categories = records(self.file, "categories", self.categories, do=UNPACK)
        names = categories[0].get("keypoints") if categories else None
        if not isinstance(names, list) or not names:
            raise RawDataError(self.file, key, "the names of the joints", kind(names), UNPACK)
        seen = set[str]()
        for name in names:
            if not isinstance(name, str) or name in seen:
                raise RawDataError(self.file, key, "names, each once", shown(name), UNPACK)
            seen.add(name)
        return names

    def track_ids(self) -> Ints:
        """The person of each annotation within this video, (N,)."""
        ids = []
        for key, annotation in self.annotations.items():
            ids.append(_id(self.file, f"{key}.track_id", annotation.get("track_id")))
        return np.array(ids, np.int64)

    def person_ids(self) -> list[str | None]:
        """The person of each annotation, N, by one name in all of PoseTrack21; None in 2018's."""
        people: list[str | None] = []
        for key, annotation in self.annotations.items():
            person = annotation.get("person_id")
            if person is not None:
                person = str(_id(self.file, f"{key}.person_id", person))
            people.append(person)
        return people

    def keypoints(self, n_joints: int) -> Doubles:
        """Joints (N, J, 3) as stored; all 0 for an annotation without keypoints."""
        return self._numbers("keypoints", [0] * 3 * n_joints).reshape(-1, n_joints, 3)

    def boxes(self) -> Doubles:
        """Boxes (N, 4): x y of the upper left corner, w h, px; NaN if missing."""
        return self._numbers("bbox", [np.nan] * 4)

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


def load_coco(file: Path, *, in_folder_of_21: bool) -> Coco:
    """Read a video's labels.

    They are PoseTrack21's if they name the people (`person_id`), or lie in the folder of its labels
    (`in_folder_of_21`).

    Raises RawDataError for a file that is not COCO's JSON, and for an annotation of PoseTrack21 on
    an image that is not listed; 2018's are noted.
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
    return Coco(
        file=file,
        file_names=images.file_names,
        n_images=max(images.n_stated, len(images.index_of)),
        picture=np.array(list(image_of.values()), np.int64),
        annotations={f"annotations[{i}]": listed[i] for i in image_of},
        categories=content.get("categories"),
        notes=notes,
        size=images.size,
        of_21=of_21,
    )


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
