"""Joint orders, and conversion between them by joint name.  raw -> [tracks] -> features -> windows

A name is one point of the body: "OP Neck" (OpenPose's, between the shoulders), "neck" (LSP's, the
head's lower end) and "thorax" are three points and never replace each other.

Sources. Orders of 2D joints were compared name by name with mmpose 1.3.2 (configs/_base_/datasets)
and mmhuman3d 0.11.0 (core/conventions/keypoints_mapping):

    coco, coco_feet             coco.py and coco_wholebody.py; also ultralytics 8.4 coco-pose.yaml
    body_25, body_25b           OpenPose's poseParameters.cpp: BODY_25, and the first 25 of BODY_135
    openpose_coco               the same, COCO; coco_openpose.py
    coco_neck                   DWPose before it reorders: controlnet_aux 0.0.10 dwpose/wholebody.py
    halpe_26                    halpe26.py; pose2sim 0.10.49 skeletons.py
    posetrack, penn_action      posetrack18.py; penn_action.py
    insta_variety, spin49       instavariety.py; smpl.py: SMPL_49, which is SPIN's
    mpi_inf_3dhp, ..._test      mpi_inf_3dhp.py: 28 and 17
    h36m                        h36m.py of mmhuman3d; SPIN's J_regressor_h36m
    h36m_lifters                h36m.py of mmpose; VideoPose3D, MotionBERT
    smpl, smpl54                smpl.py; smplx 0.1.28 joint_names.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Array as Array
from cache.arrays import Bools as Bools
from cache.arrays import Doubles as Doubles
from cache.arrays import Ints as Ints
from pipeline.files.numbers import LARGEST as LARGEST
from pipeline.files.numbers import Float32s as Float32s
from pipeline.files.numbers import Floats as Floats
from pipeline.files.numbers import Number as Number
from pipeline.files.numbers import are_usable_numbers as are_usable_numbers
from pipeline.people.joint_spellings import SPELLINGS, correct_spelling, joint_called
from pipeline.people.joint_values import add_confidence as add_confidence
from pipeline.people.joint_values import corners_of as corners_of
from pipeline.people.joint_values import zero_invalid_joints as zero_invalid_joints

Skeleton = str | Sequence[str]  # a key of JOINTS, or the joint names themselves, read from a file

# Joints of both sides of the body: in orders, "l" or "r" stands before them.
SIDED_JOINTS: Final = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
# The two ends of each limb, on either side -> its length in m in an adult.
LIMBS: Final[Mapping[tuple[str, str], float]] = {
    ("shoulder", "elbow"): 0.3,
    ("elbow", "wrist"): 0.27,
    ("hip", "knee"): 0.43,
    ("knee", "ankle"): 0.43,
}

# Parts of several orders
_BOTH_SIDES: Final = (
    "lshoulder", "rshoulder", "lelbow", "relbow", "lwrist", "rwrist",
    "lhip", "rhip", "lknee", "rknee", "lankle", "rankle",
)  # fmt: skip
_RIGHT_FIRST: Final = (
    "rshoulder", "relbow", "rwrist", "lshoulder", "lelbow", "lwrist",
    "rhip", "rknee", "rankle", "lhip", "lknee", "lankle",
)  # fmt: skip
_FEET: Final = (
    "OP LBigToe", "OP LSmallToe", "OP LHeel", "OP RBigToe", "OP RSmallToe", "OP RHeel",
)  # fmt: skip
_H36M_UPPER_BODY: Final = (
    "Spine (H36M)", "neck", "Head (H36M)", "headtop",
    "lshoulder", "lelbow", "lwrist", "rshoulder", "relbow", "rwrist",
)  # fmt: skip

_BODY_25: Final = (
    "OP Nose", "OP Neck",
    "OP RShoulder", "OP RElbow", "OP RWrist", "OP LShoulder", "OP LElbow", "OP LWrist",
    "OP MidHip", "OP RHip", "OP RKnee", "OP RAnkle", "OP LHip", "OP LKnee", "OP LAnkle",
    "OP REye", "OP LEye", "OP REar", "OP LEar",
    *_FEET,
)  # fmt: skip
_COCO: Final = ("nose", "leye", "reye", "lear", "rear", *_BOTH_SIDES)
_HALPE_26: Final = (
    *_COCO, "headtop", "OP Neck", "OP MidHip",
    "OP LBigToe", "OP RBigToe", "OP LSmallToe", "OP RSmallToe", "OP LHeel", "OP RHeel",
)  # fmt: skip
_COMMON_14: Final = (
    "rankle", "rknee", "rhip", "lhip", "lknee", "lankle",
    "rwrist", "relbow", "rshoulder", "lshoulder", "lelbow", "lwrist", "neck", "headtop",
)  # fmt: skip
_H36M_AND_FACE: Final = (
    "hip", "thorax", "Spine (H36M)", "Jaw (H36M)", "Head (H36M)",
    "nose", "leye", "reye", "lear", "rear",
)  # fmt: skip

_SMPL: Final = (  # its 24 joints
    "smpl_pelvis", "smpl_lhip", "smpl_rhip", "smpl_spine1",
    "smpl_lknee", "smpl_rknee", "smpl_spine2",
    "smpl_lankle", "smpl_rankle", "smpl_spine3",
    "smpl_lfoot", "smpl_rfoot", "smpl_neck", "smpl_lcollar", "smpl_rcollar", "smpl_head",
    "smpl_lshoulder", "smpl_rshoulder", "smpl_lelbow", "smpl_relbow",
    "smpl_lwrist", "smpl_rwrist", "smpl_lhand", "smpl_rhand",
)  # fmt: skip

JOINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "spin49": _BODY_25 + _COMMON_14 + _H36M_AND_FACE,
    "common14": _COMMON_14,
    "body_25": _BODY_25,
    # 18, as OpenPose writes 54 numbers
    "openpose_coco": tuple(name for name in _BODY_25[:19] if name != "OP MidHip"),
    "penn_action": ("headtop", *_BOTH_SIDES),
    "coco": _COCO,
    "coco_neck": (*_COCO, "OP Neck"),  # 18, as converters to OpenPose's order of COCO write it
    "body_25b": (
        "OP Nose", "OP LEye", "OP REye", "OP LEar", "OP REar",
        "OP LShoulder", "OP RShoulder", "OP LElbow", "OP RElbow", "OP LWrist", "OP RWrist",
        "OP LHip", "OP RHip", "OP LKnee", "OP RKnee", "OP LAnkle", "OP RAnkle",
        "neck", "headtop",  # MPII's, the head's lower and upper end
        *_FEET,
    ),
    "halpe_26": _HALPE_26,
    "coco_feet": _COCO + _FEET,  # how COCO-WholeBody begins; face and hands follow
    # the usual order; a file's own `categories` decide
    "posetrack": ("nose", "neck", "headtop", "lear", "rear", *_BOTH_SIDES),
    "insta_variety": (
        "OP RHeel", "OP RKnee", "OP RHip", "OP LHip", "OP LKnee", "OP LHeel",
        "OP RWrist", "OP RElbow", "OP RShoulder", "OP LShoulder", "OP LElbow", "OP LWrist",
        "OP Neck", "headtop", "OP Nose", "OP LEye", "OP REye", "OP LEar", "OP REar",
        "OP LBigToe", "OP RBigToe", "OP LSmallToe", "OP RSmallToe", "OP LAnkle", "OP RAnkle",
    ),
    "mpi_inf_3dhp": (
        "spine3", "spine4", "spine2", "Spine (H36M)", "hip", "neck", "Head (H36M)", "headtop",
        "left_clavicle", "lshoulder", "lelbow", "lwrist", "left_hand",
        "right_clavicle", "rshoulder", "relbow", "rwrist", "right_hand",
        "lhip", "lknee", "lankle", "left_foot", "left_toe", "rhip", "rknee", "rankle",
        "right_foot", "right_toe",
    ),
    "mpi_inf_3dhp_test": (
        "headtop", "neck", *_RIGHT_FIRST, "hip", "Spine (H36M)", "Head (H36M)",
    ),
    "h36m": (  # SPIN's: also the rows of J_regressor_h36m; the left leg first
        "hip", "lhip", "lknee", "lankle", "rhip", "rknee", "rankle", *_H36M_UPPER_BODY,
    ),
    "h36m_lifters": (  # the release's own order, of the same 17 joints: the right leg first
        "hip", "rhip", "rknee", "rankle", "lhip", "lknee", "lankle", *_H36M_UPPER_BODY,
    ),
    "3dpw": ("nose", "thorax", *_RIGHT_FIRST),  # the first 14 of 18
    "smpl": _SMPL,
    "smpl54": (  # smplx's 45 output joints of SMPL, then the 9 rows of J_regressor_extra
        *_SMPL,
        "vertex_nose", "vertex_reye", "vertex_leye", "vertex_rear", "vertex_lear", "vertex_lbigtoe",
        "vertex_lsmalltoe", "vertex_lheel", "vertex_rbigtoe", "vertex_rsmalltoe", "vertex_rheel",
        "vertex_lthumb", "vertex_lindex", "vertex_lmiddle", "vertex_lring", "vertex_lpinky",
        "vertex_rthumb", "vertex_rindex", "vertex_rmiddle", "vertex_rring", "vertex_rpinky",
        "extra_rhip", "extra_lhip", "extra_neck", "extra_headtop", "extra_pelvis",
        "extra_thorax", "extra_spine", "extra_jaw", "extra_head",
    ),
}  # fmt: skip

_ALL_NAMES: Final = frozenset(name for names in JOINTS.values() for name in names)

# Which point of the body model (smpl, smpl54) stands for which joint. One model point may stand for
# two (ankles, knees, shoulders). No other order has these points.
_SMPL_POINT: Final[Mapping[str, str]] = {
    "OP Nose": "vertex_nose", "OP Neck": "smpl_neck", "OP MidHip": "smpl_pelvis",
    "OP RShoulder": "smpl_rshoulder", "OP RElbow": "smpl_relbow", "OP RWrist": "smpl_rwrist",
    "OP LShoulder": "smpl_lshoulder", "OP LElbow": "smpl_lelbow", "OP LWrist": "smpl_lwrist",
    "OP RHip": "smpl_rhip", "OP RKnee": "smpl_rknee", "OP RAnkle": "smpl_rankle",
    "OP LHip": "smpl_lhip", "OP LKnee": "smpl_lknee", "OP LAnkle": "smpl_lankle",
    "OP REye": "vertex_reye", "OP LEye": "vertex_leye",
    "OP REar": "vertex_rear", "OP LEar": "vertex_lear",
    "OP LBigToe": "vertex_lbigtoe", "OP LSmallToe": "vertex_lsmalltoe", "OP LHeel": "vertex_lheel",
    "OP RBigToe": "vertex_rbigtoe", "OP RSmallToe": "vertex_rsmalltoe", "OP RHeel": "vertex_rheel",
    "rankle": "smpl_rankle", "rknee": "smpl_rknee", "rhip": "extra_rhip",
    "lhip": "extra_lhip", "lknee": "smpl_lknee", "lankle": "smpl_lankle",
    "rwrist": "smpl_rwrist", "relbow": "smpl_relbow", "rshoulder": "smpl_rshoulder",
    "lshoulder": "smpl_lshoulder", "lelbow": "smpl_lelbow", "lwrist": "smpl_lwrist",
    "neck": "extra_neck", "headtop": "extra_headtop",
    "hip": "extra_pelvis", "thorax": "extra_thorax",
    "Spine (H36M)": "extra_spine", "Jaw (H36M)": "extra_jaw", "Head (H36M)": "extra_head",
    "nose": "vertex_nose", "leye": "vertex_leye", "reye": "vertex_reye",
    "lear": "vertex_lear", "rear": "vertex_rear",
}  # fmt: skip

KEYPOINTS_13: Final = ("nose", *_BOTH_SIDES)  # the joints of a 2D pose that Pr-VIPE reads
_OPENPOSE_13: Final = (  # OpenPose's points for the same joints. A dataset labels either kind.
    "OP Nose", "OP LShoulder", "OP RShoulder", "OP LElbow", "OP RElbow", "OP LWrist", "OP RWrist",
    "OP LHip", "OP RHip", "OP LKnee", "OP RKnee", "OP LAnkle", "OP RAnkle",
)  # fmt: skip
# Indices in spin49. SMPL's joint 0, the centre of its global orientation:
PELVIS: Final = JOINTS["spin49"].index("OP MidHip")
# Regressed from the body's surface; 3D joints are stored relative to it:
HIP: Final = JOINTS["spin49"].index("hip")
KEYPOINTS_13_OF_SPIN49: Final = (  # by the joints' own names, and OpenPose's points
    tuple(map(JOINTS["spin49"].index, KEYPOINTS_13)),
    tuple(map(JOINTS["spin49"].index, _OPENPOSE_13)),
)

# Lines between joints, for drawing. A skeleton shows those whose two ends it has.
LINES: Final = (
    ("OP Nose", "OP Neck"), ("OP Nose", "OP REye"), ("OP Nose", "OP LEye"), ("OP REye", "OP REar"),
    ("OP LEye", "OP LEar"), ("OP Neck", "OP RShoulder"), ("OP RShoulder", "OP RElbow"),
    ("OP RElbow", "OP RWrist"), ("OP Neck", "OP LShoulder"), ("OP LShoulder", "OP LElbow"),
    ("OP LElbow", "OP LWrist"), ("OP Neck", "OP MidHip"), ("OP MidHip", "OP RHip"),
    ("OP RHip", "OP RKnee"), ("OP RKnee", "OP RAnkle"), ("OP RAnkle", "OP RHeel"),
    ("OP RAnkle", "OP RBigToe"), ("OP RBigToe", "OP RSmallToe"), ("OP MidHip", "OP LHip"),
    ("OP LHip", "OP LKnee"), ("OP LKnee", "OP LAnkle"), ("OP LAnkle", "OP LHeel"),
    ("OP LAnkle", "OP LBigToe"), ("OP LBigToe", "OP LSmallToe"), ("OP RShoulder", "OP RHip"),
    ("OP LShoulder", "OP LHip"), ("OP RHip", "OP LHip"),
    ("rankle", "rknee"), ("rknee", "rhip"), ("lankle", "lknee"), ("lknee", "lhip"),
    ("rhip", "lhip"), ("rwrist", "relbow"), ("relbow", "rshoulder"), ("lwrist", "lelbow"),
    ("lelbow", "lshoulder"), ("rshoulder", "lshoulder"), ("rshoulder", "rhip"),
    ("lshoulder", "lhip"), ("neck", "headtop"), ("hip", "rhip"), ("hip", "lhip"),
    ("hip", "Spine (H36M)"), ("Spine (H36M)", "neck"), ("neck", "Head (H36M)"),
    ("Head (H36M)", "headtop"), ("nose", "leye"), ("nose", "reye"), ("leye", "lear"),
    ("reye", "rear"),
)  # fmt: skip

# How names of joints on the left and on the right begin. The first pair that fits counts, so
# "left_" stands before "l".
_SIDE_PREFIXES: Final = (
    ("OP L", "OP R"),
    ("smpl_l", "smpl_r"),
    ("vertex_l", "vertex_r"),
    ("extra_l", "extra_r"),
    ("left_", "right_"),
    ("mouth_left", "mouth_right"),
    ("l", "r"),
)

BLAZE: Final = """
    nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer left_ear
    right_ear mouth_left mouth_right left_shoulder right_shoulder left_elbow right_elbow left_wrist
    right_wrist left_pinky right_pinky left_index right_index left_thumb right_thumb left_hip
    right_hip left_knee right_knee left_ankle right_ankle left_heel right_heel left_foot_index
    right_foot_index
""".split()  # noqa: SIM905 - BlazePose's 33 points
# Shoulders, elbows, wrists, hips, knees, ankles, each left, then right
COCO_12: Final = [*range(5, 17)]  # of COCO's 17 joints
BLAZE_12: Final = [*range(11, 17), *range(23, 29)]  # of BLAZE


def joint_names(skeleton: Skeleton) -> tuple[str, ...]:
    """The joints in order. Raises ValueError for an unknown skeleton and for a repeated name."""
    if isinstance(skeleton, str):
        if skeleton not in JOINTS:
            raise ValueError(f"no skeleton is called {skeleton!r}; known: {', '.join(JOINTS)}")
        return JOINTS[skeleton]
    names = tuple(skeleton)
    if len(set(names)) != len(names):
        raise ValueError(f"a joint name occurs twice: {names}")
    return names


def coco_name(joint: str) -> str:
    """COCO's own name of a joint.

    >>> coco_name("leye"), coco_name("nose")
    ('left_eye', 'nose')
    """
    if joint == "nose":
        return joint
    side = "left" if joint[0] == "l" else "right"
    return f"{side}_{joint[1:]}"


def correspondence(source: Skeleton, target: Skeleton) -> tuple[list[int], list[int]]:
    """Match the joints of two skeletons by name: (take, put).

    Joint `take[i]` of the source is joint `put[i]` of the target. Joints that the source does not
    have are missing in `put`. A body model's point (_SMPL_POINT) stands for a joint. Raises
    ValueError for a name in the source that is COCO's of a joint that it lacks, or such a joint's
    name but for one letter.

    >>> correspondence("h36m", "common14")[0]  # rows of J_regressor_h36m
    [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]
    """
    position = {name: i for i, name in enumerate(joint_names(source))}
    names = joint_names(target)
    _refuse_spellings(position, names)
    for joint, point in _SMPL_POINT.items():
        if point in position:
            position.setdefault(joint, position[point])
    put = [i for i, name in enumerate(names) if name in position]
    return [position[names[i]] for i in put], put


def _refuse_spellings(source: Mapping[str, int], target: Sequence[str]) -> None:
    """Raise ValueError for a name in `source` that is not ours, if it is COCO's of a joint that the
    source lacks, or COCO's or that of `target` but for one letter.
    """
    unknown = source.keys() - _ALL_NAMES
    if not unknown:
        return
    spellings = {**SPELLINGS, **dict(zip(target, target, strict=True))}
    missing = {spelling: joint for spelling, joint in spellings.items() if joint not in source}
    for name in sorted(unknown):
        joint = joint_called(name) or missing.get(correct_spelling(name, missing) or "")
        if joint is not None and joint not in source:
            raise ValueError(f"no joint is called {name!r}: write {joint}")


def convert(keypoints: NDArray[Number], *, source: Skeleton, target: Skeleton) -> NDArray[Number]:
    """Reorder joints (..., J, C) from the order `source` to `target`; a new array of one dtype.

    Joints that the source does not have are all zero, so their confidence is 0. Raises ValueError
    if J is not the source's number of joints, if the two have no joint in common, and for names as
    `correspondence` does.
    """
    take, put = correspondence(source, target)
    names = joint_names(source)
    if keypoints.ndim < 2 or keypoints.shape[-2] != len(names):
        raise ValueError(
            f"keypoints are {keypoints.shape}, expected (..., {len(names)}, C): the number of "
            f"joints of {source}"
        )
    if not take:
        first = ", ".join(joint_names(target)[:3])
        raise ValueError(
            f"no joint of {source} is one of {target}'s: expected names as {first}; found "
            f"{names[:3]}"
        )
    n_joints = len(joint_names(target))
    shape = (*keypoints.shape[:-2], n_joints, keypoints.shape[-1])
    converted = np.zeros(shape, keypoints.dtype)
    converted[..., put, :] = keypoints[..., take, :]
    return converted


def keypoints_13(kp: NDArray[Number]) -> NDArray[Number]:
    """Select KEYPOINTS_13, (..., 13, C), from joints (..., 49, C) in spin49.

    The last of the C numbers is a confidence. A joint by its own name is used if its confidence is
    above 0, else OpenPose's point.
    """
    own_names, openpose_names = KEYPOINTS_13_OF_SPIN49
    named = kp[..., list(own_names), :]
    openpose = kp[..., list(openpose_names), :]
    return np.where(named[..., -1:] > 0, named, openpose)


def bones(skeleton: Skeleton) -> list[tuple[int, int]]:
    """Pairs of joint indices between which to draw a line."""
    position = {name: i for i, name in enumerate(joint_names(skeleton))}
    return [(position[a], position[b]) for a, b in LINES if a in position and b in position]


def limbs_of(skeleton: Skeleton) -> list[tuple[int, int]]:
    """Pairs of joint indices: the two ends of each limb, left and right. Raises ValueError for a
    skeleton without one of them.
    """
    names = list(joint_names(skeleton))
    pairs = []
    for start, end in LIMBS:
        pairs += [(names.index(side + start), names.index(side + end)) for side in "lr"]
    return pairs


def opposite_joints(skeleton: Skeleton) -> list[int]:
    """Index of each joint's counterpart on the other side of the body, or of the joint itself.

    >>> [JOINTS["penn_action"][i] for i in opposite_joints("penn_action")][:3]
    ['headtop', 'rshoulder', 'lshoulder']
    """
    names = joint_names(skeleton)
    position = {name: i for i, name in enumerate(names)}
    # a joint whose mirrored name is no joint is its own counterpart
    return [position.get(_other_side(name), i) for i, name in enumerate(names)]


def _other_side(name: str) -> str:
    """A joint's name with the other side's prefix.

    A name without a side may give one that is no joint: "root" gives "loot".
    """
    for left, right in _SIDE_PREFIXES:
        if name.startswith(left):
            return right + name.removeprefix(left)
        if name.startswith(right):
            return left + name.removeprefix(right)
    return name
