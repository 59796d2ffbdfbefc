"""Demo data as files: the official layouts to the key and type, read here without the product's readers."""

import csv
import json
import pickle
import pickletools
import re
import warnings

import cv2
import numpy as np
import pytest
from scipy.io import loadmat
from scipy.spatial.transform import Rotation

from pipeline import synthetic
from pipeline.skeletons import JOINTS
from pipeline.synthetic.body import procedural, rest_joints, skin, spin49
from pipeline.synthetic.files import python2_pickle
from pipeline.synthetic.layouts import Request, amass, kinetics, penn_action, threedpw

SPIN49 = JOINTS["spin49"]
# In the order of the releases' own documentation.
PENN_ACTION = "headtop lshoulder rshoulder lelbow relbow lwrist rwrist lhip rhip lknee rknee lankle rankle"
POSES_2D = "nose thorax rshoulder relbow rwrist lshoulder lelbow lwrist rhip rknee rankle lhip lknee lankle"
COCO = "nose leye reye lear rear lshoulder rshoulder lelbow relbow lwrist rwrist lhip rhip lknee rknee lankle rankle"


def truth(actor, order: str) -> np.ndarray:
    """(T, J, 2) px."""
    return actor.kp_2d[:, [SPIN49.index(name) for name in order.split()]]


def test_penn_action_has_the_official_files_variables_and_coordinates_from_one(embedded) -> None:
    folder, takes = embedded.raw("penn_action"), embedded.takes("penn_action")
    assert sorted(p.name for p in folder.iterdir()) == ["STAND_IN.json", "frames", "labels"]
    assert [t.shot.name for t in takes] == [f"{number:04d}" for number in range(1, 7)]
    types, right_colour = set(), []
    for take in takes:
        shot, n = take.shot, take.shot.n_frames
        pictures = [cv2.imread(str(p)) for p in sorted((folder / "frames" / shot.name).iterdir())]
        assert [p.name for p in sorted((folder / "frames" / shot.name).iterdir())] == [
            f"{i:06d}.jpg" for i in range(1, n + 1)
        ]
        mat = loadmat(folder / "labels" / f"{shot.name}.mat")
        assert {k for k in mat if not k.startswith("__")} == {
            "action", "pose", "x", "y", "visibility", "train", "bbox", "dimensions", "nframes",
        }  # fmt: skip
        assert mat["x"].shape == mat["y"].shape == mat["visibility"].shape == (n, 13)
        assert (mat["x"].dtype, mat["visibility"].dtype, mat["nframes"].dtype) == (np.float64, np.uint8, np.uint8)
        assert mat["nframes"].item() == n
        assert mat["dimensions"].tolist() == [[*pictures[0].shape[:2], n]]
        assert mat["train"].item() == {"train": 1, "test": -1}[shot.split]
        assert mat["action"][0] in penn_action.ACTIONS
        assert mat["pose"][0] in ("front", "back", "left", "right")
        types.add(str(mat["bbox"].dtype))
        stored, seen = np.stack([mat["x"], mat["y"]], axis=-1), mat["visibility"] == 1
        unmarked = (stored == penn_action.NOT_LABELLED).all(axis=-1)
        np.testing.assert_allclose(stored[~unmarked], truth(take.actors[0], PENN_ACTION)[~unmarked] + 1, atol=1e-9)
        assert not (unmarked & seen).any()
        assert ((mat["bbox"][:, None, :2] <= stored) & (stored <= mat["bbox"][:, None, 2:]))[seen].all()
        for elbow, wrist, sign in ((3, 5, 1), (4, 6, -1)):  # left arms are blue, right ones orange
            for frame in np.flatnonzero(seen[:, [elbow, wrist]].all(axis=1)):
                x, y = np.round(stored[frame, [elbow, wrist]].mean(axis=0) - 1).astype(int)
                blue, _, red = pictures[frame][y, x].astype(int)
                right_colour.append(sign * (blue - red) > 40)
    assert {"float64"} < types  # boxes are whole numbers in some files
    assert len(right_colour) > 30
    assert np.mean(right_colour) > 0.95


def test_kinetics_has_clips_by_class_lists_and_keypoints(embedded) -> None:
    folder, takes = embedded.raw("kinetics"), embedded.takes("kinetics")
    assert sorted(p.name for p in folder.iterdir()) == ["STAND_IN.json", "annotations", "keypoints", "train", "val"]
    for take in takes:
        name, split = take.shot.name, take.shot.split
        assert re.fullmatch(r"[\w-]{11}_\d{6}_\d{6}", name)
        (file,) = (folder / split).glob(f"*/{name}.mp4")
        video = cv2.VideoCapture(str(file))
        assert video.get(cv2.CAP_PROP_FPS) == take.shot.fps
        assert sum(1 for _ in iter(lambda video=video: video.read()[0], False)) == take.shot.n_frames
        with (folder / f"annotations/{split}.csv").open() as stream:
            (row,) = csv.DictReader(stream)
        assert list(row) == ["label", "youtube_id", "time_start", "time_end", "split"]
        assert (row["label"], row["split"], row["youtube_id"]) == (file.parent.name, split, name[:11])
        assert f"{int(row['time_start']):06d}_{int(row['time_end']):06d}" == name[12:]


def test_openpose_files_hold_the_projected_joints_with_noise_and_people_in_no_fixed_order(embedded) -> None:
    folder, takes = embedded.raw("kinetics"), embedded.takes("kinetics")  # of one person, and of two
    errors, n_people, firsts = [], [set(), set()], set()
    for number, take in enumerate(takes):
        name, split = take.shot.name, take.shot.split
        for frame in range(take.shot.n_frames):
            file = folder / "keypoints" / split / name / f"{name}_{frame:012d}_keypoints.json"
            content = json.loads(file.read_text())
            assert (set(content), content["version"]) == ({"version", "people"}, 1.3)
            n_people[number].add(len(content["people"]))
            for position, person in enumerate(content["people"]):
                assert person["person_id"] == [-1]
                assert person["face_keypoints_2d"] == person["pose_keypoints_3d"] == []
                joints = np.array(person["pose_keypoints_2d"]).reshape(25, 3)
                found = joints[:, 2] > 0
                assert joints[:, 2].max() <= 1
                assert not joints[~found].any()
                apart = [joints[found, :2] - a.kp_2d[frame, :25][found] for a in take.actors]
                who = int(np.argmin([np.abs(a).max() for a in apart]))
                errors.append(apart[who].ravel())
                firsts |= {who} if number == 1 and position == 0 and len(content["people"]) == 2 else set()
    assert 0 in n_people[0]  # frames without detections
    assert max(n_people[1]) == 2
    assert firsts == {0, 1}
    assert np.concatenate(errors).std() == pytest.approx(kinetics.NOISE_PX, rel=0.15)


def test_every_fifth_clip_has_alphapose_results(tmp_path) -> None:
    take = kinetics.record(synthetic.LAYOUTS["kinetics"].shots(Request(seed=5, n_frames=2))[4], tmp_path)
    (file,) = (tmp_path / "keypoints/train" / take.shot.name).iterdir()
    assert file.name == f"{take.shot.name}.json"
    for entry in json.loads(file.read_text()):
        assert set(entry) == {"image_id", "category_id", "keypoints", "score", "box", "idx"}
        frame, actor = int(entry["image_id"].removesuffix(".jpg")), take.actors[entry["idx"] - 1]
        joints = np.array(entry["keypoints"]).reshape(17, 3)
        assert np.abs((joints[:, :2] - truth(actor, COCO)[frame])[joints[:, 2] > 0]).max() < 6 * kinetics.NOISE_PX


def unpickled(data: bytes):
    """What Python 3 makes of a Python 2 pickle, as the release's own scripts read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy 2 has renamed the module that the files name
        return pickle.loads(data, encoding="latin1")


def test_3dpw_has_the_official_keys_shapes_and_types_and_the_truth(embedded, tmp_path) -> None:
    body, shots = procedural(), synthetic.LAYOUTS["3dpw"].shots(Request(seed=5, n_frames=3))
    assert {(s.split, s.n_people) for s in shots} >= {("train", 2), ("train", 1), ("validation", 1), ("test", 1)}
    undetected, pair = embedded.takes("3dpw")[1], threedpw.record(shots[2], tmp_path)
    for folder, take, unseen in ((embedded.raw("3dpw"), undetected, threedpw.UNSEEN_FRAMES), (tmp_path, pair, 0)):
        shot, n = take.shot, take.shot.n_frames
        pictures = sorted(p.name for p in (folder / "imageFiles" / shot.name).iterdir())
        assert pictures == [f"image_{i:05d}.jpg" for i in range(n)]
        data = (folder / "sequenceFiles" / shot.split / f"{shot.name}.pkl").read_bytes()
        labels = unpickled(data)
        arrays = {
            "betas": (300,), "betas_clothed": (300,), "poses": (n, 72), "trans": (n, 3),
            "poses_60Hz": (2 * n - 1, 72), "trans_60Hz": (2 * n - 1, 3), "jointPositions": (n, 72),
            "poses2d": (n, 3, 18), "campose_valid": (n,),
            "v_template_clothed": (6890, 3), "texture_maps": (1, 1, 3),
        }  # fmt: skip
        rest = {"sequence", "genders", "img_frame_ids", "cam_poses", "cam_intrinsics"}
        assert labels.keys() == arrays.keys() | rest
        assert labels["sequence"] == shot.name
        assert set(labels["genders"]) <= {"m", "f"}
        for key, shape in arrays.items():
            assert [array.shape for array in labels[key]] == [shape] * len(take.actors), key
        cameras = labels["cam_poses"]
        shapes = [labels[key].shape for key in ("cam_poses", "cam_intrinsics", "img_frame_ids")]
        assert shapes == [(n, 4, 4), (3, 3), (n,)]
        assert labels["campose_valid"][0].dtype == np.bool_
        for i, actor in enumerate(take.actors):
            np.testing.assert_array_equal(labels["poses"][i], actor.pose)
            skinned = skin(body, labels["betas"][i][:10], labels["poses"][i], labels["trans"][i])
            np.testing.assert_allclose(labels["jointPositions"][i].reshape(n, 24, 3), skinned.joints, atol=1e-9)
            world = spin49(body, skinned)[:, [SPIN49.index(name) for name in POSES_2D.split()]]
            seen = np.einsum("tab,tjb->tja", cameras[:, :3, :3], world) + cameras[:, None, :3, 3]
            pixels = seen @ labels["cam_intrinsics"].T
            stored = labels["poses2d"][i].transpose(0, 2, 1)
            detected = (stored != 0).any(axis=(1, 2))
            assert detected.sum() == n - unseen
            projected = pixels[detected, :, :2] / pixels[detected, :, 2:]
            np.testing.assert_allclose(stored[detected, :14, :2], projected, atol=1e-6)
            assert (stored[detected, :, 2] > 0.3).mean() > 0.6
            turns = Rotation.from_rotvec(labels["poses_60Hz"][i][::2].reshape(-1, 3))
            assert (turns * Rotation.from_rotvec(actor.pose.reshape(-1, 3)).inv()).magnitude().max() < 1e-6
        ops = [(op.name, arg) for op, arg, _ in pickletools.genops(data)]  # as Python 2 wrote it, arrays and no more
        named = {arg for op, arg in ops if op == "GLOBAL"}
        assert named == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
        assert not {op for op, _ in ops} & {"BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "STACK_GLOBAL", "FRAME"}


def test_python_2_pickles_round_trip_and_hold_nothing_else() -> None:
    plain = [1, -2, 2.5, True, None, "x" * 300]
    arrays = (np.arange(6.0).reshape(2, 3), np.array([True, False]), np.zeros((0, 4), np.uint8), np.float32([[1.5]]))
    again = unpickled(python2_pickle({"a": plain, "b": (*arrays, np.arange(6).reshape(2, 3).T)}))
    assert again["a"] == plain
    for old, new in zip((*arrays, np.arange(6).reshape(2, 3).T), again["b"], strict=True):
        np.testing.assert_array_equal(old, new)
        assert old.dtype == new.dtype
    for value in ({1, 2}, np.array(["text"]), np.array([None]), object(), 1j):
        with pytest.raises(TypeError, match="3DPW"):
            python2_pickle({"key": value})


def test_amass_has_the_official_keys_on_a_ground_whose_normal_is_z(embedded) -> None:
    folder, takes = embedded.raw("amass"), embedded.takes("amass")
    n, body = takes[0].shot.n_frames, procedural()
    for take in takes:
        file = folder / take.shot.file
        motion, shape = np.load(file), np.load(file.with_name("shape.npz"))
        shapes = {"trans": (n, 3), "gender": (), "mocap_framerate": (), "betas": (16,), "dmpls": (n, 8)}
        assert {key: motion[key].shape for key in motion} == {**shapes, "poses": (n, 156)}
        assert set(shape) == {"gender", "betas"}
        assert file.name.endswith("_poses.npz")
        assert motion["mocap_framerate"].item() == take.shot.fps
        assert str(motion["gender"]) in ("male", "female")
        assert motion["poses"].dtype == motion["trans"].dtype == np.float64
        hands = [motion["poses"][:, joint : joint + 3] for joint in (66, 111)]  # the index fingers' roots
        pose = np.concatenate([motion["poses"][:, :66], *hands], axis=1)
        np.testing.assert_array_equal(pose, take.actors[0].pose)
        some = np.arange(0, n, 15)
        verts = skin(body, motion["betas"][:10], pose[some], motion["trans"][some], np.arange(0, 6890, 3)).verts
        assert np.abs(verts[..., 2].min(axis=1)).max() < 0.15  # a foot is on the ground, or a hop above
        assert verts[..., 2].max(axis=1).min() > 0.8


def test_turning_a_world_z_up_moves_every_vertex_as_one() -> None:
    body, rng = procedural(), np.random.default_rng(0)
    pose, trans, betas = rng.normal(0, 0.3, (1, 72)), rng.normal(0, 1, (1, 3)), rng.normal(0, 1, 10)
    x, y, z = skin(body, betas, pose, trans).verts[0].T
    after = skin(body, betas, *amass.z_up(pose, trans, rest_joints(body, betas)[0])).verts[0]
    np.testing.assert_allclose(after, np.stack([x, -z, y], axis=1), atol=1e-9)
