"""EMDB's reader: what changes of a demo sequence's file give, and each trap of the format."""

import cv2
import numpy as np
import pytest

from pipeline import datasets
from pipeline.accounting import Accounting
from tests.pipeline.datasets.by_hand import read_video, require
from tests.pipeline.datasets.contract import ANOTHER_START, EXACT, HALF, RENUMBERED, ImageFolders
from tests.pipeline.datasets.label_files import edit_labels

EMDB = datasets.get("emdb")
SEQ = "P1/01_indoor_warmup"  # of 12 frames; frame 3 has no box
LABELS = f"{SEQ}/P1_01_indoor_warmup_data.pkl"


@pytest.fixture
def raw(embedded, tmp_path):
    return embedded.copy("emdb", tmp_path / "emdb")


def read(raw):
    return read_video(EMDB, raw, "emdb1", SEQ)


def test_what_is_left_out_is_counted_and_the_numbers_stay_the_pictures(raw):
    def change(data):
        data["good_frames_mask"][[0, 1]] = False
        data["bboxes"]["invalid_idxs"] = np.array([1, 4])
        data["bboxes"]["bboxes"][2] = (100, 200, 300, 700)  # corners
        data["bboxes"]["bboxes"][5] = (300, 300, 200, 400)  # the right edge is left of the left one
        data["camera"]["extrinsics"][7, 0] *= -1  # a mirror
        data["camera"]["extrinsics"][8, :3, :3] *= 1.2
        data["smpl"]["trans"][9] = np.nan
        extrinsics.append(data["camera"]["extrinsics"][[2, 10, 11]])

    extrinsics = []
    edit_labels(raw / LABELS, change)
    (raw / SEQ / "images/00006.jpg").unlink()
    reasons = {"not_good": 2, "no_box": 3, "no_picture": 1, "bad_camera": 2, "label_not_finite": 1}
    (track,) = require(read(raw), [[2, 10, 11]], reasons)
    np.testing.assert_array_equal(track.extra["extrinsics"], extrinsics[0].astype("f4"))
    np.testing.assert_array_equal(track.bbox[0], (200, 450, 500, 500))


@pytest.mark.parametrize("flags", [(True, False), (False, True), (np.True_, np.True_)])
def test_the_flags_decide_the_split_and_both_may_be_set(flags, raw):
    edit_labels(raw / LABELS, lambda data: data | {"emdb1": flags[0], "emdb2": flags[1]})
    for split, flag in zip(EMDB.splits, flags, strict=True):
        report = Accounting()
        tracks = EMDB.tracks(raw, split, report=report)
        assert (SEQ in {track.video for track in tracks}) == flag
        assert (SEQ in {account.name for account in report if account.other_split}) != flag


def halve(raw):
    """Every image."""
    for file in (raw / SEQ / "images").iterdir():
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), None, fx=0.5, fy=0.5))


def halve_and_say_so(raw):
    halve(raw)
    edit_labels(raw / LABELS, lambda data: data["camera"].update(width=120, height=160))


def remove_images(raw):
    for file in (raw / SEQ / "images").iterdir():
        file.unlink()


def labels(change):
    return lambda raw: edit_labels(raw / LABELS, change)


TRAPS = [  # what is done, reason, word of the message
    (halve, "other_picture_size", "120 x 160"),
    (halve_and_say_so, "other_picture_size", "principal point"),
    (remove_images, "no_picture", "none"),
    (lambda raw: (raw / LABELS).unlink(), "no_label", "only images"),
    (labels(lambda data: data | {"gender": "neutral"}), "bad_label_file", "found 'neutral'"),
    (labels(lambda data: data | {"camera": {}}), "bad_label_file", "camera/width"),
    (labels(lambda data: data | {"kp2d": data["kp2d"][:-1]}), "bad_label_file", "kp2d"),
    (labels(lambda data: data | {"bboxes": np.ones(4)}), "bad_label_file", "bboxes/bboxes"),
    (
        labels(lambda data: data["bboxes"].update(invalid_idxs=[-1])),
        "bad_label_file",
        "invalid_idxs",
    ),
]


@pytest.mark.parametrize(("spoil", "reason", "word"), TRAPS)
def test_traps_are_refused_by_name(spoil, reason, word, raw):
    spoil(raw)
    found = read(raw)
    require(found, [], refused=reason)
    assert word in found[1]["message"]


class TestEmdb(ImageFolders):
    dataset, split, video = "emdb", "emdb1", "P0/00_outdoor_walk"
    images = f"{video}/images"
    refused = frozenset(ANOTHER_START | EXACT | {RENUMBERED, HALF})
