import functools
from pathlib import Path

import numpy as np
import pytest

from pipeline import datasets
from pipeline.testing import datasets as contract
from tests.pipeline.datasets.by_hand import (
    jpeg,
    read_one,
    require,
    standing,
    write_json,
    write_video,
)
from tests.pipeline.datasets.made_insta_variety import PICTURE, clip, put, write

INSTA = datasets.get("insta_variety")
# DATASETS.md: the 14 of xys, the 5 of face_pts, the 6 of toe_pts
BODY = [
    "RHeel", "RKnee", "RHip", "LHip", "LKnee", "LHeel", "RWrist", "RElbow", "RShoulder",
    "LShoulder", "LElbow", "LWrist", "Neck", "headtop",
]  # fmt: skip
FACE = ["Nose", "LEye", "REye", "LEar", "REar"]
TOES = ["LBigToe", "RBigToe", "LSmallToe", "RSmallToe", "LAnkle", "RAnkle"]


read = functools.partial(read_one, INSTA)


@pytest.mark.promise("problems of InstaVariety")
def test_with_phis_coordinates_are_fractions_of_each_picture(tmp_path):
    sizes = [(224, 224), (300, 200), (200, 100)]
    xys = np.ones((3, 2, 14))
    xys[:, :, :4] = [[-1, 1, 0, 0.5], [-1, 1, 0, -0.25]]
    pictures = [jpeg(*size) for size in sizes]
    write(tmp_path, clip(image__xys=xys, image__encoded=pictures, image__phis=np.zeros((3, 2048))))
    (track,), _ = read(tmp_path)
    for kp_2d, (width, height) in zip(track.kp_2d, sizes, strict=True):
        corners = [[0, 0], [width, height], [width / 2, height / 2], [0.75 * width, 0.375 * height]]
        np.testing.assert_allclose(kp_2d[put(BODY[:4]), :2], corners)
    np.testing.assert_array_equal(
        track.bbox, [[112, 112, 224, 224], [150, 100, 300, 300], [100, 50, 200, 200]]
    )


@pytest.mark.parametrize("phis", [None, np.zeros((3, 2048))])
@pytest.mark.parametrize(
    ("key", "stored", "names"),
    [("toe_pts", None, TOES), ("toe_pts", np.zeros(0), TOES), ("face_pts", None, FACE)],
)
def test_without_toes_or_a_face_those_joints_are_zero(tmp_path, key, stored, names, phis):
    write(tmp_path, clip(**{f"image__{key}": stored}, image__phis=phis))
    (track,), account = read(tmp_path)
    # not the centre of the picture, which 0 is in fractions of it
    assert not track.kp_2d[:, put(names)].any()
    assert track.kp_2d[..., 2].sum() == 3 * (25 - len(names))
    assert account["notes"] == [f"no image/{key}: {len(names)} joints are not annotated"]


def test_frames_without_a_visible_joint_are_dropped_and_counted(tmp_path):
    features = clip(4)
    features["image/visibilities"][2] = 0
    for key in ("image/face_pts", "image/toe_pts"):
        features[key][2, 2] = 0
    write(tmp_path, features)
    require(read(tmp_path), [[0, 1, 3]], {"no_visible_joint": 1})
    nothing = np.zeros((3, 14), np.int64)
    write(tmp_path, clip(image__visibilities=nothing, image__face_pts=None, image__toe_pts=None))
    found = read(tmp_path)
    require(found, [], {"no_visible_joint": 3})
    assert found[1]["tracks_dropped"] == {"no_frame_left": 1}


@pytest.mark.parametrize(
    ("value", "phis"), [(np.nan, None), (-np.inf, np.zeros((3, 2048))), (1e30, None)]
)
def test_visibility_is_the_confidence_from_0_to_1_and_a_joint_that_is_nowhere_is_not_seen(
    tmp_path, value, phis
):
    features = clip(image__phis=phis)
    features["image/visibilities"][:, :4] = [0, 1, 2, -1]
    features["image/face_pts"][:, 2] = [0, 0.25, 1.5, -0.5, 1]
    features["image/xys"][1, 0, 7] = value
    features["image/toe_pts"][2, 2, 3] = value
    write(tmp_path, features)
    (track,) = require(read(tmp_path), notes=["2 joints are not finite: not used"])
    np.testing.assert_array_equal(track.kp_2d[0, put(BODY[:4]), 2], [0, 1, 1, 0])
    np.testing.assert_array_equal(track.kp_2d[0, put(FACE), 2], [0, 0.25, 1, 0, 1])
    assert np.isfinite(track.kp_2d).all()
    assert not track.kp_2d[1, put(BODY)[7]].any()
    assert not track.kp_2d[2, put(TOES)[3]].any()
    # of 25 joints, and none that is never annotated
    assert track.kp_2d[..., 2].sum() == 3 * (12 + 2.25 + 6) - 2


@pytest.mark.parametrize(
    ("labelled", "pictures", "dropped"),
    [
        (5, [PICTURE] * 3, {"no_picture": 2}),
        (3, [PICTURE] * 5, {}),
        (3, None, {"no_picture": 3}),
        (3, [b"", b"", b"", PICTURE], {"no_picture": 3}),
        (3, [b"no picture", b"", b"\xff\xd8\xff"], {"no_picture": 3}),
    ],
)
def test_labels_and_pictures_are_used_as_far_as_both_go(tmp_path, labelled, pictures, dropped):
    write(tmp_path, clip(labelled, image__encoded=pictures))
    has_none = dropped == {"no_picture": 3}
    frames = [] if has_none else [range(3)]
    found = read(tmp_path)
    require(found, frames, dropped, refused="no_picture" if has_none else "")
    if not has_none:
        n = len(pictures)
        assert found[1]["notes"] == [
            f"{labelled} frames are labelled, {n} pictures are there: 3 used"
        ]


def test_a_picture_that_does_not_say_its_size_costs_its_frame_and_shifts_nothing(tmp_path):
    write(tmp_path, clip(5, image__encoded=[b"", PICTURE, b"<html>", PICTURE, PICTURE[:-9]]))
    notes = ["2 pictures cannot be read, the first: picture 0 is empty (0 bytes)"]
    (track,) = require(read(tmp_path), [[1, 3, 4]], {"no_picture": 2}, notes)
    kinds = [frame.kind for frame in track.frames.read(track.frame_index)]
    assert kinds == ["", "", "picture_truncated"]
    np.testing.assert_array_equal(track.kp_2d[:, put(BODY)[0], 0], [2, 4, 5])


def test_a_listing_names_every_record_by_split_shard_and_number(tmp_path):
    for shard in ("b", "a", "a-1"):
        write(tmp_path, clip(1), clip(2), shard=shard)
    write(tmp_path, clip(1), shard="a", split="test")  # shards of two splits may have one name
    (tmp_path / "train/._a.tfrecord").write_bytes(b"of a Mac")
    (tmp_path / "train/readme.txt").touch()
    videos = INSTA.videos(tmp_path, "train")
    assert [v.name for v in videos] == sorted(
        f"train/{shard}/0000{i}" for shard in ("a", "b", "a-1") for i in (0, 1)
    )
    size = (tmp_path / "train/b.tfrecord").stat().st_size
    first, second = videos[-2:]
    assert first.files == second.files == (Path("train/b.tfrecord"),)
    assert first.span is not None
    assert first.span[0] == 0
    assert second.span == (first.span[1], size)
    assert [video.name for video in INSTA.videos(tmp_path, "test")] == ["test/a/00000"]


@pytest.mark.promise("problems of InstaVariety")
def test_one_changed_record_is_read_again_and_the_others_are_not(tmp_path, into):
    file = write(tmp_path / "raw", clip(1), clip(2), clip(3))
    into.convert(tmp_path / "cache", tmp_path / "raw", "insta_variety")
    start, _ = INSTA.videos(tmp_path / "raw", "train")[1].span
    damaged = bytearray(file.read_bytes())
    damaged[start + 300] ^= 1
    file.write_bytes(damaged)
    done = into.convert(tmp_path / "cache", tmp_path / "raw", "insta_variety").document
    assert (done["read"], [*done["kept"]["unusable"]]) == (1, ["train/clips_00/00001"])
    assert "record_damaged" in done["kept"]["unusable"]["train/clips_00/00001"]
    rows = into.rows(tmp_path / "cache", "insta_variety/train", "frame_index")
    assert rows.keys() == {f"train/clips_00/0000{number}/0" for number in range(3)}, "its rows stay"


@pytest.mark.promise("problems of InstaVariety")
def test_videos_of_the_list_are_read_with_keypoints_of_one_s_own(tmp_path):
    write_video(tmp_path / "train/dance/B1.mp4", 50, 30.0, step=0)
    joints = standing("coco", 80, 60)
    frames = [{"keypoints": joints[:, :2].tolist(), "keypoint_scores": joints[:, 2].tolist()}]
    labels = [{"frame_id": t, "instances": frames} for t in range(50)]
    write_json(tmp_path / "keypoints/train/dance/B1.mp4.json", labels)
    assert contract.reader_problems(INSTA, tmp_path, "train") == []
    (track,) = INSTA.tracks(tmp_path, "train")
    assert (track.name, len(track.frame_index), track.fps) == ("train/dance/B1.mp4/0", 50, 30)
