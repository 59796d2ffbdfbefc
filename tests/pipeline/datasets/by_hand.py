"""What the readers' tests write by hand: a video, a standing person in any detector's joint
order.
"""

import functools
import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.accounting import Accounting
from pipeline.errors import RawDataError
from pipeline.people.skeletons import joint_names

_MIDDLE = {
    "Nose": (0, -18),
    "Neck": (0, -12),
    "MidHip": (0, 0),
    "headtop": (0, -20),
    "hip": (0, 0),
    "spine": (0, -6),
}
_SIDES = {
    "Eye": (1, -20), "Ear": (2, -19), "Shoulder": (5, -12), "Elbow": (10, -8), "Wrist": (15, -4),
    "Hip": (3, 0),
    "Knee": (4, 10), "Ankle": (4, 20), "BigToe": (5, 20), "SmallToe": (6, 20), "Heel": (4, 20),
}  # fmt: skip


def standing(order, x=0, y=0, confidence=0.9, scale=1):
    """(J, 3) px, px, confidence: 30 x 40 px about (x, y), so with a diagonal of 50.

    Seen from the front, so left joints are on the right. Faces and hands are 0 0 0.
    """
    points = {name.lower(): point for name, point in _MIDDLE.items()}
    points |= {f"r{name}".lower(): (-dx, dy) for name, (dx, dy) in _SIDES.items()}
    points |= {f"l{name}".lower(): (dx, dy) for name, (dx, dy) in _SIDES.items()}
    joints = [points.get(name.lower().removeprefix("op ")) for name in joint_names(order)]
    return np.array(
        [
            (0, 0, 0) if at is None else (x + scale * at[0], y + scale * at[1], confidence)
            for at in joints
        ],
        np.float64,
    )


def read_one(dataset, raw, split="train", body=None):
    """Tracks, and the account of the only video."""
    report = Accounting()
    tracks = list(dataset.tracks(raw, split, body=body, report=report))
    (account,) = report
    account.check()
    return tracks, account.as_dict()


def read_video(dataset, raw, split, name, body=None):
    """Tracks and account of one of several videos."""
    dataset = dataset.detect_layout(raw, split)
    (video,) = (video for video in dataset.videos(raw, split) if video.name == name)
    tracks, account = dataset.read_accounted(raw, split, video, body)
    account.check()
    return list(tracks), account.as_dict()


def refusal(dataset, raw, split="train"):
    """What `tracks` raises without a report, for which it rejects the only video with one."""
    with pytest.raises(RawDataError) as caught:
        list(dataset.tracks(raw, split))
    tracks, account = read_one(dataset, raw, split)
    assert (tracks, account["set_aside"], account["message"]) == (
        [],
        caught.value.reason,
        str(caught.value),
    )
    return caught.value


def require(read, frames=None, dropped=None, notes=None, refused=""):
    """The tracks of what `read_one` gave, if they have these frames, and the account says this.

    frames: of each track. dropped: number of frames by reason. notes: words of each note. refused:
    the reason for which the video has no track. None: not compared.
    """
    tracks, account = read
    assert account["set_aside"] == refused, account
    if frames is not None:
        assert [track.frame_index.tolist() for track in tracks] == [list(rows) for rows in frames]
    if dropped is not None:
        assert account["dropped"] == dropped
    if notes is not None:
        assert len(account["notes"]) == len(notes), account["notes"]
        for note, words in zip(account["notes"], notes, strict=True):
            assert words in note
    return tracks


def write_json(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_alphapose(file, people, **more):
    """AlphaPose's results of one person: the joints (J, 3) by frame; `more`: of each result."""
    results = [
        {"image_id": f"{t}.jpg", "keypoints": np.ravel(joints).tolist(), "score": 2.5} | more
        for t, joints in people.items()
    ]
    write_json(file, results)


def coco(keypoints, **about):
    """COCO's JSON of one person's joints (N, 17, 3), with a person in each image; `about`: of each
    image.
    """
    n = len(keypoints)
    images = [{"id": t, "frame_index": t, "file_name": f"{t}.jpg"} | about for t in range(n)]
    people = [
        {"id": t, "image_id": t, "category_id": 1, "keypoints": np.ravel(joints).tolist()}
        for t, joints in enumerate(keypoints)
    ]
    categories = [{"id": 1, "name": "person"}]
    return {"images": images, "annotations": people, "categories": categories}


def write_coco(file, content, **info):
    """Write COCO's JSON with these facts about it in its first line, as `detect` does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{json.dumps({'info': info})[:-1]},\n{json.dumps(content)[1:]}")


def touch(folder, *names):
    """A folder with empty files, as pictures that are not decoded."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def jpeg(width=224, height=224, brightness=90):
    return bytes(cv2.imencode(".jpg", np.full((height, width, 3), brightness, np.uint8))[1])


def write_video(file, n_frames, fps=25.0, size=(160, 120), *, step=5):
    """Frame i is grey of `step` times i: where that is not 0, each frame may be taken for another
    scene.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_video(file.suffix, n_frames, fps, size, step))
    return file


@functools.cache
def _video(suffix, n_frames, fps, size, step):
    with tempfile.TemporaryDirectory() as folder:
        images = [np.full((*size[::-1], 3), step * i % 256, np.uint8) for i in range(n_frames)]
        return encode(Path(folder) / f"video{suffix}", images, fps).read_bytes()


def encode(file, images, fps=25.0, code=""):
    """A video of BGR images; its codec, unless `code` names one, is the usual one of its suffix."""
    images = list(images)
    file.parent.mkdir(parents=True, exist_ok=True)
    code = code or {".avi": "MJPG", ".webm": "VP80"}.get(file.suffix.lower(), "mp4v")
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*code), fps, images[0].shape[1::-1])
    for image in images:
        writer.write(np.ascontiguousarray(image))
    writer.release()
    return file
