"""Joints in drawings: which side they have, and 3D from two sides."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import cache
from pipeline.people.skeletons import bones, opposite_joints
from pipeline.show.drawing import NAMES, SIDES, flat, joints_3d, views
from tests.pipeline.show.made_tracks import made, shown


def joints(marks):
    """Joint's name -> the place of its dot in the drawing."""
    found = {}
    for dot in marks.of_class("joint"):
        found[dot.text.partition(" (")[0]] = tuple(
            float(dot.attributes[key]) for key in ("cx", "cy")
        )
    return found


def test_joints_and_bones_have_the_side_of_their_names():
    right = ("rankle", "rear", "reye", "OP RBigToe", "OP REar", "rwrist")
    left = ("lankle", "lear", "leye", "OP LBigToe", "OP LEar", "lwrist")
    middle = (
        "hip",
        "neck",
        "nose",
        "headtop",
        "thorax",
        "Jaw (H36M)",
        "OP Neck",
        "OP MidHip",
        "OP Nose",
    )
    for names, expected in ((right, "right"), (left, "left"), (middle, "middle")):
        assert {SIDES[NAMES.index(name)] for name in names} == {expected}
    turned = {"right": "left", "left": "right", "middle": "middle"}
    assert [turned[side] for side in SIDES] == [SIDES[j] for j in opposite_joints("spin49")]
    kp_2d = np.concatenate(
        [np.random.default_rng(0).uniform(0, 100, (49, 2)), np.ones((49, 1))], axis=1
    )
    sides = {line.name: line.side for line in flat(kp_2d).lines}
    assert len(sides) == len(bones("spin49"))
    assert (
        sides["rwrist – relbow"]
        == sides["hip – rhip"]
        == sides["OP Neck – OP RShoulder"]
        == "right"
    )
    assert sides["lwrist – lelbow"] == sides["hip – lhip"] == sides["nose – leye"] == "left"
    assert sides["rhip – lhip"] == sides["neck – headtop"] == "middle"


def test_the_front_is_what_the_camera_sees_and_the_side_shows_the_depth():
    joints = np.zeros((49, 4))
    # at the picture's left, above the pelvis, behind it
    joints[NAMES.index("rwrist")] = (-0.4, -0.2, 0.7, 1)
    for camera, expected in (
        (True, [(-0.4, -0.2), (0.7, -0.2)]),
        (False, [(-0.4, -0.7), (-0.2, -0.7)]),
    ):
        dots = [dot for view in views(joints, camera=camera) for dot in view.skeleton.dots]
        # SVG's y points down, as the camera's does
        assert [(dot.x, dot.y) for dot in dots] == expected
        assert dots[0].name == "rwrist (-0.40, -0.20, 0.70) m"


def test_all_3d_views_of_a_track_have_one_scale_and_unknown_frames_have_none(drawn, tmp_path):
    kp_3d = np.zeros((3, 49, 4), np.float32)
    kp_3d[..., 3] = 1
    kp_3d[0, NAMES.index("lwrist"), :3] = (0.3, -0.8, 0)
    kp_3d[1, NAMES.index("rankle"), :3] = (0, 0.9, -0.6)
    kp_3d[2, NAMES.index("rankle"), :3] = (0, 9, 9)
    flags = {"has_3d": np.array([True, True, False]), "valid": np.array([False, True, True])}
    page = drawn(shown(made(tmp_path, 3, kp_3d=kp_3d, **flags)))
    svgs = [svg for figure in page.main.of_class("solid") for svg in figure.all("svg")]
    assert len(svgs) == 4
    for svg in svgs:  # 0.1 m about all that there is in either frame
        assert [float(v) for v in svg.attributes["viewbox"].split()] == pytest.approx(
            [-0.7, -0.9, 1.4, 1.9]
        )
    assert [svg.attributes["aria-label"].split(",")[0][-1] for svg in svgs] == ["0", "0", "1", "1"]


def test_evaluation_s_joints_are_drawn_where_there_are_no_others():
    kp_3d_eval = np.zeros((1, 14, 3), np.float32)
    # rhip, lhip: the centre is between them
    kp_3d_eval[0, 2], kp_3d_eval[0, 3] = (1.1, 2, 3), (0.9, 2, 3)
    joints, what = joints_3d({"frame_index": np.arange(1), "kp_3d_eval": kp_3d_eval}, None)
    assert joints is not None and what.startswith("kp_3d_eval")
    assert (joints[0, :, 3] > 0).sum() == 14
    assert_allclose(joints[0, NAMES.index("rhip"), :3], (0.1, 0, 0), atol=1e-6)


def test_a_posed_body_stands_where_the_labels_say(embedded, root):
    split = cache.open(root)["3dpw/train"]
    rows = {name: split.rows(name, 0, 5) for name in ("frame_index", "pose", "betas", "kp_3d")}
    labelled, _ = joints_3d(rows, None)
    smpl = {name: rows[name].copy() for name in ("frame_index", "pose", "betas")}
    smpl["pose"][3] = np.nan
    posed, what = joints_3d(smpl, embedded.body)
    assert posed is not None and labelled is not None and "posed" in what
    assert_allclose(posed[[0, 1, 2, 4]], labelled[[0, 1, 2, 4]], atol=1e-5)
    assert not posed[3].any()


def test_motion_alone_is_drawn_upright_with_a_body_and_needs_one(embedded, page, root):
    without = page("amass/train", "--cache", root).main
    assert [*without.all("img"), *without.of_class("solid")] == [] and "--body DIR" in without.text
    with_body = page("amass/train", "--cache", root, "--body", embedded.body).main
    assert with_body.all("img") == []
    fronts = [figure.all("svg")[0] for figure in with_body.of_class("solid")[::2]]
    assert len(fronts) == 5
    heights = [joints(svg)["rankle"][1] - joints(svg)["headtop"][1] for svg in fronts]
    assert np.median(heights) > 1  # m
    colours = {dot.attributes["class"] for dot in fronts[0].all("circle")}
    assert colours == {f"joint {side}" for side in ("left", "right", "middle")}
