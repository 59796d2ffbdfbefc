"""Boxes, crops and joints on the page: where they are, which side they have, and 3D from two
sides.
"""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

import cache
from pipeline.people.skeletons import bones, opposite_joints
from pipeline.show.drawing import NAMES, SIDES, flat, joints_3d, views
from tests.pipeline.show.made_tracks import AT, made, pictures, shown


def joints(marks):
    """Joint's name -> the place of its dot in the drawing."""
    found = {}
    for dot in marks.of_class("joint"):
        a = {key: float(value) for key, value in dot.attributes.items() if key != "class"}
        at = (
            (a["cx"], a["cy"])
            if dot.tag == "circle"
            else (a["x"] + a["width"] / 2, a["y"] + a["height"] / 2)
        )
        found[dot.text.partition(" (")[0]] = at
    return found


def test_joints_and_boxes_are_where_the_label_and_the_map_of_the_crop_put_them(drawn, tmp_path):
    read = drawn(shown(made(tmp_path, crop_scale=1.2)))
    full, crop = read.main.of_class("marks")
    assert full.attributes["viewbox"] == "-0.5 -0.5 640 400"  # a pixel's centre is at whole numbers
    assert crop.attributes["viewbox"] == "-0.5 -0.5 224 224"
    assert joints(full) == {name: pytest.approx(at, abs=2e-3) for name, at in AT.items()}
    closed_form = {
        name: (112 + (x - 300) * 224 / 120, 112 + (y - 200) * 224 / 120)
        for name, (x, y) in AT.items()
    }
    assert joints(crop) == {name: pytest.approx(at, abs=2e-3) for name, at in closed_form.items()}
    (line,) = full.of_class("bone")  # the other joint's neighbours are not visible
    assert line.text == "relbow – rshoulder"
    assert [float(line.attributes[key]) for key in ("x1", "y1", "x2", "y2")] == [
        270,
        200.5,
        280,
        180,
    ]
    rects = {
        rect.text: [float(rect.attributes[k]) for k in ("x", "y", "width", "height")]
        for rect in full.all("rect")
    }
    assert (rects["box"], rects["crop"]) == ([250, 150, 100, 100], [240, 140, 120, 120])
    assert not crop.of_class("box") + crop.of_class("crop")
    shapes = {
        dot.text.split()[0]: (dot.tag, "right" in dot.classes) for dot in full.of_class("joint")
    }
    assert shapes == {
        "rshoulder": ("rect", True),
        "relbow": ("rect", True),
        "lwrist": ("circle", False),
    }
    assert "right: orange" in read.header.text and "left: blue" in read.header.text


def test_the_crop_shows_the_pixels_that_its_joints_mean(drawn, tmp_path):
    track = made(tmp_path, crop_scale=1.2)
    picture = np.zeros((400, 640, 3), np.uint8)
    cv2.circle(picture, (330, 210), 3, (255, 255, 255), -1)  # where lwrist is
    cv2.imwrite(str(tmp_path / "f/000000.jpg"), picture)
    read = drawn(shown(track))
    x, y = joints(read.main.of_class("marks")[1])["lwrist"]
    crop = pictures(read)[1][..., 0]
    light = np.where(crop > 20, crop, 0).astype(float)  # the rest is the JPEG's noise
    rows, columns = np.indices(light.shape)
    assert x == pytest.approx((light * columns).sum() / light.sum(), abs=0.1)
    assert y == pytest.approx((light * rows).sum() / light.sum(), abs=0.1)


def test_large_frames_are_made_small_and_keep_their_colours_and_coordinates(drawn, tmp_path):
    track = made(tmp_path, size=(1000, 2000))
    bgr = (20, 120, 230)
    cv2.imwrite(str(tmp_path / "f/000000.jpg"), np.full((2000, 1000, 3), bgr, np.uint8))
    read = drawn(shown(track))
    assert pictures(read)[0].shape == (480, 240, 3)
    # OpenCV's order
    assert all(picture[100, 100] == pytest.approx(bgr, abs=4) for picture in pictures(read))
    full = read.main.of_class("marks")[0]
    assert full.attributes["viewbox"] == "-0.5 -0.5 1000 2000"
    assert joints(full)["lwrist"] == pytest.approx(AT["lwrist"], abs=2e-3)


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


def test_body_25_is_dashed_only_beside_other_bones(drawn, tmp_path):
    track = made(tmp_path)
    kp_2d = np.zeros_like(track.kp_2d)
    kp_2d[:, :25] = (300, 200, 1)
    alone = drawn(shown(replace(track, kp_2d=kp_2d))).main
    assert (
        len(alone.of_class("marks")[0].of_class("joint", "body25")) == 25
        and alone.of_class("dashed") == []
    )
    # no bone of its own: nothing runs side by side
    kp_2d[:, NAMES.index("headtop")] = (300, 180, 1)
    assert drawn(shown(replace(track, kp_2d=kp_2d))).main.of_class("dashed") == []
    kp_2d[:, NAMES.index("neck")] = (300, 190, 1)
    both = drawn(shown(replace(track, kp_2d=kp_2d))).main.of_class("marks")[0]
    assert len(both.of_class("joint", "body25", "dashed")) == 25
    assert [dot.text.split()[0] for dot in both.of_class("joint", "common")] == ["neck", "headtop"]


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
    cards = drawn(shown(made(tmp_path, 3, kp_3d=kp_3d, **flags))).main.of_class("card")
    svgs = [svg for card in cards for figure in card.of_class("solid") for svg in figure.all("svg")]
    assert len(svgs) == 4
    for svg in svgs:  # 0.1 m about all that there is in either frame
        assert [float(v) for v in svg.attributes["viewbox"].split()] == pytest.approx(
            [-0.7, -0.9, 1.4, 1.9]
        )
    assert cards[2].of_class("solid") == [] and "no 3D in this frame not has_3d" in cards[2].text
    assert "not valid" in cards[0].text


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
    assert [*without.all("img"), *without.of_class("marks")] == [] and "--body DIR" in without.text
    with_body = page("amass/train", "--cache", root, "--body", embedded.body).main
    assert with_body.all("img") == []
    assert len(with_body.of_class("solid")) == 5 * 2 * len(with_body.of_class("track")) > 0
    heights = [
        joints(svg)["rankle"][1] - joints(svg)["headtop"][1] for svg in with_body.of_class("marks")
    ]
    assert np.median(heights) > 1  # m
