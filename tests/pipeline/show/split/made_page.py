"""A split of people in a video each, and its page."""

import json

import cv2
import numpy as np

import cache
from pipeline.files.outputs import OutputRule
from pipeline.show.drawing import NAMES
from pipeline.show.split.page import SplitPage
from pipeline.show.tracks import from_cache
from tests.html_pages import Page
from tests.made_splits import track_of, write_split

SPLIT = "videos/train"
EVIL = "<script>alert(1)</script>'\"><img src=x onerror=alert(1)>"


def person(n=12, shake=0.0, arm=1.0, at=(320, 200)):
    """Columns of somebody who stands in a box of side 100; the right forearm is so much longer."""
    places = {"lshoulder": (10, -30), "rshoulder": (-10, -30), "relbow": (-10, -10)}
    places |= {"rwrist": (-10, -10 + 20 * arm), "rhip": (-10, 20), "lhip": (10, 20)}
    places |= {"nose": (0, -45), "lelbow": (10, -10), "lwrist": (10, 10)}
    places |= {side + "knee": (x, 32) for side, x in (("l", 10), ("r", -10))}
    places |= {side + "ankle": (x, 45) for side, x in (("l", 10), ("r", -10))}
    kp_2d = np.zeros((n, 49, 3), np.float32)
    for name, place in places.items():
        kp_2d[:, NAMES.index(name)] = (at[0] + place[0], at[1] + place[1], 1)
    kp_2d[1::2, NAMES.index("rwrist"), 0] += shake
    bbox = np.tile(np.float32([*at, 100, 100]), (n, 1))
    return {"frame_index": np.arange(n), "bbox": bbox, "kp_2d": kp_2d}


def made_split(folder, people):
    """A split of people in a video each, in grey pictures. people: video -> columns."""
    (folder / "raw/f").mkdir(parents=True)
    for frame in range(12):
        image = np.full((400, 640, 3), 5 * frame, np.uint8)
        cv2.imwrite(str(folder / f"raw/f/{frame:06d}.jpg"), image)
    videos = []
    for video, columns in people.items():
        entry = cache.VideoEntry(name=video, source="pictures:f/{:06d}.jpg+0")
        videos.append((entry, [track_of(f"{video}/0", columns)]))
    provenance = {"raw": str(folder / "raw")}
    return write_split(folder / "cache", SPLIT, videos, provenance=provenance)


def written(folder, n_players=0):
    """Writes the page of the split. Returns it with its data."""
    shown = from_cache(folder / "cache", SPLIT, n_tracks=0)
    page = SplitPage(shown, cache.open(folder / "cache")[SPLIT])
    left_out = page.write(folder / "page", OutputRule("show"), n_players=n_players)
    read = Page((folder / "page/index.html").read_text())
    (data,) = [script for script in read.root.all("script") if "id" in script.attributes]
    return read, json.loads(data.text), left_out
