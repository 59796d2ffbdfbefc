from pathlib import Path

import numpy as np
import pytest

from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.people.skeletons import JOINTS
from tests.pipeline.datasets.by_hand import jpeg, read_video, require, touch
from tests.pipeline.datasets.contract import ANOTHER_START, HALF, RENUMBERED, SHIFTED, ImageFolders
from tests.pipeline.datasets.label_files import edit_labels

PENN = datasets.get("penn_action")
VIDEO = "0001"  # of 8 frames, 480 x 270 px
LABELS = "labels/0001.mat"


@pytest.fixture
def raw(embedded, tmp_path):
    return embedded.copy("penn_action", tmp_path / "penn_action")


def read(raw):
    return read_video(PENN, raw, "train", VIDEO)


def place(labels, scale=1):
    """Joint j of frame i at (10 j + i + 1, 20 j + 1), all visible."""
    i, j = np.mgrid[:8, :13]
    joints = {"x": scale * (10.0 * j + i + 1), "y": scale * (20.0 * j + 1)}
    return labels | joints | {"visibility": np.ones((8, 13), np.uint8)}


@pytest.mark.parametrize("stored", [np.uint8, np.uint16, np.int32, np.float32])
def test_visibility_decides_and_not_the_coordinates_which_do_not_wrap(raw, stored):
    falling = np.tile(np.linspace(250, 10, 13).astype(int), (8, 1))  # differences are negative

    def change(labels):
        labels = place(labels) | {"x": falling.astype(stored), "y": falling.astype(np.uint8)}
        labels["visibility"][1, 12] = 0  # rankle, the lowest and leftmost
        return labels

    edit_labels(raw / LABELS, change)
    (track,), _ = read(raw)
    assert track.kp_2d[:3, JOINTS["spin49"].index("rankle"), 2].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(track.bbox[:2], [[130, 130, 240, 240], [140, 140, 220, 220]])


@pytest.mark.promise("problems of Penn Action")
def test_train_decides_the_split_and_pictures_without_a_label_are_told(raw):
    touch(raw / "frames", ".DS_Store")
    touch(raw / "labels", "readme.mat")
    first, *others = PENN.videos(raw, "train")
    assert [video.name for video in (first, *others)] == [f"000{k}" for k in range(1, 7)]
    assert (first.files, first.folders) == ((Path(LABELS),), (Path("frames/0001"),))
    for split, expected in (
        ("train", ["0001", "0003", "0005"]),
        ("test", ["0002", "0004", "0006"]),
    ):
        report = Accounting()
        assert [track.video for track in PENN.tracks(raw, split, report=report)] == expected
        other_split = [account for account in report if account.other_split]
        assert [(account.found, account.set_aside) for account in other_split] == [(0, "")] * 3
    (raw / LABELS).unlink()
    require(read(raw), [], refused="no_label")


def hide(labels):
    labels["visibility"][:] = 1
    labels["visibility"][1] = 0
    labels["visibility"][2, 1:] = 0  # one joint: no extent


def outside(x, y, seen=1):
    """Of a joint in a picture of 480 x 270, counted from 1, rounding forgiven."""

    def change(labels):
        labels = place(labels)
        for key, value in (("x", x), ("y", y), ("visibility", seen)):
            labels[key][1, 5] = value
        return labels

    return change


def set_to(**changed):
    return lambda labels: place(labels) | changed


OUTSIDE = "1 visible joints are outside the 480 x 270 picture"
CHANGES = [  # of the labels; frames, reasons of dropped ones, notes
    (hide, [0, *range(3, 8)], {"no_visible_joint": 1, "degenerate_box": 1}, []),
    (outside(0, 0), range(8), {}, []),
    (outside(481, 271), range(8), {}, []),
    (outside(-0.5, 9), range(8), {}, [OUTSIDE]),
    (outside(9, 271.5), range(8), {}, [OUTSIDE]),
    (outside(-9, 9, seen=0), range(8), {}, []),
    (set_to(nframes=np.nan), range(8), {}, ["nframes holds [nan]"]),
    (set_to(nframes=np.uint8(9)), range(8), {}, ["nframes is 9, 8 frames are labelled"]),
    (set_to(dimensions=np.array([270, 480])), range(8), {}, ["'dimensions': expected numbers"]),
    (
        set_to(dimensions=np.array([200, 480, 8], np.uint16)),
        range(8),
        {},
        ["16 visible joints are outside the 480 x 200 picture"],
    ),
]


@pytest.mark.parametrize(("change", "frames", "dropped", "notes"), CHANGES)
def test_a_change_of_the_labels_costs_its_frames_alone_or_is_told(
    change, frames, dropped, notes, raw
):
    edit_labels(raw / LABELS, change)
    (track,) = require(read(raw), [frames], dropped, notes)
    assert track.frames.path(4).name == "000005.jpg"


@pytest.mark.parametrize(("width", "reason"), [(480, ""), (240, "keypoints_outside")])
def test_labels_beyond_the_release_s_own_pictures_are_noted_and_of_resized_ones_refused(
    width, reason, raw
):
    def change(labels):  # as of 1021: of a larger picture
        labels = place(labels)
        return labels | {"x": labels["x"] * 4 + 200, "y": labels["y"] * 2}

    edit_labels(raw / LABELS, change)
    for file in (raw / "frames/0001").iterdir():
        file.write_bytes(jpeg(width, width * 9 // 16))
    words = "visible joints are outside the 480 x 270 picture"
    require(read(raw), notes=[words], refused=reason)


@pytest.mark.parametrize("scale", [0.001, 0.01])
def test_joints_in_metres_or_shares_of_the_image_are_in_another_unit(scale, raw):
    edit_labels(raw / LABELS, lambda labels: place(labels, scale))
    _, account = read(raw)
    assert account["set_aside"] in ("other_unit", "keypoints_outside")
    assert "metres" in account["message"] or "smaller than a pixel" in account["message"]


class TestPennAction(ImageFolders):
    dataset, video, images, first = "penn_action", "0001", "frames/0001", 1
    # may have images after the last label: so one at the start leaves no trace
    refused = frozenset(ANOTHER_START | {RENUMBERED, HALF})
    undecided = frozenset({SHIFTED})
