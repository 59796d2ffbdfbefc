"""EMDB's protocol against SMPL's equations in NumPy; whole tracks; what is refused and left out."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng
from scipy.spatial.transform import Rotation

from pipeline.errors import DataError
from pipeline.extras.demo.body import procedural
from tasks.result_tables import as_csv
from tasks.results import RunMetrics, rows_by_split
from tests.oracles.body import smpl_paper
from tests.results import read_file
from tests.vibe_model.builders import MemorySplit, TinyBody
from tests.vibe_model.evaluation.made_models import OPTIONS, Bodies, Oracle, stand_in
from vibe_model.evaluation import protocols
from vibe_model.evaluation.evaluate import EvalOutput, evaluate_all, evaluate_split
from vibe_model.hmmr.generator import HMMR


@pytest.fixture
def world():
    """Tracks of 6, 5 and 7 frames with a gap before row 14; predictions are the labels' pose and
    shape with noise.
    """
    split, random = MemorySplit(0, [6, 5, 7], joints=14, gaps=[14]), default_rng(1)
    split.rows["features"][:, 0] = np.arange(18)
    split.rows["theta"][:, 3:] *= 0.5
    split.rows["w_3d"][:] = 0  # the split has no 3D joints
    genders = zip(split.tracks, ("male", "female", "neutral"), strict=True)
    split.tracks[:] = [track._replace(gender=gender) for track, gender in genders]
    split.rows["valid"][[2, 8]] = 0
    split.rows["w_smpl"][11] = 0
    pred = split.rows["theta"] + np.float32(random.normal(size=(18, 85)) * 0.1)
    return split, Bodies(stand_in(), pred)


def distance(pred, target):
    return 1000 * np.linalg.norm(pred - target, axis=-1).mean(-1)


def by_hand(split, theta, root):
    """By SMPL's equations, about the root's middle: joints (18, 24, 3), vertices (18, 6890, 3),
    predicted and true.
    """
    posed = {"pred": [], "true": []}
    for track in split.tracks:
        for row in range(track.start, track.stop):
            true = split.rows["theta"][row]
            for key, numbers, gender in (
                ("pred", theta[row], "neutral"),
                ("true", true, track.gender),
            ):
                rotations = Rotation.from_rotvec(
                    numbers[3:75].reshape(24, 3).astype(float)
                ).as_matrix()
                verts, joints = smpl_paper(
                    procedural(gender), numbers[75:].astype(float), rotations
                )
                middle = joints[root].mean(0)
                posed[key].append((joints - middle, verts - middle))
    return [np.stack(arrays) for bodies in posed.values() for arrays in zip(*bodies, strict=True)]


def test_emdbs_protocol_is_whams_by_a_numpy_computation_of_its_own(world):
    split, model = world
    split.name = "emdb/emdb1"
    pred, pred_verts, true, true_verts = by_hand(split, model.theta.detach().numpy(), [1, 2])
    counted = np.setdiff1d(np.arange(18), [2, 8, 11])
    errors, accelerations = (
        {"mpjpe": distance(pred, true), "pve": distance(pred_verts, true_verts)},
        [],
    )
    errors["pa_mpjpe"] = np.zeros(18)
    for row in counted:
        centred, goal = pred[row] - pred[row].mean(0), true[row] - true[row].mean(0)
        turned = Rotation.align_vectors(goal, centred)[0].apply(centred)
        scale = (turned * goal).sum() / (turned**2).sum()
        errors["pa_mpjpe"][row] = distance(scale * turned, goal)
    for rows in ([0, 1, 3, 4, 5], [6, 7, 9, 10], range(12, 18)):
        bodies = [pred[row] - true[row] for row in rows]
        second = [a - 2 * b + c for a, b, c in zip(bodies, bodies[1:], bodies[2:], strict=False)]
        accelerations += [np.linalg.norm(error, axis=1).mean() * 30**2 for error in second[1:-1]]
    found = evaluate_all(model, {split.name: split}, OPTIONS)[split.name]
    emdb = found["emdb"]
    for name, values in errors.items():
        assert emdb[name] == pytest.approx(values[counted].mean(), rel=1e-6), name
    assert len(accelerations) == 3
    assert emdb["accel_error_m_s2"] == pytest.approx(np.mean(accelerations), rel=1e-6)
    assert (emdb["frames"], emdb["label_body"]) == (15, "female, male, neutral")
    assert "WHAM" in emdb["compares_with"]
    assert "GVHMR" in emdb["compares_with"]
    assert [record.name for record in protocols.choose(MemorySplit(0, [9]))[0]] == [
        "default",
        "published",
        "hmmr",
    ]


def test_rich_compares_the_first_22_joints_with_those_of_smplx_without_any_smpl_label(world):
    split, model = world
    split.name = "rich/test"
    pred = by_hand(split, model.theta.detach().numpy(), [1, 2])[0][:, :22]
    error = 0.05 * default_rng(2).normal(size=pred.shape)
    error -= error[:, [1, 2]].mean(1, keepdims=True)  # the middle of the hips stays at 0
    anywhere = default_rng(3).normal(size=(18, 1, 3))
    split.rows["smplx_joints"] = np.float32(pred + error + anywhere)
    split.rows["w_smpl"][:] = 0
    for name in ("pose", "betas", "has_smpl", "kp_3d"):
        split.columns = tuple(column for column in split.columns if column != name)
    reason = "it has no smplx_joints, which protocol rich makes its joints of"
    assert evaluate_all(model, {split.name: split}, OPTIONS)[split.name]["left_out"] == {
        "rich": reason
    }
    split.columns = (*split.columns, "smplx_joints")
    rich = evaluate_all(model, {split.name: split}, OPTIONS)[split.name]["rich"]
    counted = np.setdiff1d(np.arange(18), [2, 8])  # `valid`; no other flag counts
    assert (rich["frames"], rich["label_body"]) == (16, "female, male, neutral")
    assert rich["mpjpe"] == pytest.approx(distance(error, 0)[counted].mean(), rel=1e-5)
    assert rich["pa_mpjpe"] < rich["mpjpe"]
    accelerations = []
    for rows in ([0, 1, 3, 4, 5], [6, 7, 9, 10], range(11, 18)):
        second = np.diff(error[list(rows)], 2, axis=0)
        accelerations += [np.linalg.norm(one, axis=1).mean() * 30**2 for one in second[1:-1]]
    assert rich["accel_error_m_s2"] == pytest.approx(np.mean(accelerations), rel=1e-4)
    assert "pve" not in rich
    assert rich["baseline"]["mpjpe"] > rich["mpjpe"]


def test_whole_tracks_are_evaluated_beside_windows(world):
    """A stretch without a gap is one window, of any length: each frame is predicted once, and none
    is dropped.
    """
    split, _ = world
    windows = {}
    for seqlen in (4, 0):
        oracle = Oracle(TinyBody(), np.zeros((18, 30, 3)), split.rows["kp_2d"][..., :2])
        found = evaluate_all(oracle, {"a/test": split}, replace(OPTIONS, seqlen=seqlen))["a/test"]
        windows[seqlen] = sorted(set(oracle.windows))
        assert found["frames_not_predicted"] == 0
        assert found["published"]["frames_not_predicted"] == (0 if seqlen == 0 else 6)
    assert windows[0] == [(0, 5), (6, 10), (11, 13), (14, 17)]
    assert max(last - first for first, last in windows[4]) == 3
    # which repeats a track's ends
    model = HMMR(TinyBody(), feature_size=6, regressor_size=7, width=32)
    assert model.margin
    assert evaluate_split(model, MemorySplit(0, [150]), replace(OPTIONS, seqlen=0))["frames"] == 150


def test_estimated_bodies_are_no_ground_truth(world):
    """Their rows are not valid, and their clips are validated by 2D joints as before."""
    split, model = world
    split.name = "emdb/emdb1"
    split.rows["w_smpl"][:] = 0
    split.rows["valid"][:] = 1
    before = evaluate_all(model, {split.name: split}, OPTIONS)[split.name]
    validated = evaluate_split(model, split, OPTIONS, protocol=protocols.VALIDATION_2D)
    assert validated["error_2d"] > 0

    split.rows["w_smpl"][:] = 1
    split.rows["valid"][:] = 0
    estimates = {"walk.mp4": {"tool": "WHAM", "files": {"wham_output.pkl": "1f2e"}}}
    split.manifest["reader"] = {"imported": {"format": "bodies", "estimates": estimates}}
    after = evaluate_all(model, {split.name: split}, OPTIONS)[split.name]
    reason = after.pop("left_out")["emdb"]
    assert reason == "its bodies are estimates of WHAM, no ground truth for protocol emdb"
    for name, number in before.items():
        if name not in protocols.PROTOCOLS:
            assert after[name] == number, name
    again = evaluate_split(model, split, OPTIONS, protocol=protocols.VALIDATION_2D)
    assert again == validated
    with pytest.raises(DataError, match="no ground truth"):
        evaluate_split(model, split, OPTIONS, protocol="emdb")


def test_a_protocol_is_left_out_by_name_where_a_split_lacks_what_it_compares(world):
    split, model = world
    split.columns = ("kp_2d",)
    split.name = "emdb/emdb1"
    found = evaluate_all(model, {split.name: split}, OPTIONS)[split.name]
    assert found["left_out"] == {
        "emdb": "it has no pose, betas, has_smpl, which protocol emdb makes its joints of"
    }
    assert list(protocols.by_protocol(found)) == ["default", "published", "hmmr"]
    with pytest.raises(DataError, match="no pose, betas, has_smpl"):
        evaluate_all(model, {split.name: split}, OPTIONS, named=["emdb"])


def test_the_first_named_protocol_has_the_results_by_track_and_emdbs_metric_a_column(
    world, tmp_path
):
    split, model = world
    found = evaluate_all(
        model,
        {"a/test": split},
        OPTIONS,
        named=["emdb", "hmmr"],
        output=EvalOutput(folder=tmp_path),
    )["a/test"]
    assert (found["protocol"], list(protocols.by_protocol(found))) == ("emdb", ["emdb", "hmmr"])
    sequences = read_file(tmp_path / "sequences.json")["sequences"]
    assert any("accel_error_m_s2" in row for row in sequences)
    rows = rows_by_split({"Bodies": RunMetrics({"a/test": found})})
    assert as_csv(rows["a/test"]).splitlines()[0].endswith("pck_aligned,accel_error_m_s2,frames")
