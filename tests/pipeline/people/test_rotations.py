import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from pipeline.people.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    nearest_rotations,
    rotation_6d_to_matrix,
)

ANGLES = [0.0, 1e-9, 1e-6, 1e-4, 3e-4, 1e-3, 0.1, 1.0, 3.0, math.pi - 1e-3, math.pi - 1e-6, math.pi]
AXES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [-1, 2, 3], [0.1, -5, 0.2]], float)
AXES /= np.linalg.norm(AXES, axis=1, keepdims=True)
vectors = st.lists(st.floats(-3, 3), min_size=3, max_size=3)


@pytest.mark.parametrize("angle", ANGLES)
def test_axis_angle_and_matrix_become_one_another_as_scipy_has_it(angle):
    vector = AXES * angle
    matrix = Rotation.from_rotvec(vector).as_matrix()
    assert_allclose(axis_angle_to_matrix(torch.tensor(vector)), matrix, atol=1e-12)
    ours = matrix_to_axis_angle(torch.tensor(matrix)).numpy()  # the principal one
    if angle == math.pi:  # both axes are right: take the one that scipy was given
        ours = ours * np.sign((ours * vector).sum(1, keepdims=True))
    assert_allclose(ours, vector, atol=1e-7)


@given(vectors)
@settings(max_examples=60, deadline=None)
def test_float32_rotations_survive_the_way_there_and_back(vector):
    matrix = torch.tensor(Rotation.from_rotvec(vector).as_matrix(), dtype=torch.float32)
    axis_angle = matrix_to_axis_angle(matrix)
    assert axis_angle.norm() <= math.pi + 1e-5
    torch.testing.assert_close(axis_angle_to_matrix(axis_angle), matrix, atol=2e-6, rtol=0)
    # of two of its columns
    torch.testing.assert_close(rotation_6d_to_matrix(matrix[:, :2].reshape(6)), matrix)


@pytest.mark.parametrize("angle", ANGLES)
def test_gradients_are_finite_everywhere(angle):
    vector = torch.tensor(AXES * angle, dtype=torch.float32, requires_grad=True)
    matrix = axis_angle_to_matrix(vector)
    (gradient,) = torch.autograd.grad(matrix.square().sum() + matrix.sum(), vector)
    assert torch.isfinite(gradient).all()
    matrix = matrix.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(matrix_to_axis_angle(matrix).sum(), matrix)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() < 100


@pytest.mark.parametrize("angle", [0.0, 1e-5, 3.16e-4, 0.5, 2.5, math.pi - 1e-2])
def test_the_jacobian_of_the_way_there_and_back_is_the_identity(angle):
    vector = torch.tensor(AXES[4] * angle)
    jacobian = torch.autograd.functional.jacobian(
        lambda v: matrix_to_axis_angle(axis_angle_to_matrix(v)), vector
    )
    assert_allclose(jacobian, np.eye(3), atol=1e-6)


def test_6d_interleaves_two_columns_of_the_matrix():
    # Rows of a (3, 2) matrix: the columns are (2, 0, 0) and (1, 3, 0), orthonormal x and y.
    torch.testing.assert_close(
        rotation_6d_to_matrix(torch.tensor([2.0, 1, 0, 3, 0, 0])), torch.eye(3)
    )
    # Columns (0, 0, 5) and (0, -1, 1): x = e3, y = -e2, z = x cross y = e1.
    expected = torch.tensor([[0.0, 0, 1], [0, -1, 0], [1, 0, 0]])
    torch.testing.assert_close(rotation_6d_to_matrix(torch.tensor([0.0, 0, 0, -1, 5, 1])), expected)


def test_the_nearest_rotation_is_scipys_also_to_a_matrix_that_mirrors():
    matrices = np.random.default_rng(0).normal(size=(20, 3, 3))
    assert 0 < (np.linalg.det(matrices) < 0).sum() < 20
    expected = [Rotation.align_vectors(matrix.T, np.eye(3))[0].as_matrix() for matrix in matrices]
    assert_allclose(nearest_rotations(matrices), expected, atol=1e-6)
