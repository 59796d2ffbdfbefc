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
    flat,
    in_crop,
    in_order,
    instances,
    openpose,
    pages,
    person,
    results,
    shuffled,
    swapped,
    times,
    without,
)
from tests.pipeline.files.made_detections import COCO_NAMES

DOG = [
    "left_eye",
    "right_eye",
    "nose",
    "neck",
    "root_of_tail",
    "left_shoulder",
    "right_shoulder",
    "left_hip",
]
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
HTML = "<!DOCTYPE html>\n<html><body>404: not found</body></html>\n"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
LARGER = times(12, 9, 1)

MISTAKES = {
    # Not JSON at all, though it is called so.
    "empty": refused("empty", ""),
    "gzip": refused("gzip", gzip.compress(GOOD.encode())),
    "png": refused("PNG", PNG),
    "lfs": refused("Git LFS", LFS),
    "web page": refused("web page", HTML),
    "pickle": refused("pickle", b"\x80\x04\x95\x10\0\0\0\0\0\0\0]\x94."),
    "csv as json": refused("JSON.*found text that is not JSON", f"track,frame,x,y,w,h\n{CSV}"),
    "json lines": refused("JSON Lines|a value a line", "\n".join(map(json.dumps, results()))),
    "cut off": refused("cut off", GOOD[:-200]),
    "two in one": refused("JSON.*more|Extra data", GOOD + GOOD),
    "zeros": refused("zero bytes|only zeros", bytes(4096)),
    "latin-1": refused("UTF-8", '[{"image_id": "é.jpg"}]'.encode("latin1")),
    "too deep": refused("nest|deep", "[" * 100_000),
    # JSON, and something else.
    "{}": refused("empty object", "{}"),
    "nobody": nobody("no person|nobody|no people", "[]"),
    "array by frames": refused("keypoints with a score|object", np.zeros((2, 17, 3)).tolist()),
    "frames as keys": refused("0, 1.*Ten lines", {str(t): flat(t) for t in range(5)}),
    "labelme": refused(
        "labelme's JSON.*Convert it to COCO", {"version": "5.0", "shapes": [], "imagePath": "a.jpg"}
    ),
    # Numbers.
    "not a number": nobody("not finite|no_visible_joint|NaN", results(times(np.nan, 1, 1))),
    "some nan": kept("finite", results(lambda p: np.where(np.arange(17)[:, None] == 9, np.nan, p))),
    "numbers as texts": refused("numbers.*text", results(keypoints=["1.5"] * 51)),
    "x and y alone": refused("34 (entries|numbers).*score", results(lambda p: p[:, :2])),
    "mpii's 16": refused("48 (entries|numbers).*joint orders", results(lambda p: p[:16])),
    "shuffled": refused("order that is not known", results(shuffled)),
    "17 and 26": refused("one joint order", [*results(n=9), *results(keypoints=[1.0] * 78)]),
    "normalised": refused("normalised", results(times(1 / 160, 1 / 120, 1))),
    "metres": refused("metres", results(lambda p: (p - [60, 60, 0]) * [0.04, 0.04, 1])),
    "millimetres": refused("far outside", results(lambda p: (p - [60, 60, 0]) * [40, 40, 1])),
    "larger images": refused("another resolution", results(LARGER)),
    "y before x": refused("y before x|x and y", results(swapped)),
    "flipped": refused("far outside", results(lambda p: p * [1, -1, 1])),
    "in per cent": refused(
        "0..1, found scores from 90 to 90. Divide them by 100", results(times(1, 1, 100))
    ),
    "scores up to 3": kept("", results(times(1, 1, 3))),
    "no score": nobody("no_visible_joint", results(times(1, 1, 0))),
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
    "left leg first": kept("17 joints without names are read as h36m'", in_order("h36m")),
    "posetrack's": kept("are read as posetrack'", in_order("posetrack")),
    "crossed hips": refused(
        "as coco, shoulders and hips crossed",
        results(lambda p: p[[*range(11), 12, 11, *range(13, 17)]]),
    ),
    "names the other way round": refused(
        "names that the numbers contradict.*fit coco", coco(names=COCO_NAMES[::-1])
    ),
    "16 names": refused(
        "3 for each of 16 names", coco(names=COCO_NAMES[:16], keypoints=lambda t, k: flat(t))
    ),
    # Identities.
    "new identities": kept(
        "60 of them for 60 detections in 60 frames", coco(track_id=lambda t, k: t)
    ),
    "a joint's name twice": refused(
        "each once, found 'nose' twice", coco(names=[*COCO_NAMES[:16], "nose"])
    ),
    "one person, in half of the frames": nobody(
        "has 30 frames < min_frames 40'", coco() | {"annotations": coco()["annotations"][:30]}
    ),
    "many identities": nobody("20 identities in 60 frames", coco(track_id=lambda t, k: t // 3)),
    "everybody twice": kept("60 detections left out", [*results(), *results()]),
    # Frames.
    "without the first": kept("if they are counted from 1", results(first=1, n=59)),
    "from 1000": refused("counted from 1000.*Count frames from 0", results(first=1000)),
    "of half the rate": nobody("one in 2: are they of another frame rate", results(n=30)),
    "from 1": refused("counted from 1", results(first=1)),
    "another clip's": refused("up to frame 199", results(n=200)),
    "every fifth": nobody("one in 5", results(n=12)),
    "no numbers": refused("frame number", results(image_id="frame.jpg")),
    "two clips": refused("'b_'", [*results(), *results(image_id="b_000000.jpg")]),
    "negative": refused(
        "from 0 on", [instances(t) and {"frame_id": -1, "instances": []} for t in range(2)]
    ),
    # COCO's JSON.
    "coco, no annotations": refused("annotations.*nothing", without(coco(), "annotations")),
    "coco, none annotated": nobody("no person|nobody|no people", coco() | {"annotations": []}),
    "coco, other ids": refused(r"image_id.*999", coco(image_id=999)),
    "coco, one frame twice": refused(
        "each frame once",
        coco() | {"images": [{"id": t, "file_name": f"{t % 2}.jpg"} for t in EVERY]},
    ),
    "coco, upright": refused(
        "120 x 160",
        coco()
        | {
            "images": [
                {"id": t, "file_name": f"{t}.jpg", "width": 120, "height": 160} for t in EVERY
            ]
        },
    ),
    "dogs": nobody("60.*dog", coco(names=DOG, category="dog")),
    "people and a dog": kept(
        "60.*dog",
        coco(people=2, category_id=lambda t, k: k + 1)
        | {
            "categories": [
                {"id": 2, "name": "dog", "keypoints": COCO_NAMES},
                {"id": 1, "name": "person", "keypoints": COCO_NAMES},
            ]
        },
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
    "track_id 0": kept("track_id|identit", coco(people=2, track_id=0)),
    "some track_id": kept(
        "track_id|identit", coco(people=2, track_id=lambda t, k: -1 if t % 9 == 0 else k)
    ),
    "crowd": nobody("60 ", coco(iscrowd=1)),
    "too few scores": refused(r"keypoint_scores.*\(17\)", coco(keypoint_scores=[1.0] * 16)),
    "class 0": refused("0 in 60 of 60 results.*Write category_id 1", results(category_id=0)),
    "class 7": nobody("60 results of category 7 left out: 1 is", results(category_id=7)),
    # MMPose, Ultralytics.
    "mmpose, from 0": refused("from 1 on", {"instance_info": [{"frame_id": 0, "instances": []}]}),
    "mmpose, 3D": refused(
        "2D",
        {
            "instance_info": [
                {"frame_id": 1, "instances": [instances(0, keypoints=[[0, 0, 0]] * 17)]}
            ]
        },
    ),
    # A file for each frame.
    "no page": nobody("empty|no files", None, end="/"),
    "page cut off": refused(
        "000007.*cut off",
        files=pages(openpose) | {"/a_000000000007_keypoints.json": '{"people": [{"pose'},
    ),
    "pages from 1": refused("counted from 1", files=pages(openpose, 1)),
    "3D alone": refused(
        "pose_keypoints_2d.*nothing",
        files=pages(lambda t: openpose(t, pose_keypoints_3d=[1.0] * 100)),
    ),
    "two runs": refused(
        "several",
        files=pages(openpose) | {f"/old_{t:012d}_keypoints.json": openpose(t) for t in EVERY},
    ),
    "drawn images": refused("rendered.png", files={f"/{t:06d}_rendered.png": PNG for t in EVERY}),
    # Text.
    "no header": refused("line 1.*track,frame,x,y,w,h", CSV, end=".csv"),
    "corners": refused(
        "without track, x, y, w, h", "id,frame,x1,y1,x2,y2\n1,0,1,2,3,4\n", end=".csv"
    ),
    "excel": refused("UTF-8", f"track,frame,x,y,w,h\n{CSV}".encode("utf-16"), end=".csv"),
    "negative width": refused("line 2.*width", "track,frame,x,y,w,h\nann,0,1,2,-3,4\n", end=".csv"),
    "a box twice": refused("a second time", f"track,frame,x,y,w,h\n{CSV}{CSV}", end=".csv"),
    "csv from 1": refused(
        "counted from 1",
        "track,frame,x,y,w,h\n" + "".join(f"a,{t + 1},9,9,9,9\n" for t in EVERY),
        end=".csv",
    ),
    "mot from 0": refused("frames from 1 on, as in MOT", MOT.replace("\n60,", "\n0,"), end=".txt"),
    "yolo in one": refused("YOLO.*each frame|a file for each frame", YOLO, end=".txt"),
    "yolo from 0": refused("from 1 on, as in YOLO", files={f"/a_{t}.txt": YOLO for t in EVERY}),
    "yolo of another class": nobody(
        "60 lines of class 1 left out: 0 is COCO's person",
        files={f"/a_{t + 1}.txt": "1 0.5 0.5 0.2 0.4\n" for t in EVERY},
    ),
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
    "a damaged hdf5": refused(
        "Unable to .*open file.*again", b"\x89HDF\r\n\x1a\n" + bytes(99), end=".h5"
    ),
    "as pkl": refused(r"\.pkl.*not read", b"\x80\x04N.", end=".pkl"),
    "gzipped json": refused(r"json\.gz.*Unpack it", gzip.compress(GOOD.encode()), end=".json.gz"),
    "a folder called json": refused(r"folder", GOOD, end=".json/a.json"),
    "a link to nothing": refused("no such file|link", Path("/nowhere/a.json")),
    "partly downloaded": refused(r"json\.part", GOOD, end=".json.part"),
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
