"""Labels of another form than their release has, over all readers: refused by file and key, with
the video's frames.
"""

import functools
import json
import operator
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from pipeline import datasets
from tests.pipeline.datasets import (
    test_3dpw,
    test_amass,
    test_insta_variety,
    test_kinetics,
    test_mpi_inf_3dhp,
    test_penn_action,
    test_posetrack,
)
from tests.pipeline.datasets.by_hand import refusal
from tests.pipeline.datasets.test_kinetics import CLIP, result
from tests.pipeline.datasets.test_mpi_inf_3dhp import cell
from tests.pipeline.datasets.test_posetrack import NAMES


def posetrack(raw: Path, changed: tuple[tuple[Any, ...], Any]) -> None:
    """The sequence's JSON with another value at a place in it; without a place, another text."""
    place, value = changed
    labels = test_posetrack.content()
    labels["categories"][0]["keypoints"] = list(NAMES)
    if place:
        functools.reduce(operator.getitem, place[:-1], labels)[place[-1]] = value
    test_posetrack.write(raw, labels if place else value)


def kinetics(raw: Path, changed: tuple[str, Any]) -> None:
    """One file of keypoints more, or another one in its place."""
    name, content = changed
    test_kinetics.write_video(
        raw / f"train/abseiling/{CLIP}.mp4", test_kinetics.N, size=test_kinetics.SIZE
    )
    folder = test_kinetics.write_openpose(raw, {} if name == f"{CLIP}.json" else None)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def mpi(raw: Path, changes: dict[str, Any]) -> None:
    test_mpi_inf_3dhp.write_annot(raw, **changes)
    test_mpi_inf_3dhp.write_pictures(raw)


WRITERS: Final[dict[str, Callable[[Path, Any], object]]] = {
    "penn_action": lambda raw, changes: test_penn_action.write_video(raw, **changes),
    "posetrack": posetrack,
    "mpi_inf_3dhp": mpi,
    "mpi_inf_3dhp test": lambda raw, changes: test_mpi_inf_3dhp.write_test(raw, **changes),
    "3dpw": lambda raw, changes: test_3dpw.write(raw, test_3dpw.sequence() | changes),
    "amass": lambda raw, changes: test_amass.write_motion(raw, **changes),
    "insta_variety": lambda raw, changes: test_insta_variety.write(
        raw, test_insta_variety.clip(**changes)
    ),
    "kinetics": kinetics,
}
OPENPOSE, ALPHAPOSE = f"{CLIP}_000000000010_keypoints.json", f"{CLIP}.json"
N_MPI = test_mpi_inf_3dhp.N

DAMAGED: Final[dict[str, list[tuple[Any, str]]]] = {  # what is changed, words of the error
    "penn_action": [
        (
            {"x": np.ones((3, 12))},
            "0001.mat: 'x': expected numbers of shape (any, 13), found (3, 12) float64",
        ),
        ({"y": np.ones((2, 13))}, "'y': expected numbers of shape (3, 13), found (2, 13)"),
        (
            {"x": None},
            "'x': expected a variable of this name, found only action, bbox, dimensions, "
            "nframes, pose, ",
        ),
        ({"x": np.array([["a"] * 13] * 3)}, "'x': expected numbers"),
        ({"train": 0}, "'train': expected 1 or -1, found 0"),
    ],
    "posetrack": [
        ((("images",), {}), "'images': expected a list of objects, found an empty object"),
        ((("images", 3, "id"), None), "'images[3].id': expected a whole number, found nothing"),
        (
            (("images", 3, "id"), 2**53 + 1),
            "'images[3].id': expected a whole number, found a number out of range",
        ),
        ((("images", 3, "id"), True), "'images[3].id': expected a whole number, found "),
        (
            (("images", 3, "id"), 10**400),
            "'images[3].id': expected a whole number, found a number out of range",
        ),
        (
            (("images", 3, "is_labeled"), None),
            "'images[3].is_labeled': expected true or false, found nothing",
        ),
        ((("images", 3, "file_name"), 3.5), "'images[3].file_name': expected text, found 3.5"),
        (
            (("annotations", 2, "image_id"), None),
            "'annotations[2].image_id': expected a whole number",
        ),
        (
            (("annotations", 2, "track_id"), 1.5),
            "'annotations[2].track_id': expected a whole number, found 1.5",
        ),
        (
            (("annotations", 2, "keypoints"), [1, 2, 3]),
            "keypoints': expected numbers of shape (51), found (3,) int64",
        ),
        (
            (("annotations", 2, "keypoints"), [10**400] * 51),
            "keypoints': expected numbers of shape (51)",
        ),
        (
            (("annotations", 2, "bbox"), [1, 2, 3]),
            "'annotations[2].bbox': expected numbers of shape (4), found (3,)",
        ),
        (
            (("categories",), []),
            "'categories[0].keypoints': expected the names of the joints, found nothing",
        ),
        (
            (("categories", 0, "keypoints", 4), "left_ear"),
            "expected names, each once, found 'left_ear'",
        ),
        (
            (("categories", 0, "keypoints", 4), "right_eye"),
            "expected none but nose, head_bottom, head_top",
        ),
        (
            (("categories", 0, "keypoints"), NAMES[:3]),
            "'annotations[0].keypoints': expected numbers of shape (9)",
        ),
        (((), ""), "expected JSON, found empty (0 bytes)"),
        (((), "[" * 100_000), "expected JSON, found lists or objects that are nested too deeply"),
        (((), "[]"), "expected an object, found 0 entries"),
        (((), "{}"), "'images': expected a list of objects, found nothing"),
    ],
    "mpi_inf_3dhp": [
        ({"annot2": None}, "'annot2': expected a variable of this name, found only"),
        ({"annot2": np.ones((14, 1))}, "'annot2': expected a cell of 14 cameras"),
        (
            {"annot3": cell(*[np.ones((N_MPI, 84))] * 13)},
            "'annot3': expected a cell of 14 cameras, found (13, 1)",
        ),
        (
            {"annot3": cell(*[np.ones((N_MPI + 1, 84))] * 14)},
            "'annot3{1}': expected numbers of shape (5, 84)",
        ),
        ({"annot2": cell(*["text"] * 14)}, "'annot2{1}': expected numbers"),
        (
            {"annot2": cell(np.ones((5, 50)), *[np.ones((5, 56))] * 13)},
            "'annot2{1}': expected numbers of shape (any, 56)",
        ),
    ],
    "mpi_inf_3dhp test": [
        ({"annot2": None}, "'annot2': expected numbers of shape"),
        ({"valid_frame": None}, "'valid_frame': expected numbers"),
        ({"annot2": np.ones((2, 17, 1, 5))}, "found (2, 17, 1, 5) float64"),
        ({"annot2": np.ones((5, 1, 28, 2))}, "found (5, 1, 28, 2) float64"),
        ({"valid_frame": np.ones((N_MPI + 1, 1))}, "expected one row a frame everywhere"),
    ],
    "3dpw": [
        ({"poses": np.zeros((40, 72))}, "'poses': expected lists with one entry an actor"),
        ({"poses": [], "betas": []}, "'poses': expected lists with one entry an actor"),
        (
            {"trans": [np.zeros((39, 3))]},
            "'trans[0]': expected numbers of shape (40, 3), found (39, 3)",
        ),
        (
            {"poses2d": [np.zeros((40, 18, 3))]},
            "'poses2d[0]': expected numbers of shape (40, 3, 18)",
        ),
        ({"cam_poses": np.zeros((40, 3, 3))}, "'cam_poses': expected numbers of shape (any, 4, 4)"),
        ({"cam_intrinsics": [[1, 2], [3]]}, "'cam_intrinsics': expected numbers of shape (3, 3)"),
        ({"betas": [np.zeros(9)]}, "'betas[0]': expected at least 10 finite numbers"),
        (
            {"betas": [np.r_[np.zeros(9), np.inf]]},
            "'betas[0]': expected at least 10 finite numbers",
        ),
        ({"genders": ["x"]}, "'genders[0]': expected m or f, found 'x'"),
    ],
    "amass": [
        (
            {"poses": np.zeros((100, 72))},
            "'poses': expected (N, 156) SMPL-H or (N, 165) SMPL-X, found (100, 72)",
        ),
        ({"n_joints": 24}, "Take the SMPL-H or SMPL-X files of the release"),
        ({"poses": None}, "'poses': expected an array "),
        (
            {"trans": np.zeros((600, 3))},
            "'trans': expected numbers of shape (601, 3), found (600, 3)",
        ),
        ({"betas": np.zeros(9)}, "'betas': expected at least 10, found 9"),
        ({"trans": np.full((601, 3), np.nan)}, "'trans': expected finite numbers, found NaN"),
        (
            {"mocap_framerate": None},
            "'mocap_framerate': expected frames per second, found no such key",
        ),
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
            {"meta__N": np.array([4])},
            "xys of record 00000': expected 112 numbers: (4, 2, 14), found 84",
        ),
        ({"image__xys": None}, "image/xys of record 00000': expected 84 numbers"),
        (
            {"image__visibilities": np.ones((3, 13), np.int64)},
            "expected 42 numbers: (3, 14), found 39",
        ),
        (
            {"image__toe_pts": np.ones(1)},
            "toe_pts of record 00000': expected 54 numbers: (3, 3, 6), found 1",
        ),
        ({"image__encoded": np.ones(3)}, "'image/encoded' is a float_list"),
    ],
    "kinetics": [
        (
            (OPENPOSE, "[" * 100_000),
            "expected JSON, found lists or objects that are nested too deeply",
        ),
        ((OPENPOSE, {"people": [3]}), "'people[0]': expected an object"),
        ((OPENPOSE, {"people": [{}]}), "'pose_keypoints_2d': expected one list of 51, 54, 75, 69"),
        (
            (OPENPOSE, {"people": [{"pose_keypoints_2d": [1, 2, 3]}]}),
            "408 numbers a person, found 3 entries",
        ),
        (
            (OPENPOSE, {"people": [{"pose_keypoints_2d": ["x"] * 75}]}),
            "numbers of shape (75), found a text 'x' among them",
        ),
        (
            (OPENPOSE, {"people": [{"pose_keypoints_2d": [0] * 54}]}),
            "expected one joint order in all frames",
        ),
        ((f"{CLIP}_7_keypoints.json", {"people": []}), "frame 7 twice"),
        (
            (ALPHAPOSE, [result(0) | {"image_id": "frame.jpg"}]),
            "'image_id': expected an image name",
        ),
        (
            (ALPHAPOSE, [result(0) | {"image_id": "x" * 10_000}]),
            "found a text of 10000 characters",
        ),
        ((ALPHAPOSE, [result(0) | {"keypoints": [1, 2]}]), "numbers a person, found 2 entries"),
        ((ALPHAPOSE, [result(0) | {"idx": float("nan")}]), "'idx': expected a whole number"),
        ((ALPHAPOSE, [result(0) | {"idx": [[[1]]]}]), "'idx': expected a whole number"),
        ((ALPHAPOSE, {"0.jpg": {"people": [{"pose_keypoints_2d": []}]}}), "without --format"),
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
