import re
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.datasets import by_hand
from tests.pipeline.datasets.by_hand import require
from tests.pipeline.datasets.contract import ANOTHER_START, EXACT, HALF, RENUMBERED, ImageFolders
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
    write_images,
)

# nose, neck, headtop, lear, ...
INTO_SPIN49 = [44, 37, 38, 47, 48, 34, 33, 35, 32, 36, 31, 28, 27, 29, 26, 30, 25]


@pytest.mark.promise("problems of PoseTrack")
def test_the_order_of_the_joints_is_the_files_own_and_one_at_the_origin_is_none(tmp_path):
    labels = content()
    for one in labels["annotations"]:
        one["keypoints"] = one["keypoints"][: 3 * 15]
    # the third number says nothing
    labels["annotations"][1]["keypoints"][:12] = [0, 0, 1, 3, 4, 0, 5, 0, 2, 0, 6, -7.5]
    labels["categories"][0]["keypoints"] = NAMES[:1:-1]  # without nose and head_bottom
    write(tmp_path, labels)
    (track,), _ = read(tmp_path)
    order = INTO_SPIN49[:1:-1]
    np.testing.assert_array_equal(track.kp_2d[0, order, 0], 10 * np.arange(15) + 1)
    seen = [[0, 0, 0], [3, 4, 1], [5, 0, 1], [0, 6, 1]]
    np.testing.assert_array_equal(track.kp_2d[1, order[:4]], seen)
    assert not track.kp_2d[:, INTO_SPIN49[:2]].any()


def test_people_are_tracks_of_one_source_and_frames_count_by_the_number_in_the_name(tmp_path):
    every = range(0, 40, 4)
    # numbers of any kind
    images = [image(t, labelled=int(t in every)) | {"id": float(t)} for t in range(40)]
    annotations = [annotation(t, k, image_id=t, track_id=float(k)) for t in every for k in (7, 3)]
    annotations += [annotation(t, 9, image_id=t) for t in every[:7]]  # under eight frames
    write(tmp_path, content(annotations[::-1], images[::-1]), pictures=range(40))
    found = read(tmp_path)
    third, seventh = require(found, [every, every], {"track_too_short": 7})
    assert found[1]["tracks_dropped"] == {"track_too_short": 1}
    assert (third.name, seventh.name, third.step) == (f"{SEQ}/3", f"{SEQ}/7", 4)
    assert third.frames == seventh.frames  # decoded once for both
    assert third.frames.path(4).name == "000004.jpg"
    np.testing.assert_array_equal(third.kp_2d[:, INTO_SPIN49[0], 0], np.array(every) + 1)
    assert seventh.kp_2d[0, INTO_SPIN49[0], 1] == 701


@pytest.mark.promise("problems of PoseTrack")
def test_people_without_joints_or_without_a_box_are_dropped_and_counted(tmp_path):
    changes = [{"keypoints": joints} for joints in ([0, 0, 1] * 17, [])]
    bad = [(5, 5, 0, 0), (5, 5, 30, 0), (5, 5, -30, 40), (5, 5, 0.5, 0.9), (5, float("nan"), 3, 4)]
    # the last is narrow, and no smaller than a pixel
    changes += [{"bbox": box} for box in (*bad, (), (5, 5, 0.25, 1))]
    annotations = [annotation(t, **change) for t, change in enumerate(changes)]
    annotations += [annotation(t) for t in range(len(changes), 17)]
    del annotations[-1]["keypoints"]
    huge = [[-999999.0, -999999.0, 1e6, 1e6], [0, 0, float("inf"), 10], [1e300, 0, 10, 10]]
    annotations += [annotation(t, 1, bbox=box) for t, box in enumerate(huge)]
    write(tmp_path, content(annotations, [image(t) for t in range(17)]), pictures=range(17))
    dropped = {"no_visible_joint": 3, "degenerate_box": 6, "huge_box": 3}
    require(read(tmp_path), [range(8, 16)], dropped)


def test_a_person_twice_in_a_picture_is_the_one_with_more_joints_else_the_first(tmp_path):
    worse, better = annotation(3), annotation(5, bbox=[0, 0, 10, 5])
    worse["keypoints"][:3] = [0, 0, 0]
    usual = [annotation(t) for t in range(10)]
    usual[5]["keypoints"][:3] = [0, 0, 0]
    equal = annotation(8, bbox=[0, 0, 10, 10])
    write(tmp_path, content([worse, *usual, better, equal]))
    (track,) = require(read(tmp_path), dropped={"duplicate_person": 3})
    assert (track.kp_2d[..., 2].sum(axis=1) == 17).all()
    assert track.bbox[:, 2].tolist() == [160, 160, 160, 160, 160, 8, 160, 160, 160, 160]


def some_unlabelled(labels):
    for entry in labels["images"][8:]:
        entry["is_labeled"] = False
    # of two with one id the first is meant
    labels["images"] += [image(3, labelled=False), image(9, id=image(4)["id"])]
    labels["annotations"] += [annotation(t) for t in range(50, 53)]


def in_another_folder(labels):
    for t, entry in enumerate(labels["images"]):
        entry["file_name"] = f"images/val_v2/./seq/img{t:03d}.png"


CHANGES = {  # frames, reasons of dropped ones, words of the notes
    some_unlabelled: ([range(8)], {}, ["2 pictures have the id", "5 annotations are on"]),
    in_another_folder: ([range(10)], {}, ["images/val_v2/seq"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_images_are_those_that_the_labels_name(change, tmp_path):
    moved = by_hand.touch(tmp_path / "images/val_v2/seq", *map("img{:03d}.png".format, range(10)))
    labels = content()
    change(labels)
    write(tmp_path, labels)
    frames, dropped, notes = CHANGES[change]
    found = read(tmp_path)
    found[1]["notes"].sort()
    tracks = require(found, frames, dropped, notes)
    if change is in_another_folder:
        assert tracks[0].frames.path(3) == moved / "img003.png"


@pytest.mark.parametrize("name", ["images/val/other/000000.jpg", f"images/val/{SEQ}/1.jpg"])
def test_images_of_another_name_than_the_others_are_refused(tmp_path, name):
    labels = content()
    labels["images"][3]["file_name"] = name
    write(tmp_path, labels)
    assert "with another number" in str(refusal(tmp_path))


def test_a_sequence_without_any_labelled_image_is_refused(tmp_path):
    write(tmp_path, seq="000002_bonn_test", pictures=[])
    require(read(tmp_path), dropped={"no_picture": 10}, refused="no_picture")


@pytest.mark.parametrize(
    "name", ["images/val/x{:06d}.jpg", "a\n1.jpg", "\ud800/1.jpg", "x", "a/" * 9999 + "1.jpg"]
)
def test_names_that_no_pattern_can_hold_are_refused(tmp_path, name):
    write(tmp_path, content([annotation(0)], [image(0, file_name=name)]))
    assert refusal(tmp_path).reason == "bad_label_file"


def test_annotations_lie_in_three_places_and_the_first_that_has_a_sequence_is_used_and_the_others_told(
    tmp_path,
):
    # PoseTrack21's, then 2018's
    folders = ("posetrack_data", "annotations", "posetrack_data/annotations")
    for folder in folders:
        write(tmp_path, folder=folder)
        (video,) = POSETRACK.videos(tmp_path, "val")
        assert (video.name, video.files[0]) == (SEQ, Path(folder, "val", f"{SEQ}.json"))
        assert video.folders == (Path("images/val", SEQ),)
        require(read(tmp_path), [range(10)])
    (tmp_path / f"annotations/val/{SEQ}.json").write_text("{")
    *unused, used = (f"{folder}/val/{SEQ}.json is" for folder in folders)
    require(read(tmp_path), notes=[f"{file} not used: {used}" for file in unused[::-1]])


@pytest.mark.promise("problems of PoseTrack")
def test_sequences_are_listed_in_order_with_those_that_nobody_annotated(tmp_path):
    for seq in ("000010_mpii_test", "000002_bonn_test"):
        write(tmp_path, seq=seq)
    for folder in ("000005_mpii_test", ".cache"):
        (tmp_path / "images/val" / folder).mkdir()
    (tmp_path / "images/val/readme.txt").touch()
    annotations = tmp_path / "posetrack_data/annotations/val"
    by_hand.touch(annotations, "._000002_bonn_test.json", "000099_mpii_test.json")
    assert POSETRACK.splits == ("train", "val"), "nobody has keypoints in test"
    videos = POSETRACK.videos(tmp_path, "val")
    numbers = ["000002_bonn", "000005_mpii", "000010_mpii", "000099_mpii"]
    assert [video.name for video in videos] == [f"{number}_test" for number in numbers]
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
    require(read(tmp_path), [], refused="no_annotations")
    assert read(tmp_path)[1]["found"] == found


@pytest.mark.parametrize(
    ("side", "set_aside", "notes"),
    [
        (331, "", []),
        (298, "", ["of the joints are far outside the 298 x 298 images"]),
        (260, "", ["of the joints are far outside the 260 x 260 images"]),
        (200, "keypoints_outside", []),
    ],
)
def test_joints_outside_the_images_of_one_sequence_are_noted_or_refused(
    side, set_aside, notes, tmp_path
):
    """Joints reach to 330 px: of each person, three of 17 beyond 300 px."""
    write(tmp_path)
    write_images(tmp_path, (side, side))
    require(read(tmp_path), [] if set_aside else [range(10)], notes=notes, refused=set_aside)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize(("share", "reason"), [(1, ""), (0.9, "other_picture_size"), (1.1, "")])
def test_images_that_end_before_a_region_to_ignore_are_refused(axis, share, reason, tmp_path):
    """A region of one image ends at the edge of 400 x 400 px."""
    images = [image(t) for t in range(10)]
    images[7][f"ignore_regions_{axis}"] = [[10, 20.5, 15], [380, 399, 395]]
    write(tmp_path, content(images=images))
    write_images(tmp_path, (round(400 * share),) * 2)
    found = read(tmp_path)
    require(found, refused=reason)
    if reason:
        assert (
            f"'size': expected {'399 x 360' if axis == 'x' else '360 x 399'} px"
            in found[1]["message"]
        )


@pytest.mark.parametrize(
    "regions", [None, 5, "abc", [], [[]], [5], ["abc"], {"a": 1}, [[10**400]], [[None]], [[[3]]]]
)
def test_regions_that_are_no_lists_of_numbers_cost_nothing(regions, tmp_path):
    write(tmp_path, content(images=[image(t, ignore_regions_x=regions) for t in range(10)]))
    write_images(tmp_path, (400, 400))
    require(read(tmp_path), [range(10)], notes=[])


def test_images_of_another_size_than_a_label_states_are_refused(tmp_path):
    write(tmp_path, content(images=[image(t, height=400, width=400) for t in range(10)]))
    write_images(tmp_path, (340, 340))
    require(read(tmp_path), refused="other_picture_size")


@pytest.mark.parametrize(
    ("size", "right", "words"),
    [
        ((340, 340), 0, ""),
        ((680, 680), 0, "reach at most 47% .* enlarged"),
        ((260, 260), 0, "6 of 6 videos reach 12.% .* made smaller"),
        ((160, 120), 250, "3 were rejected for joints outside.*those of the 3 others"),
    ],
)
def test_labels_without_a_size_are_compared_with_the_images_of_all_videos(
    size, right, words, tmp_path, ran
):
    """Joints reach to 330 px; in the last case to 110, and in half of the videos `right` of it."""
    raw = tmp_path / "posetrack"
    for k in range(6):
        seq = f"00000{k}_x"
        people = [annotation(t, seq=seq) for t in range(10)]
        if right:
            for person in people:
                joints = np.reshape(person["keypoints"], (17, 3)) / 3 + [right * (k > 2), 0, 0]
                person["keypoints"] = joints.ravel().tolist()
        write(raw, content(people, [image(t, seq=seq) for t in range(10)]), seq=seq)
    write_images(raw, size)
    shown = ran("convert", "posetrack/val", "--raw", raw, "--cache", tmp_path / "cache").out
    assert bool(words) == ("note all videos: " in shown)
    assert re.search(words, " ".join(shown.split())), shown


class TestPoseTrack(ImageFolders):
    dataset, video = "posetrack", "000001_mpii_train"
    images = f"images/train/{video}"
    states_size = False  # without people or regions to ignore at the images' edges
    refused = frozenset(ANOTHER_START | EXACT | {RENUMBERED, HALF})
