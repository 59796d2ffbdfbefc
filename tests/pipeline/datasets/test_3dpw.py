import shutil

import numpy as np
import pytest
import torch

from pipeline import datasets
from pipeline.files.raw import MARKER
from pipeline.people.skeletons import JOINTS
from tests.bodies import posed, the_body
from tests.fixtures import planned
from tests.pipeline.datasets.by_hand import read_video, require
from tests.pipeline.datasets.contract import ANOTHER_START, EXACT, HALF, RENUMBERED, ImageFolders
from tests.pipeline.datasets.label_files import edit_labels

PW = datasets.get("3dpw")
SPIN49 = JOINTS["spin49"]
SEQ, N = "courtyard_walking_00", 10  # 400 x 300 px
LABELS = f"sequenceFiles/train/{SEQ}.pkl"


@pytest.fixture(scope="module")
def body():
    return the_body()


@pytest.fixture
def raw(embedded, tmp_path):
    return embedded.copy("3dpw", tmp_path / "3dpw")


def read(raw, dataset=PW, **options):
    return read_video(dataset, raw, "train", SEQ, **options)


def keypoints(x=100):
    """(N, 3, 18): joint j at (x + j, 150 + 2 j), score 0.9: the extent is 17 x 34 px."""
    j = np.arange(18.0)
    return np.tile(np.stack([x + j, 150 + 2 * j, np.full(18, 0.9)]), (N, 1, 1))


def double(data):
    """Two actors, who stand beside each other."""
    actors = {key: one * 2 for key, one in data.items() if isinstance(one, list)}
    return data | actors | {"poses2d": [keypoints(), keypoints(200)], "genders": ["Female", "MALE"]}


@pytest.mark.promise("problems of 3DPW")
def test_an_actor_becomes_a_track_unless_never_seen(raw):
    edit_labels(raw / LABELS, double)
    edit_labels(raw / LABELS, lambda data: data | {"img_frame_ids": np.arange(N) * 2})
    # row i is picture i, whatever img_frame_ids counts
    first, second = require(read(raw), [range(N)] * 2, notes=[])
    assert (first.name, second.name) == (f"{SEQ}/0", f"{SEQ}/1")
    assert (first.gender, second.gender) == ("female", "male")  # in any case
    side = 1.1 * np.hypot(17, 34)  # the diagonal of all 18 joints, of which 12 are labelled
    np.testing.assert_allclose(first.bbox, np.tile([108.5, 167, side, side], (N, 1)), rtol=1e-6)
    assert [first.kp_3d, first.kp_3d_eval, first.has_3d, first.trans] == [None] * 4

    def hide(data):
        data["poses2d"][0][:, 2] = 0

    edit_labels(raw / LABELS, hide)
    found = read(raw)
    (track,) = require(found, dropped={"no_detection": N})
    assert track.name == f"{SEQ}/1"
    assert found[1]["tracks_dropped"] == {"no_detection": 1}


@pytest.mark.promise("problems of 3DPW")
def test_confidence_is_1_above_03_and_6_limb_joints_are_too_few(raw):
    def change(data):
        seen = keypoints()
        seen[:, 2, 7:] = 0.3  # rwrist .. of the limbs, joints 2 to 6 remain: 5
        seen[3, 2, :] = 0.9
        seen[4, 2, 7:9] = 0.31  # 7
        seen[5, 2, 7] = 0.31  # 6
        data["poses2d"] = [seen]

    edit_labels(raw / LABELS, change)
    (track,) = require(read(raw), [[3, 4]], {"too_few_visible_joints": N - 2})
    assert track.kp_2d[1, :, 2].sum() == 7


def test_frames_outside_the_first_and_last_detection_are_dropped_and_nothing_shifts(raw):
    def change(data):
        moving = keypoints() + np.arange(N)[:, None, None] * np.array([[10.0], [0], [0]])
        moving[[0, 1, 5, 9], 2] = 0
        data["poses2d"] = [moving]
        data["campose_valid"][0][:] = [0, 1, 1, 0, 1, 1, 1, 1, 1, 1]

    edit_labels(raw / LABELS, change)
    reasons = {"after_last_detection": 1, "before_first_detection": 2, "too_few_visible_joints": 1}
    (track,) = require(read(raw), [[2, 3, 4, 6, 7, 8]], reasons)
    assert track.frame_index[~track.valid].tolist() == [3]
    np.testing.assert_array_equal(track.kp_2d[3, SPIN49.index("rshoulder"), 0], 102 + 60)


def test_labels_that_are_not_finite_and_cameras_that_are_none_drop_their_frames(raw):
    def change(data):
        data["poses2d"] = [keypoints()]
        data["poses2d"][0][6, 0, 17] = np.nan
        data["poses"][0][2, 5] = np.nan
        data["trans"][0][3, 0] = np.inf
        data["cam_poses"][4, :3, :3] = 0
        data["cam_poses"][5, 0, :3] *= -1  # a mirror

    edit_labels(raw / LABELS, change)
    found = read(raw)
    (track,) = require(found, dropped={"bad_camera": 2, "label_not_finite": 2})
    assert "poses2d[0]: 1 joints are not finite: not used" in found[1]["notes"]
    for array in (track.pose, track.kp_2d, track.bbox):
        assert np.isfinite(array).all()


@pytest.mark.promise("problems of 3DPW")
@pytest.mark.parametrize("gender", [pytest.param("male", marks=pytest.mark.slow), "female"])
def test_with_gendered_models_the_labels_are_of_the_body_of_the_actors_own_gender(
    raw, body, gender
):
    labels = []
    edit_labels(raw / LABELS, lambda data: data | {"genders": [gender[0]]})
    edit_labels(raw / LABELS, labels.append)
    shutil.copy(raw / LABELS, raw / f"sequenceFiles/test/{SEQ}.pkl")
    dataset = datasets.get("3dpw", model="gendered")
    own, rows = body.of(gender), [0, 7]
    (track,), _ = read(raw, dataset, body=body)
    mine = posed(own, track.pose[rows], track.betas[0])
    joints = mine.joints.numpy() - mine.joints.numpy()[:, 39:40]
    np.testing.assert_allclose(track.kp_3d[rows, :, :3], joints, atol=1e-5)
    neutral = posed(body, track.pose[rows], track.betas[0]).joints.numpy()
    assert np.abs(joints - (neutral - neutral[:, 39:40])).max() > 1e-3
    # The release's translation is of that body too: it lands where the camera sees the actor.
    (data,) = labels
    world = posed(own, data["poses"][0][rows], data["betas"][0][:10]).verts.numpy()
    camera = data["cam_poses"][rows]
    seen = np.einsum("nij,nvj->nvi", camera[:, :3, :3], world + data["trans"][0][rows, None])
    verts = mine.verts.numpy()
    np.testing.assert_allclose(
        verts + track.trans[rows, None], seen + camera[:, None, :3, 3], atol=2e-5
    )
    (evaluated,), _ = read_video(dataset, raw, "test", SEQ, body)
    common = own.common14(torch.from_numpy(verts)).numpy()
    np.testing.assert_allclose(evaluated.kp_3d_eval[rows], common, atol=1e-5)


def test_labels_are_made_anew_when_a_body_changes_that_they_come_from(embedded, tmp_path):
    folder, raw = tmp_path / "body", embedded.raw("3dpw")
    folder.mkdir()
    models = [f"SMPL_{gender}.pkl" for gender in ("NEUTRAL", "MALE", "FEMALE")]
    for name in (*models, "J_regressor_extra.npy", "J_regressor_h36m.npy", "smpl_mean_params.npz"):
        (folder / name).write_bytes(b"planning reads no array")
    shutil.copy(raw / MARKER, folder)

    def depends_on(model):
        dataset = datasets.get("3dpw", model=model)
        return dict(planned(dataset, "train", raw=raw, root=tmp_path / "cache", body=folder).reader)

    assert depends_on("gendered")["genders"] == ["male", "female"]  # which evaluation reads
    assert "genders" not in depends_on("neutral")
    for gender, made_of_it in (("FEMALE", "gendered"), ("NEUTRAL", "neutral")):
        before = {model: depends_on(model) for model in ("gendered", "neutral")}
        (folder / f"SMPL_{gender}.pkl").write_bytes(b"another one")
        assert [model for model in before if depends_on(model) != before[model]] == [made_of_it]


class TestThreeDPW(ImageFolders):
    dataset, video = "3dpw", "courtyard_walking_00"
    images = f"imageFiles/{video}"
    refused = frozenset(ANOTHER_START | EXACT | {RENUMBERED, HALF})
