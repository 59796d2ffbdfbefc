"""Clips without keypoints: detected, converted and extracted by one task."""

import shutil

import pytest

import cache
from pipeline.clips.detectors.rtmpose import RTMPose
from pipeline.files.raw import MARKER
from pipeline.settings import sections
from tests.fixtures import embedded  # noqa: F401

SETTINGS = """
[data]
datasets = videos
[embedded]
enabled = false
[detect]
detector = demo
workers = 1
[videos]
min_frames = 8
"""


@pytest.fixture(scope="module")
def clips(embedded, tmp_path_factory):  # noqa: F811
    videos = tmp_path_factory.mktemp("videos")
    for number, clip in enumerate(sorted(embedded.raw("kinetics").rglob("*.mp4"))[:2]):
        shutil.copy(clip, videos / f"{number}.mp4")
    (videos / MARKER).write_text("{}")
    return videos


@pytest.fixture
def own_clips(bare, clips):
    shutil.copytree(clips, bare.folder / "raw/videos")
    (bare.folder / "body").mkdir()  # nothing of it is needed
    bare.configure(SETTINGS)
    return bare


def detected(project):
    found = sorted((project.folder / "raw/videos/keypoints").glob("*.json"))
    return {file.name: file.stat().st_mtime_ns for file in found}


def test_a_folder_of_clips_becomes_tracks_with_features_by_one_task(own_clips, build):
    ran = build(own_clips, "Data")
    assert ran.code == 0, ran.shown
    assert ran.done[0] == "detect videos"
    assert {"convert videos/train", "extract videos/train"} <= set(ran.done)
    assert "persons in 56 frames" in ran.shown
    assert "is empty" not in ran.shown  # there are no folders `val` and `test`
    split = cache.open(own_clips.folder / "cache")["videos/train"]
    assert {track.video for track in split.tracks} == {"0.mp4", "1.mp4"}
    assert list(split.streams) == ["resnet50"]
    before = detected(own_clips)
    assert list(before) == ["0.mp4.json", "1.mp4.json"]
    assert build(own_clips, "Data").done == []
    assert detected(own_clips) == before


def test_a_split_of_which_nothing_could_be_used_is_named(own_clips, build):
    own_clips.configure("[videos]\nmin_frames = 100")
    ran = build(own_clips, "Data")
    assert "videos/train: no rows: none of 2 videos could be used" in ran.shown
    assert (ran.code, "videos/val: no rows" in ran.shown) == (30, False)


def test_the_detectors_weights_are_below_the_folder_of_the_settings(own_clips):
    own = "[rtmpose]\nweights = w.pth\ndetector = yolox-m\nmax_overlap = 0.5"
    own_clips.configure(f"[detect]\ndetector = rtmpose\n{own}")
    weights = str(own_clips.folder / "w.pth")
    assert sections.load(own_clips.cfg).detector == RTMPose(
        weights=weights, detector="yolox-m", max_overlap=0.5
    )
