"""The networks as published: `networks` of the records tests/golden/models/NAME.json has the name
and the shape of every tensor.
"""

import pytest
import torch

from tests.vibe_model.builders import TinyBody
from vibe_model import VIBE, MotionDiscriminator
from vibe_model.hmmr.generator import HMMR
from vibe_model.hmmr.training import PoseDiscriminator
from vibe_model.part_dynamics.generator import PartDynamics
from vibe_model.part_dynamics.pr_vipe.network import PrVIPE
from vibe_model.vibe.mposer import MPoser

NETWORKS = {
    "vibe": lambda body: [VIBE(body), MotionDiscriminator()],
    "mposer": lambda body: [MPoser()],
    "hmmr": lambda body: [HMMR(body), PoseDiscriminator()],
    "part_dynamics": lambda body: [PartDynamics(body), PartDynamics(body, regions=1)],
    "pose_embedding": lambda body: [PrVIPE()],
}


@pytest.mark.parametrize("model", NETWORKS)
def test_every_tensor_has_the_published_name_and_shape(model, record):
    body = TinyBody()
    made = {}
    with torch.device("meta"):  # hundreds of millions of numbers that are not needed
        networks = NETWORKS[model](body)
    for network in networks:
        n_numbers = sum(parameter.numel() for parameter in network.parameters())
        tensors = {name: [*tensor.shape] for name, tensor in network.state_dict().items()}
        made[f"{type(network).__name__}: {n_numbers:,} parameters"] = tensors
    record(f"models/{model}", "networks").check(made)
