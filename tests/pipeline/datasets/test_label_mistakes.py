"""What `convert` says about mistakes with keypoint files of clips: their numbers, frames, names and
places. Mistakes of their formats are in tests/pipeline/clips/labels/test_detections.py.
"""

import contextlib
import gzip
import io
import json
import re
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipeline.__main__ import main
from tests.pipeline.clips.labels import made_detections
from tests.pipeline.clips.labels.made_detections import write
from tests.pipeline.datasets.by_hand import write_video

N, SIZE = 48, (416, 272)  # frames of a clip, px
# rows; exit code 1 and a message; a reason, but no failure
KEPT, REJECTED, NOBODY = "kept", "rejected", "nobody"
CLIP = "the clip"  # stands for its bytes
NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


class Mistake(NamedTuple):
    """Files of a raw folder, the first the clip; its outcome, and words about it. {k} becomes the
    mistake's number.
    """

    files: dict[str, Any]
    outcome: str
    words: str


def results(change=np.asarray, **more):
    return made_detections.results(change, N, **more)


GOOD = json.dumps(results())


def called(clip, labels, outcome, words):
    return Mistake({clip: CLIP, labels: GOOD}, outcome, words)


def says(content, outcome, words, end=".json"):
    """The clip's keypoint file has this content."""
    return Mistake({"m{k}.mp4": CLIP, "keypoints/m{k}" + end: content}, outcome, words)


def from_frame(first):
    return [one | {"image_id": f"{first + t}.jpg"} for t, one in enumerate(results())]


def without_elbows(points):
    return np.where(np.isin(np.arange(17), (7, 8))[:, None], np.nan, points)


def upside_down(points):
    return [0, SIZE[1], 0] + points * [1, -1, 1]


MISTAKES = {
    "nobody": says([], NOBODY, "no person|nobody|no people"),
    "some nan": says(results(without_elbows), KEPT, "finite"),
    "metres": says(
        results(lambda p: (p - [300, 240, 0]) / [100, 100, 1]), REJECTED, r"up to \(1, 0.2\)"
    ),
    "y before x": says(results(lambda p: p[:, [1, 0, 2]]), REJECTED, "y before x"),
    "y from the bottom": says(results(upside_down), KEPT, "48 of 48 people have their hips above"),
    "low scores": says(results(lambda p: p * [1, 1, 0.05]), NOBODY, "scores reach only 0.044"),
    "everybody twice": says([*results(), *results()], KEPT, "48 detections left out"),
    "without the first": says(from_frame(1)[:-1], KEPT, "if they are counted from 1"),
    "from 1000": says(from_frame(1000), REJECTED, "counted from 1000"),
    "short": says(results()[:9], NOBODY, "9 track_too_short; .*9 frames < min_frames"),
    "of another tool": says("<?xml?>\n<annotations>", REJECTED, "CVAT.*which is not read", ".xml"),
    "gzipped": says(gzip.compress(GOOD.encode()), REJECTED, r"json\.gz.*[Uu]npack", ".json.gz"),
    "a link to nothing": says(Path("/nowhere/a.json"), REJECTED, "no such file|link"),
    "another suffix": says(GOOD, REJECTED, r"\.avi\.json.*[Rr]ename", ".avi.json"),
    "other letters": called(
        "my clip.mp4", "keypoints/my_clip.json", REJECTED, r"my_clip\.json.*Rename it"
    ),
    "nfd for nfc": called(f"{NFC}.mp4", f"keypoints/{NFD}.json", REJECTED, "another name"),
    "capitals of the suffix": called(
        "b/up.MP4", "keypoints/b/up.mp4.json", REJECTED, "another name"
    ),
    "not in the subfolder": called(
        "deep/above.mp4", "keypoints/above.json", REJECTED, "move it to keypoints/deep/"
    ),
    "beside the clip": called(
        "d/beside.mp4", "d/beside.json", NOBODY, r"beside\.json has some. Move it to keypoints/d/"
    ),
    "beside the clip, of SLEAP": Mistake(
        {"d/mouse.mp4": CLIP, "d/mouse.slp": "HDF5"},
        NOBODY,
        r"mouse\.slp.*SLEAP's file, of 2D points, which is not read",
    ),
    "one file of all": called(
        "e/one.mp4", "keypoints/e/results.json", REJECTED, "results.json.*a file for each clip"
    ),
    "one name for two": Mistake(
        {"g/two.mp4": CLIP, "g/two.mov": CLIP, "keypoints/g/two.json": GOOD},
        REJECTED,
        r"two\.mov.*share this name",
    ),
    "no clip": Mistake(
        {"clips/a.mp4": "hello", "keypoints/clips/a.json": GOOD},
        REJECTED,
        "is no video of a known kind",
    ),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "whole.mp4", N, size=SIZE, step=0)


@pytest.fixture(scope="module")
def told(clip, tmp_path_factory):
    """The outcome of each mistake's clip, and what is said, after one conversion of all."""
    raw = tmp_path_factory.mktemp("mistakes") / "raw"
    clips = {}
    for k, (name, mistake) in enumerate(MISTAKES.items()):
        files = {path.format(k=k): content for path, content in mistake.files.items()}
        clips[name] = next(iter(files))
        for path in [path for path, content in files.items() if content is CLIP]:
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            (raw / path).hardlink_to(clip)
            del files[path]
        write(raw, files)
    place = ("videos/train", "--cache", str(raw.with_name("cache")))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["convert", *place, "--raw", str(raw)]) == 0
        printed.truncate(printed.seek(0))
        assert main(["status", *place, "--all", "--json"]) == 0
    (state,) = json.loads(printed.getvalue())
    videos, alone = {video["name"]: video for video in state["videos"]}, state["without_track"]
    found = {}
    for name, clip_name in clips.items():
        video = videos.get(clip_name, {})
        outcome = REJECTED if video.get("failed") else KEPT
        if outcome == KEPT and (clip_name in alone or video.get("set_aside")):
            outcome = NOBODY
        found[name] = outcome, f"{video} {alone.get(clip_name, '')}".replace(f"{raw}/", "")
    return found


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_cause(name, told):
    outcome, text = told[name]
    assert outcome == MISTAKES[name].outcome, text
    assert re.search(MISTAKES[name].words, text, re.DOTALL), text


ROOTS = {
    "KEYPOINTS": ({"KEYPOINTS/a.json": GOOD}, "Rename the folder.*keypoints/"),
    "zipped": ({"keypoints.zip": b"PK"}, r"keypoints\.zip.*unpack the file, to keypoints/"),
    "images": ({"a/1.jpg": "x", "a/2.jpg": "x"}, "files that end in .*a/1.jpg, a/2"),
}


@pytest.mark.parametrize("name", ROOTS)
def test_a_folder_that_is_called_otherwise_or_without_clips_ends_the_command(
    name, clip, tmp_path, ran
):
    files, words = ROOTS[name]
    raw = write(tmp_path / "raw", files)
    if name != "images":
        (raw / "a.mp4").hardlink_to(clip)
    place = ("videos", "train", "--raw", raw, "--cache", tmp_path / "cache")
    assert re.search(words, ran("convert", *place, code=2).err)
    assert not (tmp_path / "cache").exists()


def test_a_clip_that_has_another_tool_s_keypoints_under_another_name_is_not_detected(
    clip, tmp_path, ran
):
    raw = write(tmp_path / "raw", {"keypoints/lost.json": GOOD})
    for name in ("Lost.mp4", "none.mp4"):
        (raw / name).hardlink_to(clip)
    plan = ran("prepare", "videos", "--plan", "--raw", raw, "--cache", tmp_path / "cache").out
    assert re.search(r"detect +1 clip, .*\n +none\.mp4", plan)
