"""Content of keypoint files of somebody who walks, as tools write it, and changes of it."""

import io
import zipfile

import numpy as np

from tests.pipeline.datasets.by_hand import standing
from tests.pipeline.files.made_detections import COCO_NAMES

N, SIZE = 60, (160, 120)  # frames of each clip; px
EVERY = range(N)


def person(t, order="coco"):
    """(J, 3) of somebody who walks a pixel a frame, between (15, 40) and (105, 80)."""
    return standing(order, 30 + t, 60)


def flat(t, change=np.asarray):
    return change(person(t)).ravel().tolist()


def results(change=np.asarray, first=0, n=N, **more):
    """AlphaPose's list of results."""
    return [
        {"image_id": f"{first + t}.jpg", "keypoints": flat(t % N, change)} | more for t in range(n)
    ]


def coco(people=1, names=COCO_NAMES, category="person", **more):
    """COCO's JSON; `more`: of each annotation, or a function of its frame and person."""
    images = [
        {"id": t, "file_name": f"{t:06d}.jpg", "width": SIZE[0], "height": SIZE[1]} for t in EVERY
    ]
    annotations = []
    for t in EVERY:
        for k in range(people):
            points = np.add(person(t)[: len(names)], [0, 30 * k, 0])
            points[:, 2] = 2
            own = {key: value(t, k) if callable(value) else value for key, value in more.items()}
            entry = {
                "id": len(annotations),
                "image_id": t,
                "category_id": 1,
                "keypoints": points.ravel().tolist(),
            }
            annotations.append(entry | own)
    categories = [{"id": 1, "name": category, "keypoints": names}]
    return {"images": images, "annotations": annotations, "categories": categories}


def openpose(t, **person_of):
    return {
        "version": 1.3,
        "people": [person_of or {"pose_keypoints_2d": person(t, "body_25").ravel().tolist()}],
    }


def pages(content, first=0, end="_keypoints.json"):
    """A folder with a file for each frame."""
    return {f"/a_{first + t:012d}{end}": content(t) for t in EVERY}


def times(*factors):
    return lambda points: points * factors


def swapped(points):
    return points[:, [1, 0, 2]] + [0, 55, 0]  # of somebody between (70, 40) and (160, 80)


def shuffled(points):
    return points[np.random.default_rng(1).permutation(len(points))]


def zipped(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return stream.getvalue()


def without(content, key):
    return {name: value for name, value in content.items() if name != key}


def box_of(points):
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]


def about(points):
    """Upper left corner and size of a person's box."""
    x, y, w, h = box_of(points)
    return np.array([x, y, 0]), np.array([w, h, 1])


def in_crop(points):
    """In the crop of a top-down network, 192 x 256 px for the box and a quarter more."""
    low, size = about(points)
    scale = 1.25 * max(size[0] / 192, size[1] / 256)
    return (points - low - size / 2) / [scale, scale, 1] + [96, 128, 0.5]


def boxed(change):
    """AlphaPose's results with boxes in pixels, and joints elsewhere."""
    return [one | {"box": box_of(person(t))} for t, one in enumerate(results(change))]


def instances(t, **more):
    points = person(t)
    return {"keypoints": points[:, :2].tolist(), "keypoint_scores": points[:, 2].tolist()} | more
