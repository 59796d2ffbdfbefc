import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.skeletons import JOINTS
from tests.pipeline.datasets import by_hand
from tests.pipeline.datasets.made_posetrack import (
    NAMES,
    POSETRACK,
    SEQ,
    annotation,
    content,
    image,
    read,
    refusal,
    write,
)

# nose, neck, headtop, lear, ...
INTO_SPIN49 = [44, 37, 38, 47, 48, 34, 33, 35, 32, 36, 31, 28, 27, 29, 26, 30, 25]
SAMPLE = Path(__file__).parents[3].parent / "shared" / "data" / "posetrack"


def test_the_order_of_the_joints_is_the_files_own_and_one_at_the_origin_is_none(tmp_path):
    annotations = [annotation(t) for t in range(10)]
    for one in annotations:
        one["keypoints"] = one["keypoints"][: 3 * 15]
    # the third number says nothing
    annotations[1]["keypoints"][:12] = [0, 0, 1, 3, 4, 0, 5, 0, 2, 0, 6, -7.5]
    labels = content(annotations)
    labels["categories"][0]["keypoints"] = NAMES[:1:-1]  # without nose and head_bottom
    write(tmp_path, labels)
    (track,), _ = read(tmp_path)
    order = INTO_SPIN49[:1:-1]
    np.testing.assert_array_equal(track.kp_2d[0, order, 0], 10 * np.arange(15) + 1)
    np.testing.assert_array_equal(
        track.kp_2d[1, order[:4]], [[0, 0, 0], [3, 4, 1], [5, 0, 1], [0, 6, 1]]
    )
    assert not track.kp_2d[:, INTO_SPIN49[:2]].any()


def test_people_are_tracks_of_one_source_and_frames_count_by_the_number_in_the_name(tmp_path):
    every = range(0, 40, 4)
    # numbers of any kind
    images = [image(t, labelled=int(t in every)) | {"id": float(t)} for t in range(40)]
    annotations = [annotation(t, k, image_id=t, track_id=float(k)) for t in every for k in (7, 3)]
    annotations += [annotation(t, 9, image_id=t) for t in every[:7]]  # under eight frames
    write(tmp_path, content(annotations[::-1], images[::-1]), pictures=range(40))
    (third, seventh), account = read(tmp_path)
    assert (third.name, seventh.name) == (f"{SEQ}/3", f"{SEQ}/7")
    assert third.frames == seventh.frames  # decoded once for both
    assert (third.frame_index.tolist(), third.step) == (list(every), 4)
    assert third.frames.path(4).name == "000004.jpg"
    np.testing.assert_array_equal(third.kp_2d[:, INTO_SPIN49[0], 0], np.array(every) + 1)
    assert seventh.kp_2d[0, INTO_SPIN49[0], 1] == 701
    assert (account["found"], account["kept"], account["dropped"]) == (
        27,
        20,
        {"track_too_short": 7},
    )
    assert account["tracks_dropped"] == {"track_too_short": 1}


def test_annotations_on_pictures_that_are_unlabelled_or_unknown_are_ignored_and_noted(tmp_path):
    images = [image(t, labelled=t < 8) for t in range(10)]
    # of two with one id the first is meant
    images += [image(3, labelled=False), image(9) | {"id": image(4)["id"]}]
    annotations = [annotation(t) for t in range(10)] + [annotation(t) for t in range(50, 53)]
    write(tmp_path, content(annotations, images))
    (track,), account = read(tmp_path)
    assert track.frame_index.tolist() == list(range(8))
    assert (account["found"], account["dropped"]) == (8, {})
    assert sorted(account["notes"]) == [
        "2 pictures have the id of an earlier one: not used",
        "5 annotations are on pictures that are not labelled, or not listed: not used",
    ]


def test_people_without_joints_or_without_a_box_are_dropped_and_counted(tmp_path):
    annotations = [annotation(t) for t in range(17)]
    annotations[0]["keypoints"] = [0, 0, 1] * 17
    annotations[1]["keypoints"] = []
    del annotations[2]["keypoints"]
    annotations[3]["bbox"] = [5, 5, 0, 0]
    annotations[4]["bbox"] = [5, 5, 30, 0]
    annotations[5]["bbox"] = [5, 5, -30, 40]
    annotations[6]["bbox"] = [5, 5, 0.5, 0.9]
    annotations[7]["bbox"] = [5, float("nan"), 30, 40]
    annotations[8]["bbox"] = []
    annotations[9]["bbox"] = [5, 5, 0.25, 1]  # narrow, and no smaller than a pixel
    boxes = [[-999999.0, -999999.0, 1e6, 1e6], [0, 0, float("inf"), 10], [1e300, 0, 10, 10]]
    annotations += [annotation(t, 1, bbox=box) for t, box in enumerate(boxes)]
    write(tmp_path, content(annotations, [image(t) for t in range(17)]), pictures=range(17))
    (track,), account = read(tmp_path)
    assert track.frame_index.tolist() == list(range(9, 17))
    assert account["dropped"] == {"no_visible_joint": 3, "degenerate_box": 6, "huge_box": 3}
    assert (account["found"], account["kept"]) == (20, 8)


def test_a_person_twice_in_a_picture_is_the_one_with_more_joints_else_the_first(tmp_path):
    worse, better = annotation(3), annotation(5, bbox=[0, 0, 10, 5])
    worse["keypoints"][:3] = [0, 0, 0]
    usual = [annotation(t) for t in range(10)]
    usual[5]["keypoints"][:3] = [0, 0, 0]
    equal = annotation(8, bbox=[0, 0, 10, 10])
    write(tmp_path, content([worse, *usual, better, equal]))
    (track,), account = read(tmp_path)
    assert account["dropped"] == {"duplicate_person": 3}
    assert (track.kp_2d[..., 2].sum(axis=1) == 17).all()
    assert track.bbox[:, 2].tolist() == [160, 160, 160, 160, 160, 8, 160, 160, 160, 160]


def test_a_sequence_without_any_labelled_image_is_refused(tmp_path):
    write(tmp_path, seq="000002_bonn_test", pictures=[])
    assert refusal(tmp_path).reason == "no_picture"
    assert read(tmp_path)[1]["dropped"] == {"no_picture": 10}


def test_most_names_decide_how_the_pictures_of_a_sequence_are_called(tmp_path):
    images = [image(t) for t in range(10)]
    for t, name in ((0, "other_mpii_test/000000"), (1, f"{SEQ}/1"), (9, f"{SEQ}/last")):
        images[t]["file_name"] = f"images/val/{name}.jpg"
    write(tmp_path, content(images=images))
    tracks, account = read(tmp_path)
    assert (tracks, account["dropped"]) == ([], {"other_file_name": 3, "track_too_short": 7})


@pytest.mark.parametrize(
    "name", ["images/val/x{:06d}.jpg", "a\n1.jpg", "\ud800/1.jpg", "x", "a/" * 9999 + "1.jpg"]
)
def test_names_that_no_pattern_can_hold_are_refused(tmp_path, name):
    write(tmp_path, content([annotation(0)], [image(0, file_name=name)]))
    assert refusal(tmp_path).reason == "bad_label_file"


def test_pictures_in_another_folder_are_used_and_told(tmp_path):
    moved = by_hand.touch(tmp_path / "images/val_v2/seq", *map("img{:03d}.png".format, range(10)))
    images = [image(t, file_name=f"images/val_v2/./seq/img{t:03d}.png") for t in range(10)]
    write(tmp_path, content(images=images))
    (track,), account = read(tmp_path)
    assert track.frames.path(3) == moved / "img003.png"
    assert account["notes"] == [
        "its pictures are in images/val_v2/seq: changes there are not noticed"
    ]


def test_annotations_lie_in_three_places_and_the_first_that_has_a_sequence_is_used_and_the_others_told(
    tmp_path,
):
    # PoseTrack21's, then 2018's
    for folder in ("posetrack_data", "annotations", "posetrack_data/annotations"):
        write(tmp_path, folder=folder)
        (video,) = POSETRACK.videos(tmp_path, "val")
        assert (video.name, video.files[0]) == (SEQ, Path(folder, "val", f"{SEQ}.json"))
        assert video.folders == (Path("images/val", SEQ),)
        assert read(tmp_path)[1]["kept"] == 10
    (tmp_path / f"annotations/val/{SEQ}.json").write_text("{")
    first, second = read(tmp_path)[1]["notes"]
    assert (
        first
        == f"annotations/val/{SEQ}.json is not used: posetrack_data/annotations/val/{SEQ}.json is"
    )
    assert (
        second == f"posetrack_data/val/{SEQ}.json is not used: "
        f"posetrack_data/annotations/val/{SEQ}.json is"
    )


def test_sequences_are_listed_in_order_with_those_that_nobody_annotated(tmp_path):
    for seq in ("000010_mpii_test", "000002_bonn_test"):
        write(tmp_path, seq=seq)
    (tmp_path / "images/val/000005_mpii_test").mkdir()
    (tmp_path / "images/val/.cache").mkdir()
    (tmp_path / "images/val/readme.txt").touch()
    (tmp_path / "posetrack_data/annotations/val/._000002_bonn_test.json").touch()
    (tmp_path / "posetrack_data/annotations/val/000099_mpii_test.json").write_text("unread")
    assert POSETRACK.splits == ("train", "val"), "nobody has keypoints in test"
    videos = POSETRACK.videos(tmp_path, "val")
    assert [video.name for video in videos] == [
        "000002_bonn_test", "000005_mpii_test", "000010_mpii_test", "000099_mpii_test",
    ]  # fmt: skip
    assert videos[1].files == ()


@pytest.mark.parametrize(
    ("annotations", "found"),
    [
        ([], 0),
        ([{"image_id": 1, "track_id": 1}], 0),
        ([annotation(t, keypoints=[]) for t in range(10)], 10),
        (None, 0),
    ],
    ids=["none", "on no picture", "without keypoints", "no such key"],
)
def test_a_file_in_which_nobody_has_keypoints_is_no_error(tmp_path, annotations, found):
    labels = content(annotations, categories=[])
    if annotations is None:
        del labels["annotations"]
    write(tmp_path, labels)
    assert list(POSETRACK.tracks(tmp_path, "val")) == []  # without a report an error would raise
    account = read(tmp_path)[1]
    assert account["set_aside"] == "no_annotations"
    assert account["found"] == sum(account["dropped"].values()) == found


@pytest.mark.parametrize(
    ("side", "note"),
    [
        (340, ""),
        (680, "reach at most 47% .* enlarged"),
        (260, "6 of 6 videos reach 12.% .* made smaller"),
    ],
)
def test_labels_without_a_size_are_compared_with_the_images_of_all_videos(
    side, note, tmp_path, ran
):
    raw = tmp_path / "posetrack"
    for k in range(6):
        write(raw, seq=f"00000{k}_x", pictures=())
        for frame in range(10):
            by_hand.touch(raw / f"images/val/00000{k}_x", f"{frame:06d}.jpg")
            (raw / f"images/val/00000{k}_x/{frame:06d}.jpg").write_bytes(by_hand.jpeg(side, side))
    shown = " ".join(
        ran("convert", "posetrack", "val", "--raw", raw, "--cache", tmp_path / "cache").out.split()
    )
    assert bool(note) == ("note all videos: " in shown)
    assert re.search(note, shown), shown


@pytest.mark.parametrize(
    ("side", "set_aside", "note"),
    [
        (330, "", ""),
        (260, "", "of the joints are far outside the 260 x 260 images"),
        (200, "keypoints_outside", ""),
    ],
)
def test_joints_outside_the_images_of_one_sequence_are_noted_or_refused(
    side, set_aside, note, tmp_path
):
    """Joints reach to 330 px."""
    write(tmp_path)
    for file in (tmp_path / "images/val").rglob("*.jpg"):
        file.write_bytes(by_hand.jpeg(side, side))
    account = read(tmp_path)[1]
    assert account["set_aside"] == set_aside
    assert note in "".join(account["notes"])
    assert bool(note) == bool(account["notes"])


def test_images_at_half_size_are_a_doubt_about_the_videos_that_are_kept(tmp_path, ran):
    """Joints reach to 330 px: of images with 320 px at half size, most lie outside."""
    raw = tmp_path / "posetrack"
    for k, shift in enumerate((0, 0, 250, 250)):
        people = [annotation(t, seq=f"00000{k}_x") for t in range(10)]
        for person in people:
            person["keypoints"] = (np.reshape(person["keypoints"], (17, 3)) / 3).ravel().tolist()
            person["keypoints"][0::3] = [x + shift for x in person["keypoints"][0::3]]
        images = [image(t, seq=f"00000{k}_x") for t in range(10)]
        write(raw, content(people, images), seq=f"00000{k}_x", pictures=())
        by_hand.touch(raw / f"images/val/00000{k}_x", *(f"{t:06d}.jpg" for t in range(10)))
        for file in (raw / f"images/val/00000{k}_x").iterdir():
            file.write_bytes(by_hand.jpeg(160, 120))
    done = ran("convert", "posetrack", "val", "--raw", raw, "--cache", tmp_path / "cache")
    shown = " ".join(done.out.split())
    assert "2 were rejected for joints outside" in shown and "those of the 2 others" in shown, shown


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the real sample is not beside the checkout")
def test_the_real_sample_is_read_to_the_number(tmp_path):
    """The one annotated picture eight times over: then it makes a track."""
    labels = json.loads((SAMPLE / "annotations/val/003418_mpii_test.json").read_text())
    folder = tmp_path / "images/val/003418_mpii_test"
    folder.mkdir(parents=True)
    labels["images"] = [labels["images"][0] | {"id": t} for t in range(8)]
    labels["annotations"] = [labels["annotations"][0] | {"image_id": t} for t in range(8)]
    for t in range(8):
        labels["images"][t]["file_name"] = f"images/val/003418_mpii_test/{t:06d}.jpg"
        (folder / f"{t:06d}.jpg").symlink_to(SAMPLE / "images/val/003418_mpii_test/000000.jpg")
    write(tmp_path, labels, seq="003418_mpii_test", pictures=())
    (track,), _ = read(tmp_path)
    # bbox 214.25 15 1358.5 1092: centre (893.5, 561), 0.8 of 1358.5
    np.testing.assert_allclose(track.bbox[0], [893.5, 561, 1086.8, 1086.8], rtol=1e-6)
    assert track.kp_2d[0, :, 2].sum() == labels["annotations"][0]["num_keypoints"] == 11
    assert track.kp_2d[0, JOINTS["spin49"].index("lhip"), :2].tolist() == [968, 833]
    assert track.frames.size() == (1920, 1080)
