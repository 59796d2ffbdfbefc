"""PoseTrack21, on files of the documented form: the demo's of 2018, rewritten."""

from collections import Counter

import numpy as np
import pytest

from pipeline.accounting import Accounting
from tests.pipeline.datasets.made_posetrack import (
    POSETRACK,
    add_21,
    annotation,
    content,
    image,
    read,
    refusal,
    write,
)


@pytest.mark.promise("problems of PoseTrack")
@pytest.mark.parametrize("folder", ["posetrack_data", "posetrack_data/annotations", "annotations"])
def test_both_releases_of_one_scene_give_the_same_rows(folder, embedded, tmp_path):
    raw, n_boxes, n_tracks = embedded.copy("posetrack", tmp_path / "21"), 0, 0
    alone = add_21(raw, tmp_path / "later")
    for split in POSETRACK.splits:
        labels = raw / "posetrack_data" / split
        (raw / folder).mkdir(exist_ok=True)
        labels.rename(raw / folder / split)
    for split in POSETRACK.splits:
        before, after = Accounting(), Accounting()
        of_2018 = POSETRACK.tracks(embedded.raw("posetrack"), split, report=before)
        for old, new in zip(of_2018, POSETRACK.tracks(raw, split, report=after), strict=True):
            assert (old.video, old.name, old.frames.pattern) == (
                new.video,
                new.name,
                new.frames.pattern,
            )
            for column in ("frame_index", "kp_2d", "bbox"):  # to the bit, as the key of a crop is
                np.testing.assert_array_equal(getattr(old, column), getattr(new, column))
            shown = new.kp_2d[0, new.kp_2d[0, :, 2] > 0, :2]
            np.testing.assert_allclose(
                new.bbox[0, 2:], 1.04 * np.ptp(shown, axis=0).max(), rtol=1e-6
            )
            n_tracks += 1
        for old, new in zip(before, after, strict=True):
            assert (("40" in new.subjects), old.subjects) == (new.kept > 0, [])
            assert (old.name, old.kept, old.tracks_kept) == (new.name, new.kept, new.tracks_kept)
            n_bare = old.dropped.pop("no_visible_joint", 0) + new.found - old.found
            assert new.dropped == old.dropped + Counter(no_keypoints=n_bare)
            n_boxes += new.dropped["no_keypoints"]
    assert n_tracks > 2
    assert n_boxes == alone > 0


def test_a_person_in_training_and_test_is_a_leak(embedded, into, types, tmp_path):
    raw = embedded.copy("posetrack", tmp_path / "raw")
    add_21(raw, tmp_path / "later")
    for split in POSETRACK.splits:
        into.convert(tmp_path / "cache", raw, "posetrack", split)
    types("leaks --cache CACHE", "posetrack/val share 1 subject: 40: ", code=1)


@pytest.mark.promise("problems of PoseTrack")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"keypoints": [5.0] * 48},
            "'annotations[3].keypoints': expected numbers of shape (51), found (48,) float64",
        ),
        (
            {"image_id": 7},
            "'annotations[3].image_id': expected the id of one of its 10 images, found 7",
        ),
        (
            {"person_id": [1]},
            "'annotations[3].person_id': expected a whole number, found 1 entries",
        ),
    ],
)
def test_a_damaged_sequence_of_posetrack21_costs_itself_with_a_message(changes, words, tmp_path):
    annotations = [annotation(t, person_id=4) for t in range(10)]
    annotations[3] |= changes
    file = write(tmp_path, content(annotations), folder="posetrack_data")
    message = str(refusal(tmp_path))
    assert message.startswith(f"{file}: {words}")
    write(tmp_path, seq="000002_bonn_test", folder="posetrack_data")
    assert [track.video for track in POSETRACK.tracks(tmp_path, "val", report=Accounting())] == [
        "000002_bonn_test"
    ]


def test_people_with_a_box_alone_are_counted_where_nobody_has_keypoints_and_people_of_other_frames_are_not(
    tmp_path,
):
    annotations = [annotation(t, keypoints=[]) for t in range(10)]
    images = [image(t, labelled=t < 6) for t in range(10)]
    write(tmp_path, content(annotations, images), folder="posetrack_data")
    tracks, account = read(tmp_path)
    assert (tracks, account["set_aside"], account["found"]) == ([], "", 6)
    assert account["dropped"] == {"no_keypoints": 6}
