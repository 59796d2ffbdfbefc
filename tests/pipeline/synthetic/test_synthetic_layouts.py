"""Embedded data as files: the official layouts to the key and type, read here without the product's readers."""

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
from pipeline.synthetic.body import skinning
from pipeline.synthetic.body.body import procedural
from pipeline.synthetic.layouts import amass, kinetics, penn_action, python2_pickle, threedpw
from pipeline.synthetic.layouts.layout import Request

SPIN49 = JOINTS["spin49"]
PENN_ACTION = "headtop lshoulder rshoulder lelbow relbow lwrist rwrist lhip rhip lknee rknee lankle rankle"  # DATASETS
POSES_2D = "nose thorax rshoulder relbow rwrist lshoulder lelbow lwrist rhip rknee rankle lhip lknee lankle"


@pytest.fixture(scope="module")
def penn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "penn_action"
    return folder, synthetic.write_dataset("penn_action", folder, n_videos=2, n_frames=12, seed=5)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "kinetics"
    return folder, synthetic.write_dataset("kinetics", folder, n_videos=3, n_frames=18, seed=5)


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "3dpw"
    return folder, synthetic.write_dataset("3dpw", folder, n_videos=3, n_frames=10, seed=5)


@pytest.fixture(scope="module")
def motions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / "amass"
    return folder, synthetic.write_dataset("amass", folder, n_videos=5, n_frames=60, seed=5)


def unpickled(file):
    """What Python 3 makes of a Python 2 pickle, as the release's own scripts read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy 2 has renamed the module that the files name
        return pickle.loads(file.read_bytes(), encoding="latin1")


def names_and_labels(take, order):
    return take.actors[0].kp_2d[:, [SPIN49.index(name) for name in order]]


def test_penn_action_has_numbered_pictures_from_one(penn) -> None:
    folder, takes = penn
    assert sorted(p.name for p in folder.iterdir()) == ["STAND_IN.json", "frames", "labels"]
    assert sorted(t.shot.name for t in takes) == ["0001", "0002", "0003", "0004"]
    for take in takes:
        pictures = sorted(p.name for p in (folder / "frames" / take.shot.name).iterdir())
        assert pictures == [f"{i:06d}.jpg" for i in range(1, 13)]
        image = cv2.imread(str(folder / "frames" / take.shot.name / pictures[0]))
        assert image.shape == (take.shot.height, take.shot.width, 3)


def test_penn_action_labels_have_the_official_variables(penn) -> None:
    folder, takes = penn
    for take in takes:
        mat = loadmat(folder / "labels" / f"{take.shot.name}.mat")
        assert {k for k in mat if not k.startswith("__")} == {
            "action", "pose", "x", "y", "visibility", "train", "bbox", "dimensions", "nframes",
        }  # fmt: skip
        assert mat["x"].shape == mat["y"].shape == mat["visibility"].shape == (12, 13)
        assert mat["x"].dtype == np.float64
        assert mat["visibility"].dtype == mat["nframes"].dtype == np.uint8
        assert mat["bbox"].shape == (12, 4)
        assert mat["nframes"].item() == 12
        assert mat["dimensions"].tolist() == [[take.shot.height, take.shot.width, 12]]
        assert mat["train"].item() == {"train": 1, "test": -1}[take.shot.split]
        assert mat["action"][0] in penn_action.ACTIONS
        assert mat["pose"][0] in ("front", "back", "left", "right")
    assert {str(loadmat(folder / "labels" / f"{t.shot.name}.mat")["bbox"].dtype) for t in takes} > {"float64"}


def test_penn_action_coordinates_count_from_one_in_its_own_order(penn) -> None:
    folder, takes = penn
    order = PENN_ACTION.split()
    for take in takes:
        mat = loadmat(folder / "labels" / f"{take.shot.name}.mat")
        stored = np.stack([mat["x"], mat["y"]], axis=-1)
        unmarked = (stored == penn_action.NOT_LABELLED).all(axis=-1)
        np.testing.assert_allclose(stored[~unmarked], names_and_labels(take, order)[~unmarked] + 1, atol=1e-9)
        assert not (unmarked & (mat["visibility"] == 1)).any()
        inside = (mat["bbox"][:, None, :2] <= stored) & (stored <= mat["bbox"][:, None, 2:])
        assert inside[mat["visibility"] == 1].all()


def test_limbs_in_the_pictures_have_the_colour_of_their_side_where_labels_say_they_are(penn) -> None:
    folder, takes = penn
    right, total = 0, 0
    for take in takes:
        mat = loadmat(folder / "labels" / f"{take.shot.name}.mat")
        for frame in range(12):
            image = cv2.imread(str(folder / "frames" / take.shot.name / f"{frame + 1:06d}.jpg")).astype(int)
            for elbow, wrist, sign in ((3, 5, 1), (4, 6, -1)):  # left and right in Penn Action's order
                if not mat["visibility"][frame, [elbow, wrist]].all():
                    continue
                x, y = ((mat[axis][frame, elbow] + mat[axis][frame, wrist]) / 2 - 1 for axis in "xy")
                blue, _, red = image[round(y), round(x)]
                right += sign * (blue - red) > 40
                total += 1
    assert total > 40
    assert right / total > 0.95


def test_kinetics_has_clips_by_class_lists_and_keypoints(clips) -> None:
    folder, takes = clips
    assert sorted(p.name for p in folder.iterdir()) == ["STAND_IN.json", "annotations", "keypoints", "train", "val"]
    for take in takes:
        name = take.shot.name
        assert re.fullmatch(r"[\w-]{11}_\d{6}_\d{6}", name)
        files = list((folder / take.shot.split).glob(f"*/{name}.mp4"))
        assert len(files) == 1
        video = cv2.VideoCapture(str(files[0]))
        assert video.get(cv2.CAP_PROP_FPS) == take.shot.fps
        frames = sum(1 for _ in iter(lambda video=video: video.read()[0], False))
        assert frames == take.shot.n_frames
        with (folder / "annotations" / f"{take.shot.split}.csv").open() as stream:
            rows = {row["youtube_id"]: row for row in csv.DictReader(stream)}
        row = rows[name[:11]]
        assert list(row) == ["label", "youtube_id", "time_start", "time_end", "split"]
        assert row["label"] == files[0].parent.name
        assert f"{int(row['time_start']):06d}_{int(row['time_end']):06d}" == name[12:]
        assert row["split"] == take.shot.split


def openpose(folder, take):
    where = folder / "keypoints" / take.shot.split / take.shot.name
    return [
        json.loads((where / f"{take.shot.name}_{frame:012d}_keypoints.json").read_text())
        for frame in range(take.shot.n_frames)
    ]


def test_openpose_files_have_the_official_keys_for_every_frame(clips) -> None:
    folder, takes = clips
    alphapose = [i for i in range(len(takes)) if i % kinetics.ALPHAPOSE_EVERY == kinetics.ALPHAPOSE_EVERY - 1]
    for i, take in enumerate(takes):
        if i in alphapose:
            continue
        frames = openpose(folder, take)
        assert all(set(frame) == {"version", "people"} and frame["version"] == 1.3 for frame in frames)
        people = [person for frame in frames for person in frame["people"]]
        assert all(len(p["pose_keypoints_2d"]) == 75 and p["person_id"] == [-1] for p in people)
        assert all(p["face_keypoints_2d"] == [] and p["pose_keypoints_3d"] == [] for p in people)
    assert any(frame["people"] == [] for frame in openpose(folder, takes[0]))
    assert max(len(frame["people"]) for frame in openpose(folder, takes[1])) == 2


def test_openpose_coordinates_are_the_projected_joints_with_the_noise_that_is_documented(clips) -> None:
    folder, takes = clips
    errors = []
    for frame, content in enumerate(openpose(folder, takes[0])):
        for person in content["people"]:
            joints = np.array(person["pose_keypoints_2d"]).reshape(25, 3)
            found = joints[:, 2] > 0
            errors.append(joints[found, :2] - takes[0].actors[0].kp_2d[frame, :25][found])
            assert (joints[~found] == 0).all()
            assert joints[:, 2].max() <= 1
    assert np.concatenate(errors).std() == pytest.approx(kinetics.NOISE_PX, rel=0.15)


def test_people_come_in_no_fixed_order(clips) -> None:
    folder, takes = clips
    firsts = []
    for frame, content in enumerate(openpose(folder, takes[1])):
        if len(content["people"]) == 2:
            joints = np.array(content["people"][0]["pose_keypoints_2d"]).reshape(25, 3)
            found = joints[:, 2] > 0
            apart = [np.abs(joints[found, :2] - a.kp_2d[frame, :25][found]).max() for a in takes[1].actors]
            firsts.append(int(np.argmin(apart)))
            assert min(apart) < 3
    assert set(firsts) == {0, 1}


def test_one_clip_has_alphapose_results(clips) -> None:
    folder, takes = clips
    take = takes[kinetics.ALPHAPOSE_EVERY - 1]
    where = folder / "keypoints" / take.shot.split / take.shot.name
    assert [p.name for p in where.iterdir()] == [f"{take.shot.name}.json"]
    entries = json.loads((where / f"{take.shot.name}.json").read_text())
    coco = (
        "nose leye reye lear rear lshoulder rshoulder lelbow relbow lwrist rwrist lhip rhip lknee rknee lankle rankle"
    )
    for entry in entries:
        assert set(entry) == {"image_id", "category_id", "keypoints", "score", "box", "idx"}
        frame, person = int(entry["image_id"].removesuffix(".jpg")), entry["idx"] - 1
        joints = np.array(entry["keypoints"]).reshape(17, 3)
        truth = take.actors[person].kp_2d[frame, [SPIN49.index(name) for name in coco.split()]]
        assert np.abs((joints[:, :2] - truth)[joints[:, 2] > 0]).max() < 6 * kinetics.NOISE_PX


def test_3dpw_has_the_official_keys_shapes_and_types(sequences) -> None:
    folder, takes = sequences
    assert sorted(p.name for p in folder.iterdir()) == ["STAND_IN.json", "imageFiles", "sequenceFiles"]
    assert [t.shot.split for t in takes] == ["train"] * 3 + ["validation"] * 3 + ["test"] * 3
    assert [len(t.actors) for t in takes][:3] == [1, 1, 2]
    for take in takes:
        name, actors = take.shot.name, len(take.actors)
        pictures = sorted(p.name for p in (folder / "imageFiles" / name).iterdir())
        assert pictures == [f"image_{i:05d}.jpg" for i in range(10)]
        labels = unpickled(folder / "sequenceFiles" / take.shot.split / f"{name}.pkl")
        assert set(labels) == {
            "sequence", "genders", "betas", "betas_clothed", "poses", "trans", "poses_60Hz", "trans_60Hz",
            "jointPositions", "poses2d", "img_frame_ids", "cam_poses", "cam_intrinsics", "campose_valid",
            "v_template_clothed", "texture_maps",
        }  # fmt: skip
        assert labels["sequence"] == name
        assert set(labels["genders"]) <= {"m", "f"}
        shapes = {"betas": (300,), "poses": (10, 72), "trans": (10, 3), "poses2d": (10, 3, 18), "campose_valid": (10,)}
        shapes |= {
            "jointPositions": (10, 72),
            "v_template_clothed": (6890, 3),
            "poses_60Hz": (19, 72),
            "trans_60Hz": (19, 3),
        }
        for key, shape in shapes.items():
            assert isinstance(labels[key], list)
            assert [array.shape for array in labels[key]] == [shape] * actors, key
        assert labels["cam_poses"].shape == (10, 4, 4)
        assert labels["cam_intrinsics"].shape == (3, 3)
        assert labels["img_frame_ids"].shape == (10,)
        assert labels["campose_valid"][0].dtype == np.bool_
        assert labels["poses"][0].dtype == labels["cam_poses"].dtype == np.float64


def test_3dpw_labels_are_the_truth_and_agree_with_each_other(sequences) -> None:
    folder, takes = sequences
    order = POSES_2D.split()
    body = procedural()
    for take in takes:
        labels = unpickled(folder / "sequenceFiles" / take.shot.split / f"{take.shot.name}.pkl")
        for i, actor in enumerate(take.actors):
            np.testing.assert_array_equal(labels["poses"][i], actor.pose)
            np.testing.assert_array_equal(labels["betas"][i][:10], actor.betas)
            skinned = skinning.skin(body, labels["betas"][i][:10], labels["poses"][i], labels["trans"][i])
            np.testing.assert_allclose(labels["jointPositions"][i].reshape(10, 24, 3), skinned.joints, atol=1e-9)
            world = skinning.spin49(body, skinned)[:, [SPIN49.index(name) for name in order]]
            seen = (
                np.einsum("tab,tjb->tja", labels["cam_poses"][:, :3, :3], world) + labels["cam_poses"][:, None, :3, 3]
            )
            pixels = seen @ labels["cam_intrinsics"].T
            stored = labels["poses2d"][i].transpose(0, 2, 1)
            detected = (stored != 0).any(axis=(1, 2))
            assert detected.sum() == 10 - (threedpw.UNSEEN_FRAMES if take.shot.number % 3 == 1 else 0)
            projected = (pixels[..., :2] / pixels[..., 2:])[detected]
            np.testing.assert_allclose(stored[detected, :14, :2], projected, atol=1e-6)
            assert (stored[detected, :, 2] > 0.3).mean() > 0.6
            turns = Rotation.from_rotvec(labels["poses_60Hz"][i][::2].reshape(-1, 3))
            exact = Rotation.from_rotvec(actor.pose.reshape(-1, 3))
            assert (turns * exact.inv()).magnitude().max() < 1e-6


def test_some_sequences_start_undetected_and_some_end_with_an_invalid_camera() -> None:
    shots = synthetic.LAYOUTS["3dpw"].shots(Request())
    assert {s.n_people for s in shots} == {1, 2}
    assert {s.split for s in shots} == {"train", "validation", "test"}
    assert any(s.number % 3 == 1 for s in shots)
    assert any(s.number % 4 == 3 for s in shots)


def test_a_3dpw_pickle_speaks_python_2_and_names_nothing_but_numpy_arrays(sequences) -> None:
    folder, takes = sequences
    file = folder / "sequenceFiles" / "train" / f"{takes[0].shot.name}.pkl"
    found = [(op.name, arg) for op, arg, _ in pickletools.genops(file.read_bytes())]
    assert found[0] == ("PROTO", 2)
    named = {arg for op, arg in found if op == "GLOBAL"}
    assert named == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    assert not {op for op, _ in found} & {"BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "STACK_GLOBAL", "FRAME"}


def test_python_2_pickles_round_trip(tmp_path) -> None:
    values = {
        "a": [1, -2, 2.5, True, None, "x" * 300],
        "b": (np.arange(6.0).reshape(2, 3), np.array([True, False]), np.zeros((0, 4), np.uint8), np.float32([[1.5]])),
        "c": np.arange(6).reshape(2, 3).T,
    }
    file = tmp_path / "x.pkl"
    file.write_bytes(python2_pickle.dumps(values))
    again = unpickled(file)
    assert again["a"] == values["a"]
    for old, new in zip((*values["b"], values["c"]), (*again["b"], again["c"]), strict=True):
        np.testing.assert_array_equal(old, new)
        assert old.dtype == new.dtype


@pytest.mark.parametrize("value", [{1, 2}, np.array(["text"]), np.array([None]), object(), 1j])
def test_what_a_3dpw_file_never_holds_is_not_pickled(value) -> None:
    with pytest.raises(TypeError, match="3DPW"):
        python2_pickle.dumps({"key": value})


def test_amass_has_the_official_keys_shapes_and_types(motions) -> None:
    folder, takes = motions
    assert {t.shot.fps for t in takes} == {120.0, 100.0, 60.0}
    for take in takes:
        motion = np.load(folder / take.shot.file)
        assert set(motion) == {"trans", "gender", "mocap_framerate", "betas", "dmpls", "poses"}
        assert motion["poses"].shape == (60, 156)
        assert motion["trans"].shape == (60, 3)
        assert motion["betas"].shape == (16,)
        assert motion["dmpls"].shape == (60, 8)
        assert motion["mocap_framerate"].item() == take.shot.fps
        assert str(motion["gender"]) in ("male", "female")
        assert motion["poses"].dtype == motion["trans"].dtype == np.float64
        assert (folder / take.shot.file).name.endswith("_poses.npz")
        shape = np.load((folder / take.shot.file).with_name("shape.npz"))
        assert set(shape) == {"gender", "betas"}


def test_amass_stands_on_a_ground_whose_normal_is_z(motions) -> None:
    folder, takes = motions
    body = procedural()
    for take in takes:
        motion = np.load(folder / take.shot.file)
        pose = np.concatenate([motion["poses"][:, :66], motion["poses"][:, 66:69], motion["poses"][:, 111:114]], axis=1)
        np.testing.assert_array_equal(pose, take.actors[0].pose)
        verts = skinning.skin(body, motion["betas"][:10], pose, motion["trans"], np.arange(0, 6890, 3)).verts
        assert np.abs(verts[..., 2].min(axis=1)).max() < 0.15  # a foot is on the ground, or a hop above
        assert verts[..., 2].max(axis=1).min() > 0.8


def test_turning_a_world_z_up_moves_every_vertex_as_one() -> None:
    body, rng = procedural(), np.random.default_rng(0)
    pose, trans, betas = rng.normal(0, 0.3, (1, 72)), rng.normal(0, 1, (1, 3)), rng.normal(0, 1, 10)
    before = skinning.skin(body, betas, pose, trans).verts[0]
    after = skinning.skin(body, betas, *amass.z_up(pose, trans, skinning.rest_joints(body, betas)[0])).verts[0]
    np.testing.assert_allclose(after, np.stack([before[:, 0], -before[:, 2], before[:, 1]], axis=1), atol=1e-9)
