"""Keypoints of a clip of Kinetics, by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.pipeline.datasets.by_hand import standing

CLIP = "AbCdEf-_012_000004_000014"


N, SIZE = 72, (640, 240)  # frames of the clip, px


def person(x: float = 100, confidence: float = 0.9, order: str = "body_25") -> np.ndarray:
    return standing(order, x, 200, confidence)


ONE = {t: [person()] for t in range(30)}


def write_openpose(
    raw: Path, frames: dict[int, list[np.ndarray]] | None = None, clip: str = CLIP
) -> Path:
    """By default, one person in the first 30 frames."""
    folder = raw / "keypoints/train" / clip
    folder.mkdir(parents=True, exist_ok=True)
    for frame, persons in (ONE if frames is None else frames).items():
        people = [{"person_id": [-1], "pose_keypoints_2d": p.reshape(-1).tolist()} for p in persons]
        content = {"version": 1.3, "people": people}
        (folder / f"{clip}_{frame:012d}_keypoints.json").write_text(json.dumps(content))
    return folder


def result(frame: int, x: float = 100, score: float = 2.5, **more: Any) -> dict[str, Any]:
    keypoints = person(x, score, "coco").reshape(-1).tolist()
    return {
        "image_id": f"{frame}.jpg",
        "category_id": 1,
        "keypoints": keypoints,
        "score": 3.1,
        **more,
    }
