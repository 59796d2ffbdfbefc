"""Tracks with pictures, what a page shows of them, and splits of a video each."""

import base64

import cv2
import numpy as np

from pipeline.files.pixels.pictures import Pictures
from pipeline.grades import grade
from pipeline.people.track import Track
from pipeline.show.drawing import NAMES
from pipeline.show.tracks import PageContent, ShownTrack
from tests.pipeline.datasets.by_hand import standing, write_alphapose, write_video

# px, the joints of `made`
AT = {"rshoulder": (280, 180), "relbow": (270, 200.5), "lwrist": (330, 210)}


def made(raw, n_frames=1, size=(640, 400), **changed):
    """A track with pictures of `size`, a box about (300, 200) of side 100, and three joints."""
    (raw / "f").mkdir(parents=True, exist_ok=True)
    for i in range(n_frames):
        cv2.imwrite(str(raw / f"f/{i:06d}.jpg"), np.full((size[1], size[0], 3), 90, np.uint8))
    kp_2d = np.zeros((n_frames, 49, 3), np.float32)
    for (name, point), confidence in zip(AT.items(), (1, 0.5, 1), strict=True):
        kp_2d[:, NAMES.index(name)] = (*point, confidence)
    box = np.tile(np.array([300, 200, 100, 100], np.float32), (n_frames, 1))
    fields = {"dataset": "penn_action", "split": "train", "name": "f/0", "video": "f", "fps": 25.0}
    fields |= {
        "frame_index": np.arange(n_frames),
        "bbox": box,
        "kp_2d": kp_2d,
        "frames": Pictures(raw, "f/{:06d}.jpg"),
    }
    return Track(**(fields | changed))


def shown(track, *notes):
    fields = (
        "frame_index",
        "bbox",
        "kp_2d",
        "kp_2d_hands",
        "kp_3d",
        "kp_3d_eval",
        "pose",
        "betas",
        "has_3d",
        "has_smpl",
        "valid",
    )
    columns = {
        name: np.asarray(value) for name in fields if (value := getattr(track, name)) is not None
    }
    graded = grade(columns, track.fps, track.frames)
    return ShownTrack.from_columns(track, columns, source=track.frames, notes=notes, grade=graded)


def shown_split(raw, /, *tracks, **changed):
    """A split of these tracks with facts of a test's own."""
    facts = {"name": "penn_action/train", "origin": "a test", "raw": raw, "stand_in": False}
    facts |= {
        "reader": {
            "dataset": "penn_action",
            "version": 7,
            "parameters": {"model": "neutral"},
            "body": None,
        }
    }
    facts |= {"totals": {}, "totals_of": "the whole split", "rejected": (), "n_rejected": 1}
    facts |= {"body": None, "corrections": (), "warnings": ()}
    return PageContent(**(facts | changed), tracks=tracks)


def pictures(page):
    """The embedded pictures, decoded."""
    found = []
    for image in page.main.all("img"):
        kind, _, data = image.attributes["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        decoded = cv2.imdecode(
            np.frombuffer(base64.b64decode(data, validate=True), np.uint8), cv2.IMREAD_COLOR
        )
        assert [int(image.attributes[key]) for key in ("width", "height")] == [
            decoded.shape[1],
            decoded.shape[0],
        ]
        found.append(decoded)
    return found


def write_clips(raw, **shakes):
    """Clips of somebody whose wrists shake by so many px, with their keypoints."""
    for name, shake in shakes.items():
        write_video(raw / f"{name}.mp4", 40, step=0)
        people = {t: standing("coco", 30 + t, 60) for t in range(40)}
        for t, joints in people.items():
            joints[9:11, 0] += shake * (t % 2)
        write_alphapose(raw / f"keypoints/{name}/alphapose-results.json", people)


def numbers(text, dtype):
    """Those of a text in base64."""
    return np.frombuffer(base64.b64decode(text), dtype)
