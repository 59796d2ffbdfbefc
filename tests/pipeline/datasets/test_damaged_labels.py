"""Labels of another form than their release has, over all readers: refused by file and key, with
the video's frames.
"""

import functools
import operator

import numpy as np
import pytest

from pipeline import datasets
from pipeline.accounting import Accounting
from tests.pipeline.datasets.label_files import edit_labels


def at(*place, to):
    """Sets what is at a place in the labels."""

    def change(labels):
        *outer, key = place
        functools.reduce(operator.getitem, outer, labels)[key] = to

    return change


def without(*place):
    def change(labels):
        *outer, key = place
        del functools.reduce(operator.getitem, outer, labels)[key]

    return change


def cells(n, content):
    """A cell array of MATLAB with as many columns."""
    found = np.empty((n, 1), object)
    for k in range(n):
        found[k, 0] = content
    return found


DAMAGED = {  # split, a label file: what is changed, words of the message
    ("penn_action/train", "labels/0001.mat"): [
        (without("x"), "'x': expected a variable of this name, found only action, bbox"),
        (at("train", to=0), "'train': expected 1 or -1, found 0"),
    ],
    ("posetrack/train", "posetrack_data/annotations/train/000001_mpii_train.json"): [
        (at("images", 3, "is_labeled", to=None), "'images[3].is_labeled': expected true or false"),
        (at("images", 3, "file_name", to=3.5), "'images[3].file_name': expected text, found 3.5"),
        (at("images", 3, "id", to=True), "'images[3].id': expected a whole number, found "),
        (at("images", to={}), "'images': expected a list of objects, found an empty object"),
        (at("annotations", 2, "bbox", to=[1, 2]), "'annotations[2].bbox': expected numbers of shape (4)"),
        (at("categories", 0, "keypoints", 4, to="eye"), "expected none but nose, head_bottom, head"),
    ],
    ("mpi_inf_3dhp/train", "S1/Seq1/annot.mat"): [
        (at("annot3", to=cells(13, np.ones((6, 84)))), "'annot3': expected a cell of 14 cameras"),
        (at("annot3", to=cells(14, np.ones((7, 84)))), "'annot3{1}': expected numbers of shape (6, 84)"),
        (at("annot2", to=cells(14, "text")), "'annot2{1}': expected numbers"),
    ],
    ("mpi_inf_3dhp/test", "mpi_inf_3dhp_test_set/TS1/annot_data.mat"): [
        (at("valid_frame", to=np.ones((7, 1))), "expected one row a frame everywhere"),
    ],
    ("3dpw/train", "sequenceFiles/train/courtyard_walking_00.pkl"): [
        (at("cam_intrinsics", to=[[1, 2], [3]]), "'cam_intrinsics': expected numbers of shape (3, 3)"),
        (at("poses", to=np.zeros((10, 72))), "'poses': expected lists with one entry an actor"),
        (at("trans", 0, to=np.zeros((9, 3))), "'trans[0]': expected numbers of shape (10, 3)"),
        (at("betas", 0, to=np.r_[np.zeros(9), np.inf]), "'betas[0]': expected at least 10 finite"),
        (at("genders", 0, to="x"), "'genders[0]': expected m or f, found 'x'"),
    ],
    ("amass/train", "ACCAD/subject01/motion01_poses.npz"): [
        (without("mocap_framerate"), "'mocap_framerate': expected frames per second, found no such"),
        (at("poses", to=np.zeros((9, 66))), "SMPL-H or (N, 165) SMPL-X, found (9, 66)"),
        (at("betas", to=np.zeros(9)), "'betas': expected at least 10, found 9"),
    ],
    ("insta_variety/train", "train/insta_variety_00_copy00.tfrecord"): [
        (without(0, "meta/N"), "'meta/N of record 00000': expected a number from 1 to 65536"),
        (at(0, "meta/N", to=np.array([3.0])), "'meta/N' is a float_list"),
        (at(0, "meta/N", to=np.array([2])), "'image/xys' has 168 values, expected at most 56"),
        (at(0, "image/toe_pts", to=np.ones(1)), "toe_pts of record 00000': expected 108 numbers"),
    ],
    ("kinetics/train", "keypoints/train/_-demo00000_000000_000010/_-demo00000_000000_000010_000000000005_keypoints.json"): [
        (at("people", to=[3]), "'people[0]': expected an object"),
        (at("people", to=[{}]), "'pose_keypoints_2d': expected one list of 51, 54, 75, 69"),
    ],
}  # fmt: skip
CASES = [(*place, *case) for place, cases in DAMAGED.items() for case in cases]


def require_refused(split, raw, file, words):
    """The file's first video is refused, by the file's name and with these words."""
    name, _, split = split.partition("/")
    report = Accounting()
    list(datasets.get(name).tracks(raw, split, report=report))
    account = next(account for account in report if account.set_aside)
    assert account.set_aside == "bad_label_file"
    assert str(raw / file) in account.message
    assert words in account.message


@pytest.mark.parametrize(("split", "file", "change", "words"), CASES)
def test_labels_of_another_form_are_refused_by_file_and_key(
    split, file, change, words, embedded, tmp_path
):
    raw = embedded.copy(split.partition("/")[0], tmp_path / "raw")
    edit_labels(raw / file, change)
    require_refused(split, raw, file, words)


def test_a_frame_with_two_keypoint_files_is_refused(embedded, tmp_path):
    raw, clip = embedded.copy("kinetics", tmp_path / "raw"), "_-demo00000_000000_000010"
    folder = f"keypoints/train/{clip}"
    (raw / folder / f"{clip}_5_keypoints.json").write_text('{"people": []}')
    require_refused("kinetics/train", raw, folder, "frame 5 twice")
