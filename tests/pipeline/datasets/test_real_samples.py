"""Genuine files in official formats, where they are at hand: they are not part of the project (see
their licences).
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.files.pixels.frames import Video
from pipeline.testing.datasets import reader_problems
from pipeline.track import Track
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
Read = tuple[dict[str, Track], dict[str, Accounting]]
JOINTS_13 = [38, 34, 33, 35, 32, 36, 31, 28, 27, 29, 26, 30, 25]


@pytest.fixture(scope="module")
def penn(tmp_path_factory: pytest.TempPathFactory) -> Read:
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
def test_penn_labels_are_read_as_they_are(penn: Read, name: str) -> None:
    tracks, reports = penn
    split, n_labels, kept, stored = PENN[name]
    label = loadmat(SAMPLES / f"penn_action/labels/{name}.mat")
    assert label["x"].dtype == stored
    account = reports[split].video(name)
    assert (account.found, account.kept, account.notes) == (n_labels, kept, [])
    other = reports["train" if split == "test" else "test"].video(name)
    assert (other.found, other.other_split) == (0, True)
    track = tracks[name]
    rows = track.frame_index
    x, y, visible = (label[key].astype(float)[rows] for key in ("x", "y", "visibility"))
    np.testing.assert_array_equal(track.kp_2d[:, JOINTS_13, 0], x.astype(np.float32))
    np.testing.assert_array_equal(track.kp_2d[:, JOINTS_13, 2], visible > 0)
    i = len(rows) // 2
    seen = visible[i] > 0
    low, high = (
        np.array([x[i, seen].min(), y[i, seen].min()]),
        np.array([x[i, seen].max(), y[i, seen].max()]),
    )
    np.testing.assert_allclose(
        track.bbox[i], [*(low + high) / 2, *[(high - low).max()] * 2], rtol=1e-6
    )


def test_penns_quirks_are_counted_by_reason(penn: Read) -> None:
    _, reports = penn
    assert reports["test"].video("0623").dropped == {"no_visible_joint": 74, "degenerate_box": 79}
    assert reports["test"].video("0374").dropped == {"degenerate_box": 5}


def test_an_amass_motion_of_601_frames_at_120_hz_gives_126(tmp_path: Path) -> None:
    file = tmp_path / "TotalCapture/s1/sample_poses.npz"
    file.parent.mkdir(parents=True)
    shutil.copy(SAMPLES / "amass/amass_sample.npz", file)
    (track,) = datasets.get("amass").tracks(tmp_path, "train")
    assert len(track.frame_index) == 126
    assert reader_problems(datasets.get("amass"), tmp_path, "train") == []
    assert track.gender == "male"
    stored = np.load(file)
    body = [*range(66), *range(66, 69), *range(111, 114)]  # joints 0-21, 22, 37
    # every 0.2 s is a stored frame
    np.testing.assert_allclose(track.pose[::5], stored["poses"][::24, body], atol=1e-6)
    np.testing.assert_allclose(track.trans[::5], stored["trans"][::24], atol=1e-6)
    # Between stored frames the pose lies between its neighbours.
    step = np.abs(np.diff(track.pose.reshape(126, 24, 3), axis=0)).max()
    assert step < 0.6


def test_a_detectors_crowd_is_linked_into_people(tmp_path: Path) -> None:
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
def test_the_edit_list_of_a_clip_with_b_frames_hides_nothing(name: str) -> None:
    video = Video(SAMPLES / "kinetics/clips", name)
    # frames are shown in another order than they are decoded
    assert b"ctts" in video.place.read_bytes()
    assert video.record().n_hidden == 0
    assert video.count_frames() == video.header().n_frames


@pytest.mark.slow
def test_openposes_own_output_goes_through_linking_and_cleaning_as_videos(tmp_path: Path) -> None:
    (tmp_path / "keypoints").mkdir()
    (tmp_path / "video.avi").symlink_to(SAMPLES / "openpose/video.avi")
    (tmp_path / "keypoints/video").symlink_to(SAMPLES / "openpose/json")
    tracks, account = read_one(datasets.get("videos"), tmp_path)
    assert (account["found"], account["kept"]) == (551, 337)
    assert sorted(len(track.frame_index) for track in tracks) == [41, 74, 74, 74, 74]


@pytest.mark.parametrize(
    ("name", "cuts"), {"mmaction2_demo_arm_wrestling": [268], "stgcn_ta_chi": []}.items()
)
def test_real_clips_are_decoded_linked_and_cleaned(
    name: str, cuts: list[int], tmp_path: Path
) -> None:
    # No detections of these clips are at hand: a real detector's on another video stand in, scaled
    # to their size.
    (tmp_path / f"{name}.mp4").symlink_to(SAMPLES / f"kinetics/clips/{name}.mp4")
    folder = tmp_path / "keypoints" / name
    folder.mkdir(parents=True)
    shift = 220  # frames: over the cut of the first clip
    for t, file in enumerate(sorted((SAMPLES / "openpose/json").glob("*.json"))[:60]):
        people = json.loads(file.read_text())["people"]
        joints = [
            np.reshape(person["pose_keypoints_2d"], (-1, 3)) * [340 / 1280, 256 / 720, 1]
            for person in people
        ]
        content = {
            "people": [{"pose_keypoints_2d": numbers.ravel().tolist()} for numbers in joints]
        }
        (folder / f"{name}_{shift + t:012d}_keypoints.json").write_text(json.dumps(content))
    tracks, account = read_one(datasets.get("videos"), tmp_path)
    assert (len(tracks) >= 4, account["kept"]) == (
        True,
        sum(len(track.frame_index) for track in tracks),
    )
    assert any("2 scenes, from the frames 0, 268" in note for note in account["notes"]) == bool(
        cuts
    )
    for track in tracks:
        assert not any(track.frame_index[0] < cut <= track.frame_index[-1] for cut in cuts)
