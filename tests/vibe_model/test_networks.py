"""The networks as published: tests/golden/networks.txt has the name and the shape of every tensor."""

import torch

from tests.vibe_model.builders import TinyBody
from vibe_model import VIBE, MotionDiscriminator
from vibe_model.hmmr.generator import HMMR
from vibe_model.hmmr.training import PoseDiscriminator
from vibe_model.part_dynamics.generator import PartDynamics
from vibe_model.part_dynamics.pr_vipe.network import PrVIPE
from vibe_model.vibe.mposer import MPoser


def test_every_tensor_has_the_published_name_and_shape(golden):
    body = TinyBody()
    with torch.device("meta"):  # hundreds of millions of numbers that are not needed
        networks = [VIBE(body), MotionDiscriminator(), MPoser(), HMMR(body), PoseDiscriminator()]
        networks += [PartDynamics(body), PartDynamics(body, regions=1), PrVIPE()]
    with golden("networks", None, {}) as show:
        for network in networks:
            n_numbers = sum(parameter.numel() for parameter in network.parameters())
            show.add(f"# {type(network).__name__}: {n_numbers:,} parameters\n")
            for name, tensor in network.state_dict().items():
                show.add(f"{name} {tuple(tensor.shape)}\n")
