"""The stream `pr_vipe`: numbers, flags, identity; and in a cache, what is recomputed."""

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from numpy.testing import assert_allclose, assert_array_equal

from pipeline.errors import ConfigError, MissingAssets, RawDataError
from pipeline.features import streams
from pipeline.features.streams.base import Machine
from pipeline.people import skeletons
from vibe_model.part_dynamics.pr_vipe.network import PrVIPE

CPU = Machine(device="cpu")
NAMES = [skeletons.joint_names("spin49").index(name) for name in skeletons.KEYPOINTS_13]


@pytest.fixture
def best(tmp_path):
    """A checkpoint as `TrainPrVIPE` writes it, of a small embedding that was trained on demo
    data.
    """
    torch.manual_seed(3)
    file = tmp_path / "best.pt"
    torch.save(
        {"pr_vipe_state_dict": PrVIPE(hidden=16).state_dict(), "stand_in": True, "epoch": 1}, file
    )
    return file


def of(file):
    return streams.get("pr_vipe").with_weights(file)


def labels(n):
    kp = default_rng(0).normal(size=(n, 49, 3)).astype(np.float32) * 50
    kp[..., 2] = 1
    return kp


def test_a_row_is_the_embedding_of_its_keypoints_wherever_and_however_large(best):
    kp = labels(300)
    values, known = of(best).load(CPU, None)({"kp_2d": kp})
    assert (values.shape, values.dtype, known.all()) == ((300, 64), np.float32, True)
    network = of(best).load_network()
    normalised, _ = PrVIPE.normalise(torch.from_numpy(kp[:, NAMES]))
    assert_allclose(values, torch.cat(network(normalised), dim=1), atol=1e-4)
    kp[..., :2] = kp[..., :2] * 2 + 100
    assert_allclose(of(best).load(CPU, None)({"kp_2d": kp})[0], values, atol=1e-3)


def test_without_a_torso_it_is_the_prior(best):
    kp = labels(2)
    kp[0, [skeletons.joint_names("spin49").index(name) for name in ("lhip", "OP LHip")], 2] = 0
    values, known = of(best).load(CPU, None)({"kp_2d": kp})
    assert known.tolist() == [False, True]
    assert_array_equal(values[0], [0] * 32 + [1] * 32)


def test_its_identity_is_the_weights_content(best, tmp_path):
    stream = of(best)
    assert stream.stand_in  # the checkpoint records it
    other = tmp_path / "elsewhere.pt"
    other.write_bytes(best.read_bytes())
    assert of(other).identity() == stream.identity()
    torch.save({"pr_vipe_state_dict": PrVIPE(hidden=16).state_dict(), "stand_in": False}, other)
    assert of(other).identity() != stream.identity()
    assert not of(other).stand_in
    assert streams.of_identity(stream.identity()) is None
    untrained = streams.get("pr_vipe")
    assert streams.of_identity(untrained.identity()) == untrained
    assert untrained.stand_in
    provenance = stream.load(CPU, None).provenance
    assert (len(provenance["sha256"]), provenance["stand_in"]) == (64, True)


def test_other_files_are_refused(best, tmp_path):
    with pytest.raises(MissingAssets):
        of(tmp_path / "none.pt").load(CPU, None)
    for content in (
        {"gen_state_dict": {}},
        {"pr_vipe_state_dict": PrVIPE(size=16, hidden=8).state_dict()},
    ):
        torch.save(content, best)
        with pytest.raises(RawDataError):
            of(best).load(CPU, None)
    with pytest.raises(ConfigError, match="file:FILE"):
        streams.get("pr_vipe", weights="best.pt")
