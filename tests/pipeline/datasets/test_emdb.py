"""EMDB's reader: files of exactly the release's form by hand, and each trap of the format."""

import pickle

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline import cameras, datasets
from pipeline.accounting import Accounting
from pipeline.demo.body import procedural, skin
from tests.pipeline.datasets.by_hand import read_one, refusal, touch

EMDB = datasets.get("emdb")
SEQ, WIDTH, HEIGHT, N = "P0/09_outdoor_walk", 1440, 1920, 12
K = np.array([[1500.0, 0, 720], [0, 1510, 960], [0, 0, 1]])


def sequence(gender="female"):
    """Somebody 4 m before a camera that walks and turns; the world is y up, so that the camera
    stands on its head.
    """
    random = np.random.default_rng(0)
    pose, betas = random.normal(0, 0.2, (N, 72)), random.normal(0, 1, 10)
    pose[:, :3] = (0, 1.5, 0)  # upright in a world with y up
    trans = np.linspace([3.0, 1.2, -2.0], [3.5, 1.2, -2.4], N)
    extrinsics = np.tile(np.eye(4), (N, 1, 1))
    turn = Rotation.from_rotvec(
        np.linspace([0.0, 0.1, 0], [0.1, 0.4, 0.05], N)
    ) * Rotation.from_euler("x", np.pi)
    extrinsics[:, :3, :3] = turn.as_matrix()
    extrinsics[:, :3, 3] = (0, 0, 4) - turn.apply(trans) + random.normal(0, 0.02, (N, 3))
    joints = skin(procedural(gender), betas, pose, trans).joints
    kp_2d = cameras.project(
        joints @ extrinsics[:, :3, :3].transpose(0, 2, 1) + extrinsics[:, None, :3, 3], K
    )
    return {
        "gender": gender,
        "name": "P0_09_outdoor_walk",
        "emdb1": True,
        "emdb2": False,
        "n_frames": N,
        "good_frames_mask": np.ones(N, bool),
        "camera": {"intrinsics": K, "extrinsics": extrinsics, "width": WIDTH, "height": HEIGHT},
        "smpl": {
            "poses_root": pose[:, :3],
            "poses_body": pose[:, 3:],
            "trans": trans,
            "betas": betas,
        },
        "kp2d": kp_2d,
        "bboxes": {
            "bboxes": np.concatenate([kp_2d.min(axis=1) - 10, kp_2d.max(axis=1) + 10], axis=1),
            "invalid_idxs": np.array([], np.int64),
        },
    }


def write(raw, data, pictures=range(N), size=(WIDTH, HEIGHT)):
    folder = touch(raw / SEQ / "images", *map("{:05d}.jpg".format, pictures))
    for picture in sorted(folder.iterdir())[:1]:
        cv2.imwrite(str(picture), np.zeros((size[1], size[0], 3), np.uint8))
    file = raw / SEQ / f"{SEQ.replace('/', '_')}_data.pkl"
    file.write_bytes(pickle.dumps(data))
    return file


def read(raw, body=None):
    tracks, account = read_one(EMDB, raw, "emdb1", body)
    return (tracks[0] if tracks else None), account


def changed(*path, to):
    """The sequence with another entry; a function of the one that it has."""
    data = inner = sequence()
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to(inner[path[-1]]) if callable(to) else to
    return data


def test_what_is_left_out_is_counted_and_the_numbers_stay_the_pictures(tmp_path):
    data = sequence()
    data["good_frames_mask"][[0, 1]] = False
    data["bboxes"]["invalid_idxs"] = np.array([1, 4])
    data["bboxes"]["bboxes"][2] = (100, 200, 300, 700)  # corners
    data["bboxes"]["bboxes"][5] = (300, 300, 200, 400)  # the right edge is left of the left one
    data["camera"]["extrinsics"][7, 0] *= -1  # a mirror
    data["camera"]["extrinsics"][8, :3, :3] *= 1.2
    data["smpl"]["trans"][9] = np.nan
    write(tmp_path, data, pictures=set(range(N)) - {6})
    track, account = read(tmp_path)
    assert track.frame_index.tolist() == [2, 3, 10, 11]
    reasons = {"not_good": 2, "no_box": 2, "no_picture": 1, "bad_camera": 2, "label_not_finite": 1}
    assert (account["found"], account["kept"], account["dropped"]) == (N, 4, reasons)
    np.testing.assert_array_equal(
        track.extra["extrinsics"], data["camera"]["extrinsics"][[2, 3, 10, 11]].astype("f4")
    )
    np.testing.assert_array_equal(track.bbox[0], (200, 450, 500, 500))


def test_the_flags_decide_the_split_and_both_may_be_set(tmp_path):
    for flags, expected in (
        ((True, False), [1, 0]),
        ((False, True), [0, 1]),
        ((np.True_, np.True_), [1, 1]),
    ):
        write(tmp_path, sequence() | {"emdb1": flags[0], "emdb2": flags[1]})
        kept = [list(EMDB.tracks(tmp_path, split, report=Accounting())) for split in EMDB.splits]
        assert [len(tracks) for tracks in kept] == expected


HALF = {"size": (720, 960)}
# reason, word of the message, labels, how they are written
TRAPS = [
    ("other_picture_size", "720 x 960", sequence(), HALF),
    (
        "other_picture_size",
        "principal point",
        changed("camera", to=lambda c: c | {"width": 720, "height": 960}),
        HALF,
    ),
    ("no_picture", "none", sequence(), {"pictures": ()}),
    (
        "bad_label_file",
        "found 'neutral'. Remove this sequence",
        changed("gender", to="neutral"),
        {},
    ),
    ("bad_label_file", "camera/width", changed("camera", to={}), {}),
    ("bad_label_file", "kp2d", changed("kp2d", to=lambda k: k[:-1]), {}),
    ("bad_label_file", "bboxes/bboxes", changed("bboxes", to=lambda b: b["bboxes"]), {}),
    ("bad_label_file", "betas", changed("smpl", "betas", to=np.full(10, np.nan)), {}),
    ("bad_label_file", "invalid_idxs", changed("bboxes", "invalid_idxs", to=[-1]), {}),
    ("unsafe_pickle", "print", {"gender": print}, {}),
    ("no_label", "only images", None, {}),
]


@pytest.mark.parametrize(
    ("reason", "word", "data", "options"), TRAPS, ids=[trap[1] for trap in TRAPS]
)
def test_traps_are_refused_by_name(reason, word, data, options, tmp_path):
    file = write(tmp_path, data, **options)
    if data is None:
        file.unlink()
    error = refusal(EMDB, tmp_path, "emdb1")
    assert (error.reason, word in str(error)) == (reason, True), str(error)
