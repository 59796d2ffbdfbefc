"""What `convert` says about each of many mistakes with keypoint files, their names and clips."""

import contextlib
import io
import json
import re
import unicodedata
from typing import Any, NamedTuple

import pytest

from pipeline.__main__ import main
from tests.pipeline.datasets.by_hand import write_video
from tests.pipeline.datasets.label_makers import SIZE, N, zipped
from tests.pipeline.datasets.label_mistakes import GOOD, KEPT, MISTAKES, NOBODY, REJECTED, plant

CLIP = "the clip"  # stands for its bytes
NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


class Place(NamedTuple):
    """Files of a folder of clips, the first the clip; its outcome, and words about it."""

    files: dict[str, Any]
    outcome: str
    words: str


def called(clip, labels, outcome, words):
    return Place({clip: CLIP, labels: GOOD}, outcome, words)


def no_clip(content, words):
    return Place({"clips/{k}.mp4": content, "keypoints/clips/{k}.json": GOOD}, REJECTED, words)


PLACES = {
    "other letters": called(
        "my clip.mp4", "keypoints/my_clip.json", REJECTED, r"my_clip\.json.*Rename it"
    ),
    "nfd for nfc": called(f"{NFC}.mp4", f"keypoints/{NFD}.json", REJECTED, "another Unicode form"),
    "capitals of the suffix": called(
        "b/up.MP4", "keypoints/b/up.mp4.json", REJECTED, "other capitals|another name"
    ),
    "not in the subfolder": called(
        "deep/above.mp4", "keypoints/above.json", REJECTED, "Move it to keypoints/deep/"
    ),
    "beside the clip": called(
        "d/beside.mp4", "d/beside.json", NOBODY, r"beside\.json has some. Move it to keypoints/d/"
    ),
    "one file of all": called(
        "e/one.mp4", "keypoints/e/results.json", REJECTED, "results.json.*a file for each clip"
    ),
    "one name for two": Place(
        {"g/two.mp4": CLIP, "g/two.mov": CLIP, "keypoints/g/two.json": GOOD},
        REJECTED,
        r"two\.mov.*share this name",
    ),
    "text": no_clip("hello", "is of another kind"),
}


class Said(NamedTuple):
    outcome: str
    text: str


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What is said about a mistake's clip, after one conversion of all."""
    base = tmp_path_factory.mktemp("mistakes")
    raw, clips = base / "raw", dict[str, str]()
    whole = write_video(base / "whole.mp4", N, size=SIZE, step=0)
    for k, (name, mistake) in enumerate(MISTAKES.items()):
        clips[name] = f"m{k:03d}.mp4"
        raw.mkdir(exist_ok=True)
        (raw / clips[name]).hardlink_to(whole)
        plant(raw, f"m{k:03d}", mistake.files)
    for k, (name, place) in enumerate(PLACES.items()):
        for path, content in place.files.items():
            file = raw / path.format(k=k)
            clips.setdefault(name, path.format(k=k))
            file.parent.mkdir(parents=True, exist_ok=True)
            if content is CLIP:
                file.hardlink_to(whole)
            else:
                file.write_bytes(content if isinstance(content, bytes) else content.encode())
    place = ("videos/train", "--cache", str(base / "cache"))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["convert", *place, "--raw", str(raw)]) == 0
        printed.truncate(printed.seek(0))
        assert main(["status", *place, "--all", "--json"]) == 0
    (state,) = json.loads(printed.getvalue())
    videos, alone = {video["name"]: video for video in state["videos"]}, state["without_track"]

    def said(name):
        clip = clips[name]
        video = videos.get(
            clip, {"message": "", "notes": [], "dropped": {}, "failed": False, "set_aside": ""}
        )
        text = f"{video['message']} {video['notes']} {video['dropped']} {alone.get(clip, '')}"
        if video["failed"]:
            return Said(REJECTED, text)
        return Said(
            NOBODY if clip in alone or video["set_aside"] else KEPT, text.replace(f"{raw}/", "")
        )

    return said


@pytest.mark.parametrize("name", [*MISTAKES, *PLACES])
def test_a_mistake_is_named_with_its_cause(name, told):
    expected, said = {**PLACES, **MISTAKES}[name], told(name)
    assert said.outcome == expected.outcome, said.text
    assert re.search(expected.words, said.text, re.DOTALL), said.text


ROOTS = {
    "KEYPOINTS": ({"KEYPOINTS/a.json": GOOD}, "Rename it to keypoints"),
    "zipped": ({"keypoints.zip": zipped(a=GOOD)}, r"keypoints\.zip.*Unpack it into keypoints/"),
    "images": ({"a/1.jpg": "x", "a/2.jpg": "x"}, "2 images; make a clip"),
}


@pytest.mark.parametrize("name", ROOTS)
def test_a_folder_that_is_called_otherwise_or_without_clips_ends_the_command(name, tmp_path, ran):
    files, words = ROOTS[name]
    raw = tmp_path / "raw"
    if name != "images":
        write_video(raw / "a.mp4", N, size=SIZE, step=0)
    for path, content in files.items():
        (raw / path).parent.mkdir(parents=True, exist_ok=True)
        (raw / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    place = ("videos", "train", "--raw", raw, "--cache", tmp_path / "cache")
    assert re.search(words, ran("convert", *place, code=2).err)
    assert not (tmp_path / "cache").exists()


def test_a_clip_that_has_another_tool_s_keypoints_under_another_name_is_not_detected(tmp_path, ran):
    for name in ("Lost.mp4", "none.mp4"):
        write_video(tmp_path / "raw" / name, N, size=SIZE, step=0)
    plant(tmp_path / "raw", "lost", {".json": GOOD})
    plan = ran(
        "prepare", "videos", "--plan", "--raw", tmp_path / "raw", "--cache", tmp_path / "cache"
    ).out
    assert re.search(r"detect +1 clip, .*\n +none\.mp4", plan)
