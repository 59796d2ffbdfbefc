"""One person who walks through a few frames, in the files of every tool."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.clips.labels.detections import read_detections
from tests.pipeline.datasets.by_hand import standing

SIZE = (640, 480)
N = 8  # persons in a row decide a joint order
COCO_NAMES = [
    "nose",
    *(
        f"{side}_{joint}"
        for joint in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
]


def body(t, order="coco"):
    """(J, 3) of a person who walks 4 px a frame, about (200, 240): 30 x 40 px."""
    return standing(order, 200 + 4 * t, 240, 0.875)


def box(t):
    """x0 y0 x1 y1 px of a box that walks with it."""
    return 180 + 4 * t, 200, 220 + 4 * t, 280


def flat(t):
    return body(t).ravel().tolist()


def instance(t):
    """As MMPose's `split_instances` writes it: the box in a list of its own."""
    joints = body(t)
    return {
        "keypoints": joints[:, :2].tolist(),
        "keypoint_scores": joints[:, 2].tolist(),
        "bbox": [list(box(t))],
        "bbox_score": 0.9,
    }


def xywh(t, shift=0):
    x0, y0, x1, y1 = box(t)
    return [x0 + shift, y0 + shift, x1 - x0, y1 - y0]


def yolo(t):
    x0, y0, x1, y1 = box(t)
    w, h = SIZE
    return f"0 {(x0 + x1) / 2 / w} {(y0 + y1) / 2 / h} {(x1 - x0) / w} {(y1 - y0) / h}"


def yolo_joints(t):
    return yolo(t) + "".join(f" {x / SIZE[0]} {y / SIZE[1]} {c}" for x, y, c in body(t))


def coco_object(joints=True, **more):
    images = [{"id": 100 + t, "file_name": f"frame_{t:06d}.jpg"} for t in range(N)]
    what = [
        {"keypoints": flat(t), "keypoint_scores": [0.875] * 17}
        if joints
        else {"bbox": xywh(t), "score": 0.8}
        for t in range(N)
    ]
    annotations = [
        {"id": t, "image_id": 100 + t, "category_id": 1} | what[t] | more for t in range(N)
    ]
    car = {"id": N, "image_id": 100, "category_id": 3, "bbox": [1, 1, 5, 5]}
    categories = [
        {"id": 3, "name": "car"},
        {"id": 1, "name": "person"} | ({"keypoints": COCO_NAMES} if joints else {}),
    ]
    return {"images": images, "annotations": [*annotations, car], "categories": categories}


def results(change=np.asarray, n=N, **more):
    """AlphaPose's list of results, with changed joints (J, 3); `more`: of each."""
    return [
        {"image_id": f"{t}.jpg", "keypoints": np.ravel(change(body(t))).tolist()} | more
        for t in range(n)
    ]


class Case(NamedTuple):
    # name -> text, bytes, what becomes JSON, or a link's path; one called "" is the place itself
    files: dict[str, Any]
    joints: bool
    who: list[int] | None = None
    # those that were looked at; all of which a person is in, if None
    frames: list[int] | None = None


META = {
    "dataset_name": "coco",
    "keypoint_id2name": {str(j): name for j, name in enumerate(COCO_NAMES)},
}
NOBODY = {"frame_id": N, "instances": []}
EVERY = list(range(N))
PEOPLE = [{"people": [{"pose_keypoints_2d": flat(t)}]} for t in EVERY]
RESULTS = [{"image_id": t, "category_id": 1, "keypoints": flat(t), "score": 0.9} for t in EVERY]
BOXES = [
    {"image_id": t, "category_id": c, "bbox": xywh(t), "score": 0.9} for t in EVERY for c in (1, 17)
]
TRACKED = [dict(zip(("x", "y", "visible"), body(t).T.tolist(), strict=True)) for t in EVERY]
INSTANCES = [{"frame_id": t, "instances": [instance(t)]} for t in EVERY]
DEMO = {
    "meta_info": META,
    "instance_info": [one | {"frame_id": t + 1} for t, one in enumerate(INSTANCES)],
}
MOT = [",".join(map(str, xywh(t, 1))) for t in EVERY]
CSV = ["{0},ann,0.5,{3},{4},{1},{2}\n".format(t, *xywh(t)) for t in reversed(EVERY)]


def yolo_files(line):
    return {f"c_{t + 1}.txt": f"{line(t)}\n" for t in EVERY}


CASES = {
    "openpose": Case({f"c_{t:012d}_keypoints.json": PEOPLE[t] for t in EVERY}, True),
    "openpose, first version": Case(
        {f"{t:03d}.json": {"people": [{"pose_keypoints": flat(t)}]} for t in EVERY}, True
    ),
    "openpose, other names": Case({f"cam01.{t:04d}.json": PEOPLE[t] for t in EVERY}, True),
    "openpose, longer names": Case(
        {f"other_{t:012d}_keypoints.json": PEOPLE[t] for t in EVERY}, True
    ),
    "openpose, short names": Case({f"{t}.json": PEOPLE[t] for t in EVERY}, True),
    "alphapose": Case(
        {"": [one | {"image_id": f"{t}.jpg", "idx": 4} for t, one in enumerate(RESULTS)]}, True, [4]
    ),
    "coco results": Case({"": RESULTS}, True),
    "coco results of boxes": Case({"": BOXES}, False),
    "coco": Case({"": coco_object(track_id=6)}, True, [6], EVERY),
    "coco of boxes": Case({"": coco_object(joints=False)}, False, None, EVERY),
    "coco without a joint": Case(
        {"": coco_object(joints=False, keypoints=[0.0] * 51, keypoint_scores=[0.0] * 17)},
        False,
        None,
        EVERY,
    ),
    "mmpose inferencer": Case({"": [*INSTANCES, NOBODY]}, True, None, [*EVERY, N]),
    "mmpose inferencer, older": Case(
        {"": [one["instances"] for one in INSTANCES]}, True, None, EVERY
    ),
    "comfyui": Case({"": [*PEOPLE, {"people": []}]}, True, None, [*EVERY, N]),
    "ultralytics to_json": Case(
        {"": [[{"track_id": 3, "keypoints": one}] for one in TRACKED]}, True, [3], EVERY
    ),
    "mmpose demo": Case({"": DEMO}, True, None, EVERY),
    "mot": Case({"": "".join(f"{t + 1},7,{MOT[t]},1,-1,-1,-1\n" for t in EVERY)}, False, [7]),
    "mot truth": Case(
        {"": "".join(f"{t + 1},{c},{MOT[t]},1,{c},0.5\n" for t in EVERY for c in (1, 3))},
        False,
        [1],
    ),
    "mot detections": Case({"": "".join(f"{t + 1},-1,{MOT[t]},0.9\n" for t in EVERY)}, False),
    "csv": Case({"": "frame,track,score,w,h,x,y\n" + "".join(CSV)}, False, [0]),
    "yolo": Case(yolo_files(lambda t: f"{yolo(t)}\n2 0.5 0.5 0.1 0.1"), False),
    "yolo, confidence": Case(yolo_files(lambda t: f"{yolo(t)} {0.9 if t else 1}"), False),
    "yolo, tracked": Case(yolo_files(lambda t: f"{yolo(t)} 2"), False, [2]),
    "yolo, tracked with confidence": Case(yolo_files(lambda t: f"{yolo(t)} 1 2"), False, [2]),
    "yolo, with confidence and no track": Case(yolo_files(lambda t: f"{yolo(t)} 1 -1"), False),
    "yolo pose": Case(yolo_files(lambda t: f"{yolo_joints(t)} 0.9 3"), True, [3]),
}


def write(place, files):
    for name, content in files.items():
        file = place / name if name else place
        file.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case bytes():
                file.write_bytes(content)
            case str():
                file.write_text(content)
            case Path():
                file.symlink_to(content)
            case _:
                file.write_text(json.dumps(content))
    return place


def read(place):
    """The people whom the files of `write` tell of, in a clip `c` of SIZE."""
    return read_detections(place, "c", lambda: [SIZE])
