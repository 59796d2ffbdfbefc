"""JSON of keypoint detectors: OpenPose, AlphaPose, COCO and MMPose.  [raw] -> tracks -> features ->
windows

`people_formats` calls it with a file's content, or for OpenPose with those of all frames. It gets
the people as `LabelContent`: joints or boxes in pixels of the clip, the frame of each, and an
identity where the file has one:

    OpenPose, a file a frame    {"people": [{"pose_keypoints_2d": [x, y, score, ...]}]}
    results                     [{"image_id": "35.jpg", "keypoints": [...], "score": 2.9, "idx": 1}]
    COCO, COCO-WholeBody        {"images": [{"id": 1, "file_name": "clip_000035.jpg"}],
                                "annotations": [{"image_id": 1, "keypoints": [...],
                                                 "foot_kpts": [...], "lefthand_kpts": [...]}],
                                "categories": [{"name": "person", "keypoints": ["nose", ...]}]}
    MMPose                      see `mmpose`
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.cli import pages
from pipeline.clips.labels.joint_orders import JOINT_COUNTS
from pipeline.clips.labels.label_content import (
    BY_CATEGORY,
    BY_MARK,
    TAKEN_CATEGORIES,
    UNSCALED,
    LabelContent,
    LabelFormat,
    Sizes,
    Stated,
    tolerant_box,
)
from pipeline.clips.labels.label_values import (
    DAMAGED,
    EXPORT,
    ONE_VIDEO,
    attributes,
    finite_score,
    identities_of,
    label_error,
    numbers,
    other_tool_error,
    records,
    whole_number,
)
from pipeline.clips.labels.people_classes import Categories, read_categories
from pipeline.clips.labels.people_table import ALPHAPOSE_KEY, FoundPerson
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import load_json
from pipeline.files.formats.large_json import StreamedList
from pipeline.files.formats.names import kind, quote_name, shorten, shown_names
from pipeline.people.joint_spellings import bare_name, joint_called
from pipeline.people.skeletons import Doubles, joint_names

NUMBERED: Final = (
    "Rename the images in it, with the frame number (from 0) at the end: clip_000035.jpg is "
    "frame 35."
)
ONE_FILE: Final = (
    f"Write another tool's results into one file for the clip ({pages.KEYPOINT_FILES} has "
    "the formats)."
)
VISIBILITY: Final = (0, 1, 2)  # COCO's: not labelled, labelled and hidden, visible
# keys of people that are read, or that repeat or refine what is read
SIDES: Final = ("left", "right")
OPENPOSE_KEYS: Final = frozenset(
    f"{part}_keypoints{end}" for part in ("pose", "hand_left", "hand_right") for end in ("", "_2d")
)
COCO_HANDS: Final = tuple(f"{side}hand_kpts" for side in SIDES)  # COCO-WholeBody's
HAND_KEYS: Final = frozenset(COCO_HANDS) | {f"{side}hand_valid" for side in SIDES}
RESULT_KEYS: Final = HAND_KEYS | {
    *("image_id", "category_id", "keypoints", "score", "bbox", "box", "idx")
}
COCO_KEYS: Final = HAND_KEYS | frozenset(
    {"id", "image_id", "category_id", "bbox", "score", "keypoints", "keypoint_scores", "track_id"}
    | {"iscrowd", "attributes", "num_keypoints", "area", "segmentation"}
)
# of CVAT's attributes
ATTRIBUTES: Final = frozenset(
    f"attributes.{name}" for name in ("track_id", "keyframe", "occluded", "rotation")
)
# COCO-WholeBody's joints of feet, beside those that its categories name
FEET: Final = "foot_kpts"
FEET_KEYS: Final = frozenset({FEET, "foot_valid"})
FEET_JOINTS: Final = joint_names("coco_feet")[len(joint_names("coco")) :]
FEET_NAMES: Final = tuple(map(bare_name, FEET_JOINTS))
COCO_PERSON: Final = "1"
_NAME_OF_IMAGE: Final = re.compile(r"(?P<name>(?:.*\D)?)(?P<number>[0-9]{1,18})", re.DOTALL)

RESULTS: Final = LabelFormat("AlphaPose's and COCO's results", first_frame=0, box_form="x y w h")
COCO: Final = LabelFormat("COCO's JSON", first_frame=0, box_form="x y w h")


def no_format(file: Path, content: object) -> RawDataError:
    """The error for JSON in no format of people."""
    expected = "a list of results, or an object with images or instance_info"
    return other_tool_error(file, "file", expected, _kind(content))


def _kind(content: object) -> str:
    """Short description of a file's content."""
    if content and isinstance(content, dict):
        return f"an object with {shown_names(content)}"
    if content and isinstance(content, list | StreamedList):
        return f"a list of {len(content)}, the first {kind(next(iter(content)))}"
    return kind(content)


def has(entry: object, key: str) -> bool:
    """Whether it is an object with this key."""
    return isinstance(entry, dict) and key in entry


def openpose_content(
    place: Path,
    listed: Iterable[object] | None,
    files: Sequence[tuple[int, Path]],
    sizes: Sizes | None,
    stated: Stated,
) -> LabelContent:
    """Read OpenPose's `--write_json` files, (frame, file) each, or ComfyUI's list. Raises
    RawDataError.

    Joints on a canvas (`canvas_width`, `canvas_height`) of another scale are scaled to the clip's
    size.
    """
    pages = ((frame, place, page) for frame, page in enumerate(listed or ()))
    if files:
        pages = ((frame, file, load_json(file, do=DAMAGED)) for frame, file in files)
    processed = list[int]()  # frames
    keys = stated.identities.keys()
    content = LabelContent(identity_keys=keys, has_hands=stated.hands)
    n_scaled = 0
    for frame, file, stored in pages:
        page = stored if isinstance(stored, dict) else {}
        scale = _scale(file, "canvas", (page.get("canvas_width"), page.get("canvas_height")), sizes)
        if "people" not in page:
            expected = "OpenPose's object with people, in a file for each frame"
            raise label_error(file, "people", expected, _kind(stored), ONE_FILE)
        for person in records(file, "people", page["people"]):
            content.count_keys(person, OPENPOSE_KEYS)
            # OpenPose 1.0 wrote the first key, later versions the second one.
            key = "pose_keypoints" if "pose_keypoints" in person else "pose_keypoints_2d"
            points = _joints(file, key, person.get(key))
            hands = [key.replace("pose", f"hand_{side}") for side in SIDES]
            points = content.add_hands(file, hands, person, points) * scale
            identity = identities_of(file, "people", person, keys)
            content.people.add(FoundPerson(frame, points, identity))
        n_scaled += (scale != 1).any()
        processed.append(frame)
    content.frames = processed
    if n_scaled:
        content.notes.append(
            f"keypoints of {n_scaled} frames are of a canvas of another size: scaled to the "
            "clip's size"
        )
    return content


def results_content(
    file: Path,
    results: Collection[Mapping[str, Any]] | StreamedList,
    stated: Stated,
) -> LabelContent:
    """Read one list of people with image names, without COCO's other categories."""
    classes = stated.classes
    keys = stated.identities.keys(ALPHAPOSE_KEY)
    content = LabelContent(identity_keys=keys, has_hands=stated.hands)
    clip = None  # the images' name before the frame number
    for result in results:
        stored = result.get("category_id", 1)
        category = COCO_PERSON if stored == 1 else kind(stored)
        if not classes.are_people(category, usual=[COCO_PERSON]):
            content.unread[BY_CATEGORY][category] += 1
            continue
        content.count_keys(result, RESULT_KEYS)
        clip, frame = _split_name(file, "image_id", result.get("image_id"), clip)
        box = None
        if "bbox" in result and "keypoints" not in result:
            points = _corners(RESULTS, file, "bbox", result, content)
        else:
            points = _joints(file, "keypoints", result.get("keypoints"))
            box = tolerant_box(result.get("bbox", result.get("box")))
        if points is not None:
            identity = identities_of(file, "results", result, keys)
            points = content.add_hands(file, COCO_HANDS, result, points)
            content.people.add(FoundPerson(frame, points, identity, box))
    n_zeros = content.unread.get(BY_CATEGORY, Counter[str]()).get("0")
    if not content.people and n_zeros:
        actual = f"0 in {n_zeros} of {len(results)} results, and 1 in none"
        do = f"Write category_id 1, leave it out, or state 0: {classes.setting}."
        raise label_error(file, "category_id", "1, COCO's person", actual, do)
    return content


def _corners(
    form: LabelFormat, file: Path, key: str, entry: Mapping[str, Any], content: LabelContent
) -> Doubles | None:
    """The corners (2, 3) of a person's `bbox`, with the `score`; None if the box is bad."""
    stored_score = entry.get("score", 1.0)
    if not isinstance(stored_score, int | float):
        raise label_error(file, "score", "a number", kind(stored_score))
    score = finite_score(file, "score", stored_score)
    box = numbers(file, key, entry["bbox"], (4,)).tolist()
    return form.parse_box(file, key, box, content, score)


def _split_name(file: Path, key: str, image: object, clip: str | None) -> tuple[str, int]:
    """Split an image name into the part before the frame number, and the number: "clip_0035.jpg"
    gives "clip_" and 35. clip: that part of the images before; None for the first.

    Raises RawDataError for a name without a number, or with another part before it.
    """
    match = None
    if isinstance(image, str) or (isinstance(image, int) and image >= 0):
        match = _NAME_OF_IMAGE.fullmatch(Path(str(image)).stem)
    if match is None:
        expected = "an image name that ends in the frame number, such as '35.jpg'"
        if image is None:
            raise other_tool_error(file, key, expected, kind(image))
        raise label_error(file, key, expected, quote_name(image), NUMBERED)
    name = match["name"]
    if clip is not None and name != clip:
        expected = "image names that differ only by the frame number at their end"
        actual = f"{shorten(clip)!r} and {shorten(name)!r} before it"
        do = f"Have the results of one video in a file. {NUMBERED}"
        raise label_error(file, key, expected, actual, do)
    return name, int(match["number"])


def coco_content(
    file: Path, document: Mapping[str, Any], sizes: Sizes | None, stated: Stated
) -> LabelContent:
    """Read COCO's object: `images`, `annotations` of people in them, and `categories`, of which
    that of people names the joints.

    An image's frame is its `frame_index`, else the number at the end of its `file_name`. A joint's
    score is in `keypoint_scores`, else 1 where it is labelled. Joints and boxes on images of
    another scale (`width`, `height`) are scaled to the clip's. Without any joint in the whole file,
    people are their boxes: a detector of boxes wrote it. COCO-WholeBody's `foot_kpts` are joints,
    too, if the named ones are without feet.
    """
    images = _coco_images(file, document.get("images"), sizes)
    categories = read_categories(file, document.get("categories"), stated.classes)
    annotations = _Annotations(file, document.get("annotations"), images, categories, stated)
    content = annotations.people()
    content.frames = sorted(image.frame for image in images.values())
    for image in images.values():
        if image.camera is not None:
            content.camera[image.frame] = image.camera
    scaled = [image.size for image in images.values() if image.size]
    if scaled:
        content.notes.append(
            f"keypoints of {len(scaled)} frames are of pictures of {scaled[0]}: scaled to the "
            "clip's size"
        )
    return content


class _Annotations(NamedTuple):
    """The annotations of a file."""

    file: Path
    stored: object
    images: Mapping[int, _CocoImage]
    categories: Categories
    stated: Stated

    def people(self, *, as_boxes: bool = False, has_feet: bool = False) -> LabelContent:
        """The people: their joints, or else their boxes. If no joint is labelled in the whole file,
        all are their boxes. has_feet: somebody has FEET, whose names are not among the joints'.
        """
        names = self.categories.joints
        lacks_feet = names is not None and {*map(joint_called, names)}.isdisjoint(FEET_JOINTS)
        joints = [*names, *FEET_NAMES] if names and has_feet else names
        identity_keys = self.stated.identities.keys()
        has_hands = self.stated.hands
        content = LabelContent(identity_keys=identity_keys, joints=joints, has_hands=has_hands)
        n_people = 0
        n_interpolated = 0
        are_labelled = set[bool]()  # whether those with joints have a labelled one
        all_have_boxes = True
        keys = COCO_KEYS | FEET_KEYS if has_feet else COCO_KEYS
        for key, entry, image in self._people_entries(content, keys):
            if FEET in entry and lacks_feet and not has_feet:
                return self.people(has_feet=True)
            n_people += 1
            n_interpolated += attributes(entry).get("keyframe") is False
            all_have_boxes &= "bbox" in entry
            box = None
            if "bbox" in entry and (as_boxes or "keypoints" not in entry):
                points = _corners(COCO, self.file, f"{key}.bbox", entry, content)
            else:
                points = _coco_joints(self.file, key, entry, names)
                if has_feet:
                    feet = _feet(self.file, f"{key}.{FEET}", entry)
                    points = np.concatenate([points, feet])
                are_labelled.add(bool(points[:, 2].any()))
                box = tolerant_box(entry.get("bbox"), image.scale)
            if points is not None:
                identity = identities_of(self.file, key, entry, identity_keys)
                points = content.add_hands(self.file, COCO_HANDS, entry, points) * image.scale
                content.people.add(FoundPerson(image.frame, points, identity, box))
        if are_labelled == {False} and all_have_boxes:
            return self.people(as_boxes=True)
        if n_interpolated:
            content.notes.append(
                f"{n_interpolated} of {n_people} people are between CVAT's key frames: "
                "interpolated, not labelled"
            )
        return content

    def _people_entries(
        self, content: LabelContent, keys: frozenset[str]
    ) -> Iterator[tuple[str, Mapping[str, Any], _CocoImage]]:
        """Yield key, entry and image of each annotation of a single person. Others are counted in
        `content`, and what a person has beside these keys.
        """
        for i, entry in enumerate(records(self.file, "annotations", self.stored)):
            key = f"annotations[{i}]"
            image_id = whole_number(self.file, f"{key}.image_id", entry.get("image_id"))
            if image_id not in self.images:
                expected = "the id of one of images"
                raise label_error(self.file, f"{key}.image_id", expected, str(image_id))
            category = self.categories.name(entry)
            if not self.categories.are_people(entry):
                content.unread[BY_CATEGORY][category] += 1
                continue
            if entry.get("iscrowd") == 1:
                content.unread[BY_MARK]["iscrowd"] += 1
                continue
            if self.categories.is_assumed:
                content.unread[TAKEN_CATEGORIES][category] += 1
            content.count_keys(entry, keys)
            named = {f"attributes.{name}": value for name, value in attributes(entry).items()}
            content.count_keys(named, ATTRIBUTES)
            yield key, entry, self.images[image_id]


class _CocoImage(NamedTuple):
    """An entry of `images`: one frame of the clip."""

    frame: int
    scale: Doubles  # (3,) of `_scale`, from this image's x, y and score to the clip's
    size: str  # `640 x 480 px` of an image of another size than the clip; else ""
    camera: Doubles | None  # (3, 3) homography from the frame before


def _coco_images(file: Path, stored: object, sizes: Sizes | None) -> dict[int, _CocoImage]:
    """Read the images by id. Raises RawDataError if two are of one frame."""
    images = {}
    clip = None  # the images' name before the frame number
    stated_size: tuple[object, object] = (None, None)
    scale = UNSCALED
    size = ""
    entries = records(file, "images", stored)
    for i, entry in enumerate(entries):
        key = f"images[{i}]"
        image_id = whole_number(file, f"{key}.id", entry.get("id"))
        if "frame_index" in entry:
            frame = COCO.frame(file, f"{key}.frame_index", entry["frame_index"])
        else:
            name_key, name = _image_name(entry)
            clip, frame = _split_name(file, f"{key}.{name_key}", name, clip)
        width = entry.get("width")
        height = entry.get("height")
        if (width, height) != stated_size:
            stated_size = (width, height)
            scale = _scale(file, key, stated_size, sizes)
            size = ""
            if (scale != 1).any():
                size = f"{width:.0f} x {height:.0f} px"
        camera = None
        if "camera" in entry:
            values = numbers(file, f"{key}.camera", entry["camera"], (8,))
            camera = np.append(values, 1).reshape(3, 3)
        images[image_id] = _CocoImage(frame, scale, size, camera)
    frames = {image.frame for image in images.values()}
    if len(frames) != len(entries):
        actual = f"{len(frames)} frame numbers for {len(entries)} images"
        raise label_error(file, "images", "each frame once", actual, f"{ONE_VIDEO} {NUMBERED}")
    return images


def _image_name(image: Mapping[str, Any]) -> tuple[str, object]:
    """(key, name) of an image's file. Roboflow appends a hash to `file_name` and keeps the
    original name in `extra.name`.
    """
    extra = image.get("extra")
    if isinstance(extra, dict) and "name" in extra:
        return "extra.name", extra["name"]
    return "file_name", image.get("file_name")


def _coco_joints(
    file: Path, key: str, entry: Mapping[str, Any], names: Sequence[str] | None
) -> Doubles:
    """Read an annotation's joints (J, 3): x, y in px of its image, score. The score is in
    `keypoint_scores`, else in place of the visibility, else 1 where that is above 0.
    """
    n_joints = len(names or ())
    if entry.get("keypoints") == [] and attributes(entry):
        actual = "none, as older versions of CVAT wrote tracks"
        do = "Export the task again by a newer CVAT."
        raise label_error(file, f"{key}.keypoints", "the joints", actual, do)
    points = _joints(file, f"{key}.keypoints", entry.get("keypoints"), n_joints)
    scores = entry.get("keypoint_scores")
    if scores is not None:
        stored = numbers(file, f"{key}.keypoint_scores", scores, (len(points),))
        points[:, 2] = np.where(points[:, 2] > 0, stored, 0)
    else:
        _score_labelled(points)
    return points


def _feet(file: Path, key: str, entry: Mapping[str, Any]) -> Doubles:
    """Read the feet of an annotation, (6, 3) as of `_coco_joints`; zeros if it has none."""
    if FEET not in entry:
        return np.zeros((len(FEET_NAMES), 3))
    points = _joints(file, key, entry[FEET], len(FEET_NAMES))
    _score_labelled(points)
    return points


def _score_labelled(points: Doubles) -> None:
    """Replace COCO's visibility in joints (J, 3), if it is one, by the score 1 where it is above
    0.
    """
    if np.isin(points[:, 2], VISIBILITY).all():
        points[:, 2] = points[:, 2] > 0


def _scale(
    file: Path, key: str, stated_size: tuple[object, object], sizes: Sizes | None
) -> Doubles:
    """(3,) scale of x, y and score from the detector's image to the clip; 1 if the file states no
    size.

    Raises RawDataError for an image of another shape, since it is unknown how it was cut or padded.
    """
    if sizes is None or not all(stated_size):
        return UNSCALED
    stated = np.array([whole_number(file, f"{key}.size", side) for side in stated_size], np.float64)
    possible = np.array(sizes(), np.float64)  # (sizes, 2)
    clip = possible[0]
    x, y = (stated / possible).T  # scale of width and height to each possible size
    # Each side is rounded to a pixel, so each scale may be off by one part in the side's length.
    is_multiple = abs(x - y) <= (1 / possible).sum(axis=1)
    if is_multiple.any() and (stated > 0).all():
        return np.append(clip / stated, 1)
    expected = (
        f"the clip's width and height, {clip[0]:.0f} x {clip[1]:.0f}, or both times one number"
    )
    actual = f"{stated[0]:.0f} x {stated[1]:.0f}"
    do = (
        "Run the detector on the clip as it is decoded (turned as its rotation flag says, "
        "nothing cut or padded)."
    )
    raise RawDataError(file, key, expected, actual, do, reason="keypoints_outside")


def _joints(file: Path, key: str, stored: object, n_joints: int = 0) -> Doubles:
    """Read joints (J, 3) from a flat list of numbers: `n_joints` joints, or if that is 0, as many
    as a known order has.
    """
    counts = (n_joints,) if n_joints else JOINT_COUNTS
    lengths = [3 * count for count in counts]
    if not isinstance(stored, list) or len(stored) not in lengths:
        actual = kind(stored)
        if isinstance(stored, list) and stored and isinstance(stored[0], list):
            actual = f"{len(stored)} lists"
        expected = f"one list of {', '.join(map(str, lengths))} numbers a person"
        do = EXPORT
        if n_joints:
            expected += f", 3 for each of {n_joints} names in categories"
            do = "Write x, y and score of each named joint."
        raise label_error(file, key, expected, actual, do)
    return numbers(file, key, stored, (len(stored),)).reshape(-1, 3)
