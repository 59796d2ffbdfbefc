"""The dataset of one's own clips: demo clips through the stand-in detector, and files made by
hand.
"""

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.write.parts import Part
from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.cli.progress import silent
from pipeline.errors import ConfigError
from pipeline.files.pixels.frames import Video
from pipeline.files.raw.files import caching
from pipeline.people.skeletons import convert
from pipeline.processes.settings import NO_CLUSTER
from pipeline.steps.conversion import convert as conversion
from pipeline.steps.conversion.parts import read_part
from tests.fixtures import planned
from tests.pipeline.datasets import by_hand
from tests.pipeline.datasets.by_hand import coco, standing, touch, write_coco, write_video
from tests.pipeline.files.made_clips import Clip, widen, with_matrix
from tests.raising import config_refuses


def write_clip(file, n=60):
    return write_video(file, n, step=0)


def write_cut(file):
    """Of 100 frames: grey, and red from frame 45 on."""
    grey, red = (np.full((120, 160, 3), colour, np.uint8) for colour in ((120,) * 3, (30, 30, 220)))
    by_hand.encode(file, [grey] * 45 + [red] * 55)


def write_alphapose(file, n=60, x=30, **more):
    """Somebody who walks a pixel a frame, from x on."""
    people = {t: standing("coco", x + t, 60) for t in range(n)}
    by_hand.write_alphapose(file, people, **more)


def read(raw, split="train", **options):
    report = Accounting()
    tracks = list(datasets.get("videos", **options).tracks(raw, split, report=report))
    for account in report:
        account.check()
    return tracks, {account.name: account for account in report}


def test_labels_that_may_be_of_two_clips_are_taken_for_neither(tmp_path):
    for name in ("a/same.mp4", "a/same.mov", "same.mp4", "b/same.mp4"):
        write_clip(tmp_path / name)
        write_alphapose(tmp_path / "keypoints" / Path(name).parent / "same/alphapose-results.json")
    tracks, accounts = read(tmp_path)
    assert [track.name for track in tracks] == ["b/same.mp4/0", "same.mp4/0"]
    for name in ("a/same.mp4", "a/same.mov"):
        assert accounts[name].set_aside == "bad_label_file"
        for part in ("a/same.mov, a/same.mp4", f"keypoints/{name}.json"):
            assert part in accounts[name].message
    reader, alone = datasets.get("videos"), tmp_path / "a/same.mov"
    (before,) = (
        video.files for video in reader.videos(tmp_path, "train") if video.name == "a/same.mp4"
    )
    (tmp_path / "keypoints/a/same").rename(tmp_path / "keypoints/a/same.mp4")
    write_alphapose(tmp_path / "keypoints/a/same.mov.json", idx=7)
    tracks, _ = read(tmp_path)
    assert [track.name for track in tracks][:2] == ["a/same.mov/7", "a/same.mp4/0"]
    (tmp_path / "keypoints/a/same.mp4").rename(tmp_path / "keypoints/a/same")
    alone.unlink()  # what was refused for it has changed, then
    (after,) = (
        video.files for video in reader.videos(tmp_path, "train") if video.name == "a/same.mp4"
    )
    assert (before, after) == ((Path("a/same.mp4"), Path("a/same.mov")), (Path("a/same.mp4"),))
    assert [track.name for track in read(tmp_path)[0]] == [
        "a/same.mp4/0",
        "b/same.mp4/0",
        "same.mp4/0",
    ]


def test_clips_and_labels_that_differ_in_case_alone_belong_together(tmp_path):
    for name, x in (("a.mp4", 30), ("A.mp4", 90)):
        write_clip(tmp_path / name)
        write_alphapose(tmp_path / f"keypoints/{name}.json", x=x)
    right = {track.video: float(track.kp_2d[0, :, 0].max()) for track in read(tmp_path)[0]}
    assert right == {"a.mp4": pytest.approx(45, abs=1), "A.mp4": pytest.approx(105, abs=1)}


@pytest.mark.parametrize("is_turned", [True, False])
def test_keypoints_of_the_picture_before_it_is_turned_are_refused(is_turned, tmp_path):
    """AlphaPose's file states no size. Joints right of the image by less than a tenth of its width
    are possible in any other clip.
    """
    size = (160, 120) if is_turned else (120, 160)
    clip = write_video(tmp_path / "a.mov", 48, size=size, step=0)
    if is_turned:
        clip.write_bytes(with_matrix(clip.read_bytes(), "a quarter turn"))
    joints = standing("coco", 117, 60)  # between 102 and 132
    by_hand.write_alphapose(tmp_path / "keypoints/a.json", dict.fromkeys(range(48), joints))
    tracks, accounts = read(tmp_path)
    account = accounts["a.mov"]
    if is_turned:
        assert account.set_aside == "keypoints_outside" and not tracks
        words = "joints beyond it: those of the stored 160 x 120 image. Run the detector on"
        assert words in account.message
    else:
        assert account.kept == 48


def test_linked_folders_are_searched_and_circles_left(tmp_path):
    raw = tmp_path / "clips 2"
    touch(tmp_path / "clips", "a.mp4")  # whose path begins that of the raw folder
    touch(raw, "b.MOV", ".c.mp4", "d.txt")
    (raw / "linked").symlink_to(tmp_path / "clips")
    (raw / "circle").symlink_to(raw)
    assert [video.name for video in datasets.get("videos").videos(raw, "train")] == [
        "b.MOV",
        "linked/a.mp4",
    ]


def test_a_clip_is_in_its_folder_s_split_or_drawn_by_a_seed():
    reader = datasets.get("videos", val=20, test=10)
    assert reader.split_of("Validation/a.mp4") == "val"
    assert reader.split_of("test/a.mp4") == "test"
    clips = [f"{folder}clip{k}.mp4" for folder in ("", "game/") for k in range(100)]
    drawn = [reader.split_of(clip) for clip in clips]
    counts = Counter(drawn)
    assert 25 < counts["val"] < 55
    assert 8 < counts["test"] < 32
    assert {datasets.get("videos").split_of(clip) for clip in clips} == {"train"}
    other = datasets.get("videos", val=20, test=10, seed=1)
    assert [other.split_of(clip) for clip in clips] != drawn


@pytest.mark.parametrize(
    "options",
    [
        {"val": 60, "test": 50},
        {"min_frames": 0},
        {"max_jitter": 0.0},
        {"max_limb_spread": 0.0},
        *({"fps": fps} for fps in ("fast", "slow/*=", "a.mp4=0", "-30")),
    ],
)
def test_an_option_that_means_nothing_is_refused(options):
    with pytest.raises(ConfigError):
        datasets.get("videos", **options)


def test_nobody_is_linked_over_a_cut_whoever_detected(tmp_path):
    write_cut(tmp_path / "a.mp4")
    write_alphapose(tmp_path / "keypoints/a.json", 100)
    write_cut(tmp_path / "b.mp4")
    write_alphapose(tmp_path / "keypoints/b.json", 100, idx=3)
    tracks, accounts = read(tmp_path)
    stretches = {track.name: (track.frame_index[0], len(track.frame_index)) for track in tracks}
    first, second = (0, 45), (45, 55)
    assert stretches == {"a.mp4/0": first, "a.mp4/1": second, "b.mp4/3": first, "b.mp4/3-1": second}
    assert any("2 scenes, from the frames 0, 45" in note for note in accounts["a.mp4"].notes)
    tracks, _ = read(tmp_path, cuts=False)
    assert [(track.name, len(track.frame_index)) for track in tracks] == [
        ("a.mp4/0", 100),
        ("b.mp4/3", 100),
    ]


@pytest.mark.parametrize("fps", [25, 50])
def test_max_gap_is_in_seconds(tmp_path, fps):
    n = 4 * fps
    write_video(tmp_path / "a.mp4", n, float(fps), step=0)
    # for 0.4 s, the person is missing
    seen = [t for t in range(n) if not 2 * fps <= t < round(2.4 * fps)]
    joints = standing("coco", 30, 60)
    by_hand.write_alphapose(tmp_path / "keypoints/a.json", dict.fromkeys(seen, joints))
    assert len(read(tmp_path, max_gap=0.5)[0]) == 1
    assert len(read(tmp_path, max_gap=0.3)[0]) == 2


def test_a_max_gap_in_frames_is_refused():
    with config_refuses("max_gap is 25; expected seconds, from 0 to 10"):
        datasets.get("videos", max_gap=25)


def test_names_that_two_people_would_share_cost_no_clip(tmp_path):
    write_clip(tmp_path / "a.mp4", 70)
    (tmp_path / "keypoints").mkdir()
    frames = {"dancer": [*range(20), *range(50, 70)], "dancer-1": range(20), "dancer.1": range(20)}
    lines = ["track,frame,x,y,w,h"]
    for k, (name, seen) in enumerate(frames.items()):
        lines += [f"{name},{t},{10 + 50 * k},20,30,80" for t in seen]
    (tmp_path / "keypoints/a.mp4.csv").write_text("\n".join(lines))
    tracks, _ = read(tmp_path, min_frames=5, max_frames=10)
    names = [track.name.rpartition("/")[2] for track in tracks]
    ends = ("", ".2", "-2", "-2.1", "-1", "-1.1", ".1", ".1.1")
    assert sorted(names) == sorted(f"dancer{end}" for end in ends)


def test_what_is_not_kept_is_counted(tmp_path):
    write_clip(tmp_path / "a.mp4", 120)
    few, face, body = 3, 7, 17  # of COCO's joints, the first
    people = {}
    for start, stop, n in (
        (0, 10, few),
        (10, 60, body),
        (60, 70, few),
        (70, 115, face),
        (115, 120, few),
    ):
        joints = standing("coco", 60, 60) * (np.arange(17) < n)[:, None]
        people |= dict.fromkeys(range(start, stop), joints)
    by_hand.write_alphapose(tmp_path / "keypoints/a.json", people)
    (track,), accounts = read(tmp_path)
    assert track.frame_index.tolist() == list(range(10, 60))
    assert dict(accounts["a.mp4"].dropped) == {"too_few_visible_joints": 25, "face_only": 45}


@pytest.fixture
def shaking(tmp_path):
    """A folder of two clips: the joints of b.mp4's person shake."""
    raw = tmp_path / "raw"
    for name in "ab":
        write_clip(raw / f"{name}.mp4")
        write_alphapose(raw / f"keypoints/{name}.json")
    people = json.loads((raw / "keypoints/b.json").read_text())
    noise = np.random.default_rng(0).normal(0, 2, (60, 17, 3)) * [1, 1, 0]
    for person, wrong in zip(people, noise, strict=True):
        person["keypoints"] = (np.reshape(person["keypoints"], (17, 3)) + wrong).ravel().tolist()
    (raw / "keypoints/b.json").write_text(json.dumps(people))
    return raw


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ({}, {}),
        ({"max_jitter": 1.0}, {"b.mp4": "joints_shake"}),
        ({"max_limb_spread": 1.0}, {"b.mp4": "limbs_vary"}),
        ({"min_grade": "doubtful"}, {"b.mp4": "low_grade"}),
        # every frame of a.mp4 repeats the one before
        ({"min_grade": "good"}, {"a.mp4": "low_grade", "b.mp4": "low_grade"}),
    ],
)
def test_a_person_beyond_a_limit_or_of_a_worse_grade_is_counted_and_dropped(
    options, dropped, shaking
):
    tracks, accounts = read(shaking, **options)
    assert {track.video for track in tracks} == {"a.mp4", "b.mp4"} - dropped.keys()
    for name, account in accounts.items():
        assert account.dropped == ({dropped[name]: 60} if name in dropped else {})


def test_a_clip_without_keypoints_that_cannot_be_decoded_is_called_that(tmp_path):
    write_clip(tmp_path / "whole.mp4")
    (tmp_path / "cut off.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:900])
    (tmp_path / "empty.mp4").touch()
    write_video(tmp_path / "a.avi", 40)
    whole = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "keypoints").mkdir()
    write_alphapose(tmp_path / "keypoints/cut.avi.json", 3)
    accounts = read(tmp_path)[1]
    reasons = {
        "whole.mp4": "no_keypoints",
        "a.avi": "no_keypoints",
        "cut.avi": "frame_count_mismatch",
    }
    reasons |= dict.fromkeys(("cut off.mp4", "empty.mp4"), "video_unreadable")
    assert {name: account.set_aside for name, account in accounts.items()} == reasons


STORED_PX = standing("coco", 300, 200)
SHOWN_PX = STORED_PX * [4 / 3, 1, 1]


@pytest.mark.parametrize(
    ("joints", "size"),
    [
        (STORED_PX, {}),
        (STORED_PX, {"width": 720, "height": 576}),
        (SHOWN_PX, {"width": 960, "height": 576}),
        (SHOWN_PX * [0.5, 0.5, 1], {"width": 480, "height": 288}),
    ],
)
def test_keypoints_count_in_stored_or_in_shown_pixels_as_their_file_states(joints, size, tmp_path):
    clip = Clip("a.mp4", size=(720, 576), n_frames=12, prepare=widen)
    (tmp_path / "a.mp4").write_bytes(clip.encode())
    write_coco(tmp_path / "keypoints/a.mp4.json", coco([joints] * 12, **size))
    ((track,), _) = read(tmp_path, min_frames=5)
    expected = convert(SHOWN_PX, source="coco", target="spin49")
    seen = expected[:, 2] > 0
    assert track.kp_2d[0][seen, :2] == pytest.approx(expected[seen, :2], abs=1e-3)


@pytest.mark.parametrize("fps", ["240", "*.mp4=240, 60", "b.mp4=60,a.*=240"])
def test_a_stated_rate_is_the_clips(tmp_path, fps):
    raw = tmp_path / "raw"
    write_clip(raw / "a.mp4")
    write_alphapose(raw / "keypoints/a.mp4.json")
    (track,), accounts = read(raw, fps=fps)
    assert track.fps == 240
    assert "filmed at 240 frames a second, played at 25: slow motion" in accounts["a.mp4"].notes
    (track,), _ = read(raw)
    assert track.fps == 25


@pytest.mark.parametrize(("missing", "n_tracks"), [(11, 1), (14, 2)])
def test_of_a_clip_that_states_no_rate_25_frames_count_as_a_second(tmp_path, missing, n_tracks):
    write_clip(tmp_path / "a.mp4", 120)
    record = Video(tmp_path, "a.mp4").record()
    unknown = replace(record, times=np.full(120, math.nan), header_fps=math.nan)
    labels = coco([standing("coco", 60, 60)] * 120)
    hidden = range(41, 41 + missing)
    labels["annotations"] = [one for one in labels["annotations"] if one["id"] not in hidden]
    write_coco(tmp_path / "keypoints/a.mp4.json", labels, record=unknown.as_dict())
    with caching():  # as a conversion does
        tracks, accounts = read(tmp_path, max_gap=0.5)
    assert len(tracks) == n_tracks
    assert math.isnan(tracks[0].fps)
    note = "the clip states no frame rate: 25 missing frames count as a second"
    assert note in accounts["a.mp4"].notes


def test_keypoints_of_another_clip_are_refused(tmp_path):
    write_clip(tmp_path / "a.mp4", 12)
    labels = coco([standing("coco", 60, 60)] * 12)
    write_coco(tmp_path / "keypoints/a.mp4.json", labels, clip_digest="of another")
    assert read(tmp_path)[1]["a.mp4"].set_aside == "bad_label_file"


LINE = "assumed the joint order coco for 2 videos (a.mp4, b.mp4): [videos] joints states it"


@pytest.fixture
def clips(tmp_path):
    """A folder of two clips, whose keypoints do not name their joints."""
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / "raw" / name)
        write_alphapose(tmp_path / f"raw/keypoints/{name}.json")
    return tmp_path


def test_one_line_tells_the_assumed_order_after_parts_and_after_an_interruption(clips):
    def plan(root, **options):
        dataset = datasets.get("videos", **options)
        return planned(dataset, "train", raw=clips / "raw", root=clips / root)

    def interrupt(n_done, n, name):
        if name and n_done == 1:
            raise KeyboardInterrupt

    assert conversion.convert(plan("at once")).document["assumed"] == [LINE]
    assert conversion.convert(plan("two processes"), workers=2).document["assumed"] == [LINE]
    with pytest.raises(KeyboardInterrupt):
        conversion.convert(plan("interrupted"), progress=interrupt)
    assert conversion.convert(plan("interrupted")).document["assumed"] == [LINE]
    for number in (1, 2):
        part = Part(number, 2)
        read_part(plan("parts"), part, workers=1, dask=NO_CLUSTER, progress=silent)
    assert conversion.convert(plan("parts")).document["assumed"] == [LINE]
    assert conversion.convert(plan("stated", joints="coco")).document["assumed"] == []


def test_commands_tell_the_assumed_order_and_end_well_unless_it_is_stated(clips, types):
    options = "--raw RAW --cache CACHE"
    types(f"convert videos/train {options}", LINE)
    types("status --cache CACHE", LINE)
    stated = types(f"convert videos/train {options} --set videos.joints=b*=coco,a.mp4=coco")
    assert "assumed" not in stated
    assert "assumed" not in types("status --cache CACHE")


@pytest.mark.parametrize("name", ["videos", "kinetics"])
@pytest.mark.parametrize("joints", ["coco17", "a/*=", "*=h36m, openpose", "="])
def test_an_invalid_order_is_refused_with_those_that_are_known(name, joints):
    with config_refuses(f"{name}: joints is .*coco, h36m_lifters"):
        datasets.get(name, joints=joints)


@pytest.mark.parametrize(
    ("option", "stated", "wide"),
    [
        ("joints", "coco, b/*=h36m", "*"),
        ("joints", "lab/*=coco, lab/b/*=h36m, coco", "lab/*"),
        ("joints", "lab/*=coco, lab/[ab]*=h36m", "lab/*"),
        ("fps", "slow/*=240, 60, fast/*=25", "*"),
    ],
)
def test_a_value_that_is_never_used_is_refused(option, stated, wide):
    with config_refuses(rf"never used.* for '{re.escape(wide)}'.* Put it last"):
        datasets.get("videos", **{option: stated})


def test_a_pattern_may_fit_some_clips_of_an_earlier_one():
    reader = datasets.get("videos", joints="lab/?=coco, lab/*=h36m, lab*=openpose_coco, a/*=coco")
    stated = [reader.joint_order(clip).name for clip in ("lab/a", "lab/ab", "lab2/a")]
    assert stated == ["coco", "h36m", "openpose_coco"]
    reader = datasets.get("videos", joints="*b*=coco, [ab].mp4=h36m")
    assert [reader.joint_order(clip).name for clip in ("b.mp4", "a.mp4")] == ["coco", "h36m"]


def test_the_first_pattern_that_fits_states_the_order():
    reader = datasets.get("videos", joints="slow/*=openpose_coco, *.mov = h36m, coco")
    stated = [reader.joint_order(clip).name for clip in ("slow/a.mov", "b.mov", "c.mp4")]
    assert stated == ["openpose_coco", "h36m", "coco"]
    assert datasets.get("videos", joints="x/*=coco").joint_order("y.mp4").name is None
