"""Labels of another form than their release has, over all readers: refused by file and key, with
the video's frames.
"""

import functools
import json
import operator
import pickle

import numpy as np
import pytest

from pipeline import datasets
from tests.pipeline.datasets import (
    by_hand,
    made_3dpw,
    made_insta_variety,
    made_kinetics,
    made_motions,
    made_mpi_inf_3dhp,
    made_penn_action,
    made_posetrack,
)
from tests.pipeline.datasets.by_hand import refusal
from tests.pipeline.datasets.made_kinetics import CLIP, result
from tests.pipeline.datasets.made_mpi_inf_3dhp import cell
from tests.pipeline.datasets.made_posetrack import NAMES


def posetrack(raw, changed):
    """The sequence's JSON with another value at a place in it; without a place, another text."""
    place, value = changed
    labels = made_posetrack.content()
    labels["categories"][0]["keypoints"] = list(NAMES)
    if place:
        functools.reduce(operator.getitem, place[:-1], labels)[place[-1]] = value
    made_posetrack.write(raw, labels if place else value)


def kinetics(raw, changed):
    """One file of keypoints more, or another one in its place."""
    name, content = changed
    by_hand.write_video(
        raw / f"train/abseiling/{CLIP}.mp4", made_kinetics.N, size=made_kinetics.SIZE
    )
    folder = made_kinetics.write_openpose(raw, {} if name == f"{CLIP}.json" else None)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def mpi(raw, changes):
    made_mpi_inf_3dhp.write_annot(raw, **changes)
    made_mpi_inf_3dhp.write_pictures(raw)


WRITERS = {
    "penn_action": lambda raw, changes: made_penn_action.write_video(raw, **changes),
    "posetrack": posetrack,
    "mpi_inf_3dhp": mpi,
    "mpi_inf_3dhp test": lambda raw, changes: made_mpi_inf_3dhp.write_test(raw, **changes),
    "3dpw": lambda raw, changes: made_3dpw.write(raw, made_3dpw.sequence() | changes),
    "amass": lambda raw, changes: made_motions.write_motion(raw, **changes),
    "insta_variety": lambda raw, changes: made_insta_variety.write(
        raw, made_insta_variety.clip(**changes)
    ),
    "kinetics": kinetics,
}
OPENPOSE, ALPHAPOSE = f"{CLIP}_000000000010_keypoints.json", f"{CLIP}.json"
N_MPI = made_mpi_inf_3dhp.N

DAMAGED = {  # what is changed, words of the error
    "penn_action": [
        (
            {"x": np.ones((3, 12))},
            "0001.mat: 'x': expected numbers of shape (any, 13), found (3, 12) float64",
        ),
        (
            {"x": None},
            "'x': expected a variable of this name, found only action, bbox, dimensions, "
            "nframes, pose, ",
        ),
        ({"train": 0}, "'train': expected 1 or -1, found 0"),
    ],
    "posetrack": [
        ((("images", 3, "is_labeled"), None), "'images[3].is_labeled': expected true or false"),
        ((("images", 3, "file_name"), 3.5), "'images[3].file_name': expected text, found 3.5"),
        ((("images", 3, "id"), 10**400), "expected a whole number, found a number out of range"),
        (
            (("annotations", 2, "keypoints"), [1, 2, 3]),
            "keypoints': expected numbers of shape (51)",
        ),
        ((("images",), {}), "'images': expected a list of objects, found an empty object"),
        ((("images", 3, "id"), True), "'images[3].id': expected a whole number, found "),
        (
            (("annotations", 2, "bbox"), [1, 2, 3]),
            "'annotations[2].bbox': expected numbers of shape (4), found (3,)",
        ),
        (
            (("categories", 0, "keypoints", 4), "right_eye"),
            "expected none but nose, head_bottom, head_top",
        ),
    ],
    "mpi_inf_3dhp": [
        (
            {"annot3": cell(*[np.ones((N_MPI, 84))] * 13)},
            "'annot3': expected a cell of 14 cameras, found (13, 1)",
        ),
        (
            {"annot3": cell(*[np.ones((N_MPI + 1, 84))] * 14)},
            "'annot3{1}': expected numbers of shape (5, 84)",
        ),
        ({"annot2": cell(*["text"] * 14)}, "'annot2{1}': expected numbers"),
    ],
    "mpi_inf_3dhp test": [
        ({"valid_frame": None}, "'valid_frame': expected numbers"),
        ({"annot2": np.ones((2, 17, 1, 5))}, "found (2, 17, 1, 5) float64"),
        ({"valid_frame": np.ones((N_MPI + 1, 1))}, "expected one row a frame everywhere"),
    ],
    "3dpw": [
        ({"cam_intrinsics": [[1, 2], [3]]}, "'cam_intrinsics': expected numbers of shape (3, 3)"),
        ({"poses": np.zeros((40, 72))}, "'poses': expected lists with one entry an actor"),
        (
            {"trans": [np.zeros((39, 3))]},
            "'trans[0]': expected numbers of shape (40, 3), found (39, 3)",
        ),
        (
            {"betas": [np.r_[np.zeros(9), np.inf]]},
            "'betas[0]': expected at least 10 finite numbers",
        ),
        ({"genders": ["x"]}, "'genders[0]': expected m or f, found 'x'"),
    ],
    "amass": [
        ({"mocap_framerate": None}, "'mocap_framerate': expected frames per second, found no such"),
        (
            {"poses": np.zeros((100, 72))},
            "'poses': expected (N, 156) SMPL-H or (N, 165) SMPL-X, found (100, 72)",
        ),
        ({"betas": np.zeros(9)}, "'betas': expected at least 10, found 9"),
        ({"trans": np.full((601, 3), np.nan)}, "'trans': expected finite numbers, found NaN"),
        ({"mocap_framerate": np.nan}, "'mocap_framerate': expected 1 to 10,000"),
    ],
    "insta_variety": [
        (
            {"meta__N": None},
            "'meta/N of record 00000': expected a number from 1 to 65536, found []",
        ),
        ({"meta__N": np.array([3.0])}, "'meta/N' is a float_list"),
        ({"meta__N": np.array([2])}, "'image/xys' has 84 values, expected at most 56"),
        (
            {"image__toe_pts": np.ones(1)},
            "toe_pts of record 00000': expected 54 numbers: (3, 3, 6), found 1",
        ),
    ],
    "kinetics": [  # beside those of label_mistakes.py
        ((OPENPOSE, {"people": [3]}), "'people[0]': expected an object"),
        ((OPENPOSE, {"people": [{}]}), "'pose_keypoints_2d': expected one list of 51, 54, 75, 69"),
        ((f"{CLIP}_7_keypoints.json", {"people": []}), "frame 7 twice"),
        ((ALPHAPOSE, [result(0) | {"image_id": "x" * 10_000}]), "of 10000 characters"),
    ],
}


@pytest.mark.parametrize(
    "name, changed, words", [(name, *case) for name, cases in DAMAGED.items() for case in cases]
)
def test_labels_of_another_form_are_refused_by_file_and_key(name, changed, words, tmp_path):
    WRITERS[name](tmp_path, changed)
    name, _, split = name.partition(" ")
    error = refusal(
        datasets.get(name), tmp_path, split or ("val" if name == "posetrack" else "train")
    )
    error = pickle.loads(pickle.dumps(error))  # as from another process
    assert error.reason == "bad_label_file"
    assert error.file.is_relative_to(tmp_path)
    assert words in str(error)
