"""The procedural body: a closed, symmetric surface that moves like a person, with SMPL's
numbers.
"""

import runpy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.extras.demo import body
from pipeline.extras.demo.body import skin
from pipeline.people.skeletons import JOINTS

BODY = body.procedural()
MIRROR = np.array([-1.0, 1.0, 1.0])
NUMBER = {name.removeprefix("smpl_"): k for k, name in enumerate(JOINTS["smpl54"][:24])}


def posed(pose, arrays=BODY):
    return skin(arrays, np.zeros(10), pose, np.zeros((1, 3)))


def test_the_vertices_that_others_pick_by_number_are_smplx_s_and_at_their_places():
    smplx = Path(find_spec("smplx").origin)  # without importing it: it takes torch along
    theirs = runpy.run_path(str(smplx.with_name("vertex_ids.py")))["vertex_ids"]["smplh"]
    assert {name.lower(): number for name, number in theirs.items()} == body.VERTEX_IDS
    v, at = BODY.v_template, {name: BODY.v_template[k] for name, k in body.VERTEX_IDS.items()}
    for name, spot in at.items():
        if name.startswith("l"):
            np.testing.assert_allclose(spot * MIRROR, at[f"r{name[1:]}"], atol=1e-12)
            assert spot[0] > 0.02
    assert at["nose"][2] > at["leye"][2] > at["lear"][2]
    assert at["lbigtoe"][2] > 0.1 > -0.05 > at["lheel"][2]
    assert max(at[name][1] for name in ("lbigtoe", "lsmalltoe", "lheel")) < v[:, 1].min() + 0.05
    assert at["lmiddle"][0] == v[:, 0].max()


def test_the_mean_pose_is_a_person_upright_before_a_camera_whose_y_points_down():
    first, second = np.moveaxis(BODY.mean_pose.reshape(24, 3, 2), 2, 0)
    pose = np.stack([first, second, np.cross(first, second)], axis=-1)
    joints = posed(Rotation.from_matrix(pose).as_rotvec().reshape(1, 72)).joints[0]
    at = dict(zip(NUMBER, joints, strict=True))
    assert at["head"][1] < at["pelvis"][1] < at["lknee"][1] < at["lankle"][1]  # y down
    assert at["lfoot"][2] < at["lankle"][2]  # facing the camera, which looks along +z
    assert at["lwrist"][1] > at["lelbow"][1] > at["lshoulder"][1]  # arms hang
    np.testing.assert_allclose(at["lwrist"] * MIRROR, at["rwrist"], atol=1e-7)
