"""PoseTrack's labels and pictures, by hand."""

import functools
import json
import shutil

import numpy as np

from pipeline import datasets
from tests.pipeline.datasets import by_hand

POSETRACK = datasets.get("posetrack")


SEQ = "000001_mpii_test"


NAMES = [
    "nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle",
    "right_ankle",
]  # fmt: skip


def image(frame, *, seq=SEQ, labelled=True, **changes):
    """A picture as the release lists it: its id is 1, the sequence's number and the frame's."""
    name = f"images/val/{seq}/{frame:06d}.jpg"
    number = int(f"1{seq[:6]}{frame:04d}")
    said = {"has_no_densepose": True, "is_labeled": labelled, "file_name": name, "nframes": 100}
    return said | {"frame_id": number, "vid_id": seq[:6], "id": number} | changes


def annotation(frame, person=0, *, seq=SEQ, **changes):
    """Joint j of a person in a frame at (10 j + frame + 1, 20 j + 100 person + 1), in a box of 100
    x 200 px.
    """
    joints = [
        n for j in range(17) for n in (10.0 * j + frame + 1, 20.0 * j + 100 * person + 1, 1.0)
    ]
    said = {"bbox_head": [5, 5, 20, 20], "keypoints": joints, "track_id": person}
    said |= {
        "image_id": int(f"1{seq[:6]}{frame:04d}"),
        "bbox": [frame + 10.0, 20.0, 100.0, 200.0],
        "scores": [],
    }
    return said | {"category_id": 1, "id": person} | changes


def content(annotations=None, images=None, **changes):
    """Ten labelled pictures with one person in each, unless told otherwise."""
    images = [image(t) for t in range(10)] if images is None else images
    annotations = [annotation(t) for t in range(10)] if annotations is None else annotations
    categories = [
        {
            "supercategory": "person",
            "id": 1,
            "name": "person",
            "keypoints": NAMES,
            "skeleton": [[16, 14]],
        }
    ]
    return {"images": images, "annotations": annotations, "categories": categories} | changes


def write(raw, labels=None, seq=SEQ, folder="posetrack_data/annotations", pictures=range(10)):
    """One sequence; pictures are empty files."""
    if labels is None:
        labels = content(
            [annotation(t, seq=seq) for t in range(10)], [image(t, seq=seq) for t in range(10)]
        )
    file = raw / folder / "val" / f"{seq}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(labels if isinstance(labels, str) else json.dumps(labels))
    by_hand.touch(raw / "images/val" / seq, *map("{:06d}.jpg".format, pictures))
    return file


def write_images(raw, size):
    """Grey images of this width and height in place of the empty files."""
    for file in (raw / "images/val").rglob("*.jpg"):
        file.write_bytes(by_hand.jpeg(*size))


read = functools.partial(by_hand.read_one, POSETRACK, split="val")


refusal = functools.partial(by_hand.refusal, POSETRACK, split="val")


def labels_of_21(labels, rng):
    """A sequence's labels as PoseTrack21 has them, and the number of people with a box alone in
    labelled frames.

    Two such people are added to every frame. Boxes are drawn by hand, third numbers of joints are 0
    or 1, ids are texts in every second frame, and person 40 + track_id is in all sequences.
    """
    images, annotations, alone = [], [], 0
    for i, old in enumerate(labels["images"]):
        new = (
            {"id": str(old["id"]), "frame_id": old["id"]}
            if i % 2
            else {"id": old["id"], "image_id": old["id"]}
        )
        new |= {key: old[key] for key in ("is_labeled", "file_name")}
        sequence = old["file_name"].split("/")[2][:6]
        new |= {
            "vid_id": int(sequence) if i % 2 else sequence,
            "has_labeled_person": True,
        }
        images.append(new | {"ignore_regions_x": [], "ignore_regions_y": []})
        box = {"image_id": new["id"], "bbox": [1, 2, 30, 40], "category_id": 1}
        for k, keypoints in ((8, []), (9, [0] * 51)):
            annotations.append(
                box | {"keypoints": keypoints, "track_id": k, "person_id": 90 + k, "id": i}
            )
        alone += 2 * old["is_labeled"]
    for old in labels["annotations"]:
        joints = np.reshape(old["keypoints"], (-1, 3))
        joints[:, 2] = rng.integers(0, 2, len(joints))
        new = {key: old[key] for key in ("bbox_head", "track_id", "category_id", "id")}
        new |= {"keypoints": joints.ravel().tolist(), "bbox": rng.uniform(20, 60, 4).tolist()}
        annotations.append(
            new | {"person_id": 40 + old["track_id"], "image_id": str(old["image_id"])}
        )
        alone += not joints[:, :2].any()
    return {"images": images, "annotations": annotations, "categories": labels["categories"]}, alone


def add_21(raw, later=None):
    """Write PoseTrack21's labels beside those of 2018, which go to the folder `later`. The number
    of `labels_of_21`.
    """
    rng, alone = np.random.default_rng(0), 0
    for file in sorted(raw.glob("posetrack_data/annotations/*/*.json")):
        labels, n = labels_of_21(json.loads(file.read_text()), rng)
        (folder := raw / "posetrack_data" / file.parent.name).mkdir(exist_ok=True)
        (folder / file.name).write_text(json.dumps(labels))
        alone += n
    if later is not None:
        shutil.move(raw / "posetrack_data/annotations", later)
    return alone
