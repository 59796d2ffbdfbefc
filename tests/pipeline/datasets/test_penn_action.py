import functools
from pathlib import Path

import numpy as np
import pytest

from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.skeletons import JOINTS
from tests.pipeline.datasets.by_hand import jpeg, read_one, refusal
from tests.pipeline.datasets.made_penn_action import write_video

PENN = datasets.get("penn_action")
# headtop, lshoulder, rshoulder, ... rankle
INTO_SPIN49 = [38, 34, 33, 35, 32, 36, 31, 28, 27, 29, 26, 30, 25]


read = functools.partial(read_one, PENN)


@pytest.mark.parametrize("stored", [np.uint8, np.uint16, np.int32, np.float32])
def test_visibility_decides_and_not_the_coordinates_which_do_not_wrap(tmp_path, stored):
    falling = np.tile(np.linspace(250, 10, 13).astype(int), (3, 1))  # differences are negative
    visibility = np.ones((3, 13), np.uint8)
    visibility[1, 12] = 0  # rankle, the lowest and leftmost
    write_video(
        tmp_path, x=falling.astype(stored), y=falling.astype(np.uint8), visibility=visibility
    )
    (track,), _ = read(tmp_path)
    assert track.kp_2d[:, JOINTS["spin49"].index("rankle"), 2].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(track.bbox[:2], [[130, 130, 240, 240], [140, 140, 220, 220]])


def test_train_decides_the_split_and_pictures_without_a_label_are_told(tmp_path):
    for name, train in (("0010", -1), ("0002", 1)):
        write_video(tmp_path, name, train=train)
    (tmp_path / "frames/.DS_Store").touch()
    (tmp_path / "labels/readme.mat").touch()
    first, second = PENN.videos(tmp_path, "train")
    assert (first.name, second.name) == ("0002", "0010")
    assert (first.files, first.folders) == ((Path("labels/0002.mat"),), (Path("frames/0002"),))
    assert [t.video for split in ("train", "test") for t in PENN.tracks(tmp_path, split)] == [
        "0002",
        "0010",
    ]
    (tmp_path / "labels/0010.mat").unlink()
    report = Accounting()
    assert list(PENN.tracks(tmp_path, "test", report=report)) == []
    other, missing = report.video("0002"), report.video("0010")
    assert (other.found, other.other_split, other.set_aside, missing.set_aside) == (
        0,
        True,
        "",
        "no_label",
    )


def test_frames_without_joints_or_box_are_dropped_and_shift_nothing(tmp_path):
    visibility = np.ones((6, 13), np.uint8)
    visibility[1] = 0
    visibility[2, 1:] = 0  # one joint: no extent
    label = write_video(tmp_path, n_frames=6, visibility=visibility)
    (track,), account = read(tmp_path)
    assert track.frame_index.tolist() == [0, 3, 4, 5]
    np.testing.assert_array_equal(track.kp_2d[:, 38, 0], label["x"][[0, 3, 4, 5], 0])
    assert account["dropped"] == {"no_visible_joint": 1, "degenerate_box": 1}
    assert (account["found"], account["kept"]) == (6, 4)
    assert track.frames.path(4).name == "000005.jpg"


@pytest.mark.parametrize(
    # of a joint in a picture of 480 x 270, counted from 1, rounding forgiven
    ("x", "y", "seen", "told"),
    [(0, 0, 1, 0), (481, 271, 1, 0), (-0.5, 9, 1, 1), (9, 271.5, 1, 1), (-9, 9, 0, 0)],
)
def test_a_visible_joint_outside_the_picture_is_told(x, y, seen, told, tmp_path):
    label = write_video(tmp_path, n_frames=2)
    for key, value in (("x", x), ("y", y), ("visibility", seen)):
        label[key][1, 5] = value
    write_video(tmp_path, n_frames=2, **label)
    _, account = read(tmp_path)
    assert account["kept"] == 2
    assert account["notes"] == ["1 visible joints are outside the 480 x 270 picture"] * told


@pytest.mark.parametrize(("width", "reason"), [(480, ""), (240, "keypoints_outside")])
def test_labels_beyond_the_release_s_own_pictures_are_noted_and_of_resized_ones_refused(
    width, reason, tmp_path
):
    label = write_video(tmp_path, n_frames=9)
    # as of 1021: of a larger picture
    write_video(tmp_path, n_frames=9, x=label["x"] * 4 + 200, y=label["y"] * 2)
    for t in range(9):
        (tmp_path / f"frames/0001/{t + 1:06d}.jpg").write_bytes(jpeg(width, width * 9 // 16))
    _, account = read(tmp_path)
    assert (account["set_aside"], account["kept"]) == (reason, 0 if reason else 9)
    assert "visible joints are outside the 480 x 270 picture" in account["notes"][0]
    assert not reason or account["message"].endswith(
        "own frames for its labels, without resizing them."
    )


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"nframes": np.nan}, "nframes holds [nan]"),
        ({"dimensions": np.array([270, 480])}, "'dimensions': expected numbers of shape (3)"),
        ({"nframes": np.uint8(9)}, "nframes is 9, 3 frames are labelled"),
        (
            {"dimensions": np.array([200, 480, 3], np.uint16)},
            "6 visible joints are outside the 480 x 200 picture",
        ),
    ],
)
def test_what_decides_nothing_never_costs_its_video(tmp_path, changes, note):
    write_video(tmp_path, **changes)
    (track,), account = read(tmp_path)
    assert track.frame_index.tolist() == [0, 1, 2]
    assert (account["kept"], account["set_aside"]) == (3, "")
    (told,) = account["notes"]
    assert note in told


@pytest.mark.parametrize("scale", [0.001, 0.01])
def test_joints_in_metres_or_shares_of_the_image_are_in_another_unit(scale, tmp_path):
    i, j = np.mgrid[:20, :13]
    joints = {"x": scale * (10.0 * j + i + 1), "y": scale * (20.0 * j + 1)}
    write_video(tmp_path, n_frames=20, nframes=np.uint8(20), **joints)
    error = refusal(PENN, tmp_path)
    assert error.reason in ("other_unit", "keypoints_outside")
    assert "metres" in str(error) or "smaller than a pixel" in str(error)
