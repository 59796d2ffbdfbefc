"""The player without a browser: its data, its video, and which part of a clip and which tracks it
has.
"""

import base64
import io
import json
from dataclasses import replace
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest

from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.grades import find_jumps
from pipeline.show import player_tracks, player_video
from pipeline.show.drawing import NAMES
from pipeline.show.player import write_player
from pipeline.show.tracks import from_cache
from tests.html_pages import Page
from tests.pipeline.show.made_tracks import (
    AT,
    made,
    numbers,
    pictures,
    shown,
    shown_split,
    write_clips,
)
from tests.pipeline.show.numbered_video import N_FRAMES, image_of, write_numbered
from tests.raising import pipeline_refuses


@pytest.fixture
def played(tmp_path):
    """Writes the player of tracks that a test has made. Returns the page and its data."""

    def write(*tracks, **options):
        content = shown_split(tmp_path, *[shown(track) for track in tracks])
        left_out = write_player(content, tmp_path / "page.html", **options)
        page = Page((tmp_path / "page.html").read_text())
        texts = {e.attributes.get("id"): e.text for e in page.root.all("script")}
        return page, json.loads(texts["data"]), texts["clip"], left_out

    return write


def frames_in(clip):
    """The decoded frames of a page's video, and its packets."""
    data = base64.b64decode(clip.removeprefix("data:video/mp4;base64,"))
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        times = [float(packet.pts * packet.time_base) for packet in packets]
        keys = [packet.is_keyframe for packet in packets]
    with av.open(io.BytesIO(data)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return images, times, keys


def test_joints_and_boxes_are_in_the_picture_where_the_labels_put_them(played, tmp_path):
    # 1280 px become 960: a pixel's centre x is at 0.75 (x + 0.5) from the picture's left edge
    track = made(tmp_path, 3, size=(1280, 800)).take(np.array([0, 2]), ())
    _, data, _, _ = played(track)
    assert [data[key] for key in ("width", "height", "first", "step")] == [960, 600, 0, 2]
    (only,) = data["tracks"]
    assert numbers(only["frames"], "<i4").tolist() == [0, 1]
    box = numbers(only["boxes"], "<i2").reshape(2, 4)[0] / 4
    assert box.tolist() == pytest.approx([0.75 * 250.5, 0.75 * 150.5, 75, 75], abs=0.13)
    points = numbers(only["points"], "<i2").reshape(2, -1, 2)[1] / 4
    found = dict(zip(data["names"], points.tolist(), strict=True))
    expected = {name: [0.75 * (x + 0.5), 0.75 * (y + 0.5)] for name, (x, y) in AT.items()}
    assert found == {name: pytest.approx(point, abs=0.13) for name, point in expected.items()}
    confidence = dict(zip(data["names"], numbers(only["confidence"], "u1")[:3], strict=True))
    assert confidence == {"rshoulder": 255, "relbow": 128, "lwrist": 255}
    bones = {frozenset(data["names"][j] for j in bone[:2]): bone[2] for bone in data["bones"]}
    assert bones == {frozenset({"relbow", "rshoulder"}): "right"}


def test_hands_are_lines_in_the_colour_of_their_side_without_dots(played, tmp_path):
    hands = np.zeros((3, 42, 3), np.float32)
    # the wrist and the forefinger, from base to tip, of both hands
    hands[:, [0, 5, 6, 7, 8], 0] = 330 + 4 * np.arange(5)
    hands[:, [21, 26, 27, 28, 29], 0] = 270 - 4 * np.arange(5)
    is_seen = hands[..., 0] > 0
    hands[is_seen, 1:] = 210, 0.5
    _, data, _, _ = played(made(tmp_path, 3, kp_2d_hands=hands).take(np.array([1, 2]), ()))
    names = [
        f"{side}_{joint}"
        for side in ("left", "right")
        for joint in ("hand_root", *(f"forefinger{number}" for number in (1, 2, 3, 4)))
    ]
    assert data["names"][3:] == names and data["sides"][3:] == [None] * 10
    points = numbers(data["tracks"][0]["points"], "<i2").reshape(2, -1, 2) / 4
    assert points[0, 3:8, 0].tolist() == [330.5, 334.5, 338.5, 342.5, 346.5]
    assert points[0, 8:, 0].tolist() == [270.5, 266.5, 262.5, 258.5, 254.5]
    bones = [[data["names"][a], data["names"][b], side] for a, b, side in data["bones"]]
    lines = [[a, b, a.partition("_")[0]] for a, b in pairwise(names) if b != "right_hand_root"]
    assert bones[1:] == lines


def test_joints_that_are_not_seen_are_marked_and_far_ones_stay_within_int16(played, tmp_path):
    track = made(tmp_path, 2)
    track.kp_2d[0, NAMES.index("lwrist"), :2] = (1e6, -1e9)
    track.kp_2d[1, NAMES.index("lwrist")] = (np.nan, np.nan, 1)
    track.kp_2d[1, NAMES.index("relbow")] = 0
    _, data, _, _ = played(track)
    points = numbers(data["tracks"][0]["points"], "<i2").reshape(2, -1, 2)
    elbow, wrist = data["names"].index("relbow"), data["names"].index("lwrist")
    assert points[0, wrist].tolist() == [32000, -32000]
    assert points[1, wrist].tolist() == points[1, elbow].tolist() == [-32768, -32768]


@pytest.mark.parametrize("name", ["b_frames", "late", "uneven"])
def test_the_video_has_the_clip_s_frames_and_times_in_order_of_showing(played, tmp_path, name):
    own = write_numbered(tmp_path / "f.mp4", name)
    video = Video(tmp_path, "f.mp4")
    _, data, clip, _ = played(made(tmp_path, 5, size=(320, 180), frames=video))
    images, times, keys = frames_in(clip)
    assert times == sorted(times) and times[0] == 0
    assert times == pytest.approx(own - own[0], abs=1e-3)
    assert numbers(data["ticks"], "<i4") / 90_000 == pytest.approx(times, abs=1e-5)
    assert np.diff(np.flatnonzero(keys)).max() <= 30
    assert len(images) == N_FRAMES
    for number, image in enumerate(images):
        assert np.abs(image.astype(int) - image_of(number)).mean() < 8  # the picture's own size


def test_portraits_show_the_person_from_the_first_row_to_the_last(played, tmp_path):
    track = made(tmp_path, 15)
    for number in range(15):
        picture = np.full((400, 640, 3), 255, np.uint8)
        cv2.rectangle(picture, (250, 150), (349, 249), (10 * number,) * 3, -1)
        cv2.imwrite(str(tmp_path / f"f/{number:06d}.jpg"), picture)
    page, data, _, _ = played(track)
    (strip,) = pictures(page)
    assert strip.shape == (96, 8 * 96, 3)
    middles = [strip[48, 48 + 96 * place, 0] for place in range(8)]
    assert middles == pytest.approx([20 * place for place in range(8)], abs=6)
    assert data["tracks"][0]["portraits"] == [0, 2, 4, 6, 8, 10, 12, 14]


def test_odd_frames_are_jumps_the_first_after_a_gap_and_the_first_outside_the_crop(
    played, tmp_path
):
    track = made(tmp_path, 40)
    track.kp_2d[12, NAMES.index("rshoulder"), 0] += 40  # of a box of 100
    track.kp_2d[30:, NAMES.index("lwrist"), 1] = 200 + 1.3 * 100  # the crop ends at 265
    track = track.take(np.r_[0:20, 25:40], ())
    jumps = find_jumps({"frame_index": track.frame_index, "kp_2d": track.kp_2d, "bbox": track.bbox})
    page, data, _, _ = played(track)
    assert 12 in track.frame_index[jumps]
    odd = data["tracks"][0]["odd"]
    assert {12, 25, 30} <= {*odd} and not {0, 5, 34, 38} & {*odd}
    assert "1 gap" in page.main.of_class("why")[0].text
    assert "joints outside the crop in 10 frames" in page.main.of_class("why")[0].text


def test_a_frame_that_cannot_be_decoded_is_named(played, tmp_path):
    track = made(tmp_path, 4)
    (tmp_path / "f/000002.jpg").unlink()
    page, _, clip, left_out = played(track)
    assert left_out == ["not decoded, and the frame before is shown: 2"]
    assert left_out[0] in page.header.text
    assert len(frames_in(clip)[0]) == 4


def test_a_long_clip_is_shown_in_parts(played, tmp_path, monkeypatch):
    monkeypatch.setattr(player_tracks, "LONGEST_S", 1.0)
    track = made(tmp_path, 60)  # at 25 frames a second
    _, data, clip, left_out = played(track)
    assert (data["first"], len(frames_in(clip)[0])) == (0, 25)
    assert left_out == [
        "f is 2 s long: the page has seconds 0 to 1. `show --start SECONDS` has other parts"
    ]
    _, data, clip, _ = played(track, start_s=2)
    assert (data["first"], len(frames_in(clip)[0])) == (50, 10)
    assert numbers(data["tracks"][0]["frames"], "<i4").tolist() == [*range(10)]
    with pipeline_refuses(r"--start 3: the clip ends after 2\.4 s"):
        played(track, start_s=3)


def test_the_video_of_a_busy_clip_has_no_more_bytes_than_a_page_takes(
    played, tmp_path, monkeypatch
):
    monkeypatch.setattr(player_video, "BYTES", 150_000)
    track = made(tmp_path, 150, size=(320, 200))
    rng = np.random.default_rng(0)
    for number in range(150):
        noise = rng.integers(0, 256, (200, 320, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"f/{number:06d}.jpg"), noise)
    _, _, clip, _ = played(track)
    assert len(frames_in(clip)[0]) == 150
    assert len(base64.b64decode(clip.partition(",")[2])) < 1.2 * 150_000


def test_a_part_ends_before_labels_fill_the_page(played, tmp_path, monkeypatch):
    monkeypatch.setattr(player_tracks, "LABEL_BYTES", 10 * (4 + 8 + 5 * len(AT)))
    track = made(tmp_path, 60)
    _, data, _, left_out = played(track)
    assert len(numbers(data["ticks"], "<i4")) == 9
    assert "`show --start SECONDS` has other parts" in left_out[0]


def test_of_a_crowd_the_worst_are_shown(played, tmp_path, monkeypatch):
    monkeypatch.setattr(player_tracks, "MOST_PEOPLE", 2)
    track = made(tmp_path, 12)
    everything = np.full((12, 49, 3), (300, 200, 1), np.float32)
    people = [replace(track, name=f"f/{k}", kp_2d=everything) for k in range(3)]
    people[2] = replace(track, name="f/2")  # three joints: bad
    later = replace(made(tmp_path, 24), name="f/3").take(np.arange(12, 24), ())
    _, data, _, left_out = played(*people, later)
    assert sorted(track["name"] for track in data["tracks"]) == ["0", "2", "3"]
    assert "3 of 4 tracks: the worst, at most 2 in a frame" in left_out[0]


@pytest.mark.parametrize(("size", "expected"), [((2000, 1000), (960, 480)), ((90, 51), (90, 50))])
def test_the_picture_is_at_most_960_wide_and_never_enlarged(played, tmp_path, size, expected):
    _, data, clip, _ = played(made(tmp_path, 2, size=size))
    assert (data["width"], data["height"]) == expected
    assert frames_in(clip)[0][0].shape == (*expected[::-1], 3)


def test_bodies_are_the_lower_half_of_the_picture(played, tmp_path):
    track = made(tmp_path, 3)
    _, data, clip, _ = played(track, paint=lambda _, image: 255 - image)
    assert data["has_bodies"]
    for image in frames_in(clip)[0]:
        upper, lower = np.split(image, 2)
        assert upper.shape == (400, 640, 3)
        assert upper.mean() == pytest.approx(90, abs=3)
        assert lower.mean() == pytest.approx(165, abs=3)


def test_the_worst_video_of_a_cache_is_played_or_the_one_that_is_named(types, tmp_path):
    write_clips(tmp_path / "raw", a_good=0, b_bad=30, c_good=0)
    types("convert videos/train --raw RAW --cache CACHE")
    shows = "show videos/train --cache CACHE --out TMP/page.html"
    types(shows, "1 track of b_bad.mp4", "Another video: --video NAME")
    page = Page((tmp_path / "page.html").read_text())
    assert page.root.all("title")[0].text == "videos/train/b_bad.mp4"
    # and it is among the worst two
    of_two = from_cache(tmp_path / "cache", "videos/train", n_tracks=2)
    assert [track.record.name for track in of_two.tracks] == ["a_good.mp4/0", "b_bad.mp4/0"]
    of_one = from_cache(tmp_path / "cache", "videos/train", n_tracks=1)
    assert [track.record.name for track in of_one.tracks] == ["b_bad.mp4/0"]
    told = types(f"{shows} --video c_good.mp4", "1 track of c_good.mp4")
    assert "Another video" not in told
    line = Page((tmp_path / "page.html").read_text()).main.of_class("leave-out")[0].text
    assert line.startswith("leave_out videos/train/c_good.mp4/0 @0:36,60,55 # doubtful: ")


def test_tracks_without_images_are_refused_with_what_to_do(tmp_path):
    track = made(tmp_path, 3, frames=None)
    with pipeline_refuses("has no images"):
        write_player(shown_split(tmp_path, shown(track)), tmp_path / "page.html")


def test_a_picture_folder_s_rows_several_frames_apart_give_the_frames_between_none(
    played, tmp_path
):
    track = made(tmp_path, 9, frames=Pictures(tmp_path, "f/{:06d}.jpg"))
    _, data, clip, left_out = played(track.take(np.array([1, 4, 7]), ()))
    assert (data["first"], data["step"], left_out) == (1, 3, [])
    assert len(frames_in(clip)[0]) == 3
    assert numbers(data["ticks"], "<i4").tolist() == [0, 10800, 21600]  # 3 / 25 s
