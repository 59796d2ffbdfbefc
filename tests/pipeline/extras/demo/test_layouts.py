"""Demo data as files: what the readers of the official layouts, which read them all, cannot
show.
"""

import pickle
import warnings

import numpy as np
import pytest

from pipeline.extras.demo.body import procedural, rest_joints, skin
from pipeline.extras.demo.files import python2_pickle
from pipeline.extras.demo.layouts import amass


def unpickled(data):
    """What Python 3 makes of a Python 2 pickle, as the release's own scripts read it."""
    with warnings.catch_warnings():
        # NumPy 2 has renamed the module that the files name
        warnings.simplefilter("ignore", DeprecationWarning)
        return pickle.loads(data, encoding="latin1")


def test_python_2_pickles_round_trip_and_hold_nothing_else():
    plain = [1, -2, 2.5, True, None, "x" * 300]
    arrays = (
        np.arange(6.0).reshape(2, 3),
        np.array([True, False]),
        np.zeros((0, 4), np.uint8),
        np.float32([[1.5]]),
    )
    again = unpickled(python2_pickle({"a": plain, "b": (*arrays, np.arange(6).reshape(2, 3).T)}))
    assert again["a"] == plain
    for old, new in zip((*arrays, np.arange(6).reshape(2, 3).T), again["b"], strict=True):
        np.testing.assert_array_equal(old, new)
        assert old.dtype == new.dtype
    for value in ({1, 2}, np.array(["text"]), np.array([None]), object(), 1j):
        with pytest.raises(TypeError, match="3DPW"):
            python2_pickle({"key": value})


def test_turning_a_world_z_up_moves_every_vertex_as_one():
    body, rng = procedural(), np.random.default_rng(0)
    pose, trans, betas = rng.normal(0, 0.3, (1, 72)), rng.normal(0, 1, (1, 3)), rng.normal(0, 1, 10)
    x, y, z = skin(body, betas, pose, trans).verts[0].T
    after = skin(body, betas, *amass._turn_z_up(pose, trans, rest_joints(body, betas)[0])).verts[0]
    np.testing.assert_allclose(after, np.stack([x, -z, y], axis=1), atol=1e-9)
