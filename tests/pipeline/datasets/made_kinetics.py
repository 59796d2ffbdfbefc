"""Keypoints of a clip of Kinetics, by hand."""

import json

from tests.pipeline.datasets.by_hand import standing

CLIP = "AbCdEf-_012_000004_000014"


N, SIZE = 72, (640, 240)  # frames of the clip, px


def person(x=100, confidence=0.9, order="body_25"):
    return standing(order, x, 200, confidence)


ONE = {t: [person()] for t in range(30)}


def write_openpose(raw, frames=None, clip=CLIP):
    """By default, one person in the first 30 frames."""
    folder = raw / "keypoints/train" / clip
    folder.mkdir(parents=True, exist_ok=True)
    for frame, persons in (ONE if frames is None else frames).items():
        people = [{"person_id": [-1], "pose_keypoints_2d": p.reshape(-1).tolist()} for p in persons]
        content = {"version": 1.3, "people": people}
        (folder / f"{clip}_{frame:012d}_keypoints.json").write_text(json.dumps(content))
    return folder


def result(frame, x=100, score=2.5, **more):
    keypoints = person(x, score, "coco").reshape(-1).tolist()
    return {
        "image_id": f"{frame}.jpg",
        "category_id": 1,
        "keypoints": keypoints,
        "score": 3.1,
        **more,
    }
