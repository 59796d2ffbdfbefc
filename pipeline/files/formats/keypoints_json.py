"""JSON of keypoint detectors: OpenPose, AlphaPose, COCO and MMPose.  [raw] -> tracks -> features -> windows

The content tells the format (`content_of`), not the file's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import kind, load_json, numbers, records, whole
from pipeline.files.formats.found import (
    BODY,
    DAMAGED,
    EXPORT,
    FORMATS,
    ORDERS,
    FoundPerson,
    LabelContent,
    LabelFormat,
    Size,
    label_error,
)
from pipeline.skeletons import Doubles

ONE_VIDEO: Final = "Have the files of one video, and of one run of the detector, in a folder."
NUMBERED: Final = "Rename the images in it, with the frame number (from 0) at the end: clip_000035.jpg is frame 35."
ONE_FILE: Final = "Write another tool's results into one file for the clip (docs/datasets/videos.md has the formats)."
IN_PICTURE: Final = "Use a 2D detector's output, x and y in pixels, not a pose lifter's 3D joints."
OTHER_TOOL: Final = (
    "docs/datasets/videos.md has the formats that are read (AlphaPose's without --format). "
    "Ten lines in docs/adding-a-detector.md write those of another tool."
)
NUMBERS: Final = tuple(3 * n_joints for n_joints in (*ORDERS, *sorted(BODY)))  # a person whose joints have no names
_PICTURE: Final = re.compile(r"(?P<name>(?:.*\D)?)(?P<number>[0-9]{1,18})", re.DOTALL)

RESULTS: Final = LabelFormat("AlphaPose's and COCO's results", first=0, box="x y w h")
COCO: Final = LabelFormat("COCO's JSON", first=0, box="x y w h")
INFERENCER: Final = LabelFormat("MMPose's inferencer", first=0)  # enumerate() over the frames
DEMO: Final = LabelFormat("MMPose's demo", first=1)  # counts a frame before it is looked at


def content_of(file: Path, size: Size | None = None) -> LabelContent:
    """A clip's people in one file, in pixels of an image of `size`. Raises RawDataError for any other file."""
    content = load_json(file, do=DAMAGED)
    if _has(content, "instance_info"):
        return _mmpose(DEMO, file, "instance_info", content["instance_info"], content.get("meta_info"))
    if _has(content, "images"):
        return _coco(file, content, size)
    entries = content if isinstance(content, list) else []
    if entries and all(isinstance(entry, list) or _has(entry, "instances") for entry in entries):
        return _mmpose(INFERENCER, file, "frames", entries, None)
    if entries and all(_has(entry, "people") for entry in entries):
        return openpose_content(((i, file, entry) for i, entry in enumerate(entries)), size)
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        expected = "a list of results, or an object with images or instance_info"
        found = f"an object with {', '.join(map(repr, content))[:80]}" if isinstance(content, dict) else kind(content)
        raise label_error(file, "file", expected, found, OTHER_TOOL)
    return _results(file, content)


def _has(entry: object, key: str) -> bool:
    return isinstance(entry, dict) and key in entry


def openpose_content(frames: Iterable[tuple[int, Path, object]], size: Size | None) -> LabelContent:
    """(frame, file, content) of OpenPose's `--write_json` files, or of ComfyUI's list. Raises RawDataError.

    Joints on a canvas (`canvas_width`, `canvas_height`) of another scale are scaled to the clip's size.
    """
    looked_at, scaled = list[int](), 0
    read = LabelContent(frames=looked_at)
    for frame, file, content in frames:
        page = content if isinstance(content, dict) else {}
        scale = _scale(file, "canvas", (page.get("canvas_width"), page.get("canvas_height")), size)
        scaled += bool((scale != 1).any())
        if "people" not in page:
            keys = f"an object with {', '.join(map(repr, page))[:80]}" if page else kind(content)
            raise label_error(file, "people", "OpenPose's object with people, in a file for each frame", keys, ONE_FILE)
        for person in records(file, "people", page["people"], do=FORMATS):
            key = "pose_keypoints" if "pose_keypoints" in person else "pose_keypoints_2d"  # 1.0's first
            read.found.append(FoundPerson(frame, _joints(file, key, person.get(key)) * [*scale, 1]))
        looked_at.append(frame)
    if scaled:
        read.notes.append(f"keypoints of {scaled} frames are of a canvas of another size: scaled to the clip's size")
    return read


def _results(file: Path, results: Sequence[Mapping[str, Any]]) -> LabelContent:
    """One list of people with image names, without COCO's other categories."""
    people = [result for result in results if result.get("category_id", 1) == 1]
    found, before = [], ""
    for i, result in enumerate(people):
        name, frame = _split_name(file, "image_id", result.get("image_id"))
        before = name if i == 0 else before
        if name != before:
            expected = "image names that differ only by the frame number at their end"
            do = f"Have the results of one video in a file. {NUMBERED}"
            raise label_error(file, "image_id", expected, f"{before[:40]!r} and {name[:40]!r} before it", do)
        if "keypoints" in result or "bbox" not in result:
            points = _joints(file, "keypoints", result.get("keypoints"))
        else:
            points = RESULTS.corners(file, "bbox", result["bbox"], _score(file, result))
        found.append(FoundPerson(frame, points, _identity(file, result)))
    if not any(person.who for person in found):  # where it did not track, all are 0; its trackers count from 1
        found = [person._replace(who=None) for person in found]
    return LabelContent(found, passed_over=len(results) - len(people))


def _score(file: Path, result: Mapping[str, Any]) -> float:
    score = result.get("score", 1.0)
    if not isinstance(score, int | float) or score != score:
        raise label_error(file, "score", "a number", kind(score))
    return float(score)


def _split_name(file: Path, key: str, image: object) -> tuple[str, int]:
    """The part of an image name before the frame number, and the number: "35.jpg" is frame 35."""
    match = _PICTURE.fullmatch(Path(str(image)).stem) if isinstance(image, str | int) else None
    if match is None:
        expected = "an image name that ends in the frame number, such as '35.jpg'"
        raise label_error(file, key, expected, kind(image), OTHER_TOOL if image is None else NUMBERED)
    return match["name"], int(match["number"])


def _identity(file: Path, result: Mapping[str, Any]) -> int | None:
    """AlphaPose writes 3, 3.0, [3] or, for merged detections, [[3.0], [3.0]]: the first counts."""
    if "idx" not in result:
        return None
    idx = result["idx"]
    for _ in range(2):
        if isinstance(idx, list) and idx:
            idx = idx[0]
    return whole(file, "idx", idx, do=FORMATS)


def _coco(file: Path, content: Mapping[str, Any], size: Size | None) -> LabelContent:
    """`images`, `annotations`, and `categories`, of which the one with keypoints names the joints.

    An image's frame is its `frame_index`, else the number at the end of its `file_name`. A joint's score is in
    `keypoint_scores`, else 1 where it is labelled. Identities are `track_id`, if every annotation has one. Joints and
    boxes on images of another scale (`width`, `height`) are scaled to the clip's. Without any joint in the whole file,
    people are their boxes: a detector of boxes wrote it.
    """
    images = records(file, "images", content.get("images"), do=FORMATS)
    frame_of, scale_of, camera = dict[int, int](), dict[int, Doubles](), dict[int, Doubles]()
    for i, image in enumerate(images):
        image_id = whole(file, f"images[{i}].id", image.get("id"), do=FORMATS)
        if "frame_index" in image:
            frame_of[image_id] = COCO.frame(file, f"images[{i}].frame_index", image["frame_index"])
        else:
            frame_of[image_id] = _split_name(file, f"images[{i}].file_name", image.get("file_name"))[1]
        scale_of[image_id] = _scale(file, f"images[{i}]", (image.get("width"), image.get("height")), size)
        if "camera" in image:
            moved = numbers(file, f"images[{i}].camera", image["camera"], (8,), do=FORMATS)
            camera[frame_of[image_id]] = np.append(moved, 1).reshape(3, 3)
    if len(set(frame_of.values())) != len(images):
        raise label_error(file, "images", "each frame once", "one twice", ONE_VIDEO)
    listed = records(file, "categories", content.get("categories") or [], do=FORMATS)
    named = [category for category in listed if category.get("keypoints")]
    persons = [c.get("id") for c in named or [c for c in listed if c.get("name") == "person"]]
    names = _names(file, "categories.keypoints", named[0]["keypoints"]) if named else None
    found, boxes = list[FoundPerson](), list[tuple[str, Mapping[str, Any], list[float]]]()
    passed_over = n_shown = 0
    for i, entry in enumerate(records(file, "annotations", content.get("annotations"), do=FORMATS)):
        key = f"annotations[{i}]"
        image_id = whole(file, f"{key}.image_id", entry.get("image_id"), do=FORMATS)
        if image_id not in frame_of:
            raise label_error(file, f"{key}.image_id", "the id of one of images", str(image_id))
        annotation = persons and "category_id" in entry and entry["category_id"] not in persons
        if annotation or entry.get("iscrowd") == 1:
            passed_over += 1
            continue
        scale = [*scale_of[image_id], 1]
        who = whole(file, f"{key}.track_id", entry["track_id"], do=FORMATS) if "track_id" in entry else None
        if "keypoints" in entry or "bbox" not in entry:
            points = _joints(file, f"{key}.keypoints", entry.get("keypoints"), len(names) if names else None)
            points[:, 2] = points[:, 2] > 0  # COCO's visibility
            if (scores := entry.get("keypoint_scores")) is not None:
                stored = numbers(file, f"{key}.keypoint_scores", scores, (len(points),), do=FORMATS)
                points[:, 2] = np.where(points[:, 2], stored, 0)
            n_shown += int(np.count_nonzero(points[:, 2]))
        else:
            points = COCO.corners(file, f"{key}.bbox", entry["bbox"], _score(file, entry))
        found.append(FoundPerson(frame_of[image_id], points * scale, who))
        boxes += [(f"{key}.bbox", entry, scale)] if "bbox" in entry else []
    if len(boxes) == len(found) and not n_shown:
        corners = [COCO.corners(file, where, entry["bbox"], _score(file, entry)) * s for where, entry, s in boxes]
        found = [one._replace(points=points) for one, points in zip(found, corners, strict=True)]
    people = LabelContent(found, sorted(frame_of.values()), names, passed_over=passed_over, camera=camera)
    if scaled := [image for image in images if (scale_of[int(image["id"])] != 1).any()]:
        shape = f"{scaled[0]['width']:.0f} x {scaled[0]['height']:.0f} px"
        people.notes.append(f"keypoints of {len(scaled)} frames are of pictures of {shape}: scaled to the clip's size")
    return people


def _scale(file: Path, key: str, stated: tuple[object, object], size: Size | None) -> Doubles:
    """(2,) scale from the detector's image to the clip; 1 if unknown.

    Raises RawDataError for another shape: how it was cut or padded is unknown.
    """
    if size is None or not all(stated):
        return np.ones(2)
    shape = np.array([whole(file, f"{key}.size", value, do=FORMATS) for value in stated], np.float64)
    clip = np.array(size(), np.float64)
    if (shape > 0).all() and abs(np.subtract(*(shape / clip))) <= (1 / clip).sum():  # a pixel of rounding each
        return clip / shape if (shape != clip).any() else np.ones(2)
    expected = f"the clip's width and height, {clip[0]:.0f} x {clip[1]:.0f}, or both times one number"
    actual = f"{shape[0]:.0f} x {shape[1]:.0f}"
    do = "Run the detector on the clip as it is decoded (turned as its rotation flag says, nothing cut or padded)."
    raise RawDataError(file, key, expected, actual, do, reason="keypoints_outside")


def _mmpose(form: LabelFormat, file: Path, key: str, frames: object, meta: object) -> LabelContent:
    """Frames of `instances`: keypoints J x (x, y), keypoint_scores J, bbox; ViTPose in MMPose writes the same.

    Joint names are in `keypoint_id2name` of `meta`, if present. Older inferencers, and lists of Ultralytics' to_json()
    per frame, have only the instances.
    """
    if not isinstance(frames, list):
        raise label_error(file, key, "a list of frames", kind(frames))
    names = None
    if isinstance(meta, dict) and isinstance(by_id := meta.get("keypoint_id2name"), dict):
        names = _names(file, "meta_info.keypoint_id2name", [by_id.get(str(j)) for j in range(len(by_id))])
    found, looked_at = [], []
    for i, entry in enumerate(frames):
        where = f"{key}[{i}]"
        alone = isinstance(entry, list)
        if not alone and not _has(entry, "instances"):
            do = "Run the detector on the video, not on an image."
            raise label_error(file, where, "a frame's instances", kind(entry), do)
        frame = i if alone else form.frame(file, f"{where}.frame_id", entry.get("frame_id"))
        looked_at.append(frame)
        people = records(file, f"{where}.instances", entry if alone else entry["instances"], do=FORMATS)
        for k, person in enumerate(people):
            found.append(FoundPerson(frame, *_instance(file, f"{where}.instances[{k}]", person, names)))
    if len(set(looked_at)) != len(looked_at):
        raise label_error(file, key, "each frame once", "one twice", ONE_VIDEO)
    return LabelContent(found, sorted(looked_at), names)


def _instance(
    file: Path, key: str, person: Mapping[str, Any], names: Sequence[str] | None
) -> tuple[Doubles, int | None]:
    scores, joints = person.get("keypoint_scores"), person.get("keypoints")
    if isinstance(joints, dict):  # Ultralytics' to_json
        x = numbers(file, f"{key}.keypoints.x", joints.get("x"), (None,), do=FORMATS)
        y = numbers(file, f"{key}.keypoints.y", joints.get("y"), (len(x),), do=FORMATS)
        scores, joints = joints.get("visible"), np.column_stack([x, y]).tolist()
    if not isinstance(scores, list):
        raise label_error(file, f"{key}.keypoint_scores", "keypoints with a score each", kind(scores), OTHER_TOOL)
    n_joints = len(names or scores)
    scores = numbers(file, f"{key}.keypoint_scores", scores, (n_joints,), do=FORMATS)
    points = numbers(file, f"{key}.keypoints", joints, (n_joints, 2), do=IN_PICTURE)
    if not names and 3 * n_joints not in NUMBERS:
        expected = f"{', '.join(str(n // 3) for n in NUMBERS)} joints, or meta_info with their names"
        raise label_error(file, f"{key}.keypoints", expected, str(n_joints), EXPORT)
    who = whole(file, f"{key}.track_id", person["track_id"], do=FORMATS) if "track_id" in person else None
    return np.column_stack([points, scores]), who


def _names(file: Path, key: str, names: object) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise label_error(file, key, "the names of the joints, each once", kind(names))
    return names


def _joints(file: Path, key: str, stored: object, n_joints: int | None = None) -> Doubles:
    """(J, 3) from a flat list of numbers: `n_joints` joints, or as many as in a known order."""
    lengths = NUMBERS if n_joints is None else (3 * n_joints,)
    if not isinstance(stored, list) or len(stored) not in lengths:
        raise label_error(file, key, f"{' or '.join(map(str, lengths))} numbers a person", kind(stored), EXPORT)
    return numbers(file, key, stored, (len(stored),), do=FORMATS).reshape(-1, 3)
