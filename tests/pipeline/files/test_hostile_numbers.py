"""Numbers that are none - NaN, infinite, out of range - in the labels of every dataset.

Each frame with one is kept without it or dropped under a reason: nothing of it reaches the cache,
and nothing overflows on the way (warnings are errors here).
"""

import functools
import json
import math
import pickle

import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from pipeline import datasets
from pipeline.body import Body
from pipeline.conversion import reading
from pipeline.datasets import RELEASES
from pipeline.demo import files
from pipeline.files.formats import tfrecords
from pipeline.files.formats.h36m import load_cdf
from pipeline.files.formats.pickles import load_pickle
from pipeline.testing.labels import track_problems

VALUES = (math.nan, -math.inf, -1e20, 1e300)


def poison(seed, value):
    """Makes a copy of an array with `value` in one element, in all of the first row, or in every
    tenth element.
    """
    rng = np.random.default_rng(seed)

    def spoil(stored):
        array = np.array(stored, copy=True)
        array = array if array.dtype.kind == "f" else array.astype(np.float64)
        with np.errstate(over="ignore"):
            bad = array.dtype.type(value)
        way = rng.integers(3)
        if way == 0:
            array.reshape(-1)[rng.integers(array.size)] = bad
        elif way == 1:
            array[0] = bad
        else:
            array.reshape(-1)[::10] = bad
        return array

    return spoil


def in_mat(*keys):
    def write(file, spoil, which):
        variables = {
            name: value for name, value in loadmat(file).items() if not name.startswith("__")
        }
        key = keys[which % len(keys)]
        if variables[key].dtype == object:
            for cell in np.ndindex(variables[key].shape):
                variables[key][cell] = spoil(variables[key][cell])
        else:
            variables[key] = spoil(variables[key])
        savemat(file, variables)

    return write


def in_hdf5(file, spoil, which):
    with h5py.File(file, "r+") as stored:
        key = ("annot2", "univ_annot3", "valid_frame")[which % 3]
        values = spoil(stored[key][()])
        del stored[key]
        stored[key] = values


def in_npz(*keys):
    return functools.partial(_in_npz, keys)


def _in_npz(keys, file, spoil, which):
    arrays = dict(np.load(file))
    key = keys[which % len(keys)]
    if arrays[key].ndim == 0:
        arrays[key] = spoil(arrays[key].reshape(1)).reshape(())
    else:
        arrays[key] = spoil(arrays[key])
    np.savez(file, **arrays)


def in_pickle(file, spoil, which):
    sequence = load_pickle(file, kind="sequence")
    keys = ("poses2d", "poses", "trans", "betas", "cam_poses", "cam_intrinsics", "campose_valid")
    key = keys[which % len(keys)]
    stored = sequence[key]
    sequence[key] = (
        [spoil(array) for array in stored] if isinstance(stored, list) else spoil(stored)
    )
    file.write_bytes(files.python2_pickle(sequence))


def in_emdb(file, spoil, which):
    sequence = load_pickle(file, kind="sequence")
    places = (
        ("kp2d",),
        ("smpl", "trans"),
        ("camera", "extrinsics"),
        ("bboxes", "bboxes"),
        ("smpl", "poses_root"),
    )
    *outer, key = (*places, ("smpl", "betas"), ("camera", "intrinsics"), ("good_frames_mask",))[
        which % 8
    ]
    inner = sequence[outer[0]] if outer else sequence
    inner[key] = spoil(inner[key])
    file.write_bytes(pickle.dumps(sequence))


def in_json(*keys):
    """In every list of numbers under one of these keys, however deep; the last of `keys` may hold
    nested lists.
    """

    def write(file, spoil, which):
        key = keys[which % len(keys)]

        def walk(value):
            if isinstance(value, dict):
                return {
                    name: bad(inner) if name == key else walk(inner)
                    for name, inner in value.items()
                }
            return [walk(inner) for inner in value] if isinstance(value, list) else value

        def bad(value):
            numbers = isinstance(value, list) and value and not isinstance(value[0], str)
            return spoil(value).tolist() if numbers else value

        file.write_text(json.dumps(walk(json.loads(file.read_bytes()))))

    return write


def in_cdf(file, spoil, which):
    pose = spoil(load_cdf(file, "Pose")[0])
    file.unlink()
    files.write_cdf(file, pose)


def in_tfrecord(file, spoil, which):
    key = ("image/xys", "image/face_pts", "image/toe_pts")[which % 3]
    records = []
    for start, stop in tfrecords.spans(file):
        data = tfrecords.read(file, start, stop)
        before = np.float32(
            tfrecords.feature_values(tfrecords.parse_example(data), key, "float_list", 1 << 20)
        )
        after = spoil(before).astype(np.float32) if len(before) else before
        assert data.count(before.tobytes()) >= 1
        records.append(
            files.tfrecord(data.replace(before.tobytes(), after.tobytes()) if len(before) else data)
        )
    file.write_bytes(b"".join(records))


LABELS = {
    "penn_action": {"labels/*.mat": in_mat("x", "y", "visibility", "nframes", "dimensions")},
    "posetrack": {"posetrack_data/annotations/*/*.json": in_json("keypoints", "bbox")},
    "insta_variety": {"*/*.tfrecord": in_tfrecord},
    "kinetics": {"keypoints/*/*/*.json": in_json("pose_keypoints_2d")},
    "mpi_inf_3dhp": {"S*/*/annot.mat": in_mat("annot2", "annot3"), "*/TS*/annot_data.mat": in_hdf5},
    "h36m": {
        "S*/MyPoseFeatures/*/*.cdf": in_cdf,
        "smpl_param/*_param.json": in_json("pose", "shape", "trans"),
        "smpl_param/*_camera.json": in_json("R", "t", "f", "c"),
    },
    "3dpw": {"sequenceFiles/*/*.pkl": in_pickle},
    "emdb": {"P*/*/*_data.pkl": in_emdb},
    "bedlam": {
        "all_npz_12_smpl_training/*.npz": in_npz(
            "center", "scale", "pose_cam", "shape", "trans_cam", "cam_int", "cam_ext", "gtkps"
        )
    },
    "amass": {"*/*/*_poses.npz": in_npz("poses", "trans", "betas", "mocap_framerate")},
}
WAYS = 8  # of spoiling a file: every key and every value
CASES = [(name, glob) for name, globs in LABELS.items() for glob in globs]


def test_every_dataset_is_tried():
    assert LABELS.keys() == {*RELEASES}


@pytest.mark.parametrize(
    "shift", [0, *(pytest.param(shift, marks=pytest.mark.slow) for shift in (1, 2, 3))]
)
@pytest.mark.parametrize(("name", "glob"), CASES)
def test_numbers_that_are_none_stay_out_of_the_tracks(name, glob, shift, embedded, tmp_path):
    raw, dataset = embedded.copy(name, tmp_path / "raw"), datasets.get(name)
    files = sorted(raw.glob(glob))
    assert files
    body = Body.load(embedded.body) if dataset.labels.uses_body else None
    copies = {file: file.read_bytes() for file in files}
    # each file in another way, until all ways have been tried
    for start in range(0, WAYS, len(files)):
        for number, (file, content) in enumerate(copies.items(), start):
            file.write_bytes(content)
            way = number % WAYS
            LABELS[name][glob](file, poison(number, VALUES[(way + shift) % 4]), way)
        for split in dataset.splits:
            for video in dataset.videos(raw, split):
                check(dataset, raw, split, video, body)


def check(dataset, raw, split, video, body):
    tracks, account = dataset.read_accounted(raw, split, video, body)
    assert account.set_aside != reading.UNEXPECTED
    for track in tracks:
        assert track_problems(track) == []
        assert track.frames is None or all(
            frame.problem is None for frame in track.frames.read([0])
        )
