"""Expected indices are those that DATASETS.md and SMPL's own joint list state, typed here once more
by hand.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from pipeline.people.skeletons import (
    JOINTS,
    KEYPOINTS_13,
    bones,
    convert,
    correspondence,
    joint_names,
    keypoints_13,
    opposite_joints,
    zero_invalid_joints,
)

# Order, its number of joints; right ankle, left wrist, left knee and right shoulder in it, counted by
# hand in its tool's own file. The last two have some joints twice, and are below.
ORDERS = """
body_25 25 11 7 13 2
body_25b 25 16 9 13 6
openpose_coco 18 10 7 12 2
coco 17 16 9 13 6
coco_neck 18 16 9 13 6
coco_feet 23 16 9 13 6
halpe_26 26 16 9 13 6
posetrack 17 16 9 13 6
penn_action 13 12 5 9 2
insta_variety 25 24 11 4 8
mpi_inf_3dhp 28 25 11 19 14
mpi_inf_3dhp_test 17 10 7 12 2
h36m 17 6 13 2 14
h36m_lifters 17 3 13 5 14
3dpw 14 10 7 12 2
common14 14 0 11 4 8
smpl 24 8 20 4 17
spin49 49
smpl54 54
"""
SIDES = ("rankle", "lwrist", "lknee", "rshoulder")
PLACES = {}
for line in ORDERS.split("\n")[1:-1]:
    order, *numbers = line.split()
    PLACES[order] = [int(number) for number in numbers]
WITHOUT_PLACE = ("smpl", "smpl54", "mpi_inf_3dhp")  # in spin49, of some of their joints
FROM_SMPL = """
24 12 17 19 21 16 18 20 0 2 5 8 1 4 7 25 26 27 28 29 30 31 32 33 34
8 5 45 46 4 7 21 19 17 16 18 20 47 48 49 50 51 52 53 24 26 25 28 27
"""
SMPL_TO_SPIN49 = [int(number) for number in FROM_SMPL.split()]


def labelled(skeleton):
    """(J, 3): joint j is (j, 10 j, 1)."""
    j = np.arange(len(JOINTS[skeleton]), dtype=np.float32)
    return np.stack([j, 10 * j, np.ones_like(j)], axis=-1)


@pytest.mark.parametrize("name", JOINTS)
def test_every_skeleton_has_its_size_names_no_joint_twice_and_is_itself_mirrored_twice(name):
    assert len(JOINTS[name]) == len(set(JOINTS[name])) == PLACES[name][0]
    other = opposite_joints(name)
    assert [other[i] for i in other] == list(range(len(other)))


def test_every_order_has_its_sides_where_its_tool_has_them():
    assert PLACES.keys() == JOINTS.keys()
    for name, (_, *places) in PLACES.items():
        plain = [joint.lower().removeprefix("op ").removeprefix("smpl_") for joint in JOINTS[name]]
        assert not places or places == [plain.index(joint) for joint in SIDES], name


def test_spin49_is_body_25_then_common14_then_the_pelvis_at_39():
    assert JOINTS["spin49"][:25] == JOINTS["body_25"]
    assert JOINTS["spin49"][25:39] == JOINTS["common14"]
    assert correspondence("spin49", "common14")[0] == list(range(25, 39))
    assert JOINTS["spin49"].index("hip") == 39


def test_smpl_joints_go_to_spin49_by_the_published_indices():
    take, put = correspondence("smpl54", "spin49")
    assert take == SMPL_TO_SPIN49
    assert put == list(range(49))


@pytest.mark.parametrize("source", ["smpl", JOINTS["smpl54"][:24]])
def test_smpls_own_24_joints_go_where_they_go_among_the_54(source):
    known = [(take, put) for put, take in enumerate(SMPL_TO_SPIN49) if take < 24]
    assert list(zip(*correspondence(source, "spin49"), strict=True)) == known


@pytest.mark.parametrize("name", [name for name in JOINTS if name not in WITHOUT_PLACE])
def test_conversion_to_spin49_and_back_loses_nothing(name):
    there = convert(labelled(name), source=name, target="spin49")
    assert_array_equal(convert(there, source="spin49", target=name), labelled(name))


@given(st.sampled_from(sorted(JOINTS)), st.lists(st.integers(0, 3), max_size=3), st.integers(1, 4))
def test_conversion_keeps_leading_axes_channels_and_type(name, leading, channels):
    keypoints = np.ones((*leading, PLACES[name][0], channels), np.float32)
    out = convert(keypoints, source=name, target="spin49")
    assert out.shape == (*leading, 49, channels)
    assert out.dtype == np.float32


def test_conversion_leaves_its_input_alone():
    keypoints = labelled("coco")
    convert(keypoints, source="coco", target="coco")[:] = 7
    assert_array_equal(keypoints, labelled("coco"))


def test_wrong_numbers_of_joints_unknown_skeletons_doubled_names_and_nothing_in_common_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 17, 3\), expected \(..., 13, C\)"):
        convert(np.zeros((4, 17, 3)), source="penn_action", target="spin49")
    with pytest.raises(ValueError, match="no joint"):
        convert(np.ones((1, 2, 3)), source=("left_hand", "right_hand"), target="spin49")
    with pytest.raises(ValueError, match="no skeleton is called 'lsp'; known: spin49"):
        joint_names("lsp")
    with pytest.raises(ValueError, match="occurs twice"):
        joint_names(("nose", "nose"))


@pytest.mark.parametrize("name", ["spin49", "penn_action", "body_25", "coco", "common14"])
def test_bones_join_joints_of_the_skeleton_and_mirror_onto_bones(name):
    lines, other = {frozenset(pair) for pair in bones(name)}, opposite_joints(name)
    assert len(lines) == len(bones(name)) > 5
    assert {frozenset(other[i] for i in line) for line in lines} == lines


def test_a_joint_that_is_not_finite_becomes_zero_and_is_counted():
    keypoints = np.array(
        [[[1, 2, 1], [np.nan, 2, 1], [3, np.inf, 1], [4, 5, np.nan], [1e30, 5, 1]]]
    )
    clean, n_bad = zero_invalid_joints(keypoints)
    assert_array_equal(clean, [[[1, 2, 1], *[[0, 0, 0]] * 4]])
    assert n_bad == 4
    assert np.isnan(keypoints).any()  # the input is as it was


def test_a_point_of_the_13_that_is_not_labelled_by_its_own_name_is_openposes():
    kp = np.zeros((49, 3), np.float32)
    names = joint_names("spin49")
    kp[names.index("OP RAnkle")] = (3, 4, 0.5)
    kp[names.index("lankle")], kp[names.index("OP LAnkle")] = (5, 6, 0.7), (7, 8, 0.9)
    by_name = dict(zip(KEYPOINTS_13, keypoints_13(kp).tolist(), strict=True))
    assert by_name["rankle"] == [3, 4, 0.5]
    assert by_name["lankle"] == pytest.approx([5, 6, 0.7])
