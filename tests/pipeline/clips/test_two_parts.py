"""`--every N`: a detector of two parts, whose people are bright bars, counts the images that each
part sees.

And the camera's motion in the files of `detect`: a view that moves over noise by a known number of
pixels.
"""

import json
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

from pipeline.clips.decoders import ClipDecoding
from pipeline.clips.detectors.rtmpose import RTMPose
from pipeline.clips.detectors.two_parts import Boxes, Networks, TwoPartDetector, _find_people
from pipeline.clips.labels.detections import read_results
from pipeline.datasets.shared.clips.clip import _pixel_camera
from pipeline.errors import ConfigError
from pipeline.people.homography import transfer
from tests.pipeline.clips.bright import detect_clips
from tests.pipeline.datasets.by_hand import encode


@dataclass(frozen=True)
class Lights(TwoPartDetector):
    """One person where the image is bright; joints from the left to the right end of the bright
    part of a crop.
    """

    name = "lights"
    seen: ClassVar[list[int]] = [0, 0]  # images, and boxes

    def load_networks(self, device):
        def find(images):
            self.seen[0] += len(images)
            ends = [bright(image) for image in images]
            boxes = [
                np.float32([[e[0], 0, e[1] + 1, 20]] if e else []).reshape(-1, 4) for e in ends
            ]
            return [Boxes(box, np.full(len(box), 0.8, np.float32)) for box in boxes]

        def look(images, boxes):
            self.seen[1] += sum(map(len, boxes))
            pairs = zip(images, boxes, strict=True)
            return [
                np.float32([joints(image, box) for box in one]).reshape(-1, 17, 3)
                for image, one in pairs
            ]

        def joints(image, box):
            start = max(int(box[0]) - 3, 0)  # the crop has a margin of 3 px
            ends = bright(image[:, start : int(box[2]) + 3], start) or (0, 0)
            return np.column_stack(
                [np.linspace(*ends, 17), np.linspace(0, 19, 17), np.full(17, ends[1] > 0)]
            )

        def bright(image, start=0):
            x = np.flatnonzero(image[10, :, 1] > 128)
            return (start + int(x[0]), start + int(x[-1])) if len(x) else None

        return Networks(find, look)


def write_bar(file, n, cut=10**9, gone=range(0)):
    """A bright bar of 9 px that moves by 2 px a frame; from `cut` on it is 60 px to the left, on
    red.
    """
    images = [
        np.full((64, 160, 3), (0, 0, 90) if t >= cut else (90, 0, 0), np.uint8) for t in range(n)
    ]
    for t, image in enumerate(images):
        x = 70 + 2 * t - 60 * (t >= cut)
        image[:, x : x + 9 * (t not in gone)] = 255
    encode(file, images, code="FFV1")


@pytest.mark.parametrize(("every", "batch"), [(1, 4), (2, 2), (4, 1), (4, 3), (7, 10), (64, 8)])
def test_people_are_found_in_key_frames_and_followed_in_between(
    every, batch, tmp_path, monkeypatch
):
    monkeypatch.setattr(Lights, "seen", [0, 0])
    raw, keys = tmp_path / "raw", {"a": {*range(0, 30, every), 17}, "b": {*range(0, 9, every)}}
    write_bar(raw / "a.avi", 30, cut=17)
    write_bar(raw / "b.avi", 9, gone=range(5, 7))
    detect_clips(raw, tmp_path / "out", Lights(every=every), batch_size=batch)
    assert Lights.seen[0] == len(keys["a"]) + len(keys["b"])
    contents = {
        clip: json.loads((tmp_path / f"out/{clip}.avi.json").read_text())["annotations"]
        for clip in keys
    }
    at = {
        clip: {one["image_id"] - 1: one["bbox"][0] for one in people}
        for clip, people in contents.items()
    }
    assert at["a"] == {t: 70 + 2 * t - 60 * (t >= 17) for t in range(30)}
    # from the next key frame on
    back = [t for t in (7, 8) if any(7 <= key <= t for key in keys["b"])]
    assert at["b"] == {t: 70 + 2 * t for t in [*range(5), *back]}


def test_another_n_detects_again(tmp_path):
    write_bar(tmp_path / "a.avi", 5)
    assert [
        detect_clips(tmp_path, tmp_path / "out", Lights(every=n)).detected for n in (1, 1, 4, 4, 1)
    ] == [1, 0, 1, 0, 1]
    assert Lights().identity() == {}, "files from before the option stay up to date"
    assert Lights(every=4).identity() == {"every": 4, "following": 2}


@pytest.mark.parametrize("lost", [0, 1])
def test_two_people_are_not_followed_onto_one(lost):
    def at(x):
        return np.column_stack([np.linspace(x, x + 10, 17), np.linspace(0, 40, 17), np.ones(17)])

    # from frame 2 on, one finds the joints of the other
    def look(images, boxes):
        onto = [int(1 - lost if image[0, 0, 0] >= 2 else lost) for image in images]
        x = [
            [(20, 35)[to if k == lost else k] for k in range(len(one))]
            for to, one in zip(onto, boxes, strict=True)
        ]
        return [np.float32([at(one) for one in of_image]).reshape(-1, 17, 3) for of_image in x]

    boxes = np.float32([[20, 0, 30, 40], [35, 0, 45, 40]])
    networks = Networks(lambda images: [Boxes(boxes, np.float32([0.6, 0.8]))] * len(images), look)
    images = [np.full((64, 160, 3), t, np.uint8) for t in (0, 1, 2, 3, 0)]
    found = _find_people(networks, images, [True, False, False, False, True])
    scores = [[0.6, 0.8], [0.6, 0.8], [0.8], [0.8], [0.6, 0.8]]
    assert [one.scores.tolist() for one in found] == [pytest.approx(of) for of in scores]


@pytest.mark.parametrize("every", [0, 101])
def test_an_impossible_n_is_refused(every):
    with pytest.raises(ConfigError, match=f"every {every}: expected 1 to 100 frames"):
        RTMPose(every=every)


def test_a_detector_of_one_step_and_data_without_detection_refuse_it(tmp_path, types):
    (tmp_path / "raw").mkdir()
    write_bar(tmp_path / "raw/a.avi", 5)
    for command, said in {
        "detect RAW --out TMP/out --detector demo": "--every: unknown key; demo has none",
        "prepare videos --raw RAW --cache CACHE --detector none": "--every 4: no detector runs here",
    }.items():
        types(f"{command} --every 4", said, code=2)


def test_still_things_move_against_the_camera(tmp_path):
    # The view moves by 8 px a frame to the right, from frame 6 on.
    noise = np.random.default_rng(0).uniform(0, 255, (48, 112, 3)).astype(np.uint8)
    scene = cv2.resize(noise, (448, 192), interpolation=cv2.INTER_CUBIC)
    views = [scene[:, 8 * max(t - 5, 0) :][:, :320] for t in range(12)]
    encode(tmp_path / "raw/a.avi", views, code="FFV1")
    detect_clips(tmp_path / "raw", tmp_path / "out", Lights())
    camera = read_results(tmp_path / "out/a.avi.json").camera
    assert sorted(camera) == list(range(6, 12)), "none where the camera is still"
    at = np.array([[40.0, 30], [300, 150]])
    for matrix in _pixel_camera(camera, 320, 192).values():
        assert_allclose(transfer(matrix, at), at - [8, 0], atol=0.7)
    whole, begun = (ClipDecoding(tmp_path / "raw", 12)(("a.avi", start)).frames for start in (0, 8))
    assert [one.camera for one in begun] == [one.camera for one in whole[8:]], (
        "a process that begins in the clip"
    )


def test_a_clip_that_is_gone_when_another_process_goes_on_with_it_is_unreadable(tmp_path):
    decoded = ClipDecoding(tmp_path, 12)(("gone.avi", 24))
    assert decoded.ended
    assert "gone.avi" in str(decoded.problem)
