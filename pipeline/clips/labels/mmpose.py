"""Read the JSON of MMPose, and lists that other tools write like it.  [raw] -> tracks -> features
-> windows

`people_formats` recognises these files, and calls `mmpose_content` with the list of frames in them:

    [{"frame_id": 1, "instances": [{"keypoints": [[x, y], ...], "keypoint_scores": [...]}]}]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.clips.labels.joint_orders import JOINT_COUNTS
from pipeline.clips.labels.label_content import (
    BY_CLASS,
    TAKEN_CLASSES,
    TWO_CORNERS,
    LabelContent,
    LabelFormat,
    Stated,
    tolerant_box,
)
from pipeline.clips.labels.label_values import (
    EXPORT,
    ONE_VIDEO,
    OTHER_TOOL,
    identities_of,
    joint_names,
    label_error,
    numbers,
    records,
)
from pipeline.clips.labels.people_classes import PEOPLE
from pipeline.clips.labels.people_table import FoundPerson
from pipeline.files.formats.large_json import StreamedList
from pipeline.files.formats.names import kind

IN_PICTURE: Final = "Use a 2D detector's output, x and y in pixels, not a pose lifter's 3D joints."
# keys of people that are read, or that repeat or refine what is read; those of Ultralytics, too
KEYS: Final = frozenset(
    {"keypoints", "keypoint_scores", "bbox", "bbox_score", "track_id"}
    | {"name", "class", "confidence", "box"}
)
INFERENCER: Final = LabelFormat("MMPose's inferencer", first_frame=0)  # it numbers by enumerate()
DEMO: Final = LabelFormat("MMPose's demo", first_frame=1)  # it counts before it processes a frame


def mmpose_content(
    form: LabelFormat, file: Path, key: str, frames: object, meta: Any, stated: Stated
) -> LabelContent:
    """Read the list `frames` of a file. MMPose writes for each frame its number and `instances`,
    which have keypoints J x (x, y), keypoint_scores J and bbox. ViTPose in MMPose writes the same.

    Older inferencers, and lists of Ultralytics' to_json() for each frame, have only the list of
    instances for each frame.

    Args:
        form: how the format counts frames.
        file, key: the file, and the key of the list in it, for messages.
        meta: the file's `meta_info`, whose `keypoint_id2name` has the joints' names; or None.

    Raises RawDataError for other content.
    """
    if not isinstance(frames, list | StreamedList):
        raise label_error(file, key, "a list of frames", kind(frames))
    names = None
    by_id = None
    if isinstance(meta, dict):
        by_id = meta.get("keypoint_id2name")
    if isinstance(by_id, dict):
        ordered = [by_id.get(str(j)) for j in range(len(by_id))]
        names = joint_names(file, "meta_info.keypoint_id2name", ordered)

    keys = stated.identities.keys()
    content = LabelContent(identity_keys=keys, joints=names, box_form=TWO_CORNERS)
    frame_numbers = []
    for i, entry in enumerate(frames):
        key_of_frame = f"{key}[{i}]"
        if isinstance(entry, list):
            frame = i
            stored = entry
        elif isinstance(entry, dict) and "instances" in entry:
            frame = form.frame(file, f"{key_of_frame}.frame_id", entry.get("frame_id"))
            stored = entry["instances"]
        else:
            do = "Run the detector on the video, not on an image."
            raise label_error(file, key_of_frame, "a frame's instances", kind(entry), do)
        frame_numbers.append(frame)
        key_of_people = f"{key_of_frame}.instances"
        for k, person in enumerate(records(file, key_of_people, stored)):
            name = str(person.get("name"))  # of a class, as Ultralytics writes it
            if "class" in person and not stated.classes.are_people(name, PEOPLE):
                is_skipped = bool(stated.classes.names)
                content.unread[BY_CLASS if is_skipped else TAKEN_CLASSES][name] += 1
                if is_skipped:
                    continue
            content.count_keys(person, KEYS)
            person_key = f"{key_of_people}[{k}]"
            found = _instance(file, person_key, frame, person, names)
            identity = identities_of(file, person_key, person, keys)
            content.people.add(found._replace(identity=identity))
    if len(set(frame_numbers)) != len(frame_numbers):
        raise label_error(file, key, "each frame once", "one twice", ONE_VIDEO)
    content.frames = sorted(frame_numbers)
    return content


def _instance(
    file: Path, key: str, frame: int, person: Mapping[str, Any], names: Sequence[str] | None
) -> FoundPerson:
    """Convert one instance, a person in a frame. Raises RawDataError for other content."""
    scores = person.get("keypoint_scores")
    joints = person.get("keypoints")
    if isinstance(joints, dict):  # Ultralytics' to_json
        x = numbers(file, f"{key}.keypoints.x", joints.get("x"), (None,))
        y = numbers(file, f"{key}.keypoints.y", joints.get("y"), (len(x),))
        scores = joints.get("visible")
        joints = np.column_stack([x, y]).tolist()
    if not isinstance(scores, list):
        expected = "keypoints with a score each"
        raise label_error(file, f"{key}.keypoint_scores", expected, kind(scores), OTHER_TOOL)
    n_joints = len(names or scores)
    scores = numbers(file, f"{key}.keypoint_scores", scores, (n_joints,))
    points = numbers(file, f"{key}.keypoints", joints, (n_joints, 2), do=IN_PICTURE)
    if not names and n_joints not in JOINT_COUNTS:
        lengths = ", ".join(map(str, JOINT_COUNTS))
        expected = f"{lengths} joints, or meta_info with their names"
        raise label_error(file, f"{key}.keypoints", expected, str(n_joints), EXPORT)
    box = tolerant_box(person.get("bbox"), as_corners=True)
    return FoundPerson(frame, np.column_stack([points, scores]), box=box)
