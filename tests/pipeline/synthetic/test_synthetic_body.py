"""The stand-in body: a closed, symmetric surface that moves like a person, with SMPL's numbers."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.raw.stand_in import MARKER, is_stand_in
from pipeline.skeletons import JOINTS, mirrored
from pipeline.smpl.assets import MEAN_PARAMS, REGRESSOR_EXTRA, REGRESSOR_H36M, SmplArrays
from pipeline.synthetic.body import body, rig, shapes
from pipeline.synthetic.body import surface as body_surface
from pipeline.synthetic.body.skinning import skin

MIRROR = np.array([-1.0, 1.0, 1.0])
GENDERS = ("neutral", "male", "female")


def mirror_of(vertices: Any) -> Any:
    """Vertex i's counterpart on the other side, found by position."""
    from scipy.spatial import cKDTree

    distance, index = cKDTree(vertices).query(vertices * MIRROR)
    assert distance.max() < 1e-9
    return index


def volume(vertices: Any, faces: Any) -> float:
    """Enclosed volume, m^3: positive when the faces look outwards."""
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def pose_of(**degrees: tuple[float, float, float]) -> Any:
    """(1, 72): rotation vectors of the named joints."""
    pose = np.zeros((24, 3))
    for name, angles in degrees.items():
        pose[rig.JOINT_NAMES.index(name)] = np.deg2rad(angles)
    return pose.reshape(1, 72)


def posed(arrays: SmplArrays, pose: Any, betas: Any = None) -> Any:
    return skin(arrays, np.zeros(10) if betas is None else betas, pose, np.zeros((1, 3)))


POSES = {
    "arms raised": pose_of(l_shoulder=(0, 0, 75), r_shoulder=(0, 0, -75), l_collar=(0, 0, 15), r_collar=(0, 0, -15)),
    "arms down": pose_of(l_shoulder=(0, 0, -75), r_shoulder=(0, 0, 75)),
    "squat": pose_of(l_hip=(-100, 0, 15), r_hip=(-100, 0, -15), l_knee=(115, 0, 0), r_knee=(115, 0, 0)),
    "twist": pose_of(spine1=(0, 20, 0), spine2=(0, 20, 0), spine3=(0, 20, 0), neck=(0, 25, 0), head=(0, 25, 0)),
    "elbows bent": pose_of(l_elbow=(0, -120, 0), r_elbow=(0, 120, 0)),
}


@pytest.mark.parametrize("gender", GENDERS)
def test_the_surface_is_one_closed_body_without_handles(gender: str) -> None:
    arrays = body.procedural(gender)
    assert arrays.v_template.shape == (6890, 3)
    assert arrays.faces.shape == (13776, 3)
    half_edges = np.concatenate([arrays.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    count = Counter(map(tuple, half_edges.tolist()))
    assert set(count.values()) == {1}, "no edge is run along twice in one direction"
    assert all((b, a) in count for a, b in count), "every edge is run along once in each direction"
    assert 6890 - len(half_edges) // 2 + 13776 == 2  # Euler: one sphere, were it one piece
    reached, front = {0}, [0]
    neighbours: dict[int, list[int]] = {}
    for a, b in count:
        neighbours.setdefault(a, []).append(b)
    while front:
        front = [n for v in front for n in neighbours[v] if n not in reached and not reached.add(n)]  # type: ignore[func-returns-value]
    assert len(reached) == 6890  # and one piece it is


@pytest.mark.parametrize(("gender", "height"), [("neutral", 1.72), ("male", 1.77), ("female", 1.67)])
def test_the_body_is_as_tall_and_as_heavy_as_people_are(gender: str, height: float) -> None:
    arrays = body.procedural(gender)
    extent = np.ptp(arrays.v_template, axis=0)
    assert extent[1] == pytest.approx(height, abs=0.02)
    assert extent[0] == pytest.approx(extent[1], rel=0.06)  # the span of the arms is the height
    assert 0.045 < volume(arrays.v_template, arrays.faces) < 0.090  # m^3: 45 to 90 kg


def test_left_and_right_mirror_each_other_in_everything() -> None:
    arrays = body.procedural()
    other = mirror_of(arrays.v_template)
    joint_partner = rig._PARTNER
    np.testing.assert_allclose(arrays.weights, arrays.weights[other][:, joint_partner], atol=1e-12)
    np.testing.assert_allclose(arrays.shapedirs, arrays.shapedirs[other] * MIRROR[:, None], atol=1e-12)
    np.testing.assert_allclose(arrays.J_regressor, arrays.J_regressor[joint_partner][:, other], atol=1e-9)
    faces = {frozenset(face) for face in arrays.faces.tolist()}
    assert faces == {frozenset(face) for face in other[arrays.faces].tolist()}
    left = posed(
        arrays, pose_of(l_elbow=(5, -70, 9), l_shoulder=(20, 10, -50), l_hip=(-40, 3, 20), head=(4, 0, 0))
    ).verts
    right = posed(
        arrays, pose_of(r_elbow=(5, 70, -9), r_shoulder=(20, -10, 50), r_hip=(-40, -3, -20), head=(4, 0, 0))
    ).verts
    np.testing.assert_allclose(left[0][other] * MIRROR, right[0], atol=1e-7)


def test_skinning_weights_are_smooth_shares_of_at_most_four_bones() -> None:
    arrays = body.procedural()
    np.testing.assert_allclose(arrays.weights.sum(axis=1), 1, atol=1e-12)
    assert (arrays.weights >= 0).all()
    assert (arrays.weights > 0).sum(axis=1).max() <= 4
    jumps = np.abs(arrays.weights[arrays.faces[:, 0]] - arrays.weights[arrays.faces[:, 1]]).max()
    assert jumps < 0.35


def test_every_joint_lies_where_the_skeleton_has_it_and_inside_the_body() -> None:
    arrays = body.procedural()
    joints = arrays.J_regressor @ arrays.v_template
    np.testing.assert_allclose(joints, rig.JOINTS, atol=1e-9)
    for regressor in (arrays.J_regressor, arrays.J_regressor_extra, arrays.J_regressor_h36m):
        np.testing.assert_allclose(regressor.sum(axis=1), 1, atol=1e-12)
        assert (regressor >= 0).all()
    points = np.concatenate([joints, arrays.J_regressor_extra @ arrays.v_template])
    for point in points:  # winding number: the solid angle of a closed surface is 4 pi around a point inside
        a, b, c = np.moveaxis(arrays.v_template[arrays.faces] - point, 1, 0)
        la, lb, lc = (np.linalg.norm(side, axis=1) for side in (a, b, c))
        triple = np.einsum("ij,ij->i", a, np.cross(b, c))
        dots = [np.einsum("ij,ij->i", p, q) for p, q in ((a, b), (b, c), (c, a))]
        below = la * lb * lc + dots[0] * lc + dots[1] * la + dots[2] * lb
        assert 2 * np.arctan2(triple, below).sum() == pytest.approx(4 * np.pi, abs=1e-6), point


def test_h36m_rows_are_in_the_order_of_the_skeletons_module() -> None:
    arrays = body.procedural()
    joints = dict(zip(JOINTS["h36m"], arrays.J_regressor_h36m @ arrays.v_template, strict=True))
    for name, partner in zip(JOINTS["h36m"], (JOINTS["h36m"][k] for k in mirrored("h36m")), strict=True):
        np.testing.assert_allclose(joints[name] * MIRROR, joints[partner], atol=1e-9)
    assert joints["lwrist"][0] > joints["lelbow"][0] > joints["lshoulder"][0] > 0
    heights = [joints[name][1] for name in ("headtop", "Head (H36M)", "neck", "Spine (H36M)", "hip", "lknee", "lankle")]
    assert heights == sorted(heights, reverse=True)


def test_the_vertices_that_others_pick_by_number_are_at_their_places() -> None:
    at = {name: body.procedural().v_template[k] for name, k in body.VERTEX_IDS.items()}
    for name, spot in at.items():
        if name.startswith("l"):
            np.testing.assert_allclose(spot * MIRROR, at[f"r{name[1:]}"], atol=1e-12)
            assert spot[0] > 0.02
    v = body.procedural().v_template
    assert at["nose"][0] == 0
    assert at["nose"][2] > at["leye"][2] > at["lear"][2]
    assert at["leye"][1] > at["nose"][1]
    assert at["lear"][0] > at["leye"][0]
    assert at["lbigtoe"][2] > 0.1 > -0.05 > at["lheel"][2]
    assert at["lsmalltoe"][0] > at["lbigtoe"][0]
    assert max(at[name][1] for name in ("lbigtoe", "lsmalltoe", "lheel")) < v[:, 1].min() + 0.05
    assert at["lmiddle"][0] == v[:, 0].max()
    depth = [at[f"l{finger}"][2] for finger in ("thumb", "index", "middle", "ring", "pinky")]
    assert depth == sorted(depth, reverse=True)  # palms down: the thumb points forwards


def test_the_vertex_numbers_are_those_of_smplx() -> None:
    from smplx.vertex_ids import vertex_ids

    assert {name.lower(): number for name, number in vertex_ids["smplh"].items()} == body.VERTEX_IDS


@pytest.mark.parametrize("name", POSES)
@pytest.mark.parametrize("gender", GENDERS)
def test_posing_keeps_the_volume_and_tears_nothing(name: str, gender: str) -> None:
    arrays = body.procedural(gender)
    verts = posed(arrays, POSES[name]).verts[0]
    assert volume(verts, arrays.faces) == pytest.approx(volume(arrays.v_template, arrays.faces), rel=0.08)
    edges = arrays.faces[:, [0, 1]]
    before, after = (np.linalg.norm(v[edges[:, 0]] - v[edges[:, 1]], axis=1) for v in (arrays.v_template, verts))
    assert after.max() < 0.09  # m; no spikes
    assert np.quantile(after / before, 0.99) < 2.0


def test_pose_correctives_are_small_and_vanish_at_rest() -> None:
    arrays = body.procedural()
    np.testing.assert_allclose(posed(arrays, np.zeros((1, 72))).verts[0], arrays.v_template, atol=1e-12)
    bent = Rotation.from_rotvec([0, -np.pi / 2, 0]).as_matrix() - np.eye(3)
    elbow = slice(9 * (rig.JOINT_NAMES.index("l_elbow") - 1), 9 * rig.JOINT_NAMES.index("l_elbow"))
    moved = np.linalg.norm(arrays.posedirs[:, :, elbow] @ bent.ravel(), axis=1)
    assert 0.002 < moved.max() < 0.03  # m
    assert moved[arrays.weights[:, rig.JOINT_NAMES.index("l_knee")] > 0.5].max() == 0


@pytest.mark.parametrize("k", range(10))
def test_shapes_within_two_units_are_people(k: int) -> None:
    arrays = body.procedural()
    for beta in (-2.0, 2.0):
        shaped = arrays.v_template + arrays.shapedirs[..., k] * beta
        moved = np.linalg.norm(shaped - arrays.v_template, axis=1).max()
        assert 0.004 < moved < 0.12, shapes.NAMES[k]
        assert 1.5 < np.ptp(shaped[:, 1]) < 1.95
        assert 0.035 < volume(shaped, arrays.faces) < 0.11
        normals, before = (rig.vertex_normals(v, arrays.faces) for v in (shaped, arrays.v_template))
        assert (np.einsum("ij,ij->i", normals, before) > 0.3).all(), "the skin does not fold over"


def test_stature_makes_taller_and_girth_heavier() -> None:
    arrays = body.procedural()
    height = lambda k: np.ptp((arrays.v_template + arrays.shapedirs[..., k])[:, 1])  # noqa: E731
    assert height(shapes.NAMES.index("stature")) == pytest.approx(1.72 * 1.03, abs=0.01)
    girth = arrays.v_template + arrays.shapedirs[..., shapes.NAMES.index("girth")]
    assert volume(girth, arrays.faces) > 1.04 * volume(arrays.v_template, arrays.faces)


def test_the_mean_pose_is_a_person_upright_before_a_camera_whose_y_points_down() -> None:
    pose = body.relaxed_pose()
    np.testing.assert_allclose(pose @ np.swapaxes(pose, 1, 2), np.tile(np.eye(3), (24, 1, 1)), atol=1e-12)
    columns = body.procedural().mean_pose.reshape(24, 3, 2)
    np.testing.assert_allclose(columns, pose[..., :2], atol=1e-12)
    arrays = body.procedural()
    joints = posed(arrays, Rotation.from_matrix(pose).as_rotvec().reshape(1, 72)).joints[0]
    at = dict(zip(rig.JOINT_NAMES, joints, strict=True))
    assert at["head"][1] < at["pelvis"][1] < at["l_knee"][1] < at["l_ankle"][1]  # y down
    assert at["l_foot"][2] < at["l_ankle"][2]  # facing the camera, which looks along +z
    assert at["l_wrist"][1] > at["l_elbow"][1] > at["l_shoulder"][1]  # arms hang
    np.testing.assert_allclose(at["l_wrist"] * MIRROR, at["r_wrist"], atol=1e-7)


def test_writing_twice_gives_the_same_bytes_and_the_marker(tmp_path: Path) -> None:
    body.write(tmp_path / "a")
    body.procedural.cache_clear()
    body.write(tmp_path / "b")
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    models = [f"SMPL_{gender.upper()}.pkl" for gender in GENDERS]
    assert set(names) == {*models, REGRESSOR_EXTRA, REGRESSOR_H36M, MEAN_PARAMS, MARKER}
    for name in names:
        if not name.endswith(".npz"):  # a zip archive records the time
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert is_stand_in(tmp_path / "a")


def test_genders_differ_where_people_do() -> None:
    shoulders, hips = (rig.JOINT_NAMES.index(name) for name in ("l_shoulder", "l_hip"))
    male, female = ((a := body.procedural(gender)).J_regressor @ a.v_template for gender in ("male", "female"))
    assert male[shoulders, 0] > female[shoulders, 0] + 0.01
    assert female[hips, 0] / female[shoulders, 0] > male[hips, 0] / male[shoulders, 0]
    digests = {body.procedural(gender).digest for gender in GENDERS}
    assert len(digests) == 3
    assert all(body.procedural(gender).stand_in for gender in GENDERS)


def test_the_shared_body_cannot_be_changed_by_mistake() -> None:
    with pytest.raises(ValueError, match="read-only"):
        body.procedural().v_template[0] = 0


def test_the_mesh_records_its_mirror() -> None:
    surface = body_surface.surface()
    np.testing.assert_array_equal(surface.vertices[surface.mirror], surface.vertices * MIRROR)
    np.testing.assert_array_equal(surface.mirror[surface.mirror], np.arange(6890))
