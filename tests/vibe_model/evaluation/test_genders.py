"""Splits whose 3D labels are of gendered bodies: one body a row, for joints and for vertices."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import MissingAssets
from pipeline.people import smpl_files
from pipeline.people.body import Body
from tests.vibe_model.builders import MemorySplit
from tests.vibe_model.evaluation.made_models import OPTIONS, Oracle, stand_in, true_verts
from vibe_model.evaluation.evaluate import evaluate_split

HIPS = [1, 4]  # of Human3.6M's joints


def of_genders(*genders):
    """A split of three tracks whose 3D labels are of the stand-in bodies of their genders, and what
    predicts its pose and shape without an error, by the neutral body.
    """
    split, body = MemorySplit(0, [4, 3, 5], joints=14), stand_in()
    rows = split.rows
    rows["features"][:, 0] = np.arange(12)
    rows["theta"][:, 3:] *= 0.5
    split.tracks[:] = [
        track._replace(gender=gender) for track, gender in zip(split.tracks, genders, strict=True)
    ]
    split.name = "sport/test"
    split.manifest["reader"] = {"genders": ["male", "female"]}
    labels = np.empty((12, 6890, 3), np.float32)
    for track in split.tracks:
        part = slice(track.start, track.stop)
        labels[part] = true_verts(
            body.of(track.gender if track.gender != "neutral" else "male"), rows["theta"][part]
        )
    rows["kp_3d"] = np.einsum("jv,bvc->bjc", body.J_regressor_h36m.numpy(), labels)[
        :, body.common14_index.numpy()
    ]
    return split, Oracle(body, true_verts(body, rows["theta"]), rows["kp_2d"][..., :2]), labels


def distances(body, *verts):
    """Of each row's vertices about their own hips, in mm."""
    regressor = body.J_regressor_h36m.numpy()[HIPS]
    own, label = (v - (regressor @ v).mean(1, keepdims=True) for v in verts)
    return 1000 * np.linalg.norm(own - label, axis=-1).mean(-1)


def test_vertices_of_a_split_with_genders_are_those_of_the_bodies_that_its_joints_are_of():
    # of a gender that is not declared: the first one's
    split, oracle, labels = of_genders("male", "female", "neutral")
    result = evaluate_split(oracle, split, OPTIONS)
    expected = distances(oracle.body, oracle.verts.detach().numpy(), labels).mean()
    assert result["pve"] == pytest.approx(expected, rel=1e-4)
    assert result["pve"] > 10  # the stand-ins of the genders differ
    assert result["label_body"] == "female, male"
    exact = Oracle(oracle.body, labels, oracle.kp_2d)
    exact = evaluate_split(exact, split, OPTIONS)
    # of one body a row
    assert [exact[name] for name in ("mpjpe", "pve")] == pytest.approx([0, 0], abs=1e-3)
    # as 3DPW is by default: the people's genders are labels alone
    del split.manifest["reader"]["genders"]
    result = evaluate_split(oracle, split, OPTIONS)
    assert (result["pve"], result["label_body"]) == (pytest.approx(0, abs=1e-3), "neutral")


def test_unposed_vertices_of_a_split_with_genders_are_of_both_bodies():
    split, oracle, _ = of_genders("female", "female", "female")
    split.rows["kp_2d"][..., 2] = 1
    theta = np.zeros((12, 85), np.float32)
    own = true_verts(oracle.body, theta)  # the oracle's shape is 0
    theta[:, 75:] = split.rows["theta"][:, 75:]
    label = true_verts(oracle.body.of("female"), theta)
    error = distances(oracle.body, own, label)
    expected = np.mean([error[track.start : track.stop].mean() for track in split.tracks])
    found = evaluate_split(oracle, split, OPTIONS, protocol="hmmr")
    assert found["pve_unposed"] == pytest.approx(expected, rel=1e-4)


def test_without_the_body_of_a_gender_vertices_are_refused_by_name_and_joints_evaluated(
    tmp_path, monkeypatch
):
    split, oracle, _ = of_genders("male", "female", "male")
    monkeypatch.setattr(Body, "of", lambda self, gender: smpl_files.load(tmp_path, gender))
    with pytest.raises(MissingAssets, match=r"sport/test: PVE .*: missing SMPL_MALE"):
        evaluate_split(oracle, split, OPTIONS)
    assert evaluate_split(oracle, split, replace(OPTIONS, vertices=False))["mpjpe"] > 0
