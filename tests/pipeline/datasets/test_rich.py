"""RICH's reader: labels of a made-up release against numbers of its own, and traps of the format."""

import pickle
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cache
from pipeline import datasets
from pipeline.accounting import Accounting
from pipeline.errors import MissingAssets, RawDataError
from pipeline.people.skeletons import JOINTS, correspondence
from pipeline.people.smplx_body import SmplxBody
from tests.pipeline.datasets.by_hand import read_video, require
from tests.pipeline.datasets.contract import ANOTHER_START, HALF, RENUMBERED, SHIFTED, ImageFolders
from tests.pipeline.datasets.label_files import edit_labels
from tests.pipeline.datasets.made_smplx import N_JOINTS, N_VERTICES, PARENTS, write_models

RICH = datasets.get("rich")
WIDTH, HEIGHT = 640, 480
SEQUENCE, FRAMES = "Gym_009_011_dance", (2, 3, 5, 6)
GENDERS = {"009": "female", "011": "male"}  # by the toolkit's gender.json


def made_body(rng):
    sizes = {
        "global_orient": 3, "body_pose": 63, "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3,
        "left_hand_pose": 12, "right_hand_pose": 12, "betas": 10, "expression": 10,
    }  # fmt: skip
    content = {key: rng.normal(0, 0.4, (1, n)).astype("f4") for key, n in sizes.items()}
    return content | {"transl": rng.uniform(-0.3, 0.3, (1, 3)).astype("f4")}


def posed(model, body):
    """Joints (55, 3) and vertices (V, 3), by SMPL-X's equations, joint by joint."""
    part = {key: values[0].astype(float) for key, values in body.items()}
    hands = [
        model[f"hands_mean{side}"] + part[name] @ model[f"hands_components{side}"][:12]
        for side, name in (("l", "left_hand_pose"), ("r", "right_hand_pose"))
    ]
    face = [part[f"{name}_pose"] for name in ("jaw", "leye", "reye")]
    angles = np.concatenate([part["global_orient"], part["body_pose"], *face, *hands])
    angles = angles.reshape(N_JOINTS, 3)
    local = Rotation.from_rotvec(angles).as_matrix()
    directions = model["shapedirs"]
    shaped = (
        model["v_template"]
        + directions[..., :10] @ part["betas"]
        + directions[..., 300:310] @ part["expression"]
    )
    rest = model["J_regressor"] @ shaped
    turns, joints = [local[0]], [rest[0]]
    for joint, parent in enumerate(PARENTS[1:], 1):
        turns.append(turns[parent] @ local[joint])
        joints.append(joints[parent] + turns[parent] @ (rest[joint] - rest[parent]))
    bent = shaped + model["posedirs"] @ (local[1:] - np.eye(3)).ravel()
    verts = np.zeros_like(bent)
    for joint in range(N_JOINTS):
        moved = (bent - rest[joint]) @ turns[joint].T + joints[joint]
        verts += model["weights"][:, [joint]] * moved
    return np.array(joints) + part["transl"], verts + part["transl"]


def made_camera(rng):
    """World to camera (3, 4), and intrinsics (3, 3): people are about 4 m ahead."""
    rotation = Rotation.from_rotvec(rng.normal(0, 0.3, 3)).as_matrix()
    intrinsics = np.array([[700.0, 0, 322], [0, 690, 236], [0, 0, 1]])
    return np.column_stack([rotation, [0.1, -0.2, 4.0]]), intrinsics


def write_camera(file, matrix, intrinsics):
    """By OpenCV itself, which wrote the release's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    storage = cv2.FileStorage(str(file), cv2.FILE_STORAGE_WRITE)
    storage.write("CameraMatrix", matrix)
    storage.write("Intrinsics", intrinsics)
    storage.write("Distortion", np.array([[0.1, 0.2, 0, 0, 0]]))
    storage.release()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A release of one sequence of two people by two cameras, and its body models."""
    folder = tmp_path_factory.mktemp("rich")
    raw, rng = folder / "raw", np.random.default_rng(1)
    models = write_models(folder)
    bodies = {(person, frame): made_body(rng) for person in GENDERS for frame in FRAMES}
    for (person, frame), body in bodies.items():
        file = raw / f"bodies/val/{SEQUENCE}/{frame:05d}/{person}.pkl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(body))
    image = cv2.imencode(".jpeg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()
    cameras = {0: made_camera(rng), 3: made_camera(rng)}
    for number, camera in cameras.items():
        write_camera(raw / f"scan_calibration/Gym/calibration/{number:03d}.xml", *camera)
        images = raw / f"images/val/{SEQUENCE}/cam_{number:02d}"
        images.mkdir(parents=True)
        for frame in FRAMES:
            (images / f"{frame:05d}_{number:02d}.jpeg").write_bytes(image)
    return SimpleNamespace(
        raw=raw,
        models=models,
        bodies=bodies,
        cameras=cameras,
        body=SmplxBody.load(folder, "male"),
    )


def test_joints_and_boxes_are_those_of_the_posed_body_in_each_camera(made):
    report = Accounting()
    tracks = list(RICH.tracks(made.raw, "val", body=made.body, report=report))
    assert [track.name for track in tracks] == [
        f"{SEQUENCE}/cam_{number:02d}/{person}" for number in made.cameras for person in GENDERS
    ]
    for track in tracks:
        person = track.name.rpartition("/")[2]
        assert (track.gender, track.fps) == (GENDERS[person], 30)
        assert track.frame_index.tolist() == [*FRAMES]
        matrix, intrinsics = made.cameras[int(track.video[-2:])]
        np.testing.assert_array_equal(track.intrinsics, intrinsics.astype("f4"))
        for row, frame in enumerate(FRAMES):
            body = made.bodies[person, frame]
            joints, verts = posed(made.models[track.gender], body)
            joints, verts = (xyz @ matrix[:, :3].T + matrix[:, 3] for xyz in (joints, verts))
            told = track.extra["smplx_joints"][row]
            assert np.abs(told - joints[:22]).max() < 1e-6  # m: 0.001 mm
            outline = verts @ intrinsics.T
            outline = outline[:, :2] / outline[:, 2:]
            low, high = outline.min(0), outline.max(0)
            side = (high - low).max()
            box = [*(low + high) / 2, side, side]
            assert np.abs(track.bbox[row] - box).max() < 0.1  # px

            pixels = joints[:22] @ intrinsics.T
            pixels = pixels[:, :2] / pixels[:, 2:]
            seen = ((pixels >= -0.5) & (pixels <= (WIDTH - 0.5, HEIGHT - 0.5))).all(1)
            take, put = correspondence(JOINTS["smpl"][:22], "spin49")
            np.testing.assert_array_equal(track.kp_2d[row, put, 2], seen[take])
            np.testing.assert_allclose(track.kp_2d[row, put, :2], pixels[take], atol=1e-3)
        np.testing.assert_array_equal(
            track.extra["extrinsics"][0], np.vstack([matrix, (0, 0, 0, 1)]).astype("f4")
        )


def test_mirrored_joints_are_those_of_the_other_side(made):
    stored = cache.ExtraColumn(
        name="smplx_joints", about="joints", shape=(22, 3), mirror="function"
    )
    names = JOINTS["smpl"][:22]
    sides = str.maketrans("lr", "rl")  # of the first letter behind smpl_
    opposite = [f"smpl_{name[5].translate(sides)}{name[6:]}" for name in names]
    order = [
        names.index(other if other in names else name)
        for other, name in zip(opposite, names, strict=True)
    ]
    joints = np.random.default_rng(0).normal(size=(4, 22, 3))
    np.testing.assert_array_equal(
        stored.mirrored(joints, "rich/test"), joints[:, order] * (-1, 1, 1)
    )


@pytest.fixture
def raw(made, tmp_path):
    return shutil.copytree(made.raw, tmp_path / "rich")


VIDEO = f"{SEQUENCE}/cam_03"


def read(made, raw):
    return read_video(RICH, raw, "val", VIDEO, made.body)


def body_file(raw, person, frame):
    return raw / f"bodies/val/{SEQUENCE}/{frame:05d}/{person}.pkl"


def test_what_is_left_out_is_counted(made, raw):
    (raw / f"images/val/{VIDEO}/00003_03.jpeg").unlink()
    edit_labels(body_file(raw, "009", 2), lambda body: body["expression"].fill(np.nan))
    edit_labels(body_file(raw, "009", 5), lambda body: body["transl"].fill(-50))  # behind
    matrix, _ = made.cameras[3]
    away = ((8, 0, 4) - matrix[:, 3])[None] @ matrix[:, :3]  # beside the image
    edit_labels(body_file(raw, "011", 6), lambda body: body | {"transl": away})
    body_file(raw, "011", 5).unlink()
    reasons = {"no_picture": 2, "label_not_finite": 1, "no_box": 1, "no_visible_joint": 1}
    require(read(made, raw), [[6], [2]], reasons)


CALIBRATION = "scan_calibration/Gym/calibration/003.xml"


def calibration(text):
    return lambda raw: (raw / CALIBRATION).write_text(text)


def spoil_matrix(raw):
    matrix = np.diag([1.0, 1, -1, 0])[:3]  # a mirror
    write_camera(raw / CALIBRATION, matrix, np.eye(3))


def without_key(raw):
    edit_labels(
        body_file(raw, "009", 3), lambda body: {k: v for k, v in body.items() if k != "betas"}
    )


TRAPS = [  # what is done, reason, word of the message
    (lambda raw: (raw / CALIBRATION).unlink(), "no_camera", "moving camera"),
    (calibration("<opencv_storage>"), "bad_label_file", "CameraMatrix"),
    (calibration("<CameraMatrix><data>1 2</data>"), "bad_label_file", "2 numbers of CameraMatrix"),
    (spoil_matrix, "bad_label_file", "no rotation"),
    (without_key, "bad_label_file", "betas"),
    (
        lambda raw: edit_labels(
            body_file(raw, "011", 2), lambda body: body | {"body_pose": np.zeros((1, 69))}
        ),
        "bad_label_file",
        "body_pose",
    ),
    (lambda raw: shutil.rmtree(raw / "bodies"), "no_label", "bodies"),
    (
        lambda raw: body_file(raw, "011", 2).rename(body_file(raw, "099", 2)),
        "bad_label_file",
        "099",
    ),
]


@pytest.mark.parametrize(("spoil", "reason", "word"), TRAPS)
def test_traps_are_refused_by_name(spoil, reason, word, made, raw):
    spoil(raw)
    found = read(made, raw)
    require(found, [], refused=reason)
    assert word in found[1]["message"]


def test_files_of_another_body_are_refused(made, tmp_path):
    with pytest.raises(MissingAssets, match=r"missing SMPLX_FEMALE.npz.*smpl-x.is.tue.mpg.de"):
        SmplxBody.load(tmp_path, "female")
    short = made.models["male"] | {"shapedirs": np.zeros((N_VERTICES, 3, 16))}
    np.savez(tmp_path / "SMPLX_MALE.npz", **short)
    with pytest.raises(RawDataError, match="'shapedirs': expected 20 or 400 components, found 16"):
        SmplxBody.load(tmp_path, "male")


def test_files_with_ten_shape_components_have_the_expression_behind_them(made, tmp_path):
    ten = dict(made.models["male"])
    ten["shapedirs"] = ten["shapedirs"][..., [*range(10), *range(300, 310)]]
    np.savez(tmp_path / "SMPLX_MALE.npz", **ten)
    body = {key: part.astype(float) for key, part in made_body(np.random.default_rng(5)).items()}
    _, verts = SmplxBody.load(tmp_path, "male").posed(body)
    np.testing.assert_allclose(verts, made.body.posed(body)[1], atol=1e-9)


class TestRich(ImageFolders):
    dataset, split, video = "rich", "test", "Gym_010_gym2/cam_02"
    states_size = False  # but for the principal point, which is near the centre of both
    images = f"images/test/{video}"
    refused = frozenset(ANOTHER_START | {RENUMBERED, HALF})
    undecided = frozenset({SHIFTED})  # cameras may run longer than bodies are labelled
