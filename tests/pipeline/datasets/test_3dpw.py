import functools
import shutil

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pipeline import datasets
from pipeline.body import Body
from pipeline.conversion.convert import plan_conversion
from pipeline.files.raw import MARKER
from pipeline.skeletons import JOINTS
from tests.pipeline.datasets.by_hand import jpeg, read_one
from tests.pipeline.datasets.made_3dpw import SEQ, N, keypoints, sequence, write

PW = datasets.get("3dpw")
SPIN49 = JOINTS["spin49"]


read = functools.partial(read_one, PW)


@pytest.fixture(scope="module")
def body():
    return Body.stand_in()


def test_an_actor_becomes_a_track_unless_never_seen(tmp_path):
    data = sequence(n_actors=2)
    write(tmp_path, data)
    (first, second), account = read(tmp_path)
    assert (first.name, second.name) == (f"{SEQ}/0", f"{SEQ}/1")
    # row i is picture i, whatever img_frame_ids counts
    assert first.frame_index.tolist() == list(range(N))
    side = 1.1 * np.hypot(17, 34)  # the diagonal of all 18 joints, of which 12 are labelled
    np.testing.assert_allclose(first.bbox, np.tile([308.5, 417, side, side], (N, 1)), rtol=1e-6)
    assert [first.kp_3d, first.kp_3d_eval, first.has_3d, first.trans] == [None] * 4
    assert account["notes"] == ["no body model: kp_3d, kp_3d_eval and trans are absent"]
    data["poses2d"][0][:, 2] = 0  # never seen
    write(tmp_path, data)
    (track,), account = read(tmp_path)
    assert track.name == f"{SEQ}/1"
    assert account["dropped"] == {"no_detection": N}
    assert account["tracks_dropped"] == {"no_detection": 1}


@pytest.mark.parametrize(
    ("size", "centre", "reason"),
    [
        ((1080, 1920), (540, 960), ""),
        ((1920, 1080), (957, 547), ""),
        ((1080, 1920), (960, 540), "other_picture_size"),  # turned
        ((972, 1728), (540, 960), "other_picture_size"),
    ],
)
def test_a_camera_must_fit_the_images_upright_or_not(size, centre, reason, tmp_path):
    camera = np.array([[1961.0, 0, centre[0]], [0, 1969, centre[1]], [0, 0, 1]])
    write(tmp_path, sequence() | {"cam_intrinsics": camera})
    for file in (tmp_path / "imageFiles" / SEQ).iterdir():
        file.write_bytes(jpeg(*size))
    _, account = read(tmp_path)
    assert account["set_aside"] == reason


def test_confidence_is_1_above_03_and_6_limb_joints_are_too_few(tmp_path):
    data = sequence()
    data["poses2d"][0][:, 2, 7:] = 0.3  # rwrist .. of the limbs, joints 2 to 6 remain: 5
    data["poses2d"][0][3, 2, :] = 0.9
    data["poses2d"][0][4, 2, 7:9] = 0.31  # 7
    data["poses2d"][0][5, 2, 7] = 0.31  # 6
    write(tmp_path, data)
    (track,), account = read(tmp_path)
    assert track.frame_index.tolist() == [3, 4]
    assert track.kp_2d[1, :, 2].sum() == 7
    assert account["dropped"] == {"too_few_visible_joints": N - 2}


def test_frames_outside_the_first_and_last_detection_are_dropped_and_nothing_shifts(tmp_path):
    data = sequence()
    moving = keypoints() + np.arange(N)[:, None, None] * np.array([[10.0], [0], [0]])
    data["poses2d"][0] = moving
    moving[:5, 2], moving[35:, 2], moving[20, 2] = 0, 0, 0
    data["campose_valid"][0][[3, 8]] = 0
    write(tmp_path, data)
    (track,), account = read(tmp_path)
    assert track.frame_index.tolist() == [i for i in range(5, 35) if i != 20]
    assert track.frame_index[~track.valid].tolist() == [8]
    assert account["dropped"] == {
        "after_last_detection": 5,
        "before_first_detection": 5,
        "too_few_visible_joints": 1,
    }
    middle = track.frame_index == 19
    # its own frame's, but for smoothing
    np.testing.assert_allclose(track.bbox[middle, 0], 308.5 + 190, atol=8)
    np.testing.assert_array_equal(track.kp_2d[middle, SPIN49.index("rshoulder"), 0], 302 + 190)


def test_labels_that_are_not_finite_and_cameras_that_are_none_drop_their_frames(tmp_path):
    data = sequence()
    data["poses"][0][2, 5] = np.nan
    data["trans"][0][3, 0] = np.inf
    data["cam_poses"][4, :3, :3] = 0
    data["cam_poses"][5, 0, :3] *= -1  # a mirror
    data["poses2d"][0][6, 0, 17] = np.nan
    write(tmp_path, data)
    (track,), account = read(tmp_path)
    assert account["dropped"] == {"bad_camera": 2, "label_not_finite": 2}
    assert "poses2d[0]: 1 joints are not finite: not used" in account["notes"]
    for array in (track.pose, track.kp_2d, track.bbox):
        assert np.isfinite(array).all()


def posed(body, pose, betas):
    rotmat = (
        Rotation.from_rotvec(np.asarray(pose, float).reshape(-1, 3))
        .as_matrix()
        .reshape(-1, 24, 3, 3)
    )
    with torch.no_grad():
        return body(
            betas=torch.tensor(np.tile(betas[:10], (len(rotmat), 1)), dtype=torch.float32),
            rotmat=torch.tensor(rotmat, dtype=torch.float32),
        )


def test_genders_are_read_in_any_case(tmp_path):
    write(tmp_path, sequence(n_actors=2) | {"genders": ["Female", np.str_("MALE")]})
    assert [track.gender for track in read(tmp_path)[0]] == ["female", "male"]


@pytest.mark.parametrize("gender", [pytest.param("male", marks=pytest.mark.slow), "female"])
def test_with_gendered_models_the_labels_are_of_the_body_of_the_actors_own_gender(
    tmp_path, body, gender
):
    data = sequence() | {"genders": [gender[0]]}
    write(tmp_path, data)
    write(tmp_path, data, "test")
    dataset = datasets.get("3dpw", model="gendered")
    own, rows = body.of(gender), [0, 17]
    (track,) = dataset.tracks(tmp_path, "train", body=body)
    joints = posed(own, track.pose[rows], track.betas[0]).joints.numpy()
    np.testing.assert_allclose(track.kp_3d[rows, :, :3], joints - joints[:, 39:40], atol=1e-5)
    neutral = posed(body, track.pose[rows], track.betas[0]).joints.numpy()
    assert np.abs(joints - joints[:, 39:40] - (neutral - neutral[:, 39:40])).max() > 1e-3
    # The release's translation is of that body too: it lands where the camera sees the actor.
    world = posed(own, data["poses"][0][rows], data["betas"][0]).verts.numpy()
    camera = data["cam_poses"][rows]
    seen = np.einsum("nij,nvj->nvi", camera[:, :3, :3], world + data["trans"][0][rows, None])
    verts = posed(own, track.pose[rows], track.betas[0]).verts.numpy()
    np.testing.assert_allclose(
        verts + track.trans[rows, None], seen + camera[:, None, :3, 3], atol=2e-5
    )
    (evaluated,) = dataset.tracks(tmp_path, "test", body=body)
    np.testing.assert_allclose(
        evaluated.kp_3d_eval[rows], own.common14(torch.from_numpy(verts)).numpy(), atol=1e-5
    )


def test_labels_are_made_anew_when_a_body_changes_that_they_come_from(embedded, tmp_path):
    folder, raw = tmp_path / "body", embedded.raw("3dpw")
    folder.mkdir()
    models = [f"SMPL_{gender}.pkl" for gender in ("NEUTRAL", "MALE", "FEMALE")]
    for name in (*models, "J_regressor_extra.npy", "J_regressor_h36m.npy", "smpl_mean_params.npz"):
        (folder / name).write_bytes(b"planning reads no array")
    shutil.copy(raw / MARKER, folder)

    def depends_on(model):
        dataset = datasets.get("3dpw", model=model)
        return dict(
            plan_conversion(dataset, "train", raw=raw, root=tmp_path / "cache", body=folder).reader
        )

    assert depends_on("gendered")["genders"] == ["male", "female"]  # which evaluation reads
    assert "genders" not in depends_on("neutral")
    for gender, made_of_it in (("FEMALE", "gendered"), ("NEUTRAL", "neutral")):
        before = {model: depends_on(model) for model in ("gendered", "neutral")}
        (folder / f"SMPL_{gender}.pkl").write_bytes(b"another one")
        assert [model for model in before if depends_on(model) != before[model]] == [made_of_it]
