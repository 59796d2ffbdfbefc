"""The procedural body: a closed, symmetric surface that moves like a person, with SMPL's numbers."""

import runpy
from collections import Counter
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from pipeline.skeletons import JOINTS, mirrored
from pipeline.synthetic import body, rig
from pipeline.synthetic.body import rest_joints, skin
from pipeline.synthetic.render import SmoothNormals
from pipeline.synthetic.surface import MIRROR, surface

BODY = body.procedural()
NUMBER = {name: k for k, name in enumerate(rig.JOINT_NAMES)}
PARTNERS = [NUMBER[{"l_": "r_", "r_": "l_"}.get(name[:2], name[:2]) + name[2:]] for name in rig.JOINT_NAMES]


@cache
def mirror_images():
    """Vertex i's counterpart on the other side, found by position."""
    distance, index = cKDTree(BODY.v_template).query(BODY.v_template * MIRROR)
    assert distance.max() < 1e-9
    return index


def volume(vertices, faces) -> float:
    """Enclosed volume, m^3: positive when the faces look outwards."""
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def pose_of(**degrees):
    """(1, 72): rotation vectors of the named joints."""
    pose = np.zeros((24, 3))
    for name, angles in degrees.items():
        pose[NUMBER[name]] = np.deg2rad(angles)
    return pose.reshape(1, 72)


def posed(pose, arrays=BODY):
    return skin(arrays, np.zeros(10), pose, np.zeros((1, 3)))


POSES = {
    "arms raised": pose_of(l_shoulder=(0, 0, 75), r_shoulder=(0, 0, -75), l_collar=(0, 0, 15), r_collar=(0, 0, -15)),
    "arms down": pose_of(l_shoulder=(0, 0, -75), r_shoulder=(0, 0, 75)),
    "squat": pose_of(l_hip=(-100, 0, 15), r_hip=(-100, 0, -15), l_knee=(115, 0, 0), r_knee=(115, 0, 0)),
    "twist": pose_of(spine1=(0, 20, 0), spine2=(0, 20, 0), spine3=(0, 20, 0), neck=(0, 25, 0), head=(0, 25, 0)),
    "elbows bent": pose_of(l_elbow=(0, -120, 0), r_elbow=(0, 120, 0)),
}


def test_the_surface_is_one_closed_body_without_handles() -> None:
    faces = BODY.faces
    assert (BODY.v_template.shape, faces.shape) == ((6890, 3), (13776, 3))
    half_edges = np.concatenate([faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    count = Counter(map(tuple, half_edges.tolist()))
    assert set(count.values()) == {1}, "no edge is run along twice in one direction"
    assert all((b, a) in count for a, b in count), "every edge is run along once in each direction"
    assert 6890 - len(half_edges) // 2 + 13776 == 2  # Euler: one sphere, if it is one piece
    links = coo_array((np.ones(len(half_edges)), half_edges.T), shape=(6890, 6890))
    assert connected_components(links, directed=False)[0] == 1
    for gender in ("male", "female"):
        np.testing.assert_array_equal(body.procedural(gender).faces, faces)


@pytest.mark.parametrize(("gender", "height"), [("neutral", 1.72), ("male", 1.77), ("female", 1.67)])
def test_the_body_is_as_tall_and_as_heavy_as_people_are_and_stays_so_when_posed(gender: str, height: float) -> None:
    arrays = body.procedural(gender)
    extent = np.ptp(arrays.v_template, axis=0)
    assert extent[1] == pytest.approx(height, abs=0.02)
    assert extent[0] == pytest.approx(extent[1], rel=0.06)  # the span of the arms is the height
    assert 0.045 < volume(arrays.v_template, arrays.faces) < 0.090  # m^3: 45 to 90 kg
    assert arrays.stand_in
    for name, pose in POSES.items():
        verts = posed(pose, arrays).verts[0]
        assert volume(verts, arrays.faces) == pytest.approx(volume(arrays.v_template, arrays.faces), rel=0.08), name
        a, b = arrays.faces[:, 0], arrays.faces[:, 1]
        before, after = (np.linalg.norm(v[a] - v[b], axis=1) for v in (arrays.v_template, verts))
        assert after.max() < 0.09  # m; no spikes
        assert np.quantile(after / before, 0.99) < 2.0


def test_left_and_right_mirror_each_other_in_everything() -> None:
    other, skin_of = mirror_images(), surface()
    np.testing.assert_array_equal(skin_of.vertices[skin_of.mirror], skin_of.vertices * MIRROR)
    np.testing.assert_allclose(BODY.weights, BODY.weights[other][:, PARTNERS], atol=1e-12)
    np.testing.assert_allclose(BODY.shapedirs, BODY.shapedirs[other] * MIRROR[:, None], atol=1e-12)
    np.testing.assert_allclose(BODY.J_regressor, BODY.J_regressor[PARTNERS][:, other], atol=1e-9)
    assert {frozenset(f) for f in BODY.faces.tolist()} == {frozenset(f) for f in other[BODY.faces].tolist()}
    left = posed(pose_of(l_elbow=(5, -70, 9), l_shoulder=(20, 10, -50), l_hip=(-40, 3, 20), head=(4, 0, 0))).verts[0]
    right = posed(pose_of(r_elbow=(5, 70, -9), r_shoulder=(20, -10, 50), r_hip=(-40, -3, -20), head=(4, 0, 0))).verts[0]
    np.testing.assert_allclose(left[other] * MIRROR, right, atol=1e-7)


def test_skinning_weights_are_smooth_shares_of_at_most_four_bones() -> None:
    np.testing.assert_allclose(BODY.weights.sum(axis=1), 1, atol=1e-12)
    assert (BODY.weights >= 0).all()
    assert (BODY.weights > 0).sum(axis=1).max() <= 4
    assert np.abs(BODY.weights[BODY.faces[:, 0]] - BODY.weights[BODY.faces[:, 1]]).max() < 0.35


def test_every_joint_is_where_the_skeleton_has_it_and_inside_the_body() -> None:
    joints = BODY.J_regressor @ BODY.v_template
    np.testing.assert_allclose(joints, rig.JOINTS, atol=1e-9)
    for regressor in (BODY.J_regressor, BODY.J_regressor_extra, BODY.J_regressor_h36m):
        np.testing.assert_allclose(regressor.sum(axis=1), 1, atol=1e-12)
        assert (regressor >= 0).all()
    for point in np.concatenate([joints, BODY.J_regressor_extra @ BODY.v_template]):
        a, b, c = np.moveaxis(BODY.v_template[BODY.faces] - point, 1, 0)
        la, lb, lc = (np.linalg.norm(side, axis=1) for side in (a, b, c))
        ab, bc, ca = (np.einsum("ij,ij->i", p, q) for p, q in ((a, b), (b, c), (c, a)))
        triple, below = np.einsum("ij,ij->i", a, np.cross(b, c)), la * lb * lc + ab * lc + bc * la + ca * lb
        solid_angle = 2 * np.arctan2(triple, below).sum()  # of a closed surface: 4 pi around a point inside
        assert solid_angle == pytest.approx(4 * np.pi, abs=1e-6), point


def test_h36m_rows_are_in_the_order_of_the_skeletons_module() -> None:
    joints = dict(zip(JOINTS["h36m"], BODY.J_regressor_h36m @ BODY.v_template, strict=True))
    for name, partner in zip(JOINTS["h36m"], mirrored("h36m"), strict=True):
        np.testing.assert_allclose(joints[name] * MIRROR, joints[JOINTS["h36m"][partner]], atol=1e-9)
    assert joints["lwrist"][0] > joints["lelbow"][0] > joints["lshoulder"][0] > 0
    heights = [joints[name][1] for name in ("headtop", "Head (H36M)", "neck", "Spine (H36M)", "hip", "lknee", "lankle")]
    assert heights == sorted(heights, reverse=True)


def test_the_vertices_that_others_pick_by_number_are_smplx_s_and_at_their_places() -> None:
    smplx = Path(find_spec("smplx").origin)  # without importing it: it takes torch along
    theirs = runpy.run_path(str(smplx.with_name("vertex_ids.py")))["vertex_ids"]["smplh"]
    assert {name.lower(): number for name, number in theirs.items()} == body.VERTEX_IDS
    v, at = BODY.v_template, {name: BODY.v_template[k] for name, k in body.VERTEX_IDS.items()}
    for name, spot in at.items():
        if name.startswith("l"):
            np.testing.assert_allclose(spot * MIRROR, at[f"r{name[1:]}"], atol=1e-12)
            assert spot[0] > 0.02
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


def test_pose_correctives_vanish_at_rest_and_are_small_elsewhere() -> None:
    np.testing.assert_allclose(posed(np.zeros((1, 72))).verts[0], BODY.v_template, atol=1e-12)
    bent = Rotation.from_rotvec([0, -np.pi / 2, 0]).as_matrix() - np.eye(3)
    elbow = 9 * (NUMBER["l_elbow"] - 1)
    moved = np.linalg.norm(BODY.posedirs[:, :, elbow : elbow + 9] @ bent.ravel(), axis=1)
    assert 0.002 < moved.max() < 0.03  # m


def test_shapes_within_two_units_are_people() -> None:
    before = SmoothNormals(BODY.faces)(BODY.v_template)
    for beta in (-2.0, 2.0):
        for shaped in np.moveaxis(BODY.v_template[..., None] + beta * BODY.shapedirs, -1, 0):
            assert 0.004 < np.linalg.norm(shaped - BODY.v_template, axis=1).max() < 0.12
            assert 1.5 < np.ptp(shaped[:, 1]) < 1.95
            assert 0.035 < volume(shaped, BODY.faces) < 0.11
            normals = SmoothNormals(BODY.faces)(shaped)
            assert (np.einsum("ij,ij->i", normals, before) > 0.3).all(), "the skin does not fold over"
    taller, stouter = (BODY.v_template + BODY.shapedirs[..., beta] for beta in (0, 1))
    assert np.ptp(taller[:, 1]) == pytest.approx(1.72 * 1.03, abs=0.01)
    assert volume(stouter, BODY.faces) > 1.04 * volume(BODY.v_template, BODY.faces)


def test_the_mean_pose_is_a_person_upright_before_a_camera_whose_y_points_down() -> None:
    pose = body.relaxed_pose()
    np.testing.assert_allclose(BODY.mean_pose.reshape(24, 3, 2), pose[..., :2], atol=1e-12)
    joints = posed(Rotation.from_matrix(pose).as_rotvec().reshape(1, 72)).joints[0]
    at = dict(zip(rig.JOINT_NAMES, joints, strict=True))
    assert at["head"][1] < at["pelvis"][1] < at["l_knee"][1] < at["l_ankle"][1]  # y down
    assert at["l_foot"][2] < at["l_ankle"][2]  # facing the camera, which looks along +z
    assert at["l_wrist"][1] > at["l_elbow"][1] > at["l_shoulder"][1]  # arms hang
    np.testing.assert_allclose(at["l_wrist"] * MIRROR, at["r_wrist"], atol=1e-7)


def test_the_root_turns_about_its_own_joint_and_translation_moves_everything() -> None:
    pose = np.zeros((2, 72))
    pose[0, 1] = np.pi / 2
    turned, moved = skin(BODY, np.zeros(10), pose, np.array([[0, 0, 0], [1.0, 2, 3]])).verts
    pelvis = rest_joints(BODY, np.zeros(10))[0]
    x, y, z = (BODY.v_template - pelvis).T
    np.testing.assert_allclose(turned, np.stack([z, y, -x], axis=1) + pelvis, atol=1e-9)  # +z goes to +x, +x to -z
    np.testing.assert_allclose(moved, BODY.v_template + np.array([1, 2, 3]), atol=1e-12)
    some = np.array([5, 332, 6889])
    part = skin(BODY, np.zeros(10), pose, np.zeros((2, 3)), some).verts
    np.testing.assert_allclose(part[0], turned[some], atol=1e-12)
