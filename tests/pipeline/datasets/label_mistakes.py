"""Mistakes with keypoint files, each planted beside a clip of its own, and what is to be said about
it.
"""

import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.pipeline.datasets.label_makers import (
    EVERY,
    SIZE,
    about,
    box_of,
    boxed,
    coco,
    in_crop,
    openpose,
    pages,
    person,
    results,
    swapped,
    times,
)
from tests.pipeline.files.made_detections import COCO_NAMES

# rows; exit code 1 and a message; a reason, but no failure
KEPT, REJECTED, NOBODY = "kept", "rejected", "nobody"


class Mistake(NamedTuple):
    """What lies in `keypoints/`, by what follows the clip's stem; the outcome; words of the message
    or of the notes.
    """

    files: dict[str, Any]
    outcome: str
    words: str


def refused(words, content=None, end=".json", files=None):
    """The clip is rejected."""
    return Mistake({end: content} if files is None else files, REJECTED, words)


def nobody(words, content=None, end=".json", files=None):
    """The clip has no track, and that is no failure."""
    return refused(words, content, end, files)._replace(outcome=NOBODY)


def kept(words, content):
    """The clip has rows, and a note."""
    return refused(words, content)._replace(outcome=KEPT)


GOOD = json.dumps(results())
CSV = "".join(f"ann,{t},{10 + t},20,30,60\n" for t in EVERY)
MOT = "".join(f"{t + 1},1,{10 + t},20,30,60,1,-1,-1,-1\n" for t in EVERY)
YOLO = "0 0.5 0.5 0.2 0.4\n"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

MISTAKES = {
    # Not JSON at all, though it is called so.
    "cut off": refused("cut off", GOOD[:-200]),
    # JSON, and something else.
    "nobody": nobody("no person|nobody|no people", "[]"),
    # Numbers.
    "some nan": kept("finite", results(lambda p: np.where(np.arange(17)[:, None] == 9, np.nan, p))),
    "x and y alone": refused("34 (entries|numbers).*score", results(lambda p: p[:, :2])),
    "17 and 26": refused("one joint order", [*results(n=9), *results(keypoints=[1.0] * 78)]),
    "metres": refused("metres", results(lambda p: (p - [60, 60, 0]) * [0.04, 0.04, 1])),
    "y before x": refused("y before x|x and y", results(swapped)),
    "in per cent": refused(
        "0..1, found scores from 90 to 90. Divide them by 100", results(times(1, 1, 100))
    ),
    "in the box": refused(
        "60 of 60 people.*from the corner of the box. Add", boxed(lambda p: p - about(p)[0])
    ),
    "shares of the box": refused(
        "60 of 60 people.*shares of the box. Multiply",
        boxed(lambda p: (p - about(p)[0]) / about(p)[1]),
    ),
    "in a crop": refused("60 of 60 people.*192 x 256 crop", boxed(in_crop)),
    "y from the bottom": refused(
        "60 of 60 people.*y from the bottom.*120 - y",
        [
            one | {"box": box_of(person(t) - [0, 30, 0])}
            for t, one in enumerate(results(lambda p: [0, 150, 0] + p * [1, -1, 1]))
        ],
    ),
    "y from the bottom, in the middle": kept(
        "60 of 60 people have their hips above their shoulders",
        results(lambda p: [0, SIZE[1], 0] + p * [1, -1, 1]),
    ),
    "scores of 0.05": nobody("scores reach only 0.045", results(times(1, 1, 0.05))),
    # Joint orders.
    # Identities.
    "new identities": kept(
        "60 of them for 60 detections in 60 frames", coco(track_id=lambda t, k: t)
    ),
    "everybody twice": kept("60 detections left out", [*results(), *results()]),
    # Frames.
    "without the first": kept("if they are counted from 1", results(first=1, n=59)),
    "from 1000": refused("counted from 1000.*Count frames from 0", results(first=1000)),
    "no numbers": refused("frame number", results(image_id="frame.jpg")),
    "two clips": refused("'b_'", [*results(), *results(image_id="b_000000.jpg")]),
    # COCO's JSON.
    "coco, one frame twice": refused(
        "each frame once",
        coco() | {"images": [{"id": t, "file_name": f"{t % 2}.jpg"} for t in EVERY]},
    ),
    "two skeletons": refused(
        "categories.*(one|same) .*joint",
        coco()
        | {
            "categories": [
                {"id": k, "name": name, "keypoints": names}
                for k, name, names in ((1, "player", COCO_NAMES), (2, "referee", COCO_NAMES[::-1]))
            ]
        },
    ),
    "class 0": refused("0 in 60 of 60 results.*Write category_id 1", results(category_id=0)),
    # MMPose, Ultralytics.
    "mmpose, from 0": refused("from 1 on", {"instance_info": [{"frame_id": 0, "instances": []}]}),
    # A file for each frame.
    "page cut off": refused(
        "000007.*cut off",
        files=pages(openpose) | {"/a_000000000007_keypoints.json": '{"people": [{"pose'},
    ),
    # Text.
    "corners": refused(
        "without track, x, y, w, h", "id,frame,x1,y1,x2,y2\n1,0,1,2,3,4\n", end=".csv"
    ),
    "a box twice": refused("a second time", f"track,frame,x,y,w,h\n{CSV}{CSV}", end=".csv"),
    "mot from 0": refused("frames from 1 on, as in MOT", MOT.replace("\n60,", "\n0,"), end=".txt"),
    "yolo from 0": refused("from 1 on, as in YOLO", files={f"/a_{t}.txt": YOLO for t in EVERY}),
    "yolo's corners": refused(
        "two corners.*Write the centre",
        files={f"/a_{t + 1}.txt": "0 0.6 0.5 0.9 0.9\n" for t in EVERY},
    ),
    "mot in shares": refused(
        "up to 0.9: shares of the image.*Multiply",
        "".join(f"{t + 1},1,0.2,0.3,0.1,0.9,1,-1,-1,-1\n" for t in EVERY),
        end=".txt",
    ),
    "yolo in px": refused(
        "shares of the image", files={f"/a_{t + 1}.txt": "0 50 50 20 40\n" for t in EVERY}
    ),
    # Other kinds of files.
    "gzipped json": refused(r"json\.gz.*Unpack it", gzip.compress(GOOD.encode()), end=".json.gz"),
    "a link to nothing": refused("no such file|link", Path("/nowhere/a.json")),
    "of another suffix": refused(r"\.avi\.json.*[Rr]ename", GOOD, end=".avi.json"),
}


def plant(raw, clip, files):
    """Write the files of a clip: text, bytes, what becomes JSON; a link for a path; a folder for
    None.
    """
    for end, content in files.items():
        place = raw / f"keypoints/{clip}{end}"
        place.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case None:
                place.mkdir(exist_ok=True)
            case bytes():
                place.write_bytes(content)
            case str():
                place.write_text(content)
            case Path():
                place.symlink_to(content)
            case _:
                place.write_text(json.dumps(content))
