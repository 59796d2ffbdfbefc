"""A package's protocol of 24 joints against SMPL's equations in NumPy; whole tracks; what is
refused and left out.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline import plug_ins
from pipeline.demo.body import procedural
from pipeline.errors import ConfigError, DataError, PipelineError
from tasks.evaluation import as_csv, result_rows
from tests.packages import install, install_page
from tests.pipeline.test_body import smpl_paper
from tests.vibe_model.builders import MemorySplit, TinyBody, small_vibe
from tests.vibe_model.evaluation.test_evaluation import STREAM, Bodies, Oracle
from tests.vibe_model.evaluation.test_genders import stand_in
from tests.vibe_model.training.tiny_runs import in_memory, like_vibe
from vibe_model import TrainConfig, training
from vibe_model.evaluation import protocols
from vibe_model.evaluation.evaluate import evaluate_all, evaluate_split
from vibe_model.evaluation.frame_errors import Scorer
from vibe_model.hmmr import HMMR
from vibe_model.hmmr import protocol as hmmr_protocol
from vibe_model.metrics import METRICS
from vibe_model.prediction.predict import predict_tracks
from vibe_model.vibe import config as vibe


@pytest.fixture
def world():
    """Tracks of 6, 5 and 7 frames with a gap before row 14; predictions are the labels' pose and
    shape with noise.
    """
    split, random = MemorySplit(0, [6, 5, 7], joints=14, gaps=[14]), np.random.default_rng(1)
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


def test_a_packages_protocol_of_24_joints_is_that_of_smpls_equations(world, site):
    install_page(site, "protocol")
    split, model = world
    pred, pred_verts, true, true_verts = by_hand(split, model.theta.detach().numpy(), [0])
    counted = np.setdiff1d(np.arange(18), [2, 8, 11])
    found = evaluate_all(model, {"a/test": split}, **STREAM)["a/test"]["smpl24"]
    assert found["frames"] == 15
    assert found["mpjpe"] == pytest.approx(distance(pred, true)[counted].mean(), rel=1e-6)
    assert found["pve"] == pytest.approx(distance(pred_verts, true_verts)[counted].mean(), rel=1e-6)
    # Four neighbours of which all count: of rows 3-5 none, of 12-13 none, of 14-17 one.
    jerk = 1000 * np.linalg.norm(np.diff(pred[14:18] - true[14:18], n=3, axis=0), axis=-1).mean()
    assert found["jerk_error"] == pytest.approx(jerk, rel=1e-5)
    assert found["label_body"] == "female, male, neutral"
    assert 0 < found["pa_mpjpe"] < found["mpjpe"] < found["baseline"]["mpjpe"]


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
    found = evaluate_all(model, {split.name: split}, **STREAM)[split.name]
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


def test_which_frames_follow_one_another_is_the_protocols(world):
    """On a line whose frames are 1, 2, 3, ... mm apart, an acceleration is 1 mm, and more across
    missing frames.
    """
    split = world[0]
    split.rows |= {"w_3d": np.ones(18, np.float32), "kp_3d": np.zeros((18, 14, 3), np.float32)}
    body, along = TinyBody(), np.zeros((18, 30, 3))
    along[..., 0] = (0.0005 * np.arange(18.0) ** 2)[:, None]
    oracle = Oracle(body, along, split.rows["kp_2d"][..., :2])
    for successive, stretches in (
        ("neighbours", [[0, 1], [3, 4, 5], [6, 7], [9, 10], [11, 12, 13], [14, 15, 16, 17]]),
        ("track", [[0, 1, 3, 4, 5], [6, 7, 9, 10], [*range(11, 18)]]),
        ("split", [[row for row in range(18) if row not in (2, 8)]]),
    ):
        metrics = {"accel_error": METRICS["accel_error"]}
        record = replace(
            protocols.DEFAULT, name="line", root=(), successive=successive, metrics=metrics
        )
        scorer = Scorer(oracle, split, protocols=[record], keypoints=False)
        for (bodies,) in predict_tracks(oracle, split, stream="resnet50"):
            scorer.add(bodies)
        values = np.concatenate([np.abs(np.diff(along[rows, 0, 0], n=2)) for rows in stretches])
        measured = scorer.means["line"].by_error()["accel_error"]
        assert measured == pytest.approx(1000 * values.mean(), rel=1e-5), successive


def test_whole_tracks_are_evaluated_beside_windows(world):
    """A stretch without a gap is one window, of any length: each frame is predicted once, and none
    is dropped.
    """
    split, _ = world
    windows = {}
    for seqlen in (4, 0):
        oracle = Oracle(TinyBody(), np.zeros((18, 30, 3)), split.rows["kp_2d"][..., :2])
        found = evaluate_all(oracle, {"a/test": split}, stream="resnet50", seqlen=seqlen)["a/test"]
        windows[seqlen] = sorted(set(oracle.windows))
        assert found["frames_not_predicted"] == 0
        assert found["published"]["frames_not_predicted"] == (0 if seqlen == 0 else 6)
    assert windows[0] == [(0, 5), (6, 10), (11, 13), (14, 17)]
    assert max(last - first for first, last in windows[4]) == 3
    # which repeats a track's ends
    model = HMMR(TinyBody(), feature_size=6, regressor_size=7, width=32)
    assert model.margin
    assert (
        evaluate_split(model, MemorySplit(0, [150]), stream="resnet50", seqlen=0)["frames"] == 150
    )


BROKEN = """
from dataclasses import replace
from vibe_model.evaluation.protocols import DEFAULT
from vibe_model.metrics import METRICS

def raising(pred, target):
    return {}["missing"]

def short(pred, target):
    return pred[:-1, 0, 0]

of = lambda name, function: replace(DEFAULT, name=name, metrics={"mpjpe": replace(METRICS["mpjpe"], of=function)})
RAISING, SHORT, TEXT = of("raising", raising), of("short", short), "a text"
"""


def test_what_a_package_gets_wrong_is_named_with_the_package(site):
    named = {name: f"broken:{name.upper()}" for name in ("raising", "short", "text")}
    install(site, "broken-protocols", {"vibe_pipeline.protocols": named}, broken=BROKEN)
    split, model = MemorySplit(0, [9], joints=14), small_vibe()
    with pytest.raises(
        plug_ins.PlugInError,
        match="'raising' of package broken-protocols failed in metric mpjpe: Key",
    ):
        evaluate_split(model, split, **STREAM, protocol="raising")
    with pytest.raises(
        DataError, match=r"broken-protocols: metric mpjpe: expected 9 numbers, found .* \(8,\)"
    ):
        evaluate_split(model, split, **STREAM, protocol="short")
    with pytest.raises(
        plug_ins.PlugInError, match="package broken-protocols: broken:TEXT is not a Protocol"
    ):
        evaluate_split(model, split, **STREAM, protocol="text")
    records, left_out = protocols.choose(split)
    assert [record.name for record in records] == [
        "default",
        "published",
        "hmmr",
        "raising",
        "short",
    ]
    assert list(left_out) == ["text"]
    with pytest.raises(PipelineError, match=r"did you mean 'raising'.* raising, short, text"):
        protocols.find("rasing")


def test_a_protocol_is_left_out_by_name_where_a_split_lacks_what_it_compares(world, site, tmp_path):
    install_page(site, "protocol")
    split, model = world
    split.columns = ("kp_2d",)
    found = evaluate_all(model, {"a/test": split}, **STREAM, folder=tmp_path)["a/test"]
    assert found["left_out"] == {
        "smpl24": "it has no pose, betas, has_smpl, which protocol smpl24 makes its joints of"
    }
    assert list(protocols.by_protocol(found)) == ["default", "published", "hmmr"]
    for call in (lambda: evaluate_all(model, {"a/test": split}, **STREAM, named=["smpl24"]),
                 lambda: evaluate_split(model, split, **STREAM, protocol="smpl24")):  # fmt: skip
        with pytest.raises(DataError, match="no pose, betas, has_smpl"):
            call()


def test_estimated_bodies_are_no_ground_truth(world, site, tmp_path):
    """Their rows are not valid, and their clips are validated by 2D joints as before."""
    install_page(site, "protocol")
    split, model = world
    split.rows["w_smpl"][:] = 0
    split.rows["valid"][:] = 1
    before = evaluate_all(model, {"a/test": split}, **STREAM)["a/test"]
    validated = evaluate_split(model, split, **STREAM, protocol=protocols.VALIDATION_2D)
    assert before["pck_2d"] > 0
    assert validated["error_2d"] > 0

    split.rows["w_smpl"][:] = 1
    split.rows["valid"][:] = 0
    estimates = {"walk.mp4": {"tool": "WHAM", "files": {"wham_output.pkl": "1f2e"}}}
    split.manifest["reader"] = {"imported": {"format": "bodies", "estimates": estimates}}
    after = evaluate_all(model, {"a/test": split}, **STREAM)["a/test"]
    reason = after.pop("left_out")["smpl24"]
    assert reason == "its bodies are estimates of WHAM, no ground truth for protocol smpl24"
    for name, number in before.items():
        if name not in protocols.names():
            assert after[name] == number, name
    again = evaluate_split(model, split, **STREAM, protocol=protocols.VALIDATION_2D)
    assert again == validated
    with pytest.raises(DataError, match="no ground truth"):
        evaluate_split(model, split, **STREAM, protocol="emdb")


def test_the_first_named_protocol_has_the_results_by_track_and_metrics_of_packages_a_column(
    world, site, tmp_path
):
    install_page(site, "protocol")
    split, model = world
    found = evaluate_all(
        model, {"a/test": split}, **STREAM, folder=tmp_path, named=["smpl24", "hmmr"]
    )["a/test"]
    assert (found["protocol"], list(protocols.by_protocol(found))) == ("smpl24", ["smpl24", "hmmr"])
    sequences = json.loads((tmp_path / "sequences.json").read_text())
    assert sequences["units"]["jerk_error"] == "mm per frame³"
    assert ["jerk_error" in row for row in sequences["sequences"]] == [False, False, True]
    assert (
        "auc,pck_2d,pck_aligned,jerk_error,frames_predicted"
        in (tmp_path / "sequences.csv").read_text()
    )
    rows = result_rows({"a/test": found}, title="Bodies")
    assert [(row["protocol"], row["model"]) for row in rows] == [
        (protocol, name) for protocol in ("smpl24", "hmmr") for name in ("Bodies", "mean body")
    ]
    assert rows[0]["jerk_error"] == found["jerk_error"]
    assert as_csv(rows).splitlines()[0].endswith("pck_aligned,jerk_error,frames")


def test_a_model_is_evaluated_by_the_protocols_that_its_record_names(tmp_path, monkeypatch):
    in_memory(monkeypatch, "vibe")
    config = like_vibe(TrainConfig, tmp_path, regressor_size=7, epochs=1, iterations=1)
    monkeypatch.setattr(
        "vibe_model.vibe.config.MODEL", replace(vibe.MODEL, protocols=("hmmr", "defualt"))
    )
    with pytest.raises(PipelineError, match="did you mean 'default'"):
        training.run(config)
    assert not list(tmp_path.rglob("last.pt")), "before the first step"
    monkeypatch.setattr(
        "vibe_model.vibe.config.MODEL", replace(vibe.MODEL, protocols=("hmmr", "default"))
    )
    result = json.loads((training.run(config) / "metrics.json").read_text())
    by_split = {
        split: list(protocols.by_protocol(numbers))
        for split, numbers in result.items()
        if "/" in split
    }
    assert set(map(tuple, by_split.values())) == {("hmmr", "default")}


def test_a_split_is_evaluated_by_what_is_for_it_unless_a_protocol_is_named(monkeypatch):
    split = MemorySplit(0, [9], joints=14)
    monkeypatch.setattr(hmmr_protocol, "HMMR", replace(hmmr_protocol.HMMR, splits="emdb/*"))
    assert [record.name for record in protocols.choose(split)[0]] == ["default", "published"]
    assert [record.name for record in protocols.choose(split, ["hmmr"])[0]] == ["hmmr"]
    split.name = "emdb/emdb1"
    assert [record.name for record in protocols.choose(split)[0]] == [
        "default",
        "published",
        "emdb",
        "hmmr",
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"root": ("smpl_pelvis",)}, "root: expected joints of common14, found smpl_pelvis"),
        ({"joints": "smpl", "root": ()}, "joints: expected common14"),
    ],
)
def test_a_protocol_that_contradicts_itself_is_refused(changes, reason):
    with pytest.raises(ConfigError, match=reason):
        replace(protocols.DEFAULT, **changes)
