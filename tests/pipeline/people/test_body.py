"""The torch body against SMPL's equations written out, and its other promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pipeline.extras.demo.body import VERTEX_IDS, procedural
from pipeline.people.body import Body
from pipeline.people.skeletons import correspondence
from tests.oracles.body import smpl_paper

COMMON14_OF_H36M = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]
VERTEX_JOINTS = ["nose", "reye", "leye", "rear", "lear", "lbigtoe", "lsmalltoe", "lheel"]
VERTEX_JOINTS += ["rbigtoe", "rsmalltoe", "rheel"]
VERTEX_JOINTS += [
    side + finger for side in "lr" for finger in ("thumb", "index", "middle", "ring", "pinky")
]


@pytest.fixture(scope="module")
def body():
    return Body.stand_in()


def random_inputs(n):
    rng = np.random.default_rng(0)
    rotations = (
        Rotation.from_rotvec(rng.normal(0, 0.5, (n * 24, 3))).as_matrix().reshape(n, 24, 3, 3)
    )
    return rng.normal(0, 1, (n, 10)), rotations, rng.normal(0, 2, (n, 3))


def tensors(*arrays):
    return [torch.tensor(array, dtype=torch.float32) for array in arrays]


@pytest.mark.parametrize("gender", ["neutral", "female"])
def test_vertices_and_joints_follow_the_equations_of_the_paper(gender):
    betas, rotations, trans = random_inputs(3)
    arrays = procedural(gender)
    b, r, t = tensors(betas, rotations, trans)
    # held by test_skeletons: 45 joints of smplx, then 9 of J_regressor_extra
    order, _ = correspondence("smpl54", "spin49")
    out = Body.stand_in(gender)(betas=b, rotmat=r, trans=t)
    assert out.verts.shape == (3, 6890, 3)
    assert out.joints.shape == (3, 49, 3)
    assert out.verts.dtype == out.joints.dtype == torch.float32
    for k in range(3):
        verts, joints24 = smpl_paper(arrays, betas[k], rotations[k])
        picked = verts[[VERTEX_IDS[name] for name in VERTEX_JOINTS]]
        joints = np.concatenate([joints24, picked, arrays.J_regressor_extra @ verts])[order]
        assert_allclose(out.verts[k].numpy(), verts + trans[k], atol=1e-5)
        assert_allclose(out.joints[k].numpy(), joints + trans[k], atol=1e-5)


def test_joints_for_evaluation_come_from_the_vertices_in_lsp_order(body):
    betas, rotations, _ = random_inputs(2)
    verts = body(betas=tensors(betas)[0], rotmat=tensors(rotations)[0]).verts
    expected = np.einsum("jv,bvc->bjc", procedural().J_regressor_h36m, verts.numpy().astype(float))
    assert_allclose(body.h36m17(verts).numpy(), expected, atol=1e-5)
    assert_allclose(body.common14(verts).numpy(), expected[:, COMMON14_OF_H36M], atol=1e-5)


def test_a_checkpoint_of_a_model_that_has_a_body_holds_none_of_it(body):
    model = torch.nn.ModuleDict({"body": body, "head": torch.nn.Linear(2, 2)})
    assert set(model.state_dict()) == {"head.weight", "head.bias"}
    assert list(body.parameters()) == []
    model.load_state_dict(model.state_dict())


def test_all_of_the_body_moves_with_it(body):
    moved = Body.stand_in().to("meta")
    assert {buffer.device.type for buffer in moved.buffers()} == {"meta"}
    assert {"faces", "mean_pose", "mean_shape", "mean_cam"} <= dict(moved.named_buffers()).keys()
    assert {buffer.device.type for buffer in body.buffers()} == {"cpu"}, "and no other body with it"


@pytest.mark.parametrize("dense", [False, True])
def test_joints_alone_and_their_gradients_are_those_of_the_vertices(dense):
    arrays = procedural()
    if dense:  # regressors of real files may be
        rng = np.random.default_rng(0)
        noise = {
            name: rng.random((n, 6890)) / 6890
            for name, n in (("J_regressor_extra", 9), ("J_regressor_h36m", 17))
        }
        arrays = replace(
            arrays, **{name: 0.5 * (getattr(arrays, name) + extra) for name, extra in noise.items()}
        )
    body = Body(arrays, Body.stand_in)
    torch.manual_seed(0)
    betas, rotations, _ = tensors(*random_inputs(3))
    inputs = betas.requires_grad_(), rotations.requires_grad_()
    posed = body(betas=betas, rotmat=rotations)
    for order, expected in (("spin49", posed.joints), ("common14", body.common14(posed.verts))):
        found = body.joints(betas=betas, rotmat=rotations, order=order)
        torch.testing.assert_close(found, expected, atol=3e-6, rtol=0)
        toward = torch.randn_like(expected)
        sums = ((joints * toward).sum() for joints in (found, expected))
        for ours, theirs in zip(
            *(torch.autograd.grad(s, inputs, retain_graph=True) for s in sums), strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-5 * theirs.abs().max().item(), rtol=0)
