"""Genuine files in official formats, where they are at hand: they are not part of the project (see
their licences).
"""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import loadmat

from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.files.pixels.frames import Video
from pipeline.testing.datasets import reader_problems
from tests.pipeline.datasets.by_hand import read_one, touch

SAMPLES = Path(__file__).parents[3].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="the real samples are not beside the checkout"
)

# name: split, frames, kept, stored type of x
PENN = {
    "0002": ("train", 80, 80, "float64"),
    "0025": ("test", 110, 110, "float64"),
    "0100": ("train", 97, 97, "uint16"),
    "0374": ("test", 47, 42, "float64"),
    "0623": ("test", 564, 411, "float64"),
    "1825": ("test", 82, 72, "uint8"),
}
JOINTS_13 = [38, 34, 33, 35, 32, 36, 31, 28, 27, 29, 26, 30, 25]


@pytest.fixture(scope="module")
def penn(tmp_path_factory):
    """The tracks of the official labels with empty picture files beside them, and both splits'
    accounts.
    """
    raw = tmp_path_factory.mktemp("penn_action")
    shutil.copytree(SAMPLES / "penn_action/labels", raw / "labels")
    for name, (_, n_pictures, _, _) in PENN.items():
        touch(raw / "frames" / name, *map("{:06d}.jpg".format, range(1, n_pictures + 1)))
    tracks, reports = {}, {}
    for split in ("train", "test"):
        reports[split] = Accounting()
        for track in datasets.get("penn_action").tracks(raw, split, report=reports[split]):
            tracks[track.video] = track
    return tracks, reports


@pytest.mark.parametrize("name", PENN)
def test_penn_labels_are_read_as_they_are(penn, name):
    tracks, reports = penn
    split, n_labels, kept, stored = PENN[name]
    label = loadmat(SAMPLES / f"penn_action/labels/{name}.mat")
    assert label["x"].dtype == stored
    account = reports[split].video(name)
    assert (account.found, account.kept, account.notes) == (n_labels, kept, [])
    track = tracks[name]
    x = label["x"][track.frame_index].astype(np.float32)
    np.testing.assert_array_equal(track.kp_2d[:, JOINTS_13, 0], x)


def test_penns_quirks_are_counted_by_reason(penn):
    _, reports = penn
    assert reports["test"].video("0623").dropped == {"no_visible_joint": 74, "degenerate_box": 79}
    assert reports["test"].video("0374").dropped == {"degenerate_box": 5}


def test_an_amass_motion_of_601_frames_at_120_hz_gives_126(tmp_path):
    file = tmp_path / "TotalCapture/s1/sample_poses.npz"
    file.parent.mkdir(parents=True)
    shutil.copy(SAMPLES / "amass/amass_sample.npz", file)
    (track,) = datasets.get("amass").tracks(tmp_path, "train")
    assert len(track.frame_index) == 126
    assert reader_problems(datasets.get("amass"), tmp_path, "train") == []
    assert track.gender == "male"
    stored = np.load(file)
    # every 0.2 s is a stored frame
    np.testing.assert_allclose(track.pose[::5, :66], stored["poses"][::24, :66], atol=1e-6)
    np.testing.assert_allclose(track.trans[::5], stored["trans"][::24], atol=1e-6)


def test_posetracks_regions_to_ignore_tell_images_at_nine_tenths_of_their_size(tmp_path):
    """The release's files state no size; it was added to the sample's."""
    shutil.copytree(SAMPLES / "posetrack", tmp_path / "posetrack")
    (labels,) = tmp_path.rglob("*.json")
    (file,) = tmp_path.rglob("*.jpg")
    content = json.loads(labels.read_text())
    for listed in content["images"]:
        del listed["width"], listed["height"]
    labels.write_text(json.dumps(content))
    whole = cv2.imread(str(file))
    for share, reason in ((1, ""), (0.9, "other_picture_size")):
        cv2.imwrite(str(file), cv2.resize(whole, None, fx=share, fy=share))
        found = read_one(datasets.get("posetrack"), tmp_path / "posetrack", "val")
        assert found[1]["set_aside"] == reason
        assert ("expected 1919 x 1078 px" in found[1]["message"]) == bool(reason)


def test_a_detectors_crowd_is_linked_into_people(tmp_path):
    for place, sample in (
        ("train/walking/video.avi", "video.avi"),
        ("keypoints/train/video", "json"),
    ):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).symlink_to(SAMPLES / "openpose" / sample)
    tracks, account = read_one(datasets.get("kinetics"), tmp_path)
    assert account["found"] == 551
    whole = [track for track in tracks if len(track.frame_index) == 74]
    assert len(whole) == 4  # four people are seen all the time
    assert {track.fps for track in tracks} == {50.0}
    for track in whole:
        centre = track.bbox[:, :2]
        assert np.linalg.norm(np.diff(centre, axis=0), axis=1).max() < 12  # nobody leaps
        seen = track.kp_2d[..., 2] > 0
        neck = track.kp_2d[:, 1][seen[:, 1]]
        assert np.linalg.norm(np.diff(neck[:, :2], axis=0), axis=1).max() < 40


@pytest.mark.parametrize("name", ["mmaction2_demo_arm_wrestling.mp4", "stgcn_ta_chi.mp4"])
def test_the_edit_list_of_a_clip_with_b_frames_hides_nothing(name):
    video = Video(SAMPLES / "kinetics/clips", name)
    # frames are shown in another order than they are decoded
    assert b"ctts" in video.place.read_bytes()
    assert video.record().n_hidden == 0
    assert video.count_frames() == video.header().n_frames
